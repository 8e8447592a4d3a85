"""What a label says of a satellite tile, so that it can be judged against what a unit is known to compute.

A label is read into a :class:`~dnd_core.testing.concepts.Concept` over :data:`ATTRIBUTES`: AND, OR and NOT of things that
analytic units compute. A label must say neither less nor more than the truth: "haze" is not "haze and water", and a word
that no attribute knows spoils the label. NDVI is high on everything green and NDBI on everything dry (bare soil, dry grass,
roofs), so the words of each are all of these. Adjectives of colour and shade before a noun are let pass ("grey open water").
The words were fixed before anything was evaluated; random and shuffled labels are read by the same rules.
"""

from __future__ import annotations

import re

from dnd_core.presence import concept_parts
from dnd_core.testing.concepts import Concept

__all__ = ["ATTRIBUTES", "WORDS", "read"]

WORDS: dict[str, str] = {
    "vegetation": "green|vegetation|greenery|plants|trees?|forests?|woods?|woodland|canopy|grass|grassland|meadows?|crops?"
    "|pasture|lawns?",
    "water": "water|lakes?|rivers?|sea|ocean|pond",
    "dry ground": "(?:dry|bare) ?(?:grass|grassland|ground|land|soil|farm fields|fields?|farm)?|soil|fields?|farm|farmland"
    "|built up|buildings?|houses?|settlement|urban|roofs?|town",
    "bright": "bright|white|brightness",
    "dark": "dark|black|shadows?|darkness",
    "rough": "rough|roughness|coarse|rugged",
    "smooth": "smooth|smoothness|uniform|flat",
    "haze": "haze|hazy|veil|mist|fog|smoke",
    "vertical stripes": "vertical (?:stripes?|striping|lines)|^vertical$",
    "horizontal stripes": "horizontal (?:stripes?|striping|lines)|^horizontal$",
    "stripes": "stripes?|striping|striped",
    "border": "(?:tile )?border|frame",
    "nodata": "nodata(?: wedge| gaps?)?|missing data|wedge",
}
"""Attribute -> the words that name it, tried in the order of :data:`_ORDER`."""

ATTRIBUTES = tuple(WORDS)
"""What analytic units compute."""

_ORDER = (
    "vertical stripes", "horizontal stripes", "stripes", "border", "nodata", "haze", "water", "dry ground",
    "vegetation", "rough", "smooth", "bright", "dark",
)  # fmt: skip
_PATTERNS = {name: re.compile(rf"\b(?:{WORDS[name]})\b") for name in _ORDER}
# Words that may stand beside a noun without changing what is said to be there.
_SHADES = frozenset((
    "pale", "light", "dark", "bright", "deep", "dull", "grey", "gray", "brown", "green", "blue", "black", "white",
    "tan", "red", "reddish", "bluish", "yellow", "yellowish", "olive", "beige",
))  # fmt: skip
_NEUTRAL = frozenset((
    "a", "an", "the", "of", "in", "on", "over", "at", "some", "any", "all", "part", "most", "half", "tile", "image",
    "with", "overall", "texture", "thin", "thick", "dense", "dry", "open", "wet", "ground", "area", "areas", "land",
    "region", "and", "or", "many", "few", "large", "small", "straight",
))  # fmt: skip
_NOUNS = frozenset(_ORDER) - {"rough", "smooth", "bright", "dark"}


def _attribute(content: str) -> str:
    """The attribute that a plain phrase names, or the phrase itself where a word of it is foreign."""
    text = " ".join(re.findall(r"[a-z]+", content.lower().replace("-", " ")))
    for name in _ORDER:
        rest, found = _PATTERNS[name].subn(" ", text)
        if not found:
            continue
        over = set(rest.split()) - _NEUTRAL
        if name in _NOUNS:
            over -= _SHADES
        return name if not over else text
    return text


def read(label: str) -> Concept:
    """What a label says.

    Args:
        label: words in any case, with "and", "or", "without", "no".

    Returns:
        The concept in its shortest form; phrases that name no attribute stay as literals of their own.
    """
    alternatives = {
        frozenset((_attribute(part.content), not part.denied) for part in parts)
        for parts in (concept_parts(label) if label.strip() else ())
    }
    # Stripes of either direction are stripes.
    both = {frozenset({("vertical stripes", True)}), frozenset({("horizontal stripes", True)})}
    if both <= alternatives:
        alternatives = (alternatives - both) | {frozenset({("stripes", True)})}
    return Concept(frozenset(alternatives)).simple()
