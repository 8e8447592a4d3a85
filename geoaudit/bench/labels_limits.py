"""How well anything said in the captions' phrases can follow hidden units: what no label of the bench can pass by much.

Our labels and DnD's are made of phrases of the measured captions, and presence is read from the same captions. How far a
unit can be followed in that language at all is measured here, free of any rule of ours: by every statement of one or two
phrases, and by a linear model of all phrases at once, which no label could put in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import LabelScores, score_labels
from dnd_core.presence import CaptionIndex
from dnd_core.scoring import pearson_matrix

if TYPE_CHECKING:
    from dnd_core.protocols import TextEncoder

__all__ = ["LIMITS", "best_statements", "limits", "phrase_extents"]

Floats = NDArray[np.float64]

LIMITS: Mapping[str, str] = {
    "statement": "the best statement of one or two phrases, chosen as labels are on the explaining tiles",
    "ridge": "ridge regression on all phrases, fitted on the explaining tiles",
    "hindsight": "the best statement of one or two phrases, chosen on the evaluation tiles themselves",
}
"""Every limit by key, as tables name it. The last is a bound: no label of one or two of the phrases can pass it."""

_OFTEN = 3
_ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def phrase_extents(explaining: Sequence[str], evaluation: Sequence[str], encoder: TextEncoder) -> tuple[Floats, Floats]:
    """How much of every phrase each tile shows, graded as the bench grades labels.

    Args:
        explaining: captions of the tiles labels are chosen on; phrases that three of them say count.
        evaluation: captions of the tiles labels are scored on.
        encoder: compares phrases with captions.

    Returns:
        (explaining, P) and (evaluation, P) in [0, 1].
    """
    from dnd_core.backends.phrases import phrases_of

    said: Counter[str] = Counter()
    surface: dict[tuple[str, ...], str] = {}
    for caption in explaining:
        for words, text in phrases_of(caption).items():
            said[surface.setdefault(words, text)] += 1
    phrases = sorted(text for text, times in said.items() if times >= _OFTEN)
    first, second = (
        CaptionIndex(captions, encoder, amounts=True).presence(phrases).T for captions in (explaining, evaluation)
    )
    return np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)


def best_statements(activations: NDArray[np.floating], extents: Floats, other: Floats) -> Floats:
    """Of all statements of one or two phrases, how much the one that follows each unit best is there on other tiles.

    Statements are a phrase, "no" phrase, and of every two phrases "and" (the smaller extent), "or" (the larger) and "without"
    (the smaller of one and what is left to 1 of the other).

    Args:
        activations: (N, U).
        extents: (N, P) of the phrases on the same tiles.
        other: (M, P) of the phrases on the tiles asked for.

    Returns:
        (M, U) in [0, 1].
    """
    units = np.asarray(activations, dtype=np.float64)
    best = np.full(units.shape[1], -np.inf)
    found = np.zeros((len(other), units.shape[1]))
    for phrase in range(extents.shape[1]):
        told, elsewhere = (_statements(table, phrase) for table in (extents, other))
        r = pearson_matrix(units, told)
        place, value = r.argmax(axis=1), r.max(axis=1)
        # Most statements are met twice; rounding must not decide which of two equal ones is kept.
        better = np.flatnonzero(value > best + 1e-9)
        best[better] = value[better]
        found[:, better] = elsewhere[:, place[better]]
    return found


def _statements(table: Floats, phrase: int) -> Floats:
    """(N, 1 + 3 P): no phrase; and, or, without every phrase; joined with itself it stands alone."""
    one = table[:, [phrase]]
    return np.concatenate([1 - one, np.minimum(one, table), np.maximum(one, table), np.minimum(one, 1 - table)], axis=1)


def limits(
    explaining: NDArray[np.floating],
    evaluated: NDArray[np.floating],
    captions: tuple[Sequence[str], Sequence[str]],
    encoder: TextEncoder,
    *,
    blocks: NDArray[np.int64] | None,
    draws: int,
    seed: int,
) -> dict[str, LabelScores]:
    """Simulation r of every limit.

    Args:
        explaining: (N, U) activations on the explaining tiles.
        evaluated: (M, U) activations on the evaluation's tiles.
        captions: of the explaining tiles and of the evaluation's.
        encoder: compares phrases with captions.
        blocks: (M,) spatial block of each tile of the evaluation.
        draws: bootstrap draws.
        seed: decides them.

    Returns:
        Key of :data:`LIMITS` -> scores that have ``r`` alone.
    """
    from sklearn.linear_model import RidgeCV

    there, elsewhere = phrase_extents(*captions, encoder)
    ridge = RidgeCV(alphas=_ALPHAS, alpha_per_target=True).fit(there, np.asarray(explaining, dtype=np.float64))
    predicted = {
        "statement": best_statements(explaining, there, elsewhere),
        "ridge": np.asarray(ridge.predict(elsewhere), dtype=np.float64),
        "hindsight": best_statements(evaluated, elsewhere, elsewhere),
    }
    everyone = np.ones(evaluated.shape[1], dtype=bool)
    return {
        key: score_labels(evaluated, presence, everyone, blocks=blocks, draws=draws, seed=seed).only("r")
        for key, presence in predicted.items()
    }
