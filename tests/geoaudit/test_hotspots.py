"""Hot spots, true areas, overlap, Moran's I and the GeoPackage, on maps drawn by hand."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import Polygon, box, mapping

from dnd_core.errors import ProbeError
from dnd_core.types import UnitId
from geoaudit.areas import PixelAreas, geometry_areas_ha, mapped_areas_ha
from geoaudit.autocorrelation import morans_i_points, morans_i_raster, rook_weights
from geoaudit.geopackage import write_index
from geoaudit.hotspots import unit_map
from geoaudit.rates import StatisticsError
from geoaudit.styles import ramp_sidecar, write_sidecar
from geoaudit.windows import SpatialError

UTM = Affine(100, 0, 500_000, 0, -100, 6_000_000)  # on the central meridian: one pixel is 1 ha / 0.9996**2
UTM_HA = 1 / 0.9996**2
HOSTILE = (
    """Robert'); DROP TABLE layer_styles;--<script>alert("x")</script> &amp; ]]> \x00\x07 \ud83d""".encode(
        "utf-8", "replace"
    ).decode()
    + "long " * 200
)


def write_map(path: Path, values, transform=UTM, crs="EPSG:32633", nodata=np.nan, scale=1.0):
    values = np.asarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype, crs=crs,
        transform=transform, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
        dataset.scales = (scale,)
    return path


def drawn():
    """12 x 10 cells: a hot block of 6, a hot L of 3, one hot cell touching the block by a corner only."""
    values = np.zeros((12, 10), np.float32)
    values[1:3, 1:4] = [[5, 6, 7], [5, 5, 5]]
    values[8, 7] = values[9, 7] = values[9, 8] = 5.5
    values[3, 4] = 5.0
    return values


def test_hot_spots_have_the_outline_area_and_figures_that_were_drawn(tmp_path):
    result = unit_map(write_map(tmp_path / "u.tif", drawn()), UnitId("layer4", 7), "haze", threshold=5.0)
    block, ell, lone = result.hotspots
    assert [spot.cells for spot in result.hotspots] == [6, 3, 1]
    assert block.geometry.equals(box(500_100, 5_999_700, 500_400, 5_999_900))
    assert (block.mean, block.peak) == (pytest.approx(5.5), 7)
    assert block.area_ha == pytest.approx(6 * UTM_HA, rel=2e-5)
    assert ell.geometry.area == 30_000
    assert lone.geometry.centroid.coords[0] == (500_450, 5_999_650)
    assert result.area_ha == pytest.approx(10 * UTM_HA, rel=2e-5)


def test_small_spots_are_dropped(tmp_path):
    result = unit_map(write_map(tmp_path / "u.tif", drawn()), UnitId("a", 0), threshold=5.0, min_area_ha=2.5)
    assert [spot.cells for spot in result.hotspots] == [6, 3]


def test_the_threshold_is_the_maps_own_quantile_and_ignores_nodata(tmp_path):
    values = np.arange(400, dtype=np.float32).reshape(20, 20)
    values[:10] = np.nan
    result = unit_map(write_map(tmp_path / "u.tif", values), UnitId("a", 0), quantile=0.95)
    assert result.threshold == pytest.approx(np.quantile(np.arange(200, 400), 0.95))
    assert sum(spot.cells for spot in result.hotspots) == 10


def test_a_silent_map_has_no_hot_spot_and_a_sparse_one_only_its_own(tmp_path):
    assert unit_map(write_map(tmp_path / "a.tif", np.zeros((20, 20), np.float32)), UnitId("a", 0)).hotspots == ()
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, (20, 20))
    dead = unit_map(write_map(tmp_path / "c.tif", (0.3 + noise).astype(np.float32)), UnitId("a", 0))
    assert (dead.hotspots, dead.moran) == ((), None)
    sparse = np.zeros((40, 40), np.float32)
    sparse[3, 3:5] = 2.0
    assert [spot.cells for spot in unit_map(write_map(tmp_path / "b.tif", sparse), UnitId("a", 0)).hotspots] == [2]


