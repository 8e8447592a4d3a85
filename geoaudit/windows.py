"""Where the windows of a sliding pass lie, how they are blended, and which pixels a layer's cells cover.

Everything here is exact arithmetic on pixel edges. A layer of h x w cells over a chip of H x W scene pixels has the
stride (H/h, W/w), whole or not, and its cell (i, j) covers the half-open rectangle of pixels
[i H/h, (i+1) H/h) x [j W/w, (j+1) W/w); nothing is resampled on the way to the output grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError

__all__ = ["Axis", "Placement", "SpatialError", "WindowPlan", "plan_windows"]


class SpatialError(ProbeError):
    """A unit cannot be mapped over a scene with these settings."""


@dataclass(frozen=True)
class Axis:
    """The windows along one axis of a scene.

    Attributes:
        length: pixels of the scene along this axis.
        chip: pixels of a window; the one window of a shorter scene reaches beyond it.
        stride: pixels between neighbouring windows; the last one is moved inwards to end with the scene.
        trim: pixels at a window's ends that are left out wherever another window covers them.
        starts: first pixel of each window, rising.

    """

    length: int
    chip: int
    stride: int
    trim: int
    starts: tuple[int, ...]

    def weights(self, start: int) -> NDArray[np.float64]:
        """Blending weight of each of a window's pixels: Hann, never zero except where trimmed or beyond the scene.

        Returns:
            (chip,) float64 in [0, 1].

        """
        size = self.chip - 2 * self.trim
        hann = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
        # The ends of the scene have no second window: there the rim counts as much as its neighbour does.
        before = hann[0] if start == self.starts[0] else 0.0
        after = hann[-1] if start == self.starts[-1] else 0.0
        whole = np.concatenate([np.full(self.trim, before), hann, np.full(self.trim, after)])
        whole[max(0, self.length - start) :] = 0.0
        return whole

    def cover(self, cells: int, offset: float = 0.0) -> NDArray[np.float64]:
        """How much of each pixel of a window each of a layer's ``cells`` covers, (chip, cells), rows summing to 1.

        With an offset the cells lie that many pixels further on, and the outermost reach to the window's ends.
        """
        edges = np.arange(cells + 1) * self.chip / cells + offset
        edges[0], edges[-1] = 0.0, self.chip
        pixel = np.arange(self.chip)[:, None]
        shared = np.minimum(pixel + 1, edges[None, 1:]) - np.maximum(pixel, edges[None, :-1])
        return np.asarray(np.clip(shared, 0.0, 1.0), dtype=np.float64)

    def placement(self, start: int, cells: int, resolution: int, offset: float = 0.0) -> Placement:
        """The share of each output cell that a window's cells bring in, weighted for blending."""
        last = min(start + self.chip, self.length) - 1
        first_row, rows = start // resolution, last // resolution - start // resolution + 1
        matrix = np.zeros((rows, cells))
        inside = last - start + 1
        weighted = (self.weights(start)[:, None] * self.cover(cells, offset))[:inside]
        np.add.at(matrix, (start + np.arange(inside)) // resolution - first_row, weighted)
        return Placement(first_row, matrix)


@dataclass(frozen=True, eq=False)
class Placement:
    """Output rows (or columns) from ``first`` on get ``matrix @ cells``; matrix is (rows, cells) float64."""

    first: int
    matrix: NDArray[np.float64]

    @property
    def stop(self) -> int:
        """One past the last output row or column touched."""
        return self.first + len(self.matrix)


@dataclass(frozen=True)
class WindowPlan:
    """All windows of a sliding pass, row by row."""

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def resolution(self, cells: tuple[int, int]) -> int:
        """Scene pixels an output cell that lose nothing of a layer of ``cells``: their size or the windows' stride."""
        sizes = [min(axis.chip / n, axis.stride) for axis, n in zip((self.rows, self.columns), cells, strict=True)]
        return max(1, int(min(sizes)))


def plan_windows(height: int, width: int, chip: tuple[int, int], overlap: float = 0.5, trim: int = 0) -> WindowPlan:
    """Windows that cover a scene.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        chip: rows and columns of a window, in scene pixels.
        overlap: share of a window that it has in common with the next, in [0, 1).
        trim: pixels at a window's rim whose activations are left out (padding inside the network spoils them).

    Raises:
        SpatialError: a size is not positive, the overlap is outside its range, or the trim leaves gaps.

    """
    if height < 1 or width < 1:
        raise SpatialError(f"a scene of {height} x {width} pixels holds nothing to map")
    if min(chip) < 1:
        raise SpatialError(f"the chip size must be positive, got {chip[0]} x {chip[1]} pixels")
    if not 0 <= overlap < 1:
        raise SpatialError(f"overlap is the shared part of neighbouring windows, from 0 to below 1, got {overlap}")
    if trim < 0:
        raise SpatialError(f"trim must not be negative, got {trim}")
    axes = []
    for length, size in ((height, chip[0]), (width, chip[1])):
        stride = max(1, round(size * (1 - overlap)))
        if stride > size - 2 * trim:
            raise SpatialError(
                f"trimming {trim} pixels off chips of {size} that move by {stride} leaves gaps: raise the overlap to "
                f"{min(0.99, 2 * trim / size + 0.005):.2f} or trim less"
            )
        end = max(0, length - size)
        axes.append(Axis(length, size, stride, trim, (*range(0, end, stride), end)))
    return WindowPlan(axes[0], axes[1])
