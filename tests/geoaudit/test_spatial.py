"""Sliding passes against hand-made networks whose maps are known to the pixel."""

from __future__ import annotations

import gc
import tracemalloc
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import nn

from dnd_core.errors import NetworkError, ProbeError
from dnd_core.layers import LayerInfo, list_layers
from dnd_core.networks import Network
from dnd_core.types import UnitId
from geoaudit.scenes import open_scene
from geoaudit.spatial import SlidingPass, SpatialError, map_units, measure_offsets, slide
from geoaudit.windows import plan_windows

UTM = Affine(10, 0, 500_000, 0, -10, 6_000_000)


class ArrayScene:
    """A scene in memory."""

    def __init__(self, pixels, valid=None, crs="EPSG:32633", transform=UTM, bands=None):
        self.pixels = np.asarray(pixels, dtype=np.float32)
        self.valid = np.ones(self.pixels.shape[1:], bool) if valid is None else valid
        self.crs, self.transform = crs, transform
        self.height, self.width = self.valid.shape
        self.bands = bands or tuple(f"band{i}" for i in range(len(self.pixels)))

    def read(self, window=None, *, bands=None):
        order = [self.bands.index(name) for name in bands or self.bands]
        rows = slice(window.row_off, window.row_off + window.height)
        columns = slice(window.col_off, window.col_off + window.width)
        return self.pixels[order, rows, columns], self.valid[rows, columns]


class TwoPart(nn.Module):
    """A convolution to look at, and a classifier behind it."""

    def __init__(self, body, units, classes=2):
        super().__init__()
        self.body = body
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(units, classes)

    def forward(self, pixels):
        return self.head(self.pool(self.body(pixels)).flatten(1))


def conv(weights, **settings):
    weights = torch.as_tensor(np.asarray(weights), dtype=torch.float32)
    layer = nn.Conv2d(weights.shape[1], weights.shape[0], tuple(weights.shape[2:]), bias=False, **settings)
    layer.weight.data = weights
    return layer


def network(body, units, chip=8, bands=1, **settings):
    return Network(TwoPart(body, units), lambda pixels: pixels, (bands, chip, chip), **settings)


def maps_of(net, scene, units=(0,), **settings):
    return slide(net, scene, {"body": units}, list_layers(net), **settings)["body"]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_an_identity_network_returns_the_scene_pixel_for_pixel():
    scene = ArrayScene(noise(2, 37, 22))
    net = network(conv([[[[1]], [[0]]], [[[0]], [[1]]]]), 2, bands=2)
    for overlap in (0.0, 0.3, 0.5, 0.75):
        np.testing.assert_allclose(maps_of(net, scene, (0, 1), overlap=overlap), scene.pixels, rtol=2e-6, atol=1e-6)


