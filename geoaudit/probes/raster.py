"""Any torchgeo raster data set, cut along a grid, with or without labels from rasters or polygons."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.probes.base import Pixels, Probe, Skip, Valid, canonical_names, files_fingerprint
from geoaudit.probes.masks import DatasetMasks, Masks, PolygonMasks, majority
from geoaudit.probes.torchgeo_adapter import Query, RasterGrid, Sample, is_geo, make, raster_dataset, raster_facts
from geoaudit.scenes import Scene, open_scene

__all__ = ["RasterProbe"]


class RasterProbe(Probe):
    """Cells of a grid over one raster or a mosaic of many.

    Every cell is read once when the set is made, since only then is known which cells hold data and which class they
    have; what is left out stands in ``skipped``: rasters smaller than a cell, cells that a data set in another CRS
    turns out not to have, cells mostly without data or without a clear class. A pixel is valid inside the footprint of
    some file where not every band holds the file's nodata value (0, with which torchgeo pads, if it declares none).

    Where cells overlap (``stride < size``), those that cross a block border are left out, so that two blocks never
    share a pixel. The fingerprint is that of the files (:func:`geoaudit.probes.base.files_fingerprint`), the cells,
    their labels and every argument.

    Args:
        dataset: a torchgeo ``RasterDataset`` (or a combination of some), its ``class_path``, a mapping with
            ``init_args``, or paths of rasters that name their bands, scale and CRS.
        labels: a torchgeo data set that gives masks (label raster, ``VectorDataset``), the path of polygons, or None.
        classes: names of the classes: by value for masks (``{1: "field", 2: "water"}``), in order for polygons.
        field: column of the polygons that holds the class.
        bands: names of the bands of a sample, in order; None takes the data set's.
        scale: reflectance per number; None takes the files' own, or the data set's where it is known.
        size: side of a cell in pixels.
        stride: distance between cells; None is ``size``.
        centre: side of the central square that decides the class; None is half of ``size``.
        min_purity: more than this part of the central square must be of one class.
        min_valid: at least this part of a cell must hold data.
        block_size: side of a spatial block in units of the CRS; None is ten cells.
        queries: cells of a sampler instead of a grid.
        photographs: the files are RGB pictures, shown without a stretch.

    Raises:
        ProbeError: no raster can be used, bands, scale or classes are unknown, or no cell is left.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Any = None,
        *,
        classes: Mapping[int, str] | Sequence[str] | None = None,
        field: str | None = None,
        bands: Sequence[str] | None = None,
        scale: float | Sequence[float] | None = None,
        size: int = 64,
        stride: int | None = None,
        centre: int | None = None,
        min_purity: float = 0.6,
        min_valid: float = 0.5,
        block_size: float | None = None,
        queries: Sequence[Any] | None = None,
        photographs: bool = False,
    ) -> None:
        stride = stride or size
        if not (min(size, stride) > 0 and 0.5 <= min_purity < 1 and 0 < min_valid <= 1):
            raise ProbeError(
                f"cells need size > 0, stride > 0, min_purity in [0.5, 1) and min_valid in (0, 1], got size {size}, "
                f"stride {stride}, min_purity {min_purity}, min_valid {min_valid}"
            )
        self.photographs = photographs
        self._skips: list[Skip] = []
        scenes = self._scenes(dataset, bands, scale)
        self.dataset = make(dataset, "datasets") if scenes is None else raster_dataset([s.path for s in scenes])
        if not is_geo(self.dataset):
            raise ProbeError(f"{type(self.dataset).__name__} is not indexed by place; use NonGeoProbe for it")
        self._acquired = {str(scene.path): scene.acquired for scene in scenes or ()}
        names, scales, offsets = self._told(scenes, bands, scale)
        self.channels = canonical_names(names)
        self._scale = np.broadcast_to(np.asarray(scales, dtype=np.float32), (len(names),))[:, None, None]
        self._offset = np.broadcast_to(np.asarray(offsets, dtype=np.float32), (len(names),))[:, None, None]
        self.grid = RasterGrid(self.dataset, (size, size), (stride, stride), queries)
        self._nodata = self.grid.nodata()
        self._skips += [Skip(path, "smaller than a cell") for path in self.grid.too_small]
        self.shape = (len(names), size, size)
        self._masks = self._label_source(labels, classes, field)
        self.class_names = self._masks.class_names if self._masks is not None else ()
        extent = size * float(self.dataset.res[0])
        cells = self._choose(centre or max(size // 2, 1), min_purity, min_valid)
        kept, self.blocks = self._block(cells, block_size or 10 * extent, stride < size)
        self._queries: list[Query] = [query for query, _ in kept]
        if not kept:
            counts = ", ".join(sorted({skip.reason for skip in self._skips})) or "the grid has no cell"
            raise ProbeError(f"no {size}-pixel cell of {self._name()} can be used: {counts}")
        self.labels = np.array([label for _, label in kept], dtype=np.int64) if self._masks is not None else None
        self.skipped = tuple(self._skips)
        text = repr(
            (self.channels, scales, offsets, size, stride, centre, min_purity, min_valid, block_size, photographs)
        )
        text += repr((self.class_names, [(query.bounds, label) for query, label in kept]))
        text += self._masks.fingerprint if self._masks is not None else ""
        text += files_fingerprint(self.grid.paths(), "")
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def _name(self) -> str:
        return type(self.dataset).__name__

    def _scenes(self, dataset: Any, bands: Sequence[str] | None, scale: Any) -> list[Scene] | None:
        """The rasters behind paths, each settled before torchgeo sees it; None where a data set is given."""
        paths = [dataset] if isinstance(dataset, Path) else dataset
        if isinstance(paths, str) and Path(paths).suffix.lower() in (".tif", ".tiff", ".jp2", ".vrt"):
            paths = [paths]
        if not isinstance(paths, list | tuple):
            return None
        if scale is not None and not isinstance(scale, int | float):
            raise ProbeError("give rasters one scale for all bands, or write a scale a band into the files")
        scenes: list[Scene] = []
        first = ""
        for path in paths:
            try:
                scene = open_scene(path, bands=bands, scale=scale)
            except ProbeError as error:
                first = first or str(error)
                self._skips.append(Skip.from_error(path, error))
                continue
            if scenes and (scene.bands, scene.scale, scene.offset) != (
                scenes[0].bands,
                scenes[0].scale,
                scenes[0].offset,
            ):
                self._skips.append(Skip(str(path), f"has other bands or units than {scenes[0].path}"))
                continue
            scenes.append(scene)
        if not scenes:
            raise ProbeError(f"none of {len(paths)} rasters can be used: {first or 'name at least one'}")
        return scenes

    def _told(
        self, scenes: list[Scene] | None, bands: Sequence[str] | None, scale: Any
    ) -> tuple[tuple[str, ...], Any, Any]:
        if scenes is not None:
            return scenes[0].bands, scenes[0].scale, scenes[0].offset
        names, known = raster_facts(self.dataset)
        names = tuple(bands or names)
        factor = known if scale is None else scale
        if not names or factor is None:
            raise ProbeError(
                f"{self._name()} does not say which bands it has in which units: pass bands= (their names) and "
                "scale= (0.0001 for Sentinel-2 DN, 1/255 for photographs)"
            )
        return names, factor, 0.0

    def _label_source(self, labels: Any, classes: Any, field: str | None) -> Masks | None:
        if labels is None:
            return None
        if isinstance(labels, Path) or (isinstance(labels, str) and Path(labels).suffix):
            if not Path(labels).suffix or field is None:
                raise ProbeError(f"{labels}: say which column holds the class (field=)")
            return PolygonMasks(labels, field, classes, self.grid.crs, self.grid.size)
        if not isinstance(classes, Mapping):
            raise ProbeError("a label raster needs the name of each class by its value: classes={1: 'field', ...}")
        return DatasetMasks(make(labels, "datasets"), classes, self.grid)

    def _choose(self, centre: int, purity: float, min_valid: float) -> list[tuple[Query, int]]:
        cells: list[tuple[Query, int]] = []
        for query in self.grid:
            # Labels first: where most of a scene has none, most of it need not be read.
            label = self._label_of(query, centre, purity)
            reason = "no class covers enough of it" if label is None else self._refusal(query, min_valid)
            if label is None or reason:
                self._skips.append(Skip(f"{self.grid.source(query)} {query.bounds}", reason))
            else:
                cells.append((query, label))
        return cells

    def _label_of(self, query: Query, centre: int, purity: float) -> int | None:
        if self._masks is None:
            return 0
        mask = self._masks.mask(query)
        return None if mask is None else majority(mask, centre, purity)

    def _refusal(self, query: Query, min_valid: float) -> str:
        """Why a cell cannot be used; empty if it can."""
        try:
            sample = self.grid.read(query)
        except ProbeError:
            return "cannot be read"
        if sample is None:
            return "not found there by a data set in another CRS"
        if sample.image.shape != self.shape:
            self._fits(sample)
            return f"read as {sample.image.shape[1]} x {sample.image.shape[2]} pixels"
        return "mostly without data" if self._valid_of(sample, query).mean() < min_valid else ""

    def _fits(self, sample: Sample) -> None:
        if sample.image.shape[0] != len(self.channels):
            raise ProbeError(
                f"{self._name()} has {sample.image.shape[0]} bands, but {len(self.channels)} were named "
                f"({', '.join(self.channels)}); pass bands= in the order of its files"
            )

    def _block(
        self, cells: list[tuple[Query, int]], side: float, overlapping: bool
    ) -> tuple[list[tuple[Query, int]], NDArray[np.int64]]:
        kept: list[tuple[Query, int]] = []
        places: list[tuple[int, int]] = []
        if not cells:
            return kept, np.zeros(0, dtype=np.int64)
        west = min(query.bounds[0] for query, _ in cells)
        south = min(query.bounds[1] for query, _ in cells)
        for query, label in cells:
            left, bottom, right, top = query.bounds
            step = 1e-6 * (right - left)
            low = int((left - west + step) // side), int((bottom - south + step) // side)
            high = int((right - west - step) // side), int((top - south - step) // side)
            if overlapping and low != high:
                self._skips.append(Skip(str(query.bounds), "crosses a block border"))
                continue
            kept.append((query, label))
            places.append((int(((left + right) / 2 - west) // side), int(((bottom + top) / 2 - south) // side)))
        numbers = {place: number for number, place in enumerate(sorted(set(places)))}
        return kept, np.array([numbers[place] for place in places], dtype=np.int64)

    def _valid_of(self, sample: Sample, query: Query) -> Valid:
        holds = np.isfinite(sample.image).all(axis=0) & (sample.image != self._nodata).any(axis=0)
        return np.asarray(holds & self.grid.footprint(query), dtype=bool)

    def __len__(self) -> int:
        return len(self._queries)

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        pixels = np.zeros((len(indices), *self.shape), dtype=np.float32)
        valid = np.zeros((len(indices), *self.shape[1:]), dtype=bool)
        for place, index in enumerate(indices):
            query = self._queries[index]
            sample = self.grid.read(query)
            if sample is None:
                raise ProbeError(
                    f"{self.grid.source(query)} at {query.bounds} is gone; the files changed during the run"
                )
            valid[place] = self._valid_of(sample, query)
            pixels[place] = np.where(valid[place], sample.image * self._scale + self._offset, 0)
        return pixels, valid

    def _about(self, index: int) -> Mapping[str, Any]:
        query = self._queries[index]
        source = self.grid.source(query)
        return {
            "source": source,
            "crs": self.grid.crs,
            "bounds": query.bounds,
            "acquired": query.acquired or self._acquired.get(source),
        }

    def mask(self, index: int) -> NDArray[np.int64] | None:
        return None if self._masks is None else self._masks.mask(self._queries[self._check(index)])
