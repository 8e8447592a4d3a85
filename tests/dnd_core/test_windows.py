"""Windows of images: real pixels, mirrored to full size, each in its image's block."""

import numpy as np
import pytest

from dnd_core.errors import ConfigError
from dnd_core.images import ArrayImages, ImageSet
from dnd_core.types import Box
from dnd_core.windows import Windows, fill


def numbered(n: int = 3, side: int = 8) -> ArrayImages:
    """Images whose every pixel is told from every other."""
    pixels = np.arange(n * 3 * side * side, dtype=np.float32).reshape(n, 3, side, side)
    rgb = (pixels.transpose(0, 2, 3, 1) % 251).astype(np.uint8)
    return ArrayImages(pixels, rgb=rgb, blocks=np.arange(n) + 7, labels=np.zeros(n, np.int64), class_names=("a",))


def test_a_part_is_mirrored_until_it_fills_the_frame() -> None:
    array = np.arange(16.0).reshape(4, 4)
    filled = fill(array, Box(2, 1, 4, 3))
    np.testing.assert_array_equal(filled, [[6, 7, 7, 6], [10, 11, 11, 10], [10, 11, 11, 10], [6, 7, 7, 6]])
    thin = fill(array[None], Box(0, 0, 1, 4))
    np.testing.assert_array_equal(thin, np.repeat(array[None, :, :1], 4, axis=2))


def test_a_set_is_followed_by_the_windows_of_every_image() -> None:
    images = numbered()
    windows = Windows(images, share=0.5, steps=3)
    assert isinstance(windows, ImageSet)
    assert (len(windows), windows.shape, windows.channels) == (30, images.shape, images.channels)
    assert windows.origin(2) == (2, None)
    assert windows.origin(3) == (0, Box(0, 0, 4, 4))
    assert windows.origin(29) == (2, Box(4, 4, 8, 8))
    assert windows.origin(3 + 9 + 1) == (1, Box(2, 0, 6, 4))
    assert windows[1].key == images[1].key
    part = windows[13]
    np.testing.assert_array_equal(part.pixels[:, :4, :4], images[1].pixels[:, 0:4, 2:6])
    np.testing.assert_array_equal(part.rgb[:4, 4:], images[1].rgb[0:4, 2:6][:, ::-1])
    assert part.metadata["window"] == (2, 0, 6, 4)
    rows = [0, 13, 29, 4]
    np.testing.assert_array_equal(windows.pixels(rows), np.stack([windows[row].pixels for row in rows]))
    assert windows.pixels([]).shape == (0, *images.shape)


def test_windows_share_their_images_block_and_have_no_label() -> None:
    windows = Windows(numbered(), steps=2)
    assert windows.blocks is not None
    for index in range(len(windows)):
        assert windows.blocks[index] == 7 + windows.origin(index)[0]
    assert windows.labels is None
    assert windows.class_names == ()


def test_what_windows_are_decides_the_fingerprint() -> None:
    images = numbered()
    prints = {Windows(images).fingerprint, Windows(images, 0.25).fingerprint, Windows(images, steps=2).fingerprint}
    assert len({*prints, images.fingerprint, Windows(numbered(2)).fingerprint}) == 5
    assert Windows(numbered()).fingerprint in prints


def test_data_are_known_in_a_window_where_they_are_in_the_image() -> None:
    from dnd_core.images import ProbeImage

    class Gappy(ArrayImages):
        def __getitem__(self, index: int) -> ProbeImage:
            whole = super().__getitem__(index)
            return ProbeImage(whole.pixels, whole.rgb, valid=np.arange(64).reshape(8, 8) < 8)

    windows = Windows(Gappy(np.zeros((1, 3, 8, 8), np.float32)), steps=2)
    first, last = windows[1].valid, windows[4].valid
    assert first is not None
    assert last is not None
    np.testing.assert_array_equal(np.flatnonzero(first.any(axis=1)), [0, 7])
    assert not last.any()


@pytest.mark.parametrize(("share", "steps"), [(0.0, 3), (1.0, 3), (0.5, 0), (0.01, 3)])
def test_windows_that_cannot_be_are_refused(share: float, steps: int) -> None:
    with pytest.raises(ConfigError, match="windows"):
        Windows(numbered(), share, steps)
