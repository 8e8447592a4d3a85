"""Drawn images whose content is known: coloured shapes and grey textures on a grey, bright or dark background.

Every image is a 3 x 3 board of cells on a noisy background. A cell may hold a shape of one of eight colours or a patch
of one of six textures; which, where and how large is drawn at random and written into the image's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError
from dnd_core.images import ArrayImages
from dnd_core.testing.concepts import BACKGROUNDS, COLOURS, STRIPES, TEXTURES

__all__ = ["PERIOD", "SHAPES", "draw_probe", "draw_scene", "visible"]

Pixels = NDArray[np.float32]

#: Pixels per cycle of every texture, along rows and columns.
PERIOD = 6
SHAPES = ("disc", "square", "triangle")
BOARD = 3
# Shapes of the same area: otherwise the strongest answers to "red" would all come from squares.
_SIDE = {"disc": 1.0, "square": 0.886, "triangle": 1.2}
NOISE = 0.02
_HIGH, _LOW = 0.93, 0.07
_RGB: Mapping[str, tuple[float, float, float]] = {
    "red": (_HIGH, _LOW, _LOW),
    "green": (_LOW, _HIGH, _LOW),
    "blue": (_LOW, _LOW, _HIGH),
    "yellow": (_HIGH, _HIGH, _LOW),
    "cyan": (_LOW, _HIGH, _HIGH),
    "magenta": (_HIGH, _LOW, _HIGH),
    "white": (_HIGH, _HIGH, _HIGH),
    "black": (_LOW, _LOW, _LOW),
}
_GREY = {"bright background": 0.74, "dark background": 0.24, "": 0.47}


def _texture(name: str, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(height, width) pattern around 0, within about [-1, 1]."""
    rows, columns = np.mgrid[:height, :width] * (2 * np.pi / PERIOD)
    a, b = rng.uniform(0, 2 * np.pi, size=2)
    if name == "vertical stripes":
        return np.asarray(np.sin(columns + a))
    if name == "horizontal stripes":
        return np.asarray(np.sin(rows + a))
    if name == "diagonal stripes":
        return np.asarray(np.sin(columns + (rows if rng.random() < 0.5 else -rows) + a))
    if name == "checkerboard":
        return np.asarray(np.clip(2 * np.sin(columns + a) * np.sin(rows + b), -1, 1))
    if name == "dots":
        bumps = (1 + np.cos(columns + a)) * (1 + np.cos(rows + b)) / 4
        return np.asarray(np.clip(2.6 * bumps - 0.6, -0.6, 1))
    return rng.choice([-1.0, 1.0], size=(height, width))


