"""Dead, duplicate and diffuse units are counted, and evidence is shared out as the weights say."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnd_core.verification import health
from geoaudit.checks.unit_health import UnitHealth, class_evidence, duplicates, streamed_health
from geoaudit.heads import find_head

from .planted import Classifier, context_of, network_of, tiles


class Known(nn.Module):
    """Units: B11, B11 again, B02, one that never fires, one that hardly changes; head weights are set by hand."""

    def __init__(self, squared: bool = False) -> None:
        super().__init__()
        self.features = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 3)
        self.squared = squared
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.bias.zero_()
            self.features.weight[0, 3] = self.features.weight[1, 3] = 1.0
            self.features.weight[2, 0] = 1.0
            self.features.bias[4], self.features.weight[4, 3] = 10.0, 0.001
            self.head.bias.zero_()
            self.head.weight[:] = torch.tensor([[3.0, 0, 0, 9, 0], [1, 1, 0, 0, 0], [0, 0, 2, 0, 0]])

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Tensor = self.head(self.features(pixels).mean(dim=(2, 3)))
        return answer**2 if self.squared else answer


@pytest.fixture
def known():
    images, _ = tiles(haze=0.0)
    return context_of(network_of(Known()), images)


def test_counts(known) -> None:
    result = UnitHealth().run(known)
    assert result.status == "pass"
    assert "1 dead, 3 duplicate and 1 diffuse of 5 units" in result.reason
    assert duplicates(known.activations["features"]) == [(0, 1), (0, 4), (1, 4)]


def test_shares_follow_the_weights(known) -> None:
    evidence = class_evidence(known, "features")
    assert evidence.exact
    expected = [[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0, 0, 1, 0, 0]]
    np.testing.assert_allclose(evidence.shares, expected, atol=1e-6)


def test_class_without_labelled_units_ranks_first(known) -> None:
    known.neurons["status"] = ["labelled", "weak", "abstained", "dead", "abstained", *["labelled"] * 3]
    reason = UnitHealth().run(known).reason
    assert reason.endswith("water 100% (0% weakly), forest 50% (50% weakly), field 0% (0% weakly)")


def test_regression_stands_in_for_a_head(known) -> None:
    images, _ = tiles(haze=0.0)
    module = nn.Sequential()
    module.add_module("features", Known().features)
    module.add_module("pool", nn.AdaptiveAvgPool2d(1))
    module.add_module("flat", nn.Flatten())
    module.add_module("twice", nn.Linear(5, 4))
    module.add_module("head", nn.Linear(4, 3))
    context = context_of(network_of(module), images, layers=["features", "output"])
    assert find_head(context.network.module, context.activations["features"], context.logits) is None
    evidence = class_evidence(context, "features")
    assert not evidence.exact
    assert evidence.r2 > 0.99
    np.testing.assert_allclose(evidence.shares.sum(axis=1), 1)
    assert "by regression, R2" in UnitHealth().run(context).reason


def test_unreadable_layer_is_inconclusive() -> None:
    images, _ = tiles(haze=0.0)
    context = context_of(network_of(Classifier(0.0)), images)
    rng = np.random.default_rng(0)
    context.activations = {**context.activations, "features": rng.random((120, 60)).astype(np.float32)}
    result = UnitHealth().run(context)
    assert result.status == "inconclusive"
    assert "explains only" in result.reason


def test_all_dead_is_inconclusive(known) -> None:
    known.activations = {**known.activations, "features": np.zeros((120, 5), np.float32)}
    assert UnitHealth().run(known).status == "inconclusive"


def test_squared_logits_have_no_linear_head() -> None:
    images, _ = tiles(haze=0.0)
    context = context_of(network_of(Known(squared=True)), images)
    assert find_head(context.network.module, context.activations["features"], context.logits) is None


def test_health_is_streamed_and_the_same(tmp_path) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((1000, 12)).astype(np.float32)
    values[:, 3] = 0.7
    values[:, 5] = 100 + 0.001 * values[:, 5]
    # One image out of a thousand fires: not dead, and a block of rows alone would not show it.
    values[:, 7] = 0
    values[777, 7] = 1
    whole, streamed = health(values), streamed_health(values, rows=64)
    np.testing.assert_array_equal(whole.dead, streamed.dead)
    np.testing.assert_array_equal(whole.diffuse, streamed.diffuse)
    assert np.flatnonzero(streamed.dead).tolist() == [3]
    assert np.flatnonzero(streamed.diffuse).tolist() == [5]


def test_health_of_a_large_layer_stays_within_a_block_of_memory(tmp_path) -> None:
    path = tmp_path / "layer.npy"
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(200_000, 32))
    mapped[::7] = 1
    mapped.flush()
    tracemalloc.start()
    state = streamed_health(np.load(path, mmap_mode="r"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not state.dead.any()
    assert peak < mapped.nbytes / 4
