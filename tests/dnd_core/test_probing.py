"""Probing in one pass equals the steps done one by one, resumes bit for bit, and refuses what it cannot do."""

import threading

import numpy as np
import pytest
import timm
import torch
from torch import nn

from dnd_core import probing
from dnd_core.config import ProbingConfig
from dnd_core.errors import ConfigError, NetworkError, ProbeError
from dnd_core.forward import prefetched
from dnd_core.images import ArrayImages, ProbeImage
from dnd_core.layers import LayerInfo, resolve
from dnd_core.networks import Network
from tests.reference import probing as slow

COUNT, SIDE = 23, 16


class Counting(nn.Module):
    """Two convolutional layers and a linear one; counts the images it has seen."""

    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 5, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 3)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.head(self.act(self.second(self.first(x))).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(3)
    return Network(Counting(), lambda pixels: pixels * 2 - 1, (3, SIDE, SIDE))


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    coarse = generator.random((COUNT, 3, 4, 4), dtype=np.float32)
    return ArrayImages(np.kron(coarse, np.ones((4, 4), dtype=np.float32)))


def fresh(layers, count=COUNT):
    return {info.name: np.full((count, info.units), np.nan, dtype=np.float32) for info in layers}


def probed(network, images, layers, config, **options):
    out = fresh(layers, len(images))
    probing.probe(network, images, layers, config, out=out, **options)
    return out


def test_every_layer_is_pooled_in_one_pass(network, images):
    layers = resolve(network, ["first", "second", "output"])
    network.module.seen = 0
    done = []
    out = probed(network, images, layers, ProbingConfig(batch_size=8), on_block=done.append)
    assert network.module.seen == COUNT
    assert done == [8, 16, 23]
    for i in (0, 7, 8, 22):
        for name in ("first", "second"):
            alone = slow.maps_of(network, name, images[i].pixels).mean((1, 2))
            assert out[name][i] == pytest.approx(alone, abs=1e-6)
        logits = network(torch.from_numpy(images.pixels([i])))[0].numpy()
        assert out["output"][i] == pytest.approx(logits, abs=1e-6)
    # The ReLU behind "second" works in place; what was pooled is what came before it.
    assert (out["second"] < 0).any()


def test_the_pooling_is_the_one_asked_for(network, images):
    layers = resolve(network, ["first"])
    largest = probed(network, images, layers, ProbingConfig(pooling="max"))["first"]
    assert largest[4] == pytest.approx(slow.maps_of(network, "first", images[4].pixels).max((1, 2)), abs=1e-6)
    with pytest.raises(ConfigError, match="first"):
        probed(network, images, layers, ProbingConfig(pooling="cls"))


def test_a_pass_cut_off_anywhere_resumes_to_the_same_bits(network, images, tmp_path):
    layers, config = resolve(network, ["first", "second"]), ProbingConfig(batch_size=4)
    whole = probed(network, images, layers, config)

    class CutError(Exception):
        pass

    for cut in (4, 12, 20):
        mapped = {
            info.name: np.lib.format.open_memmap(tmp_path / f"{cut}.{info.name}", "w+", np.float32, (COUNT, info.units))
            for info in layers
        }

        def stop(done, cut=cut):
            if done == cut:
                raise CutError

        with pytest.raises(CutError):
            probing.probe(network, images, layers, config, out=mapped, on_block=stop)
        assert not any(m._forward_hooks for m in network.module.modules())
        assert not mapped["first"][cut:].any()
        probing.probe(network, images, layers, config, out=mapped, start=cut)
        for name, array in mapped.items():
            assert array.tobytes() == whole[name].tobytes()
    probing.probe(network, images, layers, config, out=mapped, start=COUNT)


def test_bad_passes_are_refused(network, images):
    layers, config = resolve(network, ["first"]), ProbingConfig(batch_size=4)
    with pytest.raises(ProbeError, match="multiple of the batch size 4, not at image 6 of 23"):
        probing.probe(network, images, layers, config, out=fresh(layers), start=6)
    with pytest.raises(ProbeError, match=r"'first' needs float32 rows of shape \(23, 4\)"):
        probing.probe(network, images, layers, config, out=fresh(layers, 22))
    with pytest.raises(ProbeError, match="no images"):
        probing.probe(network, ArrayImages(np.zeros((0, 3, 16, 16), np.float32)), layers, config, out=fresh(layers, 0))


def test_nan_names_the_layer_and_the_images_of_the_set(network):
    pixels = np.zeros((COUNT, 3, SIDE, SIDE), dtype=np.float32)
    pixels[13, 0, 5, 5] = np.nan
    layers = resolve(network, ["second"])
    with pytest.raises(NetworkError, match="'second' answers with NaN or infinity on image 13"):
        probed(network, ArrayImages(pixels), layers, ProbingConfig(batch_size=4))


def test_channels_are_put_into_the_networks_order(images):
    torch.manual_seed(0)
    module = Counting(2)
    network = Network(module, lambda x: x, (2, SIDE, SIDE), channels=("blue", "red"))
    layers = resolve(network, ["first"])
    out = probed(network, images, layers, ProbingConfig())["first"]
    direct = Network(module, lambda x: x, (2, SIDE, SIDE))
    two = np.ascontiguousarray(images.pixels(range(COUNT))[:, [2, 0]])
    assert np.array_equal(out, probing.activate(direct, layers, two)["first"])
    assert np.array_equal(out, probing.activate(network, layers, [images[i] for i in range(COUNT)])["first"])
    wanting = Network(module, lambda x: x, (2, SIDE, SIDE), channels=("blue", "B08"))
    with pytest.raises(ProbeError, match="needs channel B08, but the images have red, green, blue"):
        probed(wanting, images, layers, ProbingConfig())
    with pytest.raises(ProbeError, match="takes 2 channels and the images have 3"):
        probed(direct, images, layers, ProbingConfig())


def test_images_of_a_size_the_network_cannot_take_are_said_so(images):
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), lambda x: x, (3, 8, 8), name="small")
    with pytest.raises(NetworkError, match=r"small cannot run on a batch of shape \(23, 3, 16, 16\)"):
        probed(network, images, resolve(network, ["output"]), ProbingConfig())


