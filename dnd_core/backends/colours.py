"""Names for colours: a fixed table from RGB to plain English, made once through CIELAB.

Every pixel is looked up in a table of 32 levels a colour, so naming costs one indexing a pixel. Names follow hue,
chroma and lightness (CIE 1976 L*a*b*, D65) in the sectors of the basic colour terms (Berlin and Kay 1969).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "colour_shares", "lab_pixels", "name_pixels"]

COLOURS: tuple[str, ...] = (
    "black",
    "dark grey",
    "grey",
    "light grey",
    "white",
    "red",
    "dark red",
    "pink",
    "orange",
    "brown",
    "dark brown",
    "pale brown",
    "yellow",
    "olive green",
    "green",
    "dark green",
    "light green",
    "teal",
    "cyan",
    "blue",
    "dark blue",
    "light blue",
    "purple",
)
"""The colour names, in the order of the columns of :func:`colour_shares`."""

_LEVELS = 32


@functools.cache
def _table() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(32768,) index into COLOURS and (32768, 3) L*a*b* of the middle of each cell of the RGB cube."""
    from skimage.color import rgb2lab

    level = np.arange(_LEVELS) / (_LEVELS - 1)
    cube = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = np.asarray(rgb2lab(cube), dtype=np.float32)
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    names = np.full(len(lab), "", dtype=object)
    rules: list[tuple[NDArray[np.bool_], str]] = [
        (light < 8, "black"),
        # Near black the eye tells no hues apart, so the limit between grey and coloured rises there.
        ((chroma < 9) & (light < 18), "black"),
        ((chroma < 9) & (light < 42), "dark grey"),
        ((chroma < 9) & (light < 68), "grey"),
        ((chroma < 9) & (light < 90), "light grey"),
        (chroma < 9, "white"),
        (((hue >= 345) | (hue < 20)) & (light >= 55), "pink"),
        (((hue >= 345) | (hue < 50)) & (chroma >= 32) & (light < 30), "dark red"),
        (((hue >= 345) | (hue < 50)) & (chroma >= 32) & (light < 66), "red"),
        (((hue >= 345) | (hue < 50)) & (light >= 66) & (chroma >= 18), "pink"),
        ((hue >= 50) & (hue < 84) & (chroma >= 45) & (light >= 52), "orange"),
        ((hue >= 78) & (hue < 112) & (chroma >= 45) & (light >= 68), "yellow"),
        ((hue >= 92) & (hue < 112) & (light < 68) & (chroma >= 12), "olive green"),
        (((hue >= 345) | (hue < 112)) & (light < 27), "dark brown"),
        (((hue >= 345) | (hue < 112)) & (light < 55), "brown"),
        ((hue >= 345) | (hue < 112), "pale brown"),
        ((hue < 165) & (light < 37), "dark green"),
        ((hue < 165) & (light >= 76) & (chroma < 75), "light green"),
        (hue < 165, "green"),
        ((hue < 215) & (light >= 78), "cyan"),
        (hue < 215, "teal"),
        ((hue < 315) & ((light < 22) | ((light < 38) & (chroma < 50))), "dark blue"),
        ((hue < 315) & (light >= 70), "light blue"),
        (hue < 315, "blue"),
        (light >= 62, "pink"),
        (light >= 0, "purple"),
    ]
    for rule, name in rules:
        names[(names == "") & rule] = name
    index = {name: place for place, name in enumerate(COLOURS)}
    return np.array([index[name] for name in names], dtype=np.uint8), lab


def _cells(rgb: NDArray[np.uint8]) -> NDArray[np.intp]:
    cell = ((rgb.astype(np.uint16) * (_LEVELS - 1) + 127) // 255).astype(np.intp)
    return np.asarray((cell[..., 0] * _LEVELS + cell[..., 1]) * _LEVELS + cell[..., 2])


def name_pixels(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Index into :data:`COLOURS` of every pixel of (..., 3) uint8, in the shape of the pixels."""
    return np.asarray(_table()[0][_cells(rgb)])


def lab_pixels(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., 3) float32 L*a*b* of every pixel of (..., 3) uint8, to within the table's step (about 3 of 100)."""
    return np.asarray(_table()[1][_cells(rgb)])


def colour_shares(names: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Share of each image's pixels that bear each colour name.

    Args:
        names: (N, H, W) from :func:`name_pixels`.
        valid: (N, H, W), false where a pixel does not count.

    Returns:
        (N, len(COLOURS)) float32; rows sum to one, or to zero where no pixel counts.

    """
    count = len(names)
    offset = np.arange(count)[:, None] * len(COLOURS)
    flat = names.reshape(count, -1) + offset
    weight = None if valid is None else valid.reshape(-1).astype(np.float64)
    table = np.bincount(flat.ravel(), weights=weight, minlength=count * len(COLOURS)).reshape(count, len(COLOURS))
    return np.asarray(table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12), dtype=np.float32)
