"""Where things are: outlines of probe tiles, what lies at a point, hot spots in degrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.layers import maps_of, renumbered, threshold_of
from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.results import Results

__all__ = ["Firing", "Place", "Tiles", "hotspots", "look", "sample", "tiles_of"]

MOST_SAMPLED = 60
# Radius in metres of the sphere of EPSG:3857.
EARTH = 6_378_137.0
MOST_SPOTS = 2000


@dataclass(frozen=True)
class Tiles:
    """Probe images that have a place: ``images`` their numbers, ``corners`` (tiles, 4, 2) in EPSG:3857."""

    images: NDArray[np.int64]
    corners: NDArray[np.float64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def over(self, bounds: tuple[float, float, float, float]) -> NDArray[np.bool_]:
        """Which tiles reach into (west, south, east, north), in degrees."""
        (left, bottom), (right, top) = _mercator(*bounds[:2]), _mercator(*bounds[2:])
        low, high = self.corners.min(axis=1), self.corners.max(axis=1)
        found: NDArray[np.bool_] = (high[:, 0] > left) & (low[:, 0] < right) & (high[:, 1] > bottom) & (low[:, 1] < top)
        return found

    def at(self, x: float, y: float) -> int | None:
        """The first tile that covers a point of EPSG:3857."""
        if not len(self.images):
            return None
        a, b = self.corners, np.roll(self.corners, -1, axis=1)
        side = (b[..., 0] - a[..., 0]) * (y - a[..., 1]) - (b[..., 1] - a[..., 1]) * (x - a[..., 0])
        # A point inside lies on the same side of all four edges.
        inside = (side >= 0).all(axis=1) | (side <= 0).all(axis=1)
        found = np.flatnonzero(inside)
        return int(self.images[found[0]]) if len(found) else None


@dataclass(frozen=True, slots=True)
class Firing:
    """A unit at a place: its activation there and that as a share of its 99th percentile (or of its colour scale)."""

    unit: UnitId
    label: str
    status: str
    value: float
    share: float


@dataclass(frozen=True)
class Place:
    """What is known about a point.

    Attributes:
        longitude: degrees.
        latitude: degrees.
        image: probe image that covers it, or None.
        predicted: class on the class map there, or None.
        probability: how sure the network is of it, or None.
        labelled: class of the label there, or None.
        unlike: dissimilarity to the audited tiles and the largest that is still alike, or None.
        firing: units, the strongest first; from the probe image where there is one, else from the maps.

    """

    longitude: float
    latitude: float
    image: int | None
    predicted: int | None
    probability: float | None
    labelled: int | None
    unlike: tuple[float, float] | None
    firing: tuple[Firing, ...]


def _mercator(longitude: float, latitude: float) -> tuple[float, float]:
    x = np.radians(longitude) * EARTH
    return float(x), float(np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2)) * EARTH)


@lru_cache(maxsize=2)
def _tiles(results: Results) -> Tiles:
    from pyproj import Transformer
    from pyproj.exceptions import CRSError

    frame = results.images
    edges = frame[["left", "bottom", "right", "top"]].astype("float64").to_numpy()
    systems = frame["crs"].fillna("").astype(str)
    numbers, corners, kept = [], [], []
    for system in systems.unique():
        rows = np.flatnonzero((systems == system).to_numpy() & np.isfinite(edges).all(axis=1))
        if not system or not len(rows):
            continue
        try:
            transform = Transformer.from_crs(system[:4000], "EPSG:3857", always_xy=True).transform
        except CRSError:
            continue
        left, bottom, right, top = edges[rows].T
        x, y = transform(np.stack([left, right, right, left], axis=1), np.stack([top, top, bottom, bottom], axis=1))
        corners.append(np.stack([x, y], axis=2))
        numbers.append(frame["image"].to_numpy()[rows].astype(np.int64))
        kept.append(rows)
    if not corners:
        none = np.zeros(0, dtype=np.int64)
        return Tiles(none, np.zeros((0, 4, 2)), none, none)
    places, rows = np.concatenate(corners), np.concatenate(kept)
    sound = np.isfinite(places).all(axis=(1, 2))

    def numbers_of(column: str) -> NDArray[np.int64]:
        values: NDArray[np.float64] = frame[column].astype("float64").fillna(-1).to_numpy()[rows]
        numbers: NDArray[np.int64] = values[sound].astype(np.int64)
        return numbers

    return Tiles(np.concatenate(numbers)[sound], places[sound], numbers_of("label"), numbers_of("predicted"))


def tiles_of(results: Results) -> Tiles:
    """Every probe image whose place is known."""
    return _tiles(results)


def sample(path: Path, longitude: float, latitude: float) -> float | None:
    """Value of a raster's first band at a point; None outside it or where it has no data."""
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        with rasterio.open(path) as raster:
            x, y = transform("EPSG:4326", raster.crs, [longitude], [latitude])
            value = next(iter(raster.sample([(x[0], y[0])], indexes=1, masked=True)))[0]
    except (RasterioError, ValueError):
        return None
    return None if value is np.ma.masked or not np.isfinite(value) else float(value)


