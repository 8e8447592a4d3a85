"""The gate: an exit code from an audit's findings, after what reviewers set aside and what a baseline already knew."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dnd_core.errors import ConfigError, StoreError
from geoaudit.suppressions import Suppression, apply_suppressions, compare_baseline, is_known

__all__ = [
    "CLEAN", "ERROR", "INCONCLUSIVE", "TRIPPED", "Settlement", "gate", "gate_run", "is_unsuitable", "load_baseline", "settle",
    "settle_run", "summary", "trips",
]  # fmt: skip

CLEAN, TRIPPED, ERROR, INCONCLUSIVE = 0, 1, 2, 3
SEVERITIES = ("info", "minor", "major", "critical")
UNSURE = ("not_run", "inconclusive")
UNSUITABLE = ("input-contract", "fail")


@dataclass(frozen=True)
class Settlement:
    """An audit after suppressions and baseline.

    Attributes:
        document: what ``audit.json`` holds: findings set aside are ``suppressed``, and each says how it stands to the
            baseline where there is one.
        lapsed: fingerprint to suppression of open findings whose suppressions have all expired.
        idle: suppressions that name no open finding.

    """

    document: dict[str, Any]
    lapsed: Mapping[str, Suppression]
    idle: tuple[Suppression, ...]

    def notes(self) -> list[str]:
        """What a person should know about the suppressions, one sentence each."""
        said = [
            f"the suppression of {_plain(finding['id'])} expired after {entry.until}"
            f"{f', set by {_plain(entry.by)}' if entry.by else ''} ({_plain(entry.reason)}): mend the network, or decide again"
            for finding in self.document["findings"]
            if (entry := self.lapsed.get(finding["fingerprint"])) is not None
        ]
        said += [
            f"the suppression of {_plain(entry.fingerprint)} ({_plain(entry.reason)}) names no open finding: take it out"
            for entry in self.idle
        ]
        return said


def gate(document: Mapping[str, Any], fail_on: str, lapsed: Collection[str] = ()) -> tuple[int, str]:
    """Exit code and its reason in one sentence.

    Findings that were set aside do not count, nor do those the baseline knew as at least as severe.

    Args:
        document: what ``audit.json`` holds, see :func:`settle`.
        fail_on: least severity that trips the gate: minor, major or critical.
        lapsed: fingerprints of findings whose suppression has expired; the sentence says so.
    """
    least = SEVERITIES.index(fail_on)
    grave = [finding for finding in document["findings"] if SEVERITIES.index(finding["severity"]) >= least]
    serious = [finding for finding in grave if finding["status"] == "fail"]
    new = [finding for finding in serious if trips(finding, fail_on)]
    if new:
        said = f"gate tripped: {_counted(len(new))} of severity {fail_on} or worse, first: {_plain(new[0]['title'])}"
        expired = [_plain(finding["id"]) for finding in new if finding["fingerprint"] in lapsed]
        return TRIPPED, said + (f"; the suppression of {', '.join(expired)} has expired" if expired else "")
    unsure = _unsure(document["checks"])
    unsure += [_plain(finding["id"]) for finding in grave if finding["status"] in UNSURE]
    if unsure:
        return INCONCLUSIVE, f"gate inconclusive: {', '.join(unsure)} could not decide"
    aside = sum(finding["status"] == "suppressed" for finding in grave)
    passed = f"gate passed: nothing {'new ' if serious or aside else ''}of severity {fail_on} or worse"
    passed += f"; {_counted(len(serious))} known from the baseline" if serious else ""
    return CLEAN, passed + (f"; {_counted(aside)} set aside" if aside else "")


def trips(finding: Mapping[str, Any], fail_on: str) -> bool:
    """Whether one finding alone trips the gate: open, of severity ``fail_on`` or worse, and not known from a baseline."""
    grave = SEVERITIES.index(finding["severity"]) >= SEVERITIES.index(fail_on)
    return grave and finding["status"] == "fail" and not is_known(finding)


def is_unsuitable(check: Mapping[str, Any]) -> bool:
    """Whether a check says that the input does not suit the network, which leaves every other check undecided."""
    return (check["rule"], check["status"]) == UNSUITABLE


def _unsure(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rules of the checks that leave the audit undecided."""
    # On input the network was not made for, no other check's silence means anything.
    return [str(check["rule"]) for check in checks if check["status"] in UNSURE or is_unsuitable(check)]


def _plain(text: Any) -> str:
    """A value as one short line: a title may hold what a label held, and this goes to terminals."""
    from geoaudit.report.text import plain

    return plain(text)


def _counted(number: int, more: str = "") -> str:
    return f"{number} {more}finding{'' if number == 1 else 's'}"


def settle(
    document: Mapping[str, Any],
    suppressions: Sequence[Suppression],
    baseline: Mapping[str, Any] | None,
    today: datetime.date,
) -> Settlement:
    """The audit with findings set aside, marked against a baseline, and summed up anew.

    Args:
        document: what ``audit.json`` holds.
        suppressions: of reviewers.
        baseline: what an earlier ``audit.json`` holds, or None.
        today: the day on which suppressions must be in force.

    Raises:
        StoreError: a finding in ``document`` is set aside until something that is no date.

    """
    reopened, ended = _reopened(document, today)
    settled, unused = apply_suppressions(reopened, suppressions, today)
    still = {finding["fingerprint"] for finding in settled["findings"] if finding["status"] == "fail"}
    lapsed = {entry.fingerprint: entry for entry in (*ended, *unused) if entry.fingerprint in still}
    idle = tuple(entry for entry in unused if entry.fingerprint not in still)
    if baseline is not None:
        settled = compare_baseline(settled, baseline)
    if suppressions or ended:
        settled["summary"] = {**settled.get("summary", {}), **summary(settled["checks"], settled["findings"])}
    return Settlement(settled, lapsed, idle)


