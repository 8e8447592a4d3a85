"""What the map shows beyond neurons: bands, labels, disagreement, applicability, two layers at once, several scenes, places."""

import json

import numpy as np
import pytest
import rasterio
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboards.layers import grid_of, renumbered
from dashboards.painting import BEYOND, class_colour
from dashboards.places import look, tiles_of
from dashboards.tiles import routes
from geoaudit.results import open_run
from tests.dashboards.test_pages import markup, open_page, words
from tests.dashboards.test_tiles import MIDDLE, mosaic, pixel_of, pixels

SCENE = {"scene": "scene-a"}


@pytest.fixture
def client(charted_run, shown):
    shown(charted_run)
    with TestClient(Starlette(routes=routes(""))) as opened:
        yield opened


def rgb(colour):
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def at(root, name, longitude, latitude, band=1):
    from dashboards.places import sample

    if band == 1:
        return sample(root / name, longitude, latitude)
    with rasterio.open(root / name) as raster:
        from rasterio.warp import transform

        (x,), (y,) = transform("EPSG:4326", raster.crs, [longitude], [latitude])
        return float(next(iter(raster.sample([(x, y)], indexes=band)))[0])


def places(root, count=12):
    """Points inside the first scene, away from its edges."""
    west, south, east, north = grid_of(root / "scene" / "scene-a.tif").bounds
    rng = np.random.default_rng(4)
    return [
        (west + (east - west) * u, south + (north - south) * v) for u, v in rng.uniform(0.15, 0.85, (count, 2)).tolist()
    ]


def test_any_three_bands_are_shown_in_their_values(client, charted_run):
    picture = mosaic(client, charted_run, "scene", bands="4,6,1", **SCENE)
    close = 0
    for longitude, latitude in places(charted_run):
        row, column = pixel_of(charted_run, longitude, latitude)
        wanted = [at(charted_run, "bands/scene-a.tif", longitude, latitude, band) for band in (4, 6, 1)]
        close += bool(np.abs(picture[row, column, :3].astype(float) - wanted).max() < 24)
    # A point near the border of two pixels may show the other one's values.
    assert close >= 9
    natural = mosaic(client, charted_run, "scene", **SCENE)
    assert (natural[..., :3] != picture[..., :3]).any(axis=2).mean() > 0.2


def test_a_stretch_leaves_out_what_it_says(client, charted_run):
    spread = [
        mosaic(client, charted_run, "scene", bands="3,2,1", stretch=step, **SCENE)[..., :3].astype(float).std()
        for step in ("", "2", "10")
    ]
    assert spread[0] < spread[1] < spread[2]
    x = client.get("/layers/tile/1/0/0.png", params={"layer": "scene", "stretch": "3", **SCENE})
    assert x.status_code == 404


def test_labels_have_the_colours_of_the_networks_classes(client, charted_run):
    results = open_run(charted_run)
    path = results.label_map("scene-a")
    # residential, farmland, forest, water in the network's numbers; glacier comes after its own.
    assert renumbered(results, "scene-a", path) == (3, 2, 0, 4, 5)
    picture = mosaic(client, charted_run, "labels", **SCENE)
    numbers = renumbered(results, "scene-a", path)
    for longitude, latitude in places(charted_run):
        row, column = pixel_of(charted_run, longitude, latitude)
        code = at(charted_run, "maps/labels.tif", longitude, latitude)
        near = picture[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 4).tolist()
        assert ([*rgb(class_colour(numbers[int(code)])), 255] if code is not None else [0, 0, 0, 0]) in [
            entry if entry[3] else [0, 0, 0, 0] for entry in near
        ]
    text = markup(open_page("map", layer="labels", **SCENE))
    assert "glacier" in text


def test_disagreement_is_where_class_and_label_differ(client, charted_run):
    classes, labels = (mosaic(client, charted_run, layer, **SCENE) for layer in ("classes", "labels"))
    found = mosaic(client, charted_run, "disagreement", **SCENE)
    both = (classes[..., 3] > 0) & (labels[..., 3] > 0)
    differ = both & (classes[..., :3] != labels[..., :3]).any(axis=2)
    assert ((found[..., 3] > 0) == differ).all()
    assert 0.05 < differ.sum() / both.sum() < 0.999
    assert (found[differ][:, :3] == classes[differ][:, :3]).all()


def test_beyond_the_area_of_applicability_is_hatched(client, charted_run):
    picture = mosaic(client, charted_run, "applicability", **SCENE)
    west, south, east, north = grid_of(charted_run / "scene" / "scene-a.tif").bounds
    row, left = pixel_of(charted_run, west + 0.25 * (east - west), (south + north) / 2)
    _, right = pixel_of(charted_run, west + 0.75 * (east - west), (south + north) / 2)
    assert (picture[row - 20 : row + 20, left - 20 : left + 20, 3] == 0).all()
    hatched = picture[row - 20 : row + 20, right - 20 : right + 20]
    assert (hatched[..., 3] > 0).all()
    stripes = (hatched[..., :3] == rgb(BEYOND)).all(axis=2)
    assert 0.3 < stripes.mean() < 0.45
    page = open_page("map", layer="applicability", **SCENE)
    assert "50.0 % of this map" in markup(page)
    assert "36 tiles" in markup(page)
    assert "nothing alike was audited above 0.50" in markup(open_page("map", layer="dissimilarity", **SCENE))


