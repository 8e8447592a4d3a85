"""Flaws of the imagery rather than of the ground: stripes, missing parts, marks, blocks, few levels, tints.

Each is measured on many tiles at once and without knowing how they were made, so real flaws and painted ones
(:mod:`geoaudit.perturb`) are found alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoaudit.bands import find_role

__all__ = ["Flaws", "find_flaws", "without_stripes"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Flaws:
    """Measures of N tiles; arrays are (N,) unless said.

    Attributes:
        stripes_vertical: how well the columns' brightness pattern repeats in each quarter of the rows, 0 to 1;
            0 also where fewer than three lines stand out.
        stripes_horizontal: the same of rows.
        missing: share of pixels without data.
        missing_straight: how well one straight line parts missing from present, 0 to 1; wedges are near 1.
        frame: how much darker all four edges are than what lies inside them, 0 to 1.
        mark: share of pixels in a compact bright mark in one corner, 0 without one.
        intact: (N, H, W) bool, pixels that hold ground: neither missing nor in a mark or a dark frame.
        mark_row, mark_column: the mark's centre, 0 (top, left) to 1.
        blocks: how much larger steps are at every eighth pixel than elsewhere; 1 without blocks.
        step: least distance of two grey levels in red, green and blue, in reflectance; 0 where there is one level.
        blur: mean second difference over mean first difference of the red band; natural tiles are near 1.
        red_cast: red over blue before any correction, relative to what clear air makes of grey ground.
        lost_band: channel that is zero all over while others are not, or -1.

    """

    stripes_vertical: Array
    stripes_horizontal: Array
    missing: Array
    missing_straight: Array
    frame: Array
    mark: Array
    intact: NDArray[np.bool_]
    mark_row: Array
    mark_column: Array
    blocks: Array
    step: Array
    blur: Array
    red_cast: Array
    lost_band: NDArray[np.int64]


def find_flaws(pixels: Array, channels: Sequence[str], valid: NDArray[np.bool_]) -> Flaws:
    """Measure (N, C, H, W) reflectance; ``valid`` (N, H, W) is false where there is no data."""
    red = _filled(pixels[:, find_role(channels, "red") or 0], valid)
    blue = _filled(pixels[:, find_role(channels, "blue") or 0], valid)
    mean = _filled(pixels.mean(axis=1), valid)
    mark, row, column, marked = _mark(pixels, channels, valid)
    frame = _frame(pixels.mean(axis=1))
    framed = np.zeros_like(valid)
    framed |= (frame > 0.25)[:, None, None] & _rim(valid.shape[1], valid.shape[2])
    cirrus = find_role(channels, "cirrus")
    empty = np.asarray((np.abs(pixels) < 1e-6).all(axis=(2, 3))) & np.asarray(valid.any(axis=(1, 2)))[:, None]
    if cirrus is not None:
        empty[:, cirrus] = False  # dry clear air makes it zero
    dx, dy = np.abs(np.diff(red, axis=2)), np.abs(np.diff(red, axis=1))
    first = dx.mean(axis=(1, 2)) + dy.mean(axis=(1, 2))
    second = np.abs(np.diff(red, 2, axis=2)).mean(axis=(1, 2)) + np.abs(np.diff(red, 2, axis=1)).mean(axis=(1, 2))
    gaps = np.full(len(red), np.inf)
    for name in ("red", "green", "blue"):
        band = _filled(pixels[:, find_role(channels, name) or 0], valid)
        rises = np.diff(np.sort(np.round(band.reshape(len(red), -1), 5), axis=1), axis=1)
        gaps = np.minimum(gaps, np.where(rises > 0, rises, np.inf).min(axis=1, initial=np.inf))
    ratio = red.mean(axis=(1, 2)) / np.maximum(blue.mean(axis=(1, 2)), 1e-4)
    return Flaws(
        stripes_vertical=_stripes(mean),
        stripes_horizontal=_stripes(mean.transpose(0, 2, 1)),
        missing=1 - valid.mean(axis=(1, 2), dtype=np.float32),
        missing_straight=_straightness(valid),
        frame=frame,
        mark=mark,
        intact=valid & ~marked & ~framed,
        mark_row=row,
        mark_column=column,
        blocks=np.minimum(_block_steps(dx, 2), _block_steps(dy, 1)),
        step=np.where(np.isfinite(gaps), gaps, 0).astype(np.float32),
        blur=np.where(first > 1e-5, second / np.maximum(first, 1e-9), 1).astype(np.float32),
        red_cast=ratio.astype(np.float32),
        lost_band=np.where(empty.any(axis=1), empty.argmax(axis=1), -1).astype(np.int64),
    )


def _filled(band: Array, valid: NDArray[np.bool_]) -> Array:
    """Missing pixels take their tile's mean, so that a gap makes no steps of its own size."""
    if valid.all():
        return band
    mean = (band * valid).sum(axis=(1, 2)) / np.maximum(valid.sum(axis=(1, 2)), 1)
    return np.where(valid, band, mean[:, None, None]).astype(np.float32)


