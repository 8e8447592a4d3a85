"""Grade 4 inside the audit: what is left of a reliance once its units are pruned, or the head refitted (method section 4).

Pruning alone often leaves the reliance where it was, because other units carry it too; so every grave finding is tested
again at once, on held-out images: reliance, accuracy overall, by class and of the worst group, beside matched random
pruning. Pruning holds every unit of the finding, in all layers, at its mean (the part of the network before the first of
them is played back); the head is refitted as ``geoaudit mitigate --by retrain-head`` does it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.ablation import Ablation, matched_random_sets, unit_statistics
from dnd_core.captioning import Progress
from dnd_core.errors import ConfigError
from dnd_core.store import RunStore
from geoaudit.checks.base import AuditContext
from geoaudit.checks.causal import MIN_EFFECT, RANDOM_SETS, points, usual_strength
from geoaudit.findings import Evidence, Finding, Hypothesis
from geoaudit.mitigation import held_out_pairs, measured_rows, painted_artefact, repair, resting_rows
from geoaudit.outcomes import Answers, Line, outcomes
from geoaudit.statistics import Estimate

__all__ = ["GRAVE", "Retest", "retest", "retest_stage"]

VERSION = 2
GRAVE = ("critical", "major")
# Each re-test runs the network several times over; the gravest findings are tested.
MOST = 3

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Retest:
    """One repair tried on a finding.

    Attributes:
        by: ``prune`` or ``retrain-head``.
        words: what was done, in one sentence; or why it could not be done, and then there are no lines.
        lines: measures before and after, on held-out images.
    """

    by: str
    words: str
    lines: tuple[Line, ...] = ()

    def line(self, name: str) -> Line | None:
        """The measure whose name starts so, or None."""
        return next((line for line in self.lines if line.name.startswith(name)), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``audit.json``; figures to six digits, None where undefined."""

        def plain(estimate: Estimate | None) -> dict[str, float | None] | None:
            if estimate is None:
                return None
            figures = {"estimate": estimate.value, "low": estimate.low, "high": estimate.high}
            return {name: round(value, 6) if np.isfinite(value) else None for name, value in figures.items()}

        lines = [
            {
                "name": line.name,
                "n": line.n,
                **{part: plain(getattr(line, part)) for part in ("before", "after", "change", "random")},
            }
            for line in self.lines
        ]
        return {"by": self.by, "words": self.words, "lines": lines}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Retest:
        """The re-test written as plain values."""

        def estimate(part: dict[str, Any] | None) -> Estimate | None:
            if part is None:
                return None
            return Estimate(*(float("nan") if part[n] is None else part[n] for n in ("estimate", "low", "high")))

        lines = []
        for line in values["lines"]:
            before, after, change = (estimate(line[part]) for part in ("before", "after", "change"))
            if before is not None and after is not None and change is not None:
                lines.append(Line(line["name"], line["n"], before, after, change, estimate(line["random"])))
        return cls(values["by"], values["words"], tuple(lines))


def retest_stage(
    store: RunStore, context: AuditContext, findings: Sequence[Finding], progress: Progress | None
) -> tuple[Finding, ...]:
    """Test the gravest findings again, and write the outcome into them.

    Args:
        store: the run.
        context: the audit.
        findings: most severe first.
        progress: called with (stage, done, total).
    """
    grave = [finding for finding in findings if finding.severity in GRAVE]
    chosen = grave[:MOST]
    checked = store.manifest["stages"]["checks"]["key"]
    stage = store.stage("retest", ["retest", VERSION, checked, [finding.fingerprint for finding in chosen]])
    if not stage.done:
        written = {}
        for number, finding in enumerate(chosen, start=1):
            written[finding.fingerprint] = [made.to_dict() for made in retest(context, finding.hypothesis)]
            if progress is not None:
                progress("retest", number, len(chosen))
        stage.path("retest.json").write_text(json.dumps(written, sort_keys=True) + "\n", encoding="utf-8")
        stage.commit()
    tried = json.loads((store.root / "retest.json").read_text(encoding="utf-8"))
    found = []
    for finding in findings:
        if finding.fingerprint in tried:
            finding = told(finding, [Retest.from_dict(values) for values in tried[finding.fingerprint]])
        elif finding in grave:
            words = f"Not tested again: the {MOST} gravest findings are. Run geoaudit mitigate on this one."
            finding = replace(finding, hypothesis=replace(finding.hypothesis, retest=words))
        found.append(finding)
    return tuple(found)


def retest(context: AuditContext, hypothesis: Hypothesis) -> tuple[Retest, Retest]:
    """Prune the units of a hypothesis, refit the head against it, and measure both on held-out images."""
    try:
        fit, rows = measured_rows(context)
    except ConfigError as error:
        return Retest("prune", str(error)), Retest("retrain-head", str(error))
    pruned = _prune(context, hypothesis, fit, rows)
    finding = {**asdict(hypothesis), "id": "", "class_pair": [hypothesis.class_name], "units": list(hypothesis.units)}
    try:
        _, report = repair(context, finding, "retrain-head")
    except ConfigError as error:
        return pruned, Retest("retrain-head", str(error))
    return pruned, Retest("retrain-head", report.words, report.lines)


