"""A network whose units compute known things: the ground truth that descriptions are tested against.

Nothing in it is learnt. Colours are read by a 1 x 1 convolution, textures by a bank of Gabor filters, and a linear
layer joins what is there into AND, OR and NOT; dead units never fire, and random ones fire on a checksum of
the pixels' noise, which has no name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnd_core.networks import Network
from dnd_core.testing.concepts import ATTRIBUTES, COLOURS
from dnd_core.testing.drawing import PERIOD
from dnd_core.testing.units import CONCEPT_UNITS, MAP_UNITS, AnalyticUnit
from dnd_core.types import UnitId

__all__ = ["AnalyticNetwork", "Features", "analytic_network"]

_STRIDE = 4
_KERNEL = 13
# Channel weights and bias per colour, positive only near that corner of the RGB cube.
_COLOUR_WEIGHTS = {
    "red": (1, -1, -1, -0.35),
    "green": (-1, 1, -1, -0.35),
    "blue": (-1, -1, 1, -0.35),
    "yellow": (1, 1, -1, -1.4),
    "cyan": (-1, 1, 1, -1.4),
    "magenta": (1, -1, 1, -1.4),
    "white": (1, 1, 1, -2.52),
    "black": (-1, -1, -1, 0.42),
}


def _gabors() -> Tensor:
    """(8, 1, K, K) cosine and sine filters: vertical, horizontal, falling and rising; each has mean 0."""
    axis = torch.arange(_KERNEL, dtype=torch.float64) - _KERNEL // 2
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(rows**2 + columns**2) / (2 * 3.0**2))
    bank = []
    for across, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
        for shift in (0.0, math.pi / 2):
            wave = torch.cos(2 * math.pi / PERIOD * (across * columns + down * rows) - shift) * window
            wave -= window * (wave.sum() / window.sum())
            bank.append(2 * wave / window.sum())
    return torch.stack(bank)[:, None].float()


class Features(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> (B, attributes, H // 4, W // 4) how strongly each attribute shows, 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Conv2d(3, len(COLOURS), 1)
        self.gabor = nn.Conv2d(1, 8, _KERNEL, padding=_KERNEL // 2, padding_mode="reflect", bias=False)
        self.speckle = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect", bias=False)
        values = torch.tensor([_COLOUR_WEIGHTS[name] for name in COLOURS])
        with torch.no_grad():
            self.colour.weight.copy_(values[:, :3, None, None])
            self.colour.bias.copy_(values[:, 3])  # type: ignore[union-attr]
            self.gabor.weight.copy_(_gabors())
            self.speckle.weight.copy_(torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None] / 4)

    def forward(self, images: Tensor) -> Tensor:
        colour = F.relu(self.colour(images)).clamp(max=0.2) * 5
        grey = images.mean(dim=1, keepdim=True)
        waves = self.gabor(grey)
        v, h, falling, rising = (waves[:, i : i + 2].square().sum(1, keepdim=True).sqrt() for i in (0, 2, 4, 6))
        speckle = self._blur(self.speckle(grey).abs(), 5)
        grain = speckle - 0.22
        # Edges of coloured shapes answer to the filters too; where there is colour nearby, textures are doubted.
        doubt = 0.5 * self._blur(colour.sum(1, keepdim=True), 9) + 3 * F.relu(grain)
        least, most = torch.minimum(falling, rising), torch.maximum(falling, rising)
        upright = torch.minimum(v, h)
        textures = [
            v - h - 0.5 * most - doubt,
            h - v - 0.5 * most - doubt,
            most - least - 0.5 * torch.maximum(v, h) - doubt,
            least - upright - doubt,
            upright - doubt,
        ]
        shown = [((t - 0.07) * 8).clamp(0, 1) for t in textures]
        low, high = images.amin(1, keepdim=True), images.amax(1, keepdim=True)
        flat = F.relu(1 - 12 * self._blur(waves.abs().sum(1, keepdim=True), 5))
        bright = ((low - 0.62) * 20).clamp(0, 1) * ((0.86 - high) * 20).clamp(0, 1) * flat
        dark = ((low - 0.12) * 20).clamp(0, 1) * ((0.36 - high) * 20).clamp(0, 1) * flat
        stripes = shown[0] + shown[1] + shown[2]
        return F.avg_pool2d(
            torch.cat([colour, *shown, (grain * 6).clamp(0, 1), stripes.clamp(max=1), bright, dark], 1), _STRIDE
        )

    @staticmethod
    def _blur(maps: Tensor, side: int) -> Tensor:
        return F.avg_pool2d(F.pad(maps, [side // 2] * 4, mode="reflect"), side, stride=1)


class Checksum(nn.Module):
    """A number that depends on every pixel's last bit and on nothing one could name.

    Pixels are rounded to 8 bits and summed with whole-number weights; sums stay below 2**24, so float32 holds them
    exactly and the answer does not depend on batch size or thread count.
    """

    modulus = 997

    def __init__(self, units: int, seed: int) -> None:
        super().__init__()
        self.blocks = nn.Conv2d(3, units, _STRIDE, stride=_STRIDE, bias=False)
        weights = np.random.default_rng([seed, 7]).integers(1, self.modulus, size=self.blocks.weight.shape)
        with torch.no_grad():
            self.blocks.weight.copy_(torch.from_numpy(weights))

    def forward(self, images: Tensor) -> Tensor:
        """(B, units, H // 4, W // 4) whole numbers from 0 to 996."""
        rest: Tensor = torch.remainder(self.blocks(torch.round(images.clamp(0, 1) * 255)), self.modulus)
        return rest


def _mix(units: Sequence[AnalyticUnit]) -> tuple[Tensor, Tensor]:
    weights = torch.tensor([[unit.weights.get(name, 0.0) for name in ATTRIBUTES] for unit in units])
    return weights, torch.tensor([unit.bias for unit in units])


def _randoms(units: Sequence[AnalyticUnit]) -> list[int]:
    return [number for number, unit in enumerate(units) if unit.kind == "random"]


class Maps(nn.Module):
    """(B, units, H // 4, W // 4): single attributes, sums of two, dead and random units."""

    def __init__(self, units: Sequence[AnalyticUnit], seed: int) -> None:
        super().__init__()
        weights, bias = _mix(units)
        self.mix = nn.Conv2d(len(ATTRIBUTES), len(units), 1)
        self.random = _randoms(units)
        self.checksum = Checksum(len(self.random), seed)
        with torch.no_grad():
            self.mix.weight.copy_(weights[:, :, None, None])
            self.mix.bias.copy_(bias)  # type: ignore[union-attr]

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        maps = F.relu(self.mix(features))
        # One place in a hundred fires, so images differ by far more than their average would.
        maps[:, self.random] = (self.checksum(images) < Checksum.modulus // 100).to(maps.dtype)
        return maps


class Concepts(nn.Module):
    """(B, units) in [0, 1]: statements about the whole image, made by one linear layer of what is present in it."""

    # Mean feature below which an attribute counts as absent, and above which as there: about one item of the board.
    _ABSENT = (*[0.008] * 8, 0.02, 0.02, 0.01, 0.02, 0.01, 0.008, 0.02, 0.05, 0.05)
    _THERE = (*[0.04] * 8, 0.055, 0.055, 0.05, 0.036, 0.022, 0.045, 0.055, 0.2, 0.2)

    def __init__(self, units: Sequence[AnalyticUnit], seed: int) -> None:
        super().__init__()
        absent, there = torch.tensor(self._ABSENT), torch.tensor(self._THERE)
        self.presence = nn.Linear(len(ATTRIBUTES), len(ATTRIBUTES))
        self.logic = nn.Linear(len(ATTRIBUTES), len(units))
        self.random = _randoms(units)
        self.checksum = Checksum(len(self.random), seed + 1)
        weights, bias = _mix(units)
        with torch.no_grad():
            self.presence.weight.copy_(torch.diag(1 / (there - absent)))
            self.presence.bias.copy_(-absent / (there - absent))
            self.logic.weight.copy_(weights)
            self.logic.bias.copy_(bias)

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        present = self.presence(features.mean(dim=(2, 3))).clamp(0, 1)
        answer: Tensor = self.logic(present).clamp(0, 1)
        draw = torch.remainder(self.checksum(images).sum(dim=(2, 3)), 101) / 100
        answer[:, self.random] = F.relu(draw - 0.8) * 5
        return answer


class AnalyticNetwork(nn.Module):
    """RGB images (B, 3, H, W) in [0, 1] -> (B, 4) logits; layers ``maps`` (a map) and ``concepts`` (a vector).

    Args:
        seed: decides what the random units fire on; all other weights are set by hand.

    """

    class_names = ("red", "green", "blue", "stripes")

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.features = Features()
        self.maps = Maps(MAP_UNITS, seed)
        self.concepts = Concepts(CONCEPT_UNITS, seed)
        self.head = nn.Linear(len(CONCEPT_UNITS), len(self.class_names))
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(len(self.class_names), len(CONCEPT_UNITS)))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        self.maps(images, features)
        logits: Tensor = self.head(self.concepts(images, features))
        return logits

    @property
    def truth(self) -> dict[UnitId, AnalyticUnit]:
        """What every unit of ``maps`` and ``concepts`` computes."""
        layers = {"maps": MAP_UNITS, "concepts": CONCEPT_UNITS}
        return {UnitId(name, number): unit for name, units in layers.items() for number, unit in enumerate(units)}


def analytic_network(size: int = 48, seed: int = 0) -> Network:
    """The analytic network, ready to be described on :func:`~dnd_core.testing.drawing.draw_probe` of the same size."""
    module = AnalyticNetwork(seed)
    return Network(
        module,
        preprocess=_as_given,
        input_shape=(3, size, size),
        channels=("red", "green", "blue"),
        class_names=module.class_names,
        name="analytic network",
    )


def _as_given(pixels: Tensor) -> Tensor:
    return pixels
