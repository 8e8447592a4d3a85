"""Sensitivities against hand-set weights, against finite differences, and on tokens."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from dnd_core.attribution import sensitivities
from dnd_core.errors import NetworkError
from dnd_core.hooks import find_module
from dnd_core.images import ArrayImages
from dnd_core.layers import resolve
from dnd_core.networks import Network


def images_of(count, side, seed=0):
    return ArrayImages(np.random.default_rng(seed).random((count, 3, side, side), dtype=np.float32))


def linear():
    """Logit 0 is the mean of red, logit 1 that of green plus twice blue, logit 2 always 0."""
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    module[0].weight.data = torch.eye(3)[:, :, None, None]
    module[3].weight.data, module[3].bias.data = torch.tensor([[1.0, 0, 0], [0, 1, 2], [0, 0, 0]]), torch.zeros(3)
    return Network(module, lambda x: x, (3, 4, 4))


def test_by_hand():
    (info,) = resolve(linear(), ["0"])
    found = sensitivities(linear(), info, images_of(5, 4), [1, 0], batch_size=2)
    weights = np.array([[1.0, 0, 0], [0, 1, 2], [0, 0, 0]])
    assert found == pytest.approx((weights - weights.mean(axis=0))[[1, 0]])


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet", "layer2.0"), ("transformer", "blocks.0"), ("transformer", "blocks.0.mlp.fc1")]
)
def test_like_shifting_the_unit_by_hand(name, layer):
    torch.manual_seed(0)
    module = (
        torchvision.models.resnet18(num_classes=3)
        if name == "resnet"
        else timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    )
    network, images = Network(module, lambda x: x - 0.5, (3, 32, 32)), images_of(4, 32)
    (info,) = resolve(network, [layer])
    found = sensitivities(network, info, images, [2], indices=[3, 1], batch_size=8)
    pixels, unit, step = torch.from_numpy(images.pixels([3, 1])), 5, 1e-3

    def score(by):
        def shifted(_module, _inputs, output):
            changed = output.clone()
            changed.select(info.unit_axis, unit).add_(by)
            return changed

        handle = find_module(module, layer).register_forward_hook(shifted)
        logits = network(pixels)
        handle.remove()
        return float((logits[:, 2] - logits.mean(dim=1)).mean())

    assert found.shape == (1, info.units)
    assert found[0, unit] == pytest.approx((score(step) - score(-step)) / (2 * step), rel=0.02, abs=3e-4)


def test_nothing_stays_behind():
    network, images = linear(), images_of(3, 4)
    (info,) = resolve(network, ["0"])
    before = network(torch.from_numpy(images.pixels([0, 1, 2])))
    sensitivities(network, info, images, [0])
    assert torch.equal(network(torch.from_numpy(images.pixels([0, 1, 2]))), before)
    assert not any(parameter.requires_grad for parameter in network.module.parameters())


def test_a_layer_that_says_nothing_to_the_output_is_refused():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.maps(x).mean((2, 3)).detach()

    network = Network(Cut(), lambda x: x, (3, 4, 4))
    (info,) = resolve(network, ["maps"])
    with pytest.raises(NetworkError, match="does not reach the output"):
        sensitivities(network, info, images_of(2, 4), [0])
