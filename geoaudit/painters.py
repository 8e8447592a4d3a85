"""How each artefact of :mod:`geoaudit.perturb` is painted onto one image.

A painter takes one image (C, H, W) of reflectance, its C band names, a strength in (0, 1] and a seeded generator,
and returns a new image. Which painters exist, and what they are called, stands in the registry of that module.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoaudit.bands import band

__all__ = ["OFFSET", "wavelengths"]

Pixels = NDArray[np.float32]

_CIRRUS = (1373.0, 1375.0)
OFFSET = 0.1
"""The +1000 DN of Sentinel-2 processing baseline 04.00, in reflectance."""


def wavelengths(channels: Sequence[str]) -> NDArray[np.float64]:
    """(C,) central wavelengths in nanometres, by any name that :func:`geoaudit.bands.band` understands.

    Raises:
        ProbeError: a channel is no known band.

    """
    return np.array([float(band(name).wavelength) for name in channels])


def _field(size: tuple[int, int], rng: np.random.Generator, waves: int = 6) -> NDArray[np.float64]:
    """A smooth random field in [0, 1]: a few plane waves no shorter than half the tile."""
    rows, columns = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]), indexing="ij")
    total = np.zeros(size)
    for _ in range(waves):
        fy, fx = rng.uniform(-2, 2, 2)
        total += rng.uniform(0.5, 1) * np.cos(2 * np.pi * (fy * rows + fx * columns) + rng.uniform(0, 2 * np.pi))
    spread = float(np.ptp(total))
    return (total - total.min()) / spread if spread > 0 else np.full(size, 0.5)


def haze(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    nm = wavelengths(channels)
    # Aerosol scattering falls with wavelength (Angstrom exponent about 1.3). Water vapour hides low haze
    # from the cirrus band altogether and from the vapour band mostly.
    thickness = 0.5 * (490.0 / nm) ** 1.3
    thickness = np.where(np.isin(nm, _CIRRUS), 0.0, np.where(nm == 945.0, 0.3 * thickness, thickness))
    veil = 0.65 + 0.35 * _field(image.shape[1:], rng)
    share = strength * thickness[:, None, None] * veil[None]
    return np.asarray(image * (1 - share) + 0.45 * share, dtype=np.float32)


def _stripes(image: Pixels, strength: float, rng: np.random.Generator, *, axis: int) -> Pixels:
    length = image.shape[axis]
    period = max(3, round(length / 8))
    lines = (np.arange(length) - int(rng.integers(period))) % period == 0
    shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
    return np.asarray(image + 0.15 * strength * lines.reshape(shape), dtype=np.float32)


def stripes_vertical(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    return _stripes(image, strength, rng, axis=2)


def stripes_horizontal(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    return _stripes(image, strength, rng, axis=1)


def wedge(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[1:]
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    distance = np.cos(angle) * columns + np.sin(angle) * rows
    lost = distance < np.quantile(distance, 0.5 * strength)
    return np.where(lost[None], np.float32(0), image)


def border(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[1:]
    frame = max(1, round(0.06 * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[frame : height - frame, frame : width - frame] = True
    return np.where(inside[None], image, np.float32(1 - strength) * image)


def offset(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    return image + np.float32(OFFSET * strength)


def gain(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    return image * np.float32(1 + 0.3 * strength)


def cloud(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    nm = wavelengths(channels)
    # Water clouds are white up to 1 um and absorb beyond; only their tops reach into the cirrus band.
    spectrum = np.where(nm < 1000, 0.65, np.where(np.isin(nm, _CIRRUS), 0.02, np.where(nm < 2000, 0.45, 0.32)))
    height, width = image.shape[1:]
    lumps = _field((height, width), rng, waves=12)
    opacity = np.clip((lumps - np.quantile(lumps, 1 - 0.6 * strength)) / 0.12, 0, 1)
    direction = rng.uniform(0, 2 * np.pi)
    reach = 0.2 * min(height, width)
    shift = (round(reach * np.sin(direction)), round(reach * np.cos(direction)))
    padded = np.pad(opacity, ((abs(shift[0]),) * 2, (abs(shift[1]),) * 2))
    shadow = np.roll(padded, shift, axis=(0, 1))[
        abs(shift[0]) : abs(shift[0]) + height, abs(shift[1]) : abs(shift[1]) + width
    ]
    ground = image * (1 - 0.65 * shadow)
    return np.asarray(ground * (1 - opacity) + spectrum[:, None, None] * opacity, dtype=np.float32)


def colour_cast(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    nm = wavelengths(channels)
    gain = np.where(nm < 520, 1 - 0.35 * strength, np.where((nm > 600) & (nm < 700), 1 + 0.5 * strength, 1.0))
    return np.asarray(image * gain[:, None, None], dtype=np.float32)


def quantise(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    step = np.float32(0.06 * strength)
    return np.round(image / step) * step


def jpeg(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    from scipy.fft import dctn, idctn

    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
    blocks = padded.reshape(len(image), padded.shape[1] // 8, 8, padded.shape[2] // 8, 8)
    frequency = np.add.outer(np.arange(8), np.arange(8))[:, None, :]
    step = strength * 0.04 * (1 + frequency)
    coefficients = np.round(dctn(blocks, axes=(2, 4), norm="ortho") / step) * step
    return np.asarray(
        idctn(coefficients, axes=(2, 4), norm="ortho").reshape(padded.shape)[:, :height, :width], np.float32
    )


def blur(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma=(0, 3 * strength, 3 * strength), mode="nearest"), dtype=np.float32)


def band_dropout(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    result = image.copy()
    result[int(rng.integers(len(image)))] *= np.float32(1 - strength)
    return result


def band_swap(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    nm = wavelengths(channels)
    first, second = int(np.abs(nm - 490).argmin()), int(np.abs(nm - 665).argmin())
    result = image.copy()
    result[first] += np.float32(strength) * (image[second] - image[first])
    result[second] += np.float32(strength) * (image[first] - image[second])
    return result


def watermark(image: Pixels, channels: tuple[str, ...], strength: float, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[1:]
    side = max(4, round(0.25 * min(height, width)))
    rows, columns = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    radius = np.hypot(rows, columns)
    logo = ((radius <= 1) & (radius >= 0.6)) | ((np.abs(rows) <= 0.2) & (radius <= 1))
    result = image.copy()
    top, left = max(0, height - side - 1), max(0, width - side - 1)
    part = result[:, top : top + side, left : left + side]
    part += np.float32(strength) * logo[None, : part.shape[1], : part.shape[2]] * (np.float32(0.6) - part)
    return result
