"""The stages of an audit that judge: every check with its needs, the shuffled audits behind the thresholds, the findings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from dnd_core.store import RunStore, Stage, fingerprint, write_table
from geoaudit.checks.base import AuditContext, Check
from geoaudit.checks.nulls import Calibration, calibrate
from geoaudit.findings import CheckResult, Finding, judge, raised, with_false_alarm_rate
from geoaudit.settings import AuditSettings

__all__ = ["check_stage", "gate_facts", "missing", "not_run", "settle"]

# Raised whenever a check changes what it writes for the same inputs.
VERSION = 13

RELIANCE = (
    "group", "concept", "class", "association", "association_p", "q", "reliance", "reliance_low", "reliance_high",
    "reliance_p", "gap", "gap_low", "gap_high", "n", "grade",
)  # fmt: skip
ABLATION = (
    "group", "class", "n", "accuracy_before", "accuracy_after", "change", "low", "high", "random_mean", "random_low",
    "random_high", "gap", "gap_low", "gap_high", "p",
)  # fmt: skip

# What a check may need, and how the audit says that it lacks it.
LACKING: Mapping[str, str] = {
    "labels": "the images have no true classes",
    "classes": "the network answers with one number, not with classes",
    "groups": "no concept group was found among the published labels",
    "georeference": "the images have no place on the ground",
    "bands": "the images do not name their bands",
}


def check_stage(
    store: RunStore, context: AuditContext, checks: Sequence[Check], options: AuditSettings, predicted: Stage
) -> tuple[tuple[CheckResult, ...], tuple[Finding, ...], Calibration]:
    """Run the checks, measure what they say of shuffled labels, and judge.

    Args:
        store: the run.
        context: the audit.
        checks: to run; one that lacks its needs is listed as ``not_run`` with the reason.
        options: of the audit.
        predicted: the stage with the predictions.

    Returns:
        Results of every check, findings most severe first, and the calibration.
    """
    verified = store.manifest["stages"]["verification"]["key"]
    inputs = [VERSION, verified, predicted.key, [c.rule for c in checks], asdict(options)]
    stage = store.stage("checks", ["checks", *inputs, fingerprint(dict(context.definitions)), context.seed])
    if not stage.done:
        results = [
            check.run(context) if not (why := missing(check, context)) else not_run(check, why) for check in checks
        ]
        calibration = calibrate(context.null_tests, options.alpha)
        settled = [settle(result, calibration.thresholds) for result in results]
        tested = {
            "results": [asdict(result) for result in settled],
            "chance_gaps": context.chance_gaps,
            "calibration": calibration.to_dict(),
        }
        stage.path("checks.json").write_text(json.dumps(tested, sort_keys=True) + "\n", encoding="utf-8")
        for name in ("reliance", "ablation"):
            write_table(stage.path(f"{name}.parquet"), _table(name, context.tables.get(name, [])))
        stage.commit()
    tested = json.loads((store.root / "checks.json").read_text(encoding="utf-8"))
    found = tuple(CheckResult.from_dict(values) for values in tested["results"])
    calibration = Calibration.from_dict(tested["calibration"])
    findings = judge([h for result in found for h in result.hypotheses], options.alpha)
    worst = calibration.worst
    return found, tuple(with_false_alarm_rate(findings, worst.rate, worst.upper_bound)), calibration


def settle(result: CheckResult, thresholds: Mapping[int, float]) -> CheckResult:
    """A check's result under the audit's own thresholds: evidence below them does not hold, and its status follows."""
    hypotheses = tuple(raised(hypothesis, thresholds) for hypothesis in result.hypotheses)
    lost = sum(new is not old for new, old in zip(hypotheses, result.hypotheses, strict=True))
    if not lost:
        return result
    reason = f"{result.reason}; {lost} lie below what shuffled labels reach in this audit"
    leaning = any(h.spurious and any(e.holds and e.grade >= 2 for e in h.evidence) for h in hypotheses)
    status = "pass" if result.status == "fail" and not leaning else result.status
    return replace(result, hypotheses=hypotheses, reason=reason, status=status)


def _table(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(RELIANCE if name == "reliance" else ABLATION))
    if name == "reliance" and len(frame):
        from geoaudit.statistics import q_values

        p = frame["reliance_p"].where(frame["reliance_p"].notna(), frame["association_p"])
        frame["q"] = q_values(p.to_numpy(dtype=float))
    return frame


def missing(check: Check, context: AuditContext) -> str:
    """Why a check cannot run on this audit, in words, or an empty string."""
    labels = context.images.labels
    have = {
        "labels": labels is not None and bool((labels >= 0).any()),
        "classes": context.logits.shape[1] > 1,
        "groups": len(context.groups) > 0,
        "georeference": bool(context.images[0].metadata.get("crs")),
        "bands": bool(context.images.channels),
    }
    return "; ".join(LACKING[need] for need in check.needs if not have[need])


def not_run(check: Check, reason: str) -> CheckResult:
    """The result of a check that lacks what it needs."""
    return CheckResult(check.rule, check.title, "not_run", reason, 0, check.null, check.cost)


def gate_facts(calibration: Calibration) -> dict[str, Any]:
    """What ``audit.json`` says about the false alarms of the rule that makes a finding major."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: rounded(part) for name, part in value.items()}
        return round(value, 6) if isinstance(value, float) else value

    told: dict[str, Any] = rounded(calibration.to_dict())
    return {
        **told,
        "null": (
            "every test made again with labels shuffled: labels given to random units matched in number and activation norm, "
            "image pairs turned round by whole blocks, activations moved between blocks within classes; half of the shuffled "
            "audits set the thresholds, the other half gave the rates; tests of one audit are not independent of each other"
        ),
    }
