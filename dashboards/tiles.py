"""Our own routes beside Streamlit's: map tiles, the map's style, hot spots, pictures and finished reports.

They have no log-in of their own, so everything is found by its id in the run and nothing by a path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from zlib import crc32

import numpy as np
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from dashboards import painting
from dashboards.layers import (
    MOST_MEMBERS,
    MapLayer,
    find_layer,
    grid_of,
    maps_of,
    net,
    renumbered,
    scene_path,
    threshold_of,
)  # fmt: skip
from dashboards.loading import address, current, stamp
from dashboards.places import hotspots, tiles_of
from dashboards.reports import REPORTS
from dashboards.survey import survey
from dnd_core.errors import DndError, StoreError
from dnd_core.types import Box, UnitId
from geoaudit.results import Results

__all__ = ["STRETCHES", "routes", "version"]

PREFIX = "layers"
DEEPEST = 22
# Percent of a band's values left out at both ends; nothing for as it is.
STRETCHES = ("", "1", "2", "5", "10")
_SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def version() -> str:
    """Part of every address, so that browsers keep pictures until the run changes."""
    return f"{crc32(repr(stamp()).encode()):08x}"


def _answer(route: Callable[[Request, Results], Response]) -> Callable[[Request], Response]:
    """Open the run, and answer what is asked wrongly with one sentence."""

    @wraps(route)
    def answered(request: Request) -> Response:
        from rasterio.errors import RasterioError

        try:
            response = route(request, current())
        except (DndError, ValueError, RasterioError) as error:
            sentence = str(error)[:300] if isinstance(error, DndError) else "what was asked for cannot be shown"
            response = JSONResponse({"error": sentence}, status_code=404)
        response.headers.update(_SAFE)
        return response

    return answered


def _picture(png: bytes) -> Response:
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})


def _share(text: str | None) -> float:
    value = float(text) if text else 0.0
    return min(max(value, 0.0), 1.0) if np.isfinite(value) else 0.0


@_answer
def tile(request: Request, results: Results) -> Response:
    """One tile of a layer: ``/layers/tile/Z/X/Y.png?scene=&layer=&colours=&least=&bands=&stretch=&west=&east=``.

    ``bands`` are three numbers of the scene's bands, ``stretch`` is the percentage left out at both ends of each,
    ``west`` and ``east`` are meridians beyond which nothing is drawn.
    """
    z, x, y = (int(request.path_params[name]) for name in ("z", "x", "y"))
    if not (0 <= z <= DEEPEST and 0 <= x < 2**z and 0 <= y < 2**z):
        raise StoreError("a tile has a zoom of 0 to 22 and a row and column within it")
    query = request.query_params
    scene, _ = scene_path(results, query.get("scene"))
    layer = find_layer(results, scene, query.get("layer", "scene"))
    colours = query.get("colours", "viridis")
    if colours not in painting.COLOUR_MAPS:
        raise StoreError(f"the colour maps are {', '.join(painting.COLOUR_MAPS)}")
    least = round(_share(query.get("least")), 3)
    stretch = query.get("stretch", "")
    if stretch not in STRETCHES:
        raise StoreError(f"a stretch leaves out one of {', '.join(STRETCHES[1:])} percent")
    png = _drawn(stamp(), scene, layer, z, x, y, colours, least, query.get("bands", ""), int(stretch or 0))
    for name, side in (("east", "west"), ("west", "east")):
        if name in query:
            # What ends in the east at a meridian is kept to the west of it.
            png = painting.part_of(png, z, x, side, _degrees(query[name]))
    return _picture(png)


def _degrees(text: str) -> float:
    value = float(text)
    if not -180 <= value <= 180:
        raise StoreError("a meridian lies between -180 and 180 degrees")
    return value


@lru_cache(maxsize=256)
def _drawn(
    changed: tuple[object, ...], scene: str, layer: MapLayer, z: int, x: int, y: int, colours: str, least: float,
    bands: str, stretch: int,
) -> bytes:  # fmt: skip
    if layer.kind == "scene":
        # The picture of the scene is there in natural colours; any other triple is taken from its bands.
        path = (current().bands(scene) if bands else None) or layer.paths[0]
        return painting.scene_tile(path, z, x, y, _bands(path, bands), stretch)
    if layer.kind == "classes":
        numbers = renumbered(current(), scene, layer.paths[0]) if layer.id == "labels" else ()
        return painting.class_tile(layer.paths[0], z, x, y, numbers)
    if layer.kind == "disagreement":
        numbers = renumbered(current(), scene, layer.paths[1])
        classes, labels = layer.paths
        return painting.disagreement_tile(classes, labels, numbers, z, x, y)
    if layer.kind == "applicability":
        limit = threshold_of(layer.paths[0])
        if limit is None:
            raise StoreError("the map of applicability does not say where it ends")
        return painting.beyond_tile(layer.paths[0], limit, z, x, y)
    if layer.kind == "activation":
        return painting.activation_tile(layer.paths, z, x, y, colours, least)
    tiles = tiles_of(current())
    codes = tiles.truth if layer.id == "truth" else tiles.predicted
    wanted = codes >= 0
    if layer.id == "errors":
        wanted = wanted & (tiles.truth >= 0) & (tiles.truth != tiles.predicted)
    colours_of = [painting.class_colour(int(number)) for number in codes[wanted]]
    return painting.tiles_tile(tiles.corners[wanted], colours_of, z, x, y)


def _bands(path: Path, text: str) -> tuple[int, ...]:
    grid = grid_of(path)
    count = grid.bands if grid else 3
    chosen = tuple(int(part) for part in text.split(",")) if text else ((1, 2, 3) if count >= 3 else (1, 1, 1))
    if len(chosen) != 3 or not all(1 <= band <= count for band in chosen):
        raise StoreError(f"three bands of 1 to {count} make a picture")
    return chosen


@_answer
def style(request: Request, results: Results) -> Response:
    """The map's MapLibre style: background, scene, a layer over it, outlines of hot spots."""
    query = request.query_params
    scene, path = scene_path(results, query.get("scene"))
    grid = grid_of(path)
    if grid is None:
        raise StoreError(f"the scene {scene[:60]} has no place on Earth")
    here = f"{request.url.scheme}://{request.url.netloc}"
    kept = {name: query.get(name) for name in ("colours", "least", "bands", "stretch")}

    def source(layer: str, **cut: str) -> dict[str, object]:
        asked = {**kept, **cut}
        place = address(f"{PREFIX}/tile/{{z}}/{{x}}/{{y}}.png", scene=scene, layer=layer, v=version(), **asked)
        return {
            "type": "raster", "tiles": [here + place], "tileSize": painting.SIZE,
            "bounds": list(grid.bounds), "maxzoom": min(grid.zoom + 1, DEEPEST),
        }  # fmt: skip

    dark = query.get("dark") == "1"
    ground = {"background-color": "#14181c" if dark else "#e8ecef"}
    sources: dict[str, object] = {"scene": source("scene")}
    layers: list[dict[str, object]] = [
        {"id": "background", "type": "background", "paint": ground},
        {"id": "scene", "type": "raster", "source": "scene", "paint": {"raster-fade-duration": 0}},
    ]
    over, other, split = query.get("layer", ""), query.get("other", ""), query.get("split", "")
    line = f"{_degrees(split):.6f}" if split else ""
    paint = {"raster-opacity": _share(query.get("opacity") or "0.7"), "raster-fade-duration": 0}
    for name, layer, side in (("over", over, "east"), ("other", other if line else "", "west")):
        if layer and layer != "scene":
            find_layer(results, scene, layer)
            sources[name] = source(layer, **({side: line} if line else {}))
            layers.append({"id": name, "type": "raster", "source": name, "paint": paint})
    if line:
        ends = [[float(line), grid.bounds[1]], [float(line), grid.bounds[3]]]
        sources["split"] = {"type": "geojson", "data": {"type": "LineString", "coordinates": ends}}
        layers += _line("split", "split")
    if query.get("spots") == "1" and over.startswith(("unit:", "group:")):
        place = address(f"{PREFIX}/hotspots.geojson", scene=scene, layer=over, v=version())
        sources["spots"] = {"type": "geojson", "data": here + place}
        layers += _line("spots", "spots")
    return JSONResponse({"version": 8, "name": "geoaudit", "sources": sources, "layers": layers})


