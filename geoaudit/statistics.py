"""Intervals and tests for data that come in spatial blocks (method section 4, "Honest statistics").

Neighbouring tiles are not independent, so whole blocks are resampled, permuted or sign-flipped, never single rows.
Without ``blocks`` every row is its own block and the functions are the ordinary bootstrap and permutation test.
All of them are seeded and answer identically for identical arguments.

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993); Hesterberg, *What Teachers Should Know
about the Bootstrap* (2015) for the widening at few blocks; Phipson and Smyth (2010) for add-one p-values; Kish (1965)
for the design effect. Shares and false-discovery rates live in :mod:`geoaudit.rates` and are offered here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoaudit.rates import (
    StatisticsError,
    benjamini_hochberg,
    check_level,
    exact_upper_bound,
    q_values,
    wilson_interval,
)

__all__ = [
    "EffectiveSample",
    "Estimate",
    "PermutationTest",
    "StatisticsError",
    "benjamini_hochberg",
    "block_bootstrap",
    "block_permutation",
    "block_shuffles",
    "block_sign_flip",
    "block_sign_flips",
    "bootstrap_interval",
    "effective_sample",
    "exact_upper_bound",
    "mean_estimate",
    "q_values",
    "wilson_interval",
]

_CHUNK = 4_000_000  # numbers held at once while resampling; keeps the peak near 100 MB whatever n is


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; ``level`` is the interval's nominal coverage, in (0, 1)."""

    value: float
    low: float
    high: float
    level: float = 0.95

    @property
    def ci(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high


@dataclass(frozen=True, slots=True, eq=False)
class PermutationTest:
    """A one-sided permutation test of one or several columns.

    Attributes:
        value: (U,) observed statistics.
        p: (U,) add-one p-values, in (0, 1].
        null: (n, U) the statistic under each permutation.
        blocks: how many blocks were permuted.

    """

    value: NDArray[np.float64]
    p: NDArray[np.float64]
    null: NDArray[np.float64]
    blocks: int


@dataclass(frozen=True, slots=True)
class EffectiveSample:
    """How many independent rows a blocked sample is worth (Kish 1965).

    Attributes:
        n: rows.
        blocks: blocks they come in.
        icc: intraclass correlation by one-way analysis of variance, clipped to [0, 1].
        design_effect: 1 + (m - 1) * icc with m the size-weighted mean block size; variance grows by this factor.
        n_effective: n / design_effect.
        note: one plain sentence for a report.

    """

    n: int
    blocks: int
    icc: float
    design_effect: float
    n_effective: float
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Rows sorted by block: ``rows[starts[b] : starts[b] + sizes[b]]`` are the rows of block b."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, blocks: ArrayLike | None, n: int) -> _Blocks:
        if n == 0:
            raise StatisticsError("no rows were given; there is nothing to estimate")
        if blocks is None:
            each = np.arange(n, dtype=np.int64)
            return cls(each, each, np.ones(n, dtype=np.int64), each)
        ids = np.asarray(blocks)
        if ids.shape != (n,):
            raise StatisticsError(f"blocks must hold one id for each of the {n} rows, got shape {ids.shape}")
        _, codes = np.unique(ids, return_inverse=True)
        sizes = np.bincount(codes)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return cls(np.argsort(codes, kind="stable"), starts, sizes, codes.astype(np.int64))

    def __len__(self) -> int:
        return len(self.sizes)

    def gather(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the blocks in ``order`` (blocks may repeat), one block after the other."""
        sizes = self.sizes[order]
        ends = np.cumsum(sizes)
        return np.asarray(self.rows[np.repeat(self.starts[order] - (ends - sizes), sizes) + np.arange(ends[-1])])


def _finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0:
        raise StatisticsError(f"{name} must be an array with one entry a row, got a single number")
    if not np.isfinite(array).all():
        raise StatisticsError(f"{name} holds NaN or infinite values; leave those rows out first")
    return array


def _draws(n: int) -> None:
    if n < 1:
        raise StatisticsError(f"n must be at least 1 draw, got {n}")


def _two_blocks(groups: _Blocks) -> None:
    if len(groups) < 2:
        raise StatisticsError("all rows lie in one block, which says nothing about chance; use smaller blocks")


def block_bootstrap(
    values: ArrayLike,
    blocks: ArrayLike | None = None,
    statistic: Callable[[NDArray[Any]], ArrayLike] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Draws of a statistic over rows resampled with replacement, whole blocks at a time.

    Rows stay whole, so columns of ``values`` that belong together (paired measurements) are resampled together.

    Args:
        values: (N, ...) rows; finite.
        blocks: (N,) ids, or None when rows are independent.
        statistic: rows -> number or array; None is the mean over rows, which needs no loop.
        n: draws.
        seed: of the generator; the same seed draws the same blocks whatever the statistic.

    Returns:
        (n, ...) float64, the shape of the statistic behind the first axis.

    Raises:
        StatisticsError: no rows, NaN, or blocks of another length.

    """
    rows = _finite("values", values)
    groups = _Blocks.of(blocks, len(rows))
    _draws(n)
    rng = np.random.default_rng(seed)
    size = len(groups)
    if statistic is not None:
        return np.asarray(
            [statistic(rows[groups.gather(rng.integers(size, size=size))]) for _ in range(n)], dtype=float
        )
    flat = rows.reshape(len(rows), -1)
    sums = np.add.reduceat(flat[groups.rows], groups.starts, axis=0)
    answer = np.empty((n, flat.shape[1]))
    step = max(1, _CHUNK // size)
    for start in range(0, n, step):
        part = min(step, n - start)
        picks = rng.integers(size, size=(part, size)) + size * np.arange(part)[:, None]
        weights = np.bincount(picks.ravel(), minlength=part * size).reshape(part, size).astype(np.float64)
        answer[start : start + part] = (weights @ sums) / (weights @ groups.sizes)[:, None]
    return answer.reshape(n, *rows.shape[1:])


def bootstrap_interval(
    draws: ArrayLike, level: float = 0.95, blocks: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval of bootstrap draws along their first axis.

    With ``blocks`` (how many were resampled) the percentiles are widened as Hesterberg (2015) proposes, because
    the plain percentile interval is too short by about sqrt((B - 1) / B) * z / t when there are few blocks.

    Raises:
        StatisticsError: level outside (0, 1), fewer than 2 blocks, or draws that hold NaN.

    """
    from scipy import stats

    check_level(level)
    values = _finite("draws", draws)
    tail = (1 - level) / 2
    if blocks is not None:
        if blocks < 2:
            raise StatisticsError("one block gives no interval; use smaller blocks")
        tail = float(stats.norm.cdf(np.sqrt(blocks / (blocks - 1)) * stats.t.ppf(tail, blocks - 1)))
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def mean_estimate(
    values: ArrayLike, blocks: ArrayLike | None = None, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Mean of (N,) values with its block-bootstrap interval, widened for few blocks."""
    rows = _finite("values", values)
    if rows.ndim != 1:
        raise StatisticsError(f"values must be one-dimensional, got shape {rows.shape}")
    groups = _Blocks.of(blocks, len(rows))
    _two_blocks(groups)
    low, high = bootstrap_interval(block_bootstrap(rows, blocks, n=n, seed=seed), level, len(groups))
    return Estimate(float(rows.mean()), float(low), float(high), level)


def block_shuffles(blocks: ArrayLike | None, size: int, n: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Row indices of ``n`` permutations that keep blocks together: ``c[index]`` is c, shuffled.

    Whole blocks change places and their rows keep their order. Where blocks differ in size, rows slide along the
    sequence of blocks, so a shuffled block may end in another than it began; autocorrelation inside blocks survives.

    Raises:
        StatisticsError: fewer than two blocks.

    """
    groups = _Blocks.of(blocks, size)
    _two_blocks(groups)
    _draws(n)
    rng = np.random.default_rng(seed)
    for _ in range(n):
        index = np.empty(size, dtype=np.int64)
        index[groups.rows] = groups.gather(rng.permutation(len(groups)))
        yield index


def _beyond(values: NDArray[np.float64], given: ArrayLike | None) -> NDArray[np.float64]:
    """Values less their mean, or less the mean of their level of ``given``."""
    if given is None:
        return np.asarray(values - values.mean(axis=0))
    labels = np.asarray(given)
    if labels.shape != values.shape[:1]:
        raise StatisticsError(f"given must hold one label for each of the {len(values)} rows, got {labels.shape}")
    _, codes = np.unique(labels, return_inverse=True)
    sums = np.zeros((codes.max() + 1, values.shape[1]))
    np.add.at(sums, codes, values)
    return np.asarray(values - (sums / np.bincount(codes)[:, None])[codes])


def block_permutation(
    a: ArrayLike,
    c: ArrayLike,
    blocks: ArrayLike | None = None,
    n: int = 999,
    seed: int = 0,
    given: ArrayLike | None = None,
) -> PermutationTest:
    """Is the Pearson correlation of ``a`` and ``c`` larger than chance allows, when rows come in blocks?

    Args:
        a: (N,) or (N, U) activations.
        c: (N,) presence of a concept, or (N, U) one column for each of ``a``'s.
        blocks: (N,) ids, or None when rows are independent.
        n: permutations; the smallest possible p is 1 / (n + 1).
        seed: of the generator.
        given: (N,) labels whose group means are taken out of both first (Freedman and Lane 1983), so that what is
            tested is association beyond what the label explains.

    Returns:
        The test, arrays of length U (1 for one column). A constant column has correlation 0 and p 1.

    Raises:
        StatisticsError: shapes disagree, NaN, or fewer than two blocks.

    """
    left, right = _finite("a", a), _finite("c", c)
    left, right = (x[:, None] if x.ndim == 1 else x for x in (left, right))
    if left.ndim != 2 or right.shape not in (left.shape, (len(left), 1)):
        raise StatisticsError(f"a {left.shape} and c {right.shape} do not pair up row by row and column by column")
    left, right = _beyond(left, given), _beyond(right, given)
    norms = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
    # Rounding leaves a constant column with a norm near 1e-16 instead of 0; dividing by it would invent a correlation.
    scale = np.where(norms > 1e-12, norms, np.inf)
    value = (left * right).sum(axis=0) / scale
    null = np.empty((n, left.shape[1]))
    for draw, index in enumerate(block_shuffles(blocks, len(left), n, seed)):
        shuffled = right[index]
        null[draw] = ((shuffled.T @ left)[0] if right.shape[1] == 1 else (left * shuffled).sum(axis=0)) / scale
    return PermutationTest(value, _add_one(null, value), null, len(_Blocks.of(blocks, len(left))))


def _add_one(null: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """One-sided p-values that can never be zero; ties up to rounding count against the finding."""
    return np.asarray((1 + (null >= value - 1e-12).sum(axis=0)) / (1 + len(null)), dtype=np.float64)


def block_sign_flip(
    differences: ArrayLike, blocks: ArrayLike | None = None, n: int = 999, seed: int = 0
) -> PermutationTest:
    """Is the mean of paired ``differences`` (N,) or (N, U) above zero? Whole blocks change sign under the null.

    Raises:
        StatisticsError: NaN, or fewer than two blocks.

    """
    rows = _finite("differences", differences)
    rows = rows.reshape(len(rows), -1)
    groups = _Blocks.of(blocks, len(rows))
    _two_blocks(groups)
    _draws(n)
    null = np.concatenate(list(block_sign_flips(rows, blocks, n, seed)))
    value = rows.mean(axis=0)
    return PermutationTest(value, _add_one(null, value), null, len(groups))


def block_sign_flips(
    rows: NDArray[np.float64], blocks: ArrayLike | None, n: int, *seed: int
) -> Iterator[NDArray[np.float64]]:
    """Means of (N, U) rows under ``n`` draws of signs, one a block: (draws, U) at a time."""
    groups = _Blocks.of(blocks, len(rows))
    sums = np.add.reduceat(rows[groups.rows], groups.starts, axis=0) / len(rows)
    rng = np.random.default_rng(seed[0] if len(seed) == 1 else list(seed))
    step = max(1, _CHUNK // len(groups))
    for start in range(0, n, step):
        signs = rng.integers(2, size=(min(step, n - start), len(groups))) * 2.0 - 1.0
        yield signs @ sums


def effective_sample(values: ArrayLike, blocks: ArrayLike | None = None) -> EffectiveSample:
    """How many independent rows the (N,) values are worth, given their blocks."""
    rows = _finite("values", values)
    if rows.ndim != 1:
        raise StatisticsError(f"values must be one-dimensional, got shape {rows.shape}")
    groups = _Blocks.of(blocks, len(rows))
    n, k = len(rows), len(groups)
    if k in (1, n):
        icc = 0.0 if k == n else 1.0
    else:
        means = np.bincount(groups.codes, rows) / groups.sizes
        between = float((groups.sizes * (means - rows.mean()) ** 2).sum() / (k - 1))
        within = float(((rows - means[groups.codes]) ** 2).sum() / (n - k))
        typical = (n - (groups.sizes**2).sum() / n) / (k - 1)
        spread = between + (typical - 1) * within
        icc = min(1.0, max(0.0, (between - within) / spread)) if spread > 0 else 0.0
    effect = 1 + ((groups.sizes**2).sum() / n - 1) * icc
    note = f"{n} samples in {k} blocks carry about as much evidence as {n / effect:.0f} independent ones"
    if k < 10:
        note += "; with fewer than 10 blocks intervals are rough"
    return EffectiveSample(n, k, icc, float(effect), float(n / effect), note)
