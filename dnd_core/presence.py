"""How far a caption says that a concept is there: "caption entailment" (method section 2).

A caption is cut into clauses at its commas and conjunctions. Each clause has a content ("thin haze"), an extent
("over most of the tile") and may be denied ("no haze"). A concept may be composite ("haze and bare fields": all
parts must be there; "snow or cloud": one will do; "fields without trees": the denied part must be absent).
The score of a part on a clause is half words in common, half cosine of the sentence embeddings; a caption's score
is that of its best clause, weighed by the clause's extent, so that more cover scores higher. The same number
chooses retrieved images and judges labels on held-out images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dnd_core.protocols import TextEncoder

__all__ = [
    "EXTENTS",
    "CaptionIndex",
    "Clause",
    "amount_of",
    "caption_vectors",
    "clauses",
    "combine",
    "concept_parts",
    "presence",
]

EXTENTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "over all of": (1.0, 1.0),
        "over the whole": (1.0, 1.0),
        "everywhere": (1.0, 1.0),
        "all over": (1.0, 1.0),
        "entirely": (1.0, 1.0),
        "over most of": (0.9, 0.8),
        "mostly": (0.9, 0.8),
        "many": (0.9, 0.9),
        "over half of": (0.75, 0.55),
        "half": (0.75, 0.55),
        "over a third of": (0.68, 0.36),
        "over part of": (0.6, 0.24),
        "some": (0.6, 0.4),
        "partly": (0.6, 0.4),
        "a few": (0.6, 0.6),
        "over a little of": (0.45, 0.12),
        "a little": (0.45, 0.12),
        "hardly any": (0.2, 0.05),
    }
)
"""Words of extent a caption may use; first match counts. First the weight a clause gets from them where the question is
whether a thing is said to be there, then about the share of the image they stand for, where it is how much of it."""

UNSAID_EXTENT = 0.8
"""Weight of a clause that says nothing about extent, and how much it is taken to stand for."""

_COSINE_FLOOR = 0.3
"""Short phrases that have nothing to do with each other still have cosines up to about this in sentence encoders."""

_EXTENT = re.compile(
    r"\b("
    + "|".join(EXTENTS)
    + r")\b(?: (?:the|this|an?)\b)?(?: (?:tile|image|scene|picture|photo|area|view|frame)\b)?"
)
_CLAUSE_END = re.compile(r"[,;:.!?()\n]+")
_CONJUNCTION = re.compile(r"\b(?:and|with|but|plus)\b|[&+]")
_DENIAL = re.compile(r"\b(?:without any|without|not|no|nor|free of|lacking|absence of)\b")
_ALL_OF = re.compile(r"\b(?:and|with|but|plus|over|under|near|beside|along)\b|[&+,;]")
_ONE_OF = re.compile(r"\bor\b")
_WORD = re.compile(r"[a-z0-9]+")
_EMPTY = frozenset(
    _WORD.findall(
        "a an the of in on at to is are its it this that there image picture photo photograph view aerial satellite "
        "tile scene showing shows some any over by from as"
    )
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing a caption says.

    Attributes:
        content: what is said to be there, lower case, without words of extent.
        extent: weight in (0, 1], see :data:`EXTENTS`.
        denied: the caption says that it is absent.
        amount: about the share of the image that is meant, (0, 1]; follows from the words of extent.

    """

    content: str
    extent: float = UNSAID_EXTENT
    denied: bool = False
    amount: float = field(default=UNSAID_EXTENT, compare=False)


def _plain(text: str) -> str:
    """Lower case, and "no data" as one word so that it is not read as a denial of data."""
    return re.sub(r"\bno[- ]data\b", "nodata", text.lower().replace("-", " "))


def amount_of(clause: str) -> float:
    """About the share of the image that a clause's words of extent stand for, :data:`UNSAID_EXTENT` without any."""
    found = _EXTENT.search(clause.lower())
    return EXTENTS[found[1]][1] if found else UNSAID_EXTENT


def _tidy(text: str) -> str:
    return " ".join(text.split())


