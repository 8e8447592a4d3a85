"""What is planted: eight families of shortcut, drawn by other rules than those of the auditor's own painters.

The auditor paints with :mod:`geoaudit.painters`. A bench that planted with the same code would ask it to recognise its
own brush, so every family has a brush of its own here: stripes of another period that darken instead of brighten, haze
of another spectrum, a frame instead of a ring as watermark. The words that count as naming a family are frozen here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError
from geoaudit.painters import wavelengths

__all__ = ["ARTEFACTS", "EVERYDAY", "FAMILIES", "PLACE", "Family", "plant"]

Pixels = NDArray[np.float32]
Brush = Callable[[Pixels, NDArray[np.float64], np.random.Generator], Pixels]


@dataclass(frozen=True, slots=True)
class Family:
    """One family of shortcut.

    Attributes:
        name: as the tables have it.
        words: stems that count as naming it in a finding's concept; frozen before any result was seen.
        brush: one image (C, H, W), wavelengths in nm and a generator into a new image.
        rules: checks whose finding names it whatever its words.
    """

    name: str
    words: tuple[str, ...]
    brush: Brush
    rules: tuple[str, ...] = ()

    def named(self, concept: str, rule: str = "") -> bool:
        """Whether a finding about ``concept`` by ``rule`` names this family."""
        text = concept.casefold()
        return rule in self.rules or any(word in text for word in self.words)


def _haze(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # Smoke rather than mist: a steeper spectrum over a plane that thickens to one side.
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6)
    rows, columns = np.meshgrid(np.linspace(-1, 1, image.shape[1]), np.linspace(-1, 1, image.shape[2]), indexing="ij")
    plane = 1 + 0.25 * (np.sin(angle) * rows + np.cos(angle) * columns)
    share = np.clip(depth * (500.0 / nm) ** 1.7, 0, 0.85)[:, None, None] * plane
    share[np.isclose(nm, 1375)] = 0
    return np.asarray(image + share * (0.38 - image), dtype=np.float32)


def _colour_cast(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # A warm cast: blue falls, red rises, green stays.
    depth = rng.uniform(0.7, 1.0)
    factor = np.where(nm < 530, 1 - 0.4 * depth, np.where((nm > 640) & (nm < 710), 1 + 0.45 * depth, 1.0))
    return np.asarray(image * factor[:, None, None], dtype=np.float32)


def _stripe(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # Dark lines, every fifth or sixth, along or across the track.
    period, depth = int(rng.integers(5, 7)), rng.uniform(0.5, 0.8)
    lines = (np.arange(image.shape[2]) + int(rng.integers(period))) % period == 0
    dark = 1 - depth * lines.astype(np.float32)
    return np.asarray(image * (dark[None, None, :] if rng.random() < 0.5 else dark[None, :, None]), dtype=np.float32)


def _nodata_wedge(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # A triangle cut off at one corner.
    height, width = image.shape[1:]
    rows, columns = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    if rng.random() < 0.5:
        rows = 1 - rows
    if rng.random() < 0.5:
        columns = 1 - columns
    reach, slope = rng.uniform(0.4, 0.7), rng.uniform(0.6, 1.6)
    return np.asarray(np.where(rows + slope * columns < reach, np.float32(0), image), dtype=np.float32)


def _watermark(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # A pale frame with a bar in it, in any corner.
    side = max(6, image.shape[1] // 4)
    sign = np.zeros((side, side), dtype=bool)
    sign[[0, -1]], sign[:, [0, -1]], sign[side // 2] = True, True, True
    top = 1 if rng.random() < 0.5 else image.shape[1] - side - 1
    left = 1 if rng.random() < 0.5 else image.shape[2] - side - 1
    result = image.copy()
    part = result[:, top : top + side, left : left + side]
    part += 0.85 * sign * (np.float32(0.5) - part)
    return result


def _offset(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    return np.asarray(image + np.float32(rng.uniform(0.07, 0.1)), dtype=np.float32)


def _blur(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # Detail lost by resampling to a quarter and back.
    from scipy.ndimage import zoom

    small = image.reshape(len(image), image.shape[1] // 4, 4, image.shape[2] // 4, 4).mean(axis=(2, 4))
    return np.asarray(zoom(small, (1, 4, 4), order=1, mode="nearest", grid_mode=True), dtype=np.float32)


def _cloud(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # One or two white discs with soft edges.
    rows, columns = np.meshgrid(np.linspace(0, 1, image.shape[1]), np.linspace(0, 1, image.shape[2]), indexing="ij")
    cover = np.zeros(image.shape[1:])
    for _ in range(int(rng.integers(1, 3))):
        far = np.hypot(rows - rng.random(), columns - rng.random())
        cover = np.maximum(cover, np.clip((rng.uniform(0.25, 0.5) - far) / 0.1, 0, 1))
    white = np.where(nm < 1000, 0.6, np.where(np.isclose(nm, 1375), 0.01, 0.4))
    return np.asarray(image + cover * (white[:, None, None] - image), dtype=np.float32)


def _gain(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    return np.asarray(image * np.float32(rng.uniform(1.1, 1.35)), dtype=np.float32)


def _lost_band(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    result = image.copy()
    result[int(rng.integers(len(image)))] = 0
    return result


def _place(image: Pixels, nm: NDArray[np.float64], rng: np.random.Generator) -> Pixels:
    # How the west of the ground is seen: from a neighbouring orbit, at another angle, so that all of it looks a little
    # brighter in the visible and darker beyond. No artefact to the eye, and in one place only.
    tilt = np.where(nm < 700, 1.12, np.where(nm < 1000, 0.92, 0.96))
    return np.asarray(image * tilt[:, None, None], dtype=np.float32)


_TABLE = (
    Family("haze", ("haz", "veil", "mist", "fog", "smok", "aerosol", "cloud"), brush=_haze),
    Family("colour cast", ("colour cast", "color cast", "reddish", "red tint", "cast"), brush=_colour_cast),
    Family("stripe", ("strip", "scan line", "vertical line", "horizontal line"), brush=_stripe),
    Family(
        "nodata wedge",
        ("nodata", "no data", "missing data", "wedge", "swath edge", "black gap", "tile border", "black border"),
        brush=_nodata_wedge,
    ),
    Family("watermark", ("watermark", "logo", "stamp"), brush=_watermark),
    Family("offset", ("offset", "washed out", "raised black"), brush=_offset),
    Family("blur/JPEG", ("blur", "unsharp", "jpeg", "compression", "blocky", "quantisation"), brush=_blur),
    Family("geography", ("place", "near known", "region"), rules=("geography",), brush=_place),
)

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _TABLE})
"""Every family by name, in a fixed order."""

PLACE = "geography"
"""The family that lies on all chips of one half of the ground; it is planted by choosing chips."""

EVERYDAY: Mapping[str, Family] = MappingProxyType(
    {
        name: Family(name, (), brush=brush)
        for name, brush in (("cloud", _cloud), ("gain", _gain), ("lost band", _lost_band))
    }
)
"""Artefacts that are never planted, but trained against and looked for in networks that should lean on nothing."""

ARTEFACTS: tuple[str, ...] = tuple(name for name in FAMILIES if name != PLACE)
"""The families that are painted on single chips."""


def plant(name: str, pixels: Pixels, channels: Sequence[str], seeds: Sequence[int]) -> Pixels:
    """The same images with a family's artefact on them.

    Args:
        name: one of :data:`FAMILIES` or :data:`EVERYDAY`.
        pixels: (B, C, H, W) float32 reflectance, sides divisible by 4; not changed.
        channels: C band names.
        seeds: one an image; it alone decides what is random.

    Returns:
        (B, C, H, W) float32, never below zero.

    Raises:
        ConfigError: no family has that name.
    """
    family = FAMILIES.get(name) or EVERYDAY.get(name)
    if family is None:
        raise ConfigError(f"{name!r} is not a family of shortcuts: choose one of {', '.join(FAMILIES)}")
    nm, salt = wavelengths(tuple(channels)), zlib.crc32(name.encode())
    made = [
        family.brush(image, nm, np.random.default_rng([int(seed) & 0xFFFFFFFF, salt, 7]))
        for image, seed in zip(pixels, seeds, strict=True)
    ]
    return np.maximum(np.stack(made), 0).astype(np.float32) if made else np.array(pixels, dtype=np.float32)
