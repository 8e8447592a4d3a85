"""Analytic Earth-observation units: channels that compute a known thing of a tile's reflectance, and what it is.

Nothing is learnt. A first stage measures attributes pixel by pixel (spectral indices, brightness, texture) or for the tile
as a whole (haze, stripes, borders), each as a map of how much of it is there, 0 to 1. A second stage joins two of
them: AND is the smaller, OR the larger, NOT what is left to 1. Dead units never fire; random ones fire on a checksum of
the last digits of the pixels, which has no name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dnd_core.testing.concepts import Concept
from geoaudit.bands import spyndex_indices

__all__ = ["KINDS", "EarthUnit", "EarthUnits", "earth_units", "extension", "told"]

Floats = NDArray[np.float64]

KINDS = ("single", "and", "or", "not", "two_meanings", "dead", "random")

# Opacity of haze in each band relative to blue: with about the -1.3rd power of wavelength.
_VEIL = {"B": 1.0, "G": 0.84, "R": 0.67, "N": 0.5, "S1": 0.21}
_USED = ("B", "G", "R", "N", "S1")
_MAPS = (
    "vegetation", "water", "dry ground", "bright", "dark", "rough", "smooth", "haze", "vertical stripes", "horizontal stripes",
    "stripes", "border", "nodata",
)  # fmt: skip


@dataclass(frozen=True)
class EarthUnit:
    """The truth about one unit.

    Attributes:
        kind: one of :data:`KINDS`.
        concept: what it computes; None for dead and random units.
        first, second: the attributes it joins, "" for none.
        how: ``is``, ``and``, ``or``, ``not``, ``without``, ``dead`` or ``random``.
        shift: added to the thresholds of its index or brightness, so that units of one attribute differ.
    """

    kind: str
    concept: Concept | None
    first: str = ""
    second: str = ""
    how: str = "is"
    shift: float = 0.0


def earth_units(seed: int = 0) -> tuple[EarthUnit, ...]:
    """The units of the bench: singles, AND, OR, NOT, two meanings, dead and random ones.

    Args:
        seed: shifts thresholds by up to 0.03.
    """
    rng = np.random.default_rng([seed, 31])

    def shift() -> float:
        return float(np.round(rng.uniform(-0.03, 0.03), 4))

    singles = [*_MAPS, "vegetation", "water", "haze", "dry ground"]
    both = [
        ("vegetation", "haze"), ("water", "haze"), ("dry ground", "haze"), ("vegetation", "vertical stripes"),
        ("dry ground", "vertical stripes"), ("water", "horizontal stripes"), ("dry ground", "horizontal stripes"),
        ("vegetation", "border"), ("haze", "vertical stripes"), ("haze", "border"),
    ]  # fmt: skip
    either = [
        ("vegetation", "water"), ("water", "dry ground"), ("haze", "vertical stripes"), ("haze", "border"),
        ("horizontal stripes", "border"), ("water", "haze"), ("dry ground", "vertical stripes"), ("vegetation", "nodata"),
        ("haze", "nodata"), ("vegetation", "horizontal stripes"),
    ]  # fmt: skip
    denied = [("vegetation", ""), ("water", ""), ("dry ground", ""), ("haze", "")]
    without = [
        ("vegetation", "haze"),
        ("water", "haze"),
        ("dry ground", "haze"),
        ("vegetation", "stripes"),
        ("haze", "border"),
    ]
    two = [("water", "vertical stripes"), ("vegetation", "border"), ("dry ground", "nodata"), ("rough", "haze")]
    units = [EarthUnit("single", Concept.of(name), name, shift=shift()) for name in singles]
    units += [EarthUnit("and", Concept.of(a, b), a, b, "and", shift()) for a, b in both]
    units += [EarthUnit("or", _either(a, b), a, b, "or", shift()) for a, b in either]
    units += [EarthUnit("not", Concept.of(without=[a]), a, "", "not", shift()) for a, _ in denied]
    units += [EarthUnit("not", Concept.of(a, without=[b]), a, b, "without", shift()) for a, b in without]
    units += [EarthUnit("two_meanings", _either(a, b), a, b, "or", shift()) for a, b in two]
    units += [EarthUnit("dead", None, how="dead")] * 4 + [EarthUnit("random", None, how="random")] * 8
    return tuple(units)


def told(units: Sequence[EarthUnit]) -> str:
    """What the units compute, in the same words in every process (the order of a set is not)."""
    parts = [(u.kind, str(u.concept or ""), u.first, u.second, u.how, u.shift) for u in units]
    return repr(parts)


def _either(a: str, b: str) -> Concept:
    return Concept.any_of([Concept.of(a), Concept.of(b)])


class EarthUnits(nn.Module):
    """(B, C, H, W) reflectance -> (B, units, H, W) maps in [0, 1].

    Args:
        units: what each channel computes.
        channels: C band names; red, green, blue, near infrared and shortwave infrared must be among them.
        seed: decides what random units fire on.
    """

    def __init__(self, units: Sequence[EarthUnit], channels: Sequence[str], seed: int = 0) -> None:
        super().__init__()
        self.units = tuple(units)
        self._bands = {name: index for name, index in spyndex_indices(channels).items() if name in _USED}
        rng = np.random.default_rng([seed, 32])
        weights = rng.integers(1, 997, size=(len(self.units), len(channels)))
        self.register_buffer("checksums", torch.from_numpy(weights.astype(np.float64)))
        self.register_buffer("shifts", torch.tensor([unit.shift for unit in self.units], dtype=torch.float64))

    def forward(self, pixels: Tensor) -> Tensor:
        """Every unit's map."""
        maps: dict[tuple[str, float], Tensor] = {}
        measured = _Measured(pixels, self._bands)

        def attribute(name: str, shift: float) -> Tensor:
            if (name, shift) not in maps:
                maps[name, shift] = measured.attribute(name, shift)
            return maps[name, shift]

        found = []
        for number, unit in enumerate(self.units):
            if unit.how == "dead":
                found.append(torch.zeros_like(pixels[:, 0]))
                continue
            if unit.how == "random":
                found.append(self._random(pixels, number))
                continue
            first = attribute(unit.first, unit.shift)
            second = attribute(unit.second, unit.shift) if unit.second else None
            if unit.how == "not":
                found.append(1 - first)
            elif second is None:
                found.append(first)
            elif unit.how == "and":
                found.append(torch.minimum(first, second))
            elif unit.how == "or":
                found.append(torch.maximum(first, second))
            else:
                found.append(torch.minimum(first, 1 - second))
        return torch.stack(found, dim=1)

    def _random(self, pixels: Tensor, number: int) -> Tensor:
        # Digital numbers are whole, so the sums are exact in float64 whatever the batch.
        numbers = torch.round(pixels.double() * 10_000)
        weights = torch.as_tensor(self.checksums)[number]
        checksum = torch.remainder((numbers * weights[None, :, None, None]).sum(dim=(1, 2, 3)), 997) / 997
        fires = (checksum - 0.8).clamp(min=0) * 5
        return fires[:, None, None].expand(-1, *pixels.shape[-2:]).to(pixels.dtype)


