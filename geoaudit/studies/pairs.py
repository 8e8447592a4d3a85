"""Labels as pairs "visual concept (land-cover class)", and the groups of units whose pairs mean the same (section 5).

The concept is the unit's verified label. The class is measured: the one whose tiles the unit tells from the others best on
the tiles that explain, kept only where it does so on held-out tiles too, better than with labels shuffled in whole blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.grouping import Grouping, group_labels
from dnd_core.protocols import TextEncoder
from geoaudit.statistics import block_shuffles, q_values

__all__ = ["NO_CLASS", "Told", "class_scores", "group_pairs", "told_classes"]

NO_CLASS = "no class"
SHUFFLES = 500
"""Enough where at least one unit in 25 tells a class; a lonelier one is left without, which errs on the safe side."""
ALPHA = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Told:
    """Which class each unit tells from the others.

    Attributes:
        classes: (units,) class index, -1 where held-out tiles do not bear it out.
        scores: (units,) area under the ROC curve of the unit for that class on held-out tiles, in [0, 1].
        p: (units,) share of block-shuffled labels that reach it.
    """

    classes: Ints
    scores: Floats
    p: Floats


def class_scores(activations: NDArray[np.float32], labels: Ints, classes: int) -> Floats:
    """(classes, units) probability that a tile of the class fires a unit more than a tile of another; 0.5 where unknown."""
    from scipy.stats import rankdata

    ranks = rankdata(activations, axis=0)
    return _areas(ranks, labels, classes)


def _areas(ranks: Floats, labels: Ints, classes: int) -> Floats:
    member = (labels[None, :] == np.arange(classes)[:, None]).astype(np.float64)
    size = member.sum(axis=1)[:, None]
    others = len(labels) - size
    above = member @ ranks - size * (size + 1) / 2
    return np.where((size > 0) & (others > 0), above / np.maximum(size * others, 1), 0.5)


def told_classes(
    activations: NDArray[np.float32],
    labels: Ints,
    explain: Ints,
    held_out: Ints,
    blocks: Ints | None,
    classes: int,
    seed: int = 0,
) -> Told:
    """The class of every unit of a layer, chosen on some tiles and tested on others.

    Args:
        activations: (tiles, units) pooled.
        labels: (tiles,) class index.
        explain: tiles to choose on.
        held_out: tiles to test on.
        blocks: (tiles,) spatial block, or None.
        classes: how many there are.
        seed: of the shuffles.
    """
    from scipy.stats import rankdata

    chosen = class_scores(activations[explain], labels[explain], classes).argmax(axis=0)
    units = np.arange(activations.shape[1])
    ranks, truth = rankdata(activations[held_out], axis=0), labels[held_out]
    scores = _areas(ranks, truth, classes)[chosen, units]
    reached = np.ones(len(units))
    its_blocks = None if blocks is None else blocks[held_out]
    for order in block_shuffles(its_blocks, len(held_out), SHUFFLES, seed):
        reached += _areas(ranks, truth[order], classes)[chosen, units] >= scores
    p = reached / (1 + SHUFFLES)
    kept = (q_values(p) <= ALPHA) & (scores > 0.5)
    return Told(np.where(kept, chosen, -1).astype(np.int64), scores, p)


def group_pairs(pairs: pd.DataFrame, encoder: TextEncoder) -> tuple[pd.DataFrame, Grouping]:
    """Group units by what both parts of their label mean.

    Args:
        pairs: one row a unit with ``concept`` (empty where no label was verified) and ``class``.
        encoder: of texts, rows of any length.

    Returns:
        The table with a column ``group`` (-1: ungrouped), and the grouping with its threshold.
    """
    named = pairs.index[pairs["concept"] != ""]
    concepts, classes = pairs.loc[named, "concept"].tolist(), pairs.loc[named, "class"].tolist()
    labels = [pair(c, k) for c, k in zip(concepts, classes, strict=True)]
    grouped = pairs.assign(group=-1, pair="")
    if not labels:
        return grouped, group_labels([], np.zeros((0, 1)))
    parts = [_unit(np.asarray(encoder.encode_texts(texts), dtype=np.float64)) for texts in (concepts, classes)]
    # Side by side, the cosine of two pairs is the mean of their parts' cosines.
    found = group_labels(labels, np.concatenate(parts, axis=1))
    grouped.loc[named, "group"] = list(found.groups)
    grouped.loc[named, "pair"] = labels
    return grouped, found


def pair(concept: str, name: str) -> str:
    """``bare fields (farm)``; the concept alone where no class is told."""
    return f"{concept} ({name})" if name != NO_CLASS else concept


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
