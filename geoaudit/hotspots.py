"""Where on the map a unit fires most: hot-spot polygons with true areas, and what land cover they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.types import UnitId
from geoaudit.areas import PixelAreas, geometry_areas_ha
from geoaudit.autocorrelation import Moran, morans_i_raster
from geoaudit.rates import StatisticsError
from geoaudit.windows import SpatialError

if TYPE_CHECKING:
    from affine import Affine

__all__ = ["ClassOverlap", "Hotspot", "UnitMap", "class_overlaps", "unit_map"]


@dataclass(frozen=True, eq=False)
class Hotspot:
    """One connected area where a unit fires at or above its threshold.

    Attributes:
        geometry: shapely polygon in the map's CRS; cells that touch by an edge belong together.
        area_ha: area on the ellipsoid, in hectares.
        mean: mean activation of its cells.
        peak: highest activation of its cells.
        cells: how many map cells it has.

    """

    geometry: Any
    area_ha: float
    mean: float
    peak: float
    cells: int


@dataclass(frozen=True, slots=True)
class ClassOverlap:
    """How well a unit's hot area and a land-cover class agree, by area where a label and the map are known.

    Attributes:
        name: the class.
        precision: share of the labelled hot area that is this class, in [0, 1]; NaN where no hot area is labelled.
        recall: share of the class that is hot.
        iou: intersection over union of both.
        area_ha: hectares of the intersection.

    """

    name: str
    precision: float
    recall: float
    iou: float
    area_ha: float


@dataclass(frozen=True, eq=False)
class UnitMap:
    """A unit's map, summed up.

    Attributes:
        unit: whose map.
        label: its words; empty where none may be said.
        path: the raster.
        crs: of the raster and of the polygons.
        threshold: activation from which a cell is hot.
        hotspots: largest first.
        area_ha: hectares of all hot spots kept.
        moran: spatial autocorrelation of the map, or None for maps that are flat or too small.
        overlaps: land-cover classes, best IoU first; empty without labels.

    """

    unit: UnitId
    label: str
    path: Path
    crs: str
    threshold: float
    hotspots: tuple[Hotspot, ...]
    area_ha: float
    moran: Moran | None
    overlaps: tuple[ClassOverlap, ...] = ()


def unit_map(
    path: str | Path,
    unit: UnitId,
    label: str = "",
    *,
    quantile: float = 0.99,
    threshold: float | None = None,
    min_area_ha: float = 0.0,
    labels: NDArray[np.integer] | None = None,
    labels_transform: Affine | None = None,
    class_names: Sequence[str] = (),
    permutations: int = 199,
    seed: int = 0,
) -> UnitMap:
    """Hot spots of a unit's map, with land-cover overlap and Moran's I.

    Args:
        path: the map, as :func:`geoaudit.spatial.map_units` writes it.
        unit: whose map it is.
        label: its words.
        quantile: cells at or above this quantile of the map are hot, in (0, 1).
        threshold: activation to use instead of the quantile.
        min_area_ha: smaller hot spots are dropped.
        labels: (H, W) class indices in the map's CRS, negative where there is no label; see
            :class:`geoaudit.labels.Labels`.
        labels_transform: affine of ``labels``.
        class_names: names of the classes.
        permutations: of Moran's I.
        seed: of the permutations.

    Raises:
        SpatialError: the quantile is out of range, the map is empty or unreadable, or labels come without their grid.

    """
    import rasterio

    if not 0 < quantile < 1:
        raise SpatialError(f"quantile must lie between 0 and 1, got {quantile}")
    if min_area_ha < 0:
        raise SpatialError(f"min_area_ha must not be negative, got {min_area_ha}")
    if labels is not None and labels_transform is None:
        raise SpatialError("labels need labels_transform, or nobody knows where they lie")
    path = Path(path)
    try:
        with rasterio.open(path) as dataset:
            values = dataset.read(1, masked=True).astype(np.float64).filled(np.nan)
            # Packed maps hold whole numbers; the scale turns them back into activations.
            values = values * dataset.scales[0] + dataset.offsets[0]
            transform, crs = dataset.transform, str(dataset.crs)
    except rasterio.errors.RasterioError as error:
        raise SpatialError(f"the map {path} cannot be read ({' '.join(str(error).split())})") from error
    if not np.isfinite(values).any():
        raise SpatialError(f"the map {path} holds no value, so there is nothing to outline")
    level = float(np.nanquantile(values, quantile)) if threshold is None else float(threshold)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # Blending leaves a dead unit's constant with rounding noise; its highest speck is no hot spot.
    flat = high - low <= 1e-5 * max(abs(low), abs(high))
    hot = np.zeros(values.shape, dtype=bool) if flat else _hot(values, level)
    spots = _outline(values, hot, transform, crs, min_area_ha)
    try:
        moran = None if flat else morans_i_raster(values, permutations, seed)
    except StatisticsError:  # one lone cell has no neighbours; the map is still a map
        moran = None
    overlaps: tuple[ClassOverlap, ...] = ()
    if labels is not None and labels_transform is not None:
        overlaps = class_overlaps(hot, np.isfinite(values), transform, crs, labels, labels_transform, class_names)
    return UnitMap(unit, label, path, crs, level, spots, sum(spot.area_ha for spot in spots), moran, overlaps)


def class_overlaps(
    hot: NDArray[np.bool_],
    known: NDArray[np.bool_],
    transform: Affine,
    crs: str,
    labels: NDArray[np.integer],
    labels_transform: Affine,
    class_names: Sequence[str],
) -> tuple[ClassOverlap, ...]:
    """Precision, recall and IoU of a hot area with each class, best IoU first.

    Each label pixel looks up the map cell under its centre, so maps may be coarser than the labels. Areas without a
    label count for nothing: what lies there is not known.

    Args:
        hot: (h, w) cells that fire.
        known: (h, w) cells that hold data.
        transform: affine of the map.
        crs: of both.
        labels: (H, W) class indices, negative for none.
        labels_transform: affine of the labels.
        class_names: one name a class.

    Raises:
        SpatialError: a label has no name.

    """
    height, width = labels.shape
    if labels.size and int(labels.max()) >= len(class_names):
        raise SpatialError(f"labels hold class {int(labels.max())}, but only {len(class_names)} classes are named")
    x = labels_transform.c + labels_transform.a * (np.arange(width) + 0.5)
    y = labels_transform.f + labels_transform.e * (np.arange(height) + 0.5)
    columns = np.floor((x - transform.c) / transform.a).astype(np.int64)
    rows = np.floor((y - transform.f) / transform.e).astype(np.int64)
    inside = np.outer((rows >= 0) & (rows < hot.shape[0]), (columns >= 0) & (columns < hot.shape[1]))
    cell = np.ix_(rows.clip(0, hot.shape[0] - 1), columns.clip(0, hot.shape[1] - 1))
    counts = inside & known[cell] & (labels >= 0)
    area = PixelAreas(crs, labels_transform, height, width).rows()[counts]
    classes, fires = labels[counts].astype(np.int64), hot[cell][counts]
    size = np.bincount(classes, area, len(class_names))
    both = np.bincount(classes, area * fires, len(class_names))
    fired = both.sum()

    def share(part: float, of: float) -> float:
        return float(part / of) if of > 0 else float("nan")

    found = [
        ClassOverlap(name, share(b, fired), share(b, s), share(b, fired + s - b), float(b))
        for name, b, s in zip(class_names, both, size, strict=True)
        if s > 0
    ]
    return tuple(sorted(found, key=lambda overlap: (-np.nan_to_num(overlap.iou), overlap.name)))


def _hot(values: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Cells at or above the level; strictly above it where the level is the map's floor.

    A ReLU unit that rarely fires has 0 as its 99th percentile, and "at least 0" would be the whole map.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(values > level if level <= np.nanmin(values) else values >= level)


def _outline(
    values: NDArray[np.float64], hot: NDArray[np.bool_], transform: Affine, crs: str, min_area_ha: float
) -> tuple[Hotspot, ...]:
    from rasterio.features import shapes
    from scipy import ndimage
    from shapely.geometry import shape

    numbered, count = ndimage.label(hot)
    if count == 0:
        return ()
    ids = np.arange(1, count + 1)
    means = ndimage.mean(values, numbered, ids)
    peaks = ndimage.maximum(values, numbered, ids)
    cells = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    outlines = {
        int(number): shape(geometry)
        for geometry, number in shapes(numbered.astype(np.int32), mask=hot, connectivity=4, transform=transform)
    }
    areas = geometry_areas_ha([outlines[number] for number in ids], crs)
    spots = [
        Hotspot(outlines[int(number)], float(area), float(mean), float(peak), int(size))
        for number, area, mean, peak, size in zip(ids, areas, means, peaks, cells, strict=True)
        if area >= min_area_ha
    ]
    return tuple(sorted(spots, key=lambda spot: (-spot.area_ha, spot.geometry.bounds)))
