"""How far the captions' phrases reach, and which tiles show a label: drawn phrases with a known answer."""

import numpy as np
import pytest

from dnd_core.presence import amount_of
from dnd_core.testing import WordVectors
from geoaudit.bands import SENTINEL2
from geoaudit.bench.labels_limits import (
    LIMITS,
    best_statements,
    firing_statements,
    limits,
    phrase_extents,
    plain_measures,
    told,
    weighted_sums,
)
from geoaudit.bench.labels_shown import (
    exaggerate,
    most_possible,
    rate_of_best,
    rates_of_exaggerated,
    rates_of_shown,
    show,
)


def statements(x):
    """A phrase, a denial, an and, an or, a without."""
    each = [x[:, 1], 1 - x[:, 3], np.minimum(x[:, 0], x[:, 2]), np.maximum(x[:, 1], x[:, 2])]
    return np.stack([*each, np.minimum(x[:, 0], 1 - x[:, 3])], axis=1)


def test_the_statement_a_unit_computes_is_found_and_told_on_other_tiles():
    rng = np.random.default_rng(0)
    seen, unseen = rng.random((80, 4)), rng.random((30, 4))
    found = best_statements(7 * statements(seen) + 3, seen, unseen)
    np.testing.assert_allclose(found, statements(unseen))


def test_a_unit_that_never_changes_gets_some_statement_and_no_failure():
    seen = np.random.default_rng(0).random((20, 3))
    assert np.isfinite(best_statements(np.zeros((20, 2)), seen, seen)).all()


def test_statements_chosen_to_fire_a_unit_show_the_tiles_it_fires_on():
    """A unit that follows one phrase at large and fires on another: each choice finds what it asks for."""
    rng = np.random.default_rng(2)
    seen, unseen = rng.random((200, 4)), rng.random((200, 4))
    units = [np.column_stack([5 * x[:, 0] + 9 * (x[:, 2] > 0.95), statements(x)[:, 2]]) for x in (seen, unseen)]
    bars = np.percentile(units[0], 95, axis=0)
    chosen = firing_statements(units[0], bars, seen)
    rates = [
        [rate_of_best(table, units[1][:, [unit]], bars[[unit]]) for unit, table in enumerate(tables.T[:, :, None])]
        for tables in (told(unseen, chosen), best_statements(units[0], seen, unseen))
    ]
    assert rates[0][0] > 0.8 > 0.6 > rates[1][0]
    assert rates[0][1] > 0.8
    np.testing.assert_allclose(told(unseen, chosen)[:, 1], statements(unseen)[:, 2])


def test_rates_of_best_are_of_the_ten_images_that_show_most():
    fires = np.arange(40)[:, None] >= 35
    assert rate_of_best(np.arange(40)[:, None], fires, np.array([0.5])) == 0.5
    assert rate_of_best(-np.arange(40)[:, None], fires, np.array([0.5])) == 0


AMOUNTS = ("a little", "a third", "half", "most")


def said(rng, n):
    """Captions, and how much forest and water they grade."""
    drawn = rng.integers(4, size=(n, 2))
    return [f"forest over {AMOUNTS[f]} of the tile, water over {AMOUNTS[w]} of the tile" for f, w in drawn], drawn


def test_phrases_are_graded_by_amount_and_rare_ones_left_out():
    rng = np.random.default_rng(0)
    (one, first), (two, second) = said(rng, 20), said(rng, 10)
    here, there = phrase_extents([*one, "snow", "snow"], two, WordVectors())
    assert (here.shape, there.shape) == ((22, 2), (10, 2))
    for table, drawn in ((here, first), (there, second)):
        for phrase in range(2):
            shares = np.array([amount_of(f"over {amount} of the tile") for amount in AMOUNTS])
            np.testing.assert_allclose(table[: len(drawn), phrase], shares[drawn[:, phrase]], atol=1e-6)


