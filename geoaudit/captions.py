"""Captions of satellite tiles that state what was measured and nothing else (method section 2).

A caption is one English sentence of clauses between commas, most salient first, in a small and steady vocabulary:
"thin haze over all of the tile, pale brown bare farm fields over most of the tile, straight edges, smooth texture".
Words of extent are those that :mod:`dnd_core.presence` knows, so a caption's clauses can be weighed by cover.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnd_core import presence
from dnd_core.backends import colours, measured, textures
from dnd_core.backends.colours import COLOURS
from dnd_core.backends.measured import Phrase, by_size, sentence, source_hash, stack_valid
from dnd_core.backends.textures import direction_word
from dnd_core.errors import ConfigError
from dnd_core.images import ProbeImage
from geoaudit import bands, cover, flaws
from geoaudit import measures as measuring
from geoaudit.cover import COVERS, LEVELS
from geoaudit.measures import SatelliteMeasures, measures

__all__ = ["NOUNS", "SatelliteCaptioner", "extent", "measures", "phrases"]


@dataclass(frozen=True, slots=True)
class _Noun:
    """How a cover is said: alone, when it covers much, with or without its colour, and how much it strikes the eye."""

    words: str
    large: str = ""
    coloured: bool = False
    weight: float = 0.0


NOUNS: dict[str, _Noun] = {
    "cloud": _Noun("white cloud", weight=0.1),
    "snow": _Noun("snow or ice", weight=0.1),
    "water": _Noun("open water", coloured=True, weight=0.1),
    "shadow": _Noun("shadow or wet ground", weight=-0.05),
    "dense vegetation": _Noun("dense green vegetation"),
    "forest": _Noun("trees", large="forest"),
    "green vegetation": _Noun("green grass", large="green grass or crops"),
    "built-up": _Noun("buildings", large="built-up area with houses", weight=0.1),
    "sand": _Noun("sand", weight=0.05),
    "dry grassland": _Noun("dry grass", large="dry grassland or meadow", coloured=True),
    "bare soil": _Noun("bare soil", large="bare farm fields", coloured=True),
    "sparse vegetation": _Noun("sparse plants", weight=-0.1),
}
"""The words of each cover but nodata, which :func:`phrases` says by its shape."""

_EXTENTS = (
    (0.88, "over all of"), (0.63, "over most of"), (0.4, "over half of"), (0.24, "over a third of"), (0.12, "over part of"),
)  # fmt: skip
_LARGE = 0.12
_COARSE_STEP = 0.0155


def extent(share: float) -> str:
    """Words for a share of the tile, at least 0.04."""
    for least, words in _EXTENTS:
        if share >= least:
            return f"{words} the tile"
    return "over a little of the tile"


def phrases(measured_tiles: SatelliteMeasures, index: int, *, resized: bool = False) -> list[Phrase]:
    """Everything worth saying about one tile.

    Args:
        measured_tiles: from :func:`geoaudit.measures.measures`.
        index: which tile.
        resized: the tile is an enlarged crop, so that its blur says nothing.

    """
    missing = float(measured_tiles.flaws.missing[index])
    if missing > 0.995:
        return [Phrase("nodata all over", 1.0)]
    return [
        *_air(measured_tiles, index),
        *_flaws(measured_tiles, index, resized),
        *_covers(measured_tiles, index),
        *_structure(measured_tiles, index),
    ]


def _air(m: SatelliteMeasures, index: int) -> list[Phrase]:
    said = []
    hazy, haze = float(m.hazy[index]), float(m.haze[index])
    # Cloud is hazy by the same measure; where it is said, haze is what lies beyond it.
    hazy = max(0.0, hazy - float(m.cover[index, COVERS.index("cloud")]))
    # With a band lost or a handful of grey levels, blue over red says little about air.
    doubtful = m.flaws.lost_band[index] >= 0 or m.flaws.step[index] > _COARSE_STEP
    if hazy >= 0.12 and (haze >= 0.06 or not doubtful):
        word = "thick haze" if haze >= 0.06 else "haze" if haze >= 0.033 else "thin haze"
        said.append(Phrase(f"{word} {extent(hazy)}", 0.6 + 0.38 * hazy))
    if m.offset[index] > 0.03:
        said.append(Phrase("a brightness offset in every band", 0.97))
    return said


def _flaws(m: SatelliteMeasures, index: int, resized: bool) -> list[Phrase]:
    f, said = m.flaws, []
    down, across = f.stripes_vertical[index] > 0.5, f.stripes_horizontal[index] > 0.5
    if down or across:
        word = "a grid of stripes" if down and across else "vertical stripes" if down else "horizontal stripes"
        said.append(Phrase(f"{word} over all of the tile", 0.96))
    missing, frame = float(f.missing[index]), float(f.frame[index])
    if frame > 0.25:
        said.append(Phrase("a black tile border", 0.9))
    elif missing >= 0.02:
        shape = "a black nodata wedge" if f.missing_straight[index] > 0.93 else "black nodata gaps"
        said.append(Phrase(f"{shape} {extent(missing)}", 0.75 + 0.4 * missing))
    marked = f.mark[index] > 0
    if marked:
        vertical = "top" if f.mark_row[index] < 0.5 else "bottom"
        horizontal = "left" if f.mark_column[index] < 0.5 else "right"
        said.append(Phrase(f"a pale watermark at the {vertical} {horizontal}", 0.92))
    if f.blocks[index] > 1.55 and not marked and m.cover[index, COVERS.index("cloud")] < 0.05 and frame <= 0.25:
        said.append(Phrase("JPEG compression blocks over all of the tile", 0.9))
    if f.step[index] > _COARSE_STEP:
        said.append(Phrase("coarse quantisation over all of the tile", 0.85))
    if f.blur[index] < 0.6 and not resized:
        said.append(Phrase("blurred detail over all of the tile", 0.85))
    if m.level == "toa" and f.red_cast[index] > 1.2 and m.cover[index, COVERS.index("sand")] < 0.2:
        said.append(Phrase("a reddish colour cast over all of the tile", 0.9))
    if f.lost_band[index] >= 0:
        said.append(Phrase("a missing band", 0.88))
    return said


def _covers(m: SatelliteMeasures, index: int) -> list[Phrase]:
    said = []
    present = 1 - float(m.cover[index, COVERS.index("nodata")])
    for place, kind in enumerate(COVERS):
        share = min(float(m.cover[index, place]) / max(present, 1e-6), 1.0)
        # A few rough pixels are borders of anything; only a cluster of them is a settlement.
        if kind == "nodata" or share < (0.12 if kind == "built-up" else 0.04):
            continue
        noun = NOUNS[kind]
        words = noun.large if noun.large and share >= _LARGE else noun.words
        if noun.coloured:
            words = f"{COLOURS[int(m.colour[index, place])]} {words}"
        said.append(Phrase(f"{words} {extent(share)}", 0.3 + noun.weight + 0.55 * share))
    # Words for all that is green and all that is dry, which no single cover is.
    for words, share in (("vegetation", float(m.green[index])), ("dry ground", float(m.dry[index]))):
        if share >= 0.04:
            said.append(Phrase(f"{words} {extent(share)}", 0.3 + 0.5 * share))
    return said


def _structure(m: SatelliteMeasures, index: int) -> list[Phrase]:
    said = []
    texture, straight = m.texture, float(m.straight[index])
    contrast = float(texture.contrast[index])
    striped = m.flaws.stripes_vertical[index] > 0.5 or m.flaws.stripes_horizontal[index] > 0.5
    if straight > 0.42 and m.edges[index] > 0.06 and not striped:
        along = direction_word(float(texture.direction[index])) if texture.coherence[index] > 0.4 else ""
        said.append(Phrase(f"straight {along} edges".replace("  ", " "), 0.25 + 0.5 * straight))
    if m.line[index] >= 0.55 and not striped:
        tone = "dark" if m.line_dark[index] else "bright"
        along = direction_word(float(m.line_direction[index]))
        said.append(Phrase(f"a narrow {tone} {along} line", 0.3 + 0.2 * min(float(m.line[index]), 1.0)))
    if m.points[index] >= 0.9 and not striped:
        said.append(Phrase("many bright points" if m.points[index] > 5 else "a few bright points", 0.45))
    # Nothing strikes the eye less than what is smooth.
    for word, share, least, weight in (("rough", m.rough[index], 0.12, 0.4), ("smooth", m.smooth[index], 0.4, 0.25)):
        if share >= least:
            said.append(Phrase(f"{word} texture {extent(float(share))}", 0.25 + weight * float(share)))
    if m.patches[index] >= 5 and m.cover[index].max() < 0.6:
        said.append(Phrase("a patchwork of small pieces", 0.35))
    if contrast < 3.5:
        said.append(Phrase("low contrast", 0.33))
    elif contrast > 16:
        said.append(Phrase("high contrast", 0.36))
    for word, share in (("bright", float(m.bright[index])), ("dark", float(m.dark[index]))):
        if share >= 0.04:
            said.append(Phrase(f"{word} areas {extent(share)}", 0.3 + 0.5 * share))
    return said


class SatelliteCaptioner:
    """Measured captions of satellite tiles with 3, 4 or 13 bands, or any that hold red, green and blue.

    Needs no weights, never guesses and gives the same words for the same tile, whatever tiles stand beside it.

    Args:
        limit: clauses a caption has at most.
        level: what pixels are: ``toa`` or ``surface`` reflectance, a ``photograph`` in [0, 1], or ``auto``: top of
            atmosphere where there is a cirrus band, photographs where channels are named by colour, else
            surface. Haze is measured against the blue of clear air, so say ``toa`` for top-of-atmosphere
            tiles whose cirrus band was left out.
        batch_size: tiles measured together.

    Raises:
        ConfigError: a number below 1 or an unknown level.

    """

    def __init__(self, limit: int = 7, level: str = "auto", batch_size: int = 64) -> None:
        if limit < 1 or batch_size < 1:
            raise ConfigError(f"limit and batch_size must be at least 1, got {limit} and {batch_size}")
        if level not in LEVELS:
            raise ConfigError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
        self.limit, self.level, self.batch_size = limit, level, batch_size

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with the rules that measure and name, and with the settings."""
        modules = (presence, colours, textures, measured, bands, cover, flaws, measuring)
        source = source_hash(__file__, *(str(module.__file__) for module in modules))
        return f"{self.limit}:{self.level}:{source}"

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One sentence an image, most salient first.

        Raises:
            ProbeError: an image has no red, green or blue channel.

        """
        return by_size(images, self.batch_size, self._say)

    def _say(self, images: list[ProbeImage]) -> list[str]:
        found = measures(
            np.stack([image.pixels for image in images]),
            images[0].channels,
            np.stack([image.rgb for image in images]),
            stack_valid(images),
            self.level,
        )
        return [
            sentence(phrases(found, index, resized="crop" in image.metadata), self.limit)
            for index, image in enumerate(images)
        ]
