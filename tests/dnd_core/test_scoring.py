"""The vectorised scores equal the formulas written slowly, and mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from dnd_core import scoring
from dnd_core.errors import ConfigError
from tests.reference import scoring as slow


def unit_rows(generator, *shape):
    rows = generator.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_the_four_scores_equal_the_slow_formulas(seed, j, q, beta, tied):
    generator = np.random.default_rng(seed)
    activations = generator.normal(size=(j, q))
    if tied:
        activations = np.round(activations)
    images, own = unit_rows(generator, j, q, 4), unit_rows(generator, 3, 4)
    fast = scoring.score_concepts(activations, images, own, beta)
    plain = activations.tolist()
    assert set(fast) == set(scoring.SCORES)
    for i in range(j):
        assert fast["mean"][i] == pytest.approx(slow.mean(plain, i))
        assert fast["topk_squared"][i] == pytest.approx(slow.topk_squared(plain, i, beta))
        assert fast["image_products"][i] == pytest.approx(slow.image_products(plain, images, own, i, beta))
        expected = slow.combined(plain, images, own, i, beta)
        assert fast["topk_squared_x_image_products"][i] == pytest.approx(expected)


def test_many_units_at_once_equal_one_at_a_time_and_padding_counts_for_nothing():
    generator = np.random.default_rng(1)
    activations = generator.normal(size=(6, 4, 5))
    activations[0, 1, 3:] = np.nan
    activations[2, 3] = np.nan
    similar = generator.uniform(-1, 1, size=(6, 4, 5))
    ranked = scoring.ranks(activations)
    squared, products = scoring.topk_squared(ranked, 3), scoring.image_products(ranked, similar, 3)
    combined = scoring.topk_squared_x_image_products(squared, products)
    for unit in range(6):
        rows = [[v for v in row if not np.isnan(v)] for row in activations[unit]]
        shown = [i for i, row in enumerate(rows) if row]
        plain = [rows[i] for i in shown]
        for position, i in enumerate(shown):
            assert scoring.mean(ranked)[unit, i] == pytest.approx(slow.mean(plain, position))
            assert squared[unit, i] == pytest.approx(slow.topk_squared(plain, position, 3))
    assert np.isnan([squared[2, 3], products[2, 3], combined[2, 3]]).all()
    # Three candidates are left of unit 2, so its best weighs three.
    best = int(np.nanargmin(squared[2]))
    assert combined[2, best] == pytest.approx(3 * products[2, best])


def test_ranks_start_at_the_highest_and_equal_activations_share():
    assert scoring.ranks([[5.0, 1.0], [3.0, 3.0]]).tolist() == [[0, 3], [1.5, 1.5]]


def test_the_best_candidate_is_chosen_in_the_direction_of_the_score():
    values = np.array([[3.0, 1.0, 1.0], [np.nan, 2.0, 7.0], [np.nan] * 3])
    assert scoring.choose("mean", values).tolist() == [1, 1, -1]
    assert scoring.choose("image_products", values).tolist() == [0, 2, -1]
    assert scoring.order_of("topk_squared", values[1]).tolist() == [1, 2, 0]
    with pytest.raises(ConfigError, match="topk_squared_x_image_products"):
        scoring.choose("median", values)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60), st.sampled_from([0.05, 0.2, 0.5]), st.booleans())
def test_label_measures_equal_the_slow_formulas(seed, n, share, coarse):
    generator = np.random.default_rng(seed)
    a, c = generator.normal(size=(n, 3)), generator.normal(size=(n, 3))
    if coarse:
        a, c = np.round(a), np.round(c)
    r, ap = scoring.pearson(a, c), scoring.auprc(a, c, share)
    overlap = scoring.f1_iou_at(a, c, share)
    matrix = scoring.pearson_matrix(a, c)
    for u in range(3):
        mine, its = a[:, u].tolist(), c[:, u].tolist()
        assert r[u] == pytest.approx(slow.pearson(mine, its), abs=1e-9)
        assert matrix[u, u] == pytest.approx(r[u], abs=1e-12)
        assert ap[u] == pytest.approx(slow.auprc(mine, its, share))
        assert (overlap.f1[u], overlap.iou[u]) == pytest.approx(slow.f1_iou(mine, its, share))
        assert scoring.auprc(a[:, u], c[:, u], share) == pytest.approx(ap[u])
        truth = np.isin(np.arange(n), list(slow.positives(mine, share)))
        assert ap[u] == pytest.approx(average_precision_score(truth, c[:, u]))
    assert scoring.cosy_auc(a[:, 0], c[:, 0]) == pytest.approx(slow.cosy_auc(a[:, 0], c[:, 0]))
    assert scoring.cosy_mad(a[:, 0], c[:, 0]) == pytest.approx(slow.cosy_mad(a[:, 0], c[:, 0]))
    assert scoring.activation_rate(c[:, 0], 0.3) == pytest.approx(slow.activation_rate(c[:, 0], 0.3))


def test_one_concept_serves_many_units():
    generator = np.random.default_rng(2)
    a, c = generator.normal(size=(40, 3)), generator.normal(size=40)
    assert scoring.auprc(a, c, 0.2).tolist() == [float(scoring.auprc(a[:, u], c, 0.2)) for u in range(3)]
    assert scoring.pearson(a, c) == pytest.approx(np.corrcoef(np.c_[a, c].T)[3, :3])


def test_a_constant_simulates_nothing():
    a = np.arange(10.0)
    assert scoring.pearson(a, np.full(10, 0.1 + 0.2)) == 0
    assert scoring.cosy_mad(np.full(5, 3.0), a) == 0
    assert np.isnan(scoring.activation_rate([], 0.0))


def test_primary_measures_fall_when_half_of_the_positives_are_dropped():
    a = np.r_[np.linspace(1, 2, 10), np.linspace(0, 0.5, 190)]
    full = np.r_[np.ones(10), np.zeros(190)]
    half = np.r_[np.ones(5), np.zeros(195)]
    for measure in (scoring.pearson, scoring.auprc):
        assert measure(a, half) < measure(a, full)
    assert scoring.auprc(a, full) == 1


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="top_share"):
        scoring.auprc([1.0, 2.0], [1.0, 2.0], 1.0)
