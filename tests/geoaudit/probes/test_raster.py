"""Grids over torchgeo raster data sets: pixels, place, validity and labels of every cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnd_core.errors import ProbeError
from dnd_core.images import ImageSet
from geoaudit.probes import RasterProbe

from .drawing import write_raster

BANDS = ("B02", "B03", "B04", "B08")
WEST, NORTH = 300000.0, 5800000.0


def numbered(height: int, width: int, start: int = 1) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Band 0 holds the number of the pixel, the others 1."""
    values = np.ones((4, height, width), np.uint16)
    values[0] = start + np.arange(height * width).reshape(height, width)
    return values


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "b.tif", numbered(32, 48), bands=BANDS, scale=1e-4, tags={"ACQUIRED": "2017-02-16"})


def polygons(path: Path, crs: str = "EPSG:32633") -> Path:
    """West half of the scene is field, the easternmost eighth water."""
    import geopandas
    from shapely.geometry import box

    frame = geopandas.GeoDataFrame(
        {"kind": ["field", "water", None]},
        geometry=[
            box(WEST, NORTH - 320, WEST + 160, NORTH),
            box(WEST + 320, NORTH - 320, WEST + 480, NORTH),
            box(WEST + 160, NORTH - 320, WEST + 320, NORTH),
        ],
        crs="EPSG:32633",
    ).to_crs(crs)
    frame.to_file(path, driver="GPKG")
    return path


def test_cells_hold_their_pixels_and_place(scene: Path) -> None:
    probe = RasterProbe([scene], size=16)
    assert isinstance(probe, ImageSet)
    assert probe.channels == BANDS
    assert len(probe) == 6
    truth = numbered(32, 48)[0] / 1e4
    for index in range(len(probe)):
        left, bottom, right, top = probe[index].metadata["bounds"]
        row, column = round((NORTH - top) / 10), round((left - WEST) / 10)
        assert (right - left, top - bottom) == (160.0, 160.0)
        np.testing.assert_allclose(probe.pixels([index])[0, 0], truth[row : row + 16, column : column + 16], atol=1e-6)
    assert probe[0].metadata["crs"] == "EPSG:32633"
    assert probe[0].metadata["source"] == str(scene)
    assert probe[0].metadata["acquired"] == "2017-02-16"
    assert probe[0].valid is None


