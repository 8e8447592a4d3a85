"""From tested hypotheses to findings: correct for many tests, grade the evidence, rank.

A hypothesis says: *the network leans on concept g when it decides class c, and g is not part of what c is*. Evidence
comes in grades (method section 4): 1 association, 2 counterfactual, 3 ablation, 4 re-test. A severity never exceeds its
grade: ``major`` needs a counterfactual and an ablation that both hold and real images that do not speak against them,
``critical`` also that the concept is common where the map is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

__all__ = [
    "CheckResult",
    "CheckStatus",
    "Evidence",
    "Finding",
    "Hypothesis",
    "Severity",
    "judge",
    "raised",
    "rank",
    "refuted",
]

Severity = Literal["critical", "major", "minor", "info"]
CheckStatus = Literal["fail", "pass", "inconclusive", "not_run"]
SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor", "info")

# Prevalence from which a major finding is critical: one tile in twenty of the area to be mapped.
PREVALENT = 0.05
# Reliance from which an artefact that the imagery does not show makes a major finding all the same.
MOSTLY = 0.5
# Names of the evidence that a brush gives, and that real images give in its place or beside it.
BRUSH, PAIRS = "counterfactual reliance", "retrieved pairs"


@dataclass(frozen=True)
class Evidence:
    """One step of the ladder.

    Attributes:
        grade: 1 association, 2 counterfactual, 3 ablation, 4 re-test.
        name: the measure, in a word or two.
        sentence: what was seen, in plain words with its figures.
        value: the measure.
        ci: its 95 % interval.
        p: probability under the null, or None where the interval decides.
        null: what it was compared with.
        holds: whether it supports the hypothesis.
    """

    grade: int
    name: str
    sentence: str
    value: float
    ci: tuple[float, float]
    p: float | None
    null: str
    holds: bool


@dataclass(frozen=True)
class Hypothesis:
    """One statement that a check tested, with everything it measured.

    Attributes:
        rule: id of the check.
        concept: the suspected concept, in words.
        class_name: the class that leans on it.
        layer, units: where it is encoded; empty when it was tested from outside.
        n: images behind the main effect.
        p: p-value that enters the false-discovery-rate control.
        evidence: the ladder, lowest grade first.
        metric: name of the main effect, ``value`` and ``ci`` its size.
        prevalence: share of the area to be mapped that shows the concept, or None where unknown.
        spurious: whether the concept is no part of what the class is, with the reason in ``why``.
        label_confidence: held-out r of the units' labels, or None.
        examples, counterexamples: image numbers.
        group: number of the concept group, -1 for none.
        area_ha: estimate and 95 % interval of the area concerned, or None; ``area_meaning`` says which ground that is.
        recommendation: what to do.
        limitations: what the figures do not say.
        title: the finding in one sentence; empty for "CLASS is predicted where there is CONCEPT".
    """

    rule: str
    concept: str
    class_name: str
    layer: str
    units: tuple[str, ...]
    n: int
    p: float
    evidence: tuple[Evidence, ...]
    metric: str
    value: float
    ci: tuple[float, float]
    prevalence: float | None
    spurious: bool
    why: str
    label_confidence: float | None = None
    examples: tuple[int, ...] = ()
    counterexamples: tuple[int, ...] = ()
    group: int = -1
    area_ha: tuple[float, float, float] | None = None
    area_meaning: str = ""
    recommendation: str = ""
    limitations: str = ""
    retest: str = ""
    footprint: dict[str, Any] | None = None
    title: str = ""


@dataclass(frozen=True)
class CheckResult:
    """What one check looked for and found. ``not_run`` carries the reason."""

    rule: str
    title: str
    status: CheckStatus
    reason: str
    tested: int
    null: str
    cost: str
    hypotheses: tuple[Hypothesis, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CheckResult:
        """The result written as plain values."""
        hypotheses = []
        for given in values["hypotheses"]:
            evidence = tuple(Evidence(**{**e, "ci": tuple(e["ci"])}) for e in given["evidence"])
            area = given["area_ha"]
            hypotheses.append(
                Hypothesis(
                    **{
                        **given,
                        "evidence": evidence,
                        "units": tuple(given["units"]),
                        "ci": tuple(given["ci"]),
                        "examples": tuple(given["examples"]),
                        "counterexamples": tuple(given["counterexamples"]),
                        "area_ha": None if area is None else tuple(area),
                    }
                )
            )
        return cls(**{**values, "hypotheses": tuple(hypotheses)})


@dataclass(frozen=True)
class Finding:
    """A hypothesis that survived, as it stands in ``audit.json``."""

    hypothesis: Hypothesis
    severity: Severity
    grade: int
    q: float
    title: str
    status: str = "fail"
    false_alarm_rate: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Stable over runs: the rule, the concept's words and the class, not the figures."""
        h = self.hypothesis
        words = " ".join(sorted(h.concept.casefold().split()))
        return hashlib.sha256(json.dumps([h.rule, words, h.class_name]).encode()).hexdigest()[:16]

    def to_dict(self, number: int) -> dict[str, Any]:
        """The finding as the schema wants it; ``number`` makes its id within the run."""
        h = self.hypothesis
        return {
            "id": f"F{number:02d}",
            "fingerprint": self.fingerprint,
            "rule": h.rule,
            "title": self.title,
            "severity": self.severity,
            "status": self.status,
            "class_pair": [h.class_name],
            "concept": h.concept,
            "group": h.group,
            "why_spurious": h.why,
            "label_confidence": h.label_confidence,
            "layer": h.layer,
            "units": list(h.units),
            "n": h.n,
            "effect": {
                "metric": h.metric,
                "value": _plain(h.value),
                "ci": [_plain(v) for v in h.ci],
                "p": _plain(h.p),
                "q": _plain(self.q),
                "null": h.evidence[0].null if h.evidence else "",
            },
            "evidence_grade": self.grade,
            "evidence": [_evidence(e) for e in h.evidence],
            "prevalence": _plain(h.prevalence),
            "examples": list(h.examples),
            "counterexamples": list(h.counterexamples),
            "footprint": h.footprint,
            "area_ha": None
            if h.area_ha is None
            else {
                "estimate": _plain(h.area_ha[0]),
                "ci": [_plain(h.area_ha[1]), _plain(h.area_ha[2])],
                "meaning": h.area_meaning,
            },
            "recommendation": h.recommendation,
            "retest": h.retest,
            "limitations": h.limitations,
            "false_alarm_rate": _plain(self.false_alarm_rate),
            **self.extra,
        }


