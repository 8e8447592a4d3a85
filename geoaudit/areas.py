"""True areas on the ground, whatever the coordinate reference system.

Hectares are taken on the CRS's own ellipsoid, never as plane units: a Web-Mercator pixel at 52 degrees north covers
less than half of what its units say, and even a UTM pixel is off by up to 0.1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError

if TYPE_CHECKING:
    from affine import Affine

__all__ = ["PixelAreas", "geometry_areas_ha", "mapped_areas_ha"]


def geometry_areas_ha(geometries: Sequence[Any], crs: str) -> NDArray[np.float64]:
    """Areas of polygons on the ellipsoid, in hectares.

    Args:
        geometries: shapely polygons or multipolygons in ``crs``.
        crs: anything pyproj reads.

    Returns:
        (N,) float64; 0 for empty geometries.

    Raises:
        ProbeError: the CRS is not bound to the Earth (a local grid).

    """
    import shapely
    from shapely.geometry.polygon import orient

    geod, transformer = _earth(crs)
    areas = np.zeros(len(geometries))
    for index, geometry in enumerate(geometries):
        if geometry.is_empty:
            continue
        left, bottom, right, top = geometry.bounds
        # Geodesics between far corners leave the straight edges of the CRS; short pieces stay on them.
        fine = shapely.segmentize(geometry, max(right - left, top - bottom) / 50)
        lonlat = shapely.transform(fine, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
        for part in shapely.get_parts(lonlat):
            # Shells must run one way and holes the other, or holes would be added.
            areas[index] += abs(geod.geometry_area_perimeter(orient(part))[0]) / 10_000
    return areas


class PixelAreas:
    """Areas of the pixels of a north-up grid, in hectares.

    Measured on the ellipsoid at a coarse lattice of pixels and interpolated between, which is exact to about 1e-6
    because the scale of a projection changes slowly.

    Args:
        crs: of the grid.
        transform: affine of the grid.
        height: rows.
        width: columns.

    """

    def __init__(self, crs: str, transform: Affine, height: int, width: int) -> None:
        from shapely.geometry import box

        self.height, self.width = height, width
        self._rows = np.unique(np.linspace(0, height - 1, min(height, 33)).round())
        self._columns = np.unique(np.linspace(0, width - 1, min(width, 9)).round())
        corners = [
            box(
                transform.c + transform.a * column,
                transform.f + transform.e * (row + 1),
                transform.c + transform.a * (column + 1),
                transform.f + transform.e * row,
            )
            for row in self._rows
            for column in self._columns
        ]
        self._areas = geometry_areas_ha(corners, crs).reshape(len(self._rows), len(self._columns))

    def rows(self, first: int = 0, count: int | None = None) -> NDArray[np.float64]:
        """Areas of the pixels of rows ``first ..``, (count, width) float64 hectares."""
        stop = self.height if count is None else first + count
        places = np.arange(first, stop)
        down = np.stack([np.interp(places, self._rows, column) for column in self._areas.T], axis=1)
        return np.stack([np.interp(np.arange(self.width), self._columns, row) for row in down])


def mapped_areas_ha(path: str | Path, classes: int) -> NDArray[np.float64]:
    """Hectares that a class map gives to each class, (classes,) float64; nodata counts for none.

    Args:
        path: single-band raster of class indices.
        classes: how many classes there are.

    Raises:
        ProbeError: the map holds a value that is neither a class nor nodata.

    """
    import rasterio
    from rasterio.windows import Window

    areas = np.zeros(classes)
    with rasterio.open(path) as dataset:
        pixels = PixelAreas(dataset.crs.to_wkt(), dataset.transform, dataset.height, dataset.width)
        for first in range(0, dataset.height, 256):
            count = min(256, dataset.height - first)
            values = dataset.read(1, window=Window(0, first, dataset.width, count))
            known = values != dataset.nodata if dataset.nodata is not None else np.ones(values.shape, dtype=bool)
            if known.any() and (values[known].min() < 0 or values[known].max() >= classes):
                raise ProbeError(f"{path} holds class {values[known].max()}, but there are only {classes} classes")
            areas += np.bincount(values[known].astype(np.int64), pixels.rows(first, count)[known], classes)
    return areas


def _earth(crs: str) -> tuple[Any, Any]:
    """The ellipsoid of a CRS and the transformation to longitude and latitude on it."""
    from pyproj import CRS, Transformer

    system = CRS.from_user_input(crs)
    geodetic, geod = system.geodetic_crs, system.get_geod()
    if geodetic is None or geod is None:
        raise ProbeError(f"the coordinate system {system.name!r} is a local grid without a place on Earth: assign one")
    return geod, Transformer.from_crs(system, geodetic, always_xy=True)
