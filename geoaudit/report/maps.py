"""Maps inside a report: the scene, a unit's activation laid over it in warm colours, and its hot spots as outlines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dnd_core.types import UnitId
from geoaudit.results import Results

__all__ = ["CLASS_COLOURS", "HEAT", "Backdrop", "Overlay", "backdrops", "class_overlay", "composite", "overlay"]

Floats = NDArray[np.float64]

# Position, red, green, blue, opacity: weak activation is invisible, strong is pale yellow (readable without hue).
HEAT: tuple[tuple[float, int, int, int, int], ...] = (
    (0.0, 60, 10, 90, 0), (0.15, 90, 16, 110, 70), (0.4, 190, 44, 80, 165), (0.65, 240, 110, 32, 210),
    (0.85, 252, 190, 50, 232), (1.0, 255, 250, 190, 244),
)  # fmt: skip
CLASS_COLOURS = (
    "#2f6b3c", "#a7c957", "#d9a441", "#b3413e", "#3f7cac", "#8d6fb0", "#6b7f86", "#e07a5f", "#4fb0a5", "#c9b79c",
    "#7a4b2a", "#f2cc8f",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A scene made small enough for a page.

    Attributes:
        name: of the scene.
        image: RGB.
        crs, transform: the grid of ``image``.
        bounds: left, bottom, right, top in ``crs``.
        metres: ground size of a pixel, or None where the CRS is not in metres.

    """

    name: str
    image: Image.Image
    crs: Any
    transform: Any
    bounds: tuple[float, float, float, float]
    metres: float | None


@dataclass(frozen=True, eq=False)
class Overlay:
    """A unit over a backdrop.

    Attributes:
        unit: the unit.
        strength: (H, W) in [0, 1], 0 at the median activation and 1 at the 99.5th percentile; NaN without data.
        outlines: rings of its hot spots in pixels of the backdrop, holes included.
        spots: how many hot spots there are.
        area_ha: their area together, or None where unknown.

    """

    unit: UnitId
    strength: Floats
    outlines: tuple[tuple[tuple[float, float], ...], ...]
    spots: int
    area_ha: float | None


def backdrops(results: Results, width: int = 960) -> list[Backdrop]:
    """Every scene of the run that can be read, at most ``width`` pixels wide or high."""
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.transform import from_bounds

    found = []
    for name, path in results.scenes().items():
        try:
            with rasterio.open(path) as scene:
                scale = min(1.0, width / max(scene.width, scene.height))
                size = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
                bands = list(range(1, min(3, scene.count) + 1))
                pixels = scene.read(bands, out_shape=(len(bands), *size))
                bounds = tuple(float(edge) for edge in scene.bounds)
                crs = scene.crs
        except (RasterioError, OSError):
            continue
        rgb = np.repeat(pixels[:1], 3, axis=0) if len(bands) < 3 else pixels
        transform = from_bounds(*bounds, size[1], size[0])
        metres = abs(float(transform.a)) if crs is not None and crs.is_projected else None
        image = Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)).astype(np.uint8))
        found.append(Backdrop(name, image, crs, transform, bounds, metres))  # type: ignore[arg-type]
    return found


def _onto(path: Path, backdrop: Backdrop, *, categorical: bool = False) -> Floats | None:
    """The first band of a raster on the backdrop's grid, NaN without data; None where it does not reach the scene."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT

    try:
        with (
            rasterio.open(path) as source,
            WarpedVRT(
                source,
                crs=backdrop.crs,
                transform=backdrop.transform,
                width=backdrop.image.width,
                height=backdrop.image.height,
                resampling=Resampling.nearest if categorical else Resampling.bilinear,
                add_alpha=False,
            ) as warped,
        ):
            values = warped.read(1, masked=True).astype(np.float64).filled(np.nan)
            # A raster that marks missing data marks the ground outside itself too; for others it takes a second look.
            if source.nodata is None:
                values = np.where(warped.dataset_mask() > 0, values, np.nan)
    except (RasterioError, OSError, ValueError):
        return None
    return values if np.isfinite(values).any() else None


def overlay(results: Results, unit: UnitId, backdrop: Backdrop) -> Overlay | None:
    """A unit's map on a backdrop; None where it has no map there."""
    path = results.maps(backdrop.name).get(unit)
    values = None if path is None else _onto(path, backdrop)
    if values is None:
        return None
    low, high = np.nanpercentile(values, [50, 99.5])
    if high <= low:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
    strength = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1)
    rings, spots, area = _outlines(results, unit, backdrop)
    return Overlay(unit, strength, rings, spots, area)


