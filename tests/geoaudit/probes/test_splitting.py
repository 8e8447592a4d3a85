"""Splits by block: nothing shared, every image used, classes on every side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnd_core.errors import ProbeError
from dnd_core.images import ArrayImages
from geoaudit.probes import split


def images(blocks: list[int] | None, labels: list[int] | None = None, count: int = 0) -> ArrayImages:
    number = count or len(blocks or ())
    return ArrayImages(
        np.zeros((number, 3, 2, 2), np.float32),
        blocks=None if blocks is None else np.array(blocks, np.int64),
        labels=None if labels is None else np.array(labels, np.int64),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=12, max_size=60),
    st.integers(0, 5),
)
def test_no_block_is_shared_and_no_image_lost(rows: list[tuple[int, int]], seed: int) -> None:
    blocks, labels = [row[0] for row in rows], [row[1] for row in rows]
    if len(set(blocks)) < 3:
        return
    parts = split(images(blocks, labels), seed=seed, draws=20)
    together = np.concatenate([parts.explain, parts.pool, parts.holdout])
    assert sorted(together.tolist()) == list(range(len(rows)))
    owners = [{blocks[i] for i in part} for part in (parts.explain, parts.pool, parts.holdout)]
    assert all(owners)
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]


def test_classes_are_spread_as_evenly_as_blocks_allow() -> None:
    """Forty blocks of one class each: every part must hold every class in its share."""
    blocks = np.repeat(np.arange(40), 5).tolist()
    labels = [block % 4 for block in blocks]
    parts = split(images(blocks, labels), {"explain": 0.5, "pool": 0.25, "holdout": 0.25}, seed=1)
    for part, share in ((parts.explain, 0.5), (parts.pool, 0.25), (parts.holdout, 0.25)):
        counts = np.bincount(np.array(labels)[part], minlength=4) / 50
        assert np.abs(counts - share).max() <= 0.2


def test_the_seed_decides() -> None:
    data = images(list(range(30)))
    assert np.array_equal(split(data, seed=3).pool, split(data, seed=3).pool)
    assert not np.array_equal(split(data, seed=3).pool, split(data, seed=4).pool)


def test_images_without_blocks_and_parts_without_share() -> None:
    parts = split(images(None, count=20), {"explain": 3, "pool": 0, "holdout": 1})
    assert (len(parts.explain), len(parts.pool), len(parts.holdout)) == (15, 0, 5)


def test_bad_shares_and_too_few_blocks() -> None:
    with pytest.raises(ProbeError, match="share of at least 0"):
        split(images([0, 1, 2]), {"explain": 1.0})
    with pytest.raises(ProbeError, match="share of at least 0"):
        split(images([0, 1, 2]), {"explain": 1.0, "pool": -1, "holdout": 0.5})
    with pytest.raises(ProbeError, match="2 spatial blocks, too few"):
        split(images([0, 1, 1]))
