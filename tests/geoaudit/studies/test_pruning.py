"""Pruned in weights: the unit is exactly 0 on every image, its neighbours answer as before."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from dnd_core.ablation import Ablation
from dnd_core.errors import ConfigError, NetworkError
from dnd_core.hooks import record
from dnd_core.images import ArrayImages
from dnd_core.layers import resolve
from dnd_core.networks import Network
from geoaudit.studies.pruning import check_pruned, last_block, prune, touched
from geoaudit.studies.tilenet import TileNet


def lively(module: nn.Module) -> nn.Module:
    """Norms as after training: no scale is 0, no shift, no mean."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low in (
                (part.weight, 0.5),
                (part.bias, -0.3),
                (part.running_mean, -0.2),
                (part.running_var, 0.5),
            ):
                values.data = low + torch.rand(values.shape, generator=generator)
    return module.eval()


NETWORKS = {
    # Bottlenecks whose last block has a shortcut without weights, as in the study's ResNet-50.
    "torchvision": lambda: torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 1, 3], num_classes=4),
    # One block a stage, so the shortcut has weights, behind a mean pool.
    "timm": lambda: timm.create_model("test_resnet", num_classes=4),
    "tilenet": lambda: TileNet(3, 4, 8),
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def module(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return lively(NETWORKS[request.param]())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 4 - 1


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_the_channel_is_zero_and_no_other_moves(module: nn.Module, images: torch.Tensor, layer: str) -> None:
    units = [1, 5]
    pruned = prune(module, layer, units)
    before, after = [], []
    for network, kept in ((module, before), (pruned, after)):
        with torch.inference_mode(), record(network, [layer]) as seen:
            network(images)
            kept.append(seen[layer])
    assert float(before[0][:, units].abs().max()) > 0.1
    assert torch.equal(after[0][:, units], torch.zeros_like(after[0][:, units]))
    others = [unit for unit in range(before[0].shape[1]) if unit not in units]
    assert torch.allclose(before[0][:, others], after[0][:, others], rtol=0, atol=1e-6)
    assert check_pruned(module, pruned, layer, units, images) == (0.0, pytest.approx(0.0, abs=1e-6))


def test_only_the_units_own_parameters_change(module: nn.Module) -> None:
    units = [0, 3]
    changed = touched(module, prune(module, "layer4", units))
    prefix = {"downsample", "shortcut"} & {part for name in changed for part in name.split(".")}
    assert set(map(tuple, changed.values())) == {(0, 3)}
    assert all(name.startswith("layer4.") and name.endswith(("weight", "bias")) for name in changed)
    names = [name for name in module.state_dict() if name.startswith("layer4.")]
    last = max(int(name.split(".")[1]) for name in names)
    assert {int(name.split(".")[1]) for name in changed} == {last}
    has_projection = any(f"layer4.{last}.{word}." in name for name in names for word in ("downsample", "shortcut"))
    assert bool(prefix) == has_projection


def test_it_does_what_holding_the_units_at_zero_does(module: nn.Module, images: torch.Tensor) -> None:
    network = Network(module, lambda pixels: pixels, (3, 32, 32))
    layers = resolve(network, ["layer3", "layer4"])
    sets = {"layer3": [2, 4], "layer4": [1]}
    ablation = Ablation(network, layers, {info.name: np.zeros(info.units) for info in layers})
    _, held = ablation.logits_with(ArrayImages(images.numpy()), [sets])
    pruned = prune(prune(module, "layer3", sets["layer3"]), "layer4", sets["layer4"])
    with torch.inference_mode():
        assert np.allclose(pruned(images).numpy(), held[0], rtol=1e-4, atol=1e-5)
        assert not np.allclose(module(images).numpy(), held[0], rtol=1e-2, atol=1e-3)


def test_the_given_network_is_left_alone(module: nn.Module) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    prune(module, "layer4", [2])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_what_cannot_be_pruned(module: nn.Module) -> None:
    with pytest.raises(ConfigError, match="no module 'layer9'"):
        prune(module, "layer9", [0])
    with pytest.raises(ConfigError, match="does not end with a residual block"):
        last_block(module, "conv1")
    with pytest.raises(ConfigError, match="unit 9999 cannot be pruned"):
        prune(module, "layer4", [9999])


def test_norms_that_mix_channels_are_refused() -> None:
    module = timm.create_model("test_resnet", num_classes=4, norm_layer=lambda n, **_: nn.GroupNorm(2, n))
    with pytest.raises(NetworkError, match="ends with Conv2d and GroupNorm"):
        prune(module, "layer4", [0])