def _outlines(
    results: Results, unit: UnitId, backdrop: Backdrop
) -> tuple[tuple[tuple[tuple[float, float], ...], ...], int, float | None]:
    frame = results.hotspots(unit, backdrop.name)
    if frame is None or frame.empty:
        return (), 0, None
    from shapely.geometry import box

    if frame.crs is not None and backdrop.crs is not None:
        frame = frame.to_crs(backdrop.crs)
    frame = frame[frame.geometry.intersects(box(*backdrop.bounds))]
    inverse = ~backdrop.transform
    rings = []
    for geometry in frame.geometry:
        # Half a pixel of the page is as fine as an outline can be seen.
        simple = geometry.simplify(abs(backdrop.transform.a) * 0.5)
        for polygon in getattr(simple, "geoms", [simple]):
            if polygon.geom_type != "Polygon" or polygon.is_empty:
                continue
            for ring in (polygon.exterior, *polygon.interiors):
                corners = np.asarray(ring.coords)[:, :2]
                x = inverse.a * corners[:, 0] + inverse.b * corners[:, 1] + inverse.c
                y = inverse.d * corners[:, 0] + inverse.e * corners[:, 1] + inverse.f
                rings.append(tuple((round(float(a), 1), round(float(b), 1)) for a, b in zip(x, y, strict=True)))
    area = float(frame["area_ha"].sum()) if "area_ha" in frame.columns else None
    return tuple(rings), len(frame), area


def _palette() -> NDArray[np.uint8]:
    """(256, 4) colours and opacities; entry 0 is transparent and stands for no data too."""
    positions = np.linspace(0, 1, 256)
    stops = np.array(HEAT, dtype=np.float64)
    columns = [np.interp(positions, stops[:, 0], stops[:, channel]) for channel in range(1, 5)]
    return np.stack(columns, axis=1).round().astype(np.uint8)


def heat(strength: Floats) -> Image.Image:
    """The overlay as a picture with 64 colours and opacities, small enough for a page."""
    # Fewer levels than the eye separates here, and a third of the bytes.
    steps = np.nan_to_num(np.round(np.nan_to_num(strength) * 63) * (255 / 63)).astype(np.uint8)
    colours = _palette()
    image = Image.fromarray(steps, mode=None).convert("P")
    image.putpalette(colours[:, :3].tobytes())
    image.info["transparency"] = bytes(colours[:, 3].tolist())
    return image


def path_of(rings: Sequence[Sequence[tuple[float, float]]]) -> str:
    """Rings as the ``d`` of an SVG path."""
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in ring) + "Z" for ring in rings)


def composite(backdrop: Backdrop, laid: Overlay | None, width: int | None = None) -> Image.Image:
    """Scene, overlay and outlines in one picture, for print and for small maps."""
    image = backdrop.image
    if laid is not None:
        grey = image.convert("L").point(lambda value: int(value * 0.72 + 18)).convert("RGBA")
        colours = _palette()[np.round(np.nan_to_num(laid.strength) * 255).astype(np.uint8)]
        image = Image.alpha_composite(grey, Image.fromarray(colours, "RGBA")).convert("RGB")
        draw = ImageDraw.Draw(image)
        for ring in laid.outlines:
            if len(ring) > 2 and (width is None or width >= 300):
                draw.line([*ring, ring[0]], fill=(255, 255, 255), width=max(1, image.width // 480))
    if width is not None and image.width != width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    return image


def class_overlay(results: Results, backdrop: Backdrop) -> tuple[Image.Image, list[dict[str, Any]]] | None:
    """The predicted classes as a picture with its legend (name, colour, share), or None where there is no class map."""
    import rasterio

    path = results.class_map(backdrop.name)
    values = None if path is None else _onto(path, backdrop, categorical=True)
    if path is None or values is None:
        return None
    with rasterio.open(path) as source:
        names = _names(source.tags().get("class_names"), results)
        try:
            palette: dict[int, Any] = source.colormap(1)
        except ValueError:
            palette = {}
    codes = np.where(np.isfinite(values), values, 255).astype(np.uint8)
    legend, table = [], np.zeros((256, 4), dtype=np.uint8)
    valid = codes != 255
    for code in np.unique(codes[valid]).tolist():
        colour = palette[code][:3] if code in palette else None
        text = "#{:02x}{:02x}{:02x}".format(*colour) if colour else CLASS_COLOURS[code % len(CLASS_COLOURS)]
        table[code] = (*bytes.fromhex(text[1:]), 200)
        share = float((codes == code).sum() / valid.sum())
        legend.append({"name": names[code] if code < len(names) else str(code), "colour": text, "share": share})
    image = Image.fromarray(codes).convert("P")
    image.putpalette(table[:, :3].tobytes())
    image.info["transparency"] = bytes(table[:, 3].tolist())
    return image, legend


def _names(text: str | None, results: Results) -> list[str]:
    if text:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, list):
            return [str(name) for name in value]
        if isinstance(value, dict):
            return [str(value[key]) for key in sorted(value, key=lambda key: int(key) if str(key).isdigit() else 0)]
    return list(results.class_names)
