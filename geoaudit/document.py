"""What ``audit.json`` says: the findings and checks of an audit as plain values, against the published schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnd_core.pipeline import Run
from geoaudit.checks.base import AuditContext
from geoaudit.findings import CheckResult, Finding
from geoaudit.gate import summary
from geoaudit.schemas import SCHEMA_VERSION
from geoaudit.statistics import wilson_interval

__all__ = ["audit_document"]


def audit_document(
    manifest: Mapping[str, Any],
    run: Run,
    context: AuditContext,
    results: Sequence[CheckResult],
    findings: Sequence[Finding],
    rate: tuple[float, float],
    notes: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Everything ``audit.json`` holds.

    Args:
        manifest: of the run.
        run: the description.
        context: of the checks.
        results: of the checks.
        findings: most severe first.
        rate: measured false-alarm rate of the ablation gate and its upper bound.
        notes: of the input contract.
    """
    checks = [
        {
            "rule": result.rule,
            "title": result.title,
            "status": result.status,
            "reason": result.reason,
            "tested": result.tested,
            "null": result.null,
            "cost": result.cost,
        }
        for result in results
    ]
    found = [finding.to_dict(number) for number, finding in enumerate(findings, start=1)]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": manifest["tool"],
        "created": None,
        "model": manifest["model"],
        "probe": {**manifest["probe"], "attributions": manifest.get("attributions", [])},
        "units": _units(run),
        "accuracy": _accuracy(context),
        "gate": {
            "false_alarm_rate": None if not np.isfinite(rate[0]) else round(rate[0], 6),
            "upper_bound": round(rate[1], 6),
            "null": "random units matched in number and activation norm, put through the ablation rung",
        },
        "checks": checks,
        "findings": found,
        "notes": [dict(note) for note in notes],
        "summary": summary(checks, found),
    }


def _units(run: Run) -> dict[str, dict[str, int]]:
    counted = {}
    for info in run.layers:
        status = run.neurons.loc[run.neurons["layer"] == info.name, "status"].value_counts()
        counted[info.name] = {
            "described": int(status.get("labelled", 0)),
            "weak": int(status.get("weak", 0)),
            "abstained": int(status.get("abstained", 0)),
            "dead": int(status.get("dead", 0)),
            "total": int(info.units),
        }
    return counted


def _accuracy(context: AuditContext) -> dict[str, Any] | None:
    """Accuracy on the probe, overall and by class, with Wilson intervals; None without labels."""
    labels = context.images.labels
    if labels is None:
        return None
    known = labels >= 0
    right = (context.predicted == labels)[known]
    classes = []
    for number, name in enumerate(context.class_names):
        mine = labels[known] == number
        if mine.any():
            classes.append({"class": name, **_share(int(right[mine].sum()), int(mine.sum()))})
    return {"overall": _share(int(right.sum()), len(right)), "classes": classes, "note": "on the audited images"}


def _share(hits: int, n: int) -> dict[str, Any]:
    low, high = np.asarray(wilson_interval(hits, n), dtype=float).ravel()
    return {"value": round(hits / n, 6), "ci": [round(float(low), 6), round(float(high), 6)], "n": n}
