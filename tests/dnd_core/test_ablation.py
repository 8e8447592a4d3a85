"""Ablation against hand-set weights and against editing the whole network without any shortcut."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from dnd_core.ablation import Ablation, matched_random_sets, unit_statistics
from dnd_core.changes import accuracy_change, accuracy_gap
from dnd_core.errors import ConfigError, LayerNotFound, NetworkError
from dnd_core.hooks import edit
from dnd_core.images import ArrayImages
from dnd_core.layers import resolve
from dnd_core.networks import Network


def images_of(count, side, seed=0):
    return ArrayImages(np.random.default_rng(seed).random((count, 3, side, side), dtype=np.float32))


def test_by_hand():
    class Channels(nn.Module):
        """Logit 0 is the mean of red, logit 1 that of green plus twice blue."""

        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(3, 3, 1, bias=False)
            self.head = nn.Linear(3, 2, bias=False)
            self.maps.weight.data = torch.eye(3)[:, :, None, None]
            self.head.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 2]])

        def forward(self, x):
            return self.head(self.maps(x).mean((2, 3)))

    network = Network(Channels(), lambda x: x, (3, 4, 4))
    images = images_of(7, 4)
    layers = resolve(network, ["maps"])
    ablation = Ablation(network, layers, {"maps": [0.5, 10.0, -1.0]})
    base, ablated = ablation.logits_with(images, [{"maps": [1]}, {"maps": [0, 2]}], indices=[5, 0, 3], batch_size=2)
    mean = images.pixels([5, 0, 3]).mean((2, 3))
    assert base == pytest.approx(np.stack([mean[:, 0], mean[:, 1] + 2 * mean[:, 2]], axis=1), abs=1e-6)
    assert ablated[0] == pytest.approx(np.stack([mean[:, 0], 10 + 2 * mean[:, 2]], axis=1), abs=1e-5)
    assert ablated[1] == pytest.approx(np.stack([np.full(3, 0.5), mean[:, 1] - 2], axis=1), abs=1e-5)


def make(name):
    torch.manual_seed(0)
    if name == "resnet":
        return torchvision.models.resnet18(num_classes=3), 32, ["layer2", "layer3.0.conv1", "layer4.1.bn2", "output"]
    if name == "transformer":
        return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3), 32, ["blocks.?", "*.fc1"]
    return timm.create_model("densenet121", num_classes=3), 32, ["features.denseblock2.denselayer3", "features.norm5"]


@pytest.mark.parametrize("name", ["resnet", "transformer", "densenet"])
def test_playing_back_the_unchanged_part_changes_no_bit(name):
    module, side, patterns = make(name)
    network = Network(module, lambda x: x - 0.5, (3, side, side))
    layers = resolve(network, patterns)
    images = images_of(5, side)
    means = {info.name: np.linspace(-2, 2, info.units) for info in layers}
    sets = [{}, *({info.name: [0, 2]} for info in layers), {info.name: [1] for info in layers}]
    base, ablated = Ablation(network, layers, means).logits_with(images, sets, batch_size=3)
    for units, answers in zip(sets, ablated, strict=True):
        edits = {layer: {u: float(means[layer][u]) for u in its} for layer, its in units.items()}
        with edit(module, layers, edits):
            batches = [network(torch.from_numpy(images.pixels(rows))).numpy() for rows in ([0, 1, 2], [3, 4])]
        assert np.array_equal(np.concatenate(batches), answers)
    assert np.array_equal(base, ablated[0])
    assert not np.allclose(base, ablated[-1])
    assert not any("forward" in vars(m) or m._forward_hooks for m in module.modules())


def test_only_what_lies_behind_the_edit_runs_again():
    runs = {"early": 0, "late": 0}

    class Part(nn.Conv2d):
        def __init__(self, name):
            super().__init__(3, 3, 1)
            self.name = name

        def forward(self, x):
            runs[self.name] += len(x)
            return super().forward(x)

    module = nn.Sequential(Part("early"), nn.Identity(), Part("late"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Network(module, lambda x: x, (3, 4, 4))
    layers = resolve(network, ["1"])
    ablation = Ablation(network, layers, {"1": [0.0] * 3})
    runs.update(early=0, late=0)
    ablation.logits_with(images_of(6, 4), [{"1": [u]} for u in range(3)], batch_size=4)
    # Six images as they are and under three edits, and one trial batch of four that looks for in-place changes.
    assert runs == {"early": 6, "late": 6 * 4 + 4}


def test_an_in_place_operation_behind_a_played_back_module_does_not_add_up():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            doubled = self.first(x).mul_(2)
            return (self.second(doubled) + doubled[:, :2]).mean((2, 3))

    network = Network(Doubling(), lambda x: x, (3, 4, 4))
    layers = resolve(network, ["second"])
    ablation = Ablation(network, layers, {"second": [0.0, 0.0]})
    base, ablated = ablation.logits_with(images_of(3, 4), [{"second": [0]}] * 3 + [{}])
    for answers in ablated[:3]:
        assert np.array_equal(answers[:, 1], base[:, 1])
    assert np.array_equal(ablated[3], base)


def test_nothing_is_left_behind_when_a_batch_fails():
    module, side, _ = make("resnet")
    network = Network(module, lambda x: x, (3, side, side))
    layers = resolve(network, ["layer4"])
    ablation = Ablation(network, layers, {"layer4": np.zeros(512)})
    with pytest.raises(NetworkError, match="units 0 to 511, not 512"):
        ablation.logits_with(images_of(2, side), [{"layer4": [512]}])
    with pytest.raises(LayerNotFound, match="layer3"):
        ablation.logits_with(images_of(2, side), [{"layer3": [0]}])
    assert not any("forward" in vars(m) or m._forward_hooks for m in module.modules())
    with pytest.raises(ConfigError, match="means of its 512 units"):
        Ablation(network, layers, {"layer4": np.zeros(3)})


def test_statistics_are_streamed():
    values = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    chosen = np.arange(10, 90)
    found = unit_statistics(values, chosen, block=7)
    assert found.means == pytest.approx(values[chosen].astype(float).mean(0))
    assert found.norms == pytest.approx(np.sqrt((values[chosen].astype(float) ** 2).mean(0)))
    with pytest.raises(ConfigError, match="at least one image"):
        unit_statistics(values, [])


def test_random_sets_match_in_number_and_norm_and_avoid_the_set():
    norms = {"a": np.geomspace(0.01, 100, 200), "b": np.ones(8)}
    group = {"a": [10, 100, 190], "b": [0, 1]}
    sets = matched_random_sets(group, norms, 30, seed=4, exclude={"b": [7]})
    assert sets == matched_random_sets(group, norms, 30, seed=4, exclude={"b": [7]})
    assert sets != matched_random_sets(group, norms, 30, seed=5, exclude={"b": [7]})
    assert len({tuple(drawn["a"]) for drawn in sets}) > 15
    for drawn in sets:
        assert [len(set(drawn[layer])) for layer in ("a", "b")] == [3, 2]
        assert not set(drawn["a"]) & set(group["a"])
        assert not set(drawn["b"]) & {0, 1, 7}
        ratio = norms["a"][drawn["a"]] / norms["a"][group["a"]]
        assert ((ratio > 0.75) & (ratio < 1.35)).all()
    with pytest.raises(ConfigError, match="'b' has 3 units outside the 4"):
        matched_random_sets({"b": [0, 1, 2, 3]}, norms, 1, exclude={"b": [7]})


def test_accuracy_change_by_hand():
    labels = [0, 0, 0, 0, 1, 1]
    found = accuracy_change([0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0], labels, 3)
    assert [(c.n, c.before, c.after) for c in found.classes[:2]] == [(4, 0.75, 0.25), (2, 1.0, 0.5)]
    assert found.overall.change == pytest.approx(2 / 6 - 5 / 6)
    assert found.overall.low <= found.overall.change <= found.overall.high
    assert found.classes[2].n == 0
    assert np.isnan(found.classes[2].change)
    logits = np.eye(3)[[0, 0, 0, 1, 1, 1]]
    assert repr(accuracy_change(logits, [0, 1, 1, 1, 1, 0], labels, 3)) == repr(found)


def test_the_interval_covers_and_blocks_widen_it():
    generator = np.random.default_rng(0)
    covered, widths = 0, []
    for seed in range(60):
        # Sixty blocks of ten images that fail together: the truth is a loss of 0.2.
        lost = np.repeat(generator.random(60) < 0.2, 10)
        labels, blocks = np.zeros(600, dtype=int), np.repeat(np.arange(60), 10)
        found = accuracy_change(labels, lost.astype(int), labels, 1, blocks=blocks, draws=300, seed=seed).overall
        alone = accuracy_change(labels, lost.astype(int), labels, 1, draws=300, seed=seed).overall
        covered += found.low <= -0.2 <= found.high
        widths.append((found.high - found.low) / (alone.high - alone.low))
    assert covered >= 51
    # Ten images a block that agree make the interval the square root of ten wider.
    assert np.mean(widths) == pytest.approx(np.sqrt(10), rel=0.15)


def test_the_gap_to_random_sets():
    labels = np.repeat([0, 1], 50)
    before = labels.copy()
    after = labels.copy()
    after[:40] = 1
    random = np.stack([labels.copy() for _ in range(4)])
    random[0, :20] = 1
    gap, low, high = accuracy_gap(before, after, random, labels, klass=0, draws=500)
    assert gap == pytest.approx(-0.8 + 0.1)
    assert low < gap < high < 0
    whole, _, _ = accuracy_gap(before, after, random, labels)
    assert whole == pytest.approx(gap / 2)
    same, low, high = accuracy_gap(before, after, [after], labels, klass=0)
    assert (same, low, high) == (0, 0, 0)
    with pytest.raises(ConfigError, match="at least one random set"):
        accuracy_gap(before, after, [], labels)
    with pytest.raises(ConfigError, match="100 labels"):
        accuracy_change(before[:9], after, labels, 2)
    with pytest.raises(ConfigError, match="level"):
        accuracy_change(before, after, labels, 2, level=1.0)
