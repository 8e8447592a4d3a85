"""Tiles of the bench: real ones of a scene, with artefacts painted on some, split by whole spatial blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import ArrayImages, ImageSet, Subset
from geoaudit.bands import spyndex_indices
from geoaudit.perturb import paint
from geoaudit.probes.base import Probe

__all__ = ["INDEX_MASKS", "PAINTED", "Parts", "index_masks", "painted_tiles", "parts"]

PAINTED: Mapping[str, float] = {
    "haze": 0.25,
    "stripes_vertical": 0.18,
    "stripes_horizontal": 0.18,
    "border": 0.15,
    "wedge": 0.12,
}
"""Artefacts painted on tiles for analytic units, and on which share of them; independent of each other, but no tile is
striped both ways, as no sensor stripes so."""

INDEX_MASKS: tuple[str, ...] = ("green vegetation", "water", "built-up area")
"""Names of the masks that NDVI, NDWI and NDBI make, as Network Dissection is told them."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A set of tiles split into what explains, verifies, shows concepts and scores; no block is in two of them.

    Attributes:
        probe: tiles units are described on.
        held_out: indices into the probe of those kept for our verification.
        pool: tiles for concept images.
        evaluation: tiles that no method sees.
        probed: indices of the probe's tiles in the whole set.
        evaluated: indices of the evaluation's tiles in the whole set.
    """

    probe: Subset
    held_out: NDArray[np.int64]
    pool: Subset
    evaluation: Subset
    probed: NDArray[np.int64]
    evaluated: NDArray[np.int64]


def parts(images: ImageSet, seed: int, evaluation: float = 0.25) -> Parts:
    """Split a set of tiles: first the evaluation is set aside, then the rest is split as an audit splits it.

    Args:
        images: tiles with blocks.
        seed: decides which blocks go where.
        evaluation: share of the tiles that no method sees.
    """
    from geoaudit.probes.splitting import split

    aside = split(images, {"explain": 1 - evaluation, "pool": 0.0, "holdout": evaluation}, seed=seed)
    rest = Subset(images, aside.explain.tolist())
    dealt = split(rest, {"explain": 0.45, "pool": 0.25, "holdout": 0.3}, seed=seed)
    ours = np.sort(np.concatenate([dealt.explain, dealt.holdout]))
    return Parts(
        Subset(rest, ours.tolist()),
        np.flatnonzero(np.isin(ours, dealt.holdout)).astype(np.int64),
        Subset(rest, dealt.pool.tolist()),
        Subset(images, aside.holdout.tolist()),
        aside.explain[ours],
        aside.holdout,
    )


def painted_tiles(probe: Probe, seed: int, painted: Mapping[str, float] = PAINTED) -> ArrayImages:
    """All tiles of a probe set with artefacts on some of them, kept in memory.

    Args:
        probe: real tiles.
        seed: decides which tiles get which artefact, how strong (half to full strength) and where.
        painted: artefact -> share of tiles that get it.
    """
    pixels = probe.pixels(range(len(probe)))
    rng = np.random.default_rng([seed, 33])
    striped = np.zeros(len(pixels), dtype=bool)
    for name, share in painted.items():
        drawn = rng.random(len(pixels)) < share
        if name.startswith("stripes"):
            drawn &= ~striped
            striped |= drawn
        chosen = np.flatnonzero(drawn)
        strengths = np.round(rng.uniform(0.5, 1.0, len(chosen)), 1)
        for strength in np.unique(strengths):
            rows = chosen[strengths == strength]
            seeds = [int(seed * 100_003 + row) for row in rows]
            pixels[rows] = paint(name, pixels[rows], probe.channels, float(strength), seeds)
    pictures = np.stack([probe.render(tile, (tile != 0).any(axis=0)) for tile in pixels])
    return ArrayImages(pixels, rgb=pictures, channels=probe.channels, blocks=probe.blocks)


def index_masks(pixels: NDArray[np.float32], channels: Sequence[str]) -> NDArray[np.bool_]:
    """(N, 3, H, W) where NDVI > 0.4, NDWI > 0 and NDBI > 0, in the order of :data:`INDEX_MASKS`."""
    import spyndex

    bands = {
        name: pixels[:, index] for name, index in spyndex_indices(channels).items() if name in ("G", "R", "N", "S1")
    }
    with np.errstate(all="ignore"):
        found = spyndex.computeIndex(["NDVI", "NDWI", "NDBI"], params=bands)
    return np.stack([np.nan_to_num(found[0]) > 0.4, np.nan_to_num(found[1]) > 0, np.nan_to_num(found[2]) > 0], axis=1)
