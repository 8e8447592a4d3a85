"""The gate: an exit code from an audit's findings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnd_core.errors import ConfigError

__all__ = ["CLEAN", "INCONCLUSIVE", "TRIPPED", "gate", "known_fingerprints", "summary"]

CLEAN, TRIPPED, INCONCLUSIVE = 0, 1, 3
SEVERITIES = ("info", "minor", "major", "critical")
UNSUITABLE = ("input-contract", "fail")


def gate(document: Mapping[str, Any], fail_on: str, known: Collection[str] = ()) -> tuple[int, str]:
    """Exit code and its reason in one sentence.

    Args:
        document: what ``audit.json`` holds.
        fail_on: least severity that trips the gate: minor, major or critical.
        known: fingerprints of findings that were accepted before.
    """
    least = SEVERITIES.index(fail_on)
    serious = [
        finding
        for finding in document["findings"]
        if finding["status"] == "fail" and SEVERITIES.index(finding["severity"]) >= least
    ]
    new = [finding for finding in serious if finding["fingerprint"] not in known]
    if new:
        return TRIPPED, f"gate tripped: {len(new)} findings of severity {fail_on} or worse, first: {new[0]['title']}"
    unsure = _unsure(document["checks"])
    if unsure:
        return INCONCLUSIVE, f"gate inconclusive: {', '.join(unsure)} could not decide"
    old = f"; {len(serious)} findings known from the baseline" if serious else ""
    return CLEAN, f"gate passed: nothing of severity {fail_on} or worse{old}"


def _unsure(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rules of the checks that leave the audit undecided."""
    # On input the network was not made for, no other check's silence means anything.
    return [
        str(check["rule"])
        for check in checks
        if check["status"] in ("not_run", "inconclusive") or (check["rule"], check["status"]) == UNSUITABLE
    ]


def summary(checks: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of ``audit.json``: status, worst severity and counts of the open findings, and one sentence.

    Args:
        checks: as they stand in the document.
        findings: as they stand in the document, most severe first; those not open (suppressed) do not count.
    """
    still = [finding for finding in findings if finding["status"] == "fail"]
    counts = {severity: sum(f["severity"] == severity for f in still) for severity in reversed(SEVERITIES)}
    worst = next((severity for severity in reversed(SEVERITIES) if counts[severity]), None)
    unsure = _unsure(checks)
    if still:
        first = still[0]
        sentence = f"{first['title']} ({first['severity']}, evidence grade {first['evidence_grade']})."
        if len(still) > 1:
            sentence += f" {len(still) - 1} more findings."
    else:
        sentence = "No check found the network leaning on anything spurious."
    if unsure:
        sentence += f" {len(unsure)} checks could not decide."
    status = "fail" if worst in ("critical", "major") else "inconclusive" if unsure else "pass"
    return {"status": status, "worst_severity": worst, "counts": counts, "sentence": sentence}


def known_fingerprints(path: Path) -> frozenset[str]:
    """Fingerprints of the findings in an earlier ``audit.json``.

    Raises:
        ConfigError: the file cannot be read or is no audit.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(str(finding["fingerprint"]) for finding in document["findings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the baseline {path} is no audit.json that can be read ({error})") from error
