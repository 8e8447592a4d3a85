"""Sliding passes against hand-made networks whose maps are known to the pixel."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from dnd_core.layers import LayerInfo, list_layers
from dnd_core.networks import Network
from geoaudit.spatial import SlidingPass, SpatialError, measure_offsets, slide
from geoaudit.windows import plan_windows
from tests.geoaudit.hand_made import UTM, ArrayScene, conv, maps_of, network, noise


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
