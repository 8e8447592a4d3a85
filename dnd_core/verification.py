"""Verified labels with abstention: a label is published only if images it was not chosen on support it.

On held-out images a unit's activations ``a`` are compared with the presence ``c`` of its label's concept. Two nulls
set the bar, not
taste: *permutation* (would a unit that knows nothing of the concept do as well?) and *shuffled labels* (would another
unit's label, about something else, do as well?).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.config import VerificationConfig
from dnd_core.scoring import auprc

__all__ = ["Evidence", "UnitHealth", "health", "permutation_null", "shuffled_threshold", "split", "stability", "verify"]

Floats = NDArray[np.float64]

# Labels whose presence goes together more than this speak of the same thing and are no null for one another.
ABOUT_THE_SAME = 0.3
# A further meaning moves the unit at least half as much as the first one does.
OWN_WEIGHT = 0.5
SAME = 0.7


def split(
    n: int, blocks: NDArray[np.int64] | None, holdout: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Explaining and held-out images, whole blocks at a time.

    Returns:
        Two sorted index arrays; the second holds as nearly ``holdout`` of the images as whole blocks in their drawn order
        allow, and shares no block with the first. With two blocks or more, neither is empty.
    """
    rng = np.random.default_rng([seed, 1])
    groups = np.arange(n) if blocks is None else np.asarray(blocks)
    names, sizes = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    reached = np.concatenate([[0], np.cumsum(sizes[order])])
    taken = int(np.argmin(np.abs(reached - holdout * n)))
    taken = min(max(taken, 1), max(len(names) - 1, 1))
    mask = np.isin(groups, names[order[:taken]])
    return np.flatnonzero(~mask), np.flatnonzero(mask)


@dataclass(frozen=True)
class UnitHealth:
    """Units that cannot be labelled, whatever is said about them.

    Attributes:
        dead: (units,) bool, the activation never changes.
        diffuse: (units,) bool, it changes by less than a hundredth of its size.
    """

    dead: NDArray[np.bool_]
    diffuse: NDArray[np.bool_]


def health(activations: NDArray[np.float32]) -> UnitHealth:
    """Find dead and diffuse units from (images, units) activations."""
    low, middle, high = np.percentile(activations, [1, 50, 99], axis=0)
    spread = activations.max(axis=0) - activations.min(axis=0)
    dead = spread <= 1e-7 * np.maximum(1.0, np.abs(activations).max(axis=0))
    diffuse = ~dead & ((high - low) < 0.01 * np.abs(middle))
    return UnitHealth(dead, diffuse)


def _standard(values: NDArray[np.floating]) -> Floats:
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    scale = np.sqrt((centred**2).mean(axis=0))
    return np.asarray(np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 1e-12))


