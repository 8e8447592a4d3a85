"""A planted reliance on haze comes first; a network that sees haze and does not use it stays unsuspected."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from geoaudit.checks.concept_reliance import ConceptReliance, paintable
from geoaudit.findings import judge

from .planted import HAZE_NAMES, HAZE_UNITS, Classifier, context_of, network_of, planted_context, tiles


@pytest.fixture(scope="module")
def planted():
    context = planted_context(450.0)
    return context, ConceptReliance().run(context)


def test_planted_reliance_ranks_first_with_every_grade(planted) -> None:
    _, result = planted
    findings = judge(result.hypotheses)
    assert result.status == "fail"
    assert result.tested == 3
    first = findings[0]
    assert (first.hypothesis.concept, first.hypothesis.class_name) == ("haze", "water")
    assert first.severity == "critical", "a tenth of the captions speaks of haze"
    assert {e.grade for e in first.hypothesis.evidence if e.holds} == {1, 2, 3}
    assert first.hypothesis.units == tuple(HAZE_NAMES)
    assert first.hypothesis.value > 0.5
    assert all(f.hypothesis.class_name == "water" for f in findings)


def test_planted_reliance_writes_the_run_s_tables(planted) -> None:
    context, _ = planted
    reliance, ablation = (pd.DataFrame(context.tables[name]) for name in ("reliance", "ablation"))
    assert list(reliance["class"]) == list(ablation["class"]) == ["field", "forest", "water"]
    assert reliance.set_index("class")["grade"]["water"] == 3
    assert (ablation["accuracy_after"] >= ablation["accuracy_before"] - 1e-9).all(), "without haze nothing is lost"


def test_encoded_but_unused_haze_stays_silent() -> None:
    result = ConceptReliance().run(planted_context(0.0))
    assert result.status == "pass"
    assert result.tested == 3
    assert judge(result.hypotheses) == []


def test_no_groups_is_not_run() -> None:
    context = planted_context(450.0)
    context.groups = context.groups.iloc[:0]
    assert ConceptReliance().run(context).status == "not_run"


def test_one_unit_is_no_group() -> None:
    context = planted_context(450.0)
    context.groups.loc[0, "units"] = json.dumps(HAZE_NAMES[:1])
    assert ConceptReliance().run(context).status == "not_run"


def test_unpaintable_concept_never_gets_beyond_minor() -> None:
    context = planted_context(450.0, concept="cloud shadow over swath edge")
    context.groups.loc[0, "name"] = "bright roofs"
    result = ConceptReliance().run(context)
    assert paintable("bright roofs", context) is None
    assert all({e.grade for e in h.evidence} == {1, 3} for h in result.hypotheses)
    assert all(f.severity not in ("major", "critical") for f in judge(result.hypotheses))


@pytest.mark.parametrize(
    ("words", "name"), [("thin haze", "haze"), ("Hazy fields", "haze"), ("vertical stripes", "stripes_vertical")]
)
def test_paintable_by_word(words: str, name: str) -> None:
    found = paintable(words, planted_context(0.0))
    assert found is not None
    assert found.name == name


def test_real_images_decide_where_the_brush_is_unlike_what_the_network_leans_on(monkeypatch) -> None:
    images, hazed = tiles(haze=0.5)
    captions = [f"{'haze over all of the tile, ' if h else ''}bare ground over all of the tile" for h in hazed]
    groups = pd.DataFrame([{"group": 0, "name": "haze", "units": json.dumps(HAZE_NAMES), "threshold": 0.9}])
    context = context_of(network_of(Classifier(450.0)), images, groups=groups, captions=captions)
    context.neurons.loc[context.neurons["unit"].isin(HAZE_UNITS), "group"] = 0
    # A brush so faint that it moves no class.
    monkeypatch.setattr("geoaudit.checks.concept_reliance.usual_strength", lambda *_: 0.01)
    water = next(h for h in ConceptReliance().run(context).hypotheses if h.class_name == "water")
    assert [(e.name, e.holds) for e in water.evidence][:2] == [("association", True), ("retrieved pairs", True)]
    assert "real images" in water.evidence[1].sentence