def _line(name: str, source: str) -> list[dict[str, object]]:
    """A white line in a dark one, which shows on any ground."""
    return [
        {"id": f"{name}-{part}", "type": "line", "source": source, "paint": {"line-color": colour, "line-width": width}}
        for part, colour, width in (("halo", "#000000", 3.5), ("line", "#ffffff", 1.5))
    ]


@_answer
def spots(request: Request, results: Results) -> Response:
    """Hot spots of a unit's or group's layer as GeoJSON."""
    scene, _ = scene_path(results, request.query_params.get("scene"))
    units = _members(results, scene, request.query_params.get("layer", ""))
    return JSONResponse(hotspots(results, scene, units))


def _members(results: Results, scene: str, layer: str) -> tuple[UnitId, ...]:
    """The units whose hot spots belong to a unit's or group's layer."""
    kind, _, rest = layer.partition(":")
    if kind == "unit":
        return (results.unit(rest).id,)
    if kind == "group" and rest.isdigit():
        # Those of the members that are drawn; all of a large group would cover the scene.
        maps = maps_of(results, scene)
        return tuple(unit for unit in results.group_units(int(rest)) if unit in maps)[:MOST_MEMBERS]
    return ()


@_answer
def overview(request: Request, results: Results) -> Response:
    """The whole scene with a unit's or group's layer: ``/layers/survey.png?scene=&layer=&finding=``."""
    query = request.query_params
    scene, path = scene_path(results, query.get("scene"))
    wanted = query.get("finding", "")
    finding = next((found for found in results.findings if wanted and found["id"] == wanted), None)
    if wanted and finding is None:
        raise StoreError(f"this run has no finding {wanted[:40]!r}")
    return _picture(_surveyed(stamp(), scene, path, query.get("layer", "scene"), wanted))


