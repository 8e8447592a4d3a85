"""The nulls keep their promise, held-out images share no block with the others, labels are as stable as they are said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnd_core.config import VerificationConfig
from dnd_core.verification import (
    adds_meaning,
    health,
    permutation_null,
    shuffled_threshold,
    split,
    stability,
    verify,
)

CONFIG = VerificationConfig(permutations=100)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=40),
    holdout=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_the_split_shares_no_block_and_loses_no_image(sizes, holdout, seed):
    blocks = np.repeat(np.arange(len(sizes)) * 7, sizes)
    blocks = blocks[np.random.default_rng(seed).permutation(len(blocks))]
    explain, held = split(len(blocks), blocks, holdout, seed)
    assert sorted([*explain.tolist(), *held.tolist()]) == list(range(len(blocks)))
    assert not set(blocks[explain]) & set(blocks[held])
    assert 0 < len(held) < len(blocks)
    # As near as half the largest block, unless one side would be left empty.
    assert abs(len(held) - holdout * len(blocks)) <= max(sizes) / 2 or len(set(blocks[held])) in (1, len(sizes) - 1)
    again = split(len(blocks), blocks, holdout, seed)
    np.testing.assert_array_equal(held, again[1])


def test_the_split_comes_as_near_to_the_share_as_whole_blocks_allow():
    """Blocks of 10 in a drawn order: two of seven are nearer to a quarter than the three that would reach it first."""
    blocks = np.repeat(np.arange(7), 10)
    assert len(split(70, blocks, 0.3, 0)[1]) == 20
    assert len(split(70, blocks, 0.37, 0)[1]) == 30
    assert [len(part) for part in split(20, np.repeat([0, 1], 10), 0.01, 0)] == [10, 10]
    assert [len(part) for part in split(20, np.repeat([0, 1], 10), 0.99, 0)] == [10, 10]


def test_the_split_without_blocks_is_exact_and_seeded():
    explain, held = split(100, None, 0.4, 0)
    assert (len(explain), len(held)) == (60, 40)
    assert not np.array_equal(held, split(100, None, 0.4, 1)[1])


def test_dead_and_diffuse_units_are_told_from_sparse_ones():
    rng = np.random.default_rng(0)
    rare = np.zeros(200)
    rare[0] = 1.0
    units = [np.zeros(200), np.full(200, 3.7), 5 + 1e-3 * rng.normal(size=200), rare, rng.normal(size=200)]
    state = health(np.stack(units, axis=1).astype(np.float32))
    assert state.dead.tolist() == [True, True, False, False, False]
    assert state.diffuse.tolist() == [False, False, True, False, False]


def block_noise(rng, blocks, units):
    """Values that are alike within a block, as neighbouring tiles are."""
    shared = rng.normal(size=(blocks.max() + 1, units))
    return shared[blocks] + 0.5 * rng.normal(size=(len(blocks), units))


def test_chance_gives_uniform_p_values():
    from scipy.stats import kstest

    rng = np.random.default_rng(1)
    r, p = permutation_null(rng.normal(size=(150, 800)), rng.random(size=(150, 800)) ** 3, None, 100, 0)
    assert kstest(p, "uniform").pvalue > 0.001
    assert abs(np.mean(p <= 0.05) - 0.05) < 0.025
    assert abs(r.mean()) < 0.01


@pytest.mark.parametrize("sizes", [10, None])
def test_chance_in_blocks_gives_uniform_p_values_only_when_blocks_are_kept_together(sizes):
    rng = np.random.default_rng(2)
    blocks = np.repeat(np.arange(40), sizes if sizes is not None else rng.integers(3, 20, size=40))
    a, c = block_noise(rng, blocks, 800), block_noise(rng, blocks, 800)
    shuffled = rng.permutation(len(blocks))
    _, p = permutation_null(a[shuffled], c[shuffled], blocks[shuffled], 100, 0)
    _, naive = permutation_null(a, c, None, 100, 0)
    assert abs(np.mean(p <= 0.05) - 0.05) < 0.025
    assert abs(np.mean(p <= 0.5) - 0.5) < 0.06
    assert np.mean(naive <= 0.05) > 0.15


def test_a_concept_that_moves_the_unit_has_a_small_p_value_and_its_true_r():
    rng = np.random.default_rng(3)
    c = rng.random((200, 1))
    a = 2 * c + 0.1 * rng.normal(size=(200, 1))
    r, p = permutation_null(a, c, None, 100, 0)
    assert r[0] == pytest.approx(np.corrcoef(a[:, 0], c[:, 0])[0, 1])
    assert p[0] < 1e-10
    # The test is one-sided: a concept that silences the unit does not describe it.
    assert permutation_null(-a, c, None, 100, 0)[1][0] > 0.999


def test_what_never_varies_proves_nothing():
    rng = np.random.default_rng(4)
    a, c = rng.normal(size=(50, 2)), np.column_stack([np.ones(50), rng.random(50)])
    r, p = permutation_null(a, c, None, 50, 0)
    assert r[0] == 0
    assert p[0] == 1
    assert permutation_null(a[:2], c[:2], None, 50, 0)[1].tolist() == [1, 1]


def slow_threshold(a, concepts, own, alpha):
    null = []
    for unit in range(a.shape[1]):
        for label in range(concepts.shape[1]):
            if np.corrcoef(concepts[:, own[unit]], concepts[:, label])[0, 1] <= 0.3:
                null.append(np.corrcoef(a[:, unit], concepts[:, label])[0, 1])
    return max(0.0, float(np.quantile(null, 1 - alpha))) if len(null) >= 20 else 0.0


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_threshold_is_what_other_labels_reach(alpha):
    rng = np.random.default_rng(5)
    concepts = rng.random((80, 6))
    concepts[:, 5] = concepts[:, 0] + 0.05 * rng.random(80)
    own = np.array([0, 1, 2, 3, 4, 5, 0, 1])
    a = concepts[:, own] + rng.normal(size=(80, 8))
    assert shuffled_threshold(a, concepts, own, alpha) == pytest.approx(slow_threshold(a, concepts, own, alpha))


def test_the_threshold_is_nought_where_all_labels_mean_the_same():
    c = np.random.default_rng(6).random((60, 1)) @ np.ones((1, 5))
    assert shuffled_threshold(c, c, np.arange(5), 0.05) == 0.0


def test_stability_counts_the_resamples_that_choose_the_same_meaning():
    rng = np.random.default_rng(7)
    good, other = rng.random(100), rng.random(100)
    twin = good + 0.01 * rng.random(100)
    a = good + 0.05 * rng.normal(size=100)
    draws = rng.integers(0, 100, size=(40, 100))
    assert stability(a, np.column_stack([good, other]), 0, draws) == 1.0
    # Another word for the same thing is no instability; a coin toss between two things is.
    assert stability(a, np.column_stack([good, twin, other]), 0, draws) == 1.0
    assert stability(a, np.column_stack([other, good]), 0, draws) == 0.0
    one, two = np.concatenate([good, other]), np.concatenate([other, good])
    torn, draws = np.maximum(one, two), rng.integers(0, 200, size=(40, 200))
    assert 0.2 < stability(torn, np.column_stack([one, two]), 0, draws) < 0.8


def test_verify_joins_them():
    from scipy.stats import false_discovery_control

    rng = np.random.default_rng(8)
    concepts = rng.random((150, 10))
    own = np.arange(10)
    a = rng.normal(size=(150, 10))
    a[:, :3] += 5 * concepts[:, :3]
    found = verify(a, concepts, own, None, CONFIG, 0)
    np.testing.assert_allclose(found.q, false_discovery_control(found.p))
    assert (found.q[:3] <= 0.05).all()
    assert (found.r[:3] > found.threshold).all()
    assert (found.q[3:] > 0.01).all()
    again = verify(a, concepts, own, None, CONFIG, 0)
    np.testing.assert_array_equal(found.p, again.p)
    assert not np.array_equal(found.p, verify(a, concepts, own, None, CONFIG, 1).p)


def test_false_labels_stay_below_alpha_when_nothing_is_true():
    """Sixty runs in which no unit computes its label: the share of runs with any published label is at most alpha."""
    published = 0
    for run in range(60):
        rng = np.random.default_rng([9, run])
        found = verify(rng.normal(size=(60, 20)), rng.random((60, 20)), np.arange(20), None, CONFIG, run)
        published += bool(((found.q <= 0.05) & (found.r >= found.threshold)).any())
    assert published <= 8


def test_a_second_meaning_is_told_from_a_part_of_the_first():
    rng = np.random.default_rng(10)
    first, second = (rng.random(300) < 0.3).astype(float), (rng.random(300) < 0.3).astype(float)
    part = first * (rng.random(300) < 0.8)
    a = np.maximum(first, second) + 0.1 * rng.normal(size=300)
    r, p, weight = adds_meaning(a, first, second, None, CONFIG, 0)
    assert r > 0.3
    assert p < 1e-3
    assert weight > 0.5
    alone = first + 0.1 * rng.normal(size=300)
    assert adds_meaning(alone, first, part, None, CONFIG, 0)[2] < 0.5
    assert adds_meaning(alone, first, second, None, CONFIG, 0)[1] > 0.01
