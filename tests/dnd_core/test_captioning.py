"""One caption a distinct view, journaled; pixels that are equal are captioned once."""

import numpy as np
import pytest

from dnd_core.captioning import WHOLE, caption_views, view_image
from dnd_core.errors import BackendError
from dnd_core.images import ArrayImages


class Shades:
    """Says how bright an image is, and counts the images it was shown."""

    def __init__(self):
        self.batches = []

    def caption(self, images):
        self.batches.append(len(images))
        return [f" {image.pixels.mean():.2f} " if image.pixels.mean() > 0.05 else "" for image in images]


@pytest.fixture
def shades() -> ArrayImages:
    """Images of brightness 0, 0.1 ... 0.5, the last one twice; the left half of each is black."""
    levels = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5], dtype=np.float32)
    pixels = np.zeros((7, 3, 8, 8), dtype=np.float32)
    pixels[..., 4:] = levels[:, None, None, None]
    return ArrayImages(pixels)


def whole(*indices):
    return [(index, *WHOLE) for index in indices]


def test_every_distinct_view_has_one_caption_in_order(shades, tmp_path):
    captioner = Shades()
    views = [*whole(4, 1, 4, 5, 6), (1, 4, 0, 8, 8)]
    told = []
    table = caption_views(
        captioner, shades, views, tmp_path / "j", batch_size=2, progress=lambda *step: told.append(step)
    )
    assert table["image"].tolist() == [1, 1, 4, 5, 6]
    assert table["caption"].tolist() == ["0.05", "0.10", "0.20", "0.25", "0.25"]
    assert told[-1] == ("captions", 5, 5)
    # Images 5 and 6 have the same pixels.
    assert sum(captioner.batches) == 4
    assert max(captioner.batches) <= 2


def test_a_refusal_is_an_empty_caption(shades, tmp_path):
    assert caption_views(Shades(), shades, whole(0), tmp_path / "j")["caption"].tolist() == [""]


def test_captions_paid_for_before_a_kill_are_not_asked_for_again(shades, tmp_path):
    first, second = Shades(), Shades()
    caption_views(first, shades, whole(1, 2), tmp_path / "j")
    table = caption_views(second, shades, whole(1, 2, 3), tmp_path / "j")
    assert (sum(first.batches), sum(second.batches)) == (2, 1)
    assert len(table) == 3


def test_a_wrong_number_of_captions_is_an_error(shades, tmp_path):
    class Mute:
        def caption(self, images):
            return []

    with pytest.raises(BackendError, match="Mute gave 0 captions for 2 images"):
        caption_views(Mute(), shades, whole(1, 2), tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_a_view_is_the_image_or_its_crop(shades):
    assert view_image(shades, whole(3)[0]).key == shades[3].key
    crop = view_image(shades, (3, 4, 0, 8, 8))
    assert crop.pixels.shape == (3, 8, 8)
    assert crop.pixels.min() == pytest.approx(0.3)
    assert crop.metadata["crop"] == (4, 0, 8, 8)