def test_top_images_of_a_subset_are_read_in_blocks():
    values = np.round(np.random.default_rng(1).normal(size=(50, 3)), 1).astype(np.float32)
    chosen = np.arange(1, 50, 2)
    for block in (7, 4096):
        indices, best = probing.top_images(values, 4, chosen, block=block)
        for unit in range(3):
            expected = sorted(chosen, key=lambda i: (-values[i, unit], i))[:4]
            assert indices[unit].tolist() == expected
            assert best[unit].tolist() == values[expected, unit].tolist()
    indices, best = probing.top_images(values, 4, [5])
    assert indices[0].tolist() == [5, -1, -1, -1]
    assert best[0, 1] == -np.inf


def reranked(network, images, layers, config):
    out = probed(network, images, layers, config)
    found = {info.name: probing.top_images(out[info.name], config.top_k) for info in layers}
    top = {name: indices for name, (indices, _) in found.items()}
    values = {name: best for name, (_, best) in found.items()}
    crops = probing.crop_top_images(network, images, layers, top, config)
    return probing.rerank(top, values, crops, config.top_k), crops, top


def test_top_views_equal_the_steps_done_one_by_one(network, images):
    layers = resolve(network, ["first", "second", "output"])
    config = ProbingConfig(top_k=4, batch_size=5, crops_per_image=3, crop_iou=0.4, crop_whole_iou=0.7)
    best, crops, _ = reranked(network, images, layers, config)
    with_crops = 0
    for name, units in (("first", 4), ("second", 5)):
        for unit in range(units):
            expected = slow.best_views(network, images, name, unit, 4, 3, 0.4, 0.7)
            rows = best.rows(name, unit)
            assert best.rank[rows].tolist() == [0, 1, 2, 3]
            assert best.activation[rows] == pytest.approx([view[2] for view in expected], abs=1e-5)
            for row, (image, edges, _) in zip(rows, expected, strict=True):
                box = best.box(row)
                assert int(best.image[row]) == image
                assert (None if box is None else (box.left, box.top, box.right, box.bottom)) == edges
                with_crops += box is not None
    assert with_crops > 5
    assert len(crops.rows("output", 0)) == 0
    assert len(best.rows("output", 0)) == 4
    assert len(best.rows("nowhere", 0)) == 0


