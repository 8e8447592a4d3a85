"""Files for geographic tools: a GeoPackage with default styles, neurons as GeoParquet, and a STAC item."""

from __future__ import annotations

import datetime
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaudit.report.content import verdict
from geoaudit.report.text import lines, plain
from geoaudit.report.wording import say
from geoaudit.results import Results

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["geopackage", "neurons_geoparquet", "stac_item"]

WORLD = "EPSG:4326"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_MEDIA = {
    ".json": "application/json", ".html": "text/html", ".pdf": "application/pdf", ".sarif": "application/sarif+json",
    ".gpkg": "application/geopackage+sqlite3", ".md": "text/markdown",
}  # fmt: skip


def _footprints(results: Results) -> dict[int, Any]:
    """Footprint of every probe image that has one, in longitude and latitude, by image number."""
    import geopandas as gpd
    import pandas as pd
    from pyproj.exceptions import ProjError
    from shapely.geometry import box

    found: dict[int, Any] = {}
    frame = results.images
    edges = [pd.to_numeric(frame[name], errors="coerce") for name in ("left", "bottom", "right", "top")]
    placed = ~pd.concat(edges, axis=1).isna().any(axis=1) if len(frame) else pd.Series(dtype=bool)
    for crs, part in frame[placed].groupby("crs", sort=True) if placed.any() else ():
        if not isinstance(crs, str) or not crs:
            continue
        shapes = [box(*corners) for corners in part[["left", "bottom", "right", "top"]].itertuples(index=False)]
        try:
            moved = gpd.GeoSeries(shapes, crs=crs).to_crs(WORLD)
        except ProjError:
            # A system that nobody knows places nothing; the images stay without a footprint.
            continue
        found |= dict(zip((int(image) for image in part["image"]), moved, strict=True))
    return found


def _units(results: Results) -> gpd.GeoDataFrame:
    """One row a unit; the geometry is where its top images lie."""
    import geopandas as gpd
    from shapely.geometry import MultiPolygon

    where = _footprints(results)
    rows = []
    for unit in results.unit_ids:
        known = results.unit(unit)
        tiles = dict.fromkeys(view.image for view in known.top_images)
        polygons = [where[image] for image in tiles if image in where]
        rows.append({
            "unit": plain(unit, 120), "layer": plain(unit.layer, 100), "index": unit.index, "status": known.status,
            "label": plain(known.label), "labels": plain("; ".join(known.labels), 600), "group": known.group,
            **known.figures,
            "reason": lines(known.reason, 500), "geometry": MultiPolygon(polygons) if polygons else None,
        })  # fmt: skip
    columns = ["unit", "layer", "index", "status", "label", "labels", "group", *_FIGURES, "reason", "geometry"]
    frame = gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=WORLD)
    return frame.astype({"group": "Int64", **dict.fromkeys(_FIGURES, "float64")})


_FIGURES = ("r", "auprc", "activation_rate", "p", "q", "stability", "threshold", "p99")


def neurons_geoparquet(results: Results) -> bytes:
    """Neurons as GeoParquet (EPSG:4326): the footprint of a neuron's top images is its geometry."""
    buffer = io.BytesIO()
    _units(results).to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _findings(results: Results) -> gpd.GeoDataFrame:
    import geopandas as gpd

    rows = []
    for finding in results.findings:
        area = finding.get("area_ha") or {}
        effect = finding.get("effect") or {}
        rows.append({
            "id": plain(finding["id"], 40), "severity": finding["severity"], "status": finding["status"],
            "title": plain(finding["title"]), "rule": plain(finding["rule"], 80), "concept": plain(finding.get("concept")),
            "class": plain(", ".join(str(name) for name in finding.get("class_pair") or [] if name), 200),
            "grade": finding.get("evidence_grade"), "effect": effect.get("value"), "area_ha": area.get("estimate"),
            "recommendation": lines(finding.get("recommendation"), 1000), "geometry": _shape(finding.get("footprint")),
        })  # fmt: skip
    columns = ["id", "severity", "status", "title", "rule", "concept", "class", "grade", "effect", "area_ha",
               "recommendation", "geometry"]  # fmt: skip
    frame = gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=WORLD)
    return frame.astype({"grade": "Int64", "effect": "float64", "area_ha": "float64"})


def _shape(footprint: Any) -> Any:
    """A GeoJSON geometry, feature or collection as one shape; None where it is none."""
    import shapely
    from shapely.geometry import shape

    if not isinstance(footprint, Mapping):
        return None
    try:
        if footprint.get("type") == "FeatureCollection":
            return shapely.union_all([shape(feature["geometry"]) for feature in footprint["features"]])
        return shape(footprint["geometry"] if footprint.get("type") == "Feature" else footprint)
    except (shapely.errors.ShapelyError, AttributeError, KeyError, TypeError, ValueError, IndexError):
        return None


