"""The seams: one-method protocols that any class can satisfy, ours or a user's.

A backend may also define two things the engine uses when they are there:
``fingerprint: str`` (what decides its answers; else its class path and ``repr``) and
``check() -> None`` (raise :class:`~dnd_core.errors.BackendUnavailable` before a long job starts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import ProbeImage
from dnd_core.types import Candidate

__all__ = ["Captioner", "ConceptImages", "Evidence", "ImageEncoder", "Summarizer", "TextEncoder"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a summarizer reads about one unit (or one meaning of it).

    Attributes:
        captions: captions of the unit's K highest-activating images, highest first.
        contrast: captions of other images (random ones and near misses); may be empty.
        background: phrases' document frequency can be taken over these: captions of the probe at large; may be empty.
        seed: decides the order in which captions are shown.
        meaning: which meaning of the unit the captions belong to.
        activations: the unit's pooled activation on each background image, in that order; may be empty.

    """

    captions: tuple[str, ...]
    contrast: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    seed: int = 0
    meaning: int = 0
    activations: tuple[float, ...] = ()


@runtime_checkable
class Captioner(Protocol):
    """Step 2a: an image into one sentence (paper section 3.2)."""

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One caption an image, in order; an empty string where the model refused or said nothing."""
        ...


@runtime_checkable
class Summarizer(Protocol):
    """Step 2b: captions into candidate labels of one to five words (paper section 3.2)."""

    def propose(self, evidence: Sequence[Evidence], n: int) -> list[list[Candidate]]:
        """Up to ``n`` candidates for each evidence, best first; an empty list where none can be given."""
        ...


@runtime_checkable
class ConceptImages(Protocol):
    """Step 3a: images that show a concept (paper section 3.3)."""

    def show(self, concept: str, n: int) -> list[ProbeImage]:
        """Up to ``n`` images, the same ones for the same concept; fewer where a pool holds fewer."""
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """Images into unit vectors of a CLIP-like space."""

    def encode_images(self, images: Sequence[ProbeImage]) -> NDArray[np.float32]:
        """(N, D) float32 rows of length one."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Texts into unit vectors. In a CLIP-like model they share the images' space."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) float32 rows of length one."""
        ...
