"""A folder of photographs: what can be used is used, everything else is counted with its reason."""

import os

import numpy as np
import pytest
from PIL import Image

from dnd_core.errors import ProbeError
from dnd_core.folders import FolderImages
from dnd_core.images import ImageSet


def photograph(seed=0, size=(20, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mixed folder ü"
    (root / "deep er").mkdir(parents=True)
    for number, name in enumerate(["a b.png", "größe.PNG", "zeichen 漢字.png", "deep er/b.bmp"]):
        photograph(number).save(root / name)
    (root / "broken.png").write_bytes((root / "a b.png").read_bytes()[:200])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.png").write_text("no picture")
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden").write_text("passed over")
    photograph(size=(1, 1)).save(root / "dot.png")
    photograph(size=(1, 90)).save(root / "line.png")
    Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)).save(root / "deep.png")
    return root


def test_bad_files_are_left_out_with_their_reasons(folder):
    images = FolderImages(folder, (16, 16))
    reasons = dict(images.skipped)
    assert len(images) == 4
    assert set(reasons) == {
        "broken.png", "empty.jpg", "text.png", "notes.txt", "dot.png", "line.png", "deep.png"
    }  # fmt: skip
    assert reasons["empty.jpg"] == "it is empty"
    assert reasons["dot.png"] == "it is 1 x 1 pixels"
    assert reasons["line.png"] == "it is 90 x 1 pixels"
    assert reasons["notes.txt"] == "it is no image file (.txt)"
    assert "more than 8 bits" in reasons["deep.png"]
    assert all(reasons[name].startswith("it cannot be read (") for name in ("broken.png", "text.png"))


def test_images_come_in_the_order_of_their_paths_at_one_size(folder):
    images = FolderImages(folder, (16, 12))
    assert isinstance(images, ImageSet)
    sources = [images[index].metadata["source"] for index in range(len(images))]
    assert sources == ["a b.png", "deep er/b.bmp", "größe.PNG", "zeichen 漢字.png"]
    stack = images.pixels([2, 0])
    assert (stack.shape, stack.dtype) == ((2, 3, 16, 12), np.float32)
    np.testing.assert_array_equal(stack[0], images[2].pixels)
    assert 0 <= stack.min() < stack.max() <= 1
    assert images[0].rgb.shape == (16, 12, 3)


def test_an_image_is_scaled_and_cut_around_its_centre(tmp_path):
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = (255, 0, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    centre = FolderImages(tmp_path, (10, 10))[0].pixels
    assert centre[0, :, 2:8].min() > 0.9
    assert centre[1:].max() < 0.1


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    picture = photograph()
    for name, mode in {"grey": "L", "palette": "P", "alpha": "RGBA", "one": "1", "print": "CMYK"}.items():
        picture.convert(mode).save(tmp_path / f"{name}.{'tif' if mode == 'CMYK' else 'png'}")
    images = FolderImages(tmp_path, (8, 8))
    assert len(images) == 5
    assert images.skipped == ()


def test_the_fingerprint_follows_names_bytes_and_size(tmp_path):
    photograph().save(tmp_path / "a.png")
    first = FolderImages(tmp_path, (8, 8)).fingerprint
    (tmp_path / "notes.txt").write_text("changes nothing")
    assert FolderImages(tmp_path, (8, 8)).fingerprint == first
    assert FolderImages(tmp_path, (8, 9)).fingerprint != first
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    renamed = FolderImages(tmp_path, (8, 8)).fingerprint
    photograph(1).save(tmp_path / "b.png")
    assert len({first, renamed, FolderImages(tmp_path, (8, 8)).fingerprint}) == 3


def test_a_name_that_is_no_text_is_no_obstacle(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        photograph().save(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    images = FolderImages(tmp_path, (8, 8))
    assert images[0].metadata["source"] == r"caf\xe9.png"
    images[0].metadata["source"].encode()


@pytest.mark.parametrize("content", [None, {}, {"a.png": b"", "b.txt": b"b"}])
def test_a_folder_without_images_is_an_error(tmp_path, content):
    root = tmp_path / "photographs"
    if content is not None:
        root.mkdir()
        for name, data in content.items():
            (root / name).write_bytes(data)
    expected = "does not exist: give --images" if content is None else "holds no readable image"
    with pytest.raises(ProbeError, match=expected) as told:
        FolderImages(root, (8, 8))
    if content:
        assert "the first of 2 was left out because it is empty" in str(told.value)


def test_a_file_that_disappears_during_a_run_is_named(tmp_path):
    photograph().save(tmp_path / "a.png")
    images = FolderImages(tmp_path, (8, 8))
    (tmp_path / "a.png").unlink()
    with pytest.raises(ProbeError, match=r"a\.png could be read when"):
        images.pixels([0])


def test_a_bomb_is_left_out(tmp_path, monkeypatch):
    photograph().save(tmp_path / "a.png")
    photograph(size=(40, 40)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    images = FolderImages(tmp_path, (8, 8))
    assert dict(images.skipped) == {"bomb.png": "it cannot be read (DecompressionBombWarning)"}
