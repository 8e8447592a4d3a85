"""What can be in a drawn image, and statements about it: attributes, AND, OR, NOT.

A :class:`Concept` is a disjunction of conjunctions of attributes, present or absent. Labels are read into
concepts, so a label is judged by what it says and not by how it says it: "blue and red", "red with some blue" and
"red, blue" are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

__all__ = ["ATTRIBUTES", "BACKGROUNDS", "COLOURS", "STRIPES", "TEXTURES", "Concept", "parse"]

COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta", "white", "black")
STRIPES = ("vertical stripes", "horizontal stripes", "diagonal stripes")
TEXTURES = (*STRIPES, "checkerboard", "dots", "grain")
BACKGROUNDS = ("bright background", "dark background")
#: Everything a unit of the analytic network may look for. "stripes" is there wherever stripes of any direction are.
ATTRIBUTES = (*COLOURS, *TEXTURES, "stripes", *BACKGROUNDS)

Literal = tuple[str, bool]

_IMPLIES = dict.fromkeys(STRIPES, "stripes")
# The longest spelling that fits is read; what is left over after reading is foreign to the label's concept.
_SPELLINGS = {
    **{name: name for name in ATTRIBUTES},
    **{f"{name} {noun}": name for name in COLOURS for noun in ("background",)},
    **{f"{name.split()[0]} striped": name for name in STRIPES},
    "vertically striped": "vertical stripes",
    "horizontally striped": "horizontal stripes",
    "diagonally striped": "diagonal stripes",
    "vertical": "vertical stripes",
    "horizontal": "horizontal stripes",
    "diagonal": "diagonal stripes",
    "stripe": "stripes",
    "striped": "stripes",
    "checkerboards": "checkerboard",
    "dot": "dots",
    "dotted": "dots",
    "grainy": "grain",
    "bright": "bright background",
    "dark": "dark background",
}
_BY_LENGTH = sorted(_SPELLINGS, key=lambda spelling: (-len(spelling.split()), spelling))
# Words that add nothing to what a label says of a drawn image.
_NEUTRAL = frozenset(
    {"a", "an", "the", "some", "any", "of", "on", "in", "over", "with", "and", "shape", "shapes", "patch", "patches"}
    | {"area", "areas", "thing", "things", "image", "images", "picture", "colour", "color", "texture", "pattern"}
)
_DENIALS = re.compile(r"\b(?:but not|and not|and no|with no|without any|without|not|no|nor|lacking|absence of)\b")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Concept:
    """A statement that is true or false of an image.

    Attributes:
        alternatives: any of them may hold; each is a set of (attribute, present) that must all hold. Words that name no
            attribute stay as literals of their own, so a label that says too much is not the same as one that does not.

    """

    alternatives: frozenset[frozenset[Literal]]

    @classmethod
    def of(cls, *names: str, without: Iterable[str] = ()) -> Concept:
        """All of some attributes, and none of others."""
        return cls(frozenset({frozenset({(n, True) for n in names} | {(n, False) for n in without})})).simple()

    @classmethod
    def any_of(cls, concepts: Iterable[Concept]) -> Concept:
        """One of several concepts."""
        return cls(frozenset().union(*(concept.alternatives for concept in concepts))).simple()

    def simple(self) -> Concept:
        """The same statement in its shortest form, in which equal statements are equal values.

        Implied literals go ("stripes" beside "vertical stripes"), contradictions go, and an alternative that is a
        special case of another goes.
        """
        reduced = set()
        for literals in self.alternatives:
            implied = {(_IMPLIES[name], True) for name, present in literals if present and name in _IMPLIES}
            implied |= {(name, False) for name, over in _IMPLIES.items() if (over, False) in literals}
            kept = frozenset(literals - implied)
            known = kept | implied
            if not any((name, not present) in known for name, present in kept):
                reduced.add(kept)
        general = {a for a in reduced if not any(self._entails(a, b) for b in reduced if b != a)}
        return Concept(frozenset(general))

    @staticmethod
    def _entails(special: frozenset[Literal], general: frozenset[Literal]) -> bool:
        implied = {(_IMPLIES[name], True) for name, present in special if present and name in _IMPLIES}
        implied |= {(name, False) for name, over in _IMPLIES.items() if (over, False) in special}
        return general <= special | implied

    def holds(self, attributes: Iterable[str]) -> bool:
        """Whether it is true of an image with these attributes."""
        there = set(attributes)
        there |= {_IMPLIES[name] for name in there if name in _IMPLIES}
        return any(all((name in there) == present for name, present in a) for a in self.alternatives)

    @property
    def foreign(self) -> bool:
        """Whether it speaks of something that is no attribute of drawn images."""
        return any(name not in ATTRIBUTES for literals in self.alternatives for name, _ in literals)

    def __str__(self) -> str:
        parts = []
        for literals in sorted(self.alternatives, key=sorted):
            there = [name for name, present in sorted(literals) if present]
            absent = [name for name, present in sorted(literals) if not present]
            words = " and ".join(there)
            if absent:
                words = f"{words} without {' or '.join(absent)}" if words else f"no {' or '.join(absent)}"
            parts.append(words)
        return " or ".join(parts)


def _names(text: str) -> list[str]:
    """The attributes a text names, and its foreign words; "black and white stripes" names three things."""
    words = _WORD.findall(text)
    found: list[str] = []
    place = 0
    while place < len(words):
        for spelling in _BY_LENGTH:
            length = len(spelling.split())
            if words[place : place + length] == spelling.split():
                found.append(_SPELLINGS[spelling])
                place += length
                break
        else:
            if words[place] not in _NEUTRAL:
                found.append(words[place])
            place += 1
    return found


def parse(label: str) -> Concept:
    """What a label says.

    "or" parts alternatives; "no", "not", "without", ... deny everything after them in their alternative, and an "or"
    after a denial goes on denying ("no dots or grain"). Everything else in an alternative must hold together.

    Args:
        label: words in any case.

    Returns:
        The concept in its shortest form; one without alternatives, true of nothing, for an empty label.
    """
    alternatives: list[frozenset[Literal]] = []
    denied_before: frozenset[Literal] | None = None
    for part in re.split(r"\bor\b", label.lower().replace("-", " ")):
        stated, *denied = _DENIALS.split(part)
        there = [(name, True) for name in _names(stated)]
        absent = [(name, False) for text in denied for name in _names(text)]
        if denied_before is not None and there and not absent:
            alternatives[-1] = denied_before = denied_before | {(name, False) for name, _ in there}
            continue
        literals = frozenset(there + absent)
        if literals:
            alternatives.append(literals)
            denied_before = literals if absent else None
    return Concept(frozenset(alternatives)).simple()


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every pair of names of which neither implies the other, in order."""
    return [(a, b) for a, b in combinations(names, 2) if _IMPLIES.get(a) != b and _IMPLIES.get(b) != a]
