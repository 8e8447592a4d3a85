"""Moran's I: do neighbours resemble each other more than chance allows? (method section 4, family "geography")

Moran (1950); the permutation p-value with one added to both counts as in Phipson and Smyth (2010). Neighbours of
raster cells share an edge (rook), neighbours of points are the k nearest; weights are row-standardised for points
and binary for rasters, as is usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoaudit.rates import StatisticsError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Moran", "morans_i_points", "morans_i_raster", "rook_weights"]


@dataclass(frozen=True, slots=True)
class Moran:
    """Moran's I.

    Attributes:
        value: about 0 without pattern (``expected``), towards 1 where neighbours agree, negative where they alternate.
        expected: -1 / (n - 1).
        p: one-sided permutation p-value of positive autocorrelation, in (0, 1].
        n: cells or points that counted.

    """

    value: float
    expected: float
    p: float
    n: int


def rook_weights(known: NDArray[np.bool_]) -> csr_array:
    """Binary edge-neighbour weights of the true cells of (h, w), (n, n) sparse, cells in row-major order."""
    from scipy import sparse

    number = np.full(known.shape, -1, dtype=np.int64)
    number[known] = np.arange(known.sum())
    right = known[:, :-1] & known[:, 1:]
    below = known[:-1] & known[1:]
    source = np.concatenate([number[:, :-1][right], number[:-1][below]])
    target = np.concatenate([number[:, 1:][right], number[1:][below]])
    n = int(known.sum())
    half = sparse.coo_array((np.ones(len(source)), (source, target)), shape=(n, n))
    return sparse.csr_array(half + half.T)


def morans_i_raster(
    values: NDArray[np.floating], permutations: int = 199, seed: int = 0, max_cells: int = 100_000
) -> Moran:
    """Moran's I of a map.

    Args:
        values: (h, w); NaN cells are left out.
        permutations: draws of the null.
        seed: of the permutations.
        max_cells: larger maps are first averaged over square blocks until they have no more cells than this, which
            keeps the permutations to a second or two; I then speaks of that coarser map.

    Raises:
        StatisticsError: no two known cells touch.

    """
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 2:
        raise StatisticsError(f"a map has rows and columns, got shape {grid.shape}")
    step = max(1, int(np.ceil(np.sqrt(np.isfinite(grid).sum() / max_cells))))
    if step > 1:
        grid = _coarsen(grid, step)
    known = np.isfinite(grid)
    return _moran(grid[known], rook_weights(known), permutations, seed)


def morans_i_points(
    points: ArrayLike, values: ArrayLike, neighbours: int = 8, permutations: int = 999, seed: int = 0
) -> Moran:
    """Moran's I of values at points, each compared with its k nearest neighbours.

    Args:
        points: (N, 2) plane coordinates.
        values: (N,) finite.
        neighbours: k.
        permutations: draws of the null.
        seed: of the permutations.

    Raises:
        StatisticsError: fewer than k + 1 points, or shapes that do not fit.

    """
    from scipy import sparse
    from scipy.spatial import cKDTree

    places, level = np.asarray(points, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if places.shape != (len(level), 2) or not (np.isfinite(level).all() and np.isfinite(places).all()):
        raise StatisticsError(f"points must be (N, 2) and values (N,), all finite; got {places.shape}, {level.shape}")
    n = len(level)
    if not 1 <= neighbours < n:
        raise StatisticsError(f"{neighbours} neighbours need more than {neighbours} points, got {n}")
    _, nearest = cKDTree(places).query(places, k=neighbours + 1)
    # A point is its own nearest neighbour, but among duplicates not always in the first place.
    own = nearest == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True
    target = nearest[~own]
    source = np.repeat(np.arange(n), neighbours)
    weights = sparse.coo_array((np.full(len(target), 1 / neighbours), (source, target)), shape=(n, n)).tocsr()
    return _moran(level, weights, permutations, seed)


def _moran(values: NDArray[np.float64], weights: csr_array, permutations: int, seed: int) -> Moran:
    if permutations < 1:
        raise StatisticsError(f"permutations must be at least 1, got {permutations}")
    total = float(weights.sum())
    n = len(values)
    if total == 0:
        raise StatisticsError("no two cells touch, so there are no neighbours to compare")
    centred = values - values.mean()
    spread = float(centred @ centred)
    if spread <= 1e-20 * n * max(1.0, float(np.abs(values).max()) ** 2):
        return Moran(0.0, -1 / (n - 1), 1.0, n)  # a constant map has no pattern

    def statistic(z: NDArray[np.float64]) -> float:
        return float(n / total * (z @ (weights @ z)) / spread)

    observed = statistic(centred)
    rng = np.random.default_rng(seed)
    above = sum(statistic(rng.permutation(centred)) >= observed - 1e-12 for _ in range(permutations))
    return Moran(observed, -1 / (n - 1), (1 + above) / (1 + permutations), n)


def _coarsen(grid: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Means of step x step blocks over their known cells; NaN where less than half is known."""
    edges = [np.arange(0, size, step) for size in grid.shape]
    known = np.isfinite(grid)

    def blocks(cells: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(np.add.reduceat(cells, edges[0], axis=0), edges[1], axis=1))

    counts, sizes = blocks(known.astype(np.float64)), blocks(np.ones(grid.shape))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(2 * counts >= sizes, blocks(np.where(known, grid, 0.0)) / counts, np.nan)
