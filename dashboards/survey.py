"""A small picture of a whole scene with a layer and outlines over it, drawn here instead of in the browser.

Pages that show a map beside other things use it: a browser without a graphics card needs seconds for a live map.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards import painting
from dashboards.layers import MapLayer, activation_range

__all__ = ["shapes", "survey"]

WIDTH = 720
OUTLINE = "#E69F00"


def survey(scene: Path, layer: MapLayer | None, spots: Any, footprint: Any, width: int = WIDTH) -> bytes:
    """The picture as PNG.

    Args:
        scene: the picture of the scene.
        layer: an activation over it, or None.
        spots: hot spots as GeoJSON in degrees, outlined in white.
        footprint: of a finding, GeoJSON in degrees, outlined in orange.
        width: pixels along the longer side.

    """
    import rasterio
    from PIL import Image, ImageDraw
    from rasterio.warp import transform

    with rasterio.open(scene) as raster:
        scale = min(1.0, width / max(raster.width, raster.height))
        size = max(1, round(raster.height * scale)), max(1, round(raster.width * scale))
        bands = [1, 2, 3] if raster.count >= 3 else [1, 1, 1]
        pixels = raster.read(bands, out_shape=(3, *size))
        system, bounds = raster.crs, raster.bounds
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(np.uint8))
    if layer is not None and layer.paths:
        over = Image.fromarray(_strongest(layer.paths, system, bounds, size))
        picture = Image.alpha_composite(picture.convert("RGBA"), over).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for shape, colour, least in ((spots, "#ffffff", 1), (footprint, OUTLINE, 2)):
        for ring in _rings(shape):
            xs, ys = transform("EPSG:4326", system, [point[0] for point in ring], [point[1] for point in ring])
            line = [
                (
                    (x - bounds.left) / (bounds.right - bounds.left) * size[1],
                    (bounds.top - y) / (bounds.top - bounds.bottom) * size[0],
                )
                for x, y in zip(xs, ys, strict=True)
            ]
            # A dark edge makes the line stand out on any ground.
            draw.line(line, fill="#000000", width=least + 2, joint="curve")
            draw.line(line, fill=colour, width=least, joint="curve")
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _strongest(paths: tuple[Path, ...], system: Any, bounds: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(rows, columns, 4): the strongest of several activations, each on its own scale, half clear."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import from_bounds
    from rasterio.vrt import WarpedVRT

    strongest = np.full(size, np.nan, dtype=np.float32)
    grid = {"crs": system, "transform": from_bounds(*bounds, size[1], size[0]), "height": size[0], "width": size[1]}
    for path in paths:
        low, high = activation_range(path)
        with rasterio.open(path) as raster, WarpedVRT(raster, resampling=Resampling.bilinear, **grid) as warped:
            values = warped.read(1, masked=True).astype(np.float32).filled(np.nan)
        strongest = np.fmax(strongest, (values - low) / (high - low))
    steps = (np.clip(np.nan_to_num(strongest), 0, 1) * 255).astype(np.uint8)
    rgba = np.zeros((*size, 4), dtype=np.uint8)
    rgba[..., :3] = painting.colour_table("viridis")[steps]
    rgba[..., 3] = np.where(np.isfinite(strongest), 165, 0)
    return rgba


def shapes(shape: Any, most: int = 500) -> list[dict[str, Any]]:
    """The geometries of a GeoJSON, at most ``most`` of a collection; none of what is no GeoJSON."""
    kinds = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
    if not isinstance(shape, dict):
        return []
    if shape.get("type") in kinds and isinstance(shape.get("coordinates"), list):
        return [{"type": shape["type"], "coordinates": shape["coordinates"]}]
    if shape.get("type") == "Feature":
        return shapes(shape.get("geometry"))
    inner = shape.get("features" if shape.get("type") == "FeatureCollection" else "geometries")
    parts = inner[:most] if isinstance(inner, list) else []
    return [found for part in parts for found in shapes(part)]


def _rings(shape: Any) -> list[list[tuple[float, float]]]:
    """Outlines of every polygon and line in a GeoJSON; what has no sound coordinates is left out."""
    found = []
    for part in shapes(shape, 2000):
        kind, at = part["type"], part["coordinates"]
        if kind == "MultiPolygon":
            at = [ring for polygon in at if isinstance(polygon, list) for ring in polygon]
        elif kind == "LineString":
            at = [at]
        elif kind not in ("Polygon", "MultiLineString"):
            continue
        for ring in at:
            points = [point for point in map(_point, ring if isinstance(ring, list) else ()) if point is not None]
            if len(points) > 1:
                found.append(points)
    return found


def _point(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(part, (int, float)) for part in value[:2]):
        return None
    return float(value[0]), float(value[1])
