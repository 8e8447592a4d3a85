"""Units of one's own among the units of a real network, so that labels can be judged against what they compute.

The planted channels are appended to a layer's map and taken off again behind it: the network answers what it always
answered, bit for bit, while its layer has some more units whose truth is known.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnd_core.errors import LayerNotFound, NetworkError
from dnd_core.hooks import find_module
from dnd_core.networks import Network

__all__ = ["plant"]


class _Given(nn.Module):
    """The network with its preprocessing inside, so that planted units can read the pixels as they are given."""

    def __init__(self, network: Network, units: nn.Module) -> None:
        super().__init__()
        self.network, self.units = network.module, units
        self._preprocess = network.preprocess
        self.maps: Tensor | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        self.maps = self.units(pixels)
        try:
            answer: Tensor = self.network(self._preprocess(pixels))
        finally:
            self.maps = None
        return answer


class _Planted(nn.Module):
    """(B, C, h, w) of the real layer -> (B, C + units, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: list[_Given] = []

    def forward(self, real: Tensor) -> Tensor:
        maps = self._owner[0].maps
        if maps is None or real.ndim != 4:
            raise NetworkError("units can only be planted in a layer of (B, C, H, W) maps that runs in a forward pass")
        grid = (int(real.shape[-2]), int(real.shape[-1]))
        return torch.cat([real, F.adaptive_avg_pool2d(maps, grid).to(real.dtype)], dim=1)


class _Rest(nn.Module):
    """The channels that the real layer made."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: Tensor) -> Tensor:
        return maps[:, : self.channels]


class _Layer(nn.Module):
    """The real layer, the planted units behind it, and the channels that go on."""

    def __init__(self, real: nn.Module, channels: int) -> None:
        super().__init__()
        self.real, self.planted, self.rest = real, _Planted(), _Rest(channels)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.rest(self.planted(self.real(images)))
        return answer


def plant(network: Network, layer: str, channels: int, units: nn.Module, fingerprint: str = "") -> tuple[Network, str]:
    """A network with more units in one of its layers. The given network is changed and must not be used any more.

    Args:
        network: any network with a convolutional layer.
        layer: dotted path of a submodule that answers (B, C, H, W) maps.
        channels: its C.
        units: (B, C, H, W) pixels, as the image set gives them, -> (B, planted, h, w) maps, h and w at least the
            layer's: they are averaged to its grid.
        fingerprint: what decides the planted units besides their weights.

    Returns:
        The network, and the path of the layer that now holds ``channels`` real units followed by the planted ones.

    Raises:
        LayerNotFound: there is no such layer.
    """
    if layer == "output" or not layer:
        raise LayerNotFound("units are planted in an inner layer, not in the output: name a layer of maps")
    parent, _, name = layer.rpartition(".")
    holder = find_module(network.module, parent) if parent else network.module
    replaced = _Layer(find_module(network.module, layer), channels)
    setattr(holder, name, replaced)
    whole = _Given(network, units)
    replaced.planted._owner.append(whole)
    digest = hashlib.sha256(f"{network.fingerprint}|{layer}|{channels}|{fingerprint}".encode())
    for key, value in sorted(units.state_dict().items()):
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    planted = Network(
        whole,
        preprocess=_as_given,
        input_shape=network.input_shape,
        channels=network.channels,
        class_names=network.class_names,
        name=f"{network.name} with planted units",
        fingerprint=digest.hexdigest(),
    )
    return planted, f"network.{layer}.planted"


def _as_given(pixels: Tensor) -> Tensor:
    return pixels
