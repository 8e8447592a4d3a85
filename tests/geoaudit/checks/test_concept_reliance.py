"""A planted reliance on haze comes first; a network that sees haze and does not use it stays unsuspected."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from geoaudit.checks.concept_reliance import ConceptReliance, paintable
from geoaudit.findings import judge

from .planted import HAZE_NAMES, planted_context


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
