"""The gate: an exit code from an audit's findings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dnd_core.errors import ConfigError

__all__ = ["CLEAN", "INCONCLUSIVE", "TRIPPED", "gate", "known_fingerprints"]

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
    unsure = [check["rule"] for check in document["checks"] if check["status"] in ("not_run", "inconclusive")]
    # On input the network was not made for, no other check's silence means anything.
    unsure += [check["rule"] for check in document["checks"] if (check["rule"], check["status"]) == UNSUITABLE]
    if unsure:
        return INCONCLUSIVE, f"gate inconclusive: {', '.join(unsure)} could not decide"
    old = f"; {len(serious)} findings known from the baseline" if serious else ""
    return CLEAN, f"gate passed: nothing of severity {fail_on} or worse{old}"


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