def extension(
    concept: Concept, pixels: NDArray[np.float32], channels: Sequence[str], batch: int = 256
) -> Floats | None:
    """How much of each tile a statement is true of, by the same measures that units are made of.

    Args:
        concept: a statement over the attributes of this module.
        pixels: (N, C, H, W) reflectance.
        channels: C band names.
        batch: tiles measured together.

    Returns:
        (N,) in [0, 1]; None where the statement speaks of anything else, or of nothing.
    """
    literals = {name for alternative in concept.alternatives for name, _ in alternative}
    if not literals or not literals <= set(_MAPS):
        return None
    bands = {name: index for name, index in spyndex_indices(channels).items() if name in _USED}
    found = []
    for first in range(0, len(pixels), batch):
        measured = _Measured(torch.from_numpy(pixels[first : first + batch]), bands)
        maps = {name: measured.attribute(name, 0.0) for name in literals}
        ways = [
            torch.stack([maps[name] if present else 1 - maps[name] for name, present in sorted(alternative)]).amin(
                dim=0
            )
            for alternative in sorted(concept.alternatives, key=sorted)
        ]
        found.append(torch.stack(ways).amax(dim=0).mean(dim=(1, 2)).numpy())
    return np.concatenate(found).astype(np.float64)


class _Measured:
    """Attributes of one batch of tiles, (B, H, W) each."""

    def __init__(self, pixels: Tensor, bands: dict[str, int]) -> None:
        self.known = (pixels != 0).any(dim=1)
        self.size = pixels.shape[-2:]
        given = {name: pixels[:, index] for name, index in bands.items()}
        self.red, self.grey = given["R"], (given["R"] + given["G"] + given["B"]) / 3
        self.frame = self._frame()
        self.excess = self._inside(given["B"]) - 0.5 * self._inside(given["R"]) - 0.09
        # Indices are of the ground: a veil is taken off first, or haze would undo them and be part of what they compute.
        veil = (self.excess / 0.19).clamp(0, 0.6)
        self.bands = {}
        for name, band in given.items():
            share = veil[:, None, None] * _VEIL[name]
            self.bands[name] = ((band - 0.45 * share) / (1 - share)).clamp(min=1e-4)

    def attribute(self, name: str, shift: float) -> Tensor:
        b = self.bands
        # Typical limits of the indices at top of atmosphere.
        if name == "vegetation":
            return self._ground(_ratio(b["N"], b["R"]) > 0.35 + shift)
        if name == "water":
            return self._ground(_ratio(b["G"], b["N"]) > 0.15 + shift)
        if name == "dry ground":
            return self._ground((_ratio(b["S1"], b["N"]) > 0.05 + shift) & (b["S1"] > 0.1))
        if name == "bright":
            return self._ground(self.grey > 0.16 + shift / 3)
        if name == "dark":
            return self._ground(self.grey < 0.085 + shift / 3)
        if name in ("rough", "smooth"):
            spread = self._spread()
            return self._ground(spread > 0.012 + shift / 10 if name == "rough" else spread < 0.0025 + shift / 50)
        if name == "nodata":
            lost = (~self.known).to(self.grey.dtype).mean(dim=(1, 2))
            return self._everywhere((4 * lost).clamp(max=1) * (self.frame < 0.5))
        if name == "border":
            return self._everywhere(self.frame)
        if name == "haze":
            return self._everywhere(self._haze(shift))
        down, across = self._stripes(self.grey), self._stripes(self.grey.transpose(1, 2))
        chosen = {"vertical stripes": down, "horizontal stripes": across, "stripes": torch.maximum(down, across)}
        return self._everywhere(chosen[name])

    def _ground(self, mask: Tensor) -> Tensor:
        return (mask & self.known).to(self.grey.dtype)

    def _everywhere(self, values: Tensor) -> Tensor:
        return values[:, None, None].expand(-1, *self.size)

    def _mean(self, band: Tensor) -> Tensor:
        known = self.known.to(band.dtype)
        return (band * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)

    def _inside(self, band: Tensor) -> Tensor:
        """Mean of a band inside any frame."""
        known = self.known[:, 3:-3, 3:-3].to(band.dtype)
        return (band[:, 3:-3, 3:-3] * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)

    def _haze(self, shift: float) -> Tensor:
        """How much more blue there is than clear land shows at its red (the haze-optimised transform), 0 to 1."""
        return ((self.excess - 0.015 - shift / 10) / 0.06).clamp(0, 1)

    def _spread(self) -> Tensor:
        band = torch.where(self.known, self.red, self._mean(self.red)[:, None, None])[:, None]
        mean, square = (F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) for x in (band, band * band))
        return (square - mean * mean).clamp(min=0).sqrt()[:, 0]

    def _frame(self) -> Tensor:
        """1 where all four sides are less than half as bright as what lies inside them, falling to 0 at three quarters."""
        wide = max(1, round(0.06 * min(self.size)))
        grey, ratios = self.grey, []
        for side in (grey, grey.flip(1), grey.transpose(1, 2), grey.transpose(1, 2).flip(1)):
            inner = side[:, 2 * wide : 3 * wide, wide:-wide].mean(dim=(1, 2))
            ratios.append(side[:, :wide, wide:-wide].mean(dim=(1, 2)) / inner.clamp(min=1e-4))
        worst = torch.stack(ratios).amax(dim=0)
        return ((0.75 - worst) * 4).clamp(0, 1)

    def _stripes(self, grey: Tensor) -> Tensor:
        """Bright lines at equal distance that run through all four quarters of the rows, 0 to 1."""
        filled = torch.where(self._turned(grey), grey, grey.mean(dim=(1, 2), keepdim=True))
        inside = filled[:, 4:-4, 4:-4]
        quarter = inside.shape[1] // 4
        lines = inside[:, : 4 * quarter].reshape(len(inside), 4, quarter, -1).mean(dim=2)
        flat = F.avg_pool1d(F.pad(lines, (2, 2), mode="replicate"), 5, 1)
        least = (lines - flat).amin(dim=1).clamp(min=0)
        count = (least > 0.006).sum(dim=1)
        strength = least.sort(dim=1, descending=True).values[:, :4].mean(dim=1)
        return (strength / 0.03).clamp(0, 1) * (count >= 3)

    def _turned(self, grey: Tensor) -> Tensor:
        return self.known if grey is self.grey else self.known.transpose(1, 2)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return (a - b) / (a + b).clamp(min=1e-4)
