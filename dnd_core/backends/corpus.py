"""The captions of a run read once: which phrases each holds, and how much of the image each is said to cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.phrases import Phrase, said_of

__all__ = ["Corpus", "Statement", "inside"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statement:
    """Something true or false of a caption.

    Attributes:
        label: its words.
        worth: what saying it gains, less its price, in nats.
        support: how many of the unit's captions it is true of.
        parts: the phrases in it; the first one and the kind make its family, of which one is proposed.
        kind: "" for a plain phrase, else one of the compounds.

    """

    label: str
    worth: float
    support: int
    parts: tuple[int, ...]
    kind: str = ""


class Corpus:
    """The phrases of every distinct caption, as integers in order of first appearance."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._ids: dict[Phrase, int] = {}
        self._captions: dict[str, tuple[NDArray[np.int64], Floats]] = {}
        self._groups: dict[tuple[str, ...], tuple[NDArray[np.int64], NDArray[np.int64], Floats]] = {}
        self.words: list[Phrase] = []
        self.surfaces: list[str] = []

    def _caption(self, caption: str) -> tuple[NDArray[np.int64], Floats]:
        known = self._captions.get(caption)
        if known is None:
            ids, extents = [], []
            for words, said in said_of(caption, self._longest).items():
                if words not in self._ids:
                    self._ids[words] = len(self.words)
                    self.words.append(words)
                    self.surfaces.append(said.surface)
                ids.append(self._ids[words])
                extents.append(said.extent)
            known = np.asarray(ids, dtype=np.int64), np.asarray(extents, dtype=np.float64)
            self._captions[caption] = known
        return known

    def group(self, captions: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row of the caption, phrase) for every phrase of every caption of a group."""
        known = self._groups.get(captions)
        if known is None:
            found = [self._caption(caption) for caption in captions]
            rows = np.repeat(np.arange(len(found)), [len(ids) for ids, _ in found])
            ids = np.concatenate([np.empty(0, dtype=np.int64), *(ids for ids, _ in found)])
            known = rows, ids, np.concatenate([np.empty(0), *(extents for _, extents in found)])
            self._groups[captions] = known
        return known[:2]

    def extents(self, captions: tuple[str, ...], phrases: Sequence[int]) -> Floats:
        """(captions, phrases) how much of each image its caption says a phrase to cover, 0 where it does not say it."""
        self.group(captions)
        rows, ids, extents = self._groups[captions]
        position = np.full(len(self.words), -1, dtype=np.int64)
        position[np.asarray(phrases, dtype=np.int64)] = np.arange(len(phrases))
        inside = position[ids] >= 0
        answer = np.zeros((len(captions), len(phrases)))
        answer[rows[inside], position[ids[inside]]] = extents[inside]
        return answer

    def held(self, captions: tuple[str, ...], phrases: Sequence[int]) -> NDArray[np.bool_]:
        """(captions, phrases) bool: which captions hold which phrases."""
        rows, ids = self.group(captions)
        position = np.full(len(self.words), -1, dtype=np.int64)
        position[np.asarray(phrases, dtype=np.int64)] = np.arange(len(phrases))
        inside = position[ids] >= 0
        answer = np.zeros((len(captions), len(phrases)), dtype=bool)
        answer[rows[inside], position[ids[inside]]] = True
        return answer


def inside(words: Phrase, longer: Phrase) -> bool:
    """Whether ``words`` stand side by side in ``longer``."""
    return any(longer[k : k + len(words)] == words for k in range(len(longer) - len(words) + 1))
