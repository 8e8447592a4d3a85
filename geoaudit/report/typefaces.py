"""What the fonts of the document can show, and texts made fit for them: no empty boxes, and no word wider than a column."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["FAMILIES", "covered", "font_folder", "printable", "shown"]

# In the order in which a character is looked for. A new script is one more file in the folder and one more name here.
FAMILIES = (
    "Noto Sans",
    *(f"Noto Sans {script}" for script in (
        "Arabic", "Armenian", "Bengali", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew", "Kannada", "Khmer", "Lao",
        "Malayalam", "Mongolian", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thaana", "Thai",
    )),
    "Noto Serif Tibetan", "DejaVu Sans", "Droid Sans Fallback",
)  # fmt: skip
_LONG_WORD, _PART, _LONGEST_PART, _BREAK = 22, 12, 40, "\u200b"
_SHOWN = 3
# What reports are written in: for these nothing need be looked up.
_PLAIN = re.compile("[\x20-\x7e\xa0-\xff\u2013\u2014\u2018-\u201d\u2026\u202f\u2212\n]*")
_KEPT = ("file", "anchor", "colour", "light")


def font_folder() -> Path:
    """Where the fonts of this package lie."""
    return Path(str(resources.files(__package__).joinpath("fonts")))


@lru_cache(maxsize=1)
def covered() -> frozenset[int]:
    """Code points that the fonts can show together."""
    from fontTools.ttLib import TTFont

    found: set[int] = set()
    for path in sorted(font_folder().glob("*.ttf")):
        with TTFont(path, lazy=True) as font:
            found |= set(font.getBestCmap())
    return frozenset(found)


def printable(value: Any) -> Any:
    """A nested value whose texts hold only what the fonts can show and may be broken inside long words.

    Characters without a glyph are written as code points, ``[U+1F30D]``: PDF/A forbids the empty box, and a reader learns
    more. The values of keys that name files, anchors and colours stay as they are.
    """
    if isinstance(value, str):
        return _breakable(shown(value))
    if isinstance(value, Mapping):
        return {key: item if key in _KEPT else printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value


def shown(text: str) -> str:
    """A text with characters that no font has written as code points."""
    if _PLAIN.fullmatch(text):
        return text
    parts: list[str] = []
    lost: list[str] = []
    for character in [*text, ""]:
        if character and ord(character) not in covered() and character not in "\n":
            lost.append(f"U+{ord(character):04X}")
            continue
        if lost:
            parts.append(f"[{' '.join(lost[:_SHOWN])}{f' … {len(lost)}' if len(lost) > _SHOWN else ''}]")
            lost = []
        parts.append(character)
    return "".join(parts)


def _breakable(text: str) -> str:
    return " ".join(word if len(word) <= _LONG_WORD else _broken(word) for word in text.split(" "))


def _broken(word: str) -> str:
    """A long word with places to break, never inside a letter with its marks and not inside joined Arabic if avoidable."""
    parts, start = [], 0
    for place in range(1, len(word)):
        if place - start >= _LONGEST_PART or (place - start >= _PART and _may_break(word[place - 1], word[place])):
            parts.append(word[start:place])
            start = place
    return _BREAK.join([*parts, word[start:]])


def _may_break(before: str, after: str) -> bool:
    if before.isascii() and after.isascii():
        return True
    kinds = unicodedata.category(before)[0] + unicodedata.category(after)[0]
    joined = unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"
    # A joiner between two letters (Cf) and a mark on either side (M) hold a cluster together.
    return not joined and "M" not in kinds and unicodedata.category(before) != "Cf" != unicodedata.category(after)
