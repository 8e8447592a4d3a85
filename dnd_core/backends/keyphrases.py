"""The offline summarizer: contrastive keyphrases, made diverse with KeyBERT's maximal marginal relevance.

A phrase is worth saying when the unit's captions hold it and other images' captions do not. Its worth is what is
learnt about "does a caption hold it?" from hearing that the caption is one of the unit's: the Kullback-Leibler
divergence of its share among the unit's captions from its share elsewhere. One measure serves plain phrases as well
as "A and B", "A or B", "A without B" and "no A", because each is true or false of a caption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.phrases import Phrase, phrases_of
from dnd_core.errors import ConfigError
from dnd_core.protocols import Evidence, TextEncoder
from dnd_core.types import Candidate

__all__ = ["Keyphrases"]

Held = NDArray[np.bool_]
Shares = NDArray[np.float64]

# How many phrases of a unit are paired up and embedded: enough for every noun phrase of a long caption that scores.
_SHORTLIST = 16
# Worth (nats) that a compound must add to its better half, or chance agreement in ten captions would earn one.
_MARGIN = {"and": 0.25, "or": 0.25, "without": 0.45, "no": 0.0}
# In the MMR space a candidate's worth is a coordinate of its own, this long at most; the rest is its meaning.
_WORTH_LENGTH = 0.6


@dataclass(frozen=True)
class _Statement:
    """Something true or false of a caption, with its worth and the share of the unit's captions it is true of."""

    label: str
    worth: float
    support: int
    parts: tuple[int, ...]


class _Corpus:
    """The phrases of every distinct caption, as integers in order of first appearance."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._ids: dict[Phrase, int] = {}
        self._captions: dict[str, NDArray[np.int64]] = {}
        self._groups: dict[tuple[str, ...], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self.words: list[Phrase] = []
        self.surfaces: list[str] = []

    def _caption(self, caption: str) -> NDArray[np.int64]:
        known = self._captions.get(caption)
        if known is None:
            ids = []
            for words, surface in phrases_of(caption, self._longest).items():
                if words not in self._ids:
                    self._ids[words] = len(self.words)
                    self.words.append(words)
                    self.surfaces.append(surface)
                ids.append(self._ids[words])
            known = self._captions[caption] = np.asarray(ids, dtype=np.int64)
        return known

    def group(self, captions: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row of the caption, phrase) for every phrase of every caption of a group."""
        known = self._groups.get(captions)
        if known is None:
            ids = [self._caption(caption) for caption in captions]
            rows = np.repeat(np.arange(len(ids)), [len(row) for row in ids])
            known = self._groups[captions] = (rows, np.concatenate([np.empty(0, dtype=np.int64), *ids]))
        return known

    def held(self, captions: tuple[str, ...], phrases: Sequence[int]) -> Held:
        """(captions, phrases) bool: which captions hold which phrases."""
        rows, ids = self.group(captions)
        position = np.full(len(self.words), -1, dtype=np.int64)
        position[np.asarray(phrases, dtype=np.int64)] = np.arange(len(phrases))
        inside = position[ids] >= 0
        answer = np.zeros((len(captions), len(phrases)), dtype=bool)
        answer[rows[inside], position[ids[inside]]] = True
        return answer


def _worth(share: Shares, elsewhere: Shares) -> Shares:
    """Signed divergence (nats) of Bernoulli shares; negative where a thing is rarer among the unit's captions."""
    # The clip only guards the logarithm: log(0) is multiplied by an exact 0.
    inside, outside = np.clip(share, 1e-12, 1 - 1e-12), elsewhere
    gain = share * np.log(inside / outside) + (1 - share) * np.log((1 - inside) / (1 - outside))
    return np.asarray(np.where(share >= elsewhere, gain, -gain), dtype=np.float64)