@lru_cache(maxsize=32)
def _surveyed(changed: tuple[object, ...], scene: str, path: Path, layer: str, wanted: str) -> bytes:
    results = current()
    found = find_layer(results, scene, layer)
    spots = hotspots(results, scene, _members(results, scene, layer))
    footprint = next((entry.get("footprint") for entry in results.findings if wanted and entry["id"] == wanted), None)
    return survey(path, found if found.kind == "activation" else None, spots, footprint)


@_answer
def cells(request: Request, results: Results) -> Response:
    """The net of places over a scene that can be clicked."""
    scene, path = scene_path(results, request.query_params.get("scene"))
    grid = grid_of(path)
    if grid is None:
        raise StoreError(f"the scene {scene[:60]} has no place on Earth")
    return JSONResponse(net(grid), headers={"Cache-Control": "private, max-age=86400"})


@_answer
def image(request: Request, results: Results) -> Response:
    """Rendering of a probe image: ``/layers/image/NUMBER.png?box=LEFT,TOP,RIGHT,BOTTOM``."""
    path = results.thumbnail(int(request.path_params["number"]))
    if path is None:
        raise StoreError("the run kept no picture of this image")
    text = request.query_params.get("box", "")
    if not text:
        # As it is: the page enlarges it and draws the outline, which costs neither side anything.
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})
    edges = [int(part) for part in text.split(",")] if text else []
    box = Box(*edges) if len(edges) == 4 else None
    probe = results.manifest.get("probe")
    shape = probe.get("shape") if isinstance(probe, dict) else None
    width = int(shape[-1]) if isinstance(shape, list) and shape and isinstance(shape[-1], int) else None
    return _picture(painting.outlined(path, box, width))


@_answer
def chip(request: Request, results: Results) -> Response:
    """The scene around a place, as large as the network's tiles: ``/layers/chip.png?scene=&at=LONGITUDE,LATITUDE``."""
    _, path = scene_path(results, request.query_params.get("scene"))
    longitude, latitude = (float(part) for part in request.query_params.get("at", "").split(","))
    probe = results.manifest.get("probe")
    shape = probe.get("shape") if isinstance(probe, dict) else None
    sound = (
        isinstance(shape, list)
        and len(shape) == 3
        and all(isinstance(side, int) and 0 < side <= 1024 for side in shape)
    )
    rows, columns = shape[1:] if sound and shape else (64, 64)
    return _picture(painting.chip(path, longitude, latitude, (rows, columns)))


@_answer
def concept(request: Request, results: Results) -> Response:
    """One of the pictures that stood for a concept: ``/layers/concept/SLOT.png?concept=WORDS``."""
    found = results.concept_images(request.query_params.get("concept", ""))
    slot = int(request.path_params["slot"])
    if slot >= len(found):
        raise StoreError("there is no such picture of this concept")
    return _picture(painting.outlined(found[slot], None, None))


@_answer
def report(request: Request, results: Results) -> Response:
    """A finished report as a download: ``/layers/report/FORMAT``."""
    known = REPORTS.get(request.path_params["name"])
    path = results.root / known.file if known else None
    if known is None or path is None or not path.is_file():
        raise StoreError("this report has not been made: make it on the page Export")
    # Always a download: a report shown in place would run with this page's rights.
    return FileResponse(path, filename=known.file, media_type="application/octet-stream")


def routes(base: str = "") -> list[Route]:
    """Every route of ours below the base path, which Streamlit applies to its own routes only."""
    top = f"{base}/{PREFIX}"
    return [
        Route(f"{top}/tile/{{z:int}}/{{x:int}}/{{y:int}}.png", tile),
        Route(f"{top}/style.json", style),
        Route(f"{top}/survey.png", overview),
        Route(f"{top}/hotspots.geojson", spots),
        Route(f"{top}/cells.json", cells),
        Route(f"{top}/image/{{number:int}}.png", image),
        Route(f"{top}/chip.png", chip),
        Route(f"{top}/concept/{{slot:int}}.png", concept),
        Route(f"{top}/report/{{name}}", report),
    ]
