"""The K highest-activating images of every unit, from a stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["StreamingTopK"]

_LOW = np.int64(0xFFFFFFFF)


class StreamingTopK:
    """Keeps the K highest values of each unit with their image indices, in memory that does not grow.

    Starts at minus infinity, so that units which are always negative keep their best images; the lower
    image index wins a tie, whatever the order of the updates.

    Args:
        k: how many to keep.
        units: how many units.

    """

    def __init__(self, k: int, units: int) -> None:
        if k < 1 or units < 0:
            raise ValueError(f"k must be at least 1 and units at least 0, got {k}, {units}")
        self.k, self.units = k, units
        # One integer holds value and image, so that a partial sort orders both at once: the value's bits,
        # made monotonic, are the high half and the complement of the index the low half.
        empty = _keys(np.full((k, units), -np.inf, dtype=np.float32), np.full((k, 1), int(_LOW), dtype=np.int64))
        self._best = empty

    def update(self, values: NDArray[np.float32], indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Take in a batch.

        Args:
            values: (B, units) float32.
            indices: B image indices, each seen once over the whole stream, in 0 .. 2**32 - 2.

        Raises:
            ValueError: shapes disagree, an index is out of range, or a value is NaN.

        """
        values = np.asarray(values, dtype=np.float32)
        rows = np.asarray(indices, dtype=np.int64)
        if values.shape != (len(rows), self.units):
            raise ValueError(f"expected ({len(rows)}, {self.units}) values, got {values.shape}")
        if np.isnan(values).any():
            raise ValueError("NaN cannot be ranked")
        if len(rows) and (rows.min() < 0 or rows.max() >= _LOW):
            raise ValueError("image indices must lie in 0 .. 2**32 - 2")
        keys = np.concatenate([self._best, _keys(values, rows[:, None])])
        self._best = np.partition(keys, len(keys) - self.k, axis=0)[len(keys) - self.k :]

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices int64 and values float32, each (units, K), highest first; -1 and -inf where too few were seen."""
        keys = np.sort(self._best, axis=0)[::-1].T
        indices = _LOW - (keys & _LOW)
        indices[indices == _LOW] = -1
        ordered = (keys >> 32).astype(np.int32)
        bits = ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))
        return np.ascontiguousarray(indices), np.ascontiguousarray(bits).view(np.float32)


def _keys(values: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    # Adding zero turns -0.0 into 0.0: the two are equal and must tie.
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.int32)
    ordered = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
    keys: NDArray[np.int64] = (ordered << 32) | (_LOW - indices)
    return keys