def _plain(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return round(float(value), 6)


def _evidence(evidence: Evidence) -> dict[str, Any]:
    values = asdict(evidence)
    values |= {"value": _plain(evidence.value), "ci": [_plain(v) for v in evidence.ci], "p": _plain(evidence.p)}
    return values


def judge(
    hypotheses: Sequence[Hypothesis], alpha: float = 0.05, thresholds: Mapping[int, float] | None = None
) -> list[Finding]:
    """Control the false-discovery rate over every hypothesis of the audit, then grade what is left.

    Args:
        hypotheses: all that were tested, of all checks.
        alpha: false-discovery rate.
        thresholds: least effect that counts as evidence, by grade; see :func:`geoaudit.checks.nulls.calibrate`.

    Returns:
        Findings, most severe first. Left out are hypotheses that are not significant, whose concept belongs to the class,
        that no evidence supports, or that repeat what a concept group's finding says.
    """
    from scipy.stats import false_discovery_control

    if not hypotheses:
        return []
    q = false_discovery_control([min(1.0, max(0.0, h.p)) for h in hypotheses])
    findings = []
    for hypothesis, value in zip(hypotheses, q, strict=True):
        hypothesis = raised(hypothesis, thresholds or {})
        held = {e.grade for e in hypothesis.evidence if e.holds}
        if value > alpha or not hypothesis.spurious or not _supported(hypothesis, held):
            continue
        severity = _severity(hypothesis, held)
        title = hypothesis.title or f"{hypothesis.class_name} is predicted where there is {hypothesis.concept}"
        title = title[:1].upper() + title[1:]
        findings.append(Finding(hypothesis, severity, max(held), float(value), title))
    return rank([finding for finding in findings if not _covered(finding, findings)])


def _severity(hypothesis: Hypothesis, held: set[int]) -> Severity:
    """The ladder: both experiments for ``major``, prevalence for ``critical``, and nothing that speaks against it.

    An artefact that the imagery does not show was not learned from it: moving less than half of other ground, it is a
    weakness worth knowing, not a shortcut.
    """
    if not {2, 3} <= held or refuted(hypothesis.evidence):
        return "minor"
    if hypothesis.prevalence is not None and hypothesis.prevalence >= PREVALENT:
        return "critical"
    absent = hypothesis.group < 0 and hypothesis.prevalence is not None
    return "minor" if absent and hypothesis.value < MOSTLY else "major"


def refuted(evidence: Sequence[Evidence]) -> bool:
    """Whether the imagery's own images speak against what a brush says: those that show the concept are not called the class
    more often than others of their class, or matched pairs that differ in it do not differ in their answers.
    """
    return any((e.grade == 1 or e.name == PAIRS) and not e.holds for e in evidence)


def raised(hypothesis: Hypothesis, thresholds: Mapping[int, float]) -> Hypothesis:
    """The hypothesis with evidence that does not reach this audit's thresholds taken as not holding."""
    low = [e.holds and e.value < thresholds.get(e.grade, -np.inf) for e in hypothesis.evidence]
    if not any(low):
        return hypothesis
    kept = tuple(replace(e, holds=e.holds and not under) for e, under in zip(hypothesis.evidence, low, strict=True))
    return replace(hypothesis, evidence=kept)


def _supported(hypothesis: Hypothesis, held: set[int]) -> bool:
    """Whether the evidence makes a finding. For a concept group the experiment must be on the group's own units: that they
    fire with a class, or that painting the concept changes it, says nothing about what these units do.
    """
    return 3 in held if hypothesis.group >= 0 else bool(held)


def _covered(finding: Finding, findings: Sequence[Finding]) -> bool:
    """Whether a concept group's finding of at least this severity already says the same of the same class."""
    mine = finding.hypothesis
    return mine.group < 0 and any(
        other.hypothesis.group >= 0
        and other.hypothesis.class_name == mine.class_name
        and mine.concept in other.hypothesis.concept
        and SEVERITIES.index(other.severity) <= SEVERITIES.index(finding.severity)
        for other in findings
    )


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Most severe first, then the better evidence, then concepts that the imagery shows, then the larger effect.

    A network may be moved by an artefact that none of its images has; what they have comes before it.
    """
    return sorted(
        findings,
        key=lambda f: (
            SEVERITIES.index(f.severity),
            -f.grade,
            (f.hypothesis.prevalence or 0.0) < PREVALENT,
            -abs(f.hypothesis.value),
            f.fingerprint,
        ),
    )


def with_false_alarm_rate(
    findings: Sequence[Finding], rate: float | None, upper_bound: float | None = None
) -> list[Finding]:
    """The findings with the measured false-alarm rate of the whole ladder, and its 95 % bound, written into each."""
    bound = {} if upper_bound is None else {"false_alarm_bound": _plain(upper_bound)}
    return [replace(f, false_alarm_rate=rate, extra={**f.extra, **bound}) for f in findings]