def test_only_the_units_asked_for_come_back_in_the_order_asked():
    scene = ArrayScene(noise(2, 16, 16))
    net = network(conv([[[[1]], [[0]]], [[[0]], [[1]]]]), 2, bands=2)
    np.testing.assert_allclose(maps_of(net, scene, (1,)), scene.pixels[1:], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(maps_of(net, scene, (1, 0)), scene.pixels[::-1], rtol=2e-6, atol=1e-6)


def test_a_strided_convolution_is_placed_on_the_pixels_it_saw():
    scene = ArrayScene(noise(1, 24, 16))
    net = network(conv([[[[0, 0], [0, 1]]]], stride=2), 1)
    own = maps_of(net, scene)
    np.testing.assert_allclose(own[0], scene.pixels[0, 1::2, 1::2], rtol=2e-6, atol=1e-6)
    full = maps_of(net, scene, resolution=1)
    np.testing.assert_allclose(full[0], np.kron(scene.pixels[0, 1::2, 1::2], np.ones((2, 2))), rtol=2e-6, atol=1e-6)


def test_a_padded_odd_kernel_is_found_to_look_up_and_left_and_is_put_right():
    # three 3 x 3 convolutions of stride 2 with padding: cell j is centred on pixel 8 j, not on 8 j + 3.5
    body = nn.Sequential(*(conv(np.full((1, 1, 3, 3), 1 / 9), stride=2, padding=1) for _ in range(3)))
    net = network(body, 1, chip=64)
    layers = list_layers(net)
    offsets = measure_offsets(net, [info for info in layers if info.name == "body"])
    assert offsets == {"body": (-3.5, -3.5)}
    assert not any(module._forward_hooks for module in net.module.modules())
    pixels = np.zeros((1, 96, 96), np.float32)
    row, column = 44, 52
    pixels[0, row, column] = 1.0
    centres = {}
    for name, given in (("rectangles", None), ("measured", offsets)):
        lit = maps_of(net, ArrayScene(pixels), resolution=1, offsets=given)[0]
        weight = lit / lit.sum()
        centres[name] = (weight.sum(axis=1) @ np.arange(96), weight.sum(axis=0) @ np.arange(96))
    assert np.abs(np.subtract(centres["measured"], (row, column))).max() < 0.5
    assert np.subtract(centres["rectangles"], (row, column)).min() > 3


def test_cells_that_are_rectangles_have_no_offset_and_offsets_are_checked():
    net = network(nn.Sequential(nn.AvgPool2d(4), nn.ReLU(inplace=True)), 1, chip=32)
    layers = [info for info in list_layers(net) if info.spatial]
    assert set(measure_offsets(net, layers).values()) == {(0.0, 0.0)}
    scene = ArrayScene(np.full((1, 40, 40), 0.3))
    moved = maps_of(net, scene, resolution=1, offsets={"body": (-2.0, 1.5)})
    np.testing.assert_allclose(moved, 0.3, rtol=1e-5)
    with pytest.raises(SpatialError, match="less than one of its cells"):
        maps_of(net, scene, offsets={"body": (4.0, 0.0)})
    blind = Network(net.module, lambda pixels: pixels.detach(), (1, 32, 32))
    with pytest.raises(SpatialError, match="no gradient passes"):
        measure_offsets(blind, layers)


def test_a_single_bright_pixel_lights_exactly_its_own_cell():
    for row, column in ((0, 0), (5, 11), (23, 15), (12, 3)):
        pixels = np.zeros((1, 24, 16), np.float32)
        pixels[0, row, column] = 16.0
        net = network(nn.AvgPool2d(4), 1)
        lit = maps_of(net, ArrayScene(pixels))[0]
        expected = np.zeros((6, 4))
        expected[row // 4, column // 4] = 1.0
        np.testing.assert_allclose(lit, expected, atol=1e-6)


def shared(pixel, cell, size):
    """Length that pixel [p, p + 1) and cell [c size, (c + 1) size) have in common."""
    return max(0.0, min(pixel + 1, (cell + 1) * size) - max(pixel, cell * size))


def slow_map(net, scene, units, resolution, overlap, trim):
    """Every pixel of every window, one at a time."""
    chip = net.input_shape[1]
    plan = plan_windows(scene.height, scene.width, (chip, chip), overlap, trim)
    sums = np.zeros((len(units), scene.height, scene.width))
    weights = np.zeros((scene.height, scene.width))
    for top in plan.rows.starts:
        for left in plan.columns.starts:
            window = torch.from_numpy(scene.pixels[None, :, top : top + chip, left : left + chip])
            cells = net.module.body(window)[0].numpy()[list(units)]
            high, wide = chip / cells.shape[1], chip / cells.shape[2]
            down, across = plan.rows.weights(top), plan.columns.weights(left)
            for y in range(chip):
                for x in range(chip):
                    weight = down[y] * across[x]
                    value = np.zeros(len(units))
                    for i in range(cells.shape[1]):
                        for j in range(cells.shape[2]):
                            value += shared(y, i, high) * shared(x, j, wide) * cells[:, i, j]
                    sums[:, top + y, left + x] += weight * value
                    weights[top + y, left + x] += weight
    rows, columns = -(-scene.height // resolution), -(-scene.width // resolution)
    answer = np.zeros((len(units), rows, columns))
    for r in range(rows):
        for c in range(columns):
            area = (slice(r * resolution, (r + 1) * resolution), slice(c * resolution, (c + 1) * resolution))
            answer[:, r, c] = sums[(slice(None), *area)].sum(axis=(1, 2)) / weights[area].sum()
    return answer


@pytest.mark.parametrize(("resolution", "overlap", "trim"), [(1, 0.5, 0), (3, 0.3, 1), (2, 0.0, 0), (5, 0.7, 1)])
def test_fractional_cells_and_any_output_grid_equal_the_slow_reference(resolution, overlap, trim):
    scene = ArrayScene(noise(1, 19, 13))
    net = network(nn.Sequential(conv(noise(2, 1, 3, 3, seed=1), padding=1), nn.AdaptiveAvgPool2d(3)), 2)
    fast = maps_of(net, scene, (1, 0), resolution=resolution, overlap=overlap, trim=trim)
    slow = slow_map(net, scene, (1, 0), resolution, overlap, trim)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)


def test_a_constant_scene_gives_a_constant_map_without_seams():
    scene = ArrayScene(np.full((1, 45, 31), 0.3))
    net = network(nn.Sequential(conv(noise(3, 1, 1, 1)), nn.ReLU(), nn.AvgPool2d(2)), 3)
    for overlap in (0.0, 0.5, 0.8):
        maps = maps_of(net, scene, (0, 1, 2), overlap=overlap)
        np.testing.assert_allclose(maps, np.broadcast_to(maps[:, :1, :1], maps.shape), rtol=1e-5)


def test_a_shift_equivariant_network_equals_a_dense_pass_inside():
    scene = ArrayScene(noise(1, 40, 52))
    body = nn.Sequential(conv(noise(4, 1, 3, 3), padding=1), nn.ReLU(), conv(noise(2, 4, 3, 3, seed=1), padding=1))
    net = network(body, 2, chip=16)
    dense = body(torch.from_numpy(scene.pixels[None]))[0].detach().numpy()
    trimmed = maps_of(net, scene, (0, 1), trim=2)
    np.testing.assert_allclose(trimmed, dense, rtol=1e-4, atol=1e-4)
    blended = maps_of(net, scene, (0, 1))
    assert np.abs(blended - dense).mean() < 0.1 * np.abs(dense).mean()
    assert np.abs(blended - dense).max() > 0.01  # without trimming the chips' padded rims are blended in


def test_pixels_without_data_are_empty_and_leave_no_edge_beside_them():
    valid = np.ones((24, 24), bool)
    valid[:, :7] = False
    pixels = np.where(valid, 0.5, 0.0)[None]
    net = network(conv([[[[-1, 0, 1]]]], padding=(0, 1)), 1)
    edge = maps_of(net, ArrayScene(pixels, valid), trim=1)[0]
    assert np.isnan(edge[:, :7]).all()
    np.testing.assert_allclose(edge[:, 7:-1], 0, atol=1e-6)
    zeros_shown = maps_of(net, ArrayScene(pixels), trim=1)[0]
    assert zeros_shown[:, 7].min() > 0.2  # what a network makes of zeros that nobody declared


def test_a_cell_is_known_when_half_of_its_pixels_are():
    valid = np.ones((8, 8), bool)
    valid[:4, :2] = False
    valid[4:, :2] = False
    valid[4:6, 2] = False
    net = network(nn.AvgPool2d(4), 1)
    empty = np.isnan(maps_of(net, ArrayScene(np.ones((1, 8, 8)), valid))[0])
    np.testing.assert_array_equal(empty, [[False, False], [True, False]])


def test_windows_without_data_never_reach_the_network():
    valid = np.zeros((64, 64), bool)
    valid[:8, :8] = True
    run = SlidingPass(
        net := network(conv([[[[1]]]]), 1), ArrayScene(noise(1, 64, 64), valid), {"body": [0]}, list_layers(net)
    )
    strips = list(run)
    assert run.windows == 4
    assert len(run.plan) == 225
    assert sum(np.isfinite(strip.values).sum() for strip in strips) == 64


@pytest.mark.parametrize("shape", [(3, 20), (5, 5), (1, 1), (8, 3)])
def test_a_scene_smaller_than_a_chip_is_mapped_whole(shape):
    scene = ArrayScene(noise(1, *shape))
    mapped = maps_of(network(conv([[[[1]]]]), 1), scene)
    np.testing.assert_allclose(mapped, scene.pixels, rtol=2e-6, atol=1e-6)


def test_another_chip_size_is_resampled_to_the_networks_own_and_placed_back():
    pixels = np.zeros((1, 32, 32), np.float32)
    pixels[0, 8:16, 16:24] = 1.0
    net = network(nn.AvgPool2d(4), 1, chip=8)  # 2 x 2 cells a chip; a chip of 16 pixels makes cells of 8
    mapped = maps_of(net, ArrayScene(pixels), chip=(16, 16))[0]
    assert mapped.shape == (4, 4)
    assert np.unravel_index(mapped.argmax(), mapped.shape) == (1, 2)
    assert mapped[1, 2] > 0.9


class Tokens(nn.Module):
    """Patch means as tokens behind one class token, channels last."""

    def __init__(self):
        super().__init__()
        self.patches = nn.AvgPool2d(4)
        self.body = nn.Identity()
        self.head = nn.Linear(1, 2)

    def forward(self, pixels):
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = self.body(torch.cat([torch.full_like(tokens[:, :1], 99.0), tokens], dim=1))
        return self.head(tokens[:, 0])


def test_tokens_lie_on_their_grid_and_the_class_token_nowhere():
    scene = ArrayScene(noise(1, 24, 16))
    net = Network(Tokens(), lambda pixels: pixels, (1, 8, 8))
    info = LayerInfo("body", "tokens", (5, 1), 1, prefix_tokens=1, grid=(2, 2))
    mapped = slide(net, scene, {"body": [0]}, [info])["body"][0]
    np.testing.assert_allclose(mapped, scene.pixels[0].reshape(6, 4, 4, 4).mean(axis=(1, 3)), rtol=1e-5, atol=1e-6)
    with pytest.raises(SpatialError, match="no known grid"):
        slide(net, scene, {"body": [0]}, [LayerInfo("body", "tokens", (5, 1), 1)])


def test_every_unit_is_summarised_in_the_same_pass():
    scene = ArrayScene(noise(1, 24, 16))
    net = network(conv(noise(3, 1, 1, 1)), 3)
    run = SlidingPass(net, scene, {"body": []}, list_layers(net), overlap=0.0)
    assert list(run) == []
    dense = net.module.body(torch.from_numpy(scene.pixels[None]))[0].flatten(1).numpy()
    statistics = run.statistics["body"]
    np.testing.assert_allclose(statistics.mean, dense.mean(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(statistics.std, dense.std(axis=1), rtol=1e-5)
    np.testing.assert_allclose(statistics.minimum, dense.min(axis=1))
    np.testing.assert_allclose(statistics.maximum, dense.max(axis=1))


class Lazy:
    """A scene as tall as one likes that takes no memory itself."""

    crs, transform, bands, width = "EPSG:32633", UTM, ("band0",), 96

    def __init__(self, height):
        self.height = height

    def read(self, window=None, *, bands=None):
        return np.ones((1, window.height, window.width), np.float32), np.ones((window.height, window.width), bool)


def test_memory_does_not_grow_with_the_height_of_the_scene():
    net = network(conv(np.ones((16, 1, 1, 1))), 16)
    layers = list_layers(net)
    peaks = []
    for height in (128, 128, 1024):  # the first run pays for imports
        gc.collect()
        tracemalloc.start()
        for strip in SlidingPass(net, Lazy(height), {"body": range(16)}, layers, overlap=0.0):
            del strip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]
    assert peaks[2] < 0.5 * 16 * 1024 * 96 * 4


def test_no_hook_remains_even_when_the_pass_is_abandoned():
    net = network(conv([[[[1]]]]), 1)
    iterator = iter(SlidingPass(net, ArrayScene(noise(1, 32, 32)), {"body": [0]}, list_layers(net)))
    next(iterator)
    assert net.module.body._forward_hooks
    iterator.close()
    assert not any(module._forward_hooks for module in net.module.modules())


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
