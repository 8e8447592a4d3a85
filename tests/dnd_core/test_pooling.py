"""Pooling of maps, tokens and vectors by hand; poolings without meaning and activations without value."""

import pytest
import torch

from dnd_core.errors import ConfigError, NetworkError
from dnd_core.layers import LayerInfo
from dnd_core.pooling import pool, unit_maps

MAP = LayerInfo("conv", "map", (2, 2, 3), 2)
LAST = LayerInfo("swin", "map_last", (2, 3, 2), 2)
TOKENS = LayerInfo("block", "tokens", (5, 2), 2, prefix_tokens=1, grid=(2, 2))
BARE = LayerInfo("patches", "tokens", (4, 2), 2, prefix_tokens=0, grid=(2, 2))
VECTOR = LayerInfo("fc", "vector", (2,), 2)

maps = torch.tensor([[[[1.0, 2, 3], [4, 5, 9]], [[0, 0, 0], [0, 0, -6]]]])
tokens = torch.tensor([[[100.0, -100], [1, 2], [3, 2], [5, 2], [7, 10]]])


@pytest.mark.parametrize(
    ("activation", "info", "how", "expected"),
    [
        (maps, MAP, "mean", [[4.0, -1.0]]),
        (maps, MAP, "max", [[9.0, 0.0]]),
        (maps.movedim(1, -1), LAST, "mean", [[4.0, -1.0]]),
        (maps.movedim(1, -1), LAST, "max", [[9.0, 0.0]]),
        (tokens, TOKENS, "mean", [[4.0, 4.0]]),
        (tokens, TOKENS, "token_mean", [[4.0, 4.0]]),
        (tokens, TOKENS, "max", [[7.0, 10.0]]),
        (tokens, TOKENS, "cls", [[100.0, -100.0]]),
        (tokens[:, 1:], BARE, "token_mean", [[4.0, 4.0]]),
        (tokens[:, 0], VECTOR, "cls", [[100.0, -100.0]]),
        (tokens[:, 0], VECTOR, "max", [[100.0, -100.0]]),
    ],
)
def test_by_hand(activation, info, how, expected):
    pooled = pool(activation, info, how)
    assert pooled.tolist() == expected
    assert pooled.dtype == torch.float32


def test_half_precision_is_summed_in_single():
    many = torch.full((1, 1, 100, 100), 60000.0, dtype=torch.float16)
    assert pool(many, LayerInfo("x", "map", (1, 100, 100), 1), "mean").tolist() == [[60000.0]]


@pytest.mark.parametrize(
    ("info", "how", "words"),
    [
        (MAP, "cls", "conv.*use mean or max"),
        (LAST, "token_mean", "swin.*use mean or max"),
        (BARE, "cls", "patches.*use token_mean"),
        (MAP, "median", "must be mean, max, cls or token_mean"),
    ],
)
def test_a_pooling_without_meaning_is_refused(info, how, words):
    with pytest.raises(ConfigError, match=words):
        pool(torch.zeros((1, *info.shape)), info, how)


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_activations_without_value_name_layer_and_images(how, value):
    batch = torch.zeros(4, 2, 2, 3)
    batch[1, 0, 1, 1] = batch[3, 1, 0, 0] = value
    with pytest.raises(NetworkError, match=r"'conv' answers with NaN or infinity on image 21, 23"):
        pool(batch, MAP, how, images=range(20, 24))


def test_maps_have_units_first_and_tokens_lie_on_their_grid():
    assert torch.equal(unit_maps(maps, MAP), maps)
    assert torch.equal(unit_maps(maps.movedim(1, -1), LAST), maps)
    assert unit_maps(tokens, TOKENS)[0, 0].tolist() == [[1, 3], [5, 7]]
    assert unit_maps(tokens[:, 0], VECTOR) is None
    assert unit_maps(tokens, LayerInfo("odd", "tokens", (5, 2), 2)) is None
