import datetime
import json
import re
import shutil
import subprocess
import sys
import zipfile

import pandas as pd
import pytest
from PIL import Image

from dnd_core.errors import ConfigError, StoreError
from geoaudit import schemas
from geoaudit.report import FORMATS, diff_runs, verify_bundle, write_bundle, write_reports
from geoaudit.results import open_run
from geoaudit.suppressions import Suppression, apply_suppressions, compare_baseline, load_suppressions

QUICK = ("sarif", "junit", "csv", "crosswalk", "stac", "modelcard", "json")


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished.root, tmp_path / "run")


def test_importing_the_package_is_light():
    code = "import sys, geoaudit.report; print([m for m in ('torch', 'altair', 'typst', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_format_is_written_under_its_name_and_nothing_else_is_touched(run):
    before = (run / "audit.json").read_bytes()
    written = write_reports(run, [*FORMATS, "zip"])
    assert {path.name for path in written} == {entry.file for entry in FORMATS.values()} | {"audit.zip"}
    assert all(path.stat().st_size > 500 for path in written)
    assert (run / "audit.json").read_bytes() == before
    assert not list(run.glob(".*.part"))
    assert open_run(run).state == "complete"
    assert open_run(run).verify() == ()
    assert verify_bundle(run / "audit.zip").intact
    present = {
        f["path"]: f["present"]
        for row in json.loads((run / "crosswalk.json").read_text())["rows"]
        for f in row["files"]
    }
    assert all(present.values())


def test_an_unknown_format_is_refused_before_anything_is_written(run):
    with pytest.raises(ConfigError, match="'docx'"):
        write_reports(run, ["html", "docx"])
    assert not (run / "report.html").exists()
    with pytest.raises(StoreError, match="not a folder"):
        write_reports(run / "nothing", ["sarif"])


def test_a_run_without_an_audit_never_gets_a_false_audit_json(run):
    (run / "audit.json").unlink()
    write_reports(run, QUICK)
    assert not (run / "audit.json").exists()
    assert json.loads((run / "audit.unfinished.json").read_text())["state"] == "unfinished"


def test_a_bundle_tells_every_change(run, tmp_path):
    write_reports(run, QUICK)
    path = write_bundle(run, tmp_path / "audit.zip")
    assert path.read_bytes() == write_bundle(run, tmp_path / "again.zip").read_bytes()
    good = verify_bundle(path)
    assert (good.intact, good.faults) == (True, ())
    assert good.files >= 10

    def altered(change):
        target = tmp_path / "altered.zip"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
            for name, data in change({name: old.read(name) for name in old.namelist()}).items():
                new.writestr(name, data)
        return verify_bundle(target).faults

    assert altered(lambda f: {**f, "audit.json": f["audit.json"] + b" "}) == ("audit.json was changed",)
    assert altered(lambda f: {n: d for n, d in f.items() if n != "junit.xml"}) == ("junit.xml is missing",)
    assert altered(lambda f: {**f, "evil.sh": b"x"}) == ("evil.sh was added",)
    with pytest.raises(StoreError, match=r"sha256\.json"):
        altered(lambda f: {n: d for n, d in f.items() if n != "sha256.json"})
    with pytest.raises(StoreError, match="damaged"):
        altered(lambda f: {**f, "sha256.json": b"[]"})
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(StoreError, match="cannot be read"):
        verify_bundle(tmp_path / "no.zip")
    with pytest.raises(StoreError, match="nothing to bundle"):
        write_bundle(tmp_path / "empty")


def test_two_runs_are_compared_by_fingerprint_and_unit(finished, run):
    same = diff_runs(finished.root, run)
    assert (same.same_model, same.same_probe, same.new, same.gone, same.changed, same.labels) == (
        True,
        True,
        (),
        (),
        (),
        (),
    )
    assert same.unchanged == 2

    import pandas as pd

    audit = json.loads((run / "audit.json").read_text())
    audit["findings"][0] |= {"severity": "major", "effect": {**audit["findings"][0]["effect"], "value": 0.2}}
    audit["findings"][1] |= {"fingerprint": "d" * 40, "title": "Something else"}
    (run / "audit.json").write_text(json.dumps(audit))
    neurons = pd.read_parquet(run / "neurons.parquet")
    neurons.loc[0, "label"] = "snow"
    neurons.drop(index=1).to_parquet(run / "neurons.parquet", index=False)
    other = diff_runs(finished.root, run)
    assert [f["title"] for f in other.new] == ["Something else"]
    assert [f["fingerprint"] for f in other.gone] == ["e" * 40]
    (change,) = other.changed
    assert change.changes == {"severity": ("critical", "major"), "effect": (0.42, 0.2)}
    assert [(c.unit, c.after) for c in other.labels] == [("layer3/0", ("labelled", "snow")), ("layer3/1", None)]
    text = other.to_text()
    for line in ("+ minor: Something else", "severity critical -> major", "effect 0.420 -> 0.200", "layer3/1"):
        assert line in text
    assert json.dumps(other.to_dict())


