"""Opening, reading and labelling scenes, on tiny rasters made here."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin
from rasterio.windows import Window
from shapely.geometry import LineString, Point, Polygon, box

from dnd_core.errors import ProbeError
from geoaudit.labels import UNLABELLED, Labels, chips, split_blocks
from geoaudit.scenes import Scene, open_scene

LEFT, TOP = 330000.0, 5822040.0


def write(path: Path, values: np.ndarray, **changes: Any) -> Path:
    """A GeoTIFF of (C, H, W) values, 10 m pixels; ``bands``, ``scales``, ``tags`` and profile fields may be changed."""
    bands = changes.pop("bands", ("B02", "B03", "B04")[: len(values)])
    scales, tags = changes.pop("scales", (1e-4,) * len(values)), changes.pop("tags", {})
    profile = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": from_origin(LEFT, TOP, 10, 10),
    } | changes
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
        dataset.scales = scales
        if bands:
            dataset.descriptions = bands
        dataset.update_tags(**tags)
    return path


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(500, 4000, (3, 40, 60)).astype(np.uint16)


@pytest.fixture
def scene(tmp_path: Path, values: np.ndarray) -> Scene:
    return open_scene(write(tmp_path / "scene.tif", values, tags={"ACQUIRED": "2017-02-16"}))


def test_a_scene_says_where_and_what_it_is(scene: Scene) -> None:
    assert (scene.crs, scene.width, scene.height) == ("EPSG:32633", 60, 40)
    assert scene.bounds == (LEFT, TOP - 400, LEFT + 600, TOP)
    assert scene.bands == ("B02", "B03", "B04")
    assert scene.acquired == "2017-02-16"
    assert scene.pixel_area == 100
    assert scene.window_bounds(Window(10, 5, 20, 10)) == (LEFT + 100, TOP - 150, LEFT + 300, TOP - 50)
    assert pickle.loads(pickle.dumps(scene)) == scene


def test_reading_scales_to_reflectance(scene: Scene, values: np.ndarray) -> None:
    pixels, valid = scene.read()
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, values / 1e4, rtol=1e-6)
    assert valid.all()
    part, _ = scene.read(Window(7, 3, 11, 5), bands=("red", "B02"))
    np.testing.assert_allclose(part, values[[2, 0], 3:8, 7:18] / 1e4, rtol=1e-6)


def test_an_offset_given_or_stored_is_applied(tmp_path: Path, values: np.ndarray) -> None:
    path = write(tmp_path / "baseline.tif", values)
    shifted = open_scene(path, offset=-0.1)
    np.testing.assert_allclose(shifted.read()[0], values / 1e4 - 0.1, atol=1e-7)
    with rasterio.open(path, "r+") as dataset:
        dataset.offsets = (-0.1,) * 3
    assert open_scene(path).offset == (-0.1,) * 3
    assert open_scene(path, scale=1.0, offset=0.0).read()[0].max() == values.max()


def test_a_window_beyond_the_edge_is_invalid_there(scene: Scene, values: np.ndarray) -> None:
    pixels, valid = scene.read(Window(-5, 30, 20, 20))
    assert pixels.shape == (3, 20, 20)
    assert valid[:10, 5:].all()
    assert valid.sum() == 10 * 15
    np.testing.assert_allclose(pixels[:, :10, 5:], values[:, 30:, :15] / 1e4, rtol=1e-6)
    assert (pixels[:, ~valid] == 0).all()
    assert not scene.read(Window(100, 100, 4, 4))[1].any()


def test_read_many_equals_reading_one_by_one(scene: Scene) -> None:
    windows = [Window(0, 0, 8, 8), Window(30, 20, 8, 8), Window(56, 36, 8, 8)]
    pixels, valid = scene.read_many(windows)
    for index, window in enumerate(windows):
        one, mask = scene.read(window)
        np.testing.assert_array_equal(pixels[index], one)
        np.testing.assert_array_equal(valid[index], mask)
    with pytest.raises(ProbeError, match="of one size"):
        scene.read_many([Window(0, 0, 8, 8), Window(0, 0, 9, 8)])
    with pytest.raises(ProbeError, match="of one size"):
        scene.read_many([])


def test_nodata_where_every_band_says_so(tmp_path: Path, values: np.ndarray) -> None:
    values[:, :, :10] = 0
    values[1, 20, 30] = 0
    scene = open_scene(write(tmp_path / "wedge.tif", values, nodata=0))
    pixels, valid = scene.read()
    assert not valid[:, :10].any()
    assert valid[:, 10:].all()
    assert pixels[1, 20, 30] == 0


def test_nan_is_nodata_only_when_declared(tmp_path: Path, values: np.ndarray) -> None:
    floating = (values / 1e4).astype(np.float32)
    floating[2, 4, 5] = np.nan
    path = write(tmp_path / "nan.tif", floating, scales=(1.0,) * 3)
    with pytest.raises(ProbeError, match=r"nan\.tif holds NaN .* nodata=nan"):
        open_scene(path)
    pixels, valid = open_scene(path, nodata=float("nan")).read()
    assert (~valid).sum() == 1
    assert not valid[4, 5]
    assert np.isfinite(pixels).all()


def test_a_path_with_spaces_and_other_letters(tmp_path: Path, values: np.ndarray) -> None:
    folder = tmp_path / "Große Fläche 水"
    folder.mkdir()
    assert open_scene(write(folder / "mein bild ñ.tif", values)).read()[1].all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crs": None}, "no coordinate reference system"),
        ({"transform": from_origin(0, 0, 10, -10)}, "no north-up pixel grid"),
        ({"bands": None}, "does not name its 3 bands"),
        ({"bands": ("B02", "B02", "B04")}, "names a band twice"),
        ({"scales": (1.0,) * 3}, "holds whole numbers and no scale"),
        ({"scales": (0.0,) * 3}, "other than zero"),
    ],
)
def test_what_is_wrong_with_a_raster(
    tmp_path: Path, values: np.ndarray, changes: dict[str, Any], sentence: str
) -> None:
    path = write(tmp_path / "bad.tif", values, **changes)
    with pytest.raises(ProbeError, match=rf"bad\.tif.*{sentence}"):
        open_scene(path)


def test_no_georeference_at_all(tmp_path: Path, values: np.ndarray) -> None:
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.fromarray(values[0].astype(np.uint8)).save(path)
    with pytest.raises(ProbeError, match="no coordinate reference system"):
        open_scene(path)


def test_wrong_band_count(tmp_path: Path, values: np.ndarray) -> None:
    path = write(tmp_path / "three.tif", values)
    with pytest.raises(ProbeError, match="holds 3 bands, but 2 were named: B02, B03"):
        open_scene(path, bands=("B02", "B03"))
    with pytest.raises(ProbeError, match="lack band B08"):
        open_scene(path).read(bands=("B08",))


def test_all_nodata(tmp_path: Path) -> None:
    path = write(tmp_path / "void.tif", np.zeros((3, 40, 60), np.uint16), nodata=0)
    with pytest.raises(ProbeError, match="holds no data: every pixel is nodata"):
        open_scene(path)


def test_missing_empty_foreign_and_truncated_files(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ProbeError, match="no such file"):
        open_scene(tmp_path / "absent.tif")
    (tmp_path / "zero.tif").touch()
    with pytest.raises(ProbeError, match="is empty"):
        open_scene(tmp_path / "zero.tif")
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(ProbeError, match="not a raster that can be read"):
        open_scene(tmp_path / "text.tif")
    whole = write(tmp_path / "whole.tif", values, compress="deflate").read_bytes()
    for part in (0.5, 0.95):
        (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ProbeError, match="truncated"):
            open_scene(tmp_path / "cut.tif")


def test_verify_off_leaves_the_error_to_the_read(tmp_path: Path, values: np.ndarray) -> None:
    # A Cloud-Optimized GeoTIFF has its directory in front, so it opens although its end is gone.
    rasterio.shutil.copy(write(tmp_path / "whole.tif", values), tmp_path / "cog.tif", driver="COG")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cog.tif").read_bytes()[:-2000])
    scene = open_scene(tmp_path / "cut.tif", verify=False)
    with pytest.raises(ProbeError, match="truncated or damaged"):
        scene.read()


def test_fingerprint_follows_bytes_and_reading(tmp_path: Path, values: np.ndarray) -> None:
    path = write(tmp_path / "a.tif", values)
    first = open_scene(path).fingerprint
    assert open_scene(path).fingerprint == first
    assert open_scene(path, offset=-0.1).fingerprint != first
    values[0, 0, 0] += 1
    assert open_scene(write(tmp_path / "a.tif", values)).fingerprint != first


# ---- labels


def polygon(column: int, row: int, width: int, height: int) -> Polygon:
    left, top = LEFT + 10 * column, TOP - 10 * row
    return box(left, top - 10 * height, left + 10 * width, top)


def save(path: Path, shapes: list[Any], classes: list[str | None], crs: str | None = "EPSG:32633") -> Path:
    gpd.GeoDataFrame({"kind": classes}, geometry=shapes, crs=crs).to_file(path)
    return path


def test_polygons_land_on_the_right_pixels(tmp_path: Path, scene: Scene) -> None:
    path = save(tmp_path / "l.gpkg", [polygon(5, 3, 10, 4), polygon(30, 20, 6, 6)], ["wood", "lake"])
    labels = Labels.from_polygons(path, scene, field="kind")
    assert labels.class_names == ("lake", "wood")
    expected = np.full((40, 60), UNLABELLED, np.int16)
    expected[3:7, 5:15], expected[20:26, 30:36] = 1, 0
    np.testing.assert_array_equal(labels.raster, expected)
    assert labels.skipped == {}


def test_small_polygons_lie_on_top(tmp_path: Path, scene: Scene) -> None:
    for order in ((0, 1), (1, 0)):
        shapes, names = [polygon(0, 0, 30, 30), polygon(10, 10, 5, 5)], ["wood", "lake"]
        path = save(tmp_path / f"o{order[0]}.gpkg", [shapes[i] for i in order], [names[i] for i in order])
        raster = Labels.from_polygons(path, scene, field="kind", classes=("wood", "lake")).raster
        assert (raster == 1).sum() == 25
        assert (raster == 0).sum() == 875


def test_another_crs_is_reprojected(tmp_path: Path, scene: Scene) -> None:
    shapes, names = [polygon(5, 3, 20, 14)], ["wood"]
    here = Labels.from_polygons(save(tmp_path / "utm.gpkg", shapes, names), scene, field="kind")
    frame = gpd.GeoDataFrame({"kind": names}, geometry=shapes, crs="EPSG:32633").to_crs("EPSG:4326")
    frame.to_file(tmp_path / "degrees.gpkg")
    there = Labels.from_polygons(tmp_path / "degrees.gpkg", scene, field="kind")
    np.testing.assert_array_equal(here.raster, there.raster)


def test_what_is_skipped_is_counted(tmp_path: Path, scene: Scene) -> None:
    shapes = [
        polygon(5, 3, 10, 4),
        Polygon(),
        None,
        Point(LEFT + 5, TOP - 5),
        LineString([(LEFT, TOP), (LEFT + 50, TOP - 50)]),
        polygon(200, 3, 10, 4),
        polygon(1, 1, 2, 2),
        polygon(1, 1, 2, 2),
    ]
    kinds = ["wood", "wood", "wood", "wood", "wood", "wood", "marsh", None]
    path = save(tmp_path / "mixed.gpkg", shapes, kinds)
    labels = Labels.from_polygons(path, scene, field="kind", classes=("wood",))
    assert labels.skipped == {
        "empty geometry": 2,
        "not a polygon": 2,
        "no class": 1,
        "other class": 1,
        "outside the scene": 1,
    }
    assert (labels.raster == 0).sum() == 40


def test_what_is_wrong_with_labels(tmp_path: Path, scene: Scene) -> None:
    good = save(tmp_path / "good.gpkg", [polygon(5, 3, 10, 4)], ["wood"])
    with pytest.raises(ProbeError, match="no column 'class' for the class; it has kind"):
        Labels.from_polygons(good, scene, field="class")
    with pytest.raises(ProbeError, match="holds no sea polygon in column 'kind'; its classes are wood"):
        Labels.from_polygons(good, scene, field="kind", classes=("wood", "sea"))
    far = save(tmp_path / "far.gpkg", [polygon(500, 3, 10, 4)], ["wood"])
    with pytest.raises(ProbeError, match=r"no polygon of .*far\.gpkg touches the scene"):
        Labels.from_polygons(far, scene, field="kind")
    (tmp_path / "none.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(ProbeError, match="no column 'kind'"):
        Labels.from_polygons(tmp_path / "none.geojson", scene, field="kind")
    (tmp_path / "broken.gpkg").write_bytes(b"broken")
    with pytest.raises(ProbeError, match="cannot be read as vector data"):
        Labels.from_polygons(tmp_path / "broken.gpkg", scene, field="kind")
    with pytest.raises(ProbeError, match="cannot be read as vector data"):
        Labels.from_polygons(good, scene, field="kind", layer="absent")
    with pytest.raises(ProbeError, match="no such file"):
        Labels.from_polygons(tmp_path / "absent.gpkg", scene, field="kind")
    bare = tmp_path / "bare.shp"
    gpd.GeoDataFrame({"kind": ["wood"]}, geometry=[polygon(5, 3, 10, 4)], crs="EPSG:32633").to_file(bare)
    bare.with_suffix(".prj").unlink()
    with pytest.raises(ProbeError, match="no coordinate reference system"):
        Labels.from_polygons(bare, scene, field="kind")


# ---- chips


def slow_chips(
    raster: np.ndarray, size: int, centre: int, step: int, share: float, block: int
) -> list[tuple[int, ...]]:
    """The definition, pixel by pixel."""
    found, across = [], -(-raster.shape[1] // block)
    for row in range(0, raster.shape[0] - size + 1, step):
        for column in range(0, raster.shape[1] - size + 1, step):
            cells = {(r // block, c // block) for r in range(row, row + size) for c in range(column, column + size)}
            if len(cells) != 1:
                continue
            margin = (size - centre) // 2
            inner = raster[row + margin : row + margin + centre, column + margin : column + margin + centre]
            for index in range(raster.max() + 1):
                if (inner == index).mean() > share:
                    cell = next(iter(cells))
                    found.append((row, column, index, cell[0] * across + cell[1]))
    return found


def random_labels() -> Labels:
    generator = np.random.default_rng(3)
    coarse = generator.integers(-1, 3, (9, 14))
    return Labels(np.kron(coarse, np.ones((8, 8), int)).astype(np.int16), ("a", "b", "c"))


@pytest.mark.parametrize(("size", "centre", "step", "share", "block"), [(8, 4, 4, 0.6, 24), (9, 5, 3, 0.5, 20)])
def test_chips_follow_their_definition(size: int, centre: int, step: int, share: float, block: int) -> None:
    labels = random_labels()
    found = chips(labels, size=size, centre=centre, step=step, share=share, block=block)
    expected = slow_chips(labels.raster, size, centre, step, share, block)
    assert len(expected) > 20
    assert list(zip(found.rows, found.columns, found.labels, found.blocks, strict=True)) == expected
    windows = found.windows()
    assert (windows[0].row_off, windows[0].col_off, windows[0].width) == (*expected[0][:2], size)


def test_no_two_blocks_share_a_pixel_and_invalid_chips_go() -> None:
    labels = random_labels()
    found = chips(labels, size=8, centre=4, step=4, block=24)
    held_out = split_blocks(found.blocks, found.labels, held_out=0.3, seed=1)
    painted = np.zeros((2, *labels.raster.shape), bool)
    for row, column, side in zip(found.rows, found.columns, held_out, strict=True):
        painted[int(side), row : row + 8, column : column + 8] = True
    assert painted.any(axis=(1, 2)).all()
    assert not (painted[0] & painted[1]).any()
    across = chips(labels, size=8, centre=4, step=4, block=24, within_blocks=False)
    assert len(across) > len(found)
    valid = np.ones(labels.raster.shape, bool)
    valid[:, :60] = False
    assert chips(labels, size=8, centre=4, step=4, block=24, valid=valid).columns.min() >= 60


def test_split_is_even_seeded_and_whole_blocked() -> None:
    found = chips(random_labels(), size=8, centre=4, step=2, block=16)
    held_out = split_blocks(found.blocks, found.labels, held_out=0.3, seed=5)
    assert not set(found.blocks[held_out]) & set(found.blocks[~held_out])
    np.testing.assert_array_equal(held_out, split_blocks(found.blocks, found.labels, held_out=0.3, seed=5))
    assert (held_out != split_blocks(found.blocks, found.labels, held_out=0.3, seed=6)).any()
    for index in range(3):
        assert 0.2 < held_out[found.labels == index].mean() < 0.4
    for index in range(3):
        assert len(set(found.blocks[held_out & (found.labels == index)])) >= 1
    # Class 0 lies in blocks 0-3 only, so "at least two on either side" allows two of them, never one or three.
    blocks, labels = np.arange(12), np.repeat([0, 1, 1], 4)
    even = [split_blocks(blocks, labels, held_out=0.3, least=2, seed=seed, draws=200) for seed in range(5)]
    assert {int(one[:4].sum()) for one in even} == {2}
    with pytest.raises(ProbeError, match="to be in 3 on both sides"):
        split_blocks(blocks, labels, held_out=0.3, least=3)
    assert len(found.subset(held_out)) == held_out.sum()
    assert found.subset([2, 0]).rows.tolist() == [found.rows[2], found.rows[0]]


def test_chips_that_cannot_be() -> None:
    labels = random_labels()
    with pytest.raises(ProbeError, match="0 < centre <= size <= block"):
        chips(labels, size=8, centre=16)
    with pytest.raises(ProbeError, match="no 64-pixel chip has one class"):
        chips(labels, size=64, centre=64, block=64)
    with pytest.raises(ProbeError, match="at least two blocks"):
        split_blocks(np.zeros(4, np.int64), np.array([0, 1, 0, 1]))
    with pytest.raises(ProbeError, match="to be in 1 on both sides"):
        split_blocks(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))
