"""What the map can show, by id.

``scene``; ``classes``, ``probability``; ``labels``, ``disagreement`` (over the whole scene); ``truth``, ``errors`` (of the
probe's tiles); ``applicability``, ``dissimilarity``; ``unit:LAYER/INDEX``, ``group:NUMBER``.

An id is looked up in what the run lists; nothing that comes from outside becomes part of a path.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    "CELLS", "MOST_MEMBERS", "SINGLE", "Grid", "MapLayer", "activation_range", "class_names_of", "find_layer", "grid_of",
    "group_maps", "maps_of", "names_in", "net", "renumbered", "scene_path", "tags_of",
    "threshold_of",
]  # fmt: skip

Kind = Literal["scene", "classes", "disagreement", "tiles", "applicability", "activation"]
# Cells along the longer side that can be clicked: finer than most probe tiles, and small to send.
CELLS = 72
# Members of a group that are laid over one another in a tile; each costs a read.
MOST_MEMBERS = 6


# id to title, how it is drawn, and the files it is drawn from
SINGLE: Mapping[str, tuple[str, Kind, tuple[str, ...]]] = {
    "probability": ("How sure the network is", "activation", ("probability_map",)),
    "labels": ("Labels", "classes", ("label_map",)),
    "disagreement": ("Where the classes differ from the labels", "disagreement", ("class_map", "label_map")),
    "applicability": ("Beyond the area of applicability", "applicability", ("applicability_map",)),
    "dissimilarity": ("How unlike the audited tiles", "activation", ("applicability_map",)),
}


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
    return results.maps(scene)


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
        classes = results.class_map(name)
        return MapLayer(layer, "classes" if classes else "tiles", "Predicted classes", (classes,) if classes else ())
    if layer in SINGLE:
        title, drawn, files = SINGLE[layer]
        paths = tuple(found for file in files if (found := getattr(results, file)(name)) is not None)
        if len(paths) == len(files):
            return MapLayer(layer, drawn, title, paths)
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
def _range(path: Path, changed: int, band: int, low: float, high: float) -> tuple[float, float]:
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
    first, last = (float(value) for value in np.nanpercentile(values, (low, high)))
    return (first, last) if last > first else (first, first + 1.0)


def activation_range(path: Path, band: int = 1, ends: tuple[float, float] = (2, 99.5)) -> tuple[float, float]:
    """Two percentiles of a band, from an overview: the ends of its colour scale."""
    return _range(path, path.stat().st_mtime_ns, band, *ends)


@lru_cache(maxsize=32)
def _tags(path: Path, changed: int) -> dict[str, str]:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as raster:
            return {**raster.tags(), **raster.tags(1)}
    except RasterioError:
        return {}


def tags_of(path: Path) -> dict[str, str]:
    """What stands in a raster and its first band beside the values."""
    return _tags(path, path.stat().st_mtime_ns) if path.is_file() else {}


def threshold_of(path: Path) -> float | None:
    """Dissimilarity beyond which a map of applicability says that nothing alike was audited."""
    try:
        return float(tags_of(path)["THRESHOLD"])
    except (KeyError, ValueError):
        return None


def names_in(path: Path) -> tuple[str, ...]:
    """Class names that a class map carries, by number."""
    tags = tags_of(path)
    found: list[str] = []
    while f"CLASS_{len(found)}" in tags and len(found) < 255:
        found.append(tags[f"CLASS_{len(found)}"])
    return tuple(found)


def class_names_of(results: Results, scene: str) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers on the map."""
    path = results.class_map(scene)
    return results.class_names or (names_in(path) if path else ())


def renumbered(results: Results, scene: str, path: Path) -> tuple[int, ...]:
    """The network's number of each class of a label map, by name; classes it does not know come after its own."""
    known = list(class_names_of(results, scene))
    numbers = []
    for name in names_in(path):
        if name not in known:
            known.append(name)
        numbers.append(known.index(name))
    return tuple(numbers)
