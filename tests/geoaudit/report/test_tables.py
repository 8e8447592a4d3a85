import copy
import io
import json
import math

import pytest

from geoaudit import schemas
from geoaudit.evidence import designed_accuracy
from geoaudit.report.content import content, verdict
from geoaudit.report.html import page
from geoaudit.report.modelcard import model_card
from geoaudit.report.pdf import document
from geoaudit.report.tables import accuracy_table, area_table
from geoaudit.results import open_run
from tests.geoaudit.report.synthetic_run import make_run


def estimate(value, spread, *, ceiling=1.0):
    return {"estimate": value, "low": max(0.0, value - spread), "high": min(ceiling, value + spread)}


NAMES = ("forest", "meadow", "farmland", "residential", "water")
DESIGNED = {
    "design": "stratified", "n": 640, "clusters": None, "overall": estimate(0.912, 0.021),
    "users": {name: estimate(0.88, 0.05) for name in NAMES},
    "producers": {**{name: estimate(0.83, 0.06) for name in NAMES[:4]}, "water": {"estimate": None, "low": None, "high": None}},
    "areas_ha": {name: estimate(21_035.0 + number, 1_640.0, ceiling=1e9) for number, name in enumerate(NAMES)},
    "mapped_ha": dict.fromkeys(NAMES, 22_353.0), "notes": ["fewer than 20 sample units mapped water: intervals are rough"],
}  # fmt: skip


@pytest.fixture
def sampled(tmp_path):
    return sampled_run(tmp_path, DESIGNED)


def sampled_run(folder, accuracy):
    root = make_run(folder / "run", units=16, side=6)
    audit = json.loads((root / "audit.json").read_text())
    audit["schema_version"] = "1.1"
    audit["accuracy"] = accuracy
    (root / "audit.json").write_text(json.dumps(audit))
    results = open_run(root)
    assert results.audit, results.problems
    return results


def test_areas_by_design_reach_every_report_for_people(sampled):
    from pypdf import PdfReader

    pdf = "".join(one.extract_text() for one in PdfReader(io.BytesIO(document(sampled))).pages)
    for text in (page(sampled), pdf.replace("\n", " ").replace("\u200b", ""), model_card(sampled).replace("\\", "")):
        for words in ("640 labelled samples", "drawn at random within each mapped class", "True area, ha", "22\u202f400",
                      "21\u202f000 (19\u202f400 to 22\u202f700)", "88 % (83 % \u2013 93 %)", "91 % (89 % \u2013 93 %)",
                      "fewer than 20 sample units"):  # fmt: skip
            assert words in text, words


def test_classes_may_be_a_list_and_what_is_undefined_stays_so():
    told = copy.deepcopy(DESIGNED)
    told["areas_ha"] = [{"class": name, **entry} for name, entry in told["areas_ha"].items()]
    listed = designed_accuracy({"accuracy": told})
    assert listed == designed_accuracy({"accuracy": DESIGNED})
    assert listed["classes"][4]["producers"] == {"estimate": None, "low": None, "high": None}
    assert listed["classes"][0]["mapped"]["estimate"] == 22_353
    broken = designed_accuracy({"accuracy": {"design": 3, "areas_ha": {"a": {"estimate": math.inf, "low": True}}}})
    assert broken["classes"][0]["area"] == {"estimate": None, "low": None, "high": None}


def test_the_older_accuracy_of_a_run_is_not_taken_for_one_by_design():
    assert (
        designed_accuracy({"accuracy": {"overall": {"value": 0.8}, "classes": [], "note": "x"}, "summary": {}}) is None
    )


def test_without_a_designed_sample_the_report_says_why(finished, tmp_path, empty):
    assert area_table(finished)["rows"] == []
    assert "no random sample of the mapped ground" in page(finished)
    assert "there are no labelled tiles" in area_table(empty)["reason"]
    told = sampled_run(tmp_path, {"reason": "class <b> is mapped but has one sample only"})
    assert area_table(told)["reason"].endswith("class <b> is mapped but has one sample only.")
    assert "class &lt;b&gt; is mapped" in page(told)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True), ({"design": None}, False), ({"areas_ha": {"forest": 3.0}}, False), ({"n": -1}, False),
        ({"overall": None}, True),
    ],
)  # fmt: skip
def test_the_schema_knows_accuracy_by_design(sampled, change, valid):
    audit = copy.deepcopy(sampled.audit)
    audit["accuracy"] |= change
    assert (schemas.faults(audit) == []) == valid


def test_a_class_without_a_single_error_has_an_interval_all_the_same(finished, monkeypatch):
    images = finished.images.copy()
    images["predicted"] = images["label"]
    monkeypatch.setitem(finished._tables, "images", images)
    table = accuracy_table(finished)
    blocks = images["block"].nunique()
    assert table["overall"]["estimate"] == table["overall"]["high"] == 1
    # Exact binomial: with no error in n trials the lower end is the n-th root of 0.025.
    assert table["overall"]["low"] == pytest.approx(0.025 ** (1 / blocks))
    for row in table["classes"]:
        if row["n"]:
            mine = images.loc[images["label"] == NAMES.index(row["name"]), "block"].nunique()
            assert row["producers"]["low"] == pytest.approx(0.025 ** (1 / mine))
    assert any("exact one" in note for note in table["notes"])


def test_input_that_does_not_suit_the_network_leaves_the_light_out(clean, monkeypatch):
    contract = {"rule": "input-contract", "title": "Input", "status": "fail", "reason": "bands mixed up"}
    monkeypatch.setattr(clean, "audit", {**clean.audit, "checks": [contract], "findings": []})
    light = verdict(clean)
    assert (light["light"], light["signable"]) == ("grey", False)
    assert content(clean)["next"][0].startswith("Correct the input")
