"""Cloud-Optimized GeoTIFFs of activations and classes, built from finished rows without holding a map in memory."""

from __future__ import annotations

import colorsys
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnd_core.types import UnitId

if TYPE_CHECKING:
    from geoaudit.canvas import Grid

__all__ = [
    "Encoding",
    "Scratch",
    "class_colors",
    "describe",
    "layer_folder",
    "one_line",
    "write_activation",
    "write_classes",
]

Encoding = Literal["float32", "int16"]
_BLOCK = 256  # pixels a tile side; also the rows moved at once
_INT16_NODATA = -32768


class Scratch:
    """Maps on their way to disk: (bands, rows, columns) float32 in one raw file, written by rows and read by rows.

    A plain file and not a memory map: pages of a map count as the process's memory until the system takes them back.
    """

    def __init__(self, path: Path, bands: int, grid: Grid) -> None:
        self.path, self.bands, self.grid = path, bands, grid
        self._file = path.open("w+b")

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _seek(self, band: int, row: int) -> None:
        self._file.seek(4 * self.grid.width * (band * self.grid.height + row))

    def write(self, first: int, values: NDArray[np.float32]) -> None:
        """Store rows ``first ..`` of every band, (bands, rows, columns)."""
        for band, rows in enumerate(values):
            self._seek(band, first)
            self._file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())

    def rows(self, band: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """One band from north to south: first row and (rows, columns) float32."""
        for first in range(0, self.grid.height, _BLOCK):
            count = min(_BLOCK, self.grid.height - first)
            self._seek(band, first)
            data = self._file.read(4 * count * self.grid.width)
            yield first, np.frombuffer(data, dtype=np.float32).reshape(count, self.grid.width)

    def range(self, band: int) -> tuple[float, float]:
        """Lowest and highest value of a band; (0, 0) where it holds none."""
        ends = [(np.nanmin(rows), np.nanmax(rows)) for _, rows in self.rows(band) if np.isfinite(rows).any()]
        return (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else (0.0, 0.0)


def describe(unit: UnitId, label: str) -> str:
    """``layer/unit: label`` on one line, at most 200 characters; the label is data and may hold anything."""
    words = one_line(label)
    return f"{unit}: {words}"[:200] if words else str(unit)


def one_line(text: str) -> str:
    """Text without line breaks and control characters; GDAL ends strings at a NUL."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def layer_folder(layer: str) -> str:
    """A folder name for a layer, without anything that leads out of its parent."""
    return re.sub(r"[^\w.\-]", "_", layer).lstrip(".") or "_"


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """``count`` distinct RGB colours, the same ones each time: hues by the golden angle, lightness in turns."""
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hls_to_rgb(index * 0.381966 % 1, (0.45, 0.62, 0.32)[index % 3], 0.6)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def write_activation(
    path: Path,
    scratch: Scratch,
    band: int,
    crs: str,
    description: str,
    encoding: Encoding,
    aside: Path,
    tags: dict[str, str] | None = None,
) -> None:
    """One band of a scratch as a COG, float32 with NaN or int16 with a scale, averaged overviews."""
    options: dict[str, Any] = {"dtype": "float32", "nodata": float("nan")}
    scale = 1.0
    if encoding == "int16":
        scale = max(map(abs, scratch.range(band))) / 32767 or 1.0
        options = {"dtype": "int16", "nodata": _INT16_NODATA}

    def encoded() -> Iterator[tuple[int, NDArray[Any]]]:
        for first, rows in scratch.rows(band):
            if encoding == "int16":
                whole = np.where(np.isnan(rows), _INT16_NODATA, np.round(np.nan_to_num(rows) / scale))
                yield first, whole.astype(np.int16)
            else:
                yield first, rows

    predictor = "FLOATING_POINT" if encoding == "float32" else "STANDARD"
    _write(path, encoded(), scratch.grid, crs, options, description, aside, "AVERAGE", predictor, None, tags, scale)


def write_classes(
    path: Path, scratch: Scratch, crs: str, names: Sequence[str], aside: Path, description: str = "predicted class"
) -> None:
    """Band 0 of a scratch (class indices, NaN for none) as a palette COG: uint8, nodata 255, names in its tags."""

    def encoded() -> Iterator[tuple[int, NDArray[Any]]]:
        for first, rows in scratch.rows(0):
            yield first, np.where(np.isnan(rows), 255, np.nan_to_num(rows)).astype(np.uint8)

    options = {"dtype": "uint8", "nodata": 255}
    palette = {index: (*colour, 255) for index, colour in enumerate(class_colors(len(names)))}
    tags = {f"CLASS_{index}": name for index, name in enumerate(names)}
    palette[255] = (0, 0, 0, 0)
    _write(path, encoded(), scratch.grid, crs, options, description, aside, "MODE", "NO", palette, tags)


def _write(
    path: Path,
    blocks: Iterator[tuple[int, NDArray[Any]]],
    grid: Grid,
    crs: str,
    options: dict[str, Any],
    description: str,
    aside: Path,
    resampling: str,
    predictor: str,
    palette: dict[int, tuple[int, int, int, int]] | None = None,
    tags: dict[str, str] | None = None,
    scale: float = 1.0,
) -> None:
    import rasterio
    import rasterio.shutil
    from rasterio.windows import Window

    plain, cog = (aside / f"{uuid.uuid4().hex}.tif" for _ in range(2))
    with rasterio.open(
        plain, "w", driver="GTiff", height=grid.height, width=grid.width, count=1, crs=crs, transform=grid.transform,
        tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK, bigtiff="IF_SAFER", **options,
    ) as dataset:  # fmt: skip
        for first, rows in blocks:
            dataset.write(rows, 1, window=Window(0, first, grid.width, len(rows)))
        dataset.set_band_description(1, description)
        if scale != 1.0:
            dataset.scales = (scale,)
        if palette:
            dataset.write_colormap(1, palette)
        if tags:
            dataset.update_tags(1, **tags)
    rasterio.shutil.copy(
        plain, cog, driver="COG", compress="DEFLATE", predictor=predictor, blocksize=_BLOCK,
        overview_resampling=resampling, bigtiff="IF_SAFER", num_threads=1,
    )  # fmt: skip
    plain.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    cog.replace(path)