def test_edges_beyond_the_scene_are_padded_and_invalid(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", numbered(16, 24), bands=BANDS, scale=1e-4)
    probe = RasterProbe([path], size=16)
    assert len(probe) == 2
    edge = probe[1]
    assert edge.valid is not None
    assert edge.valid.mean() == 0.5
    assert np.all(edge.pixels[:, ~edge.valid] == 0)
    whole = RasterProbe([path], size=16, min_valid=0.9)
    assert len(whole) == 1
    assert [skip.reason for skip in whole.skipped] == ["mostly without data"]


def test_padding_is_no_data_though_another_file_declares_its_own(tmp_path: Path) -> None:
    """The first file's nodata is 9999; the second is padded with zeros, which only its footprint can tell."""
    first = write_raster(tmp_path / "a.tif", numbered(16, 16), bands=BANDS, scale=1e-4, nodata=9999)
    second = write_raster(tmp_path / "b.tif", numbered(16, 24), bands=BANDS, scale=1e-4, origin=(WEST + 1000, NORTH))
    probe = RasterProbe([first, second], size=16)
    shares = [float(probe.valid([index]).mean()) for index in range(len(probe))]
    assert shares == [1.0, 1.0, 0.5]


def test_cells_without_data_are_left_out(tmp_path: Path) -> None:
    values = numbered(16, 32)
    values[:, :, :16] = 0
    path = write_raster(tmp_path / "a.tif", values, bands=BANDS, scale=1e-4, nodata=0)
    assert len(RasterProbe([path], size=16)) == 1
    with pytest.raises(ProbeError, match="holds no data"):
        RasterProbe([write_raster(tmp_path / "n.tif", values * 0, bands=BANDS, scale=1e-4, nodata=0)], size=16)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_polygons_give_classes(scene: Path, tmp_path: Path, crs: str) -> None:
    path = polygons(tmp_path / "labels é.gpkg", crs)
    probe = RasterProbe([scene], path, field="kind", size=16)
    assert probe.class_names == ("field", "water")
    assert probe.labels is not None
    by_place = {probe[i].metadata["bounds"][0] - WEST: probe[i].metadata["class_name"] for i in range(len(probe))}
    assert by_place == {0.0: "field", 320.0: "water"}
    assert [skip.reason for skip in probe.skipped] == ["no class covers enough of it"] * 2
    mask = probe.mask(0)
    assert mask is not None
    assert np.all(mask == probe.labels[0])
    only = RasterProbe([scene], path, field="kind", classes=("water",), size=16)
    assert only.class_names == ("water",)
    assert len(only) == 2


def test_a_label_raster_gives_classes(scene: Path, tmp_path: Path) -> None:
    from torchgeo.datasets import RasterDataset

    class LandCover(RasterDataset):  # type: ignore[misc]
        is_image = False

    values = np.full((1, 32, 48), 7, np.uint8)
    values[:, :, 16:] = 3
    values[:, :, 40:] = 9
    path = write_raster(tmp_path / "labels" / "cover.tif", values)
    probe = RasterProbe([scene], LandCover(str(path)), classes={7: "forest", 3: "farm"}, size=16)
    assert probe.class_names == ("farm", "forest")
    by_place = {probe[i].metadata["bounds"][0] - WEST: probe[i].metadata["class_name"] for i in range(len(probe))}
    # The last column's central half is half class 9, which was not named: no class is pure there.
    assert by_place == {0.0: "forest", 160.0: "farm"}
    again = write_raster(tmp_path / "labels" / "cover.tif", values[:, ::-1] * 0 + 3)
    changed = RasterProbe([scene], LandCover(str(again)), classes={7: "forest", 3: "farm"}, size=16)
    assert changed.fingerprint != probe.fingerprint
    with pytest.raises(ProbeError, match="name of each class by its value"):
        RasterProbe([scene], LandCover(str(path)), size=16)


def test_a_vector_data_set_gives_classes(scene: Path, tmp_path: Path) -> None:
    from torchgeo.datasets import VectorDataset

    labels = VectorDataset(str(polygons(tmp_path / "fields.gpkg")))
    probe = RasterProbe([scene], labels, classes={1: "mapped"}, size=16)
    assert probe.class_names == ("mapped",)
    assert len(probe) == 6


def test_torchgeos_own_data_set_and_date(tmp_path: Path) -> None:
    from torchgeo.datasets import RasterDataset

    class Mine(RasterDataset):  # type: ignore[misc]
        filename_glob = "T*.tif"
        filename_regex = r"T_(?P<date>\d{8})\.tif"
        all_bands = BANDS

    write_raster(tmp_path / "T_20170216.tif", numbered(16, 16))
    probe = RasterProbe(Mine(str(tmp_path), bands=["B08", "B02"]), size=16, scale=1e-4)
    assert probe.channels == ("B08", "B02")
    assert probe[0].metadata["acquired"] == "2017-02-16"
    np.testing.assert_allclose(probe.pixels([0])[0, 0], 1e-4, atol=1e-9)
    with pytest.raises(ProbeError, match="pass bands="):
        RasterProbe(Mine(str(tmp_path)), size=16)
    with pytest.raises(ProbeError, match="has 4 bands, but 2 were named"):
        RasterProbe(Mine(str(tmp_path)), size=16, scale=1e-4, bands=("B02", "B03"))


def test_the_source_is_the_file_that_covers_the_cell(scene: Path, tmp_path: Path) -> None:
    """Two scenes side by side: cells on their common border touch both."""
    second = write_raster(tmp_path / "a.tif", numbered(32, 16), bands=BANDS, scale=1e-4, origin=(WEST + 480, NORTH))
    probe = RasterProbe([scene, second], size=16)
    for index in range(len(probe)):
        metadata = probe[index].metadata
        expected = "a.tif" if metadata["bounds"][0] >= WEST + 480 else "b.tif"
        assert Path(metadata["source"]).name == expected


def test_rasters_smaller_than_a_cell_are_counted(scene: Path, tmp_path: Path) -> None:
    small = write_raster(tmp_path / "small.tif", numbered(8, 8), bands=BANDS, scale=1e-4, origin=(310000.0, NORTH))
    probe = RasterProbe([scene, small], size=16)
    assert len(probe) == 6
    assert [(Path(skip.source).name, skip.reason) for skip in probe.skipped] == [("small.tif", "smaller than a cell")]


def test_a_mosaic_over_two_coordinate_systems_reports_what_it_misses(scene: Path, tmp_path: Path) -> None:
    """The second scene lies in another UTM zone: warped, its box holds corners without data."""
    import rasterio
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:32633", "EPSG:32632", [WEST + 5000], [NORTH])
    other = write_raster(
        tmp_path / "other.tif", numbered(64, 64, 100), bands=BANDS, scale=1e-4, crs="EPSG:32632", origin=(x, y)
    )
    probe = RasterProbe([scene, other], size=16)
    sources = [Path(probe[i].metadata["source"]).name for i in range(len(probe))]
    assert set(sources) == {"b.tif", "other.tif"}
    assert {probe[i].metadata["crs"] for i in range(len(probe))} == {"EPSG:32633"}
    warped = [i for i, name in enumerate(sources) if name == "other.tif"]
    assert any(probe[i].valid is not None for i in warped)
    # A cell of the warped scene shows what lies there: compare its middle with the file itself.
    index = next(i for i in warped if probe[i].valid is None)
    left, bottom, right, top = probe[index].metadata["bounds"]
    (px,), (py,) = transform("EPSG:32633", "EPSG:32632", [(left + right) / 2], [(bottom + top) / 2])
    with rasterio.open(other) as file:
        row, column = file.index(px, py)
        around = file.read(1)[row - 2 : row + 3, column - 2 : column + 3] / 1e4
    assert around.min() <= probe.pixels([index])[0, 0, 8, 8] <= around.max()


def test_index_errors_of_torchgeo_become_skips(scene: Path) -> None:
    from torchgeo.datasets import RasterDataset

    class Holes(RasterDataset):  # type: ignore[misc]
        all_bands = BANDS

        def __getitem__(self, query: Any) -> dict[str, Any]:
            if query[0].start > WEST + 300:
                raise IndexError(f"query: {query} not found in index")
            return super().__getitem__(query)  # type: ignore[no-any-return]

    probe = RasterProbe(Holes(str(scene)), size=16, scale=1e-4)
    assert len(probe) == 4
    assert {skip.reason for skip in probe.skipped} == {"not found there by a data set in another CRS"}
    assert len(probe.skipped) == 2


def test_overlapping_cells_do_not_cross_block_borders(scene: Path) -> None:
    probe = RasterProbe([scene], size=8, stride=4, block_size=160.0)
    assert probe.blocks is not None
    assert len(set(probe.blocks.tolist())) == 6
    assert any(skip.reason == "crosses a block border" for skip in probe.skipped)
    owner: dict[tuple[int, int], int] = {}
    for index, block in enumerate(probe.blocks.tolist()):
        left, _, _, top = probe[index].metadata["bounds"]
        row, column = round((NORTH - top) / 10), round((left - WEST) / 10)
        for place in ((r, c) for r in range(row, row + 8) for c in range(column, column + 8)):
            assert owner.setdefault(place, block) == block


def test_bad_rasters_are_left_out_and_none_left_is_an_error(scene: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tif"
    empty.touch()
    nowhere = write_raster(tmp_path / "nowhere.tif", numbered(16, 16), bands=BANDS, scale=1e-4, crs=None)
    three = write_raster(tmp_path / "three.tif", numbered(16, 16)[:3], bands=BANDS[:3], scale=1e-4)
    probe = RasterProbe([scene, empty, nowhere, three], size=16)
    assert {Path(skip.source).name for skip in probe.skipped} == {"empty.tif", "nowhere.tif", "three.tif"}
    with pytest.raises(ProbeError, match=r"none of 2 rasters.*empty"):
        RasterProbe([empty, nowhere], size=16)
    with pytest.raises(ProbeError, match="none of 0"):
        RasterProbe([], size=16)


def test_bad_labels(scene: Path, tmp_path: Path) -> None:
    path = polygons(tmp_path / "l.gpkg")
    with pytest.raises(ProbeError, match="field="):
        RasterProbe([scene], path, size=16)
    with pytest.raises(ProbeError, match="no column 'fclass'"):
        RasterProbe([scene], path, field="fclass", size=16)
    with pytest.raises(ProbeError, match="has no town"):
        RasterProbe([scene], path, field="kind", classes=("town",), size=16)
    with pytest.raises(ProbeError, match="no such file"):
        RasterProbe([scene], tmp_path / "no.gpkg", field="kind", size=16)
    with pytest.raises(ProbeError, match="min_purity"):
        RasterProbe([scene], size=16, min_purity=0.1)


def test_the_fingerprint_follows_content_and_arguments(scene: Path) -> None:
    one = RasterProbe([scene], size=16).fingerprint
    assert RasterProbe([scene], size=16).fingerprint == one
    assert RasterProbe([scene], size=8).fingerprint != one
    write_raster(scene, numbered(32, 48, 2), bands=BANDS, scale=1e-4)
    assert RasterProbe([scene], size=16).fingerprint != one
