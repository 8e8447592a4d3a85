"""Texture of grey images, many at once: contrast, roughness, orientation, repetition, gradients and blobs.

Orientation comes from the structure tensor (Bigun and Granlund 1987): the eigenvectors of the summed outer products of
the gradient. Repetition is the share of the power spectrum in one narrow peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blobs", "Texture", "blobs", "direction_word", "texture"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Texture:
    """Measures of N grey images; every array is (N,) float32.

    Attributes:
        mean: mean value, in the images' units.
        contrast: standard deviation, in the images' units.
        roughness: mean absolute difference of neighbouring pixels, in the images' units.
        coherence: how far all edges run one way, 0 (any way) to 1 (one way).
        direction: which way lines run, degrees in [0, 180): 0 horizontal, 45 rising to the right, 90 vertical.
        repetition: share of the variance in one frequency and its neighbours, 0 to 1; stripes are near 1.
        period: wavelength of that frequency in pixels.
        stripe_direction: which way the repeated lines run, degrees as in ``direction``.
        crossed: the same share at right angles to the first; grids and checkerboards have both.
        slope: share of the variance that a plane explains, 0 to 1.
        slope_direction: where a plane rises to, degrees in [0, 360): 0 right, 90 up.

    """

    mean: Array
    contrast: Array
    roughness: Array
    coherence: Array
    direction: Array
    repetition: Array
    period: Array
    stripe_direction: Array
    crossed: Array
    slope: Array
    slope_direction: Array


def direction_word(degrees: float) -> str:
    """``horizontal``, ``vertical`` or ``diagonal`` for a direction in [0, 180) degrees."""
    turned = degrees % 180
    if turned < 22.5 or turned >= 157.5:
        return "horizontal"
    return "vertical" if 67.5 <= turned < 112.5 else "diagonal"


def texture(grey: Array) -> Texture:
    """Texture of (N, H, W) grey images; those under 4 pixels a side are continued at their edges."""
    lack = [max(0, 4 - side) for side in grey.shape[1:]]
    if any(lack):
        grey = np.pad(grey, ((0, 0), (0, lack[0]), (0, lack[1])), mode="edge")
    _, height, width = grey.shape
    mean = grey.mean(axis=(1, 2))
    centred = grey - mean[:, None, None]
    variance = (centred**2).mean(axis=(1, 2))
    right, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    roughness = 0.5 * (np.abs(right).mean(axis=(1, 2)) + np.abs(down).mean(axis=(1, 2)))
    gx = 0.5 * (right[:, :-1] + right[:, 1:])
    gy = 0.5 * (down[:, :, :-1] + down[:, :, 1:])
    jxx, jyy, jxy = (np.einsum("nij,nij->n", a, b) for a, b in ((gx, gx), (gy, gy), (gx, gy)))
    total = jxx + jyy
    coherence = np.hypot(jxx - jyy, 2 * jxy) / np.maximum(total, 1e-12)
    # The gradient stands across the lines, and rows count downwards: turn by 90 degrees and mirror.
    direction = (90 - np.degrees(0.5 * np.arctan2(2 * jxy, jxx - jyy))) % 180

    rows, columns = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    along_x = centred.mean(axis=1) @ columns / (columns @ columns)
    along_y = centred.mean(axis=2) @ rows / (rows @ rows)
    plane = along_x**2 * (columns**2).mean() + along_y**2 * (rows**2).mean()
    flat = centred - along_x[:, None, None] * columns - along_y[:, None, None] * rows[:, None]
    spectrum = _spectrum(flat)
    floor = np.maximum(variance, 1e-12)
    return Texture(
        mean=np.asarray(mean, dtype=np.float32),
        contrast=np.sqrt(variance).astype(np.float32),
        roughness=roughness.astype(np.float32),
        coherence=coherence.astype(np.float32),
        direction=direction.astype(np.float32),
        slope=np.minimum(plane / floor, 1).astype(np.float32),
        slope_direction=(np.degrees(np.arctan2(-along_y, along_x)) % 360).astype(np.float32),
        **_peaks(spectrum, floor, (height, width)),
    )


def _spectrum(flat: Array) -> Array:
    """(N, H, W // 2 + 1) power, scaled so that it sums to the variance, slow waves left out."""
    _, height, width = flat.shape
    power = np.abs(np.fft.rfft2(flat, axes=(1, 2))) ** 2 / (height * width) ** 2
    power[:, :, 1 : (width + 1) // 2] *= 2  # the other half of the plane mirrors this one
    fy = np.abs(np.fft.fftfreq(height) * height)[:, None]
    fx = np.arange(width // 2 + 1)[None]
    # Two waves a tile and fewer are shapes, not repetition.
    power[:, np.hypot(fy, fx) < 2.5] = 0
    return np.asarray(power, dtype=np.float32)


def _peaks(power: Array, variance: Array, size: tuple[int, int]) -> dict[str, Array]:
    """The strongest repeated line of each spectrum, and what repeats across it."""
    count = len(power)
    # A wave between two bins spills into both; the wrap joins positive and negative rows of the plane.
    near = power + 0.5 * (np.roll(power, 1, axis=1) + np.roll(power, -1, axis=1))
    near[:, :, 1:] += 0.5 * power[:, :, :-1]
    near[:, :, :-1] += 0.5 * power[:, :, 1:]
    best = near.reshape(count, -1).argmax(axis=1)
    fy, fx = np.meshgrid(np.fft.fftfreq(size[0]), np.arange(power.shape[2]) / size[1], indexing="ij")
    fy, fx = fy.astype(np.float32).ravel(), fx.astype(np.float32).ravel()
    speed, angles = np.hypot(fy, fx), np.degrees(np.arctan2(-fy, fx))
    pitch, angle = np.maximum(speed[best], 1 / max(size))[:, None], angles[best][:, None]
    turned = np.abs((angles - angle + 90) % 180 - 90)
    away = np.abs(speed - np.round(speed / pitch) * pitch)
    harmonic = (away <= np.minimum(1.01 / min(size), 0.2 * pitch)) & (speed > 0.5 * pitch)
    return {
        "repetition": _comb(power.reshape(count, -1), turned < 8, harmonic) / variance,
        "period": (1 / pitch[:, 0]).astype(np.float32),
        "stripe_direction": ((angle[:, 0] + 90) % 180).astype(np.float32),
        "crossed": _comb(power.reshape(count, -1), turned > 82, harmonic) / variance,
    }


def _comb(power: Array, inside: NDArray[np.bool_], harmonic: NDArray[np.bool_]) -> Array:
    """Power in the harmonics beyond what a single edge or line, whose spectrum has no teeth, would put there."""
    sector = (power * inside).sum(axis=1)
    teeth = (power * (inside & harmonic)).sum(axis=1)
    chance = (inside & harmonic).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    return np.asarray(np.clip((teeth - chance * sector) / np.maximum(1 - chance, 1e-6), 0, None), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Blobs:
    """The parts that stand out of N images; every array is (N,).

    Attributes:
        count: parts of at least 0.4 % of the image, int64.
        share: the largest one's share of the image, 0 when there is none.
        roundness: its area over that of the circle around it: disc 1, square 0.64, line near 0.
        boxiness: its area over that of the rectangle with its second moments: square 1, disc 0.95, triangle 0.87.
        elongation: ratio of its axes, 1 or more.
        direction: which way its long axis runs, degrees in [0, 180) as in :class:`Texture`.
        row, column: its centre, 0 (top, left) to 1.
        mask: (N, H, W) bool, its pixels.

    """

    count: NDArray[np.int64]
    share: Array
    roundness: Array
    boxiness: Array
    elongation: Array
    direction: Array
    row: Array
    column: Array
    mask: NDArray[np.bool_]


def blobs(standing_out: NDArray[np.bool_]) -> Blobs:
    """Connected parts (4 neighbours) of (N, H, W) masks, the largest one measured."""
    from scipy import ndimage

    count, height, width = standing_out.shape
    plane = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(standing_out, structure=np.stack([np.zeros_like(plane), plane, np.zeros_like(plane)]))
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    per_pixel = areas[labels].reshape(count, -1)
    at = per_pixel.argmax(axis=1)
    area = per_pixel[np.arange(count), at].astype(np.float64)
    chosen = labels.reshape(count, -1)[np.arange(count), at]
    mask = (labels == chosen[:, None, None]) & (area > 0)[:, None, None]
    least = max(4.0, 0.004 * height * width)
    firsts = np.unique(labels.ravel(), return_index=True)[1]
    large = firsts[per_pixel.ravel()[firsts] >= least] // (height * width)
    size = np.maximum(area, 1)
    rows, columns = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    by_row, by_column = mask.sum(axis=2), mask.sum(axis=1)
    cy, cx = by_row @ rows / size, by_column @ columns / size
    # 1/12 is the variance of a single pixel's own square.
    vyy = by_row @ rows**2 / size - cy**2 + 1 / 12
    vxx = by_column @ columns**2 / size - cx**2 + 1 / 12
    vxy = np.einsum("nij,i,j->n", mask, rows, columns, optimize=True) / size - cy * cx
    spread = np.hypot((vxx - vyy) / 2, vxy)
    middle = (vxx + vyy) / 2
    far = (rows[None, :, None] - cy[:, None, None]) ** 2 + (columns[None, None, :] - cx[:, None, None]) ** 2
    reach = np.sqrt((far * mask).max(axis=(1, 2))) + 0.5
    determinant = np.maximum(vxx * vyy - vxy**2, 1e-12)
    found = area > 0
    return Blobs(
        count=np.bincount(large, minlength=count).astype(np.int64),
        share=(area / (height * width)).astype(np.float32),
        roundness=np.where(found, np.minimum(area / (np.pi * reach**2), 1), 0).astype(np.float32),
        boxiness=np.where(found, area / (12 * np.sqrt(determinant)), 0).astype(np.float32),
        elongation=np.sqrt((middle + spread) / np.maximum(middle - spread, 1e-6)).astype(np.float32),
        direction=(np.degrees(0.5 * np.arctan2(-2 * vxy, vxx - vyy)) % 180).astype(np.float32),
        row=(cy / max(height - 1, 1)).astype(np.float32),
        column=(cx / max(width - 1, 1)).astype(np.float32),
        mask=mask,
    )