def test_two_layers_divided_by_a_line(client, charted_run):
    longitude = MIDDLE[0]
    style = client.get(
        "/layers/style.json", params={"layer": "classes", "other": "labels", "split": f"{longitude}", **SCENE}
    ).json()
    assert [layer["id"] for layer in style["layers"]] == [
        "background",
        "scene",
        "over",
        "other",
        "split-halo",
        "split-line",
    ]
    assert f"east={longitude:.6f}" in style["sources"]["over"]["tiles"][0]
    assert f"west={longitude:.6f}" in style["sources"]["other"]["tiles"][0]
    whole = mosaic(client, charted_run, "classes", **SCENE)
    west = mosaic(client, charted_run, "classes", east=longitude, **SCENE)
    east = mosaic(client, charted_run, "classes", west=longitude, **SCENE)
    _, column = pixel_of(charted_run, *MIDDLE)
    assert (west[:, : column - 1] == whole[:, : column - 1]).all()
    assert (west[:, column + 1 :, 3] == 0).all()
    assert (east[:, column + 1 :] == whole[:, column + 1 :]).all()
    assert (east[:, : column - 1, 3] == 0).all()
    # Nothing is lost and nothing is drawn twice.
    assert ((west[..., 3] > 0) ^ (east[..., 3] > 0) == (whole[..., 3] > 0)).all()


@pytest.mark.parametrize(
    "address",
    [
        "/layers/style.json?layer=classes&split=north",
        "/layers/style.json?layer=classes&split=181",
        "/layers/style.json?layer=classes&split=1&other=unit:x/1",
        "/layers/tile/1/0/0.png?layer=classes&east=nan",
        "/layers/tile/1/0/0.png?layer=applicability&scene=a-second",
        "/layers/tile/1/0/0.png?layer=labels&scene=a-second",
        "/layers/tile/1/0/0.png?layer=scene&bands=1,2,7&scene=scene-a",
        "/layers/chip.png?scene=scene-a&at=1,2",
        "/layers/chip.png?scene=scene-a&at=nowhere",
        "/layers/chip.png?scene=../x&at=15.02,48.74",
    ],
)
def test_what_the_scene_does_not_have_is_refused(client, address):
    response = client.get(address)
    assert response.status_code == 404
    assert len(response.content) < 500


def test_each_scene_is_shown_with_its_own_maps(client, charted_run):
    results = open_run(charted_run)
    assert list(results.scenes()) == ["a-second", "scene-a"]
    # The first by name is not the one whose maps lie directly under maps/.
    assert {str(unit) for unit in results.maps("a-second")} == {"layer4/2"}
    assert len(results.maps("scene-a")) == 12
    assert results.label_map("a-second") is None
    assert results.hotspots(scene="a-second") is None
    assert client.get("/layers/hotspots.geojson?scene=a-second&layer=unit:layer4/2").json()["features"] == []
    page = open_page("map", scene="a-second")
    options = page.selectbox(key="w-layer").options
    assert "Labels" not in options
    assert not any("tiles" in option for option in options)
    assert sum(option.startswith("layer4/") for option in options) == 1
    other = open_page("map", **SCENE).selectbox(key="w-layer").options
    assert {"Labels", "Where the classes differ from the labels", "Tiles decided wrongly"} <= set(other)


def test_the_page_offers_the_triples_that_the_bands_allow(charted_run, shown):
    shown(charted_run)
    page = open_page("map", **SCENE)
    assert page.selectbox(key="w-view").options[:2] == ["Natural colours", "False colour: vegetation red"]
    assert page.selectbox(key="w-stretch").value == ""
    page.selectbox(key="w-view").set_value("own").run()
    assert page.selectbox(key="w-red").options == ["B02", "B03", "B04", "B08", "B11", "B12"]
    assert page.selectbox(key="w-contrast").value == "2"
    deck = open_page("map", view="false", **SCENE).get("deck_gl_json_chart")[0]
    # Near infrared, red and green as red, green and blue.
    assert "bands=4%2C3%2C2" in json.loads(deck.proto.json)["mapStyle"]