def _reorderings(n: int, blocks: NDArray[np.int64] | None, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(draws, n) images in another order. With blocks, each block is laid over one other block, turned around within
    itself and repeated or cut to its length: that breaks the tie between activation and presence and keeps the
    likeness of neighbours on both sides. (Shifting the whole sequence would lay halves of two blocks over one, and make
    chance look tamer than it is.)
    """
    if blocks is None:
        return np.stack([rng.permutation(n) for _ in range(draws)])
    _, block, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    members = np.argsort(block, kind="stable")
    first = np.cumsum(sizes) - sizes
    position = np.empty(n, dtype=np.int64)
    position[members] = np.arange(n) - np.repeat(first, sizes)
    source = rng.permuted(np.tile(np.arange(len(sizes)), (draws, 1)), axis=1)
    turn = rng.integers(0, sizes[source])
    over = source[:, block]
    reordered: NDArray[np.int64] = members[first[over] + (position + turn[:, block]) % sizes[over]]
    return reordered


def permutation_null(
    a: NDArray[np.floating], c: NDArray[np.floating], blocks: NDArray[np.int64] | None, draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Pearson r of each column pair and its one-sided permutation p-value.

    The tail beyond the draws is taken from a normal curve fitted to them, so that many units can be corrected for at
    once.

    Args:
        a: (images, units) activations.
        c: (images, units) presence of each unit's label.
        blocks: (images,) block ids or None.
        draws: permutations.
        seed: decides them.

    Returns:
        ``r`` and ``p``, each (units,).
    """
    from scipy.stats import norm

    activation, presence = _standard(a), _standard(c)
    n = len(activation)
    r = (activation * presence).mean(axis=0)
    if n < 3:
        return r, np.ones_like(r)
    rng = np.random.default_rng([seed, 2])
    null = np.stack([(activation * presence[o]).mean(axis=0) for o in _reorderings(n, blocks, draws, rng)])
    spread = null.std(axis=0, ddof=1)
    z = np.divide(r - null.mean(axis=0), spread, out=np.full_like(r, -np.inf), where=spread > 1e-12)
    return r, norm.sf(z)


def shuffled_threshold(
    a: NDArray[np.floating], concepts: NDArray[np.floating], own: NDArray[np.int64], alpha: float
) -> float:
    """The r that labels of other units reach by chance: the (1 - alpha) quantile over all (unit, other label) pairs
    whose labels speak of different things (their presences correlate by at most 0.3).

    Args:
        a: (images, units) activations.
        concepts: (images, labels) presence of every distinct label.
        own: (units,) column of each unit's own label.
        alpha: share of the null above the threshold.

    Returns:
        A threshold in [0, 1]; 0 where there are no two different labels.
    """
    presence = _standard(concepts)
    r = _standard(a).T @ presence / len(presence)
    alike = presence.T @ presence / len(presence)
    other = alike[own] <= ABOUT_THE_SAME
    null = r[other]
    return max(0.0, float(np.quantile(null, 1 - alpha))) if null.size >= 20 else 0.0


def stability(a: NDArray[np.floating], presence: NDArray[np.floating], chosen: int, draws: NDArray[np.int64]) -> float:
    """Share of bootstrap resamples in which the unit's best-simulating candidate means the same as the chosen one.

    Args:
        a: (images,) activations.
        presence: (images, candidates).
        chosen: column of the chosen label.
        draws: (resamples, images) image indices drawn with replacement.
    """
    alike = _standard(presence).T @ _standard(presence)[:, chosen] / len(presence)
    same = alike >= SAME
    same[chosen] = True
    hits = 0
    for rows in draws:
        r = _standard(presence[rows]).T @ _standard(a[rows])
        hits += bool(same[int(np.argmax(r))])
    return hits / len(draws)


@dataclass(frozen=True)
class Evidence:
    """What held-out images say about each unit's label; arrays are (units,)."""

    r: Floats
    auprc: Floats
    p: Floats
    q: Floats
    threshold: float


def verify(
    a: NDArray[np.floating],
    concepts: NDArray[np.floating],
    own: NDArray[np.int64],
    blocks: NDArray[np.int64] | None,
    config: VerificationConfig,
    seed: int,
) -> Evidence:
    """Test every unit's label on held-out images.

    Args:
        a: (images, units) activations of the units that have a label.
        concepts: (images, labels) presence of every distinct label.
        own: (units,) column of each unit's label in ``concepts``.
        blocks: (images,) block ids or None.
        config: levels and draws.
        seed: decides the draws.
    """
    from scipy.stats import false_discovery_control

    c = concepts[:, own]
    r, p = permutation_null(a, c, blocks, config.permutations, seed)
    precision = np.array([auprc(a[:, u], c[:, u], config.top_share) for u in range(a.shape[1])])
    q = false_discovery_control(p) if len(p) else p
    return Evidence(r, precision, p, np.asarray(q), shuffled_threshold(a, concepts, own, config.alpha))


def adds_meaning(
    a: NDArray[np.floating],
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    blocks: NDArray[np.int64] | None,
    config: VerificationConfig,
    seed: int,
) -> tuple[float, float, float]:
    """Whether a second label explains what the first leaves.

    A part of the first label ("red" beside "red and striped") or another word for it also explains a little of what a
    noisy presence leaves, but in a fit on both it moves the unit far less than the first does.

    Args:
        a: (images,) activation.
        first: (images,) presence of the first label.
        second: (images,) presence of the second.
        blocks: as in :func:`verify`.
        config: as there.
        seed: as there.

    Returns:
        (r, p) of the second's presence with what is left of the activation after a linear fit on the first's, and the
        weight of the second over that of the first in a linear fit on both, presences scaled to the range 0 to 1.
    """
    x, y = _standard(first[:, None])[:, 0], _standard(a[:, None])[:, 0]
    left = y - x * float((x * y).mean())
    r, p = permutation_null(left[:, None], second[:, None], blocks, config.permutations, seed)
    both = np.column_stack([_unit_range(first), _unit_range(second)])
    slopes = np.linalg.lstsq(both - both.mean(axis=0), y, rcond=None)[0]
    weight = float(slopes[1] / slopes[0]) if slopes[0] > 1e-9 else 0.0
    return float(r[0]), float(p[0]), weight


def _unit_range(values: NDArray[np.floating]) -> Floats:
    low, high = np.percentile(values, [1, 99])
    return np.asarray(np.clip((values - low) / max(float(high - low), 1e-12), 0, 1), dtype=np.float64)