def clauses(caption: str) -> tuple[Clause, ...]:
    """The clauses of a caption in order, each distinct one once."""
    found: dict[Clause, None] = {}
    for sentence in _CLAUSE_END.split(_plain(caption)):
        extents = [EXTENTS[match[1]] for match in _EXTENT.finditer(sentence)]
        extent, amount = extents[0] if extents else (UNSAID_EXTENT, UNSAID_EXTENT)
        stated, *denied = _DENIAL.split(_EXTENT.sub(" ", sentence))
        pieces = [_tidy(piece) for piece in _CONJUNCTION.split(stated)]
        for piece in dict.fromkeys([_tidy(stated), *pieces]):
            if _WORD.search(piece):
                found[Clause(piece, extent, amount=amount)] = None
        for text in denied:
            for piece in _CONJUNCTION.split(text):
                if _WORD.search(piece):
                    found[Clause(_tidy(piece), extent, denied=True, amount=amount)] = None
    return tuple(found)


def concept_parts(concept: str) -> tuple[tuple[Clause, ...], ...]:
    """Alternatives, each a tuple of parts that must all hold; extents in a concept are left out."""
    alternatives = []
    for alternative in _ONE_OF.split(_plain(concept).replace("(", " ").replace(")", " ")):
        parts: dict[Clause, None] = {}
        stripped = _EXTENT.sub(" ", alternative)
        for piece in _ALL_OF.split(stripped):
            stated, *denied = _DENIAL.split(piece)
            if _WORD.search(stated):
                parts[Clause(_tidy(stated))] = None
            for text in denied:
                if _WORD.search(text):
                    parts[Clause(_tidy(text), denied=True)] = None
        if parts:
            alternatives.append(tuple(parts))
    return tuple(alternatives) or ((Clause(_tidy(_plain(concept))),),)


