"""Pixel labels under the cells of a raster data set, from label rasters or polygons."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.labels import UNLABELLED
from geoaudit.labels import _read_vector as read_vector
from geoaudit.probes.base import files_fingerprint
from geoaudit.probes.torchgeo_adapter import Query, RasterGrid, dataset_files, mask_of

__all__ = ["DatasetMasks", "Masks", "PolygonMasks", "majority"]

Mask = NDArray[np.int64]


class Masks(Protocol):
    """Pixel labels of cells: class index, -1 where there is none, or None where the labels do not reach."""

    class_names: tuple[str, ...]
    fingerprint: str

    def mask(self, query: Query) -> Mask | None: ...


def majority(mask: Mask, centre: int, purity: float) -> int | None:
    """The class that covers more than ``purity`` of the central square of ``centre`` pixels, or None."""
    margin = max((mask.shape[0] - centre) // 2, 0)
    middle = mask[margin : mask.shape[0] - margin, margin : mask.shape[1] - margin]
    counts = np.bincount(middle[middle >= 0].ravel(), minlength=1)
    winner = int(counts.argmax())
    return winner if counts[winner] > purity * middle.size else None


class DatasetMasks:
    """Masks of a torchgeo data set, put onto the images' grid; masks of any date count.

    Args:
        dataset: gives ``mask``: a raster data set with ``is_image = False``, or a vector data set.
        classes: name of each class by its value in the mask; other values are unlabelled.
        grid: of the images.

    Raises:
        ProbeError: no class is named.
    """

    def __init__(self, dataset: Any, classes: Mapping[int, str], grid: RasterGrid) -> None:
        if not classes:
            raise ProbeError("name at least one class of the label raster: classes={1: 'field', ...}")
        grid.align(dataset)
        self._dataset = dataset
        self._size = grid.size
        self._values = sorted(int(value) for value in classes)
        self.class_names = tuple(str(classes[value]) for value in self._values)
        text = repr(self._values) + files_fingerprint(dataset_files(dataset), "")
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def mask(self, query: Query) -> Mask | None:
        values = mask_of(self._dataset, query)
        if values is None or values.shape != self._size:
            return None
        answer = np.full(values.shape, UNLABELLED, dtype=np.int64)
        for index, value in enumerate(self._values):
            answer[values == value] = index
        return answer


class PolygonMasks:
    """Labelled polygons, burnt into each cell; a pixel belongs to the polygon over its centre, small ones on top.

    Args:
        path: any vector file GDAL reads, in any CRS.
        field: column that holds the class.
        classes: names of the classes wanted, in order; None takes all, alphabetically.
        crs: of the cells.
        size: (height, width) of a cell.

    Raises:
        ProbeError: the file cannot be read, or has no CRS, no such column or no such class.
    """

    def __init__(
        self, path: str | Path, field: str, classes: Sequence[str] | None, crs: str, size: tuple[int, int]
    ) -> None:
        frame = read_vector(Path(path), None)
        if frame.crs is None:
            raise ProbeError(f"{path} has no coordinate reference system; assign one before using it as labels")
        if field not in frame.columns:
            columns = ", ".join(str(name) for name in frame.columns if name != "geometry")
            raise ProbeError(f"{path} has no column {field!r} for the class; it has {columns}")
        frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty) & frame[field].notna()]
        present = sorted(frame[field].astype(str).unique())
        self.class_names = tuple(present if classes is None else classes)
        if unknown := [name for name in self.class_names if name not in present]:
            raise ProbeError(f"{path} has no {', '.join(unknown)} in column {field!r}; it has {', '.join(present)}")
        frame = frame[frame[field].astype(str).isin(self.class_names)].to_crs(crs)
        order = np.argsort(-frame.area.to_numpy(), kind="stable")
        self._frame = frame.iloc[order].reset_index(drop=True)
        self._classes = [self.class_names.index(str(name)) for name in self._frame[field]]
        self._size = size
        text = repr((field, self.class_names, crs)) + files_fingerprint([path], "")
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def mask(self, query: Query) -> Mask | None:
        from rasterio.features import rasterize
        from rasterio.transform import from_bounds
        from shapely.geometry import box

        hits = np.sort(self._frame.sindex.query(box(*query.bounds)))
        if not len(hits):
            return None
        transform = from_bounds(*query.bounds, self._size[1], self._size[0])
        shapes = [(self._frame.geometry.iloc[int(hit)], self._classes[int(hit)]) for hit in hits]
        burnt = rasterize(shapes, out_shape=self._size, transform=transform, fill=UNLABELLED, dtype="int16")
        return np.asarray(burnt, dtype=np.int64)
