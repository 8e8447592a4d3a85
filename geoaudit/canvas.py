"""What a sliding pass accumulates: the open rows of each layer's maps, and running statistics of every unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoaudit.windows import Placement, WindowPlan

if TYPE_CHECKING:
    from affine import Affine
    from torch import Tensor

__all__ = ["Canvas", "Grid", "LayerStatistics", "RunningStatistics", "Strip"]


@dataclass(frozen=True)
class Grid:
    """The output grid of one layer.

    Attributes:
        height: rows.
        width: columns.
        resolution: scene pixels an output cell, along both axes.
        transform: affine from (column, row) to map coordinates.

    """

    height: int
    width: int
    resolution: int
    transform: Affine


@dataclass(frozen=True, eq=False)
class Strip:
    """Finished rows of one layer's maps, handed over from north to south.

    Attributes:
        name: layer, or ``classes`` for the predicted probabilities.
        first: row of the grid at which the strip begins.
        values: (units, rows, width) float32; NaN where less than half of a cell holds data.

    """

    name: str
    first: int
    values: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Every unit of a layer over all windows of a scene, asked for or not; arrays are (units,) float64."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]


class RunningStatistics:
    """Mean, spread and range of all units, in one pass."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self.mean, self.m2 = np.zeros(units), np.zeros(units)
        self.low, self.high = np.full(units, np.inf), np.full(units, -np.inf)

    def add(self, maps: Tensor) -> None:
        cells = maps.movedim(1, 0).flatten(1)
        variance, mean = (x.double().cpu().numpy() for x in _moments(cells))
        # Chan et al. (1979): batches combine without the cancellation that a sum of squares suffers.
        count, total = cells.shape[1], self.count + cells.shape[1]
        delta = mean - self.mean
        self.m2 += variance * count + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.low = np.minimum(self.low, cells.amin(1).double().cpu().numpy())
        self.high = np.maximum(self.high, cells.amax(1).double().cpu().numpy())
        self.count = total

    def result(self) -> LayerStatistics:
        if self.count == 0:
            nothing = np.full(len(self.mean), np.nan)
            return LayerStatistics(nothing, nothing, nothing, nothing)
        return LayerStatistics(self.mean, np.sqrt(self.m2 / self.count), self.low, self.high)


def _moments(cells: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    variance, mean = torch.var_mean(cells.double(), dim=1, correction=0)
    return variance, mean


class Canvas:
    """The rows of one layer's maps that are still being added to."""

    def __init__(
        self,
        name: str,
        plan: WindowPlan,
        grid: Grid,
        units: int,
        cells: tuple[int, int],
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.name, self.plan, self.grid, self.cells, self.offset = name, plan, grid, cells, offset
        rows = plan.rows.chip // grid.resolution + 3
        self.first = 0
        self.sums = np.zeros((units, rows, grid.width), dtype=np.float32)
        self.weights = np.zeros((rows, grid.width), dtype=np.float32)
        self.valid = np.zeros((rows, grid.width), dtype=np.int64)
        axis = plan.columns
        self.columns = {start: axis.placement(start, cells[1], grid.resolution, offset[1]) for start in axis.starts}

    def rows(self, top: int) -> Placement:
        """Where the rows of the windows that begin at ``top`` go."""
        return self.plan.rows.placement(top, self.cells[0], self.grid.resolution, self.offset[0])

    def mark_valid(self, top: int, valid: NDArray[np.bool_]) -> None:
        """Count the valid pixels of newly read scene rows."""
        g = self.grid.resolution
        edges = np.arange(0, valid.shape[1], g)
        by_row = np.add.reduceat(valid.astype(np.int64), edges, axis=1)
        np.add.at(self.valid, (top + np.arange(len(valid))) // g - self.first, by_row)

    def add(self, rows: Placement, left: int, maps: NDArray[np.float32]) -> None:
        """Blend one window's (units, h, w) cells in."""
        columns = self.columns[left]
        area = (slice(rows.first - self.first, rows.stop - self.first), slice(columns.first, columns.stop))
        self.sums[(slice(None), *area)] += rows.matrix @ maps.astype(np.float64) @ columns.matrix.T
        self.weights[area] += np.outer(rows.matrix.sum(axis=1), columns.matrix.sum(axis=1))

    def flush(self, stop: int) -> Strip | None:
        """Hand over the rows above ``stop``, which no later window touches."""
        done = stop - self.first
        if done <= 0:
            return None
        g, scene = self.grid.resolution, (self.plan.rows.length, self.plan.columns.length)
        rows, columns = (
            np.minimum(g, length - g * np.arange(first, first + n))
            for length, first, n in ((scene[0], self.first, done), (scene[1], 0, self.grid.width))
        )
        # Cells at the south and east ends hold fewer pixels when the resolution does not divide the scene.
        known = (2 * self.valid[:done] >= np.outer(rows, columns)) & (self.weights[:done] > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(known, self.sums[:, :done] / self.weights[:done], np.float32(np.nan))
        strip = Strip(self.name, self.first, values.astype(np.float32, copy=False))
        for buffer in (self.sums, self.weights, self.valid):
            rest = buffer.shape[-2] - done
            buffer[..., :rest, :] = buffer[..., done:, :].copy()
            buffer[..., rest:, :] = 0
        self.first = stop
        return strip