def _stripes(grey: Array) -> Array:
    """Stripes along columns: the high-passed column means agree between quarters of the rows, in several lines."""
    from scipy.ndimage import median_filter

    count, height, width = grey.shape
    if height < 8 or width < 8:
        return np.zeros(count, dtype=np.float32)
    quarter = height // 4
    # A median over the rows of a quarter keeps what runs through and drops dots, however they are spaced.
    means = np.median(grey[:, : quarter * 4].reshape(count, 4, quarter, width), axis=2)
    # A running median keeps lines one or two pixels wide and follows the ground's own steps.
    sharp = means - median_filter(means, size=(1, 1, 5), mode="nearest")
    norm = np.maximum(np.linalg.norm(sharp, axis=2, keepdims=True), 1e-9)
    unit = sharp / norm
    agreement = np.stack([(unit[:, i] * unit[:, j]).sum(axis=1) for i in range(4) for j in range(i)], axis=1)
    profile = sharp.mean(axis=1)
    size = np.abs(profile).max(axis=1)
    lines = (np.abs(profile) > 0.5 * size[:, None]).sum(axis=1)
    # Fewer than three lines are a road or a field's edge; under a tenth of a percent nothing is seen.
    seen = (lines >= 3) & (lines <= width // 2) & (size > 0.001)
    return np.where(seen, np.clip(agreement.min(axis=1), 0, 1), 0).astype(np.float32)


def without_stripes(pixels: Array, found: Flaws) -> Array:
    """The tiles with the pattern of their stripes taken out of every band, others unchanged."""
    from scipy.ndimage import median_filter

    for axis, score in ((2, found.stripes_vertical), (3, found.stripes_horizontal)):
        rows = score > 0.5
        if rows.any():
            profile = np.median(pixels[rows], axis=axis, keepdims=True)
            size = [1, 1, 1, 1]
            size[5 - axis] = 5
            pixels = pixels.copy()
            pixels[rows] -= profile - median_filter(profile, size=tuple(size), mode="nearest")
    return pixels


def _straightness(valid: NDArray[np.bool_]) -> Array:
    """Share of pixels on the right side of the line between the centres of what is missing and what is present."""
    count, height, width = valid.shape
    rows, columns = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    result = np.zeros(count, dtype=np.float32)
    part = valid.mean(axis=(1, 2))
    for index in np.flatnonzero((part > 0.02) & (part < 0.98)):
        present = valid[index]
        y, x = np.nonzero(present)
        v, u = np.nonzero(~present)
        towards = np.array([y.mean() - v.mean(), x.mean() - u.mean()])
        along = towards[0] * rows[:, None] + towards[1] * columns[None]
        cut = np.quantile(along, 1 - part[index])
        result[index] = ((along > cut) == present).mean()
    return result


def _frame(grey: Array) -> Array:
    """How much darker the outermost pixels of every side are than the ring inside them."""
    height, width = grey.shape[1:]
    wide = max(1, round(0.06 * min(height, width)))
    if min(height, width) < 4 * wide + 2:
        return np.zeros(len(grey), dtype=np.float32)
    sides = (grey, grey[:, ::-1], grey.transpose(0, 2, 1), grey.transpose(0, 2, 1)[:, ::-1])
    outer = np.stack([np.median(side[:, 0, wide:-wide], axis=1) for side in sides])
    inner = np.stack([np.median(side[:, 2 * wide, wide:-wide], axis=1) for side in sides])
    return np.asarray(np.clip(1 - outer / np.maximum(inner, 1e-4), 0, 1).min(axis=0), dtype=np.float32)


def _rim(height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) true in the outermost pixels that a frame would take."""
    wide = max(1, round(0.06 * min(height, width)))
    rim = np.ones((height, width), dtype=bool)
    rim[wide:-wide, wide:-wide] = False
    return rim


def _mark(
    pixels: Array, channels: Sequence[str], valid: NDArray[np.bool_]
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Share, place and pixels of a compact corner mark bright in every band: no ground is bright in the cirrus band."""
    from dnd_core.backends.textures import blobs

    least = pixels.min(axis=1)
    cirrus = find_role(channels, "cirrus")
    usual = np.median(least.reshape(len(least), -1), axis=1)[:, None, None]
    bright = (pixels[:, cirrus] > 0.12 if cirrus is not None else least > 0.26) & (least > usual + 0.1) & valid
    part = blobs(bright)
    corner = (np.abs(part.row - 0.5) > 0.18) & (np.abs(part.column - 0.5) > 0.18)
    total = bright.mean(axis=(1, 2))
    compact = (part.share > 0.004) & (total < 0.12) & (part.share > 0.6 * total) & (part.elongation < 2.5) & corner
    share = np.where(compact, part.share, 0).astype(np.float32)
    return share, part.row, part.column, bright & compact[:, None, None]


def _block_steps(steps: Array, axis: int) -> Array:
    """Mean step at every eighth pixel over the mean step elsewhere."""
    along = steps.mean(axis=3 - axis)
    length = along.shape[1]
    if length < 15:
        return np.ones(len(steps), dtype=np.float32)
    at = np.arange(length) % 8 == 7
    return np.asarray(along[:, at].mean(axis=1) / np.maximum(along[:, ~at].mean(axis=1), 1e-6), dtype=np.float32)
