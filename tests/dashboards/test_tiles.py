"""Our own routes: what they draw, and that nothing but the run's own layers comes out of them."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboards.layers import activation_range, grid_of
from dashboards.painting import CLASS_COLOURS, colour_table
from dashboards.tiles import routes
from geoaudit.results import open_run


@pytest.fixture
def client(sound_run, shown):
    shown(sound_run)
    with TestClient(Starlette(routes=routes(""))) as opened:
        yield opened


def pixels(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGBA"))


ZOOM = 13


def place_of(longitude, latitude):
    """Column and row of a place on the world's grid of tiles, as fractions."""
    n, angle = 2**ZOOM, np.radians(latitude)
    return (longitude + 180) / 360 * n, (1 - np.log(np.tan(angle) + 1 / np.cos(angle)) / np.pi) / 2 * n


def window(root):
    """First and last column and row of the tiles over the scene."""
    west, south, east, north = grid_of(root / "scene" / "scene-a.tif").bounds
    (left, top), (right, bottom) = place_of(west, north), place_of(east, south)
    return int(left), int(top), int(right), int(bottom)


def get(client, root, layer, **query):
    x, y, _, _ = window(root)
    return client.get(f"/layers/tile/{ZOOM}/{x}/{y}.png", params={"layer": layer, **query})


def mosaic(client, root, layer, **query):
    """All tiles over the scene as one picture."""
    left, top, right, bottom = window(root)

    def one(x, y):
        found = pixels(client.get(f"/layers/tile/{ZOOM}/{x}/{y}.png", params={"layer": layer, **query}))
        return found if found.shape[0] == 256 else np.zeros((256, 256, 4), dtype=np.uint8)

    return np.concatenate(
        [np.concatenate([one(x, y) for x in range(left, right + 1)], axis=1) for y in range(top, bottom + 1)]
    )


def pixel_of(root, longitude, latitude):
    left, top, _, _ = window(root)
    x, y = place_of(longitude, latitude)
    return int((y - top) * 256), int((x - left) * 256)


MIDDLE = (15.026, 48.735)


def test_an_activation_is_drawn_in_its_colours(client, sound_run):
    from dashboards.places import sample

    path = sound_run / "maps" / "layer4" / "5.tif"
    picture = mosaic(client, sound_run, "unit:layer4/5", colours="cividis")
    low, high = activation_range(path)
    for longitude, latitude in (MIDDLE, (15.01, 48.73), (15.04, 48.745)):
        value = sample(path, longitude, latitude)
        wanted = colour_table("cividis")[int(np.clip((value - low) / (high - low), 0, 1) * 255)]
        row, column = pixel_of(sound_run, longitude, latitude)
        # Half a pixel of a smooth map: a few steps of the colour scale.
        assert np.abs(picture[row, column, :3].astype(int) - wanted).max() < 16
        assert picture[row, column, 3] == 255


def test_what_is_weaker_than_the_threshold_is_clear(client, sound_run):
    all_of_it = mosaic(client, sound_run, "unit:layer4/5")[..., 3]
    strong = mosaic(client, sound_run, "unit:layer4/5", least="0.8")[..., 3]
    assert 0 < (strong > 0).sum() < 0.6 * (all_of_it > 0).sum()
    assert not ((strong > 0) & (all_of_it == 0)).any()


def test_classes_and_tiles_have_the_colours_of_the_legend(client, sound_run):
    legend = {tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5)) for colour in CLASS_COLOURS[:5]}
    for layer in ("classes", "truth"):
        seen = mosaic(client, sound_run, layer)
        used = {tuple(colour) for colour in seen[seen[..., 3] == 255][:, :3].tolist()}
        assert used
        assert used <= legend
    results = open_run(sound_run)
    wrong = (results.images["label"] != results.images["predicted"]).mean()
    covered = (mosaic(client, sound_run, "errors")[..., 3] > 0).sum() / (
        mosaic(client, sound_run, "truth")[..., 3] > 0
    ).sum()
    assert 0 < covered < 1
    assert covered == pytest.approx(wrong, abs=0.05)


