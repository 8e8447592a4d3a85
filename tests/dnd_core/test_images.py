"""Images carry their context; crops, subsets and sets in memory agree about pixels, names and fingerprints."""

import numpy as np
import pytest

from dnd_core.errors import ProbeError
from dnd_core.images import ArrayImages, ImageSet, ProbeImage, Subset, content_key, resize_pixels
from dnd_core.types import Box, Candidate, ScoredLabel, Status, UnitDescription, UnitId


@pytest.fixture
def images() -> ArrayImages:
    rng = np.random.default_rng(0)
    return ArrayImages(
        rng.random((6, 3, 8, 10)).astype(np.float32),
        labels=np.array([0, 1, 0, 1, 0, 1]),
        class_names=("water", "forest"),
        blocks=np.array([0, 0, 1, 1, 2, 2]),
        metadata=[{"source": f"tile {index}"} for index in range(6)],
    )


def test_pixels_are_the_same_through_every_door(images):
    assert isinstance(images, ImageSet)
    stack = images.pixels([4, 1])
    assert (stack.shape, stack.dtype) == ((2, 3, 8, 10), np.float32)
    np.testing.assert_array_equal(stack[0], images[4].pixels)
    part = Subset(images, [5, 1, 4])
    assert isinstance(part, ImageSet)
    assert (len(part), part.shape, part.channels) == (3, images.shape, images.channels)
    assert part.class_names == ("water", "forest")
    np.testing.assert_array_equal(part.pixels([2, 1]), stack)
    assert part[0].metadata == {"source": "tile 5"}
    assert part.labels.tolist() == [1, 1, 0]
    assert part.blocks.tolist() == [2, 0, 2]


def test_an_image_is_rendered_once_from_its_pixels(images):
    image = images[0]
    assert (image.rgb.shape, image.rgb.dtype) == ((8, 10, 3), np.uint8)
    np.testing.assert_allclose(image.rgb.transpose(2, 0, 1) / 255, image.pixels, atol=0.5 / 255 + 1e-6)
    assert image.key == content_key(image.pixels)


def test_keys_follow_content_and_shape():
    pixels = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    assert content_key(pixels) == content_key(pixels.copy())
    assert content_key(pixels) != content_key(pixels.reshape(1, 6, 4))
    other = pixels.copy()
    other[0, 0, 0] += 1e-6
    assert content_key(other) != content_key(pixels)
    assert content_key(np.asfortranarray(pixels)) == content_key(pixels)


def test_a_crop_is_resized_back_and_says_where_it_was_cut(images):
    pixels = np.zeros((3, 8, 8), dtype=np.float32)
    pixels[:, 2:4, 4:8] = 0.5
    valid = np.ones((8, 8), dtype=bool)
    valid[2:4, 6:] = False
    image = ProbeImage(pixels, np.zeros((8, 8, 3), dtype=np.uint8), valid=valid, metadata={"source": "here"})
    crop = image.crop(Box(4, 2, 8, 4))
    assert crop.pixels.shape == (3, 8, 8)
    np.testing.assert_allclose(crop.pixels, 0.5)
    assert crop.valid[:, :4].all()
    assert not crop.valid[:, 4:].any()
    assert crop.metadata == {"source": "here", "crop": (4, 2, 8, 4)}
    assert crop.key != image.key


def test_resizing_to_the_same_size_is_nothing_and_shrinking_averages():
    board = (np.indices((16, 16)).sum(axis=0) % 2).astype(np.float32)[None]
    assert resize_pixels(board, (16, 16)) is board
    small = resize_pixels(board, (4, 4))
    assert small.shape == (1, 4, 4)
    np.testing.assert_allclose(small, 0.5, atol=0.1)


def test_the_fingerprint_follows_everything_that_decides_the_images(images):
    pixels = images.pixels(range(6))
    plain = ArrayImages(pixels)
    others = [
        images,
        ArrayImages(pixels, channels=("b", "g", "r")),
        ArrayImages(pixels, labels=images.labels),
        ArrayImages(pixels, blocks=images.blocks),
        ArrayImages(pixels[:5]),
        ArrayImages(pixels, rgb=np.zeros((6, 8, 10, 3), dtype=np.uint8)),
        Subset(plain, range(6)),
        Subset(plain, [1, 0, 2, 3, 4, 5]),
    ]
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    assert ArrayImages(pixels.copy()).fingerprint == plain.fingerprint


PIXELS = np.zeros((2, 3, 4, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbeImage(PIXELS[0], np.zeros((4, 4, 3), dtype=np.uint8), channels=("a", "b")), "2 channels named"),
        (lambda: ProbeImage(PIXELS[0], np.zeros((4, 5, 3), dtype=np.uint8)), "rgb must be"),
        (lambda: ProbeImage(PIXELS[0], np.zeros((4, 4, 3))), "uint8"),
        (lambda: ArrayImages(PIXELS[0]), "pixels"),
        (lambda: ArrayImages(PIXELS, channels=("a", "b")), "pixels must be"),
        (lambda: ArrayImages(PIXELS[:, :2], channels=("a", "b")), "rgb"),
        (lambda: ArrayImages(PIXELS, labels=np.zeros(3, dtype=np.int64)), "labels has 3 entries for 2 images"),
        (lambda: ArrayImages(PIXELS, blocks=np.zeros(1, dtype=np.int64)), "blocks has 1 entries for 2 images"),
        (lambda: ArrayImages(PIXELS, metadata=[{}]), "metadata has 1 entries for 2 images"),
    ],
)
def test_shapes_that_disagree_are_refused(make, message):
    with pytest.raises(ProbeError, match=message):
        make()


def test_units_are_written_layer_slash_index():
    assert UnitId.parse("blocks/x.mlp/12") == UnitId("blocks/x.mlp", 12)
    assert str(UnitId("layer4", 7)) == "layer4/7"
    assert sorted([UnitId("b", 1), UnitId("a", 10), UnitId("a", 9)])[0] == UnitId("a", 9)
    for text in ("layer4", "layer4/", "/3", "layer4/-1", "layer4/x"):
        with pytest.raises(ValueError, match="layer/index"):
            UnitId.parse(text)
    with pytest.raises(ValueError, match="index >= 0"):
        UnitId("a", -1)


def test_boxes_overlap_as_areas_do():
    box = Box(0, 0, 4, 4)
    assert box.area == 16
    assert box.iou(box) == 1.0
    assert box.iou(Box(2, 0, 6, 4)) == pytest.approx(8 / 24)
    assert box.iou(Box(4, 0, 8, 4)) == 0.0
    assert Box(2, 0, 6, 4).iou(box) == box.iou(Box(2, 0, 6, 4))
    for corners in ((0, 0, 0, 4), (2, 0, 1, 4), (-1, 0, 2, 2)):
        with pytest.raises(ValueError, match="not a rectangle"):
            Box(*corners)


def test_a_description_says_its_best_label_or_nothing():
    scored = ScoredLabel(Candidate("red"), {"mean": 1.0})
    said = UnitDescription(UnitId("a", 0), Status.LABELLED, ("red", "blue"), (scored,), None, "")
    assert (said.label, scored.label, str(said.status)) == ("red", "red", "labelled")
    assert UnitDescription(UnitId("a", 0), Status.DEAD, (), (), None, "").label == ""