def test_packed_maps_are_unpacked(tmp_path):
    values = np.where(drawn() > 0, (drawn() * 100).astype(np.int16), np.int16(0))
    path = write_map(tmp_path / "u.tif", values.astype(np.int16), nodata=-32768, scale=0.01)
    result = unit_map(path, UnitId("a", 0), threshold=5.0)
    assert result.hotspots[0].peak == pytest.approx(7)
    assert result.hotspots[0].cells == 6


def test_a_hole_is_not_part_of_the_area(tmp_path):
    ring = np.zeros((5, 5), np.float32)
    ring[1:4, 1:4] = 1
    ring[2, 2] = 0
    (spot,) = unit_map(write_map(tmp_path / "u.tif", ring), UnitId("a", 0), threshold=1.0).hotspots
    assert spot.area_ha == pytest.approx(8 * UTM_HA, rel=2e-5)
    assert len(spot.geometry.interiors) == 1


def sphere_degrees_ha(south, north, width):
    """Area between two parallels on the WGS84 ellipsoid, from its closed form."""
    a, f = 6378137.0, 1 / 298.257223563
    e = np.sqrt(f * (2 - f))

    def belt(latitude):
        s = np.sin(np.radians(latitude))
        return s / (1 - e**2 * s**2) + np.log((1 + e * s) / (1 - e * s)) / (2 * e)

    return np.radians(width) * a**2 * (1 - e**2) / 2 * (belt(north) - belt(south)) / 10_000


def test_areas_in_degrees_follow_the_ellipsoid():
    areas = geometry_areas_ha([box(13, 52, 14, 52.5), box(13, 0, 14, 0.5), Polygon()], "EPSG:4326")
    expected = [sphere_degrees_ha(52, 52.5, 1), sphere_degrees_ha(0, 0.5, 1), 0]
    np.testing.assert_allclose(areas, expected, rtol=2e-5)


def test_one_field_has_one_area_in_every_crs():
    field = geopandas.GeoSeries([box(13.4, 52.4, 13.41, 52.41)], crs="EPSG:4326").segmentize(1e-4)
    areas = {
        crs: geometry_areas_ha(list(field.to_crs(crs)), crs)[0]
        for crs in ("EPSG:4326", "EPSG:32633", "EPSG:3035", "EPSG:3857")
    }
    assert max(areas.values()) / min(areas.values()) == pytest.approx(1, abs=1e-6)
    assert field.to_crs(3857).area[0] / 10_000 > 2 * areas["EPSG:3857"]  # what plane units would have claimed


def test_pixel_areas_interpolate_between_measured_pixels():
    transform = Affine(0.001, 0, 13, 0, -0.001, 60)
    pixels = PixelAreas("EPSG:4326", transform, 2000, 50)
    measured = sphere_degrees_ha(60 - 0.778, 60 - 0.777, 0.001)
    np.testing.assert_allclose(pixels.rows(777, 1), np.full((1, 50), measured), rtol=1e-4)
    assert pixels.rows().shape == (2000, 50)
    assert pixels.rows().sum() == pytest.approx(sphere_degrees_ha(58, 60, 0.05), rel=1e-5)


def test_areas_on_no_earth_are_refused():
    with pytest.raises(ProbeError, match="without a place on Earth"):
        geometry_areas_ha([box(0, 0, 1, 1)], 'LOCAL_CS["grid",UNIT["metre",1]]')


def test_mapped_areas_count_each_class_in_hectares(tmp_path):
    classes = np.array([[0, 0, 1], [1, 1, 255]], np.uint8)
    path = write_map(tmp_path / "c.tif", classes, nodata=255)
    np.testing.assert_allclose(mapped_areas_ha(path, 3), np.array([2, 3, 0]) * UTM_HA, rtol=2e-5)
    with pytest.raises(ProbeError, match="holds class 1"):
        mapped_areas_ha(path, 1)