def look(results: Results, scene: str, longitude: float, latitude: float, most: int = 12) -> Place:
    """What lies at a point of a scene: the class there and the units that fire most."""
    x, y = _mercator(longitude, latitude)
    image = tiles_of(results).at(x, y)
    found = _fired(results, image) if image is not None else _mapped(results, scene, longitude, latitude)
    found.sort(key=lambda entry: -entry.share)

    def value(path: Path | None) -> float | None:
        return None if path is None else sample(path, longitude, latitude)

    predicted, labels, applies = (
        value(results.class_map(scene)),
        results.label_map(scene),
        results.applicability_map(scene),
    )
    labelled, unlike = value(labels), value(applies)
    numbers = renumbered(results, scene, labels) if labels is not None else ()
    limit = threshold_of(applies) if applies is not None else None
    return Place(
        longitude,
        latitude,
        image,
        None if predicted is None else int(predicted),
        value(results.probability_map(scene)),
        numbers[int(labelled)] if labelled is not None and int(labelled) < len(numbers) else None,
        None if unlike is None or limit is None else (unlike, limit),
        tuple(found[:most]),
    )


def _fired(results: Results, image: int) -> list[Firing]:
    found = []
    for layer in results.layers:
        activations = results.activations(layer.name)
        if activations is None or image >= len(activations):
            continue
        part = results.neurons[results.neurons["layer"] == layer.name]
        units = part["unit"].to_numpy().astype(np.int64)
        scale = part["p99"].astype("float64").to_numpy()
        fits = (units < activations.shape[1]) & np.isfinite(scale) & (scale > 0)
        values = np.asarray(activations[image], dtype=np.float64)[units[fits]]
        for unit, value, share, label, status in zip(
            units[fits], values, values / scale[fits], part["label"][fits], part["status"][fits], strict=True
        ):
            if np.isfinite(share):
                found.append(
                    Firing(UnitId(layer.name, int(unit)), str(label or ""), str(status), float(value), float(share))
                )
    return found


def _mapped(results: Results, scene: str, longitude: float, latitude: float) -> list[Firing]:
    from dashboards.layers import activation_range

    found = []
    for unit, path in list(maps_of(results, scene).items())[:MOST_SAMPLED]:
        value = sample(path, longitude, latitude)
        if value is None:
            continue
        low, high = activation_range(path)
        try:
            known = results.unit(unit)
        except StoreError:
            continue
        found.append(Firing(unit, known.label, known.status, value, (value - low) / (high - low)))
    return found


def hotspots(results: Results, scene: str, units: Sequence[UnitId]) -> dict[str, Any]:
    """Hot spots of some units as GeoJSON in degrees, the largest :data:`MOST_SPOTS`; an empty collection for none."""
    import json

    import pandas as pd

    empty: dict[str, Any] = {"type": "FeatureCollection", "features": []}
    parts = [part for unit in units if (part := results.hotspots(unit, scene)) is not None and len(part)]
    if not parts:
        return empty
    frame = pd.concat(parts)
    if frame.crs is None:
        return empty
    frame = frame[frame.geometry.notna()].copy()
    frame = frame.loc[frame.geometry.area.sort_values(ascending=False).index[:MOST_SPOTS]]
    frame["geometry"] = frame.geometry.simplify(2.0 if frame.crs.is_projected else 2e-5)
    kept = [name for name in ("unit", "layer", "area_ha") if name in frame.columns]
    found: dict[str, Any] = json.loads(frame[[*kept, "geometry"]].to_crs("EPSG:4326").to_json(drop_id=True))
    return found
