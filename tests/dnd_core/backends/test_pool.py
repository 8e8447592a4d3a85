"""Retrieval shows images that hold the concept, by captions or by sight, the same ones every time."""

from collections.abc import Sequence

import numpy as np
import pytest

from dnd_core.backends.measured import MeasuredCaptioner
from dnd_core.backends.pool import PoolImages
from dnd_core.backends.sentences import SentenceEncoder
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.images import ArrayImages, ProbeImage
from dnd_core.registry import build

COLOURS = {"red": (0.9, 0.05, 0.05), "green": (0.05, 0.6, 0.1), "blue": (0.05, 0.1, 0.9)}


def drawn() -> ArrayImages:
    """Thirty pictures: ten of each colour; the last five of each ten are half black."""
    pixels = np.zeros((30, 3, 16, 16), np.float32)
    for block, colour in enumerate(COLOURS.values()):
        part = pixels[block * 10 : block * 10 + 10]
        part[:] = np.array(colour, np.float32)[None, :, None, None]
        part[:] += np.linspace(0, 0.02, 10, dtype=np.float32)[:, None, None, None]
        part[5:, :, :, :8] = 0
    return ArrayImages(pixels)


class ColourSight:
    """A two-tower encoder on the axes red, green, blue and black."""

    axes = ("red", "green", "blue", "black")

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[float(axis in text) + 1e-3 for axis in self.axes] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, images: Sequence[ProbeImage]) -> np.ndarray:
        means = np.array([image.pixels.mean(axis=(1, 2)) for image in images])
        black = np.array([(image.pixels.max(axis=0) == 0).mean() for image in images])
        rows = np.column_stack([means, black]).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_by_captions_made_once_by_the_captioner(encoder: SentenceEncoder) -> None:
    pool = PoolImages(drawn(), encoder, captioner=MeasuredCaptioner())
    assert len(pool.captions) == 30
    for block, colour in enumerate(COLOURS):
        chosen = pool.choose(colour, 5)
        assert set(chosen) <= set(range(block * 10, block * 10 + 10))
        assert set(chosen) <= set(range(block * 10, block * 10 + 5)), "more cover comes first"
    both = pool.choose("blue and black", 5)
    assert set(both) == {25, 26, 27, 28, 29}
    assert set(pool.choose("blue without black", 5)) == {20, 21, 22, 23, 24}
    assert pool.choose("snowy mountains with skiers", 5) == []


def test_by_sight() -> None:
    pool = PoolImages(drawn(), ColourSight())
    assert set(pool.choose("red", 10)) == set(range(10))
    assert set(pool.choose("red and black", 5)) == {5, 6, 7, 8, 9}
    assert set(pool.choose("green or blue", 20)) == set(range(10, 30))
    with pytest.raises(ConfigError, match="captioner="):
        _ = pool.captions


def test_same_images_for_the_same_concept_whatever_was_asked_before(encoder: SentenceEncoder) -> None:
    captions = ["haze over all of the tile"] * 12 + ["water"] * 3
    images = ArrayImages(np.random.default_rng(0).random((15, 3, 4, 4)).astype(np.float32))
    one = PoolImages(images, encoder, captions)
    other = PoolImages(images, encoder, captions)
    other.prepare(["water", "haze", "thin haze", "fields"])
    for concept in ("haze", "thin haze", "water"):
        keys = [image.key for image in one.show(concept, 4)]
        assert keys == [image.key for image in other.show(concept, 4)]
        assert keys == [image.key for image in one.show(concept, 6)][: len(keys)]
    assert one.choose("haze", 4) != [0, 1, 2, 3], "ties are not broken by position"
    assert set(one.choose("haze", 20)) == set(range(12))


def test_floor_decides_what_is_shown_and_enters_the_fingerprint(encoder: SentenceEncoder) -> None:
    captions = ["haze over all of the tile", "some haze", "bare fields"]
    images = ArrayImages(np.random.default_rng(0).random((3, 3, 4, 4)).astype(np.float32))
    low, high = (PoolImages(images, encoder, captions, floor=floor) for floor in (0.2, 0.7))
    assert low.choose("haze", 3) == [0, 1]
    assert high.choose("haze", 3) == [0]
    assert low.fingerprint != high.fingerprint
    assert low.fingerprint != PoolImages(images, encoder, captions[::-1], floor=0.2).fingerprint
    assert low.fingerprint == PoolImages(images, SentenceEncoder(), captions).fingerprint


def test_built_by_its_short_name_and_refusals(encoder: SentenceEncoder) -> None:
    images = drawn()
    assert isinstance(build("pool", pool=images, encoder=encoder, captioner=MeasuredCaptioner()), PoolImages)
    with pytest.raises(ConfigError, match="needs captions= or captioner="):
        PoolImages(images, encoder)
    with pytest.raises(ConfigError, match="2 captions for 30 images"):
        PoolImages(images, encoder, ["a", "b"])
    with pytest.raises(ConfigError, match="floor"):
        PoolImages(images, encoder, ["a"] * 30, floor=2)
    empty = PoolImages(ArrayImages(np.zeros((0, 3, 4, 4), np.float32)), encoder, [])
    with pytest.raises(BackendUnavailable, match="empty"):
        empty.check()
    assert empty.show("red", 3) == []


def test_windows_show_a_concept_that_covers_no_whole_image(encoder: SentenceEncoder) -> None:
    pixels = np.zeros((6, 3, 16, 16), np.float32)
    pixels[:, 0] = 0.9
    # Blue fills a quarter of the last image only.
    pixels[5, :, 8:, 8:] = np.array(COLOURS["blue"], np.float32)[:, None, None]
    images = ArrayImages(pixels)
    whole = PoolImages(images, encoder, captioner=MeasuredCaptioner())
    assert whole.choose("blue", 1) == [5]
    parts = PoolImages(images, encoder, captioner=MeasuredCaptioner(), windows=True)
    best = parts.show("blue", 1)[0]
    assert best.metadata["window"] == (8, 8, 16, 16)
    np.testing.assert_allclose(best.pixels.mean(axis=(1, 2)), COLOURS["blue"], atol=1e-6)
    assert parts.fingerprint != whole.fingerprint
    with pytest.raises(ConfigError, match="captioner"):
        PoolImages(images, encoder, ["red"] * 6, windows=True)
    with pytest.raises(ConfigError, match="true or false, got 'maybe'"):
        PoolImages(images, encoder, captioner=MeasuredCaptioner(), windows="maybe")  # type: ignore[arg-type]
