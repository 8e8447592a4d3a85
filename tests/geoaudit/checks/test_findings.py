"""From hypotheses to findings: grades, severities, ranks, definitions."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from geoaudit.definitions import definition_of, relate
from geoaudit.findings import CheckResult, Evidence, Hypothesis, judge, with_false_alarm_rate
from geoaudit.gate import summary

from .planted import WordVectors


def evidence(grade: int, holds: bool = True) -> Evidence:
    return Evidence(grade, "measure", "Seen.", 0.5, (0.4, 0.6), 0.001, "chance", holds)


def hypothesis(*grades: int, **given) -> Hypothesis:
    values = {
        "rule": "concept-reliance",
        "concept": "haze",
        "class_name": "water",
        "layer": "features",
        "units": ("features/3",),
        "n": 80,
        "p": 0.001,
        "evidence": tuple(evidence(grade) for grade in grades),
        "metric": "reliance",
        "value": 0.5,
        "ci": (0.4, 0.6),
        "prevalence": None,
        "spurious": True,
        "why": "an artefact",
    }
    return Hypothesis(**{**values, **given})


@pytest.mark.parametrize(
    ("grades", "prevalence", "severity"),
    [
        ((1,), 0.5, "minor"),
        ((2,), 0.5, "minor"),
        ((3,), 0.5, "minor"),
        ((1, 3), 0.5, "minor"),
        ((2, 3), None, "major"),
        ((2, 3), 0.04, "major"),
        ((1, 2, 3), 0.05, "critical"),
    ],
)
def test_severity_never_exceeds_the_evidence(grades, prevalence, severity) -> None:
    (finding,) = judge([hypothesis(*grades, prevalence=prevalence)])
    assert finding.severity == severity
    assert finding.grade == max(grades)


@pytest.mark.parametrize(
    ("grade", "name", "severity"),
    [(1, "association", "minor"), (2, "retrieved pairs", "minor"), (2, "counterfactual reliance", "critical")],
)
def test_a_finding_that_its_own_imagery_refutes_is_minor(grade, name, severity) -> None:
    """Real images speak louder than a brush; a brush that moves nothing does not speak against real images."""
    refuted = hypothesis(2, 3, prevalence=0.5)
    against = Evidence(grade, name, "Seen.", -0.2, (0.0, 0.0), 0.9, "chance", False)
    (found,) = judge([Hypothesis(**{**vars(refuted), "evidence": (*refuted.evidence, against)})])
    assert found.severity == severity


@pytest.mark.parametrize(
    ("value", "prevalence", "group", "severity"),
    [
        (0.49, 0.0, -1, "minor"),
        (0.51, 0.0, -1, "major"),
        (0.49, None, -1, "major"),
        (0.49, 0.05, -1, "critical"),
        (0.49, 0.0, 4, "major"),
    ],
)
def test_what_the_imagery_never_shows_must_move_half_of_other_ground(value, prevalence, group, severity) -> None:
    (found,) = judge([hypothesis(2, 3, value=value, prevalence=prevalence, group=group)])
    assert found.severity == severity


def test_a_concept_group_needs_its_own_units_to_matter() -> None:
    """Painting a concept says nothing about the units of one of several groups that speak of it."""
    assert judge([hypothesis(1, group=4)]) == []
    assert judge([hypothesis(1, 2, group=4)]) == []
    assert judge([hypothesis(1, 2, 3, group=4)])[0].severity == "major"


def test_a_sensor_probe_that_repeats_a_group_is_left_out() -> None:
    group = hypothesis(1, 2, 3, group=4, concept="thin haze")
    probe = hypothesis(2, rule="sensor-probe", concept="haze")
    other = hypothesis(2, rule="sensor-probe", concept="haze", class_name="forest")
    assert [f.hypothesis for f in judge([probe, group, other])] == [group, other]


def test_evidence_that_does_not_hold_counts_for_nothing() -> None:
    weak = hypothesis(1, evidence=(evidence(2, holds=False), evidence(3, holds=False)))
    assert judge([weak]) == []
    partly = hypothesis(1, evidence=(evidence(2), evidence(3, holds=False)))
    assert judge([partly])[0].severity == "minor"


def test_parts_of_the_class_and_chance_are_left_out() -> None:
    assert judge([hypothesis(2, 3, spurious=False)]) == []
    assert judge([hypothesis(2, 3, p=0.06)]) == []
    assert judge([]) == []


def test_false_discovery_rate_runs_over_all_hypotheses() -> None:
    one = hypothesis(2, 3, p=0.04)
    assert len(judge([one])) == 1
    # Benjamini and Hochberg: 0.04 as the smallest of ten has q 0.4.
    assert judge([one, *[hypothesis(2, 3, p=0.9, concept=f"c{i}") for i in range(9)]]) == []


def test_ranked_by_severity_then_grade_then_effect() -> None:
    several = [
        hypothesis(1, concept="minor", value=0.9),
        hypothesis(2, 3, concept="small", value=0.2),
        hypothesis(2, 3, concept="large", value=-0.8),
        hypothesis(1, 2, 3, concept="common", prevalence=0.3, value=0.1),
    ]
    assert [f.hypothesis.concept for f in judge(several)] == ["common", "large", "small", "minor"]


def test_what_the_imagery_shows_comes_before_what_it_never_does() -> None:
    several = [
        hypothesis(2, concept="elsewhere", value=0.9, prevalence=0.0),
        hypothesis(2, concept="unknown", value=0.8),
        hypothesis(2, concept="here", value=0.2, prevalence=0.3),
    ]
    assert [f.hypothesis.concept for f in judge(several)] == ["here", "elsewhere", "unknown"]


def test_fingerprint_hangs_on_words_not_on_figures() -> None:
    first, second = hypothesis(2, concept="thin Haze"), hypothesis(2, 3, concept="haze thin", value=0.1, n=7)
    prints = [judge([h])[0].fingerprint for h in (first, second, hypothesis(2, class_name="farm"))]
    assert prints[0] == prints[1] != prints[2]


def test_document_form_and_own_title() -> None:
    placed = hypothesis(2, 3, area_ha=(3.0, 1.0, float("nan")), area_meaning="ground called water")
    finding = with_false_alarm_rate(judge([placed]), 0.02, 0.05)[0]
    plain = finding.to_dict(1)
    json.dumps(plain, allow_nan=False)
    assert plain["id"] == "F01"
    assert plain["title"] == "Water is predicted where there is haze"
    assert plain["area_ha"] == {"estimate": 3.0, "ci": [1.0, None], "meaning": "ground called water"}
    assert (plain["false_alarm_rate"], plain["false_alarm_bound"]) == (0.02, 0.05)
    assert judge([hypothesis(2, title="water is known by its place")])[0].title == "Water is known by its place"


def test_results_survive_json() -> None:
    given = CheckResult("r", "t", "fail", "why", 2, "n", "c", (hypothesis(1, 2, area_ha=(1.0, 0.0, 2.0)),))
    assert CheckResult.from_dict(json.loads(json.dumps(asdict(given)))) == given


def test_relations_by_words() -> None:
    classes, encoder = ("forest", "water", "meadow"), WordVectors()
    haze = relate("thin haze", classes, encoder)
    assert {r.kind for r in haze.values()} == {"artefact"}
    trees = relate("forest dense trees dark green vegetation", classes, encoder)
    assert trees["forest"].kind == "part"
    assert trees["water"].kind == "context"
    assert not trees["forest"].spurious
    assert trees["water"].spurious
    unknown = relate("purple elephants", classes, encoder)
    assert {r.kind for r in unknown.values()} == {"part"}, "what cannot be judged is not accused"


def test_own_definitions_win() -> None:
    assert definition_of("Annual Crop").startswith("fields ploughed")
    assert definition_of("Annual-Crop", {"annualcrop": "rice"}) == "rice"
    assert definition_of("quarry") == "quarry"


def test_summary_counts_open_findings_only() -> None:
    first, second = (f.to_dict(n) for n, f in enumerate(judge([hypothesis(2, 3), hypothesis(2, class_name="farm")])))
    passed = [{"rule": "context", "status": "pass"}]
    said = summary(passed, [first, second])
    assert (said["status"], said["worst_severity"], said["counts"]["minor"]) == ("fail", "major", 1)
    assert said["sentence"] == "Water is predicted where there is haze (major, evidence grade 3). 1 more finding."
    aside = summary(passed, [{**first, "status": "suppressed"}, second])
    assert (aside["status"], aside["worst_severity"]) == ("pass", "minor")
    unsure = summary([{"rule": "context", "status": "inconclusive"}], [])
    assert (unsure["status"], unsure["worst_severity"]) == ("inconclusive", None)
    assert unsure["sentence"].endswith("1 check could not decide.")
