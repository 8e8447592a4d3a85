import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dnd_core.errors import StoreError
from dnd_core.types import Box, UnitId
from geoaudit import schemas
from geoaudit.results import TABLES, open_run
from tests.geoaudit.report.synthetic_run import CONCEPTS, make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", units=24, side=6)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", units=24, side=6)


def test_importing_results_and_reading_a_run_needs_no_torch(finished):
    code = (
        "import sys; from geoaudit.results import open_run; from dnd_core.types import UnitId\n"
        "before = [m for m in ('pandas', 'rasterio', 'geopandas') if m in sys.modules]\n"
        f"r = open_run({str(finished)!r}); r.unit('layer4/0'); r.hotspots(); r.activations('fc')\n"
        "print(before, [m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_finished_run_is_complete_and_intact(finished):
    results = open_run(finished)
    assert (results.state, results.problems, results.verify()) == ("complete", (), ())
    assert results.is_audit
    assert [layer.name for layer in results.layers] == ["layer3", "layer4", "fc"]
    assert len(results.unit_ids) == len(results.neurons) == 24
    for name, columns in TABLES.items():
        assert set(columns) <= set(results.table(name).columns)


def test_a_unit_carries_its_evidence(finished):
    results = open_run(finished)
    unit = results.unit("layer4/5")
    assert unit.id == UnitId("layer4", 5)
    assert (unit.status, unit.label, unit.group) == ("labelled", CONCEPTS[5], 5)
    assert unit.id in results.group_units(5)
    assert unit.candidates[0]["label"] == CONCEPTS[5]
    first, second = unit.top_images[:2]
    assert first.box == Box(8, 4, 40, 52)
    assert second.box is None
    activations = results.activations("layer4")
    assert isinstance(activations, np.memmap)
    assert first.activation == pytest.approx(float(activations[first.image, 5]), abs=1e-5)
    assert results.thumbnail(first.image).is_file()
    assert results.captions_of(first.image)[0].startswith("a satellite image of")
    assert len(results.concept_images(CONCEPTS[5])) == 3
    assert len(results.hotspots(unit.id)) > 0
    assert unit.id in results.maps()
    dead = results.unit("layer3/4")
    assert dead.status == "abstained"
    assert dead.group is None


def test_what_is_not_there_is_said_in_words(finished):
    results = open_run(finished)
    for wrong in ("layer9/1", "layer4/99", "nonsense"):
        with pytest.raises(StoreError, match="table of neurons"):
            results.unit(wrong)
    assert results.thumbnail(999_999) is None
    assert results.image(999_999) == {}
    assert results.activations("../../etc") is None
    assert results.group_units(99) == ()
    with pytest.raises(StoreError, match="no table"):
        results.table("manifest")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not a folder"):
        open_run(tmp_path / "nothing")


def test_an_empty_folder_opens_as_empty(tmp_path):
    results = open_run(tmp_path)
    assert results.state == "empty"
    assert results.neurons.empty
    assert results.findings == ()
    assert results.hotspots() is None


@pytest.mark.parametrize("missing", sorted(TABLES))
def test_a_missing_stage_is_named_and_the_rest_can_be_read(run, missing):
    (run / f"{missing}.parquet").unlink()
    results = open_run(run)
    assert results.state == "unfinished"
    assert [problem.where for problem in results.problems] == [f"{missing}.parquet"]
    assert list(results.table(missing).columns) == list(TABLES[missing])
    assert results.findings
    if missing != "neurons":
        assert results.unit("layer4/5").label


def test_an_interrupted_run_is_unfinished(run):
    (run / "audit.json").unlink()
    (run / ".work" / "x").mkdir(parents=True)
    results = open_run(run)
    assert results.state == "unfinished"
    assert {problem.where for problem in results.problems} == {"audit.json", ".work"}
    assert not results.findings


@pytest.mark.parametrize("file", ["neurons.parquet", "audit.json", "manifest.json", "layers.json", "maps/index.gpkg"])
def test_a_damaged_file_is_named_and_the_rest_can_be_read(run, file):
    data = (run / file).read_bytes()
    (run / file).write_bytes(b"\x00" * 40 + data[40:100])
    results = open_run(run)
    results.hotspots()
    assert results.state == "damaged"
    assert file in {problem.where for problem in results.problems}
    assert len(results.images) == 36
    if file != "neurons.parquet":
        assert results.unit("layer4/5").label
        if file != "manifest.json":
            assert file in {problem.where for problem in results.verify()} | {"maps/index.gpkg"}


def test_a_damaged_activation_file_is_named(run):
    (run / "activations" / "fc.npy").write_bytes(b"no numbers")
    results = open_run(run)
    assert results.activations("fc") is None
    assert [problem.where for problem in results.problems] == ["activations/fc.npy"]


def test_a_missing_column_is_shown_as_unknown(run):
    frame = pd.read_parquet(run / "neurons.parquet").drop(columns=["stability"])
    frame.to_parquet(run / "neurons.parquet", index=False)
    results = open_run(run)
    assert "stability" in results.problems[0].sentence
    assert results.unit("layer4/5").figures["stability"] is None


def test_another_version_is_named(run):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    results = open_run(run)
    assert results.state == "other_version"
    assert results.unit("layer4/5").label
    audit = json.loads((run / "audit.json").read_text())
    (run / "audit.json").write_text(json.dumps(audit | {"schema_version": "2.0"}))
    assert [problem.where for problem in open_run(run).problems] == ["manifest.json", "audit.json"]


def test_a_manifest_cannot_point_outside_the_run(run):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["all"]["files"]["../../secret"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "layers.json").write_text(json.dumps([{"name": "../..", "units": 3}]))
    results = open_run(run)
    assert [layer.name for layer in results.layers] == ["layer3", "layer4", "fc"]
    assert "outside the run" in next(p.sentence for p in results.verify() if p.where == "../../secret")


def test_the_schema_is_itself_valid_and_accepts_the_audit(finished):
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schemas.audit_schema())
    audit = json.loads((finished / "audit.json").read_text())
    schemas.validate(audit)
    schemas.validate(audit | {"schema_version": "1.7", "something_new": 1})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("findings"), "findings"),
        (lambda a: a["findings"][0].update(severity="awful"), "findings/0/severity"),
        (lambda a: a["findings"][0].update(evidence_grade=9), "findings/0/evidence_grade"),
        (lambda a: a["findings"][0]["effect"].update(ci=[1]), "findings/0/effect/ci"),
        (lambda a: a["checks"][0].update(status="maybe"), "checks/0/status"),
        (lambda a: a.update(schema_version="2.0"), "schema 2.0"),
    ],
)
def test_the_schema_refuses_what_it_must(finished, change, says):
    audit = json.loads((finished / "audit.json").read_text())
    change(audit)
    with pytest.raises(StoreError, match=says):
        schemas.validate(audit)


