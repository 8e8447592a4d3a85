"""Cut networks answer as whole ones do."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from dnd_core import tails
from dnd_core.images import ArrayImages
from dnd_core.layers import resolve
from dnd_core.networks import Network
from dnd_core.tails import ablated_logits


class Around(nn.Module):
    """A network with a connection that passes around ``middle``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last((self.middle(x) * x).mean(dim=(2, 3)))


def network_of(kind: str) -> tuple[Network, str]:
    torch.manual_seed(0)
    if kind == "resnet":
        module, layer = timm.create_model("resnet10t", num_classes=4), "layer3"
    elif kind == "vit":
        module = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4, depth=3)
        layer = "blocks.1"
    else:
        module, layer = Around(), "middle"
    return Network(module, lambda x: x, (3, 32, 32)), layer


@pytest.mark.parametrize("kind", ["resnet", "vit", "around"])
def test_equal_to_running_the_whole_network_with_a_hook(kind):
    network, layer = network_of(kind)
    (info,) = resolve(network, [layer])
    images = ArrayImages(np.random.default_rng(0).random((7, 3, 32, 32), dtype=np.float32))
    sets = [np.array([], dtype=np.int64), np.array([0]), np.array([1, 3])]
    values = np.linspace(-1, 1, info.units).astype(np.float32)
    found = ablated_logits(network, images, np.array([6, 0, 2, 3, 1]), info, sets, values, batch_size=2)

    pixels = torch.from_numpy(images.pixels([6, 0, 2, 3, 1]))
    for number, units in enumerate(sets):

        def hold(_module, _inputs, output, units=units):
            output = output.clone()
            for unit in units:
                if info.unit_axis == 1:
                    output[:, unit] = float(values[unit])
                else:
                    output[..., unit] = float(values[unit])
            return output

        handle = dict(network.module.named_modules())[layer].register_forward_hook(hold)
        expected = network(pixels).numpy()
        handle.remove()
        np.testing.assert_allclose(found[number], expected, rtol=1e-3, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-6


def test_the_front_runs_once_and_a_connection_around_the_layer_is_noticed():
    network, layer = network_of("resnet")
    (info,) = resolve(network, [layer])
    cut = tails._Cut(network.module, info, torch.rand(2, 3, 32, 32))
    assert cut.exact
    assert {type(part).__name__ for part, _ in cut.before}
    network, layer = network_of("around")
    (info,) = resolve(network, [layer])
    assert not tails._Cut(network.module, info, torch.rand(2, 3, 32, 32)).exact


def test_nothing_remains_on_the_network():
    network, layer = network_of("resnet")
    (info,) = resolve(network, [layer])
    images = ArrayImages(np.zeros((2, 3, 32, 32), dtype=np.float32))
    ablated_logits(network, images, [0, 1], info, [np.array([0])], np.zeros(info.units, dtype=np.float32))
    for part in network.module.modules():
        assert "forward" not in vars(part)
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