def combine(
    alternatives: Sequence[Sequence[Clause]],
    row_of: Mapping[str, int],
    shown: NDArray[np.float32],
    denied: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(N,) scores of a concept from those of its parts: the weakest part counts, of the best alternative.

    Args:
        alternatives: from :func:`concept_parts`.
        row_of: row of each part's content in the tables.
        shown: (P, N) how far each part is there.
        denied: (P, N) how far each part is absent.

    """
    each = [
        np.min([(denied if part.denied else shown)[row_of[part.content]] for part in parts], axis=0)
        for parts in alternatives
    ]
    return np.asarray(np.max(each, axis=0), dtype=np.float32)


def _stem(word: str) -> str:
    """A word without its commonest endings, so that haze and hazy, stripes and striping agree."""
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _words(text: str) -> tuple[str, ...]:
    """Stems of the words that carry content, in order; all words where none does."""
    words = _WORD.findall(text)
    kept = [word for word in words if word not in _EMPTY] or words
    return tuple(dict.fromkeys(_stem(word) for word in kept))


class CaptionIndex:
    """Captions made ready to be asked for many concepts: every distinct clause is embedded once.

    Args:
        captions: one text an image; an empty text says nothing and scores 0 everywhere.
        encoder: embeds clauses and concepts into one space.
        amounts: clauses weigh what they cover, so that presence follows how much of a concept there is; otherwise a
            small extent weighs little less than a large one, and presence tells whether it is there.

    """

    def __init__(self, captions: Sequence[str], encoder: TextEncoder, *, amounts: bool = False) -> None:
        self._encoder, self._amounts = encoder, amounts
        parsed = [clauses(caption) for caption in captions]
        self._contents = sorted({clause.content for found in parsed for clause in found})
        position = {content: index for index, content in enumerate(self._contents)}
        self._stated = self._slots([[c for c in found if not c.denied] for found in parsed], position)
        self._denied = self._slots([[c for c in found if c.denied] for found in parsed], position)
        self._vocabulary: dict[str, int] = {}
        for content in self._contents:
            for word in _words(content):
                self._vocabulary.setdefault(word, len(self._vocabulary))
        self._incidence = np.zeros((len(self._vocabulary), len(self._contents)), dtype=np.float32)
        for index, content in enumerate(self._contents):
            self._incidence[[self._vocabulary[word] for word in _words(content)], index] = 1
        self._vectors = self._encoder.encode_texts(self._contents) if self._contents else None
        self._n = len(parsed)

    def _slots(
        self, parsed: list[list[Clause]], position: Mapping[str, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(N, S) clause indices and weights; captions with fewer than S clauses are filled with weight 0."""
        width = max((len(found) for found in parsed), default=0)
        indices = np.zeros((len(parsed), width), dtype=np.int64)
        weights = np.zeros((len(parsed), width), dtype=np.float32)
        for row, found in enumerate(parsed):
            indices[row, : len(found)] = [position[clause.content] for clause in found]
            weights[row, : len(found)] = [clause.amount if self._amounts else clause.extent for clause in found]
        return indices, weights

    def _overlap(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(P, D) share of a part's words that a clause contains, in [0, 1]; the last word, the noun, counts double."""
        wanted = np.zeros((len(texts), len(self._vocabulary)), dtype=np.float32)
        total = np.zeros((len(texts), 1), dtype=np.float32)
        for row, text in enumerate(texts):
            words = _words(text)
            for place, word in enumerate(words):
                weight = 2.0 if place == len(words) - 1 else 1.0
                total[row] += weight
                if word in self._vocabulary:
                    wanted[row, self._vocabulary[word]] = weight
        return np.asarray(wanted @ self._incidence / np.maximum(total, 1), dtype=np.float32)

    def presence(self, concepts: Sequence[str]) -> NDArray[np.float32]:
        """(T, N) float32 in [0, 1]: how far each caption says that each concept is there."""
        result = np.zeros((len(concepts), self._n), dtype=np.float32)
        if self._vectors is None or not concepts:
            return result
        parsed = [concept_parts(concept) for concept in concepts]
        texts = sorted({part.content for alternatives in parsed for parts in alternatives for part in parts})
        row_of = {text: row for row, text in enumerate(texts)}
        overlap = self._overlap(texts)
        cosine = self._encoder.encode_texts(texts) @ self._vectors.T
        meaning = np.clip((cosine - _COSINE_FLOOR) / (1 - _COSINE_FLOOR), 0, 1)
        # "Horizontal stripes" shares its noun with "vertical stripes", and its embedding for that reason alone: once
        # words are shared, the ones that are not weigh heavily on both halves.
        partial = overlap**4
        clause_score = (0.5 * partial + 0.5 * meaning * np.where(overlap > 0, partial, 1)).astype(np.float32)
        shown = np.zeros((len(texts), self._n), dtype=np.float32)
        for slot in range(self._stated[0].shape[1]):
            indices, weights = self._stated[0][:, slot], self._stated[1][:, slot]
            np.maximum(shown, clause_score[:, indices] * weights, out=shown)
        for slot in range(self._denied[0].shape[1]):
            indices, weights = self._denied[0][:, slot], self._denied[1][:, slot]
            shown *= 1 - clause_score[:, indices] * (weights > 0)
        denied = 1 - shown
        for row, alternatives in enumerate(parsed):
            result[row] = combine(alternatives, row_of, shown, denied)
        return result


def presence(concepts: Sequence[str], captions: Sequence[str], encoder: TextEncoder) -> NDArray[np.float32]:
    """How much of each concept each caption says to be there.

    Args:
        concepts: T labels, simple or composite.
        captions: N captions.
        encoder: sentence encoder with rows of length one.

    Returns:
        (T, N) float32 in [0, 1]; 0 where a caption is empty.

    """
    return CaptionIndex(captions, encoder, amounts=True).presence(concepts)


def caption_vectors(captions: Sequence[str], encoder: TextEncoder) -> NDArray[np.float32]:
    """Captions as vectors: the sum of their clauses' embeddings, each weighed by its extent, denied ones against.

    Captions of one probe share most of their clauses, so embedding each distinct clause once is many times cheaper than
    embedding every sentence, and a long caption is not dominated by its wording.

    Args:
        captions: N texts; one without a clause is embedded as it is.
        encoder: sentence encoder with rows of length one.

    Returns:
        (N, D) float32 rows of length one.
    """
    parsed = [clauses(caption) or (Clause(caption),) for caption in captions]
    contents = sorted({clause.content for found in parsed for clause in found})
    if not contents:
        return encoder.encode_texts([])
    place = {content: row for row, content in enumerate(contents)}
    vectors = encoder.encode_texts(contents)
    answer = np.empty((len(parsed), vectors.shape[1]), dtype=np.float32)
    for row, found in enumerate(parsed):
        weights = np.array([-c.extent if c.denied else c.extent for c in found], dtype=np.float32)
        total = weights @ vectors[[place[c.content] for c in found]]
        length = float(np.linalg.norm(total))
        answer[row] = total / length if length > 1e-6 else vectors[place[found[0].content]]
    return answer