def _prune(context: AuditContext, hypothesis: Hypothesis, fit: Ints, rows: Ints) -> Retest:
    known = {info.name: info for info in context.layers if info.name != "output"}
    units: dict[str, list[int]] = {}
    for unit in hypothesis.units:
        layer, _, index = unit.rpartition("/")
        if layer in known:
            units.setdefault(layer, []).append(int(index))
    if not units:
        return Retest("prune", "the finding names no units that could be pruned")
    resting = resting_rows(context, hypothesis.concept, fit)
    statistics = {layer: unit_statistics(context.activations[layer], resting) for layer in units}
    sets: list[dict[str, list[int]]] = [units]
    if all(2 * len(its) <= len(statistics[layer].means) for layer, its in units.items()):
        norms = {layer: found.norms for layer, found in statistics.items()}
        sets += matched_random_sets(units, norms, RANDOM_SETS, seed=context.seed)
    ablation = Ablation(
        context.network, [known[layer] for layer in units], {layer: found.means for layer, found in statistics.items()}
    )
    whole, each = ablation.logits_with(context.images, sets, indices=rows, batch_size=context.batch_size)
    target = context.class_names.index(hypothesis.class_name)
    artefact = painted_artefact(context, hypothesis.concept, [step.name for step in hypothesis.evidence if step.holds])
    pairs = None
    answers = [Answers(logits) for logits in (whole, *each)]
    if artefact is not None:
        copies = context.painted_images(artefact.name, usual_strength(context, artefact))
        first, rest = ablation.logits_with(copies, sets, indices=rows, batch_size=context.batch_size)
        answers = [replace(a, painted=logits) for a, logits in zip(answers, (first, *rest), strict=True)]
    else:
        pairs = held_out_pairs(context, hypothesis.concept, target, rows)
    label = "" if artefact is None else artefact.label
    lines = outcomes(context, rows, target, answers[0], answers[1], answers[2:], label, pairs)
    where = " and ".join(f"{len(its)} units of {layer}" for layer, its in units.items())
    return Retest("prune", f"{where} held at their means", lines)


def told(finding: Finding, tried: Sequence[Retest]) -> Finding:
    """The finding with its re-tests: a sentence, the figures, and evidence of grade 4 where a repair takes the reliance away."""
    evidence = [made for retested in tried if (made := _evidence(retested)) is not None]
    said = " ".join(_sentence(retested) for retested in tried)
    h = finding.hypothesis
    updated = replace(h, retest=said, evidence=(*h.evidence, *evidence))
    grade = max([finding.grade, *(e.grade for e in evidence if e.holds)])
    extra = {**finding.extra, "repairs": [retested.to_dict() for retested in tried]}
    return replace(finding, hypothesis=updated, grade=grade, extra=extra)


def _evidence(retested: Retest) -> Evidence | None:
    line = retested.line("reliance")
    if line is None:
        return None
    drop = Estimate(-line.change.value, -line.change.high, -line.change.low)
    pruned = retested.by == "prune"
    # What random pruning does just as well says nothing about these units.
    beyond = not pruned or line.random is None or line.after.value < line.random.low
    return Evidence(
        4,
        "re-test after pruning" if pruned else "re-test after retraining the head",
        _sentence(retested),
        drop.value,
        drop.ci,
        None,
        "matched random pruning"
        if pruned and line.random is not None
        else "the network as it was, on the same held-out images",
        drop.value >= MIN_EFFECT and drop.low > 0 and beyond,
    )


def _sentence(retested: Retest) -> str:
    pruned = retested.by == "prune"
    name = "Pruning its units" if pruned else "Retraining the head against it"
    if not retested.lines:
        return f"{name} was not tested: {retested.words}."
    line, accuracy, worst = (retested.line(wanted) for wanted in ("reliance", "accuracy", "worst group"))
    parts = []
    if line is not None:
        chance = (
            f", matched random pruning leaves {points(line.random.value)}" if pruned and line.random is not None else ""
        )
        parts.append(
            f"reliance {points(line.before.value)} before, {points(line.after.value)} after on {line.n} held-out images "
            f"(change {_between(line.change)}{chance})"
        )
    else:
        parts.append("what reliance is left could not be measured")
    for measure, words in ((accuracy, "accuracy"), (worst, "worst group")):
        if measure is not None:
            parts.append(f"{words} {measure.before.value:.0%} before, {measure.after.value:.0%} after")
    classes = [line for line in retested.lines if line.name.startswith("accuracy of ")]
    if classes:
        lost = min(classes, key=lambda line: line.change.value)
        if lost.change.value < 0:
            name_of = lost.name.removeprefix("accuracy of ")
            parts.append(f"{name_of} loses most, {points(-lost.change.value)}")
    return f"{name}: {'; '.join(parts)}."


def _between(change: Estimate) -> str:
    return f"{100 * change.value:+.0f} points, 95 % interval {100 * change.low:+.0f} to {100 * change.high:+.0f}"
