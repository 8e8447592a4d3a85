"""The rendering of a scene in any of its bands, against the scene's own values."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoaudit import renderings
from geoaudit.renderings import render_scene, unique_names
from geoaudit.scenes import open_scene


@pytest.fixture
def scene(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.integers(200, 4000, (5, 300, 280)).astype(np.uint16)
    values[:, :40, :40] = 0
    profile = {
        "driver": "GTiff", "width": 280, "height": 300, "count": 5, "dtype": "uint16", "crs": "EPSG:32633", "nodata": 0,
        "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000),
    }  # fmt: skip
    path = tmp_path / "s.tif"
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values)
        raster.descriptions = ("B02", "B03", "B04", "B08", "B11")
        raster.scales = (0.0001,) * 5
    return open_scene(path)


def test_bands_give_back_reflectance_to_a_step_of_their_scale(scene, tmp_path):
    render_scene(scene, tmp_path / "rgb.tif", tmp_path / "bands.tif")
    truth, valid = scene.read()
    with rasterio.open(tmp_path / "bands.tif") as raster:
        assert raster.descriptions == ("B02", "B03", "B04", "B08", "B11")
        assert raster.nodata == 0
        assert raster.transform == scene.transform
        values = raster.read()
        assert ((values == 0) == ~valid).all()
        for band in range(5):
            back = values[band] * raster.scales[band] + raster.offsets[band]
            low, high = np.percentile(truth[band][valid], (0.5, 99.5))
            inside = valid & (truth[band] > low) & (truth[band] < high)
            assert np.abs(back - truth[band])[inside].max() <= 0.51 * raster.scales[band]
    with rasterio.open(tmp_path / "rgb.tif") as raster:
        assert (raster.count, raster.dtypes[0]) == (3, "uint8")
    assert sorted(entry.name for entry in tmp_path.glob("*.tif")) == ["bands.tif", "rgb.tif", "s.tif"]


def test_a_scene_too_large_is_averaged_down(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(renderings, "MOST_SAMPLES", 5 * 300 * 280 // 8)
    render_scene(scene, tmp_path / "rgb.tif", tmp_path / "bands.tif")
    truth, valid = scene.read()
    with rasterio.open(tmp_path / "bands.tif") as raster:
        assert (raster.height, raster.width) == (100, 94)
        assert raster.transform.a == 30
        values, scale, offset = raster.read(4).astype(float), raster.scales[3], raster.offsets[3]
    cells = truth[3, :300, :279].reshape(100, 3, 93, 3).mean(axis=(1, 3))
    known = valid[:300, :279].reshape(100, 3, 93, 3).all(axis=(1, 3))
    assert np.abs(values[:, :93] * scale + offset - cells)[known].max() <= 0.51 * scale
    # The last column stands for one column of pixels.
    last = truth[3, :, 279].reshape(100, 3).mean(axis=1)
    assert np.abs(values[:, 93] * scale + offset - last)[14:].max() <= 0.51 * scale
    # A square partly without data is the mean of the rest of it, and is shown.
    assert values[13, 13] > 0
    assert values[12, 12] == 0


def test_equal_scenes_give_equal_bytes(scene, tmp_path):
    for name in ("a", "b"):
        render_scene(scene, tmp_path / f"{name}-rgb.tif", tmp_path / f"{name}-bands.tif")
    for what in ("rgb", "bands"):
        assert (tmp_path / f"a-{what}.tif").read_bytes() == (tmp_path / f"b-{what}.tif").read_bytes()


def test_scenes_of_one_name_do_not_overwrite_one_another():
    paths = [Path("a/scene.tif"), Path("b/scene.tif"), Path("b/Scene.tif"), Path("layer4.tif")]
    assert unique_names(paths, ["layer4"]) == ["scene", "scene-2", "Scene-3", "layer4-2"]
