"""The gate on synthetic runs: every exit code, suppressions and their end, baselines, the run folder afterwards."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import pytest

from dnd_core.errors import ConfigError, StoreError
from geoaudit import schemas
from geoaudit.gate import CLEAN, INCONCLUSIVE, TRIPPED, gate, gate_run, load_baseline, settle, settle_run, summary
from geoaudit.report import write_reports
from geoaudit.results import open_run
from geoaudit.suppressions import Suppression
from tests.geoaudit.report.synthetic_run import make_run

TODAY = datetime.date(2026, 7, 1)
HAZE, EDGES = "f" * 40, "e" * 40


def document(severity: str = "major", status: str = "fail", check: str = "pass", **more) -> dict:
    finding = {
        "id": "F01", "severity": severity, "status": status, "fingerprint": "abc", "title": "water hangs on haze",
        "evidence_grade": 3, **more,
    }  # fmt: skip
    return {"findings": [finding], "checks": [{"rule": "context", "status": check}]}


@pytest.mark.parametrize(
    ("given", "fail_on", "code"),
    [
        (document(), "major", TRIPPED),
        (document("critical"), "major", TRIPPED),
        (document("minor"), "major", CLEAN),
        (document("minor"), "minor", TRIPPED),
        (document("info"), "minor", CLEAN),
        (document(), "critical", CLEAN),
        (document(status="pass"), "major", CLEAN),
        (document(status="suppressed"), "major", CLEAN),
        (document(status="inconclusive"), "major", INCONCLUSIVE),
        (document("minor", status="inconclusive"), "major", CLEAN),
        (document("minor", check="not_run"), "major", INCONCLUSIVE),
        (document("minor", check="inconclusive"), "major", INCONCLUSIVE),
        (document(check="inconclusive"), "major", TRIPPED),
        (document(baseline="new"), "major", TRIPPED),
        (document(baseline="unchanged"), "major", CLEAN),
        (document(baseline="unchanged", check="not_run"), "major", INCONCLUSIVE),
        (document(baseline="changed", before={"severity": "minor", "status": "fail"}), "major", TRIPPED),
        (document(baseline="changed", before={"severity": "critical", "status": "fail"}), "major", CLEAN),
        (document(baseline="changed", before={"severity": "major", "status": "suppressed"}), "major", TRIPPED),
    ],
)
def test_every_verdict(given, fail_on, code):
    assert gate(given, fail_on)[0] == code


def test_a_broken_input_contract_does_not_pass():
    given = {"findings": [], "checks": [{"rule": "input-contract", "status": "fail", "reason": "classes mixed up"}]}
    code, why = gate(given, "major")
    assert code == INCONCLUSIVE
    assert "input-contract" in why


def test_the_sentence_counts_what_was_let_through():
    assert gate(document(), "major")[1].endswith("1 finding of severity major or worse, first: water hangs on haze")
    assert gate(document(baseline="unchanged"), "major")[1].endswith("; 1 finding known from the baseline")
    assert gate(document(status="suppressed"), "major")[1].endswith("; 1 finding set aside")
    assert gate(document("minor", status="suppressed"), "major")[1] == "gate passed: nothing of severity major or worse"


def aside(until: datetime.date | None = None, fingerprint: str = "abc") -> Suppression:
    return Suppression(fingerprint, "known and accepted", "B. Reviewer", until)


def test_a_suppression_lets_a_finding_through_until_its_day():
    ends = datetime.date(2026, 6, 30)
    within = settle(document(), [aside(ends)], None, ends)
    assert gate(within.document, "major", within.lapsed)[0] == CLEAN
    assert within.document["findings"][0]["suppression"]["reason"] == "known and accepted"
    assert within.document["summary"]["worst_severity"] is None
    assert within.document["summary"]["sentence"] == "No finding is open. 1 finding set aside by a reviewer."
    assert within.notes() == []
    after = settle(document(), [aside(ends)], None, ends + datetime.timedelta(days=1))
    code, why = gate(after.document, "major", after.lapsed)
    assert code == TRIPPED
    assert why.endswith("; the suppression of F01 has expired")
    (note,) = after.notes()
    assert "F01 expired after 2026-06-30, set by B. Reviewer (known and accepted)" in note


def test_one_suppression_in_force_is_enough():
    both = [aside(datetime.date(2020, 1, 1)), aside(None), aside(datetime.date(2021, 1, 1))]
    settled = settle(document(), both, None, TODAY)
    assert gate(settled.document, "major", settled.lapsed)[0] == CLEAN
    assert not settled.lapsed


def test_a_suppression_that_names_nothing_is_told():
    settled = settle(document(), [aside(fingerprint="gone")], None, TODAY)
    assert gate(settled.document, "major", settled.lapsed)[0] == TRIPPED
    assert "gone (known and accepted) names no open finding" in settled.notes()[0]


def test_what_an_audit_set_aside_opens_again_when_its_day_has_passed():
    written = settle(document(), [aside(TODAY)], None, TODAY).document
    assert gate(settle(written, [], None, TODAY).document, "major")[0] == CLEAN
    later = settle(written, [], None, TODAY + datetime.timedelta(days=1))
    assert gate(later.document, "major", later.lapsed)[0] == TRIPPED
    assert "suppression" not in later.document["findings"][0]
    assert later.document["summary"]["status"] == "fail"
    assert "expired" in later.notes()[0]
    renewed = settle(written, [aside(None)], None, TODAY + datetime.timedelta(days=1))
    assert gate(renewed.document, "major", renewed.lapsed)[0] == CLEAN
    written["findings"][0]["suppression"]["until"] = "soon"
    with pytest.raises(StoreError, match="until no date"):
        settle(written, [], None, TODAY)


def test_a_baseline_knows_a_finding_but_not_a_worse_one():
    same = settle(document(), [], document(), TODAY)
    assert gate(same.document, "major")[0] == CLEAN
    assert same.document["findings"][0]["baseline"] == "unchanged"
    for old, code in ((document("minor"), TRIPPED), (document("critical"), CLEAN), ({"findings": []}, TRIPPED)):
        assert gate(settle(document(), [], old, TODAY).document, "major")[0] == code


def test_a_suppression_that_ended_is_no_excuse_in_the_baseline():
    old = settle(document(), [aside(TODAY)], None, TODAY).document
    now = settle(document(), [aside(TODAY)], old, TODAY + datetime.timedelta(days=1))
    assert gate(now.document, "major", now.lapsed)[0] == TRIPPED


def test_the_summary_counts_open_findings():
    said = summary(
        [{"rule": "a", "status": "not_run"}, {"rule": "input-contract", "status": "fail"}],
        [*document()["findings"], *document("minor")["findings"], *document("critical", "suppressed")["findings"]],
    )
    assert said["counts"] == {"critical": 0, "major": 1, "minor": 1, "info": 0}
    assert (said["status"], said["worst_severity"]) == ("fail", "major")
    assert said["sentence"] == (
        "water hangs on haze (major, evidence grade 3). 1 more finding. 1 finding set aside by a reviewer. "
        "The input does not suit the network, so no silence of a check means anything. 2 checks could not decide."
    )


@pytest.mark.parametrize("check", ["pass", "fail", "inconclusive", "not_run"])
@pytest.mark.parametrize("rule", ["context", "input-contract"])
@pytest.mark.parametrize("status", ["fail", "pass", "inconclusive", "not_run", "suppressed"])
@pytest.mark.parametrize("severity", ["critical", "major", "minor"])
def test_the_summary_and_the_gate_say_the_same(check, rule, status, severity):
    given = document(severity, status)
    given["checks"] = [{"rule": rule, "status": check}]
    said = summary(given["checks"], given["findings"])["status"]
    assert {"fail": TRIPPED, "inconclusive": INCONCLUSIVE, "pass": CLEAN}[said] == gate(given, "major")[0]


def test_settling_keeps_what_else_the_summary_says():
    given = {**document(), "summary": {"status": "fail", "sentence": "", "accuracy": {"reason": "no sample"}}}
    assert settle(given, [aside()], None, TODAY).document["summary"]["accuracy"] == {"reason": "no sample"}


@pytest.mark.parametrize("content", ["{}", "[", "[]", '{"schema_version": "9.0"}', None])
def test_a_baseline_that_is_no_audit_is_refused(content, tmp_path):
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"old\.json is no audit\.json"):
        load_baseline(path)


# On run folders


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("planted") / "run", units=16, side=6)


def decided(root: Path) -> Path:
    """The run with every check decided, which the synthetic one has not."""
    path = root / "audit.json"
    audit = json.loads(path.read_text())
    audit["checks"] = [{**check, "status": "pass"} for check in audit["checks"] if check["rule"] != "concept-reliance"]
    path.write_text(json.dumps(audit))
    return root


def test_every_verdict_on_a_run(planted, tmp_path):
    run = shutil.copytree(planted, tmp_path / "run")
    code, said = gate_run(run, "major", (), None, TODAY)
    assert (code, said) == (
        TRIPPED,
        ["gate tripped: 1 finding of severity major or worse, first: Leans on haze when it decides residential"],
    )
    code, said = gate_run(run, "major", [aside(None, HAZE)], None, TODAY)
    assert (code, said) == (INCONCLUSIVE, ["gate inconclusive: geography, stripes could not decide"])
    decided(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert gate_run(run, "major", [aside(None, HAZE)], None, TODAY)[0] == CLEAN
    assert gate_run(run, "minor", [aside(None, HAZE)], None, TODAY)[0] == TRIPPED
    assert gate_run(run, "minor", [aside(None, HAZE), aside(None, EDGES)], None, TODAY)[0] == CLEAN
    assert gate_run(run, "minor", (), load_baseline(run / "audit.json"), TODAY)[0] == CLEAN
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_is_not_whole_never_passes(planted, tmp_path):
    run = decided(shutil.copytree(planted, tmp_path / "run"))
    (run / "ablation.parquet").unlink()
    code, said = gate_run(run, "major", [aside(None, HAZE)], None, TODAY)
    assert code == INCONCLUSIVE
    assert "ablation.parquet is not there yet" in said[0]
    assert gate_run(run, "major", (), None, TODAY)[0] == TRIPPED
    (run / "audit.json").unlink()
    assert gate_run(run, "major", (), None, TODAY)[0] == INCONCLUSIVE
    with pytest.raises(StoreError, match="holds no run"):
        gate_run(tmp_path, "major", (), None, TODAY)
    with pytest.raises(StoreError, match=r"has no audit\.json"):
        settle_run(run, (), None, TODAY)


def test_reports_show_what_was_settled_and_the_manifest_vouches_for_it(planted, tmp_path):
    run = shutil.copytree(planted, tmp_path / "run")
    assert open_run(run).verify() == ()
    raw = (run / "audit.json").read_bytes()
    settle_run(run, (), None, TODAY)
    assert (run / "audit.json").read_bytes() == raw

    old = json.loads(raw)
    old["findings"][1]["severity"] = "major"
    settled = settle_run(run, [aside(None, HAZE)], old, TODAY)
    written = json.loads((run / "audit.json").read_text())
    assert written == settled.document
    schemas.validate(written)
    assert [finding["status"] for finding in written["findings"]] == ["suppressed", "fail"]
    assert written["findings"][1]["before"] == {"severity": "major", "status": "fail"}
    results = open_run(run)
    assert (results.state, results.verify()) == ("complete", ())
    # The audit's own stage has another key, so a resumed audit writes its findings afresh.
    assert json.loads((run / "manifest.json").read_text())["stages"]["findings"]["key"] != "1" * 64
    write_reports(run, ["sarif", "junit"])
    first, second = json.loads((run / "audit.sarif").read_text())["runs"][0]["results"]
    assert first["suppressions"][0]["justification"] == "known and accepted"
    assert second["baselineState"] == "updated"
    assert "<failure" not in (run / "junit.xml").read_text()
