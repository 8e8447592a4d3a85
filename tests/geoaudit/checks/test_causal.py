"""Reliance and ablation against slow formulas and hand-set networks."""

from __future__ import annotations

import numpy as np
import pytest

from dnd_core.errors import ConfigError
from geoaudit.checks import choose_checks
from geoaudit.checks.base import choose_evaluated
from geoaudit.checks.causal import (
    Ablation,
    Effect,
    ablation_holds,
    ablations,
    accuracy_change,
    reliance,
    usual_strength,
)
from geoaudit.perturb import PERTURBATIONS

from .planted import HAZE_UNITS, Classifier, context_of, network_of, planted_context, tiles


@pytest.fixture(scope="module")
def context():
    return planted_context(450.0)


def one_hot(classes) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[np.asarray(classes)]


def test_reliance_is_the_change_over_images_of_other_classes(context) -> None:
    rows = np.arange(60)
    truth = context.reference[rows]
    before, after = truth.copy(), truth.copy()
    after[:10] = 2
    effect = reliance(context, rows, one_hot(before), one_hot(after), 2)
    outside = truth != 2
    expected = np.mean([after[i] == 2 for i in np.flatnonzero(outside)])
    assert effect.value == pytest.approx(expected)
    assert effect.n == outside.sum()
    assert effect.ci[0] <= effect.value <= effect.ci[1]


def test_no_change_and_too_few_images_hold_nothing(context) -> None:
    rows = np.arange(60)
    same = one_hot(context.reference[rows])
    assert reliance(context, rows, same, same, 0) == Effect(0.0, (0.0, 0.0), 1.0, 40)
    few = reliance(context, rows[:6], same[:6], same[:6], 0)
    assert not few.holds
    assert few.ci == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("effect", "holds"),
    [
        (Effect(0.2, (0.1, 0.3), 0.001, 50), True),
        (Effect(0.09, (0.05, 0.2), 0.001, 50), False),
        (Effect(0.2, (0.0, 0.3), 0.001, 50), False),
        (Effect(0.2, (0.1, 0.3), 0.02, 50), False),
    ],
)
def test_effect_holds_only_when_large_and_no_chance(effect: Effect, holds: bool) -> None:
    assert effect.holds is holds


def test_drop_and_gap_by_hand(context) -> None:
    rows = np.arange(60)
    plain = one_hot(np.full(60, 2))
    held = one_hot(np.where(np.arange(60) % 2, 0, 2))
    random = np.stack([plain, one_hot(np.where(np.arange(60) % 4 == 3, 0, 2))])
    own, gap = Ablation(plain, held, random, rows).drop(context, 2, np.ones(60, dtype=bool))
    assert own.value == pytest.approx(0.5)
    # Random sets keep class 2 in 1 and in 3/4 of the images, so chance is 7/8.
    assert gap.value == pytest.approx(0.875 - 0.5)


def test_chance_gaps_compare_each_random_set_with_the_others(context) -> None:
    plain = one_hot(np.full(4, 2))
    random = np.stack([plain, plain, one_hot([0, 0, 2, 2])])
    gaps = Ablation(plain, plain, random, np.arange(4)).chance_gaps(2, np.ones(4, dtype=bool))
    np.testing.assert_allclose(gaps, [-0.25, -0.25, 0.5])


def test_holding_the_haze_unit_restores_hazed_images(context) -> None:
    rows = np.arange(40)
    painted = context.painted_images("haze", 0.6)
    (found,) = ablations(context, [{"features": HAZE_UNITS}], rows, painted)
    assert found is not None
    assert (found.plain.argmax(axis=1) == 2).mean() > 0.9
    assert (found.held.argmax(axis=1) == context.reference[rows]).mean() > 0.9
    assert (found.random.argmax(axis=2) == 2).mean() > 0.9


def test_units_are_held_where_they_are_without_the_concept() -> None:
    # Haze on two tiles of three: the mean over all of them is mostly haze, and holding units there takes nothing away.
    images, hazed = tiles(haze=0.66)
    captions = ["haze over ground" if h else "clear ground" for h in hazed]
    context = context_of(network_of(Classifier(450.0)), images, captions=captions)
    rows = np.arange(40)
    painted = context.painted_images("haze", 0.6)
    share = []
    for absent in ("", "haze"):
        (found,) = ablations(context, [{"features": HAZE_UNITS}], rows, painted, absent)
        assert found is not None
        share.append((found.held.argmax(axis=1) == 2)[context.reference[rows] != 2].mean())
    assert share[0] > 0.3
    assert share[1] < 0.05


def test_an_artefact_that_the_imagery_shows_is_painted_as_strongly_as_it_gets(context) -> None:
    haze = PERTURBATIONS["haze"]
    assert usual_strength(context, haze) == haze.strengths[-1]
    assert usual_strength(context, PERTURBATIONS["blur"]) == PERTURBATIONS["blur"].strengths[1]


def test_sets_of_more_than_half_a_layer_cannot_be_matched(context) -> None:
    assert ablations(context, [{"features": list(range(31))}], np.arange(10)) == [None]


def test_accuracy_change_of_a_class(context) -> None:
    rows = np.flatnonzero(context.reference == 0)[:20]
    plain = one_hot(np.zeros(20, dtype=int))
    held = one_hot(np.where(np.arange(20) < 5, 1, 0))
    n, before, after, change, chance, gap = accuracy_change(context, Ablation(plain, held, plain[None], rows), 0)
    assert (n, before, after) == (20, 1.0, 0.75)
    assert change.value == pytest.approx(-0.25)
    assert gap.value == pytest.approx(-0.25)
    assert chance == (0.0, 0.0, 0.0)


def test_evaluated_images_are_balanced_and_seeded() -> None:
    reference = np.repeat([0, 1, 2], [100, 10, 50])
    chosen = choose_evaluated(reference, 60, seed=3)
    assert np.bincount(reference[chosen]).tolist() == [25, 10, 25]
    np.testing.assert_array_equal(chosen, choose_evaluated(reference, 60, seed=3))
    assert len(choose_evaluated(reference, 1000, seed=3)) == 160


def test_prevalence_counts_captions(context) -> None:
    said = np.mean(["haze" in caption for caption in context.captions])
    assert context.prevalence("haze") == pytest.approx(said)


def test_unknown_check_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean geography"):
        choose_checks(["geograhpy"])
    assert [c.rule for c in choose_checks(["unit-health"])] == ["unit-health"]
    assert len(choose_checks([])) == 6


def test_an_ablation_needs_an_effect_of_its_own_and_one_beyond_chance() -> None:
    large, small = Effect(0.2, (0.1, 0.3), 0.001, 90), Effect(0.08, (0.05, 0.11), 0.001, 90)
    assert ablation_holds(large, large)
    assert not ablation_holds(small, large), "random units pushing the other way open the gap"
    assert not ablation_holds(large, small)
