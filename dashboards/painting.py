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
    "BEYOND", "CLASS_COLOURS", "COLOUR_MAPS", "EMPTY", "activation_tile", "beyond_tile", "chip", "class_colour",
    "class_tile", "colour_table", "disagreement_tile", "outlined", "part_of", "scene_tile", "tile_bounds", "tiles_tile",
]  # fmt: skip

SIZE = 256
# viridis, cividis and their like grow evenly in lightness, so they read the same without colour.
COLOUR_MAPS = ("viridis", "cividis", "magma", "inferno")
# Okabe and Ito's colours, then Tol's muted ones.
CLASS_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#332288", "#882255", "#44AA99",
    "#999933", "#AA4499", "#DDDDDD", "#117733", "#661100", "#6699CC",
)  # fmt: skip
BEYOND = "#D55E00"
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


def scene_tile(path: Path, z: int, x: int, y: int, bands: tuple[int, ...], cut: int) -> bytes:
    """The scene in three of its bands (1-based); as it is, or each band stretched with ``cut`` % left out at both ends."""
    read = _read(path, z, x, y, nearest=False, bands=bands)
    if read is None:
        return EMPTY
    values = read.data.astype(np.float32)
    if cut or read.data.dtype != np.uint8:
        for place, band in enumerate(bands):
            low, high = activation_range(path, band, (max(cut, 1), 100 - max(cut, 1)))
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


def class_tile(path: Path, z: int, x: int, y: int, numbers: tuple[int, ...] = ()) -> bytes:
    """Class numbers in their colours; 255 and what lies outside is clear.

    Args:
        path: the class map.
        z: zoom.
        x: column.
        y: row.
        numbers: what each number of the map stands for; itself where none are given.

    """
    read = _read(path, z, x, y, nearest=True)
    if read is None:
        return EMPTY
    return _coloured(_codes(read, numbers))


def disagreement_tile(classes: Path, labels: Path, numbers: tuple[int, ...], z: int, x: int, y: int) -> bytes:
    """Where the decided class is not the labelled one, in the colour of what was decided.

    Args:
        classes: the class map.
        labels: the map of labels.
        numbers: the class number of each number of ``labels``.
        z: zoom.
        x: column.
        y: row.

    """
    said, truth = (_read(path, z, x, y, nearest=True) for path in (classes, labels))
    if said is None or truth is None:
        return EMPTY
    decided, wanted = _codes(said, ()), _codes(truth, numbers)
    return _coloured(np.where((decided >= 0) & (wanted >= 0) & (decided != wanted), decided, -1))


def _codes(read: Any, numbers: tuple[int, ...]) -> NDArray[np.int64]:
    """(rows, columns) class numbers; -1 where there is none."""
    found: NDArray[np.int64] = read.data[0].astype(np.int64)
    known = (read.mask > 0) & (found != 255)
    if numbers:
        known &= found < len(numbers)
        found = np.asarray(numbers, dtype=np.int64)[np.minimum(found, len(numbers) - 1)]
    return np.where(known, found, -1)


def _coloured(codes: NDArray[np.int64]) -> bytes:
    table = np.array([_rgb(class_colour(number)) for number in range(len(CLASS_COLOURS))], dtype=np.uint8)
    rgba = np.empty((*codes.shape, 4), dtype=np.uint8)
    rgba[..., :3] = table[codes % len(CLASS_COLOURS)]
    rgba[..., 3] = np.where(codes >= 0, 255, 0)
    return _png(rgba)


def beyond_tile(path: Path, threshold: float, z: int, x: int, y: int) -> bytes:
    """Hatching where the values exceed the threshold; stripes run on from tile to tile and need no colour to be seen."""
    read = _read(path, z, x, y, nearest=True)
    if read is None:
        return EMPTY
    beyond = (read.mask > 0) & (read.data[0] > threshold)
    rows, columns = np.indices(beyond.shape)
    stripe = (rows + columns) % 8 < 3
    rgba = np.zeros((*beyond.shape, 4), dtype=np.uint8)
    rgba[..., :3] = np.where(stripe[..., None], _rgb(BEYOND), 0)
    rgba[..., 3] = np.where(beyond, np.where(stripe, 255, 110), 0)
    return _png(rgba)


def part_of(png: bytes, z: int, x: int, side: str, longitude: float) -> bytes:
    """A tile without what lies on the other side of a meridian.

    Args:
        png: the tile.
        z: zoom.
        x: column.
        side: ``west`` or ``east``, what is kept.
        longitude: degrees.

    """
    from PIL import Image

    place = ((longitude + 180) / 360 * 2**z - x) * SIZE
    kept = (0, round(place)) if side == "west" else (round(place), SIZE)
    if kept[0] <= 0 and kept[1] >= SIZE:
        return png
    if kept[0] >= SIZE or kept[1] <= 0 or png == EMPTY:
        return EMPTY
    with Image.open(io.BytesIO(png)) as opened:
        rgba = np.array(opened.convert("RGBA"))
    rgba[:, : kept[0], 3] = 0
    rgba[:, kept[1] :, 3] = 0
    return _png(rgba)


def chip(path: Path, longitude: float, latitude: float, size: tuple[int, int]) -> bytes:
    """The scene's rows and columns around a place, as the network would be given them.

    Raises:
        ValueError: the place lies outside the scene.

    """
    import rasterio
    from PIL import Image
    from rasterio.warp import transform
    from rasterio.windows import Window

    with rasterio.open(path) as raster:
        (x,), (y,) = transform("EPSG:4326", raster.crs, [longitude], [latitude])
        row, column = raster.index(x, y)
        if not (0 <= row < raster.height and 0 <= column < raster.width):
            raise ValueError("outside the scene")
        rows, columns = (min(most, given) for most, given in zip((raster.height, raster.width), size, strict=True))
        top = min(max(row - rows // 2, 0), raster.height - rows)
        left = min(max(column - columns // 2, 0), raster.width - columns)
        bands = [1, 2, 3] if raster.count >= 3 else [1, 1, 1]
        pixels = raster.read(bands, window=Window(left, top, columns, rows))
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(np.uint8))
    factor = max(1, -(-192 // max(picture.width, 1)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


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
