"""Maps of units on disk: georeferenced, described, identical from run to run, and refused with one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import nn

from dnd_core.errors import NetworkError, ProbeError
from dnd_core.layers import list_layers
from dnd_core.networks import Network
from dnd_core.types import UnitId
from geoaudit.scenes import open_scene
from geoaudit.spatial import SpatialError, map_units
from tests.geoaudit.hand_made import UTM, ArrayScene, TwoPart, conv, maps_of, network, noise


def brightness_network():
    """Class "bright" where the first band exceeds 0.5, from two bands named out of order in the scene."""
    net = TwoPart(conv([[[[1]], [[0]]], [[[0]], [[1]]]]), 2)
    net.head.weight.data = torch.tensor([[-40.0, 0.0], [40.0, 0.0]])
    net.head.bias.data = torch.tensor([20.0, -20.0])
    return Network(net, lambda pixels: pixels, (2, 8, 8), channels=("B04", "B08"), class_names=("dark", "bright"))


def write_scene(path, transform=UTM, crs="EPSG:32633", height=40, width=56, nodata=None):
    pixels = np.zeros((2, height, width), np.uint16)
    pixels[1, :, : width // 2] = 1000
    pixels[1, :, width // 2 :] = 9000
    pixels[0] = np.arange(height * width).reshape(height, width) + 1
    if nodata is not None:
        pixels[:, :8, :8] = nodata
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=2, dtype="uint16", crs=crs, transform=transform,
        nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        dataset.descriptions = ("B08", "B04")
    return open_scene(path, scale=1e-4)


def test_maps_on_disk_are_cogs_in_the_scenes_crs_with_words(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", nodata=0)
    net = brightness_network()
    unit, other = UnitId("body", 0), UnitId("body", 1)
    calls = []
    result = map_units(
        net, scene, [unit, other, unit], list_layers(net), tmp_path / "maps", labels={unit: 'bright "soil"\n<b>&'},
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls[-1] == (9 * 13, 9 * 13)
    assert list(result.maps) == [unit, other]
    assert result.maps[unit] == tmp_path / "maps" / "body" / "0.tif"
    with rasterio.open(result.maps[unit]) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.descriptions == ('body/0: bright "soil" <b>&',)
        assert str(dataset.crs) == "EPSG:32633"
        assert dataset.transform == UTM
        assert np.isnan(dataset.nodata)
        values = dataset.read(1)
    expected = scene.read(bands=["B04"])[0][0]
    expected[:8, :8] = np.nan
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    with rasterio.open(result.class_map) as dataset:
        assert (dataset.dtypes, dataset.nodata) == (("uint8",), 255)
        assert dataset.tags(1)["CLASS_1"] == "bright"
        assert len({dataset.colormap(1)[index] for index in (0, 1, 255)}) == 3
        classes = dataset.read(1)
        assert dataset.transform == Affine(40, 0, 500_000, 0, -40, 6_000_000)
    assert classes[0, 0] == 255
    assert (classes[3:, :6] == 0).all()
    assert (classes[:, 8:] == 1).all()
    with rasterio.open(result.probability) as dataset:
        assert np.nanmin(dataset.read(1)) >= 0.5
        assert dataset.read(1)[-1, -1] == pytest.approx(1, abs=1e-4)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["body", "classes.qml", "classes.tif", "probability.qml", "probability.tif"]
    ramp = ElementTree.parse(tmp_path / "maps" / "body" / "0.qml").find(".//rasterrenderer")
    assert float(ramp.get("classificationMax")) == pytest.approx(np.nanmax(expected))
    palette = ElementTree.parse(tmp_path / "maps" / "classes.qml").findall(".//paletteEntry")
    assert [entry.get("label") for entry in palette] == ["dark", "bright"]


def test_large_maps_have_overviews_and_int16_maps_keep_their_values(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", height=300, width=600)
    net, unit = brightness_network(), UnitId("body", 0)
    result = map_units(
        net, scene, [unit], list_layers(net), tmp_path / "maps", resolution=1, overlap=0.0, encoding="int16"
    )
    with rasterio.open(result.maps[unit]) as dataset:
        assert dataset.overviews(1)
        assert (dataset.dtypes, dataset.nodata) == (("int16",), -32768)
        values = dataset.read(1) * dataset.scales[0]
    np.testing.assert_allclose(values, scene.read(bands=["B04"])[0][0], atol=0.9 / 32767)
    with rasterio.open(result.class_map) as dataset:
        assert set(np.unique(dataset.read(1, out_shape=(75, 150)))) == {0, 1}  # MODE invents no class between


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:4326", Affine(1e-4, 0, 13.0, 0, -1e-4, 52.5)), ("EPSG:3035", Affine(10, 0, 4_500_000, 0, -10, 3_300_000))],
)
def test_any_crs_keeps_every_corner(tmp_path, crs, transform):
    scene = write_scene(tmp_path / "scene.tif", transform=transform, crs=crs, height=21, width=30)
    net, unit = brightness_network(), UnitId("body", 0)
    result = map_units(net, scene, [unit], list_layers(net), tmp_path / "maps", resolution=4)
    with rasterio.open(result.maps[unit]) as dataset:
        assert str(dataset.crs) == crs
        assert dataset.shape == (6, 8)
        assert dataset.transform.a == pytest.approx(4 * transform.a)
        assert (dataset.bounds.left, dataset.bounds.top) == pytest.approx((transform.c, transform.f))


def test_identical_inputs_give_identical_bytes(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    net, unit = brightness_network(), UnitId("body", 1)
    first, second = (map_units(net, scene, [unit], list_layers(net), tmp_path / name) for name in ("a", "b"))
    assert first.maps[unit].read_bytes() == second.maps[unit].read_bytes()
    assert first.class_map.read_bytes() == second.class_map.read_bytes()


def test_batches_do_not_change_the_map():
    scene, net = ArrayScene(noise(1, 30, 41)), network(nn.AvgPool2d(2), 1)
    np.testing.assert_allclose(maps_of(net, scene, batch_size=1), maps_of(net, scene, batch_size=50), rtol=1e-6)


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = conv([[[[1]]]])

    def forward(self, pixels):
        return torch.cat([self.body(pixels), -pixels], dim=1) * 20


def test_a_segmentation_network_gets_a_class_for_every_pixel(tmp_path):
    pixels = noise(1, 20, 24)
    net = Network(Segmenter(), lambda x: x, (1, 8, 8))
    result = map_units(net, ArrayScene(pixels), [], list_layers(net), tmp_path)
    with rasterio.open(result.class_map) as dataset:
        np.testing.assert_array_equal(dataset.read(1), (pixels[0] < 0).astype(np.uint8))
        assert dataset.tags(1)["CLASS_0"] == "class 0"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"scene": ArrayScene(noise(1, 16, 16), bands=("B04",))}, ProbeError, "lack band B08"),
        ({"units": [UnitId("body", 2)]}, SpatialError, "units 0 to 1"),
        ({"units": [UnitId("nowhere", 0)]}, SpatialError, "'nowhere' is not among"),
        ({"layers": []}, SpatialError, "'body' is not among the layers given: none"),
        ({"layers": [], "units": []}, SpatialError, "needs the layer 'output'"),
        ({"overlap": 1.0}, SpatialError, "overlap"),
        ({"chip": (0, 8)}, SpatialError, "chip size"),
        ({"trim": 3}, SpatialError, "leaves gaps"),
        ({"resolution": 0}, SpatialError, "resolution"),
        ({"batch_size": 0}, SpatialError, "batch_size"),
        ({"scene": ArrayScene(np.full((2, 16, 16), np.inf), bands=("B04", "B08"))}, NetworkError, "NaN or infinity"),
    ],
)
def test_bad_input_is_one_clear_sentence_and_leaves_nothing(tmp_path, change, error, words):
    net = brightness_network()
    scene = ArrayScene(noise(2, 16, 16), bands=("B08", "B04"))
    call = {"scene": scene, "units": [UnitId("body", 0)], "layers": list_layers(net)}
    settings = {**call, **change}
    with pytest.raises(error, match=words):
        map_units(net, settings.pop("scene"), settings.pop("units"), settings.pop("layers"), tmp_path / "m", **settings)
    assert not (tmp_path / "m").exists() or not any((tmp_path / "m").iterdir())


def test_more_classes_than_a_byte_and_unwritable_folders_are_refused(tmp_path):
    net = Network(TwoPart(conv([[[[1]]]]), 1, classes=300), lambda x: x, (1, 8, 8))
    scene = ArrayScene(noise(1, 16, 16))
    with pytest.raises(SpatialError, match="at most 255 classes"):
        map_units(net, scene, [], list_layers(net), tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpatialError, match="cannot be written"):
        map_units(net, scene, [UnitId("body", 0)], list_layers(net), tmp_path / "file", class_map=False)


def test_a_nameless_network_of_another_band_count_is_refused():
    net = network(conv([[[[1]]]]), 1)
    with pytest.raises(SpatialError, match="has 2 bands"):
        maps_of(net, ArrayScene(noise(2, 16, 16)))


def test_an_unlike_scene_answer_is_refused():
    scene = ArrayScene(noise(1, 16, 16))
    short = SimpleNamespace(
        crs=scene.crs, transform=UTM, width=16, height=16, bands=scene.bands,
        read=lambda window, bands=None: (np.zeros((1, 2, 2), np.float32), np.ones((2, 2), bool)),
    )  # fmt: skip
    with pytest.raises(SpatialError, match="answered"):
        maps_of(network(conv([[[[1]]]]), 1), short)