def test_a_group_is_as_strong_as_its_strongest_member(client, sound_run):
    results = open_run(sound_run)
    members = [unit for unit in results.group_units(0) if unit in results.maps()]
    assert members
    group = mosaic(client, sound_run, "group:0", least="0.5")[..., 3] > 0
    for unit in members:
        assert not ((mosaic(client, sound_run, f"unit:{unit}", least="0.5")[..., 3] > 0) & ~group).any()


def test_the_style_names_only_this_server(client):
    style = client.get("/layers/style.json", params={"layer": "unit:layer4/5", "spots": "1", "opacity": "0.4"}).json()
    assert [layer["id"] for layer in style["layers"]] == ["background", "scene", "over", "spots-halo", "spots-line"]
    assert style["layers"][2]["paint"]["raster-opacity"] == 0.4
    addresses = [
        *style["sources"]["scene"]["tiles"],
        *style["sources"]["over"]["tiles"],
        style["sources"]["spots"]["data"],
    ]
    assert all(address.startswith("http://testserver/layers/") for address in addresses)
    spots = client.get(addresses[-1]).json()
    assert spots["features"]
    west, south = spots["features"][0]["geometry"]["coordinates"][0][0]
    assert 14.9 < west < 15.2
    assert 48.5 < south < 48.8


def test_below_a_base_path_every_address_has_it(sound_run, shown):
    shown(sound_run, base="/audits/7")
    with TestClient(Starlette(routes=routes("/audits/7"))) as client:
        style = client.get("/audits/7/layers/style.json").json()
        assert "/audits/7/layers/tile/" in style["sources"]["scene"]["tiles"][0]
        assert client.get("/layers/style.json").status_code == 404


