"""Activation rate with more tiles to choose concept images from: the evaluation's and the retrieval pool's.

Few tiles cap the rate, since one in a hundred passes the threshold: among twice as many, ten that do are sooner found. The
pool's tiles chose DnD's labels (its score looks at them), so this is reported beside the rate on unseen tiles, not in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import LabelScores, secondary

if TYPE_CHECKING:
    from dnd_core.protocols import TextEncoder

__all__ = ["SHOWN", "most_possible", "rates_of_shown", "show"]

SHOWN = 10
"""Concept images of a label (Q of the paper)."""

Said = Sequence[tuple[str, ...]]


def show(said: Sequence[Said], captions: Sequence[str], encoder: TextEncoder) -> dict[tuple[str, ...], list[int]]:
    """The tiles that show labels best, as the pool of an audit finds them.

    Args:
        said: of every method, of every unit, the labels.
        captions: of the tiles to choose from.
        encoder: compares labels with captions.

    Returns:
        Labels of a unit -> up to :data:`SHOWN` tiles that show one of them, best first; none for a unit without labels.
    """
    from dnd_core.backends.pool import PoolImages
    from dnd_core.images import ArrayImages

    # Only captions are searched: the images themselves are not looked at.
    gallery = PoolImages(ArrayImages(np.zeros((len(captions), 3, 1, 1), np.float32)), encoder, captions)
    distinct = {some for units in said for some in units if some}
    gallery.prepare(sorted({" or ".join(some) for some in distinct}))
    return {some: gallery.choose(" or ".join(some), SHOWN) for some in distinct} | {(): []}


def rates_of_shown(
    said: Mapping[str, Said],
    activations: NDArray[np.floating],
    thresholds: NDArray[np.floating],
    captions: Sequence[str],
    encoder: TextEncoder,
    *,
    draws: int,
    seed: int,
) -> dict[str, LabelScores]:
    """Activation rate of every method.

    Args:
        said: method -> labels of every unit.
        activations: (N, U) on the tiles to choose from.
        thresholds: (U,) activation that counts as firing.
        captions: N of the tiles.
        encoder: compares labels with captions.
        draws: bootstrap draws of units.
        seed: decides them.

    Returns:
        Method -> scores that have ``activation_rate`` alone.
    """
    chosen = show(list(said.values()), captions, encoder)
    answer = {}
    for method, units in said.items():
        shown = [activations[chosen[some], unit] for unit, some in enumerate(units)]
        table = secondary(activations, shown, thresholds)["activation_rate"]
        rate = np.array([row[~np.isnan(row)].mean() if len(s) else np.nan for row, s in zip(table, shown, strict=True)])
        known = rate[~np.isnan(rate)]
        rng = np.random.default_rng([seed, 25])
        drawn = known[rng.integers(len(known), size=(draws, len(known)))].mean(axis=1) if len(known) else np.empty(0)
        has = np.array([bool(some) for some in units])
        answer[method] = LabelScores({"activation_rate": rate}, {"activation_rate": drawn}, has)
    return answer


def most_possible(activations: NDArray[np.floating], thresholds: NDArray[np.floating]) -> float:
    """Mean activation rate if every unit were shown the tiles it fires on most: no choice of these tiles can do better."""
    best = np.sort(np.asarray(activations), axis=0)[::-1][:SHOWN]
    return float((best > np.asarray(thresholds)).mean())
