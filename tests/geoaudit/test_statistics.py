"""Statistics against slow formulas, published values and their own coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geoaudit.paired import paired_difference
from geoaudit.statistics import (
    StatisticsError,
    benjamini_hochberg,
    block_bootstrap,
    block_permutation,
    block_shuffles,
    block_sign_flip,
    bootstrap_interval,
    effective_sample,
    exact_upper_bound,
    mean_estimate,
    q_values,
    wilson_interval,
)


def blocked(rng, blocks, size, between=1.0, within=1.0):
    """Values that share a random level inside a block, with their block ids."""
    ids = np.repeat(np.arange(blocks), size)
    return rng.normal(0, between, blocks)[ids] + rng.normal(0, within, blocks * size), ids


def slow_bootstrap_mean(values, blocks, n, seed):
    rng = np.random.default_rng(seed)
    names = np.unique(blocks)
    draws = []
    for _ in range(n):
        picked = rng.integers(len(names), size=len(names))
        rows = [value for pick in picked for value in values[blocks == names[pick]]]
        draws.append(sum(rows) / len(rows))
    return np.array(draws)


def test_bootstrap_of_the_mean_equals_resampling_by_hand():
    rng = np.random.default_rng(0)
    values, blocks = rng.normal(size=40), rng.integers(7, size=40)
    draws = block_bootstrap(values, blocks, n=25, seed=3)
    np.testing.assert_allclose(draws, slow_bootstrap_mean(values, blocks, 25, 3))


def test_bootstrap_with_a_statistic_draws_the_same_blocks_and_keeps_rows_whole():
    rng = np.random.default_rng(1)
    values, blocks = rng.normal(size=(30, 2)), rng.integers(6, size=30)
    by_hand = block_bootstrap(values, blocks, lambda rows: rows.mean(axis=0), n=40, seed=5)
    np.testing.assert_allclose(by_hand, block_bootstrap(values, blocks, n=40, seed=5))
    pairs = np.column_stack([values[:, 0], 2 * values[:, 0]])
    ratio = block_bootstrap(pairs, blocks, lambda rows: rows[:, 1].sum() / rows[:, 0].sum(), n=20)
    np.testing.assert_allclose(ratio, 2.0)


def test_bootstrap_in_chunks_equals_one_go(monkeypatch):
    import geoaudit.statistics as module

    values, blocks = blocked(np.random.default_rng(2), 9, 4)
    whole = block_bootstrap(values, blocks, n=50, seed=1)
    monkeypatch.setattr(module, "_CHUNK", 30)
    np.testing.assert_allclose(block_bootstrap(values, blocks, n=50, seed=1), whole, rtol=1e-12)


def test_blocks_widen_the_interval_of_correlated_rows():
    values, blocks = blocked(np.random.default_rng(3), 30, 20)
    honest, naive = mean_estimate(values, blocks), mean_estimate(values)
    assert honest.high - honest.low > 2.5 * (naive.high - naive.low)
    assert honest.low < honest.value < honest.high


def test_interval_covers_the_truth_as_often_as_it_says_with_few_blocks():
    rng = np.random.default_rng(4)
    trials, covered, plain, naive = 300, 0, 0, 0
    for trial in range(trials):
        values, blocks = blocked(rng, 8, 6)
        draws = block_bootstrap(values, blocks, n=400, seed=trial)
        low, high = bootstrap_interval(draws, 0.95, blocks=8)
        covered += low <= 0 <= high
        low, high = bootstrap_interval(draws, 0.95)
        plain += low <= 0 <= high
        low, high = bootstrap_interval(block_bootstrap(values, n=400, seed=trial), 0.95)
        naive += low <= 0 <= high
    assert covered / trials > 0.91
    assert covered > plain > naive
    assert naive / trials < 0.75


def test_shuffles_keep_blocks_together_and_differ():
    blocks = np.array([5, 9, 5, 9, 5, 9])
    values = np.array([1, 10, 2, 20, 3, 30])
    seen = {tuple(values[index]) for index in block_shuffles(blocks, 6, 30, seed=0)}
    assert seen == {(1, 10, 2, 20, 3, 30), (10, 1, 20, 2, 30, 3)}


def test_shuffles_of_unequal_blocks_are_permutations():
    for index in block_shuffles([0, 0, 0, 1, 2, 2], 6, 20):
        assert sorted(index) == list(range(6))


def test_permutation_p_is_near_the_exact_enumeration():
    a, c = np.array([0.1, 0.5, 0.2, 0.9, 0.7]), np.array([0.0, 0.6, 0.1, 0.7, 0.9])
    observed = np.corrcoef(a, c)[0, 1]
    every = [np.corrcoef(a, c[list(order)])[0, 1] for order in itertools.permutations(range(5))]
    exact = np.mean(np.array(every) >= observed - 1e-12)
    test = block_permutation(a, c, n=4999)
    assert test.value[0] == pytest.approx(observed)
    assert test.p[0] == pytest.approx(exact, abs=0.01)


def test_several_columns_are_tested_at_once_as_one_by_one():
    rng = np.random.default_rng(6)
    a, c, blocks = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), np.repeat(np.arange(10), 4)
    together = block_permutation(a, c, blocks, n=99, seed=2)
    for column in range(3):
        alone = block_permutation(a[:, column], c[:, column], blocks, n=99, seed=2)
        np.testing.assert_allclose(together.null[:, column], alone.null[:, 0])
        assert together.p[column] == alone.p[0]
    shared = block_permutation(a, c[:, 0], blocks, n=99, seed=2)
    assert shared.p[0] == together.p[0]


def test_block_permutation_holds_its_level_where_row_permutation_does_not():
    rng = np.random.default_rng(7)
    trials, by_block, by_row = 150, 0, 0
    for trial in range(trials):
        (a, blocks), (c, _) = blocked(rng, 15, 10, 1.0, 0.5), blocked(rng, 15, 10, 1.0, 0.5)
        by_block += block_permutation(a, c, blocks, n=99, seed=trial).p[0] <= 0.05
        by_row += block_permutation(a, c, n=99, seed=trial).p[0] <= 0.05
    assert by_block / trials < 0.1
    assert by_row / trials > 0.2


def test_association_that_the_label_explains_vanishes_given_the_label():
    rng = np.random.default_rng(8)
    label = rng.integers(2, size=400)
    a, c = label + rng.normal(0, 0.5, 400), label + rng.normal(0, 0.5, 400)
    assert block_permutation(a, c, n=199).p[0] == 1 / 200
    assert block_permutation(a, c, n=199, given=label).p[0] > 0.05
    assert block_permutation(a, c + a, n=199, given=label).p[0] == 1 / 200


def test_a_constant_column_is_no_finding():
    test = block_permutation(np.full(20, 0.3), np.arange(20.0), n=50)
    assert test.value[0] == 0
    assert test.p[0] == 1


def test_sign_flip_equals_the_exact_enumeration():
    differences, blocks = np.array([1.0, 2.0, -0.5, 1.5, 0.2, 0.4]), np.array([0, 0, 1, 1, 2, 3])
    sums = np.array([3.0, 1.0, 0.2, 0.4])
    every = [np.dot(signs, sums) for signs in itertools.product([-1, 1], repeat=4)]
    exact = np.mean(np.array(every) >= sums.sum() - 1e-12)
    test = block_sign_flip(differences, blocks, n=4999)
    assert test.blocks == 4
    assert test.p[0] == pytest.approx(exact, abs=0.01)


def test_paired_difference_sees_what_unpaired_scatter_hides():
    rng = np.random.default_rng(9)
    base, blocks = blocked(rng, 20, 5, 3.0)
    after = base + 0.3 + rng.normal(0, 0.2, 100)
    answer = paired_difference(after, base, blocks, n=500)
    assert answer.estimate.low > 0.2
    assert answer.estimate.high < 0.4
    assert paired_difference(base, after, blocks, n=500).p == 1.0


def test_a_clear_difference_gets_a_fine_p_value():
    """Among a hundred hypotheses, chance that was never reached in a few hundred draws is not known well enough."""
    clear = np.ones(80)
    # Twenty blocks agree by chance in one of a million draws: no draw reaches that, however many are made.
    assert paired_difference(clear, np.zeros(80), np.repeat(np.arange(20), 4), n=500).p == pytest.approx(1 / 10_501)
    # Eight blocks do in one of 256: found out with the precision of ten such draws.
    few = paired_difference(clear, np.zeros(80), np.repeat(np.arange(8), 10), n=100).p
    assert few == pytest.approx(1 / 256, rel=0.6)


def test_drawing_on_keeps_the_level():
    rng = np.random.default_rng(3)
    found = [paired_difference(rng.normal(size=30), np.zeros(30), n=60, seed=k).p for k in range(1500)]
    for level in (0.002, 0.01, 0.05, 0.2):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level / 1500) + 0.001)


def test_effective_sample_knows_the_extremes():
    blocks = np.repeat(np.arange(10), 8)
    copies = np.repeat(np.arange(10.0), 8)
    assert effective_sample(copies, blocks).n_effective == pytest.approx(10)
    assert effective_sample(np.random.default_rng(0).normal(size=80)).n_effective == 80
    independent = effective_sample(np.random.default_rng(1).normal(size=8000), np.repeat(np.arange(1000), 8))
    assert independent.design_effect == pytest.approx(1, abs=0.15)
    assert "80 samples in 10 blocks" in effective_sample(copies, blocks).note


def test_q_values_against_the_formula_and_leave_out_what_was_not_run():
    p = np.array([0.01, 0.02, np.nan, 0.03, 0.5])
    # sorted p * m / rank, then the running minimum from the right, m = 4
    np.testing.assert_allclose(q_values(p), [0.04, 0.04, np.nan, 0.04, 0.5])
    np.testing.assert_array_equal(benjamini_hochberg(p, 0.05), [True, True, False, True, False])
    assert not benjamini_hochberg(np.array([0.04, 0.2, 0.6]), 0.05).any()


def test_discoveries_are_false_no_more_often_than_promised():
    rng = np.random.default_rng(10)
    shares = []
    for _ in range(200):
        p = rng.uniform(size=50)
        p[:10] = rng.uniform(0, 0.002, 10)
        found = benjamini_hochberg(p, 0.1)
        shares.append(found[10:].sum() / max(1, found.sum()))
    assert np.mean(shares) < 0.1


def test_wilson_interval_against_published_values():
    # Newcombe (1998), table I, method 3
    np.testing.assert_allclose(wilson_interval(81, 263), [0.2553, 0.3662], atol=5e-5)
    np.testing.assert_allclose(wilson_interval(15, 148), [0.0624, 0.1605], atol=5e-5)
    np.testing.assert_allclose(wilson_interval([0, 20], [20, 20]), [[0, 0.1611], [0.8389, 1]], atol=5e-5)
    np.testing.assert_array_equal(wilson_interval(0, 0), [0, 1])


def test_no_alarm_in_sixty_leaves_up_to_five_percent():
    assert exact_upper_bound(0, 60) == pytest.approx(0.0487, abs=5e-5)
    assert exact_upper_bound(60, 60) == 1.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: block_bootstrap([]), "no rows"),
        (lambda: block_bootstrap([1.0, np.nan]), "NaN"),
        (lambda: block_bootstrap([1.0, 2.0], [1]), "one id for each of the 2 rows"),
        (lambda: block_bootstrap([1.0, 2.0], n=0), "at least 1"),
        (lambda: mean_estimate([1.0, 2.0], [1, 1]), "one block"),
        (lambda: block_permutation([1.0, 2.0], [1.0, 2.0, 3.0]), "do not pair up"),
        (lambda: block_permutation([1.0, 2.0], [1.0, 2.0], [4, 4]), "one block"),
        (lambda: q_values([0.2, 1.2]), "between 0 and 1"),
        (lambda: wilson_interval(3, 2), "more successes"),
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "level"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, words):
    with pytest.raises(StatisticsError, match=words):
        call()
