"""What this audit would say if there were nothing to find: its thresholds, and its false-alarm rate over the whole ladder.

Every test is made again with labels shuffled, on the network, images and blocks of this very audit:

- *association*: the group's activation changes places between whole blocks, within classes;
- *counterfactual*: in whole blocks it is shuffled which image of a pair has the concept;
- *ablation*: the label goes to random units, matched in number and activation norm.

Half of the shuffled audits sets the thresholds, the other half measures how often a finding comes out all the same, by
the same code that judges the real hypotheses. Two shuffled worlds are measured: in one only the labels of units are
shuffled (what a painted artefact does to the class stays real), in the other the pairs are shuffled too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoaudit.checks.base import AuditContext
from geoaudit.checks.causal import MIN_EFFECT, Ablation, Effect, ablation_holds, effect_of
from geoaudit.findings import Evidence, Hypothesis, judge
from geoaudit.statistics import exact_upper_bound

__all__ = ["AUDITS", "Calibration", "NullTest", "Rate", "Rung", "calibrate", "null_test", "shuffled_pairs"]

AUDITS = 16
# A rung may be reached by this share of shuffled tests; where more reach it, its least effect is raised.
ALLOWED = 0.01
RUNGS = {1: "association", 2: "counterfactual", 3: "ablation"}
GRAVE = ("critical", "major")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rung:
    """One step of the ladder in one shuffled audit."""

    value: float
    holds: bool
    p: float


@dataclass(frozen=True, eq=False)
class NullTest:
    """One hypothesis with its evidence in every shuffled audit.

    Attributes:
        hypothesis: as it was tested; its evidence is not used.
        real: the counterfactual as it was measured, or None where there was none.
        rungs: grade to one :class:`Rung` a shuffled audit; grades that were not tested are left out.
    """

    hypothesis: Hypothesis
    real: Rung | None
    rungs: Mapping[int, tuple[Rung, ...]]


@dataclass(frozen=True)
class Rate:
    """How often something was raised in shuffled tests, with the one-sided 95 % upper bound (Clopper and Pearson)."""

    rate: float | None
    upper_bound: float
    n: int

    @classmethod
    def of(cls, raised: int, n: int) -> Rate:
        """The rate of ``raised`` in ``n``."""
        return cls(raised / n if n else None, exact_upper_bound(raised, n) if n else 1.0, n)


@dataclass(frozen=True)
class Calibration:
    """What the shuffled audits taught.

    Attributes:
        thresholds: least effect that counts as evidence, by grade.
        rungs: false-alarm rate of each rung alone, by grade.
        unit_labels: rate of major or critical findings where only the labels of units were shuffled.
        pairs: the same where the pairs were shuffled too.
        any_finding: rate of findings of any severity where the pairs were shuffled too.
        audits: rate of shuffled audits with at least one major or critical finding.
    """

    thresholds: dict[int, float]
    rungs: dict[int, Rate]
    unit_labels: Rate
    pairs: Rate
    any_finding: Rate
    audits: Rate

    @property
    def worst(self) -> Rate:
        """The worse of the two shuffled worlds: what stands in every finding."""
        return max(self.unit_labels, self.pairs, key=lambda r: (r.rate is not None, r.rate or 0.0, r.upper_bound))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``checks.json``; grades as words."""
        values = asdict(self)
        for name in ("thresholds", "rungs"):
            values[name] = {RUNGS[grade]: value for grade, value in values[name].items()}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration written as plain values."""
        grades = {word: grade for grade, word in RUNGS.items()}
        return cls(
            {grades[word]: float(value) for word, value in values["thresholds"].items()},
            {grades[word]: Rate(**value) for word, value in values["rungs"].items()},
            **{name: Rate(**values[name]) for name in ("unit_labels", "pairs", "any_finding", "audits")},
        )


def shuffled_pairs(
    context: AuditContext, rows: NDArray[np.int64], after: Floats, before: Floats, stream: int
) -> tuple[Rung, ...]:
    """The counterfactual with the order of pairs shuffled by whole blocks, once a shuffled audit.

    Args:
        context: the audit.
        rows: (n,) image indices.
        after: (n,) measure with the concept.
        before: (n,) measure without it.
        stream: a number that tells this test from others; it decides the shuffles.
    """
    blocks = context.blocks_of(rows)
    _, codes = np.unique(rows if blocks is None else blocks, return_inverse=True)
    signs = np.random.default_rng([context.seed, 19, stream]).integers(2, size=(AUDITS, codes.max(initial=0) + 1))
    found = []
    for number in range(AUDITS):
        turned = signs[number][codes] == 1
        first, second = np.where(turned, before, after), np.where(turned, after, before)
        value = float((first - second).mean()) if len(rows) else 0.0
        # What is too small to hold needs no interval.
        effect = effect_of(context, rows, first, second) if value >= MIN_EFFECT else Effect(value, (-1, 1), 1.0, 0)
        found.append(Rung(value, effect.holds, effect.p))
    return tuple(found)


def null_test(
    context: AuditContext,
    hypothesis: Hypothesis,
    target: int,
    *,
    association: Floats | None = None,
    pairs: tuple[NDArray[np.int64], Floats, Floats] | None = None,
    effect: Effect | None = None,
    ablation: tuple[Ablation, NDArray[np.bool_]] | None = None,
) -> NullTest:
    """One hypothesis under every shuffle.

    Args:
        context: the audit.
        hypothesis: what was tested.
        target: number of its class.
        association: (draws,) correlations under block permutation.
        pairs: rows, measure with the concept, measure without it.
        effect: the counterfactual as it was measured.
        ablation: of its units, and the images it was judged on.
    """
    rungs: dict[int, tuple[Rung, ...]] = {}
    if association is not None:
        ranked = np.sort(association)
        above = len(ranked) - np.searchsorted(ranked, association[:AUDITS] - 1e-12)
        p = (1 + above) / (1 + len(ranked))
        rungs[1] = tuple(
            Rung(float(v), bool(q <= 0.05 and v > 0), float(q)) for v, q in zip(association[:AUDITS], p, strict=True)
        )
    if pairs is not None:
        rungs[2] = shuffled_pairs(context, *pairs, stream=len(context.null_tests))
    if ablation is not None:
        found, mask = ablation
        sets = [found.by_chance(context, target, mask, number) for number in range(len(found.random))]
        drawn = [Rung(gap.value, ablation_holds(own, gap), gap.p) for own, gap in sets]
        # Shuffled audits of one parity see random sets of one parity, so that no set both sets and measures.
        rungs[3] = tuple(drawn[number % (len(drawn) // 2 * 2 or 1)] for number in range(AUDITS))
    real = None if effect is None else Rung(effect.value, effect.holds, effect.p)
    return NullTest(replace(hypothesis, evidence=(), footprint=None), real, rungs)


def _evidence(grade: int, rung: Rung) -> Evidence:
    return Evidence(grade, RUNGS[grade], "", rung.value, (0.0, 0.0), rung.p, "", rung.holds)


def _hypotheses(tests: Sequence[NullTest], number: int, keep_pairs: bool) -> list[Hypothesis]:
    """What one shuffled audit hands to the judge."""
    made = []
    for test in tests:
        rungs = {grade: found[number] for grade, found in test.rungs.items()}
        if keep_pairs and test.real is not None:
            rungs[2] = test.real
        if not rungs:
            continue
        p = next(rungs[grade].p for grade in (2, 1, 3) if grade in rungs)
        made.append(
            replace(test.hypothesis, p=p, evidence=tuple(_evidence(g, rung) for g, rung in sorted(rungs.items())))
        )
    return made


def _threshold(rungs: Sequence[Rung]) -> float:
    """The least effect from which at most :data:`ALLOWED` of the shuffled tests hold; at least ``MIN_EFFECT``.

    Associations are left alone: their own permutation test gives each its level.
    """
    holding = sorted((rung.value for rung in rungs if rung.holds), reverse=True)
    allowed = int(ALLOWED * len(rungs))
    return max(MIN_EFFECT, float(np.nextafter(holding[allowed], 1.0))) if len(holding) > allowed else MIN_EFFECT


def calibrate(tests: Sequence[NullTest], alpha: float) -> Calibration:
    """Thresholds from the even shuffled audits, false-alarm rates from the odd ones.

    Args:
        tests: of every hypothesis with a ladder.
        alpha: false-discovery rate of the audit.
    """
    thresholds: dict[int, float] = {}
    rungs: dict[int, Rate] = {}
    for grade in RUNGS:
        even = [found[n] for t in tests if (found := t.rungs.get(grade)) for n in range(0, AUDITS, 2)]
        thresholds[grade] = _threshold(even) if grade > 1 else 0.0
        odd = [found[n] for t in tests if (found := t.rungs.get(grade)) for n in range(1, AUDITS, 2)]
        rungs[grade] = Rate.of(sum(r.holds and r.value >= thresholds[grade] for r in odd), len(odd))
    grave, lesser, tried, alarmed = {}, {}, {}, 0
    for keep_pairs in (True, False):
        grave[keep_pairs] = lesser[keep_pairs] = tried[keep_pairs] = 0
        for number in range(1, AUDITS, 2):
            hypotheses = _hypotheses(tests, number, keep_pairs)
            findings = judge(hypotheses, alpha, thresholds)
            raised = sum(f.severity in GRAVE for f in findings)
            grave[keep_pairs] += raised
            lesser[keep_pairs] += len(findings) if not keep_pairs else 0
            tried[keep_pairs] += len(hypotheses)
            alarmed += raised > 0
    return Calibration(
        thresholds,
        rungs,
        Rate.of(grave[True], tried[True]),
        Rate.of(grave[False], tried[False]),
        Rate.of(lesser[False], tried[False]),
        Rate.of(alarmed, AUDITS if tests else 0),
    )
