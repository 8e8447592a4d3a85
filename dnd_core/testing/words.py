"""A text encoder without weights, for tests that must be quick and the same everywhere."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["WordVectors"]


class WordVectors:
    """Texts as the sum of their words, each a random direction that is the same in every process.

    Texts that share words are alike; synonyms are not.

    Args:
        dimensions: of the space.
    """

    def __init__(self, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.fingerprint = f"word-vectors-{dimensions}"
        self._directions: dict[str, NDArray[np.float32]] = {}

    def _direction(self, word: str) -> NDArray[np.float32]:
        if word not in self._directions:
            drawn = np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dimensions)
            self._directions[word] = drawn.astype(np.float32)
        return self._directions[word]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, dimensions) float32 rows of length one; a text without words has a direction of its own."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or ["-"]:
                row += self._direction(word)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