def test_overlap_is_counted_where_labels_are_known_on_their_own_finer_grid(tmp_path):
    values = np.zeros((4, 4), np.float32)
    values[:2, :2] = 1.0  # hot: 4 cells of 2 x 2 label pixels each
    values[3, 3] = np.nan
    labels = np.full((8, 8), -1, np.int16)
    labels[:4, :2] = 0  # water: 8 pixels, all hot
    labels[:2, 2:8] = 1  # field: 12 pixels, 4 of them hot
    labels[6:, 6:] = 0  # water under nodata: does not count
    fine = Affine(50, 0, 500_000, 0, -50, 6_000_000)
    result = unit_map(
        write_map(tmp_path / "u.tif", values), UnitId("a", 0), threshold=1.0, labels=labels, labels_transform=fine,
        class_names=("water", "field", "unused"),
    )  # fmt: skip
    water, field = result.overlaps
    assert (water.name, field.name) == ("water", "field")
    assert (water.precision, water.recall, water.iou) == pytest.approx((8 / 12, 1.0, 8 / 12), rel=1e-5)
    assert (field.precision, field.recall, field.iou) == pytest.approx((4 / 12, 4 / 12, 4 / 20), rel=1e-5)
    assert water.area_ha == pytest.approx(2 * UTM_HA, rel=2e-5)


def test_morans_i_of_a_map_equals_esda():
    esda = pytest.importorskip("esda", reason="REFERENCE SKIPPED: esda is not installed")
    libpysal = pytest.importorskip("libpysal", reason="REFERENCE SKIPPED: libpysal is not installed")
    values = np.random.default_rng(0).normal(size=(9, 12)).cumsum(axis=0)
    theirs = esda.Moran(values.ravel(), libpysal.weights.lat2W(9, 12), transformation="B", permutations=0)
    ours = morans_i_raster(values)
    assert ours.value == pytest.approx(theirs.I)
    assert ours.expected == pytest.approx(theirs.EI)


def test_morans_i_of_points_equals_esda():
    esda = pytest.importorskip("esda", reason="REFERENCE SKIPPED: esda is not installed")
    libpysal = pytest.importorskip("libpysal", reason="REFERENCE SKIPPED: libpysal is not installed")
    rng = np.random.default_rng(1)
    points = rng.uniform(size=(80, 2))
    values = points[:, 0] + rng.normal(0, 0.2, 80)
    theirs = esda.Moran(values, libpysal.weights.KNN.from_array(points, k=5), transformation="R", permutations=0)
    ours = morans_i_points(points, values, neighbours=5, permutations=99)
    assert ours.value == pytest.approx(theirs.I)
    assert ours.p == 0.01


def test_morans_i_knows_the_extremes_and_its_null():
    rows, columns = np.indices((20, 20))
    assert morans_i_raster((rows + columns) % 2).value == pytest.approx(-1)
    gradient = morans_i_raster(rows.astype(float))
    assert gradient.value > 0.9
    assert gradient.p == 1 / 200
    constant = morans_i_raster(np.full((5, 5), 0.1))
    assert (constant.value, constant.p) == (0, 1)
    rng = np.random.default_rng(2)
    p = [morans_i_raster(rng.normal(size=(8, 8)), permutations=39, seed=i).p for i in range(100)]
    assert 0.0 <= np.mean(np.array(p) <= 0.05) <= 0.12


def test_morans_i_skips_what_is_not_known_and_coarsens_large_maps():
    values = np.arange(16.0).reshape(4, 4)
    values[1] = np.nan
    known = np.isfinite(values)
    weights = rook_weights(known).toarray()
    assert weights.sum() == 2 * (3 * 3 + 4)
    centred = values[known] - values[known].mean()
    slow = 12 / weights.sum() * sum(
        weights[i, j] * centred[i] * centred[j] for i in range(12) for j in range(12)
    ) / (centred**2).sum()  # fmt: skip
    assert morans_i_raster(values).value == pytest.approx(slow)
    assert morans_i_raster(np.indices((60, 60))[0] * 1.0, max_cells=100).n == 100
    with pytest.raises(StatisticsError, match="no two cells touch"):
        morans_i_raster(np.array([[1.0, np.nan], [np.nan, 2.0]]))


