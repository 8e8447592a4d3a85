"""Activation rate by what labels are shown on: how much of a low rate is the images' fault, and how much the words'.

Few tiles cap the rate, since one in a hundred passes the threshold, and a real tile seldom shows a label from edge to edge, as the
images that a generator paints do. So the rate is measured again on ever more typical images of every label: real tiles of twice
as much ground, windows that lie within what they show, and windows exaggerated beyond what is real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import LabelScores, secondary

if TYPE_CHECKING:
    from dnd_core.protocols import TextEncoder

__all__ = [
    "GALLERIES", "SHOWN", "exaggerate", "most_possible", "rate_of_best", "rates_of_exaggerated",
    "rates_of_shown", "show",
]  # fmt: skip

SHOWN = 10
"""Concept images of a label (Q of the paper)."""

GALLERIES: Mapping[str, str] = {
    "wider": "the pool's tiles too",
    "windows": "windows",
    "exaggerated": "exaggerated",
}
"""What labels are shown on besides the evaluation's own tiles, by key, as tables name it. The pool's tiles had a part in
choosing DnD's labels; windows are of the evaluation's tiles alone, and no method saw them."""

_FAINT = 1e-4
_AT_ONCE = 512

Said = Sequence[tuple[str, ...]]
Floats = NDArray[np.float32]


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


def exaggerate(shown: Floats, everything: Floats) -> Floats:
    """A concept's images, as far again from the usual as they are: what a caricature does to a face.

    Each band's mean over the images moves away from its mean over all tiles by their difference, and each band's variation
    within an image grows by the ratio of the two; nothing is learned from the network that is to see them.

    Args:
        shown: (S, C, H, W) images of one concept, S > 0.
        everything: (N, C, H, W) all tiles.

    Returns:
        (S, C, H, W), not below 0.
    """
    level = shown.mean(axis=(0, 2, 3)) - everything.mean(axis=(0, 2, 3))
    own, usual = (x.std(axis=(2, 3)).mean(axis=0) + _FAINT for x in (shown, everything))
    middle = shown.mean(axis=(2, 3), keepdims=True)
    further = middle + level[:, None, None] + (shown - middle) * (own / usual)[:, None, None]
    return np.asarray(np.maximum(further, 0), dtype=np.float32)


def rates_of_shown(
    said: Mapping[str, Said],
    activations: NDArray[np.floating],
    thresholds: NDArray[np.floating],
    chosen: Mapping[tuple[str, ...], Sequence[int]],
    *,
    draws: int,
    seed: int,
) -> dict[str, LabelScores]:
    """Activation rate of every method.

    Args:
        said: method -> labels of every unit.
        activations: (N, U) on the images to choose from.
        thresholds: (U,) activation that counts as firing.
        chosen: labels of a unit -> images that show them, from :func:`show`.
        draws: bootstrap draws of units.
        seed: decides them.

    Returns:
        Method -> scores that have ``activation_rate`` alone.
    """
    answer = {}
    for method, units in said.items():
        shown = [activations[list(chosen[some]), unit] for unit, some in enumerate(units)]
        table = secondary(activations, shown, thresholds)["activation_rate"]
        rate = np.array([row[~np.isnan(row)].mean() if len(s) else np.nan for row, s in zip(table, shown, strict=True)])
        known = rate[~np.isnan(rate)]
        rng = np.random.default_rng([seed, 25])
        drawn = known[rng.integers(len(known), size=(draws, len(known)))].mean(axis=1) if len(known) else np.empty(0)
        has = np.array([bool(some) for some in units])
        answer[method] = LabelScores({"activation_rate": rate}, {"activation_rate": drawn}, has)
    return answer


def rates_of_exaggerated(
    said: Mapping[str, Said],
    pixels: Floats,
    thresholds: NDArray[np.floating],
    chosen: Mapping[tuple[str, ...], Sequence[int]],
    everything: Floats,
    fire: Callable[[Floats], Floats],
    *,
    draws: int,
    seed: int,
) -> dict[str, LabelScores]:
    """Activation rate of every method on exaggerated images.

    Args:
        said: method -> labels of every unit.
        pixels: (N, C, H, W) images that were chosen from.
        thresholds: (U,) activation that counts as firing.
        chosen: labels of a unit -> images that show them, from :func:`show`.
        everything: (M, C, H, W) tiles that are the usual.
        fire: (B, C, H, W) -> (B, U) activations.
        draws: bootstrap draws of units.
        seed: decides them.

    Returns:
        Method -> scores that have ``activation_rate`` alone.
    """
    rows: dict[tuple[str, ...], list[int]] = {}
    fired, waiting = [np.zeros((0, len(thresholds)), np.float32)], [pixels[:0]]
    first = 0
    for some, places in chosen.items():
        rows[some] = list(range(first, first + len(places)))
        first += len(places)
        if places:
            waiting.append(exaggerate(pixels[list(places)], everything))
        if sum(map(len, waiting)) >= _AT_ONCE:
            fired, waiting = [*fired, fire(np.concatenate(waiting))], [pixels[:0]]
    last = np.concatenate(waiting)
    table = np.concatenate([*fired, fire(last)] if len(last) else fired)
    return rates_of_shown(said, table, thresholds, rows, draws=draws, seed=seed)


def rate_of_best(
    presence: NDArray[np.floating], activations: NDArray[np.floating], thresholds: NDArray[np.floating]
) -> float:
    """Mean activation rate on the images that show what is said of each unit most.

    Args:
        presence: (N, U) how much of it each image shows; earlier images first among equals.
        activations: (N, U) on the same images.
        thresholds: (U,) activation that counts as firing.
    """
    shown = np.argsort(-np.asarray(presence), axis=0, kind="stable")[:SHOWN]
    return float((np.take_along_axis(np.asarray(activations), shown, axis=0) > np.asarray(thresholds)).mean())


def most_possible(activations: NDArray[np.floating], thresholds: NDArray[np.floating]) -> float:
    """Mean activation rate if every unit were shown the tiles it fires on most: no choice of these tiles can do better."""
    return rate_of_best(activations, activations, thresholds)