def test_a_place_tells_the_class_the_label_and_whether_the_audit_speaks_of_it(charted_run, shown):
    shown(charted_run)
    results = open_run(charted_run)
    longitude, latitude = MIDDLE
    place = look(results, "scene-a", longitude, latitude)
    assert place.predicted == int(at(charted_run, "maps/classes.tif", longitude, latitude))
    assert place.probability == pytest.approx(0.5 + place.predicted / 10, abs=1e-5)
    assert place.unlike == pytest.approx((at(charted_run, "maps/applicability.tif", longitude, latitude), 0.5))
    page = open_page("map", place=f"{longitude},{latitude}", **SCENE)
    text = words(page)
    assert "48.73500° north, 15.02600° east" in text
    assert f"{results.class_names[place.predicted]} ({50 + 10 * place.predicted} % sure)" in text
    assert "area of applicability" in text
    assert "/layers/chip.png?scene=scene-a&amp;at=15.026000%2C48.735000" in text


def test_the_chip_is_the_scene_around_the_place(client, charted_run):
    picture = pixels(client.get("/layers/chip.png", params={"at": f"{MIDDLE[0]},{MIDDLE[1]}", **SCENE}))
    size = open_run(charted_run).manifest["probe"]["shape"][-1]
    factor = picture.shape[0] // size
    with rasterio.open(charted_run / "scene" / "scene-a.tif") as raster:
        from rasterio.warp import transform

        (x,), (y,) = transform("EPSG:4326", raster.crs, [MIDDLE[0]], [MIDDLE[1]])
        row, column = raster.index(x, y)
        values = raster.read()
    chip = picture[::factor, ::factor, :3]
    assert chip.shape[:2] == (size, size)
    assert (chip[size // 2, size // 2] == values[:, row, column]).all()


def test_a_place_outside_the_scene_is_said(charted_run, shown):
    shown(charted_run)
    page = open_page("map", place="3,4", **SCENE)
    assert not page.exception
    assert "lies outside the scene" in words(page)
    assert "chip.png" not in words(page)


def test_a_place_is_picked_without_a_mouse(charted_run, shown):
    shown(charted_run)
    page = open_page("map", **SCENE)
    west, south, east, north = grid_of(charted_run / "scene" / "scene-a.tif").bounds
    longitude = page.number_input(key="w-place-0")
    assert longitude.value == pytest.approx((west + east) / 2)
    assert (longitude.min, longitude.max) == (west, east)
    assert 0 < longitude.step < (east - west) / 20
    page = longitude.set_value(MIDDLE[0]).run()
    assert not page.exception
    assert page.query_params["place"] == f"{MIDDLE[0]:.6f},{(south + north) / 2:.6f}"
    page = page.number_input(key="w-place-1").set_value(MIDDLE[1]).run()
    assert "48.73500° north, 15.02600° east" in words(page)
    # A place from a click or a link moves the fields too.
    page = open_page("map", place="15.01,48.73", **SCENE)
    assert page.number_input(key="w-place-0").value == pytest.approx(15.01)


def test_side_by_side_and_divided_show_both_layers(charted_run, shown):
    shown(charted_run)
    page = open_page("map", layer="classes", compare="side", other="labels", **SCENE)
    assert not page.exception
    assert len(page.get("deck_gl_json_chart")) == 2
    page = open_page("map", layer="classes", compare="split", other="labels", at="0.25", **SCENE)
    (deck,) = page.get("deck_gl_json_chart")
    west, _, east, _ = grid_of(charted_run / "scene" / "scene-a.tif").bounds
    style = json.loads(deck.proto.json)["mapStyle"]
    assert "other=labels" in style
    assert f"split={west + 0.25 * (east - west):.6f}" in style
    text = markup(page)
    assert "West: Predicted classes" in text
    assert "East: Labels" in text


def test_tiles_of_the_probe_belong_to_the_scene_they_lie_in(charted_run):
    results = open_run(charted_run)
    tiles = tiles_of(results)
    assert tiles.over(grid_of(results.scenes()["scene-a"]).bounds).all()
    assert not tiles.over(grid_of(results.scenes()["a-second"]).bounds).any()


def test_damaged_rasters_leave_the_page_standing(tmp_path, charted_run, shown):
    import shutil

    root = tmp_path / "run"
    shutil.copytree(charted_run, root)
    for name in (
        "bands/scene-a.tif",
        "maps/labels.tif",
        "maps/applicability.tif",
        "maps/probability.tif",
        "maps/classes.tif",
    ):
        (root / name).write_bytes((root / name).read_bytes()[:200])
    shown(root)
    for layer in ("classes", "labels", "disagreement", "applicability", "dissimilarity", "probability"):
        page = open_page("map", layer=layer, view="false", place=f"{MIDDLE[0]},{MIDDLE[1]}", **SCENE)
        assert not page.exception, layer
    with TestClient(Starlette(routes=routes(""))) as client:
        for layer in ("classes", "labels", "disagreement", "applicability", "dissimilarity"):
            assert client.get("/layers/tile/1/0/0.png", params={"layer": layer, **SCENE}).status_code == 404