def _reopened(document: Mapping[str, Any], today: datetime.date) -> tuple[dict[str, Any], list[Suppression]]:
    """The audit with findings open again that had been set aside in it until a day that has passed."""
    findings, ended = [], []
    for finding in document["findings"]:
        said = finding.get("suppression") or {}
        if finding["status"] != "suppressed" or not said.get("until"):
            findings.append(dict(finding))
            continue
        try:
            until = datetime.date.fromisoformat(said["until"])
        except ValueError as error:
            raise StoreError(f"audit.json: {finding['id']} is set aside until no date ({said['until']!r})") from error
        entry = Suppression(finding["fingerprint"], said["reason"], said.get("by") or "", until)
        if not entry.holds(today):
            ended.append(entry)
            finding = {name: value for name, value in finding.items() if name != "suppression"} | {"status": "fail"}
        findings.append(dict(finding))
    return {**document, "findings": findings}, ended


def settle_run(
    root: Path, suppressions: Sequence[Suppression], baseline: Mapping[str, Any] | None, today: datetime.date
) -> Settlement:
    """Settle a run's ``audit.json`` in place, so that every report shows the findings as they stand.

    The run's manifest vouches for the new file. A resumed audit writes the findings afresh, so a suppression that was
    taken out leaves no trace.

    Raises:
        StoreError: the run has no ``audit.json``, or it cannot be written.

    """
    from dnd_core.store import RunStore

    path = root / "audit.json"
    if not path.is_file():
        raise StoreError(f"{root} has no audit.json: finish the audit with --resume")
    with RunStore(root, resume=True) as store:
        settled = settle(json.loads(path.read_text(encoding="utf-8")), suppressions, baseline, today)
        if not suppressions and baseline is None:
            return settled
        text = json.dumps(settled.document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        made = store.manifest["stages"].get("findings", {}).get("key")
        stage = store.stage("findings", ["settled", made, [asdict(entry) for entry in suppressions], text])
        stage.path("audit.json").write_text(text, encoding="utf-8")
        stage.commit()
    return settled


def gate_run(
    root: Path,
    fail_on: str,
    suppressions: Sequence[Suppression],
    baseline: Mapping[str, Any] | None,
    today: datetime.date,
) -> tuple[int, list[str]]:
    """Exit code of a finished run and what to say, without changing the run.

    A run that is unfinished or damaged is inconclusive unless what can be read trips the gate.

    Raises:
        StoreError: there is no such folder, or it holds no run.

    """
    from geoaudit.results import open_run

    results = open_run(root)
    if results.state == "empty":
        raise StoreError(f"{root} holds no run: give the folder that an audit wrote")
    problems = [problem.sentence for problem in results.problems]
    if not results.audit:
        return INCONCLUSIVE, [*problems, f"gate inconclusive: {root} holds no findings"]
    settled = settle(results.audit, suppressions, baseline, today)
    code, why = gate(settled.document, fail_on, settled.lapsed)
    if code == CLEAN and problems:
        code, why = INCONCLUSIVE, "gate inconclusive: the run is not whole"
    return code, [*map(_plain, problems), *settled.notes(), why]


def load_baseline(path: Path) -> dict[str, Any]:
    """An earlier ``audit.json``.

    Raises:
        ConfigError: the file cannot be read or is no audit.

    """
    from geoaudit import schemas

    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schemas.validate(document)
    except (OSError, ValueError, RecursionError, StoreError) as error:
        raise ConfigError(f"the baseline {path} is no audit.json that can be read ({error})") from error
    return document


def summary(checks: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``audit.json`` says in short: ``status, worst_severity, counts, sentence``, over the open findings.

    Args:
        checks: as in ``audit.json``.
        findings: likewise, most severe first.
    """
    still = [finding for finding in findings if finding["status"] == "fail"]
    worst_first = SEVERITIES[::-1]
    counts = {severity: sum(f["severity"] == severity for f in still) for severity in worst_first}
    worst = next((severity for severity in worst_first if counts[severity]), None)
    # What the default gate calls inconclusive is no pass here either.
    unsure = len(_unsure(checks))
    open_grave = sum(f["status"] in UNSURE and f["severity"] in ("critical", "major") for f in findings)
    aside = sum(finding["status"] == "suppressed" for finding in findings)
    if still:
        first = still[0]
        sentence = f"{_plain(first['title'])} ({first['severity']}, evidence grade {first['evidence_grade']})."
        sentence += f" {_counted(len(still) - 1, 'more ')}." if len(still) > 1 else ""
    elif aside:
        sentence = "No finding is open."
    else:
        sentence = "No check found the network leaning on anything spurious."
    sentence += f" {_counted(aside)} set aside by a reviewer." if aside else ""
    if any(is_unsuitable(check) for check in checks):
        sentence += " The input does not suit the network, so no silence of a check means anything."
    sentence += f" {unsure} check{'' if unsure == 1 else 's'} could not decide." if unsure else ""
    sentence += f" {_counted(open_grave)} could not be decided." if open_grave else ""
    status = "fail" if worst in ("critical", "major") else "inconclusive" if unsure or open_grave else "pass"
    return {"status": status, "worst_severity": worst, "counts": counts, "sentence": sentence}
