"""What a repair did to a network, in figures: reliance, accuracy overall, by class and of the worst group, before and after.

Every figure is measured on the same held-out images for the network as it was, the repaired one and matched random
repairs, with whole spatial blocks resampled together, so that changes are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoaudit.checks.base import AuditContext
from geoaudit.checks.pairing import Pairs
from geoaudit.statistics import Estimate, block_bootstrap, bootstrap_interval

__all__ = ["Answers", "Line", "outcomes"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Measure = Callable[[Floats], float]


@dataclass(frozen=True)
class Line:
    """One measure before and after.

    Attributes:
        name: ``reliance of CLASS``, ``accuracy``, ``accuracy of CLASS``, ``worst group``, ``accuracy with ARTEFACT``.
        n: images behind it; pairs where the reliance was measured on pairs.
        before, after: with 95 % block-bootstrap intervals.
        change: after less before, paired.
        random: mean and 95 % range over matched random repairs, or None where there are no units to match.
    """

    name: str
    n: int
    before: Estimate
    after: Estimate
    change: Estimate
    random: Estimate | None

    def figures(self) -> tuple[str, ...]:
        """Before, after, change and random pruning as text; shares without a sign, changes with one."""
        sign = "+" if self.name.startswith("reliance") else ""
        return _said(self.before, sign), _said(self.after, sign), _said(self.change, "+"), _said(self.random, sign)


def _said(estimate: Estimate | None, sign: str) -> str:
    if estimate is None:
        return "-"
    value, low, high = (format(number, f"{sign}.3f") for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


@dataclass(frozen=True, eq=False)
class Answers:
    """What one network answers on the held-out images.

    Attributes:
        plain: (n, classes) logits of the images as they are.
        painted: (n, classes) logits with the artefact painted on, or None where it cannot be painted.
    """

    plain: NDArray[np.floating]
    painted: NDArray[np.floating] | None = None


def outcomes(
    context: AuditContext,
    rows: Ints,
    target: int,
    before: Answers,
    after: Answers,
    chance: Sequence[Answers],
    artefact: str = "",
    pairs: Pairs | None = None,
) -> tuple[Line, ...]:
    """Every measure for the network as it was, the repaired one and the random repairs.

    Args:
        context: the audit.
        rows: (n,) labelled held-out images.
        target: number of the class that leans.
        before: of the network as it was, on ``rows``.
        after: of the repaired one.
        chance: of matched random repairs.
        artefact: what was painted, in words; empty where nothing could be.
        pairs: matched pairs among ``rows``, for a concept that cannot be painted.
    """
    truth, name = context.reference[rows], context.class_names[target]
    tables = [_table(answers, truth, target) for answers in (before, after, *chance)]
    blocks = context.blocks_of(rows)
    measures: list[tuple[str, int, Measure]] = []
    if artefact:
        measures.append((f"reliance of {name}", int((truth != target).sum()), _reliance(target)))
    measures.append(("accuracy", len(rows), lambda part: float(part[:, 1].mean())))
    if artefact:
        measures.append((f"accuracy with {artefact}", len(rows), lambda part: float(part[:, 2].mean())))
    for number, label in enumerate(context.class_names):
        if (truth == number).any():
            measures.append((f"accuracy of {label}", int((truth == number).sum()), _of_class(number)))
    kinds = [int(number) for number in np.unique(truth)]
    measures.append(("worst group", len(rows), _worst(kinds, bool(artefact))))
    lines = [_line(context, name, n, measure, tables, blocks) for name, n, measure in measures]
    if pairs is not None and not artefact:
        lines.insert(0, _paired(context, rows, target, (before, after, *chance), pairs))
    return tuple(lines)


def _table(answers: Answers, truth: Ints, target: int) -> Floats:
    """(n, 4): class, right as it is, right when painted, and change into the target class."""
    first = answers.plain.argmax(axis=1)
    second = first if answers.painted is None else answers.painted.argmax(axis=1)
    moved = (second == target).astype(float) - (first == target)
    return np.column_stack([truth, first == truth, second == truth, moved])


def _paired(context: AuditContext, rows: Ints, target: int, answers: Sequence[Answers], pairs: Pairs) -> Line:
    """Reliance on matched pairs of images, as the audit measured it."""
    place = {int(row): number for number, row in enumerate(rows)}
    kept = context.reference[pairs.shown] != target
    shown, other = pairs.shown[kept], pairs.other[kept]
    first, second = [place[int(row)] for row in shown], [place[int(row)] for row in other]
    tables = []
    for given in answers:
        called = (given.plain.argmax(axis=1) == target).astype(float)
        moved = called[first] - called[second]
        tables.append(np.column_stack([context.reference[shown], moved, moved, moved]))
    name = f"reliance of {context.class_names[target]}"
    return _line(context, name, len(shown), lambda part: _mean(part[:, 3]), tables, context.blocks_of(shown))


def _line(
    context: AuditContext, name: str, n: int, measure: Measure, tables: Sequence[Floats], blocks: Ints | None
) -> Line:
    both = np.column_stack([tables[0], tables[1]])
    count = len(both) if blocks is None else len(np.unique(blocks))

    def pair(part: Floats) -> Floats:
        first, second = measure(part[:, :4]), measure(part[:, 4:])
        return np.array([first, second, second - first])

    value, draws = pair(both), block_bootstrap(both, blocks, pair, n=context.draws, seed=context.seed)
    # A resample may hold no image of a small class; it says nothing about that class.
    draws = draws[np.isfinite(draws).all(axis=1)]
    low, high = bootstrap_interval(draws, 0.95, count) if len(draws) > 1 else (np.full(3, np.nan),) * 2
    estimates = [Estimate(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]
    return Line(name, n, estimates[0], estimates[1], estimates[2], _range([measure(t) for t in tables[2:]]))


def _range(values: Sequence[float]) -> Estimate | None:
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high))


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _reliance(target: int) -> Measure:
    return lambda part: _mean(part[part[:, 0] != target, 3])


def _of_class(number: int) -> Measure:
    return lambda part: _mean(part[part[:, 0] == number, 1])


def _worst(classes: Sequence[int], painted: bool) -> Measure:
    """Accuracy of the worst class, as it is or with the artefact; classes without images are left out."""

    def worst(part: Floats) -> float:
        of_class = [part[part[:, 0] == number] for number in classes]
        shares = [mine[:, column].mean() for mine in of_class if len(mine) for column in ((1, 2) if painted else (1,))]
        return float(min(shares))

    return worst
