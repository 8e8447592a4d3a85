"""The streaming top K equals a full sort, keeps negative values, and does not depend on the order of the stream."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnd_core.topk import StreamingTopK


def full_sort(values, k):
    indices = np.full((values.shape[1], k), -1)
    best = np.full((values.shape[1], k), -np.inf, dtype=np.float32)
    for unit in range(values.shape[1]):
        order = sorted(range(len(values)), key=lambda i: (-values[i, unit], i))[:k]
        indices[unit, : len(order)] = order
        best[unit, : len(order)] = values[order, unit]
    return indices, best


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 50),
    units=st.integers(1, 4),
    k=st.integers(1, 12),
    block=st.integers(1, 20),
    decimals=st.sampled_from([0, 1, 8]),
    shuffled=st.booleans(),
)
def test_equals_a_full_sort(seed, n, units, k, block, decimals, shuffled):
    generator = np.random.default_rng(seed)
    values = np.round(generator.normal(size=(n, units)), decimals).astype(np.float32)
    order = generator.permutation(n) if shuffled else np.arange(n)
    top = StreamingTopK(k, units)
    for first in range(0, n, block):
        rows = order[first : first + block]
        top.update(values[rows], rows)
    indices, best = top.result()
    expected, expected_best = full_sort(values, k)
    assert np.array_equal(indices, expected)
    assert np.array_equal(best, expected_best)
    assert best.dtype == np.float32


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30))
def test_every_float_keeps_its_value_and_order(numbers):
    values = np.array(numbers, dtype=np.float32)[:, None]
    top = StreamingTopK(len(numbers), 1)
    top.update(values, np.arange(len(numbers)))
    indices, best = top.result()
    expected, expected_best = full_sort(values, len(numbers))
    assert np.array_equal(best, expected_best)
    assert np.array_equal(indices, expected)


def test_units_that_are_always_negative_keep_their_best_images():
    top = StreamingTopK(2, 1)
    top.update(np.array([[-5.0], [-1e-30], [-3.0]], dtype=np.float32), [0, 1, 2])
    assert top.result()[0].tolist() == [[1, 2]]


def test_the_lower_index_wins_a_tie_also_against_an_earlier_update():
    top = StreamingTopK(1, 1)
    top.update(np.array([[0.0]], dtype=np.float32), [7])
    top.update(np.array([[-0.0]], dtype=np.float32), [3])
    assert top.result()[0].tolist() == [[3]]


def test_bad_input_is_refused():
    top = StreamingTopK(3, 2)
    for values, indices, words in (
        (np.zeros((2, 3), np.float32), [0, 1], "expected"),
        (np.full((1, 2), np.nan, np.float32), [0], "NaN"),
        (np.zeros((1, 2), np.float32), [-1], "indices"),
    ):
        with pytest.raises(ValueError, match=words):
            top.update(values, indices)
    with pytest.raises(ValueError, match="at least 1"):
        StreamingTopK(0, 2)
