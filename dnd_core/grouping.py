"""Concept groups: units whose labels mean the same (paper section 5, land cover).

Labels are clustered by the cosine of their embeddings (average linkage). How close is close enough is not a matter of
taste: it follows from how similar pairs of unrelated labels are, and is reported with the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError

__all__ = ["Grouping", "group_labels", "null_threshold"]

Floats = NDArray[np.float64]

FALSE_PAIRS = 0.05
"""How many of all pairs of unrelated labels may be expected to reach the threshold."""

FEW = 8
"""With fewer distinct labels there are too few unrelated pairs to learn a threshold from."""

DEFAULT_THRESHOLD = 0.6
"""Cosine used then: paraphrases of short phrases lie above it in common sentence encoders."""


@dataclass(frozen=True)
class Grouping:
    """Labels in groups of one meaning.

    Attributes:
        groups: for each label, its group's number, or -1 where no other label means the same.
        names: for each group, its medoid label; groups are numbered from the largest.
        threshold: cosine from which labels were joined, in [-1, 1].
        threshold_source: where the threshold comes from, in words.
    """

    groups: tuple[int, ...]
    names: tuple[str, ...]
    threshold: float
    threshold_source: str

    @property
    def ungrouped(self) -> tuple[int, ...]:
        """Positions of the labels in no group."""
        return tuple(number for number, group in enumerate(self.groups) if group < 0)

    def members(self, group: int) -> tuple[int, ...]:
        """Positions of a group's labels."""
        return tuple(number for number, its in enumerate(self.groups) if its == group)


def group_labels(
    labels: Sequence[str],
    embeddings: NDArray[np.floating],
    *,
    null: NDArray[np.floating] | None = None,
    threshold: float | None = None,
) -> Grouping:
    """Group labels that mean the same.

    Labels equal but for case and spaces always share a group. A group has at least two members.

    Args:
        labels: N labels, repeats allowed.
        embeddings: (N, D) their embeddings; lengths do not matter.
        null: (M, D) embeddings of texts that have nothing to do with each other, to set the threshold by; by default
            the labels themselves, most pairs of which are unrelated.
        threshold: a cosine to use instead.

    Raises:
        ConfigError: shapes disagree, an embedding is zero or not finite, or the threshold is outside [-1, 1].
    """
    vectors = _unit_rows(embeddings)
    if len(vectors) != len(labels):
        raise ConfigError(f"{len(labels)} labels come with {len(vectors)} embeddings: give one row a label")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ConfigError(f"a grouping threshold is a cosine between -1 and 1, got {threshold}")
    plain = [" ".join(label.casefold().split()) for label in labels]
    distinct = sorted(set(plain))
    place = {label: number for number, label in enumerate(distinct)}
    kind = np.array([place[label] for label in plain], dtype=np.int64)
    if not distinct:
        return Grouping((), (), DEFAULT_THRESHOLD if threshold is None else threshold, "no labels")
    centres = np.zeros((len(distinct), vectors.shape[1]))
    np.add.at(centres, kind, vectors)
    centres = _unit_rows(centres)
    if threshold is not None:
        source = "given"
    else:
        threshold, source = null_threshold(centres if null is None else _unit_rows(null), own=null is None)
    cluster = _average_linkage(centres, threshold)[kind]

    numbers, counts = np.unique(cluster, return_counts=True)
    first = {int(number): int(np.flatnonzero(cluster == number)[0]) for number in numbers}
    real = [int(n) for n, count in zip(numbers, counts, strict=True) if count > 1]
    real.sort(key=lambda number: (-int((cluster == number).sum()), first[number]))
    renumbered = {number: place for place, number in enumerate(real)}
    groups = tuple(renumbered.get(int(number), -1) for number in cluster)
    names = tuple(_medoid(labels, vectors, np.flatnonzero(cluster == number)) for number in real)
    return Grouping(groups, names, float(threshold), source)


def null_threshold(vectors: NDArray[np.floating], *, own: bool = True) -> tuple[float, str]:
    """The cosine that :data:`FALSE_PAIRS` of all unrelated pairs would be expected to reach, and where it comes from.

    The spread is taken below the median only: related pairs raise the upper tail but not the lower one.

    Args:
        vectors: (M, D) rows of length one.
        own: whether they are the labels themselves.
    """
    from scipy.stats import norm

    if len(vectors) < FEW:
        return DEFAULT_THRESHOLD, f"default, since {len(vectors)} distinct labels are too few to learn it from"
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    middle, low = np.quantile(pairs, [0.5, norm.cdf(-1)])
    spread = float(middle - low)
    cosine = float(middle + norm.isf(FALSE_PAIRS / len(pairs)) * spread)
    whose = "the labels" if own else "unrelated texts"
    return min(
        cosine, 0.99
    ), f"{FALSE_PAIRS} of {len(pairs)} pairs of {whose} expected above (median {middle:.2f}, spread {spread:.2f})"


def _average_linkage(centres: Floats, threshold: float) -> NDArray[np.int64]:
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(centres) == 1:
        return np.zeros(1, dtype=np.int64)
    distances = np.clip(1 - (centres @ centres.T)[np.triu_indices(len(centres), 1)], 0, 2)
    return np.asarray(fcluster(linkage(distances, "average"), t=1 - threshold, criterion="distance"), dtype=np.int64)


def _medoid(labels: Sequence[str], vectors: Floats, members: NDArray[np.int64]) -> str:
    """The member most similar to all others; the commonest of equal ones, then the first in the alphabet."""
    total = (vectors[members] @ vectors[members].T).sum(axis=1).round(9)
    texts = [labels[int(member)] for member in members]
    return min(zip(-total, (-texts.count(text) for text in texts), texts, strict=True))[2]


def _unit_rows(values: NDArray[np.floating]) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2:
        raise ConfigError(f"embeddings must be (N, D), got shape {rows.shape}")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ConfigError("an embedding is zero or not finite: check the text encoder")
    return np.asarray(rows / lengths)