@pytest.mark.parametrize(
    "address",
    [
        "/layers/tile/1/0/0.png?layer=unit:../../../etc/passwd/1",
        "/layers/tile/1/0/0.png?layer=unit:layer4/999",
        "/layers/tile/1/0/0.png?layer=/etc/passwd",
        "/layers/tile/1/0/0.png?layer=group:../0",
        "/layers/tile/1/0/0.png?layer=group:99",
        "/layers/tile/1/0/0.png?scene=../scene/scene-a",
        "/layers/tile/1/0/0.png?scene=%00",
        "/layers/tile/1/0/0.png?colours=__class__",
        "/layers/tile/1/0/0.png?bands=1,2,9",
        "/layers/tile/1/0/0.png?bands=a,b,c",
        "/layers/tile/1/5/0.png",
        "/layers/tile/99/0/0.png",
        "/layers/tile/-1/0/0.png",
        "/layers/tile/1/0/0.png?least=many",
        "/layers/image/999999.png",
        "/layers/image/..%2f..%2fetc%2fpasswd.png",
        "/layers/image/1.png?box=9,9,1,1",
        "/layers/image/1.png?box=a,b,c,d",
        "/layers/concept/0.png?concept=../../scene/scene-a.tif",
        "/layers/concept/99.png?concept=haze",
        "/layers/report/manifest.json",
        "/layers/report/..%2fmanifest.json",
        "/layers/report/../../../../etc/passwd",
        "/layers/report/pdf",
        "/layers/hotspots.geojson?scene=../../x",
        "/layers/hotspots.geojson?layer=unit:nothing/0",
        "/layers/style.json?layer=unit:layer9/0",
        "/layers/../manifest.json",
        "/layers/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_what_is_no_layer_of_the_run_is_refused(client, address):
    response = client.get(address)
    assert response.status_code == 404
    assert len(response.content) < 500


def test_part_of_a_tile_is_outlined(client, sound_run):
    plain = pixels(client.get("/layers/image/3.png"))
    boxed = pixels(client.get("/layers/image/3.png", params={"box": "8,8,40,40"}))
    factor = boxed.shape[0] // plain.shape[0]
    plain = plain.repeat(factor, axis=0).repeat(factor, axis=1)
    assert plain.shape == boxed.shape == (192, 192, 4)
    changed = (plain != boxed).any(axis=2)
    assert changed[24:28, 24:120].all()
    assert not changed[30:116, 30:116].any()
    assert not changed[:24].any()


def test_reports_come_as_downloads_only(client, tmp_path, sound_run, shown):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    (root / "report.html").write_text("<script>1</script>")
    shown(root)
    response = client.get("/layers/report/html")
    assert response.status_code == 200
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_damaged_and_hostile_runs_draw_what_they_can(damaged_run, hostile_run, empty_run, shown):
    with TestClient(Starlette(routes=routes(""))) as client:
        shown(damaged_run)
        assert mosaic(client, damaged_run, "unit:layer4/4").any()
        assert get(client, damaged_run, "unit:layer4/5").status_code == 404
        assert client.get("/layers/image/1.png").status_code == 404
        assert client.get("/layers/hotspots.geojson?layer=unit:layer4/4").json()["features"] == []
        shown(hostile_run)
        assert mosaic(client, hostile_run, "unit:layer4/5").any()
        shown(empty_run)
        assert client.get("/layers/style.json").status_code == 404
        assert client.get("/layers/tile/0/0/0.png").status_code == 404


def test_a_scene_of_more_bands_is_shown_in_any_three(tmp_path, sound_run, shown):
    import rasterio

    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    path = root / "scene" / "scene-a.tif"
    with rasterio.open(path) as raster:
        profile, values = raster.profile, raster.read()
    profile.update(driver="GTiff", count=4)
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.concatenate([values, np.full_like(values[:1], 200)]))
    shown(root)
    with TestClient(Starlette(routes=routes(""))) as client:
        place = pixel_of(root, *MIDDLE)
        natural = mosaic(client, root, "scene")
        false = mosaic(client, root, "scene", bands="4,1,2")[place]
        assert false[0] == 200
        assert false[1:3].tolist() == natural[place][:2].tolist()
        stretched = mosaic(client, root, "scene", stretch="1")
        assert stretched[..., :3].std() > natural[..., :3].std()


def test_the_survey_shows_the_layer_the_hot_spots_and_the_footprint(client, sound_run):
    scene, unit = (
        pixels(client.get("/layers/survey.png", params={"layer": layer})) for layer in ("scene", "unit:layer4/5")
    )
    assert scene.shape == unit.shape
    with_it = pixels(client.get("/layers/survey.png", params={"layer": "unit:layer4/5", "finding": "F001"}))
    orange = (with_it[..., :3] == (230, 159, 0)).all(axis=2)
    assert 20 < orange.sum() < 0.2 * orange.size
    assert not (unit[..., :3] == (230, 159, 0)).all(axis=2).any()
    # Yellow, the top of the scale, where the unit fires; white where hot spots end.
    assert ((unit[..., :3] == 255).all(axis=2)).sum() > 20
    assert (unit != scene).any(axis=2).mean() > 0.5
    for wrong in ({"layer": "unit:layer4/999"}, {"finding": "F999"}, {"scene": "../x"}):
        assert client.get("/layers/survey.png", params=wrong).status_code == 404


@pytest.mark.parametrize(
    "shape",
    [
        None, {"type": "Point", "coordinates": [15.0, 48.7]}, {"type": "Polygon", "coordinates": "x"},
        {"type": "Polygon", "coordinates": [["a", [1]], [[15.0, "b"], None]]},
        {"type": "MultiPolygon", "coordinates": [1, [[[15.0, 48.7], [15.1, 48.7], [15.1, 48.8]]]]},
    ],
)  # fmt: skip
def test_outlines_without_sound_coordinates_are_left_out(sound_run, shape):
    from dashboards.survey import survey

    assert survey(sound_run / "scene" / "scene-a.tif", None, None, shape).startswith(b"\x89PNG")


def test_pictures_without_an_outline_come_as_they_are(client, sound_run):
    response = client.get("/layers/image/3.png")
    assert response.content == (sound_run / "thumbnails" / "000003.png").read_bytes()
    assert "max-age" in response.headers["cache-control"]
