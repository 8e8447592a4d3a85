"""Attention crops equal the steps written slowly, and find what was drawn."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from dnd_core import crops
from dnd_core.types import Box
from tests.reference import crops as slow


def edges(box):
    return (box.left, box.top, box.right, box.bottom)


@pytest.mark.parametrize("cells", [(2, 2), (4, 4), (7, 5), (16, 16), (40, 24)])
def test_boxes_equal_the_slow_steps(cells):
    maps = np.random.default_rng(sum(cells)).normal(size=(12, *cells)).astype(np.float32)
    settings = ((40, 24), 4, 0.5, 0.8)
    fast = crops.attention_boxes_many(maps, *settings)
    for activation, found in zip(maps, fast, strict=True):
        assert [edges(box) for box in found] == slow.boxes(activation, *settings)
    assert any(fast)


@pytest.mark.parametrize("settings", [(1, 0.5, 0.8), (4, 0.0, 0.8), (9, 1.0, 1.0), (4, 0.5, 0.05)])
def test_each_option_does_what_it_says(settings):
    maps = np.random.default_rng(5).normal(size=(8, 6, 6))
    for activation in maps:
        found = crops.attention_boxes(activation, (32, 32), *settings)
        assert [edges(box) for box in found] == slow.boxes(activation, (32, 32), *settings)


def test_upsampling_equals_the_slow_bilinear():
    activation = np.random.default_rng(0).normal(size=(3, 5))
    assert crops.upsample(activation[None], (12, 11))[0] == pytest.approx(slow.bilinear(activation, (12, 11)))


@pytest.mark.parametrize("kind", ["normal", "two levels", "integers", "skewed"])
def test_otsu_equals_scikit_image(kind):
    generator = np.random.default_rng(3)
    made = {
        "normal": generator.normal(size=(20, 32, 32)),
        "two levels": (generator.random((20, 32, 32)) > 0.8).astype(float),
        "integers": generator.integers(0, 9, size=(20, 32, 32)).astype(float),
        "skewed": generator.exponential(size=(20, 32, 32)) ** 3,
    }[kind]
    low, high = made.min(axis=(1, 2), keepdims=True), made.max(axis=(1, 2), keepdims=True)
    scaled = (made - low) / (high - low) * 255
    assert crops.otsu(scaled) == pytest.approx([threshold_otsu(image) for image in scaled])


def test_bright_patches_become_boxes_largest_first():
    activation = np.zeros((32, 32))
    activation[2:6, 3:9] = 1
    activation[20:30, 18:28] = 1
    found = crops.attention_boxes(activation, (32, 32))
    assert found == [Box(18, 20, 28, 30), Box(3, 2, 9, 6)]


def test_patches_that_touch_at_a_corner_are_one():
    activation = np.zeros((8, 8))
    activation[1:3, 1:3] = activation[3:5, 3:5] = 1
    assert crops.attention_boxes(activation, (8, 8)) == [Box(1, 1, 5, 5)]


@pytest.mark.parametrize("value", [0.0, -3.5, 0.1])
def test_a_constant_map_has_no_crops(value):
    assert crops.attention_boxes(np.full((7, 7), value, dtype=np.float32), (64, 48)) == []


def test_negative_and_faint_maps_keep_their_shape():
    activation = np.zeros((16, 16))
    activation[4:9, 4:9] = 1
    expected = crops.attention_boxes(activation, (16, 16))
    assert crops.attention_boxes(activation - 1000, (16, 16)) == expected
    assert crops.attention_boxes(activation * 1e-20, (16, 16)) == expected


def test_many_maps_equal_one_at_a_time():
    maps = np.random.default_rng(1).normal(size=(300, 8, 8))
    together = crops.attention_boxes_many(maps, (64, 64))
    assert together == [crops.attention_boxes(activation, (64, 64)) for activation in maps]
    assert crops.attention_boxes_many(maps[:0], (64, 64)) == []
