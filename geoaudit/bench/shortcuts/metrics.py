"""Figures of the bench: ranking of networks, rates at a threshold, hits, each with an interval over networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Figure", "auroc", "hit", "interval", "reciprocal_rank", "tpr_at_far"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval and the networks behind it."""

    value: float
    low: float
    high: float
    n: int


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Share of (positive, negative) pairs that the score puts in order, ties counting half; NaN without either."""
    from scipy.stats import rankdata

    p, n = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not len(p) or not len(n):
        return float("nan")
    ranks = rankdata(np.concatenate([p, n]))
    return float((ranks[: len(p)].sum() - len(p) * (len(p) + 1) / 2) / (len(p) * len(n)))


def tpr_at_far(positive: ArrayLike, negative: ArrayLike, most: float = 0.05) -> float:
    """Share of positives above the lowest threshold that at most ``most`` of the negatives exceed; NaN without either."""
    p, n = np.asarray(positive, dtype=np.float64), np.sort(np.asarray(negative, dtype=np.float64))[::-1]
    if not len(p) or not len(n):
        return float("nan")
    # Strictly above the first negative that would be one too many.
    return float((p > n[min(len(n) - 1, int(np.floor(most * len(n))))]).mean())


def hit(ranks: ArrayLike, k: int) -> float:
    """Share of runs that name the plant among their first ``k`` findings; rank 0 is never."""
    found = np.asarray(ranks)
    return float(((found > 0) & (found <= k)).mean()) if len(found) else float("nan")


def reciprocal_rank(ranks: ArrayLike) -> float:
    """Mean of 1 / rank, 0 for runs that never name the plant."""
    found = np.asarray(ranks, dtype=np.float64)
    return float(np.where(found > 0, 1 / np.maximum(found, 1), 0).mean()) if len(found) else float("nan")


def interval(figure: Callable[..., float], *groups: ArrayLike, draws: int = 2000, seed: int = 0) -> Figure:
    """A figure of one or more groups of networks, with a percentile bootstrap over the networks of each group.

    Args:
        figure: takes one array a group.
        groups: (n_i,) values.
        draws: bootstrap draws.
        seed: of the draws.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    count = int(sum(map(len, arrays)))
    value = figure(*arrays)
    if any(not len(array) for array in arrays) or not np.isfinite(value):
        return Figure(value, float("nan"), float("nan"), count)
    rng = np.random.default_rng([seed, 31])
    values = [figure(*(array[rng.integers(len(array), size=len(array))] for array in arrays)) for _ in range(draws)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Figure(value, float(low), float(high), count)
