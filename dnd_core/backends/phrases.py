"""Captions into phrases: noun phrases and short clauses of one to five words.

Made for measured captions ("Mostly bare brown fields with straight edges, some dark green forest, thin haze over
the left half.") as well as for generated ones ("a photo of a red circle on a white background"): a phrase never
crosses a comma, full stop, conjunction or preposition, and a denied thing ("no clouds") stays denied.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dnd_core.presence import amount_of

__all__ = ["Phrase", "Said", "phrases_of", "said_of", "singular"]

#: The words of a phrase in the singular; phrases that differ only in number are one phrase.
Phrase = tuple[str, ...]

_CLAUSE_END = re.compile(r"[,.;:!?()\[\]\"\n|]+|\s-+\s")
# How much of an image a thing covers is not what it is.
_EXTENT = re.compile(
    r"\bover (?:all|most|half|a third|part|some|a little) of (?:the|this) (?:tile|image|scene|picture)\b"
)
_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")

# Denial reaches to the end of its clause ("without clouds or haze").
_DENIALS = frozenset({"no", "not", "without", "neither", "nor", "lacking"})

# Words that join two phrases of one clause. The first group may stay inside a short clause of its own
# ("haze over the left half" says more than "haze" and "left half" do); the second never may.
_LINK_WORDS = "of on over in at by across along near under around between behind beside above below inside against"
_BREAK_WORDS = """
and or but with plus while as than then that which who from into onto to for via featuring containing including showing
covered surrounded made taken having is are was were be been being has have had
"""
_EMPTY_WORDS = """
a an the this these those it its their his her our your my there here some any many much few several various mostly
mainly largely partly partially somewhat slightly very quite rather really almost nearly about only just also more most
less least other another each every all both either one ones such like i we you they he she him them us what where when
how so too out up off do does did can could will would may might seems appears photo photos photograph photographs
image images picture pictures pic shot close-up closeup tile
scene part whole overall little everywhere
"""
# Words that need another to say anything: every picture has texture, contrast and areas.
_ALONE_NOTHING = (
    "texture contrast area areas ground land overall surface surfaces low high straight narrow colour colours"
)
_NEVER_ALONE = frozenset(_ALONE_NOTHING.split())
_LINKS = frozenset(_LINK_WORDS.split())
_BREAKS = frozenset(_BREAK_WORDS.split())
_EMPTY = frozenset(_EMPTY_WORDS.split())


def singular(word: str) -> str:
    """A word without its plural ending; a key for comparison, not always a word of the dictionary."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _spans(words: list[str], denied: bool, longest: int) -> set[tuple[str, ...]]:
    """The words of a noun phrase, and its ends: a run that stops before the noun says nothing ("brown bare" of "brown
    bare fields"). Denied ones keep their "no".
    """
    room = longest - 1 if denied else longest
    lead = ("no",) if denied else ()
    return {
        (*lead, *words[start:end])
        for start in range(len(words))
        for end in (start + 1, len(words))
        if end - start <= room and not (end - start == 1 and words[start] in _NEVER_ALONE and len(words) > 1)
    }


class Said(NamedTuple):
    """How a caption says a phrase.

    Attributes:
        surface: the phrase as written (lower case, without articles).
        extent: how much of the image it is said to cover, (0, 1], see :data:`dnd_core.presence.EXTENTS`.
    """

    surface: str
    extent: float


def phrases_of(caption: str, longest: int = 5) -> dict[Phrase, str]:
    """The phrases a caption holds.

    Args:
        caption: one or more sentences in any case; an empty caption holds no phrase.
        longest: words a phrase may have, at least 1.

    Returns:
        Words in the singular -> the phrase as written (lower case, without articles).

    """
    return {words: said.surface for words, said in said_of(caption, longest).items()}


def said_of(caption: str, longest: int = 5) -> dict[Phrase, Said]:
    """:func:`phrases_of` with the largest extent that each phrase is said to have."""
    found: dict[Phrase, Said] = {}
    for text in _CLAUSE_END.split(caption.lower().replace("\u2019", "'")):
        extent, clause = amount_of(text), _EXTENT.sub(" ", text)
        denied, run, whole = False, list[str](), list[str]()
        spans: set[tuple[str, ...]] = set()
        for word in [*_WORD.findall(clause), "and"]:
            if word in _BREAKS or word in _LINKS or word in _DENIALS:
                spans |= _spans(run, denied, longest)
                run = []
                if word in _DENIALS:
                    denied, whole = True, []
                elif word in _LINKS and whole:
                    whole.append(word)
                else:
                    spans |= _whole(whole, denied, longest)
                    whole = []
                    # "no clouds or haze" denies both, "no clouds and a blue sky" only the clouds.
                    denied = denied and word == "or"
            elif word not in _EMPTY:
                run.append(word)
                whole.append(word)
        for span in sorted(spans):
            words = tuple(singular(word) for word in span)
            surface, before = found.get(words, (" ".join(span), 0.0))
            found[words] = Said(surface, max(before, extent))
    return found


def _whole(words: list[str], denied: bool, longest: int) -> set[tuple[str, ...]]:
    """A short clause with its inner prepositions, as one phrase."""
    while words and words[-1] in _LINKS:
        words = words[:-1]
    lead = ("no",) if denied else ()
    if not words or not any(word in _LINKS for word in words) or len(words) + len(lead) > longest:
        return set()
    return {(*lead, *words)}
