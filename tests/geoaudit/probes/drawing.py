"""Small rasters drawn for the probe tests; every pixel's value is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_raster(
    path: Path,
    values: NDArray[np.generic],
    *,
    bands: tuple[str, ...] | None = None,
    crs: str | None = "EPSG:32633",
    origin: tuple[float, float] = (300000.0, 5800000.0),
    pixel: float = 10.0,
    scale: float | None = None,
    nodata: float | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write (C, H, W) values as a GeoTIFF whose upper left corner is ``origin``."""
    import warnings

    import rasterio
    from rasterio.transform import from_origin

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=count,
            dtype=values.dtype,
            crs=crs,
            transform=from_origin(*origin, pixel, pixel) if crs else None,
            nodata=nodata,
        ) as file:
            file.write(values)
            if bands is not None:
                file.descriptions = bands
            if scale is not None:
                file.scales = (scale,) * count
            if tags:
                file.update_tags(**tags)
    return path


def ramp(count: int, height: int, width: int, start: int = 1000, step: int = 100) -> NDArray[np.uint16]:
    """Band ``b`` holds ``start + step * b`` everywhere, so a band can be told by its value."""
    values = start + step * np.arange(count, dtype=np.uint16)
    return np.broadcast_to(values[:, None, None], (count, height, width)).astype(np.uint16)
