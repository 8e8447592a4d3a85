"""The offline summarizer: contrastive keyphrases, made diverse with KeyBERT's maximal marginal relevance.

A phrase is worth saying when the unit's captions hold it and other images' captions do not. Its worth is what is
learnt about "does a caption hold it?" from hearing that the caption is one of the unit's: the Kullback-Leibler
divergence of its share among the unit's captions from its share elsewhere, and, where the unit's activation on
captioned images at large is known, its correlation with that. Longer statements must earn their length. One measure
serves plain phrases as well as "A and B", "A or B", "A without B" and "no A": each is true or false of a caption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.contrast import Tally, Weighing
from dnd_core.backends.corpus import Corpus, Statement, inside
from dnd_core.backends.following import following
from dnd_core.errors import ConfigError
from dnd_core.protocols import Evidence, TextEncoder
from dnd_core.types import Candidate

__all__ = ["Keyphrases"]

Floats = NDArray[np.float64]

# How many phrases of a unit are paired up and embedded: enough for every noun phrase of a long caption that scores.
_SHORTLIST = 16
_MISSING = 6
_COMPOUNDS = ("and", "or", "without", "no")
# Nats per word, spread over the unit's captions: the price of a statement's length, without which ten captions always
# support some long one by chance (minimum description length).
_COST = 1.2
# A compound that correlates this much better with the activation than either part is worth asking about.
_CLEARLY = 0.03
# How many of the candidates are left to what the unit's first images say.
_OWN_PLACES = 2
# In the MMR space a candidate's worth is a coordinate of its own, this long at most; the rest is its meaning.
_WORTH_LENGTH = 0.6


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
        unknown = sorted(set(compounds) - set(_COMPOUNDS))
        if unknown:
            raise ConfigError(f"Keyphrases: unknown compounds {unknown}; known are {sorted(_COMPOUNDS)}")
        self._encoder = encoder
        self.diversity, self.centrality, self.longest = diversity, centrality, longest
        self.compounds = tuple(name for name in _COMPOUNDS if name in compounds)

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
        options = (4, self.diversity, self.compounds, self.longest, self.centrality, encoder)
        return hashlib.sha256(repr(options).encode()).hexdigest()

    def check(self) -> None:
        """Raise :class:`~dnd_core.errors.BackendUnavailable` when the sentence encoder cannot run."""
        check: Callable[[], None] | None = getattr(self.encoder, "check", None)
        if check is not None:
            check()

    def propose(self, evidence: Sequence[Evidence], n: int) -> list[list[Candidate]]:
        """Up to ``n`` candidates for each evidence, best first.

        Captions count by rank: the first twice as much as the last. What the unit's captions hold no more often than
        the others do is not proposed. Without other captions a phrase's share is set against one half.

        Args:
            evidence: the captions of each unit, or of each meaning of one.
            n: most candidates for each evidence.

        Returns:
            A list an evidence, empty where nothing is worth saying. ``support`` is the number of the unit's captions
            that a label is true of, ``contrast`` its worth in nats, above 0.
        """
        corpus = Corpus(self.longest)
        for item in evidence:
            for captions in (item.captions, item.contrast, item.background):
                corpus.group(captions)
        found, leading = [], []
        for item in evidence:
            follow = following(item, corpus, self.compounds, self.longest)
            said = {statement.label for statement in follow}
            found.append([*follow, *(s for s in self._statements(item, corpus) if s.label not in said)])
            leading.append(len(follow))
        texts = sorted({corpus.surfaces[part] for statements in found for s in statements for part in s.parts})
        if not texts:
            return [[] for _ in evidence]
        rows = self.encoder.encode_texts(texts)
        meaning = {text: row.astype(np.float64) for text, row in zip(texts, rows, strict=True)}
        answers = []
        for statements, item, lead in zip(found, evidence, leading, strict=True):
            meanings = [
                np.mean([meaning[corpus.surfaces[part]] for part in s.parts], axis=0) for s in statements[lead:]
            ]
            chosen = [_candidate(s, item) for s in statements[:lead][: n - min(_OWN_PLACES, len(statements) - lead)]]
            chosen += self._choose(statements[lead:], item, n - len(chosen), meanings) if len(chosen) < n else []
            answers.append(chosen)
        return answers

    def _statements(self, item: Evidence, corpus: Corpus) -> list[Statement]:
        """Everything worth saying about one evidence, most worthy first, at most a shortlist of it."""
        captions, others = item.captions, (*item.contrast, *item.background)
        if not captions:
            return []
        weights = np.linspace(1.0, 0.5, len(captions))
        weighing = Weighing(weights / weights.sum(), len(others), np.asarray(item.activations, dtype=np.float64))
        plain = self._plain(item, weighing, corpus)
        gain = weighing.gain(plain)
        price = _COST / len(captions)
        # What the top captions lack may still fire the unit: a weaker second meaning seldom reaches the first images.
        follows = weighing.r(plain)
        likely = np.argsort(-follows, kind="stable")[:_SHORTLIST]
        words = self._shortest(plain, np.union1d(np.flatnonzero(plain.count), likely[follows[likely] > 0]), corpus)
        worth = gain - price * words

        kept = [i for i in self._order(worth, words, corpus) if worth[i] > 0][:_SHORTLIST]
        phrases = [*kept, *(i for i in self._missing(plain, weighing, corpus) if i not in kept)]
        if not phrases:
            return []
        tally = weighing.pairs(
            corpus.held(captions, phrases), corpus.held(others, phrases), corpus.held(item.background, phrases)
        )
        found = [Statement(corpus.surfaces[i], float(worth[i]), int(plain.count[i]), (i,)) for i in kept]
        found += self._compounds(phrases, len(kept), words, tally, weighing, price, corpus)
        found.sort(key=lambda s: (-round(s.worth, 9), s.label))
        families: dict[tuple[str, int], Statement] = {}
        for statement in found:
            families.setdefault((statement.kind, statement.parts[0]), statement)
        return list(families.values())[:_SHORTLIST]

    @staticmethod
    def _plain(item: Evidence, weighing: Weighing, corpus: Corpus) -> Tally:
        """The numbers of every phrase there is."""
        size = len(corpus.words)
        rows, ids = corpus.group(item.captions)
        _, elsewhere = corpus.group((*item.contrast, *item.background))
        place, sampled = corpus.group(item.background)

        def counted(ids: NDArray[np.int64], weights: Floats | None = None) -> Floats:
            return np.bincount(ids, weights, minlength=size).astype(np.float64)

        nothing = np.zeros(size)
        known = len(weighing.standard) > 0
        return Tally(
            share=counted(ids, weighing.weights[rows]),
            count=counted(ids),
            others=counted(elsewhere),
            sampled=counted(sampled) if known else nothing,
            fired=counted(sampled, weighing.standard[place]) if known else nothing,
        )

    @staticmethod
    def _order(worth: Floats, words: Floats, corpus: Corpus) -> list[int]:
        rounded = np.round(worth, 9).tolist()
        found = np.flatnonzero(words > 0).tolist()
        return sorted(found, key=lambda i: (-rounded[i], -len(corpus.words[i]), corpus.surfaces[i]))

    @staticmethod
    def _shortest(plain: Tally, present: NDArray[np.int64], corpus: Corpus) -> Floats:
        """How many words it takes to say a phrase; 0 where a longer phrase says it better.

        Where "vertical" and "vertical stripes" are in exactly the same captions, the longer one is what is meant and
        the shorter one is what it costs.
        """
        words = np.zeros(len(corpus.words))
        same: dict[tuple[float, ...], list[int]] = {}
        for i in present.tolist():
            same.setdefault(
                (round(float(plain.share[i]), 9), float(plain.others[i]), float(plain.fired[i])), []
            ).append(i)
        for group in same.values():
            group.sort(key=lambda i: (-len(corpus.words[i]), corpus.surfaces[i]))
            leaders: list[int] = []
            for i in group:
                whole = next((k for k in leaders if inside(corpus.words[i], corpus.words[k])), None)
                if whole is None:
                    leaders.append(i)
                    words[i] = len(corpus.words[i])
                else:
                    words[whole] = min(words[whole], len(corpus.words[i]))
        return words

    def _missing(self, plain: Tally, weighing: Weighing, corpus: Corpus) -> list[int]:
        """Phrases common elsewhere and rare among the unit's captions, most surprising first."""
        if not {"no", "without"} & set(self.compounds):
            return []
        gain = np.asarray(weighing.gain(weighing.everything - plain))
        rare = np.flatnonzero((gain > 0) & (plain.share <= 0.25) & (plain.others >= 2))
        kept: list[int] = []
        for i in sorted(
            rare.tolist(), key=lambda i: (-round(float(gain[i]), 9), -len(corpus.words[i]), corpus.surfaces[i])
        ):
            # "no bright background" where "no bright" would say the same.
            fragment = any(inside(corpus.words[i], corpus.words[k]) and gain[k] >= gain[i] - 1e-9 for k in kept)
            if corpus.words[i][0] != "no" and not fragment:
                kept.append(i)
            if len(kept) == _MISSING:
                break
        return kept

    def _compounds(
        self,
        phrases: list[int],
        positive: int,
        words: Floats,
        tally: Tally,
        weighing: Weighing,
        price: float,
        corpus: Corpus,
    ) -> list[Statement]:
        """Statements made of two phrases, or of one denied, that are worth more than their parts."""
        length = np.array([words[i] or len(corpus.words[i]) for i in phrases])
        single = tally.map(np.diagonal)
        first, second = single.map(lambda part: part[:, None]), single.map(lambda part: part[None, :])
        lengths = length[:, None] + length[None, :] + 1
        alone = weighing.gain(single) - price * length
        denied = weighing.gain(weighing.everything - single) - price * (length + 1)
        alone_r = weighing.r(single)
        either = first + second - tally
        kinds = {
            "and": (tally, np.maximum(alone[:, None], alone[None, :]), "{} and {}"),
            "or": (either, np.maximum(alone[:, None], alone[None, :]), "{} or {}"),
            "without": (first - tally, np.maximum(alone[:, None], denied[None, :]), "{} without {}"),
        }
        found: list[Statement] = []
        for kind in (kind for kind in kinds if kind in self.compounds):
            numbers, floor, pattern = kinds[kind]
            worth = weighing.gain(numbers) - price * lengths
            # A second meaning seldom reaches the first images, and a rare pair of things is rare elsewhere too: what
            # follows the activation clearly better than its parts is proposed even if the first images do not ask for it.
            follows = weighing.r(numbers) - np.maximum(alone_r[:, None], alone_r[None, :])
            better = (worth > np.maximum(floor, 0.0) + 1e-9) | ((worth > 0) & (follows > _CLEARLY))
            for a, b in np.argwhere(better).tolist():
                ordered = b >= positive if kind == "without" else a < b < positive
                mine, other = set(corpus.words[phrases[a]]), set(corpus.words[phrases[b]])
                if a >= positive or not ordered or mine <= other or other <= mine:
                    continue
                said = [corpus.surfaces[phrases[a]], corpus.surfaces[phrases[b]]]
                # "red and blue" is "blue and red": one of them is said, for every unit alike.
                label = pattern.format(*(said if kind == "without" else sorted(said)))
                found.append(
                    Statement(
                        label, float(worth[a, b]), round(float(numbers.count[a, b])), (phrases[a], phrases[b]), kind
                    )
                )
        if "no" in self.compounds:
            for b in range(positive, len(phrases)):
                if denied[b] > 0:
                    label, support = f"no {corpus.surfaces[phrases[b]]}", len(weighing.weights) - single.count[b]
                    found.append(Statement(label, float(denied[b]), round(float(support)), (phrases[b],), "no"))
        return [statement for statement in found if len(statement.label.split()) <= self.longest]

    def _choose(
        self, statements: list[Statement], item: Evidence, n: int, meanings: list[NDArray[np.float64]]
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
        place = {label: number for number, label in enumerate(labels)}
        picked = sorted((place[label] for label, _ in chosen), key=lambda i: (-relevance[i], i))
        # The halves of "red or blue" are offered too, so that a unit of two meanings can be given two labels.
        best = statements[picked[0]]
        halves = [i for i, s in enumerate(statements) if best.kind == "or" and not s.kind and s.parts[0] in best.parts]
        picked = list(dict.fromkeys([picked[0], *halves, *picked[1:]]))[:n]
        return [_candidate(statements[i], item) for i in picked]


def _candidate(statement: Statement, item: Evidence) -> Candidate:
    return Candidate(statement.label, statement.support, round(statement.worth, 6), item.meaning)
