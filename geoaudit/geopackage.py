"""``maps/index.gpkg``: hot spots, units and findings in one GeoPackage that opens styled and labelled in QGIS."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaudit.cogs import one_line
from geoaudit.hotspots import UnitMap
from geoaudit.styles import categorised, graduated
from geoaudit.windows import SpatialError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["add_styles", "pack", "write_index"]

SEVERITIES = {"critical": (165, 0, 38), "major": (215, 90, 30), "minor": (240, 180, 60), "info": (110, 150, 190)}
_STAMP = "1970-01-01T00:00:00.000Z"  # identical inputs give identical bytes; the manifest says when a run was made
_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME
)
"""


def write_index(path: str | Path, units: Sequence[UnitMap], findings: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write a GeoPackage of hot spots, units and findings, each layer with a default style.

    Layers: ``hotspots`` (one polygon each: unit, layer, label, area_ha, mean, peak, threshold, rank), ``units`` (one
    multipolygon a unit with totals, Moran's I, the best-fitting land-cover class and its map's file) and, where a
    finding has a footprint, ``findings`` (EPSG:4326, as GeoJSON is).

    Args:
        path: the file to write; replaced when it exists.
        units: maps in one CRS.
        findings: as in ``audit.json``: ``id, severity, title, concept, area_ha {estimate}, footprint`` are used.

    Returns:
        ``path``.

    Raises:
        SpatialError: no unit, units in several CRSs, a footprint that is no geometry, or an unwritable folder.

    """
    from pyogrio.errors import DataLayerError, DataSourceError

    path = Path(path)
    if not units:
        raise SpatialError("an index of maps needs at least one mapped unit")
    systems = sorted({unit.crs for unit in units})
    if len(systems) > 1:
        raise SpatialError(f"maps of one index share a coordinate system, but these lie in {' and '.join(systems)}")
    layers = {"hotspots": _hotspots(units), "units": _units(units, path.parent)}
    styles = {
        "hotspots": categorised("unit", {str(unit.unit): _legend(unit) for unit in units}, "label"),
        "units": graduated("area_ha", [unit.area_ha for unit in units], "label"),
    }
    footprints = [finding for finding in findings if finding.get("footprint")]
    if footprints:
        layers["findings"] = _findings(footprints)
        styles["findings"] = categorised(
            "severity", {name: name for name in SEVERITIES}, "title", tuple(SEVERITIES.values())
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpatialError(f"{path} cannot be written: {error.strerror or error}") from error
    aside, packed = (path.with_name(f".{path.stem}.{step}.gpkg") for step in ("writing", "packing"))
    try:
        for leftover in (aside, packed):
            leftover.unlink(missing_ok=True)
        for name, frame in layers.items():
            kind = {"hotspots": "Polygon", "units": "MultiPolygon", "findings": "Unknown"}[name]
            frame.to_file(aside, layer=name, driver="GPKG", engine="pyogrio", geometry_type=kind)
        add_styles(aside, styles)
        pack(aside, packed)
        packed.replace(path)
    except (OSError, sqlite3.OperationalError, DataSourceError, DataLayerError) as error:
        raise SpatialError(f"{path} cannot be written: {error}") from error
    finally:
        for leftover in (aside, packed):
            leftover.unlink(missing_ok=True)
    return path


def pack(source: Path, target: Path) -> None:
    """Copy a GeoPackage table by table, so that equal contents give equal bytes.

    The header of a database counts the transactions that GDAL made, and how many it makes depends on the clock.
    """
    with closing(sqlite3.connect(source)) as database:
        database.execute("VACUUM INTO ?", (str(target),))


def _legend(unit: UnitMap) -> str:
    return f"{unit.unit}: {unit.label}" if unit.label else str(unit.unit)


def _hotspots(units: Sequence[UnitMap]) -> GeoDataFrame:
    import geopandas

    rows = [
        {
            "unit": str(unit.unit),
            "layer": unit.unit.layer,
            "label": one_line(unit.label),
            "area_ha": spot.area_ha,
            "mean": spot.mean,
            "peak": spot.peak,
            "threshold": unit.threshold,
            "cells": spot.cells,
            "rank": rank,
            "geometry": spot.geometry,
        }
        for unit in units
        for rank, spot in enumerate(unit.hotspots, start=1)
    ]
    columns = ["unit", "layer", "label", "area_ha", "mean", "peak", "threshold", "cells", "rank", "geometry"]
    return geopandas.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=units[0].crs)


def _units(units: Sequence[UnitMap], folder: Path) -> GeoDataFrame:
    import geopandas
    from shapely.geometry import MultiPolygon

    rows = []
    for unit in units:
        best = unit.overlaps[0] if unit.overlaps else None
        inside = unit.path.resolve().is_relative_to(folder.resolve())
        rows.append(
            {
                "unit": str(unit.unit),
                "layer": unit.unit.layer,
                "label": one_line(unit.label),
                "area_ha": unit.area_ha,
                "hotspots": len(unit.hotspots),
                "threshold": unit.threshold,
                "moran_i": None if unit.moran is None else unit.moran.value,
                "moran_p": None if unit.moran is None else unit.moran.p,
                "land_cover": None if best is None else best.name,
                "precision": None if best is None else best.precision,
                "recall": None if best is None else best.recall,
                "iou": None if best is None else best.iou,
                "raster": unit.path.resolve().relative_to(folder.resolve()).as_posix() if inside else unit.path.name,
                "geometry": MultiPolygon([spot.geometry for spot in unit.hotspots]),
            }
        )
    return geopandas.GeoDataFrame(rows, geometry="geometry", crs=units[0].crs)


def _findings(findings: Sequence[Mapping[str, Any]]) -> GeoDataFrame:
    import geopandas
    import shapely
    from shapely.geometry import shape

    rows = []
    for finding in findings:
        area = finding.get("area_ha") or {}
        try:
            geometry = shape(finding["footprint"])
        except (shapely.errors.ShapelyError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise SpatialError(f"the footprint of finding {finding.get('id')!r} is no GeoJSON geometry") from error
        rows.append(
            {
                "id": str(finding.get("id", "")),
                "severity": str(finding.get("severity", "info")),
                "title": one_line(str(finding.get("title", ""))),
                "concept": _words(finding.get("concept")),
                "area_ha": area.get("estimate"),
                "geometry": geometry,
            }
        )
    return geopandas.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")


def _words(concept: object) -> str | None:
    """A concept as a table cell: words stay words, anything structured becomes JSON."""
    if concept is None or isinstance(concept, str):
        return one_line(concept) if concept else None
    return json.dumps(concept, ensure_ascii=False, sort_keys=True)


def add_styles(path: Path, styles: Mapping[str, str]) -> None:
    """Give layers of a GeoPackage their default style (layer name -> QML), with no timestamp of today in it."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(_STYLES)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description) VALUES (?, ?, ?, ?)",
            ("layer_styles", "attributes", "layer_styles", "default styles, read by QGIS"),
        )
        for layer, qml in styles.items():
            (column,) = database.execute(
                "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
            ).fetchone()
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName,"
                " styleQML, styleSLD, useAsDefault, description, owner, update_time)"
                " VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', ?)",
                (layer, column, layer, qml, f"default style of {layer}", _STAMP),
            )
        database.execute("UPDATE gpkg_contents SET last_change = ?", (_STAMP,))
