import io
import json
import sqlite3
from contextlib import closing

import geopandas as gpd
import pyogrio
import pystac
import pytest

from geoaudit import geopackage as gpkg
from geoaudit.report.geodata import geopackage, neurons_geoparquet, stac_item


def test_the_geopackage_opens_with_styles_in_the_right_place(finished, tmp_path):
    path = tmp_path / "audit.gpkg"
    path.write_bytes(geopackage(finished))
    layers = {str(name) for name, _ in pyogrio.list_layers(path)}
    assert {"units", "findings", "hotspots"} <= layers
    units = gpd.read_file(path, layer="units")
    assert len(units) == 24
    assert set(units["status"]) == {"labelled", "weak", "abstained"}
    # The scene of the synthetic run lies at 15 degrees east, 48.7 north.
    west, south, east, north = units.total_bounds
    assert 14.99 < west < east < 15.1
    assert 48.6 < south < north < 48.8
    findings = gpd.read_file(path, layer="findings").set_index("id")
    assert findings.at["F001", "severity"] == "critical"
    assert findings.at["F001", "area_ha"] == 1240
    assert findings.at["F002", "geometry"] is None
    hot = gpd.read_file(path, layer="hotspots")
    assert len(hot) == len(finished.hotspots())
    styles = pyogrio.read_dataframe(path, layer="layer_styles")
    assert set(styles["f_table_name"]) == {"units", "findings", "hotspots"}
    assert all("<qgis" in qml for qml in styles["styleQML"])


def test_equal_runs_give_equal_geopackages(finished, monkeypatch):
    """However many transactions GDAL needed, which hangs on the clock, and whatever day it is."""
    first = geopackage(finished)
    styled = gpkg.add_styles

    def busy(path, styles):
        with closing(sqlite3.connect(path)) as database:
            for number in range(3):
                database.execute("UPDATE gpkg_contents SET last_change = ?", (f"203{number}",))
                database.commit()
        styled(path, styles)

    monkeypatch.setattr(gpkg, "add_styles", busy)
    monkeypatch.setenv("OGR_CURRENT_DATE", "2031-05-06T07:08:09.000Z")
    assert geopackage(finished) == first


def test_a_units_geometry_is_where_its_top_images_lie(finished):
    frame = gpd.read_parquet(io.BytesIO(neurons_geoparquet(finished))).set_index("unit")
    assert frame.crs == "EPSG:4326"
    metric = frame.geometry.to_crs("EPSG:32633")
    # Ten tiles of 640 m; a tile seen twice (as image and as crop) counts once.
    tiles = len({view.image for view in finished.unit("layer4/5").top_images})
    assert metric["layer4/5"].area == pytest.approx(tiles * 640**2, rel=1e-3)
    assert frame.at["layer4/5", "label"] == finished.unit("layer4/5").label


@pytest.mark.parametrize("name", ["hostile", "unfinished", "empty"])
def test_bad_and_unfinished_runs_still_give_files(name, request, tmp_path):
    results = request.getfixturevalue(name)
    path = tmp_path / "audit.gpkg"
    path.write_bytes(geopackage(results))
    units = gpd.read_file(path, layer="units")
    assert len(units) == len(results.unit_ids)
    for label in units["label"]:
        assert "\x00" not in str(label)
        assert "\n" not in str(label)
    assert len(gpd.read_parquet(io.BytesIO(neurons_geoparquet(results)))) == len(results.unit_ids)
    assert json.loads(stac_item(results))["properties"]["geoaudit:state"] == results.state


def test_the_stac_item_is_read_by_pystac_and_points_at_the_audit(finished):
    item = pystac.Item.from_dict(json.loads(stac_item(finished)))
    assert item.assets["audit.json"].media_type == "application/json"
    assert item.properties["mlm:name"] == "resnet18-landcover"
    assert item.properties["mlm:output"][0]["classification:classes"][0]["name"] == "forest"
    assert item.properties["start_datetime"] == "2021-06-13T00:00:00Z"
    assert item.bbox[0] == pytest.approx(15.0, abs=0.01)
    assert item.properties["geoaudit:verdict"] == "red"
