"""Map tiles and pictures as PNG: activations in perceptual colours, classes in colours told apart by colour-blind people.

rio-tiler is imported at the top: a browser asks for many tiles at once, and threads that import it together find it half made.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rio_tiler.colormap import cmap
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import Reader

from dashboards.layers import activation_range
from dnd_core.types import Box

__all__ = [
    "CLASS_COLOURS", "COLOUR_MAPS", "EMPTY", "activation_tile", "class_colour", "class_tile", "colour_table",
    "outlined", "scene_tile", "tile_bounds", "tiles_tile",
]  # fmt: skip

SIZE = 256
# viridis, cividis and their like grow evenly in lightness, so they read the same without colour.
COLOUR_MAPS = ("viridis", "cividis", "magma", "inferno")
# Okabe and Ito's colours, then Tol's muted ones.
CLASS_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#332288", "#882255", "#44AA99",
    "#999933", "#AA4499", "#DDDDDD", "#117733", "#661100", "#6699CC",
)  # fmt: skip
_EDGE = 20_037_508.342789244


def class_colour(number: int) -> str:
    """Colour of a class as ``#rrggbb``; they begin again after the last."""
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@lru_cache(maxsize=len(COLOUR_MAPS))
def colour_table(name: str) -> NDArray[np.uint8]:
    """(256, 3) uint8 of one of :data:`COLOUR_MAPS`."""
    found = cmap.get(name)
    return np.array([found[step][:3] for step in range(256)], dtype=np.uint8)


def _png(rgba: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgba).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


EMPTY = _png(np.zeros((1, 1, 4), dtype=np.uint8))


def tile_bounds(z: int, x: int, y: int) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a web-map tile in EPSG:3857."""
    side = 2 * _EDGE / 2**z
    return -_EDGE + x * side, _EDGE - (y + 1) * side, -_EDGE + (x + 1) * side, _EDGE - y * side


def _read(path: Path, z: int, x: int, y: int, *, nearest: bool, bands: tuple[int, ...] | None = None) -> Any:
    with Reader(str(path)) as raster:
        try:
            return raster.tile(
                x, y, z, tilesize=SIZE, indexes=bands, resampling_method="nearest" if nearest else "bilinear"
            )
        except TileOutsideBounds:
            return None


def scene_tile(path: Path, z: int, x: int, y: int, bands: tuple[int, ...], stretch: bool) -> bytes:
    """The scene in three of its bands (1-based); uint8 as it is, or each band stretched between its percentiles."""
    read = _read(path, z, x, y, nearest=False, bands=bands)
    if read is None:
        return EMPTY
    values = read.data.astype(np.float32)
    if stretch or read.data.dtype != np.uint8:
        for place, band in enumerate(bands):
            low, high = activation_range(path, band)
            values[place] = (values[place] - low) / (high - low) * 255
    rgba = np.empty((SIZE, SIZE, 4), dtype=np.uint8)
    rgba[..., :3] = np.clip(values, 0, 255).transpose(1, 2, 0)
    rgba[..., 3] = read.mask
    return _png(rgba)


def activation_tile(paths: tuple[Path, ...], z: int, x: int, y: int, colours: str, least: float) -> bytes:
    """Activation of a unit, or the strongest of several, each on its own scale.

    Args:
        paths: one map, or those of a group's members.
        z: zoom.
        x: column.
        y: row.
        colours: one of :data:`COLOUR_MAPS`.
        least: share of the colour scale, in [0, 1], below which nothing is drawn.

    """
    strongest = np.full((SIZE, SIZE), np.nan, dtype=np.float32)
    for path in paths:
        read = _read(path, z, x, y, nearest=False)
        if read is None:
            continue
        low, high = activation_range(path)
        values = np.where(read.mask > 0, (read.data[0].astype(np.float32) - low) / (high - low), np.nan)
        strongest = np.fmax(strongest, values)
    shown = np.isfinite(strongest) & (strongest >= least if least > 0 else True)
    rgba = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    steps = (np.clip(np.nan_to_num(strongest), 0, 1) * 255).astype(np.uint8)
    rgba[..., :3] = colour_table(colours)[steps]
    rgba[..., 3] = np.where(shown, 255, 0)
    return _png(rgba)


def class_tile(path: Path, z: int, x: int, y: int) -> bytes:
    """Class numbers in their colours; 255 and what lies outside is clear."""
    read = _read(path, z, x, y, nearest=True)
    if read is None:
        return EMPTY
    numbers = read.data[0].astype(np.int64)
    table = np.array([_rgb(class_colour(number)) for number in range(len(CLASS_COLOURS))], dtype=np.uint8)
    rgba = np.empty((SIZE, SIZE, 4), dtype=np.uint8)
    rgba[..., :3] = table[numbers % len(CLASS_COLOURS)]
    rgba[..., 3] = np.where((read.mask > 0) & (numbers != 255), 255, 0)
    return _png(rgba)


def tiles_tile(corners: NDArray[np.float64], colours: list[str], z: int, x: int, y: int) -> bytes:
    """Probe tiles as filled outlines.

    Args:
        corners: (tiles, 4, 2) in EPSG:3857.
        colours: one a tile.
        z: zoom.
        x: column.
        y: row.

    """
    from PIL import Image, ImageDraw

    left, bottom, right, top = tile_bounds(z, x, y)
    low, high = corners.min(axis=1), corners.max(axis=1)
    inside = (high[:, 0] > left) & (low[:, 0] < right) & (high[:, 1] > bottom) & (low[:, 1] < top)
    if not inside.any():
        return EMPTY
    scale = SIZE / (right - left)
    canvas = Image.new("RGBA", (SIZE, SIZE))
    draw = ImageDraw.Draw(canvas)
    pixels = (corners - (left, top)) * (scale, -scale)
    for number in np.flatnonzero(inside):
        draw.polygon([tuple(point) for point in pixels[number].tolist()], fill=colours[number])
    stream = io.BytesIO()
    canvas.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def outlined(path: Path, box: Box | None, width: int | None, least: int = 192) -> bytes:
    """A tile's picture, enlarged without smoothing where it is small, with a part of it outlined.

    Args:
        path: the rendering.
        box: part in pixels of the probe image.
        width: pixels of the probe image across, of which the rendering may be a smaller copy; None where not known.
        least: pixels across that the picture has at least.

    """
    from PIL import Image, ImageDraw

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    across = width or picture.width
    factor = max(1, -(-least // max(picture.width, 1)))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if box is not None:
        scale = picture.width / across
        edges = [round(edge * scale) for edge in (box.left, box.top, box.right, box.bottom)]
        draw = ImageDraw.Draw(picture)
        # Light inside dark shows on any ground.
        for inset, colour in ((0, "#000000"), (1, "#000000"), (2, "#ffffff"), (3, "#ffffff")):
            corners = (edges[0] + inset, edges[1] + inset, edges[2] - 1 - inset, edges[3] - 1 - inset)
            if corners[0] < corners[2] and corners[1] < corners[3]:
                draw.rectangle(corners, outline=colour)
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
