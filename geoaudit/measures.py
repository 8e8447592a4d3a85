"""Everything the satellite captioner measures on a batch of tiles, as one frozen value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.colours import COLOURS, lab_pixels, name_pixels
from dnd_core.backends.textures import Texture, blobs, texture
from geoaudit.cover import COVERS, classify, clear, green_and_dry, known_pixels, luminance
from geoaudit.flaws import Flaws, find_flaws, without_stripes

__all__ = ["SatelliteMeasures", "measures"]

Array = NDArray[np.float32]

# Luminance as it is seen and its standard deviation in 3 x 3 pixels: reflectance, and display values of photographs.
_BRIGHT, _DARK = {False: 0.11, True: 0.63}, {False: 0.055, True: 0.22}
_ROUGH, _SMOOTH = {False: 0.01, True: 0.05}, {False: 0.0015, True: 0.015}


@dataclass(frozen=True, eq=False)
class SatelliteMeasures:
    """Measures of N tiles.

    Attributes:
        cover: (N, len(COVERS)) share of each cover.
        colour: (N, len(COVERS)) commonest colour name of each cover, index into COLOURS.
        patches: (N,) separate parts of the commonest cover, int64.
        haze: (N,) excess of the haze measure, in reflectance (:class:`geoaudit.cover.Ground`).
        hazy: (N,) share of the tile under haze.
        offset: (N,) constant on every band, in reflectance; 0 where there is no telling.
        texture: of CIELAB lightness of the rendering.
        straight: (N,) share of strong edges that run along one direction or across it, 0 to 1.
        edges: (N,) share of pixels on a strong edge.
        line: (N,) length of the longest narrow line over the tile's side.
        line_dark: (N,) bool, that line is darker than both its sides.
        line_direction: (N,) degrees in [0, 180), 0 horizontal.
        points: (N,) pixels much brighter than all around them, per thousand.
        green, dry: (N,) share of the known pixels that are green or dry, whatever covers them.
        bright, dark: (N,) share of the pixels with data, those of stripes, frames and marks too, that are bright or dark.
        rough, smooth: (N,) share of them that differ much, or hardly, from the pixels around them.
        flaws: flaws of the imagery.
        level: ``toa``, ``surface`` or ``photograph``.

    """

    cover: Array
    colour: NDArray[np.int64]
    patches: NDArray[np.int64]
    haze: Array
    hazy: Array
    offset: Array
    texture: Texture
    straight: Array
    edges: Array
    line: Array
    line_dark: NDArray[np.bool_]
    line_direction: Array
    points: Array
    green: Array
    dry: Array
    bright: Array
    dark: Array
    rough: Array
    smooth: Array
    flaws: Flaws
    level: str

    def __len__(self) -> int:
        return len(self.cover)


def measures(
    pixels: Array,
    channels: Sequence[str],
    rgb: NDArray[np.uint8] | None = None,
    valid: NDArray[np.bool_] | None = None,
    level: str = "auto",
) -> SatelliteMeasures:
    """Measure tiles.

    Args:
        pixels: (N, C, H, W) float32 reflectance, or photographs in [0, 1].
        channels: C band names; red, green and blue must be among them.
        rgb: (N, H, W, 3) uint8 rendering for brightness and texture; None makes one from cleared reflectance, as
            colour names always do, so that haze does not change what a field is called.
        valid: (N, H, W), false without data; pixels that are 0 in every band count as missing too.
        level: ``auto``, ``toa``, ``surface`` or ``photograph``, see :func:`geoaudit.cover.level_of`.

    Raises:
        ProbeError: channels or shapes do not fit.
        ConfigError: unknown level.

    """
    known = known_pixels(pixels, channels, valid)
    flaws = find_flaws(np.nan_to_num(pixels), channels, known)
    # What is wrong with the imagery is said by itself; the ground is measured beside and beneath it.
    ground = clear(without_stripes(pixels, flaws), channels, flaws.intact, level)
    covers = classify(ground)
    colours = np.stack([ground.bands["R"], ground.bands["G"], ground.bands["B"]], axis=-1)
    cleared = (np.clip(colours / 0.22, 0, 1) ** 0.8 * 255 + 0.5).astype(np.uint8)
    names = name_pixels(cleared)
    lab = lab_pixels(cleared if rgb is None else rgb)
    light = lab[..., 0]
    middle = (light * ground.valid).sum(axis=(1, 2)) / np.maximum(ground.valid.sum(axis=(1, 2)), 1)
    light = np.where(ground.valid, light, middle[:, None, None]).astype(np.float32)
    count = len(pixels)
    cover, colour = _cover_colours(covers, names)
    main = covers == cover.argmax(axis=1)[:, None, None]
    straight, edges = _edges(light)
    line, dark, direction = _lines(light)
    # Not from a rendering, whose stretch is the scene's: the same ground is as bright and as rough in every scene.
    seen = luminance(pixels, channels, known, ground.level)
    spread, photograph = _spread(seen), ground.level == "photograph"
    green, dry = green_and_dry(ground, covers)

    def share(mask: NDArray[np.bool_], of: NDArray[np.bool_] = ground.valid) -> Array:
        """Of these pixels of each tile."""
        count = of.sum(axis=(1, 2))
        return np.asarray((mask & of).sum(axis=(1, 2)) / np.maximum(count, 1), dtype=np.float32)

    return SatelliteMeasures(
        cover=cover,
        colour=colour,
        patches=blobs(main).count,
        haze=ground.haze,
        hazy=(ground.hazy.sum(axis=(1, 2)) / np.maximum(ground.valid.sum(axis=(1, 2)), 1)).astype(np.float32),
        offset=ground.offset,
        texture=texture(light),
        straight=straight,
        edges=edges,
        line=line,
        line_dark=dark,
        line_direction=direction,
        points=_points(ground.raw["G"]) if count else np.zeros(0, dtype=np.float32),
        green=share(green),
        dry=share(dry),
        bright=share(seen > _BRIGHT[photograph], known),
        dark=share(seen < _DARK[photograph], known),
        rough=share(spread > _ROUGH[photograph], known),
        smooth=share(spread < _SMOOTH[photograph], known),
        flaws=flaws,
        level=ground.level,
    )


def _cover_colours(covers: NDArray[np.uint8], names: NDArray[np.uint8]) -> tuple[Array, NDArray[np.int64]]:
    count, kinds, hues = len(covers), len(COVERS), len(COLOURS)
    joint = (np.arange(count)[:, None] * kinds + covers.reshape(count, -1)) * hues + names.reshape(count, -1)
    table = np.bincount(joint.ravel(), minlength=count * kinds * hues).reshape(count, kinds, hues)
    share = table.sum(axis=2) / covers[0].size if count else table.sum(axis=2)
    return share.astype(np.float32), table.argmax(axis=2).astype(np.int64)


def _edges(light: Array) -> tuple[Array, Array]:
    """How straight the strong edges run, and how many there are."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(light, sigma=(0, 0.8, 0.8), mode="nearest")
    gx = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    gy = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    size = np.hypot(gx, gy)
    strong = np.where(size > 6, size, 0)
    bins = 18
    # Parcels meet at right angles, so directions are taken modulo 90 degrees.
    angle = np.degrees(np.arctan2(gy, gx)) % 90
    count = len(light)
    at = np.arange(count)[:, None] * bins + (angle / 90 * bins).astype(np.int64).reshape(count, -1) % bins
    table = np.bincount(at.ravel(), weights=strong.ravel(), minlength=count * bins).reshape(count, bins)
    three = table + np.roll(table, 1, axis=1) + np.roll(table, -1, axis=1)
    straight = three.max(axis=1, initial=0) / np.maximum(table.sum(axis=1), 1e-6)
    return straight.astype(np.float32), (size > 6).mean(axis=(1, 2)).astype(np.float32)


