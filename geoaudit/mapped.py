"""What a run keeps beside its tables: scenes with their bands and the maps over them, and what was measured since."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnd_core.types import UnitId
from geoaudit.evidence import Layer, Problem, is_inside

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["Mapped"]


class Mapped:
    """The part of :class:`geoaudit.results.Results` that finds files by what they show, and never by a path from outside."""

    root: Path
    layers: tuple[Layer, ...]
    _problems: list[Problem]

    def _problem(self, kind: Any, where: str, sentence: str) -> None:
        problem = Problem(kind, where, sentence)
        if problem not in self._problems:
            self._problems.append(problem)

    def scenes(self) -> dict[str, Path]:
        """True-colour rendering of each scene, by name."""
        return {path.stem: path for path in sorted((self.root / "scene").glob("*.tif"), key=lambda path: path.stem)}

    def _map_folder(self, scene: str | None) -> Path:
        """The first scene's maps lie directly under ``maps/``, those of others in a folder of the scene's name."""
        top = self.root / "maps"
        if scene is None or not is_inside(scene) or (top / scene).is_dir():
            return top / scene if scene is not None and is_inside(scene) else top
        # Of the scenes without a folder one is the first; another has no maps, and must not be shown with the first's.
        first = next((name for name in self.scenes() if not (top / name).is_dir()), scene)
        return top if scene == first else top / scene

    @cached_property
    def _maps(self) -> dict[Path, dict[UnitId, Path]]:
        return {}

    def maps(self, scene: str | None = None) -> dict[UnitId, Path]:
        """Activation map over a scene (the first by default) of each unit that has one."""
        folder = self._map_folder(scene)
        if folder not in self._maps:
            found = {
                UnitId(layer.name, int(path.stem)): path
                for layer in self.layers
                for path in (folder / layer.name).glob("*.tif")
                if path.stem.isdigit()
            }
            self._maps[folder] = dict(sorted(found.items()))
        return dict(self._maps[folder])

    def class_map(self, scene: str | None = None) -> Path | None:
        """The map of predicted classes."""
        return self._beside(scene, "classes.tif")

    def _beside(self, scene: str | None, name: str) -> Path | None:
        path = self._map_folder(scene) / name
        return path if path.is_file() else None

    def probability_map(self, scene: str | None = None) -> Path | None:
        """The map of the predicted class's probability."""
        return self._beside(scene, "probability.tif")

    def label_map(self, scene: str | None = None) -> Path | None:
        """The map of the labels that were given as polygons."""
        return self._beside(scene, "labels.tif")

    def applicability_map(self, scene: str | None = None) -> Path | None:
        """The map of how unlike the audited images a place is; its tags hold the threshold and the share beyond it."""
        return self._beside(scene, "applicability.tif")

    def bands(self, scene: str) -> Path | None:
        """Every band of a scene as uint8, each stretched; band names stand in its descriptions."""
        path = self.root / "bands" / f"{scene}.tif"
        return path if is_inside(scene) and path.is_file() else None

    def band_roles(self, scene: str) -> dict[str, str | None]:
        """Names of the bands in :meth:`bands`, in its order, each with its part of the spectrum (``red``, ``nir`` ...)."""
        import rasterio
        from rasterio.errors import RasterioError

        from geoaudit.bands import role

        path = self.bands(scene)
        if path is None:
            return {}
        try:
            with rasterio.open(path) as raster:
                names = [name or f"band {number}" for number, name in enumerate(raster.descriptions, start=1)]
        except RasterioError:
            where = path.relative_to(self.root).as_posix()
            self._problem("damaged", where, f"{where} cannot be read: only the scene's natural colours are shown")
            return {}
        return {name: role(name) for name in names}

    @cached_property
    def _hotspots(self) -> dict[Path, gpd.GeoDataFrame | None]:
        return {}

    def hotspots(self, unit: UnitId | None = None, scene: str | None = None) -> gpd.GeoDataFrame | None:
        """Hot-spot polygons, of one unit or all, in the scene's CRS; None where there are none."""
        path = self._map_folder(scene) / "index.gpkg"
        if path not in self._hotspots:
            self._hotspots[path] = self._read_hotspots(path)
        frame = self._hotspots[path]
        if frame is None or unit is None:
            return frame
        names = frame["unit"].astype(str)
        return frame[(names == str(unit)) | ((frame["layer"].astype(str) == unit.layer) & (names == str(unit.index)))]

    def _read_hotspots(self, path: Path) -> gpd.GeoDataFrame | None:
        if not path.is_file():
            return None
        import geopandas as gpd
        from pyogrio.errors import DataLayerError, DataSourceError

        try:
            return gpd.read_file(path, layer="hotspots")
        except (DataSourceError, DataLayerError):
            where = path.relative_to(self.root).as_posix()
            self._problem("damaged", where, f"{where} cannot be read: hot spots are not shown")
            return None

    def prunings(self) -> tuple[dict[str, Any], ...]:
        """Prunings that ``geoaudit prune`` measured after the audit, as in their files, by key; damaged ones are left out."""
        found = []
        for path in sorted((self.root / "prunings").glob("*.json")):
            where = path.relative_to(self.root).as_posix()
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                values = None
            if _is_pruning(values):
                found.append(dict(values))
            else:
                self._problem("damaged", where, f"{where} cannot be read: delete it to measure this pruning again")
        return tuple(found)


def _is_pruning(values: Any) -> bool:
    if not isinstance(values, dict):
        return False
    rows = [values.get("overall"), *(values["classes"] if isinstance(values.get("classes"), list) else [None])]
    return (
        isinstance(values.get("key"), str)
        and isinstance(values.get("units"), list)
        and all(isinstance(unit, str) for unit in values["units"])
        and all(_is_row(row) for row in rows)
    )


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return False
    return all(value is None or isinstance(value, (int, float)) for name, value in row.items() if name != "name")
