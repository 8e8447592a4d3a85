"""A grave finding is tested again: what pruning and a refitted head leave of the reliance, and what they cost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dnd_core.store import RunStore
from geoaudit.checks.concept_reliance import ConceptReliance
from geoaudit.findings import BRUSH, PAIRS, judge
from geoaudit.mitigation import painted_artefact
from geoaudit.retesting import MOST, Retest, retest, retest_stage, told

from .planted import HAZE_NAMES, planted_context
from .test_pairing import CONCEPT, context

HELD = np.flatnonzero((np.arange(120) // 3) % 12 >= 7)


@pytest.fixture(scope="module")
def planted():
    made = planted_context(450.0, held_out=HELD)
    finding = judge(ConceptReliance().run(made).hypotheses)[0]
    return made, finding


@pytest.fixture(scope="module")
def tried(planted):
    made, finding = planted
    return retest(made, finding.hypothesis)


def test_both_repairs_take_the_planted_reliance_away(planted, tried) -> None:
    made, _ = planted
    pruned, refitted = tried
    assert (pruned.by, refitted.by) == ("prune", "retrain-head")
    for retested in tried:
        line = retested.line("reliance of water")
        assert line is not None
        assert line.before.value > 0.9
        assert line.after.value < 0.05
        assert line.n == (made.reference[HELD] != 2).sum()
        assert {line.name for line in retested.lines} >= {
            "accuracy", "accuracy of field", "accuracy of forest", "accuracy of water", "worst group",
        }  # fmt: skip
    assert pruned.line("reliance").random is not None
    assert pruned.line("reliance").random.low > 0.9, "random units carry none of it"
    assert "3 units of features held at their means" in pruned.words


def test_pruning_agrees_with_the_head_s_own_algebra(planted, tried) -> None:
    """Units held by hooks in the network, and the same units taken out of the linear head, answer alike."""
    from geoaudit.mitigation import repair

    made, _ = planted
    told_of = {"id": "F01", "title": "t", "concept": "haze", "class_pair": ["water"], "units": HAZE_NAMES}
    _, exact = repair(made, told_of, "prune")
    ours = {line.name: line for line in tried[0].lines}
    for line in exact.lines:
        assert ours[line.name].after.value == pytest.approx(line.after.value), line.name
        assert ours[line.name].before.value == pytest.approx(line.before.value), line.name


def test_finding_carries_grade_four_and_its_figures(planted, tried) -> None:
    _, finding = planted
    plain = told(finding, tried).to_dict(1)
    assert plain["evidence_grade"] == 4
    last = plain["evidence"][-2:]
    assert [e["name"] for e in last] == ["re-test after pruning", "re-test after retraining the head"]
    assert all(e["holds"] and e["grade"] == 4 for e in last)
    assert "reliance 93 points before, 0 points after on 30 held-out images" in plain["retest"]
    assert "matched random pruning leaves" in plain["retest"]
    assert "worst group" in plain["retest"]
    assert [r["by"] for r in plain["repairs"]] == ["prune", "retrain-head"]
    json.dumps(plain, allow_nan=False)
    assert [Retest.from_dict(r).to_dict() for r in plain["repairs"]] == plain["repairs"]


def test_a_re_test_paints_wherever_the_brush_holds(planted) -> None:
    """Real pairs beside a brush that holds only confirm it; alone they say that the brush is unlike the real thing."""
    made, _ = planted
    for evidence, painted in (([BRUSH], True), ([BRUSH, PAIRS], True), ([PAIRS], False), ([], True)):
        assert (painted_artefact(made, "haze", evidence) is not None) is painted, evidence


def test_a_prune_that_random_units_match_is_no_evidence(planted) -> None:
    made, finding = planted
    from dataclasses import replace

    other = replace(finding.hypothesis, units=("features/20", "features/21", "features/22"))
    pruned, _ = retest(made, other)
    found = told(finding, [pruned])
    assert found.grade == finding.grade
    assert not found.hypothesis.evidence[-1].holds


def test_what_cannot_be_tested_again_says_why() -> None:
    made = planted_context(450.0)
    finding = judge(ConceptReliance().run(made).hypotheses)[0]
    found = told(finding, retest(made, finding.hypothesis))
    assert "was not tested: a repair is measured on labelled images held out" in found.hypothesis.retest
    assert found.grade == finding.grade


def test_unpaintable_concept_is_measured_on_held_out_pairs() -> None:
    made, _ = context(450.0, n=480)
    made.held_out = np.flatnonzero(made.blocks >= 9)
    water = next(h for h in ConceptReliance().run(made).hypotheses if h.class_name == "water")
    pruned, refitted = retest(made, water)
    for retested in (pruned, refitted):
        line = retested.line("reliance")
        assert line is not None, retested.words
        assert line.before.value > 0.5
        assert line.after.value < 0.1
    assert f"classes show '{CONCEPT}' in half of their weight" in refitted.words


def test_stage_tests_the_gravest_and_resumes(planted, tmp_path, monkeypatch) -> None:
    from dataclasses import replace

    made, finding = planted
    several = [
        replace(finding, hypothesis=replace(finding.hypothesis, concept=f"haze {number}")) for number in range(MOST + 1)
    ]
    minor = replace(finding, severity="minor")
    with RunStore(tmp_path / "run", resume=False, header={}) as store:
        stage = store.stage("checks", ["checks"])
        stage.path("checks.json").write_text("{}")
        stage.commit()
        found = retest_stage(store, made, [*several, minor], None)
        assert all("repairs" in f.extra for f in found[:MOST])
        assert "Not tested again" in found[MOST].hypothesis.retest
        assert found[-1] == minor
        # Done once: the second time nothing is run.
        monkeypatch.setattr("geoaudit.retesting.retest", lambda *_: pytest.fail("run again"))
        assert [f.to_dict(1) for f in retest_stage(store, made, [*several, minor], None)] == [
            f.to_dict(1) for f in found
        ]