def _lines(light: Array) -> tuple[Array, NDArray[np.bool_], Array]:
    """The longest thin line: pixels brighter (or darker) than what lies two pixels off on both sides of them."""
    from scipy.ndimage import maximum_filter

    far = np.pad(light, ((0, 0), (2, 2), (2, 2)), mode="edge")
    height, width = light.shape[1:]
    best = [np.full_like(light, -np.inf), np.full_like(light, -np.inf)]
    for dy, dx in ((0, 2), (2, 0), (2, 2), (2, -2)):
        one = far[:, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
        other = far[:, 2 - dy : 2 - dy + height, 2 - dx : 2 - dx + width]
        best[0] = np.maximum(best[0], light - np.maximum(one, other))
        best[1] = np.maximum(best[1], np.minimum(one, other) - light)
    # Widened by one pixel, so that a diagonal's corners touch.
    found = [blobs(maximum_filter(each > 5, size=(1, 2, 2))) for each in best]
    side = min(height, width)
    # A line's pixels spread along its long axis: four standard deviations of a bar are 1.15 of its length.
    lengths = [
        np.where(part.elongation > 4, np.sqrt(part.share * height * width * part.elongation), 0) / side
        for part in found
    ]
    dark = lengths[1] > lengths[0]
    direction = np.where(dark, found[1].direction, found[0].direction)
    return np.maximum(*lengths).astype(np.float32), np.asarray(dark), direction.astype(np.float32)


def _spread(light: Array) -> Array:
    """Standard deviation in 3 x 3 pixels."""
    from scipy.ndimage import uniform_filter

    mean, square = (uniform_filter(each, size=(0, 3, 3), mode="nearest") for each in (light, light * light))
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)), dtype=np.float32)


def _points(band: Array) -> Array:
    """Pixels brighter than 5 x 5 around them by 0.025 and a sixth, and than all eight neighbours, per thousand."""
    from scipy.ndimage import maximum_filter, uniform_filter

    around = uniform_filter(band, size=(0, 5, 5), mode="nearest")
    peak = (band > around + 0.025) & (band > around * (7 / 6))
    peak &= band >= maximum_filter(band, size=(1, 3, 3), mode="nearest")
    return np.asarray(1000 * peak.mean(axis=(1, 2)), dtype=np.float32)
