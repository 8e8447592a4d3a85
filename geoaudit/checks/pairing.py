"""Counterfactuals without a painter: pairs of real images that differ in one concept (method section 4, grade 2).

An image that shows the concept is paired with one of the same true class that does not, and that is otherwise said to
show the same: what the captions say beside the concept is compared, and the assignment of least total distance is
taken (optimal matching, Rosenbaum 1989), one image in one pair only. Pairs that stay far apart are given up (a caliper).
Never matched on the network's own features: they pass the concept on to the class, and pairs alike in them would hide
what is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.presence import UNSAID_EXTENT, CaptionIndex, clauses, concept_parts
from dnd_core.protocols import TextEncoder
from geoaudit.checks.base import SAID, AuditContext
from geoaudit.checks.causal import Effect, effect_of

__all__ = ["ENOUGH_PAIRS", "FEWEST_PAIRS", "CaptionSpace", "Pairs", "match", "pair_reliance", "retrieve_pairs"]

# Fewer pairs prove nothing: were all eight turned, chance would do the same in one of 256 cases.
FEWEST_PAIRS = 8
# From so many pairs on, that they do not differ in their answers is evidence too.
ENOUGH_PAIRS = 20
# A pair may be at most this part of the mean distance between images of one class apart.
CALIPER = 0.5
# Solving an assignment grows with the cube of the images; beyond this many of a class a sample is matched.
MOST = 800

_PIECES = re.compile(r"[,;:.!?()\n]+")

Ints = NDArray[np.int64]


class CaptionSpace:
    """Captions taken apart, so that what one says beside a concept can be compared quickly for many concepts.

    Args:
        captions: one text an image; an empty one was never made.
        encoder: sentence encoder with rows of length one.
    """

    def __init__(self, captions: Sequence[str], encoder: TextEncoder) -> None:
        pieces = [[piece.strip() for piece in _PIECES.split(caption) if piece.strip()] for caption in captions]
        self._pieces = sorted({piece for found in pieces for piece in found})
        place = {piece: row for row, piece in enumerate(self._pieces)}
        self._incidence = np.zeros((len(captions), len(self._pieces)), dtype=np.float32)
        for row, found in enumerate(pieces):
            self._incidence[row, [place[piece] for piece in found]] = 1
        self._vectors = self._embed(encoder)
        bare = [" ".join(clause.content for clause in clauses(piece)) for piece in self._pieces]
        self._index = CaptionIndex(bare, encoder)

    def _embed(self, encoder: TextEncoder) -> NDArray[np.float32]:
        """(pieces, D): sum of a piece's clauses, weighed by extent, denied ones against."""
        parsed = [clauses(piece) for piece in self._pieces]
        contents = sorted({clause.content for found in parsed for clause in found})
        if not contents:
            return np.zeros((len(self._pieces), 1), dtype=np.float32)
        place = {content: row for row, content in enumerate(contents)}
        vectors = encoder.encode_texts(contents)
        answer = np.zeros((len(parsed), vectors.shape[1]), dtype=np.float32)
        for row, found in enumerate(parsed):
            for clause in found:
                answer[row] += (-clause.extent if clause.denied else clause.extent) * vectors[place[clause.content]]
        return answer

    def beside(self, concept: str) -> NDArray[np.float32]:
        """(images, D) what each caption says without the pieces that speak of the concept; rows of length one, or 0."""
        parts = sorted({part.content for alternative in concept_parts(concept) for part in alternative})
        about = self._index.presence(parts).max(axis=0) >= SAID * UNSAID_EXTENT if self._pieces else np.zeros(0, bool)
        return self._said(~about)

    def whole(self) -> NDArray[np.float32]:
        """(images, D) all that each caption says; rows of length one, or 0."""
        return self._said(np.ones(len(self._pieces), dtype=bool))

    def _said(self, pieces: NDArray[np.bool_]) -> NDArray[np.float32]:
        rest = self._incidence @ (self._vectors * pieces[:, None])
        length = np.linalg.norm(rest, axis=1, keepdims=True)
        return np.asarray(rest / np.where(length > 1e-6, length, 1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Matched images.

    Attributes:
        shown: (n,) images that show the concept.
        other: (n,) their partners without it, of the same true class.
        unmatched: images with the concept that found no partner near enough.
        alike: mean cosine of what the two captions say beside the concept.
        chance: the same for random images of one class.
    """

    shown: Ints
    other: Ints
    unmatched: int
    alike: float
    chance: float


def retrieve_pairs(context: AuditContext, concept: str, rows: Ints | None = None) -> Pairs | None:
    """Pair every image that shows a concept with one that does not.

    Args:
        context: the audit; its captions say what images show.
        concept: in words.
        rows: only these images; all that have a caption when None.

    Returns:
        None without captions, or where no image shows the concept or every one does.
    """
    said, space = context.shows(concept), context.caption_space
    if said is None or space is None or context.captions is None:
        return None
    known = np.array([bool(caption) for caption in context.captions])
    if rows is not None:
        known &= np.isin(np.arange(len(known)), rows)
    if not (said & known).any() or not (~said & known).any():
        return None
    return match(space.beside(concept), said, context.reference, np.flatnonzero(known), context.seed)


def match(beside: NDArray[np.float32], having: NDArray[np.bool_], kinds: Ints, rows: Ints, seed: int) -> Pairs | None:
    """Pair images that have something with images of their kind that have not, by what captions say of them.

    Args:
        beside: (images, D) what is compared; rows of length one, or 0.
        having: (images,) which have it.
        kinds: (images,) only images of one kind are paired.
        rows: images that may be used.
        seed: of the samples drawn where a kind has very many images.

    Returns:
        None where no kind has images of both sorts.
    """
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng([seed, 17])
    shown, other, near, chance = [], [], [], []
    for kind in np.unique(kinds[rows]):
        mine = rows[kinds[rows] == kind]
        first, second = (_some(mine[part], rng) for part in (having[mine], ~having[mine]))
        if not len(first) or not len(second):
            continue
        likeness = (beside[first] @ beside[second].T).astype(np.float64)
        limit = CALIPER * float((1 - likeness).mean())
        left, right = linear_sum_assignment(1 - likeness)
        kept = 1 - likeness[left, right] <= limit + 1e-9
        shown.append(first[left[kept]])
        other.append(second[right[kept]])
        near.append(likeness[left[kept], right[kept]])
        chance.append(np.full(int(kept.sum()), likeness.mean()))
    if not shown:
        return None
    ours, theirs = np.concatenate(shown).astype(np.int64), np.concatenate(other).astype(np.int64)
    alike, usual = (float(np.concatenate(part).mean()) if len(ours) else float("nan") for part in (near, chance))
    return Pairs(ours, theirs, int(having[rows].sum()) - len(ours), alike, usual)


def _some(rows: Ints, rng: np.random.Generator) -> Ints:
    return rows if len(rows) <= MOST else np.sort(rng.choice(rows, MOST, replace=False))


def pair_reliance(
    context: AuditContext, pairs: Pairs, logits: NDArray[np.float32], target: int, everywhere: bool = False
) -> Effect:
    """How much more often the image with the concept is called class c, over pairs whose true class is another.

    Args:
        context: the audit.
        pairs: from :func:`retrieve_pairs`.
        logits: (images, classes) answers on the whole probe.
        target: class c.
        everywhere: count pairs of class c too: does it need the concept to be recognised? Only for concepts that are part of
            no class, for what belongs to a class is rightly missed there.
    """
    chosen = np.ones(len(pairs.shown), dtype=bool) if everywhere else context.reference[pairs.shown] != target
    called = logits.argmax(axis=1) == target
    shown, other = pairs.shown[chosen], pairs.other[chosen]
    return effect_of(context, shown, called[shown].astype(float), called[other].astype(float))
