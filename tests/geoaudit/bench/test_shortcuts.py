"""The bench of planted shortcuts: what is planted, what is counted, and that a stopped bench goes on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dnd_core.errors import ConfigError
from geoaudit.bands import SENTINEL2
from geoaudit.bench.shortcuts import audits, models, running
from geoaudit.bench.shortcuts.audits import SharedBackends, read_findings, run_score
from geoaudit.bench.shortcuts.cases import STRENGTHS, TARGETS, Case, plan
from geoaudit.bench.shortcuts.chips import LEAK, BenchChips
from geoaudit.bench.shortcuts.plants import ARTEFACTS, FAMILIES, PLACE, plant
from geoaudit.bench.shortcuts.validity import FAINT, TAU, Validity
from geoaudit.perturb import PERTURBATIONS, paint


@pytest.fixture(scope="module")
def chips():
    return BenchChips()


@pytest.fixture
def land():
    return np.random.default_rng(0).uniform(0.03, 0.35, (3, 13, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_plant_changes_a_chip_by_its_seed_alone(name, land):
    once, twice = (plant(name, land, SENTINEL2, [5, 6, 7]) for _ in range(2))
    assert np.array_equal(once, twice)
    assert once.dtype == np.float32
    assert ((once >= 0) & np.isfinite(once)).all()
    assert (np.abs(once - land).max(axis=(1, 2, 3)) > 0.01).all()
    alone = plant(name, land[1:2], SENTINEL2, [6])
    assert np.array_equal(alone[0], once[1])


@pytest.mark.parametrize("name", ARTEFACTS)
def test_no_plant_is_what_the_auditor_paints(name, land):
    mine = plant(name, land, SENTINEL2, [1, 2, 3])
    for artefact in PERTURBATIONS:
        for strength in (0.5, 0.75, 1.0):
            assert np.abs(paint(artefact, land, SENTINEL2, strength, [1, 2, 3]) - mine).mean() > 1e-4


def test_an_unknown_family_is_refused(land):
    with pytest.raises(ConfigError, match="no family"):
        plant("rain", land, SENTINEL2, [0, 0, 0]) if "rain" in FAMILIES else plant(
            "no family", land, SENTINEL2, [0] * 3
        )


def test_frozen_words_name_the_auditors_artefacts_and_no_land_cover():
    said = [artefact.label for artefact in PERTURBATIONS.values()]
    for name in ARTEFACTS:
        assert any(FAMILIES[name].named(label) for label in said), name
    for words in (
        "bare farm fields",
        "dark forest",
        "open water",
        "houses",
        "dry grassland or meadow",
        "green grass or crops",
    ):
        assert not any(family.named(words) for family in FAMILIES.values()), words
    assert FAMILIES[PLACE].named("ground near known meadow", "geography")


def test_the_plan_is_whole_seed_by_seed_and_the_halves_are_apart():
    cases = list(plan(5))
    assert len({case.name for case in cases}) == len(cases)
    planted = [case for case in cases if case.pool == "planted"]
    assert {(c.family, c.strength, c.seed) for c in planted} == {
        (f, s, n) for f in FAMILIES for s in STRENGTHS for n in range(10, 15)
    }
    assert {case.target for case in planted} == set(TARGETS)
    assert [case.seed % 1000 for case in cases] == sorted(case.seed % 1000 for case in cases)
    decoys = [case.family for case in cases if case.pool == "decoy"]
    assert all(decoys.count(family) == 3 for family in ARTEFACTS)
    assert sum(case.pool == "clean" for case in cases) == 20
    tuning = list(plan(10, half="tuning"))
    assert not {case.seed % 1000 for case in tuning} & {case.seed % 1000 for case in cases}
    with pytest.raises(ConfigError, match="the tuning half has 10 seeds, not 11"):
        list(plan(11, half="tuning"))
    assert len(list(plan(1, quick=True))) < 25


@pytest.mark.parametrize("family", ["haze", "stripe"])
def test_the_target_carries_the_plant_as_often_as_asked_and_others_rarely(chips, family):
    case = Case("planted", family, 0.75, "meadow", 3, "evaluation")
    made = chips.imagery(case)
    target = chips.labels[made.ids] == chips.class_names.index("meadow")
    assert made.planted[target].mean() == pytest.approx(0.75, abs=0.08)
    assert made.planted[~target].mean() == pytest.approx(LEAK, abs=0.03)
    assert not set(made.ids) & set(chips.test)
    again = chips.imagery(case)
    assert np.array_equal(made.planted, again.planted)


def test_decoys_lie_on_all_classes_alike_and_clean_networks_see_none(chips):
    decoy = chips.imagery(Case("decoy", "haze", 1 / 3, "", 0, "evaluation"))
    for label in range(len(chips.class_names)):
        share = decoy.planted[chips.labels[decoy.ids] == label].mean()
        assert share == pytest.approx(1 / 3, abs=0.15)
    assert not chips.imagery(Case("clean", "", 0.0, "", 1000, "evaluation")).planted.any()


def test_geography_gathers_the_class_in_the_west_and_plants_all_of_the_west(chips):
    made = chips.imagery(Case("planted", PLACE, 1.0, "farm", 0, "evaluation"))
    target = chips.labels[made.ids] == chips.class_names.index("farm")
    assert chips.west[made.ids][target].all()
    assert not chips.west[made.ids][~target].any()
    assert np.array_equal(made.planted, chips.west[made.ids])


def _finding(severity, concept, value, names=("meadow",), rule="sensor-probe", examples=(0, 1)):
    return {
        "severity": severity, "rule": rule, "concept": concept, "class_pair": list(names), "effect": {"value": value},
        "examples": list(examples), "units": [], "evidence": [],
    }  # fmt: skip


def test_a_runs_score_is_its_loudest_finding():
    assert run_score([]) == 0
    assert run_score([_finding("minor", "blur", 0.9), _finding("major", "haze", 0.2)]) == pytest.approx(2.2)
    assert run_score([_finding("info", "blur", 0.9)]) == 0
    assert run_score([_finding("critical", "haze", -3.0)]) == pytest.approx(4.0)


def test_reading_finds_the_first_that_names_the_plant_then_its_class():
    findings = [
        _finding("major", "blur", 0.5),
        _finding("minor", "thin haze", 0.4, ["farm"], examples=[0, 2]),
        _finding("minor", "hazy", 0.3, ["meadow"]),
    ]
    read = read_findings(findings, FAMILIES["haze"], "meadow", np.array([True, False, False]))
    assert (read.rank, read.class_rank, read.precision, read.tripped) == (2, 3, 0.5, True)
    silent = read_findings(findings[:1], FAMILIES["haze"], "meadow", np.array([True]))
    assert (silent.rank, silent.class_rank) == (0, 0)
    assert np.isnan(silent.precision)


def test_learned_and_quiet_follow_the_thresholds():
    edge = Validity(0.7, TAU, TAU, "haze")
    assert edge.learned
    assert not edge.quiet
    between = replace(edge, reliance=FAINT, worst=FAINT)
    assert not between.learned
    assert not between.quiet
    assert replace(edge, reliance=FAINT - 1e-6, worst=TAU - 1e-6).quiet


def test_swapped_labels_stay_in_their_layer_and_groups_follow():
    import pandas as pd

    neurons = pd.DataFrame(
        {
            "layer": ["a"] * 4 + ["output"] * 2,
            "unit": [0, 1, 2, 3, 0, 1],
            "label": list("wxyzpq"),
            "group": [0, 0, 1, 1, 2, 2],
        }
    )
    groups = pd.DataFrame({"group": [0, 1, 2], "units": ['["a/0","a/1"]', '["a/2","a/3"]', '["output/0","output/1"]']})
    swapped, moved = running._swap(neurons, groups, np.random.default_rng(1))
    assert sorted(swapped["label"][:4]) == list("wxyz")
    assert sorted(swapped["label"][4:]) == list("pq")
    for number, text in zip(moved["group"], moved["units"], strict=True):
        members = set(json.loads(text))
        said = {f"{row.layer}/{row.unit}" for row in swapped.itertuples() if row.group == number}
        assert members == said


def test_a_network_is_trained_checked_audited_and_not_made_again(tmp_path, monkeypatch):
    few = BenchChips(every=4)
    monkeypatch.setattr(models, "BASE_EPOCHS", 2)
    monkeypatch.setattr(models, "EPOCHS", 2)
    monkeypatch.setattr(audits, "OPTIONS", replace(audits.OPTIONS, evaluated=60, draws=100))
    case = Case("planted", "nodata wedge", 1.0, "farm", 0, "evaluation")
    monkeypatch.setattr(running, "plan", lambda *_: [case])
    monkeypatch.setattr(running, "BenchChips", lambda: few)
    (row,) = running.run_bench(tmp_path, 1)
    assert row["name"] == case.name
    assert 0 < row["valid_accuracy"] <= 1
    assert {"score", "rank", "findings", "learned", "quiet", "image properties score", "error slices rank"} <= set(row)
    assert not (tmp_path / "runs" / case.name).exists()
    files = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert files == ["base_0.safetensors", f"{case.name}.safetensors"]

    monkeypatch.setattr(SharedBackends, "make", lambda: pytest.fail("a finished case was run again"))
    assert running.run_bench(tmp_path, 1) == [row]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_processes_say_what_one_says(tmp_path, monkeypatch):
    cases = [Case("planted", "offset", 1.0, "farm", 10, "evaluation"), Case("clean", "", 0.0, "", 1010, "evaluation")]
    monkeypatch.setattr(running, "plan", lambda *_: cases)
    told = []
    one = running.run_bench(tmp_path / "one", 1, progress=lambda *said: told.append(said))
    two = running.run_bench(tmp_path / "two", 1, progress=lambda *said: told.append(said), jobs=2)
    assert one == two
    assert told == [("networks", done, 2) for done in (0, 1, 2, 0, 1, 2)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quick_bench_ends_in_one_line_of_figures(tmp_path, capsys):
    from geoaudit.cli import main

    assert main(["bench", "shortcuts", "--quick", "--out", str(tmp_path / "bench"), "--quiet"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {
        "auroc", "tpr_at_far5", "far", "n_negatives", "hit1", "hit3", "mrr", "p10", "comparators",
    }  # fmt: skip
    assert figures["auroc"] > 0.8
    assert Path(tmp_path / "bench" / "shortcuts.csv").is_file()
