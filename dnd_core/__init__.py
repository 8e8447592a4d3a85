"""Describe any unit of any vision network in words, and verify what is said (Describe-and-Dissect, Bai et al. 2025).

    from dnd_core import Backends, FolderImages, describe, load

What stands in ``__all__`` is the public face; it is imported when it is first used, so ``import dnd_core`` itself is
instant and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnd_core.backends.assembly import assemble
    from dnd_core.config import (
        CandidateConfig,
        DescribeConfig,
        ProbingConfig,
        SelectionConfig,
        VerificationConfig,
    )
    from dnd_core.errors import DndError
    from dnd_core.folders import FolderImages
    from dnd_core.images import ArrayImages, ImageSet, ProbeImage, Subset
    from dnd_core.layers import list_layers
    from dnd_core.loading import load
    from dnd_core.networks import Network
    from dnd_core.pipeline import Backends, Run, describe
    from dnd_core.protocols import Captioner, ConceptImages, Evidence, ImageEncoder, Summarizer, TextEncoder
    from dnd_core.types import Candidate, Status, UnitId

__all__ = [
    "ArrayImages",
    "Backends",
    "Candidate",
    "CandidateConfig",
    "Captioner",
    "ConceptImages",
    "DescribeConfig",
    "DndError",
    "Evidence",
    "FolderImages",
    "ImageEncoder",
    "ImageSet",
    "Network",
    "ProbeImage",
    "ProbingConfig",
    "Run",
    "SelectionConfig",
    "Status",
    "Subset",
    "Summarizer",
    "TextEncoder",
    "UnitId",
    "VerificationConfig",
    "assemble",
    "describe",
    "list_layers",
    "load",
]

_HOMES = {
    "backends.assembly": ("assemble",),
    "config": ("CandidateConfig", "DescribeConfig", "ProbingConfig", "SelectionConfig", "VerificationConfig"),
    "errors": ("DndError",),
    "folders": ("FolderImages",),
    "images": ("ArrayImages", "ImageSet", "ProbeImage", "Subset"),
    "layers": ("list_layers",),
    "loading": ("load",),
    "networks": ("Network",),
    "pipeline": ("Backends", "Run", "describe"),
    "protocols": ("Captioner", "ConceptImages", "Evidence", "ImageEncoder", "Summarizer", "TextEncoder"),
    "types": ("Candidate", "Status", "UnitId"),
}
_HOME = {name: f"dnd_core.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
