"""A scene as people look at it: one true-colour picture, and every band in eight bits for any other triple."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rasterio.windows import Window

    from geoaudit.scenes import Scene

__all__ = ["MOST_SAMPLES", "render_scene", "unique_names"]

_SIDE = 256
# Values of all bands together that are kept; larger scenes are averaged down. Compressed, this is some ten megabytes.
MOST_SAMPLES = 16_000_000
# Ends of a band's scale: wide enough to keep haze and shadow, narrow enough that one bright roof does not darken all.
PERCENTILES = (0.2, 99.8)


def unique_names(paths: Sequence[Path], taken: Sequence[str] = ()) -> list[str]:
    """A name for each scene: its file's, with a number where another scene or one of ``taken`` has it already."""
    found: list[str] = []
    used = {name.casefold() for name in taken}
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in used:
            name, number = f"{path.stem}-{number}", number + 1
        used.add(name.casefold())
        found.append(name)
    return found


def render_scene(scene: Scene, picture: Path, bands: Path) -> None:
    """Write the true-colour picture (uint8 RGB COG) and every band (uint8 COG, 0 = no data, band names and scales in it).

    Args:
        scene: read window by window.
        picture: the file of the picture.
        bands: the file of the bands; reflectance = value * scale + offset, both in the file.

    """
    from geoaudit.bands import Stretch, render_rgb

    pixels, valid = _sample(scene)
    stretch = Stretch.from_scene(pixels[:, None, :], scene.bands, valid=valid[None, :])
    colours = (
        (window, render_rgb(read, scene.bands, stretch).transpose(2, 0, 1)) for window, read, _ in _blocks(scene, 1)
    )
    _write(picture, scene, 1, 3, colours, photometric="RGB")
    low, high = np.percentile(pixels[:, valid].astype(np.float64), PERCENTILES, axis=1)
    # A band without any contrast still needs a range; one DN of a Sentinel-2 product is enough.
    step = np.maximum(high - low, 1e-4) / 254
    factor = max(1, math.ceil(math.sqrt(scene.width * scene.height * len(scene.bands) / MOST_SAMPLES)))
    scaled = ((window, _eight_bits(read, known, low, step, factor)) for window, read, known in _blocks(scene, factor))
    _write(bands, scene, factor, len(scene.bands), scaled, names=scene.bands, scales=step, offsets=low - step, nodata=0)


def _sample(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels (C, n) of some 16 windows spread over the scene, and which of them hold data."""
    from rasterio.windows import Window

    step = max(1, max(scene.width, scene.height) // (4 * _SIDE)) * _SIDE
    parts = [
        scene.read(Window(column, row, min(_SIDE, scene.width - column), min(_SIDE, scene.height - row)))
        for row in range(0, scene.height, step)
        for column in range(0, scene.width, step)
    ]
    return (
        np.concatenate([p.reshape(p.shape[0], -1) for p, _ in parts], axis=1),
        np.concatenate([v.ravel() for _, v in parts]),
    )


def _blocks(scene: Scene, factor: int) -> Iterator[tuple[Window, NDArray[np.float32], NDArray[np.bool_]]]:
    """Windows of the written file with the pixels (C, h, w) and validity of the scene below them."""
    from rasterio.windows import Window

    side = _SIDE * factor
    for row in range(0, scene.height, side):
        for column in range(0, scene.width, side):
            height, width = min(side, scene.height - row), min(side, scene.width - column)
            pixels, valid = scene.read(Window(column, row, width, height))
            place = Window(column // factor, row // factor, math.ceil(width / factor), math.ceil(height / factor))
            yield place, pixels, valid


def _eight_bits(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], low: NDArray[Any], step: NDArray[Any], factor: int
) -> NDArray[np.uint8]:
    if factor > 1:
        pixels, valid = _averaged(pixels, valid, factor)
    steps = (pixels - low[:, None, None].astype(np.float32)) / step[:, None, None].astype(np.float32)
    return np.where(valid, np.clip(np.round(steps), 0, 254) + 1, 0).astype(np.uint8)


def _averaged(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Means of the valid pixels of squares; those at the ends may be smaller."""
    rows, columns = np.arange(0, valid.shape[0], factor), np.arange(0, valid.shape[1], factor)

    def summed(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1))

    count = summed(valid.astype(np.float32))
    return (summed(pixels * valid) / np.maximum(count, 1)).astype(np.float32), count > 0


def _write(
    path: Path,
    scene: Scene,
    factor: int,
    count: int,
    blocks: Iterator[tuple[Window, NDArray[np.uint8]]],
    names: Sequence[str] = (),
    scales: NDArray[Any] | None = None,
    offsets: NDArray[Any] | None = None,
    **options: Any,
) -> None:
    import rasterio
    import rasterio.shutil
    from affine import Affine

    t = scene.transform
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": math.ceil(scene.width / factor), "height": math.ceil(scene.height / factor),
        "count": count, "dtype": "uint8", "crs": scene.crs, "tiled": True, "blockxsize": _SIDE, "blockysize": _SIDE,
        "transform": Affine(t.a * factor, t.b * factor, t.c, t.d * factor, t.e * factor, t.f), **options,
    }  # fmt: skip
    aside = path.with_suffix(".part.tif")
    with rasterio.open(aside, "w", **profile) as target:
        for window, values in blocks:
            target.write(values, window=window)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
        if scales is not None and offsets is not None:
            target.scales, target.offsets = tuple(map(float, scales)), tuple(map(float, offsets))
    predictor = "STANDARD" if names else "NO"
    rasterio.shutil.copy(aside, path, driver="COG", compress="DEFLATE", predictor=predictor)
    aside.unlink()
