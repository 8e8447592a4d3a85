"""What the map can show, by id: ``scene``, ``classes``, ``truth``, ``errors``, ``unit:LAYER/INDEX``, ``group:NUMBER``.

An id is looked up in what the run lists; nothing that comes from outside becomes part of a path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.results import Results

__all__ = [
    "CELLS", "MOST_MEMBERS", "Grid", "MapLayer", "activation_range", "class_names_of", "find_layer", "grid_of", "group_maps",
    "maps_of", "net", "scene_path",
]  # fmt: skip

Kind = Literal["scene", "classes", "tiles", "activation"]
# Cells along the longer side that can be clicked: finer than most probe tiles, and small to send.
CELLS = 72
# Members of a group that are laid over one another in a tile; each costs a read.
MOST_MEMBERS = 6


@dataclass(frozen=True, slots=True)
class MapLayer:
    """Something to draw over the scene.

    Attributes:
        id: as it stands in an address.
        kind: how it is drawn.
        title: what it shows, in words.
        paths: files it is drawn from, found by the run itself; none for tiles of the probe.

    """

    id: str
    kind: Kind
    title: str
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a raster lies: bounds in degrees (west, south, east, north), bands, and metres of a pixel."""

    bounds: tuple[float, float, float, float]
    bands: int
    resolution: float

    @property
    def zoom(self) -> int:
        """Web-map zoom at which a pixel of the raster is about a pixel of the screen."""
        latitude = np.cos(np.radians((self.bounds[1] + self.bounds[3]) / 2))
        return int(np.clip(np.ceil(np.log2(156_543.03 * latitude / max(self.resolution, 1e-6))), 0, 22))


def scene_path(results: Results, scene: str | None) -> tuple[str, Path]:
    """Name and file of a scene, the first where none is named.

    Raises:
        StoreError: the run has no such scene.

    """
    scenes = results.scenes()
    if not scenes:
        raise StoreError("this run has no scene: audit a scene, or a probe cut from one, to get a map")
    name = scene or next(iter(scenes))
    if name not in scenes:
        raise StoreError(f"this run has no scene {name[:60]!r}; it has {', '.join(list(scenes)[:5])}")
    return name, scenes[name]


def maps_of(results: Results, scene: str) -> dict[UnitId, Path]:
    """Units with an activation map over this scene."""
    first = next(iter(results.scenes()), None)
    found = results.maps(scene)
    # A scene without maps of its own must not be shown with those of the first.
    return {} if scene != first and found == results.maps(first) else found


def _classes(results: Results, scene: str) -> Path | None:
    first = next(iter(results.scenes()), None)
    path = results.class_map(scene)
    return None if scene != first and path == results.class_map(first) else path


def group_maps(results: Results, scene: str, group: int) -> tuple[Path, ...]:
    """Maps of the group's members, at most :data:`MOST_MEMBERS`."""
    maps = maps_of(results, scene)
    return tuple(maps[unit] for unit in results.group_units(group) if unit in maps)[:MOST_MEMBERS]


def find_layer(results: Results, scene: str, layer: str) -> MapLayer:
    """The layer of this id over a scene.

    Raises:
        StoreError: the run has no such layer over this scene.

    """
    name, path = scene_path(results, scene)
    if layer == "scene":
        return MapLayer(layer, "scene", name, (path,))
    if layer in ("truth", "errors"):
        title = "True classes of the tiles" if layer == "truth" else "Tiles decided wrongly"
        return MapLayer(layer, "tiles", title)
    if layer == "classes":
        classes = _classes(results, name)
        return MapLayer(layer, "classes" if classes else "tiles", "Predicted classes", (classes,) if classes else ())
    kind, _, rest = layer.partition(":")
    if kind == "unit":
        unit = results.unit(rest)
        maps = maps_of(results, name)
        if unit.id in maps:
            return MapLayer(layer, "activation", f"{unit.id}: {unit.label or 'no label'}", (maps[unit.id],))
    if kind == "group" and rest.isdigit():
        members = group_maps(results, name, int(rest))
        if members:
            return MapLayer(layer, "activation", f"Concept {rest}", members)
    raise StoreError(f"this run has no layer {layer[:60]!r} over the scene {name[:60]!r}: choose one from the list")


@lru_cache(maxsize=64)
def _grid(path: Path, changed: int) -> Grid | None:
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.warp import transform_bounds

    try:
        with rasterio.open(path) as raster:
            if raster.crs is None:
                return None
            west, south, east, north = transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
            metres = (north - south) * 111_320 / max(raster.height, 1)
            return Grid((west, south, east, north), raster.count, metres)
    except RasterioError:
        return None


def grid_of(path: Path) -> Grid | None:
    """Where a raster lies; None where it has no place on Earth or cannot be read."""
    return _grid(path, path.stat().st_mtime_ns) if path.is_file() else None


def net(grid: Grid) -> list[dict[str, Any]]:
    """Cells over the scene: their corners (``p``) and their middle (``at``), in degrees."""
    west, south, east, north = grid.bounds
    wide, high = (east - west) * float(np.cos(np.radians((south + north) / 2))), north - south
    step = max(wide, high) / CELLS
    columns, rows = max(1, round(wide / step)), max(1, round(high / step))
    xs = np.linspace(west, east, columns + 1).round(6).tolist()
    ys = np.linspace(south, north, rows + 1).round(6).tolist()
    return [
        {
            "p": [[left, low], [right, low], [right, top], [left, top]],
            "at": [round((left + right) / 2, 6), round((low + top) / 2, 6)],
        }
        for low, top in pairwise(ys)
        for left, right in pairwise(xs)
    ]


@lru_cache(maxsize=512)
def _range(path: Path, changed: int, band: int) -> tuple[float, float]:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as raster:
            shape = (min(raster.height, 256), min(raster.width, 256))
            values = raster.read(band, out_shape=shape, masked=True).astype("float32").filled(np.nan)
    except RasterioError:
        return 0.0, 1.0
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = (float(value) for value in np.nanpercentile(values, (2, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)


def activation_range(path: Path, band: int = 1) -> tuple[float, float]:
    """2nd and 99.5th percentile of a band, from an overview: the ends of its colour scale."""
    return _range(path, path.stat().st_mtime_ns, band)


@lru_cache(maxsize=8)
def _names(path: Path, changed: int) -> tuple[str, ...]:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as raster:
            found = json.loads(raster.tags().get("class_names", "[]"))
    except (RasterioError, ValueError):
        return ()
    return tuple(str(name) for name in found) if isinstance(found, list) else ()


def class_names_of(results: Results, scene: str) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers on the map."""
    path = _classes(results, scene)
    return results.class_names or (_names(path, path.stat().st_mtime_ns) if path else ())
