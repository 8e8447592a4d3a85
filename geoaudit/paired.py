"""Paired differences of data that come in spatial blocks: the mean, its interval, and a p-value as fine as is needed.

The p-value is drawn sequentially (Besag and Clifford 1991): on and on while few draws reach what was observed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoaudit.rates import StatisticsError
from geoaudit.statistics import (
    EffectiveSample,
    Estimate,
    block_sign_flip,
    block_sign_flips,
    effective_sample,
    mean_estimate,
)

__all__ = ["PairedDifference", "paired_difference"]

# Drawn on until so many draws reach the observed value, or so many times the draws asked for were made.
_ENOUGH, _FURTHER = 10, 20


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of a - b over rows, its bootstrap interval, and the one-sided sign-flip p-value of a > b.

    The p-value of a clear difference is drawn finely: among some hundred hypotheses, one that chance never reached in a
    thousand draws would still not survive the control of the false-discovery rate.
    """

    estimate: Estimate
    p: float
    sample: EffectiveSample


def paired_difference(
    a: ArrayLike, b: ArrayLike, blocks: ArrayLike | None = None, n: int = 2000, seed: int = 0, level: float = 0.95
) -> PairedDifference:
    """Mean of ``a - b`` over (N,) pairs with a block-bootstrap interval and the one-sided sign-flip p of a > b.

    Raises:
        StatisticsError: lengths differ, NaN, or fewer than two blocks.

    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise StatisticsError(f"pairs need two one-dimensional arrays of one length, got {left.shape}, {right.shape}")
    difference = left - right
    estimate = mean_estimate(difference, blocks, n, seed, level)
    return PairedDifference(estimate, _sequential_p(difference, blocks, n, seed), effective_sample(difference, blocks))


def _sequential_p(difference: NDArray[np.float64], blocks: ArrayLike | None, n: int, seed: int) -> float:
    """Sign-flip p-value, drawn on while few draws reach the observed mean (Besag and Clifford 1991)."""
    first = block_sign_flip(difference, blocks, n, seed)
    value = first.value[0] - 1e-12
    hits, draws = int((first.null[:, 0] >= value).sum()), n
    if hits >= _ENOUGH:
        return float(first.p[0])
    for part in block_sign_flips(difference[:, None], blocks, _FURTHER * n, seed, 1):
        reached = np.flatnonzero(part[:, 0] >= value)
        if hits + len(reached) >= _ENOUGH:
            return _ENOUGH / (draws + int(reached[_ENOUGH - hits - 1]) + 1)
        hits, draws = hits + len(reached), draws + len(part)
    return (1 + hits) / (1 + draws)
