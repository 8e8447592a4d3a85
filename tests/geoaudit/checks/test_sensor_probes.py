"""Artefacts are swept without words; the unit that carries the effect is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoaudit.checks.grouped import spoken_of
from geoaudit.checks.pairing import retrieve_pairs
from geoaudit.checks.sensor_probes import SensorProbes
from geoaudit.findings import judge

from .planted import CLASSES, HAZE_NAMES, HAZE_UNITS, Classifier, context_of, network_of, planted_context, tiles

ARTEFACTS = ("haze", "stripes_vertical", "blur")


@pytest.fixture(scope="module")
def planted():
    context = planted_context(450.0)
    return context, SensorProbes(ARTEFACTS).run(context)


def test_planted_haze_ranks_first_and_names_its_unit(planted) -> None:
    context, result = planted
    first = judge(result.hypotheses)[0]
    assert result.status == "fail"
    assert (first.hypothesis.concept, first.hypothesis.class_name) == ("haze", "water")
    assert first.severity == "critical"
    # The imagery shows haze, so a fifth of the sixty units is held: those that react most, the three haze units with them.
    assert set(HAZE_NAMES) <= set(first.hypothesis.units)
    assert len(first.hypothesis.units) == 12
    assert {2, 3} <= {e.grade for e in first.hypothesis.evidence if e.holds}
    # What is shown has the haze: wrongly called water first, and beside it what is called right all the same.
    hazed, water = context.shows("haze"), CLASSES.index("water")
    assert all(hazed[i] and context.predicted[i] == water for i in first.hypothesis.examples)
    assert context.reference[first.hypothesis.examples[0]] != water
    assert all(hazed[i] and context.predicted[i] != water for i in first.hypothesis.counterexamples)


def test_few_units_are_held_for_an_artefact_that_the_imagery_never_shows() -> None:
    context = planted_context(450.0)
    context.captions = ["clear ground"] * len(context.images)
    haze = next(h for h in SensorProbes(("haze",)).run(context).hypotheses if h.class_name == "water")
    assert all(haze_free != 2 for haze_free in context.reference[list(haze.examples)]), "those that painting turns"
    # The twentieth of sixty that reacts most; a noise unit that reads blue may be among them.
    assert len(haze.units) == 3
    assert len(set(haze.units) & set(HAZE_NAMES)) >= 2


def test_the_imagerys_own_hazed_images_are_asked_too(planted) -> None:
    _, result = planted
    haze = next(h for h in result.hypotheses if (h.concept, h.class_name) == ("haze", "water"))
    assert [(e.grade, e.holds) for e in haze.evidence] == [(1, True), (2, True), (3, True)]
    assert "captions speak of haze" in haze.evidence[0].sentence
    # Captions that speak of haze on the wrong images refute it.
    context = planted_context(450.0)
    context.captions = context.captions[1:] + context.captions[:1]
    (other,) = (h for h in SensorProbes(("haze",)).run(context).hypotheses if h.class_name == "water")
    assert [(e.grade, e.holds) for e in other.evidence][:2] == [(1, False), (2, True)]


def test_units_must_carry_half_the_effect_of_what_the_imagery_never_shows() -> None:
    context = planted_context(450.0)
    context.captions = ["clear ground"] * len(context.images)
    for share, holds in ((0.2, True), (2.0, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geoaudit.checks.sensor_probes.CARRIED", share)
            found = SensorProbes(("haze",)).run(context).hypotheses
        (haze,) = (h for h in found if h.class_name == "water")
        assert [e.grade for e in haze.evidence] == [2, 3]
        assert haze.evidence[-1].holds is holds


def captioned(word: str, planted: float, share: float = 0.4):
    """Tiles some of which are hazed, while their captions call that by another artefact's name."""
    images, hazed = tiles(240, share, seed=4)
    ground = ["smooth ground", "rough ground", "straight edges", "many bright points"]
    captions = [
        ", ".join(([f"{word} over part of the tile"] if shown else []) + [ground[i // 3 % 4]])
        for i, shown in enumerate(hazed)
    ]
    return context_of(network_of(Classifier(planted)), images, captions=captions)


def test_real_images_speak_where_the_brush_is_unlike() -> None:
    """What these captions call a watermark moves the class; the painted ring does not."""
    context = captioned("watermark", 450.0)
    found = SensorProbes(("watermark",)).run(context).hypotheses
    (water,) = (h for h in found if h.class_name == "water")
    assert [(e.grade, e.name, e.holds) for e in water.evidence] == [
        (1, "association", True),
        (2, "counterfactual reliance", False),
        (2, "retrieved pairs", True),
        (3, "ablation", True),
    ]
    assert water.value == water.evidence[2].value
    # Water's own pairs count too: does it need the thing to be recognised? The others are told apart.
    pairs = retrieve_pairs(context, "watermark")
    others = np.count_nonzero(context.reference[pairs.shown] != CLASSES.index("water"))
    assert 0 < others < len(pairs.shown) == water.n
    assert f"points in the {others} pairs of other classes)" in water.evidence[2].sentence
    assert set(HAZE_NAMES) <= set(water.units)
    assert "pairs of real images" in water.limitations
    assert judge(found)[0].severity == "critical"


def test_stripes_along_and_across_are_looked_for_together() -> None:
    context = captioned("vertical stripes", 450.0)
    context.captions = [
        caption.replace("vertical", "horizontal") if i % 5 == 0 else caption
        for i, caption in enumerate(context.captions)
    ]
    found = SensorProbes(("stripes_vertical", "stripes_horizontal")).run(context).hypotheses
    along, across = (next(h for h in found if h.concept == name and h.class_name == "water") for name in
                     ("vertical stripes", "horizontal stripes"))  # fmt: skip
    assert [e.name for e in along.evidence] == ["association", "counterfactual reliance", "retrieved pairs", "ablation"]
    assert "vertical stripes or horizontal stripes" in along.evidence[2].sentence
    assert along.prevalence == across.prevalence > 0.35


def test_the_same_pairs_make_one_finding(monkeypatch) -> None:
    """Whichever of the two is seen more speaks for both; the other is left with what its own brush does."""
    monkeypatch.setattr("geoaudit.checks.causal.MIN_EFFECT", 0.3)
    context = captioned("horizontal stripes", 450.0)
    found = SensorProbes(("stripes_vertical", "stripes_horizontal")).run(context).hypotheses
    water = {h.concept: h for h in found if h.class_name == "water"}
    assert not any(e.name == "counterfactual reliance" and e.holds for h in water.values() for e in h.evidence)
    assert [e.name for e in water["horizontal stripes"].evidence][2:] == ["retrieved pairs", "ablation"]
    assert [e.name for e in water["vertical stripes"].evidence] == ["counterfactual reliance"]


def test_real_images_refute_what_only_the_brush_does() -> None:
    """The network falls for painted haze, but on the images whose captions speak of haze it answers as on the others."""
    context = captioned("haze", 450.0)
    # A neighbour's caption: of the same class, with haze as often, on the wrong image.
    context.captions = context.captions[3:] + context.captions[:3]
    result = SensorProbes(("haze",)).run(context)
    assert result.status == "pass", "what the imagery refutes is no failure"
    (water,) = (h for h in result.hypotheses if h.class_name == "water")
    assert [(e.name, e.holds) for e in water.evidence][1:3] == [
        ("counterfactual reliance", True),
        ("retrieved pairs", False),
    ]
    assert judge([water])[0].severity == "minor"


def test_units_are_chosen_by_the_class_they_push_to() -> None:
    """A unit that reacts as strongly, but speaks for another class, does not carry the artefact to this one."""
    context = captioned("haze", 450.0)
    head = context.network.module.head
    with torch.no_grad():
        head.weight[:, HAZE_UNITS[0]] = torch.tensor([30.0, 0.0, -30.0])
    (water,) = (h for h in SensorProbes(("haze",)).run(context).hypotheses if h.class_name == "water")
    assert HAZE_NAMES[0] not in water.units
    assert set(HAZE_NAMES[1:]) <= set(water.units)


def test_area_at_risk_and_advice_have_figures(planted) -> None:
    _, result = planted
    haze = next(h for h in result.hypotheses if (h.concept, h.class_name) == ("haze", "water"))
    assert haze.area_ha is not None
    assert haze.area_ha[1] <= haze.area_ha[0] <= haze.area_ha[2]
    assert haze.area_meaning == "ground called water that shows haze"
    assert f"hold back the {haze.area_ha[0]:.1f} ha" in haze.recommendation
    assert haze.title == "water is predicted wherever haze lies"


def test_reacting_units_are_named_by_their_concepts(planted) -> None:
    context, result = planted
    haze = next(h for h in result.hypotheses if (h.concept, h.class_name) == ("haze", "water"))
    held = next(e for e in haze.evidence if e.name == "ablation")
    reacting = len(set(haze.units) & set(HAZE_NAMES))
    assert f"({reacting} speak of 'haze')" in held.sentence
    assert spoken_of(context, "features", [20, 21]) == ""


def test_sweep_says_every_strength(planted) -> None:
    _, result = planted
    said = result.hypotheses[0].evidence[0].sentence
    assert "by strength 0.3: " in said
    assert ", 1: " in said


def test_blur_of_flat_tiles_stays_silent(planted) -> None:
    _, result = planted
    assert not [f for f in judge(result.hypotheses) if f.hypothesis.concept == "blur"]


def test_network_that_ignores_haze_passes() -> None:
    result = SensorProbes(ARTEFACTS).run(planted_context(0.0))
    assert result.status == "pass"
    assert result.tested == 9
    assert judge(result.hypotheses) == []