def test_duplicate_points_are_neighbours_but_not_of_themselves():
    points = np.zeros((6, 2))
    values = np.array([1.0, 2, 3, 4, 5, 6])
    assert morans_i_points(points, values, neighbours=5, permutations=19).value == pytest.approx(-1 / 5)


def indexed(tmp_path, label="haze", transform=UTM, crs="EPSG:32633"):
    first = unit_map(
        write_map(tmp_path / "layer4" / "7.tif", drawn(), transform, crs), UnitId("layer4", 7), label, threshold=5.0
    )
    quiet = unit_map(
        write_map(tmp_path / "layer4" / "8.tif", np.zeros((12, 10), np.float32), transform, crs), UnitId("layer4", 8)
    )
    return [first, quiet]


FINDING = {
    "id": "F1", "severity": "major", "title": "Pasture is predicted wherever thin haze lies", "concept": "haze",
    "area_ha": {"estimate": 312.0, "ci": [250.0, 380.0]}, "footprint": mapping(box(13, 52, 13.1, 52.1)),
}  # fmt: skip


def test_the_index_reads_back_with_every_figure(tmp_path):
    units = indexed(tmp_path)
    path = write_index(tmp_path / "index.gpkg", units, [FINDING, {"id": "F2", "severity": "info", "footprint": None}])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["index.gpkg", "layer4"]
    spots = geopandas.read_file(path, layer="hotspots")
    assert str(spots.crs) == "EPSG:32633"
    assert spots["unit"].tolist() == ["layer4/7"] * 3
    assert spots["rank"].tolist() == [1, 2, 3]
    assert spots["label"].tolist() == ["haze"] * 3
    np.testing.assert_allclose(spots["area_ha"], [spot.area_ha for spot in units[0].hotspots])
    assert spots.geometry[0].equals(units[0].hotspots[0].geometry)
    table = geopandas.read_file(path, layer="units")
    assert table["hotspots"].tolist() == [3, 0]
    assert table["raster"].tolist() == ["layer4/7.tif", "layer4/8.tif"]
    assert table["moran_i"][0] == pytest.approx(units[0].moran.value)
    findings = geopandas.read_file(path, layer="findings")
    assert str(findings.crs) == "EPSG:4326"
    assert findings[["id", "severity", "concept", "area_ha"]].values.tolist() == [["F1", "major", "haze", 312.0]]


def test_every_layer_has_a_default_style_that_fits_its_columns(tmp_path):
    path = write_index(tmp_path / "index.gpkg", indexed(tmp_path), [FINDING])
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles ORDER BY id"
        ).fetchall()
        known = dict(database.execute("SELECT table_name, column_name FROM gpkg_geometry_columns").fetchall())
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert [row[0] for row in rows] == ["hotspots", "units", "findings"]
    for table, column, default, qml in rows:
        assert (column, default) == (known[table], 1)
        style = ElementTree.fromstring(qml)
        columns = geopandas.read_file(path, layer=table).columns
        renderer = style.find("renderer-v2")
        assert renderer.get("attr") in columns
        assert style.find(".//text-style").get("fieldName") in columns
        assert style.get("labelsEnabled") == "1"
        symbols = {symbol.get("name") for symbol in renderer.findall("symbols/symbol")}
        used = {entry.get("symbol") for entry in [*renderer.iter("category"), *renderer.iter("range")]}
        assert used == symbols != set()
    kinds = [ElementTree.fromstring(row[3]).find("renderer-v2").get("type") for row in rows]
    assert kinds == ["categorizedSymbol", "graduatedSymbol", "categorizedSymbol"]