def test_limits_bound_what_labels_of_the_captions_reach():
    rng = np.random.default_rng(0)
    (one, first), (two, second) = said(rng, 60), said(rng, 40)
    both, noise = [np.minimum(d[:, 0], d[:, 1]) for d in (first, second)], rng.normal(size=(100, 1))
    seen = np.column_stack([both[0], first[:, 0] + 2 * first[:, 1], noise[:60]])
    unseen = np.column_stack([both[1], second[:, 0] + 2 * second[:, 1], noise[60:]])
    # What no caption says: a measure that the last unit follows to the letter.
    unsaid = noise[:60], noise[60:]
    found = limits(seen, unseen, (one, two), WordVectors(), unsaid, blocks=np.arange(40) // 4, draws=5, seed=0)
    r = {key: scores.units["r"] for key, scores in found.items()}
    assert list(r) == list(LIMITS)
    assert r["statement"][0] > 0.95
    # A sum is no statement of two phrases, but a regression makes it.
    assert r["ridge"][1] > r["hindsight"][1] + 0.02 >= r["statement"][1]
    assert r["weighted"][1] > 0.95
    assert r["weighted"][1] > r["statement"][1] + 0.02
    assert abs(r["ridge"][2]) < 0.4
    assert r["measured"][2] > 0.95 > 0.5 > r["statement"][2]
    assert r["measured"][0] > 0.95
    assert (r["hindsight"] >= r["statement"] - 1e-9).all()
    assert all(set(scores.units) == set(scores.draws) == {"r"} for scores in found.values())


def test_weighted_sums_are_found_through_phrases_that_say_the_same_and_idle_units():
    rng = np.random.default_rng(1)
    seen, unseen = rng.random((60, 5)), rng.random((20, 5))
    for table in (seen, unseen):
        table[:, 4] = table[:, 1]
    units = np.column_stack([3 * seen[:, 0] - 2 * seen[:, 1] + seen[:, 3], np.zeros(60)])
    found = weighted_sums(units, seen, unseen)
    np.testing.assert_allclose(found[:, 0], 3 * unseen[:, 0] - 2 * unseen[:, 1] + unseen[:, 3])
    assert not found[:, 1].any()
    # Fewer distinct phrases than a sum may have.
    two = [0, 1, 1, 1]
    np.testing.assert_allclose(
        weighted_sums(units - seen[:, [3]], seen[:, two], unseen[:, two])[:, 0], found[:, 0] - unseen[:, 3]
    )


def test_plain_measures_are_shares_of_a_tile_beyond_levels_of_bands_indices_and_texture():
    rng = np.random.default_rng(0)
    tiles = rng.random((6, 13, 8, 8), dtype=np.float32)
    first, second = plain_measures(tiles[:4], tiles[4:], SENTINEL2)
    assert (first.shape, second.shape) == ((4, 400), (2, 400))
    assert first.min() >= 0
    assert first.max() <= 1
    np.testing.assert_allclose(first[:, 0::2] + first[:, 1::2], 1)
    # The middle level of a band halves all pixels that levels are read from, and only those.
    assert first[:, 6].mean() == pytest.approx(0.5)
    level = np.median(tiles[:4, 0])
    np.testing.assert_allclose(second[:, 6], (tiles[4:, 0] > level).mean(axis=(1, 2)))
    # Where red and near infrared cancel out an index has no value, and every share still has one.
    tiles[0, 3], tiles[0, 7] = 0.5, -0.5
    assert np.isfinite(plain_measures(tiles[:4], tiles[4:], SENTINEL2)[0]).all()
    # Three bands allow no index but those of red and green and blue.
    few, _ = plain_measures(tiles[:4, 1:4], tiles[4:, 1:4], SENTINEL2[1:4])
    assert few.shape == (4, 4 * 20)


def test_exaggerated_images_are_as_far_again_from_the_usual():
    rng = np.random.default_rng(0)
    usual = rng.normal(2, 0.1, (400, 2, 8, 8)).astype(np.float32)
    shown = usual[:100] + np.array([0.2, 0], np.float32)[:, None, None]
    shown[:, 1] = 2 + 2 * (shown[:, 1] - 2)
    further = exaggerate(shown, usual)
    assert further[:, 0].mean() == pytest.approx(2.4, abs=0.01)
    assert further[:, 1].mean() == pytest.approx(2, abs=0.01)
    # A band that varies twice as much as usual varies four times as much.
    assert further[:, 1].std() / usual[:, 1].std() == pytest.approx(4, rel=0.05)
    assert further[:, 0].std() == pytest.approx(usual[:, 0].std(), rel=0.05)
    assert exaggerate(shown - 2, usual).min() == 0


@pytest.mark.parametrize("at_once", [1, 3, 512])
def test_rates_on_exaggerated_images_ask_what_each_label_shows(monkeypatch, at_once):
    monkeypatch.setattr("geoaudit.bench.labels_shown._AT_ONCE", at_once)
    usual = np.linspace(0.4, 0.6, 20, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)
    said = {"some": [("bright",), ("dark",), ()]}
    chosen = {("bright",): [18, 19], ("dark",): [0, 1], (): []}
    bars = np.array([0.65, 0.65, 0.65])

    def fire(pixels):
        return np.repeat(pixels.mean(axis=(1, 2, 3))[:, None], 3, axis=1)

    plain = rates_of_shown(said, fire(usual), bars, chosen, draws=5, seed=0)
    further = rates_of_exaggerated(said, usual, bars, chosen, usual, fire, draws=5, seed=0)
    np.testing.assert_array_equal(plain["some"].units["activation_rate"], [0, 0, np.nan])
    np.testing.assert_array_equal(further["some"].units["activation_rate"], [1, 0, np.nan])


def test_the_tiles_that_show_a_label_most_are_shown():
    captions = [f"water over {amount} of the tile" for amount in AMOUNTS] * 4 + ["houses"] * 10
    chosen = show([[("water",), ()], [("houses",), ("snow",)]], captions, WordVectors())
    assert set(chosen["water",][:4]) == {3, 7, 11, 15}
    assert set(chosen["houses",]) == set(range(16, 26))
    assert chosen[()] == chosen["snow",] == []


def test_rates_of_shown_tiles_count_units_with_a_label_and_stay_under_what_is_possible():
    captions = ["water over all of the tile"] * 20 + ["houses"] * 20
    activations = np.repeat([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], 20, axis=0)
    bars = np.array([0.5, 0.5, 2.0])
    said = {
        "right": [("water",), ("houses",), ()],
        "wrong": [("houses",), ("houses",), ("water",)],
        "none": [(), (), ()],
    }
    chosen = show(list(said.values()), captions, WordVectors())
    found = rates_of_shown(said, activations, bars, chosen, draws=20, seed=0)
    rates = {method: scores.units["activation_rate"] for method, scores in found.items()}
    np.testing.assert_array_equal(rates["right"], [1, 1, np.nan])
    np.testing.assert_array_equal(rates["wrong"], [0, 1, 0])
    assert np.isnan(rates["none"]).all()
    assert (found["right"]["activation_rate"].value, found["right"]["activation_rate"].n) == (1, 2)
    assert found["wrong"]["activation_rate"].high > found["wrong"]["activation_rate"].low
    assert most_possible(activations, bars) == pytest.approx(2 / 3)
