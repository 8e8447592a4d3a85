"""Folders of GeoTIFF chips: what is read, and what is left out with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dnd_core.errors import ProbeError
from geoaudit.probes import FolderProbe, skip_summary
from geoaudit.probes.base import files_fingerprint

from .drawing import ramp, write_raster

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "chips à lire"
    for number, name in enumerate(("field", "water")):
        for index in range(3):
            write_raster(
                root / name / f"{name} {index}.tif",
                ramp(4, 8, 8, start=1000 + 1000 * number + index),
                bands=BANDS,
                crs="EPSG:32633" if index else "EPSG:32632",
                origin=(400000.0 + 20000 * index, 5800000.0),
            )
    return root


def test_chips_keep_class_place_and_units(root: Path) -> None:
    probe = FolderProbe(root, scale=1e-4)
    assert probe.class_names == ("field", "water")
    assert probe.labels is not None
    assert probe.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert probe.shape == (4, 8, 8)
    np.testing.assert_allclose(probe.pixels([3])[0, :, 0, 0], [0.2, 0.21, 0.22, 0.23], atol=1e-6)
    assert [probe[i].metadata["crs"] for i in (0, 1)] == ["EPSG:32632", "EPSG:32633"]
    assert probe[1].metadata["bounds"] == (420000.0, 5800000.0 - 80, 420080.0, 5800000.0)
    # Chips of one place and class folder apart still share their block; 20 km apart they do not.
    assert probe.blocks is not None
    assert probe.blocks[1] == probe.blocks[4]
    assert len(set(probe.blocks[:3].tolist())) == 3
    assert probe.skipped == ()


def test_the_fingerprint_follows_content_and_arguments(root: Path) -> None:
    before = FolderProbe(root, scale=1e-4).fingerprint
    assert FolderProbe(root, scale=1e-4).fingerprint == before
    assert FolderProbe(root, scale=2e-4).fingerprint != before
    write_raster(root / "water" / "water 2.tif", ramp(4, 8, 8, start=5000), bands=BANDS)
    assert FolderProbe(root, scale=1e-4).fingerprint != before


def test_large_sets_are_known_by_the_ends_of_their_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FolderProbe(root, scale=1e-4).fingerprint
    monkeypatch.setattr("geoaudit.probes.base._WHOLE_BYTES", 0)
    ends = FolderProbe(root, scale=1e-4).fingerprint
    assert ends != whole
    write_raster(root / "water" / "water 2.tif", ramp(4, 8, 8, start=5000), bands=BANDS)
    assert FolderProbe(root, scale=1e-4).fingerprint != ends


@pytest.mark.parametrize(("place", "seen"), [(0, True), (299_999, True), (150_000, False)])
def test_the_ends_of_large_files_are_their_first_and_last_64_kib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, seen: bool
) -> None:
    path = tmp_path / "large.bin"
    content = bytearray(300_000)
    path.write_bytes(content)
    monkeypatch.setattr("geoaudit.probes.base._WHOLE_BYTES", 1000)
    before = files_fingerprint([path], tmp_path)
    content[place] = 1
    path.write_bytes(content)
    assert (files_fingerprint([path], tmp_path) != before) == seen


def test_what_cannot_be_used_is_left_out_and_counted(root: Path) -> None:
    folder = root / "field"
    (folder / "empty.tif").touch()
    (folder / "text.tif").write_text("not a raster")
    good = (folder / "field 1.tif").read_bytes()
    large = write_raster(folder / "cut.tif", np.random.default_rng(0).integers(1, 9, (4, 64, 64)).astype(np.uint16))
    large.write_bytes(large.read_bytes()[: len(good)])
    write_raster(folder / "nodata.tif", ramp(4, 8, 8) * 0, bands=BANDS, nodata=0)
    write_raster(folder / "nowhere.tif", ramp(4, 8, 8), bands=BANDS, crs=None)
    write_raster(folder / "bands.tif", ramp(3, 8, 8), bands=BANDS[:3])
    write_raster(folder / "large.tif", ramp(4, 9, 9), bands=BANDS)
    (folder / "notes.txt").write_text("not looked at")
    probe = FolderProbe(root, scale=1e-4)
    assert len(probe) == 6
    reasons = {Path(skip.source).name: skip.reason for skip in probe.skipped}
    assert set(reasons) == {
        "empty.tif",
        "text.tif",
        "cut.tif",
        "nodata.tif",
        "nowhere.tif",
        "bands.tif",
        "large.tif",
    }
    for name, words in {
        "empty.tif": "empty",
        "text.tif": "not a raster",
        "nodata.tif": "no data",
        "nowhere.tif": "coordinate reference system",
        "bands.tif": "has bands B02, B03, B04 where",
        "large.tif": "is not 8 x 8",
    }.items():
        assert words in reasons[name]
    assert not any(str(root) in reason for reason in reasons.values())
    assert skip_summary(probe.skipped).startswith("7 images left out: 1 ")
    assert Counter(skip.source.endswith("cut.tif") for skip in probe.skipped)[True] == 1


def test_a_truncated_file_is_found_only_when_verified(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_raster(tmp_path / "field" / f"{name}.tif", ramp(4, 64, 64))
    path = tmp_path / "field" / "a.tif"
    path.write_bytes(path.read_bytes()[:20000])
    verified = FolderProbe(tmp_path, scale=1e-4, bands=BANDS)
    assert [Path(skip.source).name for skip in verified.skipped] == ["a.tif"]
    unverified = FolderProbe(tmp_path, scale=1e-4, bands=BANDS, verify=False)
    assert len(unverified) == 2
    with pytest.raises(ProbeError, match=r"a\.tif cannot be read, it may be truncated"):
        unverified.pixels([0])


def test_chips_of_other_sizes_can_be_resized(root: Path) -> None:
    write_raster(root / "field" / "large.tif", ramp(4, 12, 10), bands=BANDS)
    probe = FolderProbe(root, scale=1e-4, size=(16, 16))
    assert len(probe) == 7
    assert probe.pixels(range(7)).shape == (7, 4, 16, 16)
    assert probe.valid([6]).all()


def test_class_order_can_be_set_and_a_flat_folder_has_no_labels(root: Path) -> None:
    probe = FolderProbe(root, scale=1e-4, classes=("water", "field"))
    assert probe.labels is not None
    assert probe.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert probe[0].metadata["class_name"] == "water"
    flat = FolderProbe(root / "water", scale=1e-4)
    assert flat.labels is None
    assert len(flat) == 3
    with pytest.raises(ProbeError, match="no folder sea"):
        FolderProbe(root, scale=1e-4, classes=("sea",))


def test_nothing_usable_is_an_error_that_quotes_the_first_reason(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"6 were left out.*no scale"):
        FolderProbe(root)
    with pytest.raises(ProbeError, match="no such folder"):
        FolderProbe(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ProbeError, match="no chip that can be used"):
        FolderProbe(tmp_path / "bare")


def test_nodata_pixels_are_zero_and_invalid(tmp_path: Path) -> None:
    values = ramp(4, 8, 8).copy()
    values[:, :, :3] = 0
    write_raster(tmp_path / "a" / "x.tif", values, bands=BANDS, nodata=0, scale=1e-4)
    probe = FolderProbe(tmp_path)
    image = probe[0]
    assert image.valid is not None
    assert image.valid.sum() == 8 * 5
    assert np.all(image.pixels[:, :, :3] == 0)
    assert np.all(image.rgb[:, :3] == 0)


def test_photographs_are_shown_as_they_are(tmp_path: Path) -> None:
    values = np.stack([np.full((4, 4), level, np.uint8) for level in (10, 100, 200)])
    write_raster(tmp_path / "a" / "x.tif", values, bands=("red", "green", "blue"), scale=1 / 255)
    probe = FolderProbe(tmp_path, photographs=True)
    assert probe[0].rgb[0, 0].tolist() == [10, 100, 200]
    assert probe.stretch is None