def test_each_top_image_and_each_crop_runs_once(network, images):
    layers = resolve(network, ["first", "second"])
    config = ProbingConfig(top_k=5, batch_size=4)
    blocks = []
    _, crops, top = reranked(network, images, layers, config)
    union = {int(i) for indices in top.values() for i in indices.ravel()}
    distinct = set(zip(crops.image, crops.left, crops.top, crops.right, crops.bottom, strict=True))
    assert len(distinct) < len(crops)
    network.module.seen = 0
    probing.crop_top_images(network, images, layers, top, config, on_block=lambda *done: blocks.append(done))
    assert network.module.seen == len(union) + len(distinct)
    assert (len(union), len(union)) in blocks
    assert blocks[-1] == (len(distinct), len(distinct))


def test_a_layer_without_space_and_missing_images_give_no_crops(network, images):
    layers = resolve(network, ["output"])
    none = probing.crop_top_images(network, images, layers, {"output": np.array([[0, 1]])}, ProbingConfig())
    assert len(none) == 0
    layers = resolve(network, ["first"])
    nothing = np.full((4, 2), -1)
    assert len(probing.crop_top_images(network, images, layers, {"first": nothing}, ProbingConfig())) == 0


def test_reranking_puts_a_whole_image_before_its_crop_and_lower_images_first():
    crops = probing.CropResult(
        ("b", "a"), *(np.array(c, dtype=np.int32) for c in ([1, 1, 1], [0, 0, 0], [0, 1, 2])), np.array([3, 3, 9]),
        *(np.array(c, dtype=np.int32) for c in ([4, 0, 0], [0, 0, 0], [8, 8, 8], [8, 8, 8])),
        np.array([1.0, 1.0, 2.0], dtype=np.float32),
    )  # fmt: skip
    top, values = {"a": np.array([[3, 2, -1]])}, {"a": np.array([[1.0, 1.0, -np.inf]], dtype=np.float32)}
    ranked = probing.rerank(top, values, crops, 5)
    assert list(zip(ranked.image, ranked.left, strict=True)) == [(9, 0), (2, -1), (3, -1), (3, 0), (3, 4)]
    assert ranked.layers == ("a",)
    assert len(probing.rerank(top, values, crops, 2)) == 2
    assert len(probing.rerank(top, values, None, 5)) == 2


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="activation"):
        probing.CropResult(("a",), *(np.zeros(2, dtype=np.int32) for _ in range(8)), np.zeros(3, dtype=np.float32))


def test_tokens_are_cropped_on_their_grid(images):
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, depth=1, num_classes=2)
    network = Network(module, lambda x: x, (3, SIDE, SIDE))
    layers = resolve(network, ["blocks.0"])
    assert layers[0].grid == (4, 4)
    best, crops, _ = reranked(network, images, layers, ProbingConfig(top_k=2, pooling="cls"))
    assert len(crops) > 100
    row = int(np.flatnonzero(best.left >= 0)[0])
    crop = images[int(best.image[row])].crop(best.box(row))
    token = probing.activate(network, layers, [crop], "cls")["blocks.0"][0, best.unit[row]]
    assert token == pytest.approx(best.activation[row], abs=1e-5)


def test_loose_images_of_several_sizes_keep_their_places(network):
    generator = np.random.default_rng(2)
    loose = []
    for side in (16, 24, 16, 24, 16):
        pixels = generator.random((3, side, side), dtype=np.float32)
        loose.append(ProbeImage(pixels, np.zeros((side, side, 3), np.uint8)))
    layers = resolve(network, ["first"])
    out = probing.activate(network, layers, loose, batch_size=2)["first"]
    for image, row in zip(loose, out, strict=True):
        assert row == pytest.approx(slow.maps_of(network, "first", image.pixels).mean((1, 2)), abs=1e-6)
    assert probing.activate(network, layers, [])["first"].shape == (0, 4)


def test_reading_runs_ahead_of_working():
    second_read = threading.Event()

    def read(item):
        if item == 1:
            second_read.set()
        return item * 10

    for item, value in prefetched(read, [0, 1, 2]):
        assert value == item * 10
        # While the first is worked on, the second is read: waiting for it must end.
        assert second_read.wait(10)


def test_an_error_while_reading_comes_out(network, images):
    def read(_item):
        raise ProbeError("broken file")

    with pytest.raises(ProbeError, match="broken file"):
        list(prefetched(read, [0, 1]))
    assert list(prefetched(read, [])) == []


def test_a_layer_that_does_not_run_is_said_so(network, images):
    network.module.spare = nn.Linear(2, 2)
    info = LayerInfo("spare", "vector", (2,), 2)
    with pytest.raises(NetworkError, match=r"'spare'.*did not run"):
        probed(network, images, [info], ProbingConfig())
