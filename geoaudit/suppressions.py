"""What a reviewer has set aside, and how an audit stands against an earlier one.

A suppressions file is YAML: a list of ``{fingerprint, reason, by, until}``. Fingerprints are stable over runs, so a finding
that was set aside stays so until the day named, and a finding that is not in the baseline is new.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnd_core.errors import ConfigError

__all__ = ["Suppression", "apply_suppressions", "compare_baseline", "is_known", "load_suppressions"]

_FIELDS = {"fingerprint", "reason", "by", "until"}
_WORST = ("critical", "major", "minor", "info")


@dataclass(frozen=True, slots=True)
class Suppression:
    """A finding set aside.

    Attributes:
        fingerprint: of the finding.
        reason: why, in the reviewer's words.
        by: who.
        until: last day on which it holds, or None for no end.

    """

    fingerprint: str
    reason: str
    by: str = ""
    until: datetime.date | None = None

    def holds(self, today: datetime.date) -> bool:
        """Whether it is still in force."""
        return self.until is None or today <= self.until


def load_suppressions(path: Path) -> tuple[Suppression, ...]:
    """Read a suppressions file.

    Raises:
        ConfigError: it cannot be read, or an entry lacks its fingerprint or its reason, or has a field unknown.

    """
    import yaml

    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({error}): correct it or leave it out") from error
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise ConfigError(f"{path} must be a list of entries with fingerprint and reason")
    return tuple(_entry(path, number, entry) for number, entry in enumerate(entries, start=1))


def _entry(path: Path, number: int, entry: Any) -> Suppression:
    where = f"{path}, entry {number}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must have the fields fingerprint and reason")
    unknown = sorted(set(map(str, entry)) - _FIELDS)
    if unknown:
        raise ConfigError(
            f"{where} has the unknown fields {', '.join(unknown)}; known are {', '.join(sorted(_FIELDS))}"
        )
    texts = {name: entry.get(name) for name in ("fingerprint", "reason")}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where} lacks its {name}: say it in words, so that the next reader understands")
    until = entry.get("until")
    if isinstance(until, str):
        try:
            until = datetime.date.fromisoformat(until)
        except ValueError as error:
            raise ConfigError(f"{where}: until must be a date like 2026-12-31, got {until!r}") from error
    if isinstance(until, datetime.datetime):
        until = until.date()
    if until is not None and not isinstance(until, datetime.date):
        raise ConfigError(f"{where}: until must be a date like 2026-12-31, got {until!r}")
    return Suppression(str(texts["fingerprint"]), str(texts["reason"]), str(entry.get("by") or ""), until)


def apply_suppressions(
    audit: Mapping[str, Any], suppressions: Sequence[Suppression], today: datetime.date
) -> tuple[dict[str, Any], tuple[Suppression, ...]]:
    """The audit with those findings set aside that a suppression in force names, and the suppressions that name none.

    Only open findings are touched; what was said about them stays, so that reports can still show it.
    """
    known = {entry.fingerprint: entry for entry in suppressions if entry.holds(today)}
    findings, used = [], set()
    for finding in audit.get("findings", ()):
        entry = known.get(finding["fingerprint"])
        if entry is None or finding["status"] != "fail":
            findings.append(dict(finding))
            continue
        used.add(entry.fingerprint)
        until = entry.until.isoformat() if entry.until else None
        said = {"reason": entry.reason, "by": entry.by, "until": until}
        findings.append({**finding, "status": "suppressed", "suppression": said})
    unused = tuple(entry for entry in suppressions if entry.fingerprint not in used)
    return {**audit, "findings": findings}, unused


def compare_baseline(audit: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """The audit with each finding marked ``new``, ``unchanged`` or ``changed`` against a baseline.

    A finding that changed in severity or status says under ``before`` what it was.
    """
    before = {finding["fingerprint"]: finding for finding in baseline.get("findings", ())}
    findings = []
    for finding in audit.get("findings", ()):
        old = before.get(finding["fingerprint"])
        kept = {name: value for name, value in finding.items() if name not in ("baseline", "before")}
        if old is None:
            findings.append({**kept, "baseline": "new"})
        elif (old["severity"], old["status"]) == (finding["severity"], finding["status"]):
            findings.append({**kept, "baseline": "unchanged"})
        else:
            was = {"severity": old["severity"], "status": old["status"]}
            findings.append({**kept, "baseline": "changed", "before": was})
    return {**audit, "findings": findings}


def is_known(finding: Mapping[str, Any]) -> bool:
    """Whether the baseline held this finding open and at least as severe.

    One that has grown worse is not known, nor is one that had been set aside then and is open now.
    """
    before = finding.get("before")
    if finding.get("baseline") != "changed" or not before:
        return finding.get("baseline") == "unchanged"
    return before["status"] == "fail" and _WORST.index(before["severity"]) <= _WORST.index(finding["severity"])