def test_hostile_text_is_read_as_it_is(tmp_path):
    results = open_run(make_run(tmp_path / "run", units=16, side=6, hostile=True))
    assert results.state == "complete"
    assert "<script>" in results.unit("layer3/0").label
    assert len(results.class_names[1]) > 90_000


OLDER = sorted((Path(__file__).parent / "older").glob("audit-*.json"))


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_older_versions_of_an_audit_stay_readable(run, path):
    """Files as earlier versions wrote them: read, judged, reported and compared as the newest are."""
    from geoaudit.gate import gate, load_baseline
    from geoaudit.report import diff_runs
    from geoaudit.report.html import page

    assert schemas.faults(json.loads(path.read_text(encoding="utf-8"))) == []
    known = load_baseline(path)
    assert gate(known, "major")[0] == 1
    assert diff_runs(run, run).problems == ()
    (run / "audit.json").write_bytes(path.read_bytes())
    results = open_run(run)
    assert (results.state, results.problems) == ("complete", ())
    assert [finding["id"] for finding in results.findings] == [finding["id"] for finding in known["findings"]]
    assert "meadow is predicted where there is haze" in page(results)


def test_there_is_an_older_version_to_read():
    assert {path.stem for path in OLDER} >= {"audit-1.0"}
    assert schemas.SCHEMA_VERSION not in {path.stem.removeprefix("audit-") for path in OLDER}