def _mask(shape: str, side: int) -> NDArray[np.bool_]:
    """(side, side) bool."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    if shape == "disc":
        return np.asarray(np.hypot(rows, columns) <= side / 2)
    if shape == "triangle":
        return np.asarray(np.abs(columns) <= (rows + side / 2) * 0.55)
    return np.ones((side, side), dtype=bool)


def draw_scene(
    rng: np.random.Generator, size: int, present: Iterable[str] = (), absent: Iterable[str] = ()
) -> tuple[Pixels, dict[str, Any]]:
    """Draw one image.

    Args:
        rng: decides everything that is left open.
        size: side in pixels, at least 36.
        present: attributes it must have ("stripes": of any direction).
        absent: attributes it must not have.

    Returns:
        (3, size, size) float32 in [0, 1], and its content: ``attributes`` (names), ``background`` (a name, or "" for
        middle grey) and ``items``: (attribute, shape or "", (left, top, right, bottom)) each.

    Raises:
        ConfigError: the image is too small, or more is wanted than a board holds, or two backgrounds.
    """
    if size < 6 * PERIOD:
        raise ConfigError(f"drawn images need at least {6 * PERIOD} pixels a side, got {size}")
    wanted, barred = list(dict.fromkeys(present)), set(absent)
    if "stripes" in barred:
        barred |= set(STRIPES)
    open_stripes = [name for name in STRIPES if name not in barred]
    if "stripes" in wanted and not set(wanted) & set(STRIPES):
        wanted.append(str(rng.choice(open_stripes)))
    grounds = [name for name in wanted if name in BACKGROUNDS]
    named = [name for name in wanted if name in COLOURS or name in TEXTURES]
    if len(grounds) > 1 or len(named) > BOARD**2 or barred & set(wanted):
        raise ConfigError(f"no image can show {', '.join(wanted)} without {', '.join(sorted(barred)) or 'anything'}")
    free = [name for name in (*BACKGROUNDS, "") if name not in barred]
    # Bright, dark and middle grey backgrounds come 3 : 3 : 4.
    weights = np.array([0.4 if name == "" else 0.3 for name in free])
    ground = grounds[0] if grounds else str(rng.choice(free, p=weights / weights.sum()))

    colours = [name for name in COLOURS if name not in barred and name not in named]
    textures = [name for name in TEXTURES if name not in barred and name not in named]
    named += _some(rng, colours, max(0, int(rng.integers(0, 4)) - sum(name in COLOURS for name in named)))
    named += _some(rng, textures, max(0, int(rng.integers(0, 3)) - sum(name in TEXTURES for name in named)))
    named += _some(rng, named, min(int(rng.integers(0, 3)), BOARD**2 - len(named)))

    image = np.full((3, size, size), _GREY[ground] + rng.uniform(-0.03, 0.03))
    cells = rng.permutation(BOARD**2)
    items = []
    for name, cell in zip(named, cells.tolist(), strict=False):
        items.append(_place(image, name, divmod(cell, BOARD), rng))
    image += rng.normal(0, NOISE, size=image.shape)
    attributes = {name for name, _, _ in items} | ({ground} if ground else set())
    attributes |= {"stripes"} if attributes & set(STRIPES) else set()
    content = {"attributes": tuple(sorted(attributes)), "background": ground, "items": tuple(items)}
    return np.clip(image, 0, 1).astype(np.float32), content


def _some(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    if not names or count < 1:
        return []
    return [str(name) for name in rng.choice(names, size=min(count, len(names)), replace=False)]


def _place(
    image: NDArray[np.float64], name: str, cell: tuple[int, int], rng: np.random.Generator
) -> tuple[str, str, tuple[int, int, int, int]]:
    """Draw one item into a cell of the board and say where it is."""
    pitch = image.shape[1] // BOARD
    if name in COLOURS:
        shape = str(rng.choice(SHAPES))
        side = round(rng.uniform(0.6, 0.8) * pitch * _SIDE[shape])
        top, left = (place * pitch + int(rng.integers(0, pitch - side + 1)) for place in cell)
        mask = _mask(shape, side)
        part = image[:, top : top + side, left : left + side]
        part[:, mask] = np.asarray(_RGB[name])[:, None] + rng.uniform(-0.02, 0.02)
        return name, shape, (left, top, left + side, top + side)
    top, left = cell[0] * pitch, cell[1] * pitch
    pattern = 0.5 + rng.uniform(0.26, 0.32) * _texture(name, pitch, pitch, rng)
    image[:, top : top + pitch, left : left + pitch] = pattern
    return name, "", (left, top, left + pitch, top + pitch)


def draw_probe(n: int = 1500, size: int = 48, seed: int = 0) -> ArrayImages:
    """A probe set of drawn images with known content.

    With 1500 images every pair of attributes that can go together does so in some thirty or more.

    Args:
        n: images.
        size: side in pixels, at least 36.
        seed: decides every image.

    Returns:
        (3, size, size) RGB images in [0, 1]; each one's ``metadata`` is its content, see :func:`draw_scene`.
    """
    drawn = [draw_scene(np.random.default_rng([seed, number]), size) for number in range(n)]
    return ArrayImages(np.stack([pixels for pixels, _ in drawn]), metadata=[content for _, content in drawn])


def visible(content: Mapping[str, Any], size: tuple[int, int]) -> dict[str, float]:
    """What can be seen in an image or in its crop.

    Args:
        content: metadata of a drawn image; ``crop`` in it is the rectangle that was cut out.
        size: (height, width) of the whole image.

    Returns:
        Attribute -> share of the (cropped) image it covers, largest first. An item counts when a third of it is inside
        the crop, or when it covers a third of the crop; a background when at least a fifth of the crop is background.
    """
    left, top, right, bottom = content.get("crop", (0, 0, size[1], size[0]))
    area = (right - left) * (bottom - top)
    shares: dict[str, float] = {}
    covered = 0
    for name, _, (a, b, c, d) in content["items"]:
        inside = max(0, min(c, right) - max(a, left)) * max(0, min(d, bottom) - max(b, top))
        covered += inside
        if inside >= (c - a) * (d - b) / 3 or inside >= area / 3:
            shares[name] = shares.get(name, 0.0) + inside / area
    if content["background"] and area - covered >= area / 5:
        shares[content["background"]] = (area - covered) / area
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