def test_hostile_labels_are_data_and_nothing_else(tmp_path):
    path = write_index(tmp_path / "index.gpkg", indexed(tmp_path, HOSTILE), [{**FINDING, "title": HOSTILE}])
    spots = geopandas.read_file(path, layer="hotspots")
    assert spots["label"][0].startswith("Robert'); DROP TABLE layer_styles;--<script>")
    assert "long long" in spots["label"][0]
    with sqlite3.connect(path) as database:
        (qml,) = database.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'hotspots'").fetchone()
    database.close()
    style = ElementTree.fromstring(qml)
    assert style.find(".//script") is None
    assert "<script>" in style.find(".//category").get("label")
    text = style.find(".//text-style")
    assert (text.get("allowHtml"), text.get("isExpression"), text.get("fieldName")) == ("0", "0", "label")


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:4326", Affine(1e-3, 0, 13, 0, -1e-3, 52)), ("EPSG:3857", Affine(50, 0, 0, 0, -50, 6e6))],
)
def test_the_index_keeps_any_crs(tmp_path, crs, transform):
    path = write_index(tmp_path / "index.gpkg", indexed(tmp_path, transform=transform, crs=crs))
    spots = geopandas.read_file(path, layer="hotspots")
    assert str(spots.crs) == crs
    metric = spots.to_crs("+proj=laea +lat_0=52 +lon_0=13 +datum=WGS84").area.sum() / 10_000
    if crs == "EPSG:4326":
        assert spots["area_ha"].sum() == pytest.approx(metric, rel=1e-4)


def test_an_index_of_silent_units_is_still_a_file_that_opens(tmp_path):
    quiet = indexed(tmp_path)[1:]
    path = write_index(tmp_path / "index.gpkg", quiet)
    assert len(geopandas.read_file(path, layer="hotspots")) == 0
    assert geopandas.read_file(path, layer="units")["area_ha"].tolist() == [0.0]


def test_identical_inputs_give_identical_bytes(tmp_path):
    units = indexed(tmp_path)
    first = write_index(tmp_path / "index.gpkg", units, [FINDING]).read_bytes()
    second = write_index(tmp_path / "index.gpkg", units, [FINDING]).read_bytes()
    assert first == second


def test_bad_input_is_one_clear_sentence_and_leaves_nothing(tmp_path):
    path = write_map(tmp_path / "maps" / "u.tif", drawn())
    unit = UnitId("a", 0)
    for call, words in [
        (lambda: unit_map(path, unit, quantile=99), "quantile"),
        (lambda: unit_map(path, unit, min_area_ha=-1), "min_area_ha"),
        (lambda: unit_map(path, unit, labels=np.zeros((2, 2), int)), "labels_transform"),
        (
            lambda: unit_map(path, unit, labels=np.ones((2, 2), int), labels_transform=UTM, class_names=("a",)),
            "class 1",
        ),
        (lambda: unit_map(tmp_path / "none.tif", unit), "cannot be read"),
        (lambda: unit_map(write_map(tmp_path / "n.tif", np.full((3, 3), np.nan, np.float32)), unit), "no value"),
        (lambda: write_index(tmp_path / "i.gpkg", []), "at least one"),
        (
            lambda: write_index(tmp_path / "i.gpkg", [*indexed(tmp_path), *indexed(tmp_path, crs="EPSG:32632")]),
            "EPSG:32632 and",
        ),
        (
            lambda: write_index(tmp_path / "i.gpkg", indexed(tmp_path), [{"id": "F9", "footprint": {"type": "Blob"}}]),
            "'F9'",
        ),
        (lambda: write_index(path / "i.gpkg", indexed(tmp_path)), "cannot be written"),
    ]:
        with pytest.raises(SpatialError, match=words):
            call()
    assert not list(tmp_path.rglob("*.gpkg"))


def test_sidecars_lie_beside_their_raster(tmp_path):
    path = write_map(tmp_path / "7.tif", drawn())
    sidecar = write_sidecar(path, ramp_sidecar(0.0, 7.0))
    assert sidecar == tmp_path / "7.qml"
    stops = [float(item.get("value")) for item in ElementTree.parse(sidecar).iter("item")]
    assert stops == [0, 1.75, 3.5, 5.25, 7]
