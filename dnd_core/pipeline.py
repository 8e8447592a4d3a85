"""Describe-and-Dissect as one resumable run: probe, caption, propose, select, verify, group.

Each stage reads the one before it from the run store and writes its own result there. A stage's key holds the
keys of the stages it reads, so a changed weight, image, prompt or option recomputes exactly what depends on it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from dnd_core import describing, publishing
from dnd_core.captioning import Progress
from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, NetworkError, ProbeError
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo, resolve
from dnd_core.networks import Network
from dnd_core.protocols import Captioner, ConceptImages, ImageEncoder, Summarizer, TextEncoder
from dnd_core.registry import backend_fingerprint
from dnd_core.store import RunStore, write_atomic
from dnd_core.verification import split
from dnd_core.versions import package_version

__all__ = ["Backends", "Run", "describe", "describe_into", "installed", "settings_of"]

LIBRARIES = (
    "geoaudit",
    "numpy",
    "pillow",
    "scikit-learn",
    "sentence-transformers",
    "torch",
    "torchvision",
    "transformers",
)


def installed(names: Sequence[str]) -> dict[str, str]:
    """Version of every package that is installed, ``unknown`` for the others."""
    return {name: package_version(name) for name in names}


@dataclass(frozen=True)
class Backends:
    """What does the looking, the talking and the showing. Every seam is a one-method protocol.

    Attributes:
        captioner: image to sentence.
        summarizer: captions to candidate labels.
        concept_images: concept to images of the probe's channels and size.
        image_encoder: images to the CLIP-like space of the image-product scores.
        text_encoder: texts to vectors, for meanings, presence and groups.
    """

    captioner: Captioner
    summarizer: Summarizer
    concept_images: ConceptImages
    image_encoder: ImageEncoder
    text_encoder: TextEncoder

    def check(self) -> None:
        """Ask every backend whether it can run here, before anything long starts."""
        for backend in vars(self).values():
            check = getattr(backend, "check", None)
            if check is not None:
                check()

    def fingerprints(self) -> dict[str, str]:
        """What decides each backend's answers."""
        return {name: backend_fingerprint(backend) for name, backend in vars(self).items()}


@dataclass(frozen=True)
class Run:
    """A finished description run, read from its folder.

    Attributes:
        root: the run folder.
        neurons: one row a unit (see ``docs/run-folder.md``).
        layers: the layers described.
        explain, held_out: image indices used in Steps 1-3, and kept for verification.
    """

    root: Path
    neurons: pd.DataFrame
    layers: tuple[LayerInfo, ...]
    explain: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def activations(self, layer: str) -> NDArray[np.float32]:
        """(images, units) pooled activations of a layer, memory-mapped."""
        mapped: NDArray[np.float32] = np.load(self.root / "activations" / f"{layer}.npy", mmap_mode="r")
        return mapped


def describe(
    network: Network,
    images: ImageSet,
    layers: Sequence[str],
    out: Path,
    backends: Backends,
    config: DescribeConfig | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    header: Mapping[str, Any] | None = None,
) -> Run:
    """Label every unit of some layers of a network.

    Args:
        network: the trained network.
        images: the probe set.
        layers: dotted paths or globs; ``output`` is the network's own output.
        out: the run folder; see ``docs/run-folder.md`` for what it will hold.
        backends: captioner, summarizer, concept images and encoders.
        config: settings; the paper's by default.
        resume: go on with a run that is there, recomputing only what its inputs changed.
        progress: called with (stage, done, total).
        header: more facts for the manifest.

    Raises:
        DndError: bad input, an unusable backend, or a folder that cannot be written; nothing half-written remains.
    """
    told = {
        "tool": {"name": "dnd", "version": installed(["geoaudit"])["geoaudit"]},
        "versions": {"python": platform.python_version(), **installed(LIBRARIES)},
    }
    with RunStore(out, resume=resume, header={**told, **(header or {})}) as store:
        return describe_into(store, network, images, layers, backends, config or DescribeConfig(), progress=progress)


def describe_into(
    store: RunStore,
    network: Network,
    images: ImageSet,
    layers: Sequence[str],
    backends: Backends,
    config: DescribeConfig,
    *,
    held_out: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Run:
    """:func:`describe` in a run folder that is already open (an audit adds stages of its own).

    ``held_out`` names the images to verify on; by default they are drawn, whole blocks at a time.
    """
    _check_fit(network, images, config)
    if not layers:
        raise NetworkError(f"no layer of {network.name} was named, so there is no unit to describe: name one or a glob")
    infos = resolve(network, layers)
    backends.check()
    prints = backends.fingerprints()
    explain, held = _split(images, config, held_out)
    store.annotate(
        model={"name": network.name, "fingerprint": network.fingerprint, "class_names": list(network.class_names)},
        probe={
            "images": len(images),
            "fingerprint": images.fingerprint,
            "channels": list(images.channels),
            "shape": list(images.shape),
            "explain": len(explain),
            "held_out": len(held),
        },
        backends=prints,
        seed=config.seed,
    )
    settings = {"layers": [info.name for info in infos], **config.to_dict()}
    write_atomic(store.root / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    context = describing.Context(
        store, network, images, tuple(infos), backends, config, explain, held, progress, prints
    )
    probed = describing.probe_stage(context)
    top = describing.top_stage(context, probed)
    captions = describing.caption_stage(context, top)
    candidates = describing.candidate_stage(context, captions)
    shown = describing.concept_stage(context, candidates)
    selected = describing.selection_stage(context, shown)
    neurons = publishing.verification_stage(context, selected)
    return Run(store.root, neurons, tuple(infos), explain, held)


def _split(
    images: ImageSet, config: DescribeConfig, given: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    everything = np.arange(len(images))
    if not config.verification.enabled:
        return everything, everything[:0]
    if given is not None:
        held_out = np.unique(given)
        explain = np.setdiff1d(everything, held_out)
    else:
        explain, held_out = split(len(images), images.blocks, config.verification.holdout, config.seed)
    if len(explain) < config.probing.top_k or len(held_out) < 3:
        raise ProbeError(
            f"{len(images)} probe images are too few: {len(explain)} are left to find {config.probing.top_k} top images "
            f"in and {len(held_out)} to verify on{' (whole blocks at a time)' if images.blocks is not None else ''}; "
            "add images, lower probing.top_k, or turn verification off"
        )
    return explain, held_out


def _check_fit(network: Network, images: ImageSet, config: DescribeConfig) -> None:
    if len(images) < config.probing.top_k:
        raise ProbeError(
            f"the probe set has {len(images)} images, fewer than the {config.probing.top_k} top images a unit is "
            "described by: add images or lower probing.top_k"
        )
    if tuple(images.shape) != tuple(network.input_shape):
        raise ProbeError(
            f"the probe's images are {images.shape} (channels, height, width) but {network.name} expects "
            f"{network.input_shape}: choose the chip size and bands the network was trained with"
        )
    if network.channels and images.channels and tuple(network.channels) != tuple(images.channels):
        raise ProbeError(
            f"the probe's channels {', '.join(images.channels)} are not in the order {network.name} expects: "
            f"{', '.join(network.channels)}"
        )


def settings_of(root: Path) -> DescribeConfig:
    """The settings a run was made with.

    Raises:
        ConfigError: ``config.yaml`` is missing or damaged.
    """
    path = root / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): run again") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: run again")
    return DescribeConfig.from_dict({name: value for name, value in values.items() if name != "layers"})
