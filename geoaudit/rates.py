"""Shares, their intervals, and the false-discovery rate over many tests (method section 4).

Sources: Benjamini and Hochberg (1995), Benjamini and Yekutieli (2001), Wilson (1927), Clopper and Pearson (1934).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import DndError

__all__ = [
    "StatisticsError",
    "benjamini_hochberg",
    "check_level",
    "exact_upper_bound",
    "q_values",
    "wilson_interval",
]


class StatisticsError(DndError):
    """The numbers given cannot carry the statistic asked for."""


def check_level(level: float) -> None:
    """Refuse a confidence level or error rate outside (0, 1): 95 for 0.95 is the usual slip."""
    if not 0 < level < 1:
        raise StatisticsError(f"level must lie between 0 and 1, got {level}")


def q_values(p: ArrayLike, method: Literal["bh", "by"] = "bh") -> NDArray[np.float64]:
    """False-discovery-rate adjusted p-values, same shape; NaN (a test that was not run) stays NaN and does not count.

    Args:
        p: p-values in [0, 1].
        method: ``bh`` (independent or positively dependent tests) or ``by`` (any dependence).

    Raises:
        StatisticsError: a value outside [0, 1].

    """
    from scipy import stats

    values = np.asarray(p, dtype=np.float64)
    run = ~np.isnan(values)
    if ((values[run] < 0) | (values[run] > 1)).any():
        raise StatisticsError("p-values must lie between 0 and 1")
    answer = np.full(values.shape, np.nan)
    if run.any():
        answer[run] = stats.false_discovery_control(values[run], method=method)
    return answer


def benjamini_hochberg(p: ArrayLike, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Which tests are discoveries at false-discovery rate ``alpha``, same shape as ``p``; NaN never is."""
    check_level(alpha)
    return np.asarray(np.nan_to_num(q_values(p), nan=1.0) <= alpha)


def wilson_interval(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> NDArray[np.float64]:
    """Wilson score interval of a share, (..., 2) with low and high last; [0, 1] where n is 0. ``n`` may be fractional
    (an effective sample size).

    Raises:
        StatisticsError: negative counts or more successes than trials.

    """
    from scipy import stats

    check_level(level)
    k, total = np.broadcast_arrays(_counts(successes), _counts(n))
    if (k > total).any():
        raise StatisticsError("there cannot be more successes than trials")
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    safe = np.where(total > 0, total, 1.0)
    share = k / safe
    centre = (share + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2 * (share * (1 - share) / safe + z2 / (4 * safe**2))) / (1 + z2 / safe)
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    # Exact at the ends, where rounding would leave 1e-17 below the true 0 or 1.
    low, high = np.where(k == 0, 0.0, low), np.where(k == total, 1.0, high)
    return np.asarray(np.stack([low, high], axis=-1), dtype=np.float64)


def _counts(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(array) & (array >= 0)).all():
        raise StatisticsError("counts must be finite and not negative")
    return array


def exact_upper_bound(successes: int, n: int, level: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a rate: no false alarm in 60 leaves up to 4.9 %."""
    from scipy import stats

    check_level(level)
    if not 0 <= successes <= n:
        raise StatisticsError(f"successes must lie between 0 and n, got {successes} of {n}")
    return 1.0 if successes == n else float(stats.beta.ppf(level, successes + 1, n - successes))