class Keyphrases:
    """A :class:`~dnd_core.protocols.Summarizer` that needs no language model (method section 2, contrast).

    Every candidate is a phrase found in the unit's own captions or a compound of two: "A and B" where two phrases meet
    in the unit's captions far more than elsewhere, "A or B" where neither covers them alone, "A without B" and "no A"
    where something common elsewhere is missing. The same captions always give the same candidates; the evidence's
    ``seed`` is not used, because a set of captions is read whole, by rank.

    Args:
        encoder: sentence encoder; the packaged MiniLM when None.
        diversity: KeyBERT's MMR diversity, 0 (worth alone) to 1 (unlike each other alone).
        compounds: which compounds may be proposed, of "and", "or", "without", "no".
        longest: words a label may have, 1 to 5.
        centrality: how much a phrase's closeness in meaning to the unit's other phrases counts, 0 to 1,
            beside its worth.

    Raises:
        ConfigError: an argument is outside its range.

    """

    def __init__(
        self,
        encoder: TextEncoder | None = None,
        *,
        diversity: float = 0.2,
        compounds: Sequence[str] = ("and", "or", "without", "no"),
        longest: int = 5,
        centrality: float = 0.15,
    ) -> None:
        for name, value in (("diversity", diversity), ("centrality", centrality)):
            if not 0 <= value <= 1:
                raise ConfigError(f"Keyphrases: {name} must be between 0 and 1, got {value}")
        if not 1 <= longest <= 5:
            raise ConfigError(f"Keyphrases: longest must be 1 to 5 words, got {longest}")
        unknown = sorted(set(compounds) - set(_MARGIN))
        if unknown:
            raise ConfigError(f"Keyphrases: unknown compounds {unknown}; known are {sorted(_MARGIN)}")
        self._encoder = encoder
        self.diversity, self.centrality, self.longest = diversity, centrality, longest
        self.compounds = tuple(name for name in _MARGIN if name in compounds)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The sentence encoder, loaded at first use."""
        if self._encoder is not None:
            return self._encoder
        from dnd_core.backends.sentences import SentenceEncoder

        return SentenceEncoder()

    @property
    def fingerprint(self) -> str:
        """What decides the candidates: version of the rules, options, encoder."""
        encoder = getattr(self.encoder, "fingerprint", type(self.encoder).__qualname__)
        options = (1, self.diversity, self.compounds, self.longest, self.centrality, encoder)
        return hashlib.sha256(repr(options).encode()).hexdigest()

    def check(self) -> None:
        """Raise :class:`~dnd_core.errors.BackendUnavailable` when the sentence encoder cannot run."""
        check: Callable[[], None] | None = getattr(self.encoder, "check", None)
        if check is not None:
            check()

    def propose(self, evidence: Sequence[Evidence], n: int) -> list[list[Candidate]]:
        """Up to ``n`` candidates for each evidence, best first.

        Captions count by rank: the first twice as much as the last. Phrases that the unit's captions hold no more
        often than the others' are never proposed, so an evidence without contrast gives an empty list.

        """
        corpus = _Corpus(self.longest)
        for item in evidence:
            for captions in (item.captions, item.contrast, item.background):
                corpus.group(captions)
        found = [self._statements(item, corpus) for item in evidence]
        texts = sorted({corpus.surfaces[part] for statements in found for s in statements for part in s.parts})
        if not texts:
            return [[] for _ in evidence]
        rows = self.encoder.encode_texts(texts)
        meaning = {text: row.astype(np.float64) for text, row in zip(texts, rows, strict=True)}
        answers = []
        for statements, item in zip(found, evidence, strict=True):
            meanings = [np.mean([meaning[corpus.surfaces[part]] for part in s.parts], axis=0) for s in statements]
            answers.append(self._choose(statements, item, n, meanings))
        return answers

    def _statements(self, item: Evidence, corpus: _Corpus) -> list[_Statement]:
        """Everything worth saying about one evidence, most worthy first, at most a shortlist of it."""
        captions = tuple(caption for caption in item.captions if caption.strip())
        others = tuple(caption for caption in (*item.contrast, *item.background) if caption.strip())
        if not captions:
            return []
        weights = np.linspace(1.0, 0.5, len(captions))
        weights /= weights.sum()
        rows, ids = corpus.group(captions)
        size = len(corpus.words)
        share: Shares = np.bincount(ids, weights[rows], minlength=size).astype(np.float64)
        counts = np.bincount(corpus.group(others)[1], minlength=size)
        worth = _worth(share, self._elsewhere(counts, len(others)))

        present = np.unique(ids)
        order = sorted(
            present.tolist(), key=lambda i: (-round(float(worth[i]), 9), -len(corpus.words[i]), corpus.surfaces[i])
        )
        kept = self._without_fragments(order, share, worth, corpus)[:_SHORTLIST]
        common = self._missing(share, worth, corpus) if {"no", "without"} & set(self.compounds) else []
        phrases = [*kept, *(i for i in common if i not in kept)]
        inside, outside = corpus.held(captions, phrases), corpus.held(others, phrases)

        statements = [
            _Statement(corpus.surfaces[i], float(worth[i]), int(inside[:, k].sum()), (i,))
            for k, i in enumerate(phrases)
            if worth[i] > 0 and i in kept
        ]
        statements += self._compounds(phrases, len(kept), worth, inside, outside, weights, corpus)
        statements.sort(key=lambda s: (-round(s.worth, 9), s.label))
        return statements[:_SHORTLIST]

    @staticmethod
    def _elsewhere(counts: NDArray[np.integer[Any]], total: int) -> Shares:
        # Half a caption of each answer: what was never seen elsewhere is rare, not impossible.
        return np.asarray((counts + 0.5) / (total + 1.0), dtype=np.float64)

    @staticmethod
    def _without_fragments(order: list[int], share: Shares, worth: Shares, corpus: _Corpus) -> list[int]:
        """Drop phrases that say less than a longer one: "vertical" where "vertical stripes" does as well."""
        kept: list[int] = []
        for i in order[: 4 * _SHORTLIST]:
            if worth[i] <= 0:
                break
            words = corpus.words[i]
            longer = (corpus.words[k] for k in kept if share[k] >= share[i] - 1e-9)
            if any(len(other) > len(words) and _inside(words, other) for other in longer):
                continue
            kept.append(i)
        return kept

    @staticmethod
    def _missing(share: Shares, worth: Shares, corpus: _Corpus) -> list[int]:
        """Phrases common elsewhere and rare among the unit's captions, most surprising first."""
        rare = np.flatnonzero((worth < 0) & (share <= 0.15))
        order = sorted(rare.tolist(), key=lambda i: (worth[i], -len(corpus.words[i]), corpus.surfaces[i]))
        return [i for i in order if corpus.words[i][0] != "no"][:6]

    def _compounds(
        self,
        phrases: list[int],
        positive: int,
        worth: Shares,
        inside: Held,
        outside: Held,
        weights: Shares,
        corpus: _Corpus,
    ) -> list[_Statement]:
        """Statements made of two phrases (or of one denied) that say more than their parts."""
        found: list[_Statement] = []

        def add(kind: str, label: str, parts: tuple[int, ...], mine: Held, theirs: Held, floor: float) -> None:
            if len(label.split()) > self.longest:
                return
            share, rest = np.asarray(weights @ mine), self._elsewhere(np.asarray(theirs.sum()), len(theirs))
            value = float(_worth(share, rest))
            if value > floor + _MARGIN[kind]:
                found.append(_Statement(label, value, int(mine.sum()), parts))

        shares = weights @ inside
        for a in range(positive):
            for b in range(a + 1, positive):
                i, j = phrases[a], phrases[b]
                if set(corpus.words[i]) & set(corpus.words[j]):
                    continue
                first, second = corpus.surfaces[i], corpus.surfaces[j]
                floor = float(max(worth[i], worth[j]))
                if "and" in self.compounds and min(shares[a], shares[b]) >= 0.5:
                    both, theirs = inside[:, a] & inside[:, b], outside[:, a] & outside[:, b]
                    add("and", f"{first} and {second}", (i, j), both, theirs, floor)
                if "or" in self.compounds and min(shares[a], shares[b]) >= 0.15:
                    either, theirs = inside[:, a] | inside[:, b], outside[:, a] | outside[:, b]
                    add("or", f"{first} or {second}", (i, j), either, theirs, floor)
        for b in range(positive, len(phrases)):
            j = phrases[b]
            lacking = corpus.surfaces[j]
            if "no" in self.compounds:
                add("no", f"no {lacking}", (j,), ~inside[:, b], ~outside[:, b], 0.0)
            if "without" not in self.compounds:
                continue
            for a in range(positive):
                i = phrases[a]
                if shares[a] >= 0.5 and not set(corpus.words[i]) & set(corpus.words[j]):
                    mine, theirs = inside[:, a] & ~inside[:, b], outside[:, a] & ~outside[:, b]
                    add("without", f"{corpus.surfaces[i]} without {lacking}", (i, j), mine, theirs, float(worth[i]))
        return found

    def _choose(
        self, statements: list[_Statement], item: Evidence, n: int, meanings: list[NDArray[np.float64]]
    ) -> list[Candidate]:
        """The ``n`` most worthy statements that are not alike, best first."""
        if not statements:
            return []
        from keybert._mmr import mmr

        worth = np.asarray([s.worth for s in statements])
        rows = np.stack(meanings)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        centre = worth @ rows
        central = rows @ (centre / max(float(np.linalg.norm(centre)), 1e-12))
        relevance = (1 - self.centrality) * worth / worth.max() + self.centrality * np.clip(central, 0, 1)
        # KeyBERT ranks words by cosine to a document. With worth as one more coordinate, at right angles to
        # meaning, and a document that points along it, that cosine is the worth itself.
        length = _WORTH_LENGTH * relevance[:, None]
        space = np.hstack([length, np.sqrt(1 - length**2) * rows])
        document = np.zeros((1, space.shape[1]))
        document[0, 0] = 1.0
        labels = [s.label for s in statements]
        chosen = mmr(document, space, labels, top_n=n, diversity=self.diversity)
        by_label = {s.label: s for s in statements}
        picked = sorted((by_label[label] for label, _ in chosen), key=lambda s: -relevance[labels.index(s.label)])
        return [Candidate(s.label, s.support, round(s.worth, 6), item.meaning) for s in picked[:n]]


def _inside(words: Phrase, longer: Phrase) -> bool:
    """Whether ``words`` stand side by side in ``longer``."""
    return any(longer[k : k + len(words)] == words for k in range(len(longer) - len(words) + 1))
