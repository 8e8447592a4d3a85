"""How far measured captions agree with what is known: mapped land use, and artefacts that were painted on.

A phrase is *said* when the caption holds its words; for land use the clause must also claim a third of the tile or
more. Every figure comes with its base rate, the precision a caption would reach by saying the phrase always.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import ProbeImage
from dnd_core.protocols import Captioner
from geoaudit.bands import render_rgb
from geoaudit.perturb import PERTURBATIONS, paint

__all__ = ["ARTEFACT_WORDS", "COVER_WORDS", "Agreement", "artefact_agreement", "as_images", "cover_agreement"]

COVER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "farm": "bare farm fields",
        "forest": "forest",
        "meadow": "dry grassland or meadow",
        "residential": "built-up area with houses",
        "water": "open water",
    }
)
"""The words of a caption that stand for each class of the bundled land-use map in winter."""

ARTEFACT_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "haze": "haze",
        "cloud": "white cloud",
        "stripes_vertical": "vertical stripes",
        "stripes_horizontal": "horizontal stripes",
        "wedge": "nodata wedge",
        "border": "tile border",
        "watermark": "watermark",
        "offset": "brightness offset",
        "colour_cast": "reddish colour cast",
        "quantise": "coarse quantisation",
        "jpeg": "compression blocks",
        "blur": "blurred detail",
        "band_dropout": "missing band",
        "band_swap": "reddish colour cast",
    }
)
"""The words that name each painted artefact. A changed gain has none: one tile cannot tell it from brighter ground."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a phrase agrees with a truth.

    Attributes:
        truth: class or artefact.
        words: what the caption says for it.
        strength: of the artefact; 0 for land use.
        n: tiles looked at.
        base: share of them for which the truth holds.
        precision: share of tiles with the phrase for which the truth holds; nan when it is never said.
        recall: share of tiles for which the truth holds that get the phrase; nan when it holds for none.

    """

    truth: str
    words: str
    strength: float
    n: int
    base: float
    precision: float
    recall: float


def as_images(pixels: NDArray[np.float32], channels: tuple[str, ...]) -> list[ProbeImage]:
    """Probe images of (N, C, H, W) reflectance, drawn with one stretch for all."""
    from geoaudit.bands import Stretch

    stretch = Stretch((0.0, 0.0, 0.0), (0.35, 0.35, 0.35), 0.7)
    pictures = render_rgb(pixels, channels, stretch)
    return [ProbeImage(tile, rgb, channels) for tile, rgb in zip(pixels, pictures, strict=True)]


def cover_agreement(captions: Sequence[str], labels: Sequence[str]) -> list[Agreement]:
    """Captions against one land-use class a tile, for every class of :data:`COVER_WORDS` that occurs."""
    known = np.array(labels)
    rows = []
    for name, words in COVER_WORDS.items():
        large = re.compile(rf"{re.escape(words)} over (?:all|most|half) of")
        said = np.array([bool(large.search(caption)) for caption in captions])
        if (known == name).any():
            rows.append(_agree(name, words, 0.0, said, known == name))
    return rows


def artefact_agreement(
    captioner: Captioner,
    pixels: NDArray[np.float32],
    channels: tuple[str, ...],
    *,
    names: Sequence[str] = tuple(ARTEFACT_WORDS),
    seed: int = 0,
) -> list[Agreement]:
    """Captions of clean tiles and of the same tiles painted, for every artefact and its typical strengths.

    Args:
        captioner: whose captions are judged.
        pixels: (N, C, H, W) clean tiles; half of the tiles compared are painted, so the base rate is 0.5.
        channels: C band names.
        names: artefacts, keys of :data:`ARTEFACT_WORDS`.
        seed: of the painting.

    """
    clean = captioner.caption(as_images(pixels, channels))
    truth = np.arange(2 * len(pixels)) >= len(pixels)
    rows = []
    for name in names:
        words = ARTEFACT_WORDS[name]
        for strength in PERTURBATIONS[name].strengths:
            painted = captioner.caption(as_images(paint(name, pixels, channels, strength, seed), channels))
            said = np.array([words in caption for caption in (*clean, *painted)])
            rows.append(_agree(name, words, strength, said, truth))
    return rows


def _agree(name: str, words: str, strength: float, said: NDArray[np.bool_], holds: NDArray[np.bool_]) -> Agreement:
    precision = float(holds[said].mean()) if said.any() else float("nan")
    recall = float(said[holds].mean()) if holds.any() else float("nan")
    return Agreement(name, words, strength, len(said), float(holds.mean()), precision, recall)
