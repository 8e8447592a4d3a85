"""What labels talk about: their commonest words, whether they suit satellite images, and which units a word selects.

A label is judged by its words alone, so that the labels of any method can be judged alike: no model decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dnd_core.errors import ConfigError

__all__ = [
    "KINDS",
    "Plausibility",
    "content_words",
    "judge_label",
    "judge_labels",
    "parse_words",
    "select",
    "word_counts",
]

LAND_COVER = frozenset(
    """
    agricultural agriculture airport arable bare bay beach bog buildings building built bush canal city cliff coast
    coastal coastline cornfield crop cropland cropped crops desert dune embankment estuary factory farm farming farmland
    fen field fields forest forested garden glacier grass grassland greenhouse gravel grove harbour heath hedge highway
    houses house ice industrial island lagoon lake lakes lawn marsh meadow moor mountain mud mudflat ocean orchard park
    parcel pasture paved plantation ploughed pond port quarry railway reed reservoir residential rice river road rock
    roof runway sand savanna scrub sea sealake settlement shore shrub snow soil stream street suburb swamp town tree
    trees tundra urban vegetation village vineyard water wetland wood woodland woods yard
    """.split()  # noqa: SIM905
)
"""Words that name what covers land or water."""

APPEARANCE = frozenset(
    """
    aerial angular beige black blocky blotchy blue bluish blur blurred blurry border bright brightness brown cast clear
    cloud clouds cloudy coarse color colorful colour coloured colourful compression contrast cool corner cyan dark dense
    diagonal dim directional dry dull dusty edge edges even fine flat fog foggy geometric grain grainy gradient gray green
    grey grid ground haze hazy high horizontal image imagery irregular large light line linear lines low magenta mixed mist
    moist mosaic multicoloured narrow nodata noise noisy ochre orange oriented overcast pale parallel patch patches patchy
    pattern patterns pink plain point points purple red reddish regular rough satellite saturated scene shade shadow
    shadows sharp shiny smoke smooth soft sparse speckle speckled spot spots spotted straight stripe striped stripes
    striping tan tawny teal texture textured textures thick thin tile tint uneven uniform vague veil vertical violet
    vivid warm washed watermark wavy wedge wet white wide winding yellow yellowish
    """.split()  # noqa: SIM905
)
"""Words for how ground or image looks: colour, texture, shape, wetness, weather and sensor."""

IDLE = frozenset(
    """
    a all almost an and any area areas as at background beside between by few from free half hardly here high in into is it
    its lacking less little long many more most mostly much near no not of on one or over part parts partly several short
    side small some surface that the there this to two under uniformly very view views whole with without
    """.split()  # noqa: SIM905
)
"""Words that name nothing."""

KINDS = ("land cover", "appearance", "out of domain", "refusal", "none")
"""Names some land cover; speaks of the look alone; of something no satellite image shows; declines; no label."""

_REFUSAL = re.compile(
    r"\b(sorry|cannot|can't|can not|unable|as an ai|language model|no clear|not possible|i do not|i don't|"
    r"please provide|not enough information)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Plausibility:
    """Labels by what they speak of.

    Attributes:
        total: how many labels, units without one included.
        counts: kind -> labels, for every one of :data:`KINDS`.
    """

    total: int
    counts: Mapping[str, int]

    def share(self, kind: str) -> float:
        """Share of the given labels (those of kind ``none`` left out); NaN where there is none."""
        given = self.total - self.counts["none"]
        return self.counts[kind] / given if given else float("nan")


def content_words(label: str) -> list[str]:
    """The label's words in lower case, without those that name nothing."""
    return [word for word in _WORD.findall(label.casefold()) if word not in IDLE]


def _known(word: str, words: frozenset[str]) -> bool:
    # English plurals and -y forms; a stemmer would make "bare" of "bared" but also "pin" of "pine".
    forms = {word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("y")}
    return bool(forms & words) or (word.endswith("ies") and f"{word[:-3]}y" in words)


def judge_label(label: str, extra: Iterable[str] = ()) -> str:
    """One of :data:`KINDS`.

    Args:
        label: in words; empty for a unit without.
        extra: further names of land cover, such as the classes of the network.
    """
    if not label.strip():
        return "none"
    if _REFUSAL.search(label):
        return "refusal"
    words = content_words(label)
    cover = LAND_COVER | {word for name in extra for word in content_words(_apart(name))}
    if any(_known(word, cover) for word in words):
        return "land cover"
    return "appearance" if all(_known(word, APPEARANCE) for word in words) else "out of domain"


def _apart(name: str) -> str:
    """``SeaLake`` and ``annual_crop`` as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)


def judge_labels(labels: Sequence[str], extra: Iterable[str] = ()) -> Plausibility:
    """How many labels are of each kind."""
    names = list(extra)
    found = Counter(judge_label(label, names) for label in labels)
    return Plausibility(len(labels), {kind: found[kind] for kind in KINDS})


def word_counts(labels: Sequence[str]) -> list[tuple[str, int]]:
    """(word, labels that say it), commonest first, words of equal count in alphabetical order."""
    found = Counter(word for label in labels for word in set(content_words(label)))
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def parse_words(text: str) -> tuple[tuple[str, ...], ...]:
    """``fish; purple, pink`` as sets of words, each of which selects its own units.

    Raises:
        ConfigError: a set is empty or holds what is no word.
    """
    sets = []
    for part in text.split(";"):
        words = tuple(word.strip().casefold() for word in part.split(",") if word.strip())
        if not words or not all(_WORD.fullmatch(word) for word in words):
            raise ConfigError(
                f"{text!r} is no list of words: put commas between words that mean one thing and semicolons between "
                "things, such as 'fish; purple, pink'"
            )
        sets.append(words)
    return tuple(sets)


def select(labels: Sequence[str], words: Sequence[str]) -> list[int]:
    """Positions of the labels that say one of the words or a longer form of it ("fish" also finds "Fishing Success")."""
    found = re.compile(r"\b(" + "|".join(re.escape(word) for word in words) + ")", re.IGNORECASE)
    return [place for place, label in enumerate(labels) if found.search(label)]
