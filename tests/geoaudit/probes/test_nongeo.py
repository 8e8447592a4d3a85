"""torchgeo data sets of single images, read from tiny files in their own layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnd_core.errors import ProbeError
from dnd_core.images import ImageSet
from geoaudit.bands import SENTINEL2
from geoaudit.probes import NonGeoProbe

from . import layouts


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("EuroSAT", "eurosat"), ("EuroSATSpatial", "eurosat-spatial"), ("EuroSAT100", "eurosat-100")],
)
def test_eurosat_keeps_its_own_band_order_by_name(tmp_path: Path, name: str, prefix: str) -> None:
    layouts.eurosat(tmp_path, prefix)
    probe = NonGeoProbe(
        {"class_path": f"torchgeo.datasets.{name}", "init_args": {"root": str(tmp_path), "split": "test"}}
    )
    assert isinstance(probe, ImageSet)
    assert probe.channels == layouts.EUROSAT_ORDER
    assert probe.shape == (13, 64, 64)
    assert probe.class_names == layouts.EUROSAT_CLASSES
    assert probe.labels is not None
    assert probe.labels.tolist() == [0, 0, 1, 1, 2, 2]
    pixels = probe.pixels([0])[0, :, 0, 0]
    # B8A stands 13th in the files: its value is that of the 13th band drawn.
    np.testing.assert_allclose(pixels[probe.channels.index("B8A")], (101 + 1200) / 1e4, atol=1e-6)
    np.testing.assert_allclose(pixels[probe.channels.index("B09")], (101 + 800) / 1e4, atol=1e-6)
    image = probe[1]
    assert image.metadata["crs"] == "EPSG:32633"
    assert image.metadata["bounds"] == (420000.0, 5800000.0 - 640, 420640.0, 5800000.0)
    assert image.metadata["source"].endswith("AnnualCrop_2.tif")
    assert image.metadata["class_name"] == "AnnualCrop"
    assert probe.blocks is not None
    assert len(set(probe.blocks.tolist())) == 6


def test_eurosat_bands_can_be_chosen_by_the_data_set(tmp_path: Path) -> None:
    layouts.eurosat(tmp_path)
    arguments = {"root": str(tmp_path), "split": "test", "bands": ["B04", "B03", "B02"], "download": True}
    probe = NonGeoProbe({"class_path": "EuroSAT", "init_args": arguments})
    assert probe.channels == ("B04", "B03", "B02")
    np.testing.assert_allclose(probe.pixels([0])[0, :, 0, 0], [0.0401, 0.0301, 0.0201], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "folder", "split_file", "size", "suffix"),
    [
        ("UCMerced", "UCMerced_LandUse/Images", "uc_merced-{split}.txt", 256, ".tif"),
        ("RESISC45", "NWPU-RESISC45", "resisc45-{split}.txt", 32, ".png"),
    ],
)
def test_photographs(tmp_path: Path, name: str, folder: str, split_file: str, size: int, suffix: str) -> None:
    layouts.photographs(tmp_path, folder, split_file, size, suffix)
    probe = NonGeoProbe({"class_path": name, "init_args": {"root": str(tmp_path), "split": "val"}})
    assert probe.channels == ("red", "green", "blue")
    assert probe.shape == (3, size, size)
    assert probe.class_names == ("beach", "forest")
    np.testing.assert_allclose(probe.pixels([3])[0, :, 0, 0], np.array([110, 20, 31]) / 255, atol=1e-6)
    assert probe[3].rgb[0, 0].tolist() == [110, 20, 31]
    assert probe.blocks is None
    assert probe[0].metadata["crs"] is None


def test_bigearthnet_v2_has_many_labels(tmp_path: Path) -> None:
    layouts.bigearthnet_v2(tmp_path)
    spec = {"class_path": "BigEarthNetV2", "init_args": {"root": str(tmp_path), "split": "test", "bands": "s2"}}
    probe = NonGeoProbe(spec)
    assert probe.channels == tuple(band for band in SENTINEL2 if band != "B10")
    np.testing.assert_allclose(probe.pixels([0])[0, :, 5, 5], (1000 + 100 * np.arange(12)) / 1e4, atol=1e-6)
    assert probe.labels is None
    assert probe.multilabels is not None
    assert probe.multilabels.sum(axis=1).tolist() == [1, 2]
    assert probe[1].metadata["labels"] == (2, 17)
    assert probe.class_names[17] == "Inland waters"
    assert [probe[i].metadata["acquired"] for i in (0, 1)] == ["2017-06-13", "2018-02-04"]
    assert probe[0].metadata["crs"] == "EPSG:32633"
    assert probe.mask(0) is not None
    single = NonGeoProbe(spec, single_label=True)
    assert len(single) == 1
    assert single.labels is not None
    assert single.labels.tolist() == [2]
    assert [skip.reason for skip in single.skipped] == ["does not have exactly one class"]
    assert single.fingerprint != probe.fingerprint


def test_bigearthnet_v2_reads_radar_in_the_order_of_its_files(tmp_path: Path) -> None:
    layouts.bigearthnet_v2(tmp_path)
    arguments = {"root": str(tmp_path), "split": "test", "bands": "all"}
    probe = NonGeoProbe({"class_path": "BigEarthNetV2", "init_args": arguments})
    assert probe.channels[:3] == ("VH", "VV", "B01")
    # The layout draws VV = -12 and VH = 88; backscatter is left unscaled.
    assert probe.pixels([0])[0, :3, 0, 0].tolist() == [88.0, -12.0, pytest.approx(0.1)]
    radar = NonGeoProbe({"class_path": "BigEarthNetV2", "init_args": {**arguments, "bands": "s1"}})
    assert radar.channels == ("VH", "VV")
    assert radar[0].rgb.shape == (120, 120, 3)


def test_bigearthnet_v1(tmp_path: Path) -> None:
    layouts.bigearthnet_v1(tmp_path)
    arguments = {"root": str(tmp_path), "split": "test", "bands": "s2", "num_classes": 19}
    probe = NonGeoProbe({"class_path": "BigEarthNet", "init_args": arguments})
    assert probe.shape == (12, 120, 120)
    assert probe.multilabels is not None
    assert [probe.class_names[i] for i in np.flatnonzero(probe.multilabels[1])] == ["Pastures", "Inland waters"]
    assert probe[0].metadata["acquired"] == "2017-06-13"


def test_so2sat_is_reflectance_already(tmp_path: Path) -> None:
    layouts.so2sat(tmp_path)
    from torchgeo.datasets import So2Sat

    arguments = {"root": str(tmp_path), "split": "test", "bands": list(So2Sat.BAND_SETS["s2"])}
    probe = NonGeoProbe({"class_path": "So2Sat", "init_args": arguments})
    assert probe.channels == ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    np.testing.assert_allclose(probe.pixels([1])[0, :, 0, 0], 0.1 + np.arange(10) / 100, atol=1e-6)
    assert probe.labels is not None
    assert probe.labels.tolist() == [0, 16, 3]
    everything = NonGeoProbe({"class_path": "So2Sat", "init_args": {"root": str(tmp_path), "split": "test"}})
    assert everything.channels[:2] == ("S1_B1", "S1_B2")
    assert everything.channels[8] == "B02"
    np.testing.assert_allclose(everything.pixels([0])[0, [7, 8], 0, 0], [-7.0, 0.1], atol=1e-6)


class Plain(torch.utils.data.Dataset[dict[str, Any]]):
    """A user's own data set: two bands, integers."""

    def __init__(self, count: int = 3, value: float = 1.0) -> None:
        self.count, self.value = count, value

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.full((4, 8, 8), self.value + index), "label": torch.tensor(index % 2)}