def geopackage(results: Results) -> bytes:
    """Units, findings and hot spots in one GeoPackage that opens styled and labelled in QGIS."""
    import pandas as pd

    from geoaudit.geopackage import SEVERITIES, add_styles, pack
    from geoaudit.styles import categorised

    statuses = {"labelled": (31, 122, 109), "weak": (224, 160, 48), "abstained": (154, 168, 164), "dead": (75, 86, 83)}
    layers = {"units": _units(results), "findings": _findings(results)}
    styles = {
        "units": categorised("status", {name: name for name in statuses}, "label", tuple(statuses.values())),
        "findings": categorised("severity", {name: name for name in SEVERITIES}, "title", tuple(SEVERITIES.values())),
    }
    hot = results.hotspots()
    if hot is not None and len(hot):
        text = [name for name in hot.columns if pd.api.types.is_string_dtype(hot[name]) and name != hot.geometry.name]
        layers["hotspots"] = hot.assign(**{name: [plain(value) for value in hot[name]] for name in text})
        names = {
            str(unit): plain(f"{unit}: {results.unit(unit).label}", 80)
            for unit in results.maps()
            if unit in results.unit_ids
        }
        styles["hotspots"] = categorised("unit", names, "label")
    with tempfile.TemporaryDirectory() as folder:
        path, packed = Path(folder) / "writing.gpkg", Path(folder) / "audit.gpkg"
        for name, frame in layers.items():
            kind = "Unknown" if name == "findings" else "MultiPolygon" if name == "units" else "Polygon"
            if kind == "Polygon" and not set(frame.geom_type) <= {"Polygon"}:
                kind = "Unknown"
            frame.to_file(path, layer=name, driver="GPKG", engine="pyogrio", geometry_type=kind)
        add_styles(path, styles)
        pack(path, packed)
        return packed.read_bytes()


def stac_item(results: Results) -> bytes:
    """A STAC item with the MLM extension's fields that points at the audit and its reports as assets."""
    import shapely

    where = list(_footprints(results).values())
    extent = shapely.union_all(where) if where else None
    hull = None if extent is None else extent.convex_hull
    model = results.manifest.get("model")
    model = model if isinstance(model, Mapping) else {}
    probe = results.manifest.get("probe")
    channels = probe.get("channels") if isinstance(probe, Mapping) else None
    days = sorted(str(day) for day in results.images["acquired"].dropna().unique() if _day(day) is not None)
    first, last = (_day(days[0]), _day(days[-1])) if days else (_EPOCH, _EPOCH)
    name = plain(model.get("name") or results.root.resolve().name, 80)
    light = verdict(results)
    bands = [plain(band, 40) for band in channels] if isinstance(channels, list) else []
    shape = probe.get("shape") if isinstance(probe, Mapping) else None
    files = ("audit.json", "report.html", "report.pdf", "audit.sarif", "audit.gpkg", "model_card.md", "manifest.json")
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in f"audit-{name}"),
        "geometry": None if hull is None else json.loads(shapely.to_geojson(hull)),
        "properties": {
            "title": say("title", model=name),
            "description": lines(f"{light['word']}. {light['sentence']} {light['detail']}", 800),
            "datetime": None,
            "start_datetime": _stamp(first),
            "end_datetime": _stamp(last),
            "mlm:name": name,
            "mlm:architecture": plain(model.get("architecture") or name, 80),
            "mlm:tasks": ["classification"],
            "mlm:input": [{
                "name": "tiles", "bands": bands,
                "input": {"shape": [-1, *shape] if isinstance(shape, list) and len(shape) == 3 else [-1, len(bands), -1, -1],
                          "dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"},
            }],
            "mlm:output": [{
                "name": "classes", "tasks": ["classification"],
                "result": {"shape": [-1, len(results.class_names)], "dim_order": ["batch", "class"], "data_type": "float32"},
                "classification:classes": [
                    {"value": number, "name": _slug(text, number), "description": plain(text, 100)}
                    for number, text in enumerate(results.class_names)
                ],
            }],
            "geoaudit:state": results.state,
            "geoaudit:verdict": light["light"],
        },
        "links": [],
        "assets": {
            file: {"href": f"./{file}", "type": _MEDIA[Path(file).suffix], "roles": ["metadata"],
                   "title": say("asset.audit") if file == "audit.json" else file}
            for file in files if file == "audit.json" or (results.root / file).is_file()
        },
    }  # fmt: skip
    if hull is not None:
        item["bbox"] = [round(edge, 7) for edge in hull.bounds]
    return (json.dumps(item, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _slug(text: str, number: int) -> str:
    made = "".join(c if c.isascii() and c.isalnum() else "_" for c in plain(text, 40)).strip("_").lower()
    return made or f"class_{number}"


def _day(text: Any) -> datetime.datetime | None:
    try:
        day = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return day if day.tzinfo else day.replace(tzinfo=datetime.UTC)


def _stamp(when: datetime.datetime | None) -> str:
    return (when or _EPOCH).astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
