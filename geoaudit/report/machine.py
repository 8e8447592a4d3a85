"""Files for other tools: SARIF 2.1.0, JUnit XML, tables that are safe to open, and a crosswalk to published standards."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from geoaudit.gate import is_unsuitable, trips
from geoaudit.report.tables import layer_counts
from geoaudit.report.text import figure, lines, plain
from geoaudit.report.wording import say
from geoaudit.results import Results

__all__ = ["CROSSWALK", "audit_json", "crosswalk", "junit", "neurons_csv", "sarif"]

_LEVELS = {"critical": "error", "major": "error", "minor": "warning", "info": "note"}
_RANK = {"critical": 100.0, "major": 75.0, "minor": 40.0, "info": 10.0}
_BASELINE = {"new": "new", "unchanged": "unchanged", "changed": "updated", "gone": "absent"}
SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def audit_json(results: Results) -> bytes:
    """``audit.json`` as the run holds it; for a run without one, what can be said: a state and its problems."""
    if results.audit:
        return (results.root / "audit.json").read_bytes()
    value = {"state": results.state, "problems": [problem.sentence for problem in results.problems]}
    return _dump(value)


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def sarif(results: Results) -> bytes:
    """Findings as SARIF 2.1.0; a run that is not complete carries its problems as notifications and is not successful."""
    rules: dict[str, dict[str, Any]] = {}
    for check in results.checks:
        rule = plain(check["rule"], 80)
        rules.setdefault(rule, {"id": rule, "shortDescription": {"text": lines(check["title"], 300) or rule}})
    found = []
    for finding in results.findings:
        rule = plain(finding["rule"], 80)
        rules.setdefault(rule, {"id": rule, "shortDescription": {"text": rule}})
        found.append(_result(finding, rule, list(rules).index(rule)))
    notes = [
        {"level": "error" if problem.kind == "damaged" else "warning", "message": {"text": lines(problem.sentence)}}
        for problem in results.problems
    ]
    notes += [
        {
            "level": "warning",
            "message": {"text": lines(f"{check['title']}: {check.get('reason') or say('check.not_run')}")},
            "associatedRule": {"id": plain(check["rule"], 80)},
        }
        for check in results.checks
        if check["status"] in ("not_run", "inconclusive")
    ]
    run = {
        "tool": {"driver": {"name": "geoaudit", **_version(results), "rules": list(rules.values())}},
        "invocations": [
            {
                "executionSuccessful": results.state == "complete" and bool(results.audit),
                "toolExecutionNotifications": notes,
            }
        ],
        "artifacts": [{"location": {"uri": "audit.json"}, "mimeType": "application/json"}],
        "columnKind": "unicodeCodePoints",
        "results": found,
    }
    return _dump({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def _version(results: Results) -> dict[str, str]:
    versions = results.manifest.get("versions")
    version = versions.get("geoaudit") if isinstance(versions, Mapping) else None
    return {"version": plain(version, 40)} if version else {}


def _result(finding: Mapping[str, Any], rule: str, index: int) -> dict[str, Any]:
    effect = finding.get("effect") or {}
    sentence = lines(finding["title"], 500)
    if effect:
        sentence += f" ({plain(effect['metric'], 60)} {figure(effect.get('value'))})"
    recommendation = lines(finding.get("recommendation"), 1000)
    units = [plain(unit, 120) for unit in finding.get("units", ())]
    result: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": index,
        "kind": {"fail": "fail", "suppressed": "fail", "pass": "pass", "inconclusive": "open", "not_run": "notApplicable"}[
            finding["status"]
        ],
        "message": {"text": sentence + (f". {recommendation}" if recommendation else "")},
        "rank": _RANK[finding["severity"]],
        "partialFingerprints": {"geoaudit/v1": plain(finding["fingerprint"], 80)},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": "audit.json", "index": 0}},
                "logicalLocations": [{"fullyQualifiedName": unit, "kind": "unit"} for unit in units[:50]],
            }
        ],
        "properties": {
            "severity": finding["severity"], "evidenceGrade": finding.get("evidence_grade"), "id": plain(finding["id"], 40),
            "concept": plain(finding.get("concept"), 200),
        },
    }  # fmt: skip
    # The standard gives a level only to results that fail.
    result["level"] = _LEVELS[finding["severity"]] if result["kind"] == "fail" else "none"
    if not units:
        del result["locations"][0]["logicalLocations"]
    if finding.get("baseline") in _BASELINE:
        result["baselineState"] = _BASELINE[finding["baseline"]]
    suppression = finding.get("suppression")
    if finding["status"] == "suppressed":
        reason = lines(suppression["reason"], 500) if suppression else say("status.suppressed")
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": reason}]
    return result


@dataclass(frozen=True)
class _Case:
    """A test case: its rule, its name, ``failure``, ``error``, ``skipped`` or None for passed, and what is said about it."""

    rule: str
    name: str
    kind: str | None
    said: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


def junit(results: Results, fail_on: str = "major") -> bytes:
    """Checks as test cases that fail where the gate would trip.

    A finding below ``fail_on``, set aside or known from the baseline stands in the output of a case that passes; a check that
    could not run or decide is skipped; an unfinished run, or input that does not suit the network, is an error.

    Args:
        results: the run.
        fail_on: least severity that trips the gate: minor, major or critical.
    """
    cases = []
    if results.problems or not results.audit:
        said = [lines(problem.sentence) for problem in results.problems] or [say("findings.unknown")]
        cases.append(_Case("run", say("problems.title"), "error", tuple(said)))
    loud: dict[str, list[str]] = {}
    quiet: dict[str, list[str]] = {}
    for finding in results.findings:
        if finding["status"] in ("fail", "suppressed"):
            (loud if trips(finding, fail_on) else quiet).setdefault(finding["rule"], []).append(_line(finding))
    for check in results.checks:
        failed, noted = tuple(loud.pop(check["rule"], ())), tuple(quiet.pop(check["rule"], ()))
        kind = (
            "skipped" if check["status"] in ("inconclusive", "not_run") else "error" if is_unsuitable(check) else None
        )
        reason = (lines(check.get("reason")),) if check.get("reason") else ()
        if failed:
            cases.append(_Case(check["rule"], check["title"], "failure", failed, (*noted, *reason)))
        elif kind:
            cases.append(_Case(check["rule"], check["title"], kind, reason, noted))
        else:
            cases.append(_Case(check["rule"], check["title"], None, (), (*noted, *reason)))
    cases += [_Case(rule, rule, "failure", tuple(said), tuple(quiet.pop(rule, ()))) for rule, said in loud.items()]
    cases += [_Case(rule, rule, None, (), tuple(said)) for rule, said in quiet.items()]
    return _xml(cases)


def _line(finding: Mapping[str, Any]) -> str:
    mark = say("status.suppressed") if finding["status"] == "suppressed" else ""
    mark = mark or (say(f"baseline.{finding['baseline']}") if finding.get("baseline") else "")
    sentence = f"[{finding['severity']}] {finding['id']}: {lines(finding['title'], 300)}"
    return plain(sentence + (f" ({mark.lower()})" if mark else ""), 400)


def _xml(cases: Sequence[_Case]) -> bytes:
    counted = {kind: sum(case.kind == kind for case in cases) for kind in ("failure", "error", "skipped")}
    totals = {
        "tests": str(len(cases)), "failures": str(counted["failure"]), "errors": str(counted["error"]),
        "skipped": str(counted["skipped"]),
    }  # fmt: skip
    suites = ET.Element("testsuites", {"name": "geoaudit", **totals})
    suite = ET.SubElement(suites, "testsuite", {"name": "geoaudit", **totals})
    for case in cases:
        rule = plain(case.rule, 80)
        element = ET.SubElement(suite, "testcase", {"classname": f"geoaudit.{rule}", "name": plain(case.name) or rule})
        if case.kind is not None:
            child = ET.SubElement(element, case.kind, {"message": case.said[0] if case.said else ""})
            child.text = "\n".join(case.said)
        if case.aside:
            ET.SubElement(element, "system-out").text = "\n".join(case.aside)
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def neurons_csv(results: Results) -> bytes:
    """Neurons as CSV (UTF-8); a cell that a spreadsheet would calculate is made text by a leading apostrophe."""
    import pandas as pd

    columns = [c for c in results.neurons.columns if c not in ("candidates", "top_images", "labels")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([*columns, "other_labels"])
    for record in results.neurons.itertuples(index=False):
        row = record._asdict() if len(columns) < 255 else dict(zip(results.neurons.columns, record, strict=True))
        cells = [_cell(None if _missing(row[name], pd) else row[name]) for name in columns]
        others = [str(label) for label in row["labels"]][1:] if row.get("labels") is not None else []
        writer.writerow([*cells, _cell("; ".join(others))])
    return buffer.getvalue().encode("utf-8", "replace")


def _missing(value: Any, pd: Any) -> bool:
    return value is None or (not isinstance(value, str) and bool(pd.isna(value)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return format(value, ".6g") if isinstance(value, float) else str(value)
    text = plain(value, 1000)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "|", "%") else text


# Standard, clause, the catalogue's name for what it asks and which part of a run speaks to it, and the files that hold it.
CROSSWALK: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("EU AI Act (Regulation 2024/1689)", "Annex IV 2(g)", "validation", ("audit.json", "report.pdf", "manifest.json")),
    ("EU AI Act (Regulation 2024/1689)", "Annex IV 3", "outcomes", ("audit.json", "report.pdf")),
    ("NIST AI RMF 1.0", "MEASURE 1.1", "metrics", ("audit.json",)),
    ("NIST AI RMF 1.0", "MEASURE 2.3", "conditions", ("images.parquet", "report.pdf")),
    ("NIST AI RMF 1.0", "MEASURE 2.5", "reliability", ("audit.json",)),
    ("NIST AI RMF 1.0", "MEASURE 2.9", "explained", ("neurons.parquet", "groups.parquet", "maps/index.gpkg")),
    ("NIST AI RMF 1.0", "MEASURE 3.1", "tracked", ("audit.json", "audit.sarif")),
    ("ISO 19157-1:2023", "Thematic accuracy", "thematic", ("images.parquet", "audit.json", "report.pdf")),
    ("ISO 19157-1:2023", "Metaquality", "metaquality", ("audit.json",)),
    ("ISO 19157-1:2023", "Usability", "usability", ("report.pdf",)),
)


def crosswalk(results: Results) -> bytes:
    """Which published clause asks for something that this run holds, and where; it claims no compliance."""
    rows = [
        {
            "standard": standard, "clause": clause, "asks_for": say(f"crosswalk.{key}"),
            "evidence": say(f"crosswalk.{key}.in"),
            "files": [{"path": name, "present": (results.root / name).is_file()} for name in files],
        }
        for standard, clause, key, files in CROSSWALK
    ]  # fmt: skip
    counts = {row["layer"]: row["total"] for row in layer_counts(results)}
    return _dump({
        "claim": say("crosswalk.claim"),
        "state": results.state, "units": counts, "rows": rows,
    })  # fmt: skip