def test_another_data_set_needs_bands_and_scale() -> None:
    with pytest.raises(ProbeError, match="pass bands="):
        NonGeoProbe(Plain())
    with pytest.raises(ProbeError, match=r"and scale="):
        NonGeoProbe(Plain(), bands=("B02", "B03", "B04", "B08"))
    with pytest.raises(ProbeError, match="images of 4 bands, but 2 were named"):
        NonGeoProbe(Plain(), bands=("B02", "B03"), scale=0.5)
    with pytest.raises(ProbeError, match="scale must be above 0"):
        NonGeoProbe(Plain(), bands=("B02", "B03", "B04", "B08"), scale=0)
    probe = NonGeoProbe(Plain(), bands=("b2", "B3", "B4", "B8"), scale=0.5, class_names=("a", "b"), size=(4, 6))
    assert probe.channels == ("B02", "B03", "B04", "B08")
    assert probe.pixels([1]).shape == (1, 4, 4, 6)
    assert float(probe.pixels([1]).mean()) == pytest.approx(1.0)
    assert probe[1].metadata["class_name"] == "b"
    other = NonGeoProbe(Plain(value=2), bands=("b2", "B3", "B4", "B8"), scale=0.5, class_names=("a", "b"), size=(4, 6))
    assert other.fingerprint != probe.fingerprint


def test_a_random_split_keeps_its_images() -> None:
    subset = torch.utils.data.Subset(torch.utils.data.Subset(Plain(count=6), [5, 3, 1]), [2, 0])
    probe = NonGeoProbe(subset, bands=("B02", "B03", "B04", "B08"), scale=1.0)
    assert probe.pixels([0, 1])[:, 0, 0, 0].tolist() == [2.0, 6.0]


def test_broken_images_are_errors_unless_left_out(tmp_path: Path) -> None:
    layouts.eurosat(tmp_path)
    broken = next(tmp_path.rglob("Forest_1.tif"))
    broken.write_bytes(broken.read_bytes()[:50000])
    spec = {"class_path": "EuroSAT", "init_args": {"root": str(tmp_path), "split": "test"}}
    probe = NonGeoProbe(spec)
    with pytest.raises(ProbeError, match=r"Forest_1\.tif cannot be read"):
        probe.pixels([2])
    kept = NonGeoProbe(spec, verify=True)
    assert len(kept) == 5
    assert kept.labels is not None
    assert kept.labels.tolist() == [0, 0, 1, 2, 2]
    assert [Path(skip.source).name for skip in kept.skipped] == ["Forest_1.tif"]


def test_data_sets_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="EuroSAT cannot be made"):
        NonGeoProbe({"class_path": "EuroSAT", "init_args": {"root": str(tmp_path)}})
    with pytest.raises(ProbeError, match="no such class"):
        NonGeoProbe("torchgeo.datasets.EuroSATT")
    with pytest.raises(ProbeError, match="cannot be imported"):
        NonGeoProbe("nowhere.at.All")
    with pytest.raises(ProbeError, match="class_path and init_args"):
        NonGeoProbe({"path": "EuroSAT"})
    with pytest.raises(ProbeError, match="unexpected keyword argument 'folder'"):
        NonGeoProbe({"class_path": "EuroSAT", "init_args": {"folder": "x"}})
    with pytest.raises(ProbeError, match="holds no image"):
        NonGeoProbe(Plain(count=0), bands=("B02",), scale=1.0)
