"""What is installed here, which backends can run, and which weights are present."""

from __future__ import annotations

import importlib
import os
from importlib.metadata import PackageNotFoundError, version

from dnd_core.errors import DndError

__all__ = ["examine"]

PACKAGES = (
    "torch", "torchvision", "torchgeo", "timm", "rasterio", "geopandas", "transformers", "sentence-transformers", "keybert",
    "spyndex", "diffusers", "open_clip_torch", "openai", "gguf", "segmentation-models-pytorch", "streamlit",
)  # fmt: skip

# What each optional backend needs besides the packages that are always there.
BACKENDS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("measured captions (satellite)", "geoaudit.captions", (), "no weights"),
    ("measured captions (RGB)", "dnd_core.backends.measured", (), "no weights"),
    ("contrastive keyphrases", "dnd_core.backends.keyphrases", ("keybert",), "no weights"),
    ("retrieved concept images", "dnd_core.backends.pool", (), "no weights"),
    ("BLIP captions", "dnd_core.backends.blip", ("transformers",), "weights by hub id or local path"),
    ("vision-language captions", "dnd_core.backends.vlm", ("transformers",), "weights by hub id or local path"),
    ("local language model", "dnd_core.backends.local_llm", ("transformers",), "weights by hub id, local path or GGUF"),
    ("OpenAI-compatible endpoint", "dnd_core.backends.openai_compatible", ("openai",), "a base_url, or OPENAI_API_KEY"),
    ("text-to-image", "dnd_core.backends.text_to_image", ("diffusers",), "weights by hub id or local path"),
    ("CLIP", "dnd_core.backends.clip", ("open_clip",), "weights by tag or local path"),
)


def examine() -> tuple[list[str], bool]:
    """Lines for people, and whether the embedded default can do a whole audit."""
    lines = ["packages"]
    for name in PACKAGES:
        try:
            lines.append(f"  {name:<30}{version(name)}")
        except PackageNotFoundError:
            lines.append(f"  {name:<30}not installed")
    lines += ["", "backends"]
    for title, module, needs, weights in BACKENDS:
        lines.append(f"  {title:<30}{_backend(module, needs)}; {weights}")
    text, sound = _weights()
    lines += ["", "weights and data", *text, "", "environment"]
    lines.append(
        f"  {'network':<30}{'model hubs are off (HF_HUB_OFFLINE)' if _offline() else 'model hubs may be asked'}"
    )
    lines.append(f"  {'OPENAI_API_KEY':<30}{'set' if os.environ.get('OPENAI_API_KEY') else 'not set'}")
    lines += ["", "an audit can run here" if sound else "an audit cannot run here: see what is missing above"]
    return lines, sound


def _backend(module: str, needs: tuple[str, ...]) -> str:
    from importlib.util import find_spec

    lacking = [name for name in needs if find_spec(name) is None]
    if lacking:
        return f"cannot run, {', '.join(lacking)} is not installed (pip install 'geoaudit[all]')"
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"cannot run ({error})"
    return "ready"


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").casefold() in ("1", "true", "yes", "on")


def _weights() -> tuple[list[str], bool]:
    from dnd_core.backends.sentences import SentenceEncoder
    from geoaudit import bundled

    lines, sound = [], True
    try:
        SentenceEncoder().check()
        lines.append(f"  {'MiniLM sentence encoder':<30}present, hash as published")
    except DndError as error:
        lines.append(f"  {'MiniLM sentence encoder':<30}{error}")
        sound = False
    for title, look in (("bundled scenes", bundled.scenes), ("bundled classifiers", bundled.checkpoints)):
        try:
            lines.append(f"  {title:<30}{', '.join(look())}")
        except DndError as error:
            lines.append(f"  {title:<30}{error}")
            sound = False
    return lines, sound