def test_suppressions_set_findings_aside_until_their_day(finished, tmp_path):
    path = tmp_path / "suppressions.yaml"
    path.write_text(
        f"- fingerprint: {'f' * 40}\n  reason: known\n  by: B\n  until: 2026-06-30\n- {{fingerprint: gone, reason: old}}\n"
    )
    entries = load_suppressions(path)
    assert entries[0] == Suppression("f" * 40, "known", "B", datetime.date(2026, 6, 30))
    audit, unused = apply_suppressions(finished.audit, entries, datetime.date(2026, 6, 30))
    assert [finding["status"] for finding in audit["findings"]] == ["suppressed", "fail"]
    assert audit["findings"][0]["suppression"] == {"reason": "known", "by": "B", "until": "2026-06-30"}
    assert unused == (entries[1],)
    schemas.validate(audit)
    later, unused = apply_suppressions(finished.audit, entries, datetime.date(2026, 7, 1))
    assert later["findings"][0]["status"] == "fail"
    assert unused == entries
    assert finished.audit["findings"][0]["status"] == "fail"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fingerprint: x", "must be a list"), ("- x", "must have the fields"), ("- {fingerprint: x}", "lacks its reason"),
        ("- {fingerprint: x, reason: y, untill: 2026-01-01}", "unknown fields untill"), ("- [", "cannot be read as YAML"),
        ("- {fingerprint: x, reason: y, until: soon}", "must be a date"),
        ("- {fingerprint: x, reason: y, until: 3}", "must be a date"),
    ],
)  # fmt: skip
def test_a_wrong_suppressions_file_is_refused_by_entry(text, says, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_suppressions(tmp_path / "s.yaml")


def test_an_empty_suppressions_file_sets_nothing_aside(tmp_path):
    (tmp_path / "s.yaml").write_text("")
    assert load_suppressions(tmp_path / "s.yaml") == ()


def test_a_baseline_marks_what_is_new_known_and_changed(finished):
    old = json.loads(json.dumps(finished.audit))
    old["findings"][0]["severity"] = "minor"
    del old["findings"][1]
    marked = compare_baseline(finished.audit, old)
    assert [finding["baseline"] for finding in marked["findings"]] == ["changed", "new"]
    assert [f["baseline"] for f in compare_baseline(marked, marked)["findings"]] == ["unchanged", "unchanged"]
    schemas.validate(marked)


@pytest.mark.parametrize("harm", ["audit", "table", "many", "gone"])
def test_a_run_that_was_changed_afterwards_says_so_on_page_one(run, harm):
    """Every file still reads well; only the manifest knows better."""
    from pypdf import PdfReader

    if harm == "audit":
        path = run / "audit.json"
        path.write_text(path.read_text().replace('"severity": "critical"', '"severity": "minor"'))
    elif harm == "table":
        path = run / "reliance.parquet"
        pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)
    elif harm == "many":
        for path in (run / "thumbnails").glob("*.png"):
            Image.new("RGB", (64, 64)).save(path)
    else:
        (run / "maps" / "layer3" / "0.tif").unlink()
    write_reports(run, ["html", "pdf", "junit", "sarif", "modelcard"])
    first = re.sub(r"\s+", " ", PdfReader(run / "report.pdf").pages[0].extract_text()).replace("\u200b", "")
    page = (run / "report.html").read_text(encoding="utf-8")
    said = "is missing although" if harm == "gone" else "was changed after the run wrote it"
    for text in (first, page[: page.index('id="findings"')], (run / "model_card.md").read_text()):
        assert "Cannot say" in text
        assert said in text.replace("\\", "")
        assert text.count(said) <= 8
    assert ("and 28 more" in first) == (harm == "many")
    assert 'errors="1"' in (run / "junit.xml").read_text()
    assert not json.loads((run / "audit.sarif").read_text())["runs"][0]["invocations"][0]["executionSuccessful"]


def test_reports_of_an_untouched_run_can_be_made_again_and_signed(run):
    write_reports(run, ["html"])
    write_reports(run, ["html"])
    assert "Cannot say" not in (run / "report.html").read_text(encoding="utf-8")
