"""Georeferenced scenes: opened with every doubt settled, then read window by window as reflectance.

A :class:`Scene` is a frozen description of a raster file; it holds no open handle, so it travels between
processes. Reading applies the file's scale and offset and hands over a validity mask beside the pixels.
Label polygons and the chips cut under them live in :mod:`geoaudit.labels` and can be imported from here too.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.labels import Chips, Labels, chips, split_blocks

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.windows import Window

__all__ = ["Chips", "Labels", "Scene", "chips", "open_scene", "split_blocks"]


@dataclass(frozen=True)
class Scene:
    """A raster file whose grid, bands and units are known.

    Attributes:
        path: the file.
        crs: coordinate reference system, ``EPSG:32633`` or WKT where there is no code.
        transform: affine from (column, row) to map coordinates; north up.
        width: columns.
        height: rows.
        bands: band names, in file order.
        scale: one factor a band; reflectance = DN * scale + offset.
        offset: one summand a band.
        nodata: value that means no data, or None.
        bounds: (left, bottom, right, top) in ``crs``.
        acquired: ISO date of acquisition, or None.

    """

    path: Path
    crs: str
    transform: Affine
    width: int
    height: int
    bands: tuple[str, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    nodata: float | None
    bounds: tuple[float, float, float, float]
    acquired: str | None = None

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in square units of the CRS."""
        return abs(float(self.transform.a) * float(self.transform.e))

    @property
    def fingerprint(self) -> str:
        """Hash of the file's bytes and of how they are read."""
        digest = hashlib.sha256(repr((self.bands, self.scale, self.offset, self.nodata)).encode())
        with self.path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    def window_bounds(self, window: Window) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of a pixel window, in the scene's CRS."""
        left = float(self.transform.c + window.col_off * self.transform.a)
        top = float(self.transform.f + window.row_off * self.transform.e)
        return left, top + window.height * float(self.transform.e), left + window.width * float(self.transform.a), top

    def read(
        self, window: Window | None = None, *, bands: Sequence[str] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance and validity of one window.

        Args:
            window: whole pixels; may reach beyond the scene, where nothing is valid. None reads everything.
            bands: names of the bands wanted, in order; None for all.

        Returns:
            (C, h, w) float32 reflectance, zero where invalid, and (h, w) bool validity. A pixel is invalid
            where every band holds nodata: zero is a legal value of single bands (cirrus over dry air).

        Raises:
            ProbeError: the file cannot be read, holds NaN that is not its nodata value, or lacks a band.

        """
        from rasterio.windows import Window as PixelWindow

        if window is None:
            window = PixelWindow(0, 0, self.width, self.height)
        with self._opened() as dataset:
            return self._read(dataset, window, bands)

    def read_many(
        self, windows: Sequence[Window], *, bands: Sequence[str] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance (N, C, h, w) and validity (N, h, w) of windows of one size, the file opened once.

        Raises:
            ProbeError: no window, windows of several sizes, or as :meth:`read`.

        """
        if not windows or len({(window.height, window.width) for window in windows}) != 1:
            raise ProbeError(f"{self.path}: windows read together must be of one size, and at least one")
        with self._opened() as dataset:
            parts = [self._read(dataset, window, bands) for window in windows]
        return np.stack([pixels for pixels, _ in parts]), np.stack([valid for _, valid in parts])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import rasterio

        try:
            with rasterio.open(self.path) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            raise ProbeError(
                f"{self.path} cannot be read, it may be truncated or damaged ({_reason(error)})"
            ) from error

    def _read(
        self, dataset: Any, window: Window, bands: Sequence[str] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        from geoaudit.bands import reorder

        chosen = list(range(len(self.bands))) if bands is None else list(reorder(self.bands, bands))
        top, left, height, width = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
        rows = slice(max(top, 0), min(top + height, self.height))
        columns = slice(max(left, 0), min(left + width, self.width))
        pixels = np.zeros((len(chosen), height, width), dtype=np.float32)
        valid = np.zeros((height, width), dtype=bool)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return pixels, valid
        raw = dataset.read([i + 1 for i in chosen], window=((rows.start, rows.stop), (columns.start, columns.stop)))
        inside = self._valid(raw)
        # Single precision keeps seven digits, more than any sensor's DN has, at a third of the time.
        scale = np.asarray(self.scale, dtype=np.float32)[chosen, None, None]
        values = np.multiply(raw, scale, dtype=np.float32)
        if any(self.offset):
            values += np.asarray(self.offset, dtype=np.float32)[chosen, None, None]
        if not inside.all():
            values[:, ~inside] = 0.0
        target = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        pixels[(slice(None), *target)] = values
        valid[target] = inside
        return pixels, valid

    def _valid(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """(h, w) validity of raw values (C, h, w)."""
        floating = np.issubdtype(raw.dtype, np.floating)
        if self.nodata is not None and np.isnan(self.nodata):
            return np.asarray(np.isfinite(raw).all(axis=0)) if floating else np.ones(raw.shape[1:], dtype=bool)
        if floating and not np.isfinite(raw).all():
            raise ProbeError(
                f"{self.path} holds NaN or infinite values, but its nodata value is {self.nodata}: "
                "open it with nodata=nan, or fill them"
            )
        if self.nodata is None:
            return np.ones(raw.shape[1:], dtype=bool)
        return np.asarray((raw != self.nodata).any(axis=0))


def open_scene(
    path: str | Path,
    *,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    verify: bool = True,
) -> Scene:
    """Open a raster and settle every doubt about it.

    Args:
        path: any raster GDAL reads.
        bands: names in file order; None takes the file's band descriptions.
        scale: reflectance a digital number; None takes the file's. Whole-number files need one or the other.
        offset: reflectance of digital number zero; None takes the file's.
        nodata: value that means no data; None takes the file's.
        verify: read the whole file once, which finds truncated parts, NaN and empty scenes before a long
            job starts. Turn it off for files too large for that.

    Raises:
        ProbeError: one sentence saying what is wrong with which file and what to do about it.

    """
    import rasterio

    path = Path(path)
    if not path.is_file():
        raise ProbeError(f"{path}: no such file; check the path of the scene")
    if path.stat().st_size == 0:
        raise ProbeError(f"{path} is empty (0 bytes); fetch or export it again")
    try:
        with warnings.catch_warnings():
            # Files without georeference are refused below, with a sentence instead of a warning.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except rasterio.errors.RasterioError as error:
        raise ProbeError(f"{path} is not a raster that can be read, or is truncated ({_reason(error)})") from error
    with dataset:
        scene = _describe(path, dataset, bands, scale, offset, nodata)
    if verify:
        _verify(scene)
    return scene


def _describe(
    path: Path,
    dataset: Any,
    bands: Sequence[str] | None,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
) -> Scene:
    if dataset.crs is None:
        raise ProbeError(
            f"{path} has no coordinate reference system: assign one (gdal_edit.py -a_srs EPSG:...), "
            "or fetch the file again if it was truncated on its way"
        )
    transform = dataset.transform
    if transform.is_identity or transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise ProbeError(f"{path} has no north-up pixel grid (its transform is {tuple(transform)[:6]}); warp it first")
    names = tuple(bands) if bands is not None else tuple(name or "" for name in dataset.descriptions)
    if len(names) != dataset.count:
        raise ProbeError(f"{path} holds {dataset.count} bands, but {len(names)} were named: {', '.join(names)}")
    if not all(names):
        raise ProbeError(f"{path} does not name its {dataset.count} bands; pass their names in file order (bands=)")
    if len(set(names)) != len(names):
        raise ProbeError(f"{path} names a band twice: {', '.join(names)}; pass distinct names in file order (bands=)")
    scales = (float(scale),) * len(names) if scale is not None else tuple(map(float, dataset.scales))
    whole = all(np.issubdtype(np.dtype(kind), np.integer) for kind in dataset.dtypes)
    if scale is None and whole and set(scales) == {1.0}:
        raise ProbeError(
            f"{path} holds whole numbers and no scale: pass scale= "
            "(0.0001 for Sentinel-2 products, 1/255 for photographs)"
        )
    if not all(np.isfinite(scales)) or 0.0 in scales:
        raise ProbeError(f"{path}: the scale of a band must be a finite number other than zero, got {scales}")
    offsets = (float(offset),) * len(names) if offset is not None else tuple(map(float, dataset.offsets))
    declared = dataset.nodata if nodata is None else nodata
    code = dataset.crs.to_epsg()
    left, bottom, right, top = (float(value) for value in dataset.bounds)
    return Scene(
        path=path,
        crs=f"EPSG:{code}" if code else dataset.crs.to_wkt(),
        transform=transform,
        width=dataset.width,
        height=dataset.height,
        bands=names,
        scale=scales,
        offset=offsets,
        nodata=None if declared is None else float(declared),
        bounds=(left, bottom, right, top),
        acquired=dataset.tags().get("ACQUIRED"),
    )


def _verify(scene: Scene) -> None:
    from rasterio.windows import Window

    rows = max(1, (1 << 22) // (scene.width * len(scene.bands)) // 256 * 256) if scene.height > 256 else scene.height
    found = False
    with scene._opened() as dataset:
        for top in range(0, scene.height, rows):
            raw = dataset.read(window=Window(0, top, scene.width, min(rows, scene.height - top)))
            found = bool(scene._valid(raw).any()) or found
    if not found:
        raise ProbeError(f"{scene.path} holds no data: every pixel is nodata ({scene.nodata})")


def _reason(error: Exception) -> str:
    # GDAL's own words stand in the exception that rasterio's wraps.
    return " ".join(str(error.__cause__ or error).split())
