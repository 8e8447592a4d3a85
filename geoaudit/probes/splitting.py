"""Parts of a probe set that share no spatial block: to explain with, to retrieve concept images from, to verify on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from dnd_core.images import ImageSet

__all__ = ["Split", "split"]

Indices = NDArray[np.int64]
_DEFAULT: Mapping[str, float] = {"explain": 0.5, "pool": 0.25, "holdout": 0.25}


@dataclass(frozen=True, eq=False)
class Split:
    """Three parts of one image set, ascending indices, no block in two of them.

    Attributes:
        explain: images that Steps 1 and 2 look at.
        pool: images that concept images are retrieved from; never shown to the units as evidence.
        holdout: images that labels are verified on.
    """

    explain: Indices
    pool: Indices
    holdout: Indices


def split(images: ImageSet, share: Mapping[str, float] | None = None, *, seed: int = 0, draws: int = 200) -> Split:
    """Divide a set block by block, so that neighbours never stand on two sides.

    Whole blocks are dealt out at random ``draws`` times, and the deal is taken whose classes are spread most evenly
    over the parts (without labels: whose sizes are nearest to the shares). Images without blocks are a block each.

    Args:
        images: any image set.
        share: parts of the images for ``explain``, ``pool`` and ``holdout``; scaled to sum to 1.
        seed: of the deals.
        draws: how many are tried.

    Raises:
        ProbeError: a share is missing or negative, or there are fewer blocks than parts.
    """
    share = dict(_DEFAULT if share is None else share)
    if set(share) != set(_DEFAULT) or min(share.values()) < 0 or sum(share.values()) <= 0:
        raise ProbeError(f"a split gives a share of at least 0 for explain, pool and holdout, got {share}")
    blocks = np.arange(len(images)) if images.blocks is None else images.blocks
    distinct, place = np.unique(blocks, return_inverse=True)
    wanted = np.array([share[name] for name in _DEFAULT]) / sum(share.values())
    parts = int((wanted > 0).sum())
    if len(distinct) < parts:
        raise ProbeError(
            f"the images lie in {len(distinct)} spatial blocks, too few to be split into {parts} parts: "
            "use smaller blocks or more images"
        )
    labels = np.zeros(len(images), dtype=np.int64) if images.labels is None else images.labels
    classes, label = np.unique(labels, return_inverse=True)
    table = np.zeros((len(distinct), len(classes)))
    np.add.at(table, (place, label), 1)
    table /= table.sum(axis=0)
    generator = np.random.default_rng(seed)
    best, chosen = np.inf, np.zeros(len(distinct), dtype=np.int64)
    # Every part that was asked for gets a block at least; the largest part pays for rounding.
    counts = np.where(wanted > 0, np.maximum(np.round(wanted * len(distinct)), 1), 0).astype(int)
    counts[np.argmax(wanted)] += len(distinct) - counts.sum()
    deal = np.repeat(np.arange(3), counts)
    for _ in range(draws):
        dealt = generator.permutation(deal)
        spread = np.stack([table[dealt == part].sum(axis=0) for part in range(3)])
        worst = float(np.abs(spread - wanted[:, None]).max())
        if worst < best:
            best, chosen = worst, dealt
    explain, pool, holdout = (np.flatnonzero(chosen[place] == part).astype(np.int64) for part in range(3))
    return Split(explain, pool, holdout)
