"""Accuracy before and after a change of the network, class by class, with paired bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import ConfigError

__all__ = ["AccuracyChange", "Change", "accuracy_change", "accuracy_gap"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """Accuracy before and after, over some images.

    Attributes:
        n: how many images.
        before: accuracy in [0, 1]; NaN without images.
        after: likewise.
        change: after - before.
        low: lower end of the interval of ``change``.
        high: upper end.
    """

    n: int
    before: float
    after: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class AccuracyChange:
    """Overall and for each class, in the order of class indices."""

    overall: Change
    classes: tuple[Change, ...]


def accuracy_change(
    before: ArrayLike,
    after: ArrayLike,
    labels: ArrayLike,
    classes: int,
    *,
    blocks: ArrayLike | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> AccuracyChange:
    """What a change of the network did to accuracy, on the same images.

    Args:
        before: (N,) predicted classes, or (N, classes) logits, of the unchanged network.
        after: likewise of the changed one.
        labels: (N,) true classes.
        classes: how many there are.
        blocks: (N,) ids of images that belong together and are resampled together; images alone when None.
        draws: bootstrap samples.
        level: of the percentile intervals, in (0, 1).
        seed: decides the draws.

    Raises:
        ConfigError: lengths disagree or a setting is out of range.
    """
    truth = np.asarray(labels, dtype=np.int64)
    first, second = (_correct(predicted, truth) for predicted in (before, after))
    member = np.concatenate([truth[:, None] == np.arange(classes), np.ones((len(truth), 1), dtype=bool)], axis=1)
    low, high = _interval((second - first)[:, None] * member, member, blocks, draws, level, seed)
    changes = []
    for column in range(classes + 1):
        mine = member[:, column]
        was = float(first[mine].mean()) if mine.any() else float("nan")
        now = float(second[mine].mean()) if mine.any() else float("nan")
        changes.append(Change(int(mine.sum()), was, now, now - was, float(low[column]), float(high[column])))
    return AccuracyChange(changes[-1], tuple(changes[:-1]))


def accuracy_gap(
    before: ArrayLike,
    after: ArrayLike,
    random: ArrayLike,
    labels: ArrayLike,
    klass: int | None = None,
    *,
    blocks: ArrayLike | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much more ablating a group changes accuracy than ablating matched random sets does.

    Args:
        before: (N,) predicted classes, or (N, classes) logits, of the unchanged network.
        after: likewise with the group ablated.
        random: (R, N) or (R, N, classes) with each of R random sets ablated.
        labels: (N,) true classes.
        klass: only images of this class; all when None.
        blocks: (N,) ids of images that are resampled together; images alone when None.
        draws: bootstrap samples.
        level: of the percentile interval, in (0, 1).
        seed: decides the draws.

    Returns:
        Gap (negative: the group hurts more), and the ends of its interval. The interval is that of the images; the
        spread between random sets is averaged out.

    Raises:
        ConfigError: as :func:`accuracy_change`, or there is no random set.
    """
    truth = np.asarray(labels, dtype=np.int64)
    sets = np.asarray(random)
    if len(sets) == 0:
        raise ConfigError("a gap needs at least one random set to compare with")
    base, group = _correct(before, truth), _correct(after, truth)
    others = np.mean([_correct(one, truth) for one in sets], axis=0)
    mine = np.ones(len(truth), dtype=bool) if klass is None else truth == klass
    difference = (group - base) - (others - base)
    low, high = _interval((difference * mine)[:, None], mine[:, None], blocks, draws, level, seed)
    gap = float(difference[mine].mean()) if mine.any() else float("nan")
    return gap, float(low[0]), float(high[0])


def _correct(predicted: ArrayLike, truth: NDArray[np.int64]) -> Floats:
    values = np.asarray(predicted)
    chosen = values.argmax(axis=-1) if values.ndim == 2 else values
    if chosen.shape != truth.shape:
        raise ConfigError(f"{len(truth)} labels were given for predictions of shape {values.shape}")
    return np.asarray(chosen == truth, dtype=np.float64)


def _interval(
    values: Floats, member: NDArray[np.bool_], blocks: ArrayLike | None, draws: int, level: float, seed: int
) -> tuple[Floats, Floats]:
    """Percentile interval of sum(values) / sum(member) in each column, whole blocks resampled."""
    if draws < 1 or not 0 < level < 1:
        raise ConfigError(f"an interval needs at least one draw and a level between 0 and 1, got {draws} and {level}")
    ids = np.arange(len(values)) if blocks is None else np.unique(np.asarray(blocks), return_inverse=True)[1]
    if len(ids) != len(values):
        raise ConfigError(f"{len(ids)} block ids were given for {len(values)} images")
    count = int(ids.max()) + 1 if len(ids) else 0
    sums, sizes = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, ids, values)
    np.add.at(sizes, ids, member)
    if count == 0:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    # Multinomial counts of the blocks are a bootstrap sample, and a product with them is its sums.
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    total = times @ sizes
    drawn = np.where(total > 0, (times @ sums) / np.maximum(total, 1), np.nan)
    tail = (1 - level) / 2
    ends = np.full((2, values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        real = drawn[~np.isnan(drawn[:, column]), column]
        if len(real):
            ends[:, column] = np.quantile(real, [tail, 1 - tail])
    return ends[0], ends[1]
