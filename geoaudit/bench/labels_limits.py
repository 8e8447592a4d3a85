"""How well anything said in the captions' phrases can follow hidden units: what no label of the bench can pass by much.

Our labels and DnD's are made of phrases of the measured captions, and presence is read from the same captions. How far a
unit can be followed in that language at all is measured here, free of any rule of ours: by every statement of one or two
phrases, by weighted sums of phrases, and by a linear model of all phrases at once, which no label could put in words. And so
that the captioner does not set the limit by what it leaves unsaid, statements may also speak of hundreds of plain measures:
the share of a tile where a band, an index or the texture of one lies beyond a level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import LabelScores, score_labels
from dnd_core.presence import CaptionIndex
from dnd_core.scoring import pearson_matrix
from geoaudit.bench.labels_shown import SHOWN

if TYPE_CHECKING:
    from dnd_core.protocols import TextEncoder

__all__ = [
    "LIMITS", "best_statements", "firing_statements", "limits", "phrase_extents", "plain_measures", "told", "weighted_sums",
]  # fmt: skip

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

_SUMMED = 3

LIMITS: Mapping[str, str] = {
    "statement": "the best statement of one or two phrases, chosen as labels are on the explaining tiles",
    "measured": "the same, of phrases and of some 400 plain measures of bands and indices",
    "weighted": f"the best weighted sum of {_SUMMED} phrases (orthogonal matching pursuit), fitted on the explaining tiles",
    "ridge": "ridge regression on all phrases, fitted on the explaining tiles",
    "hindsight": "the best statement of one or two phrases, chosen on the evaluation tiles themselves",
}
"""Every limit by key, as tables name it. The last is a bound: no label of one or two of the phrases can pass it."""

_OFTEN = 3
_ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_LEVELS = (5, 20, 35, 50, 65, 80, 95)
_SPREADS = (20, 50, 80)
_INDICES = ("NDVI", "NDWI", "MNDWI", "NDMI", "NBR2", "NDREI", "NDTI")


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
    return told(other, _search(extents, units.shape[1], lambda table: pearson_matrix(units, table)))


def firing_statements(
    activations: NDArray[np.floating], thresholds: NDArray[np.floating], extents: Floats
) -> NDArray[np.int64]:
    """Of the same statements, the ones of which most of the tiles that show them best make each unit fire.

    Args:
        activations: (N, U).
        thresholds: (U,) activation that counts as firing.
        extents: (N, P) of the phrases on the same tiles.

    Returns:
        (U, 2), for :func:`told`. Among equals the statement that follows the unit better is taken.
    """
    units = np.asarray(activations, dtype=np.float64)
    fires = (units > np.asarray(thresholds)).astype(np.float64)

    def rate(table: Floats) -> Floats:
        shown = np.argsort(-table, axis=0, kind="stable")[:SHOWN]
        share = fires[shown].mean(axis=0).T
        return np.asarray(share + 0.5 / len(shown) * pearson_matrix(units, table))

    return _search(extents, units.shape[1], rate)


def told(table: Floats, statements: NDArray[np.int64]) -> Floats:
    """(M, U) how much each unit's statement is there, of phrases whose extents are ``table`` (M, P)."""
    found = np.zeros((len(table), len(statements)))
    for phrase in np.unique(statements[:, 0]):
        own = np.flatnonzero(statements[:, 0] == phrase)
        found[:, own] = _statements(table, int(phrase))[:, statements[own, 1]]
    return found


def _search(extents: Floats, units: int, score: Callable[[Floats], Floats]) -> NDArray[np.int64]:
    """(U, 2): phrase and column of :func:`_statements` with the best score; ``score`` gives (U, J) of (N, J)."""
    best = np.full(units, -np.inf)
    found = np.zeros((units, 2), dtype=np.int64)
    for phrase in range(extents.shape[1]):
        values = score(_statements(extents, phrase))
        place, value = values.argmax(axis=1), values.max(axis=1)
        # Most statements are met twice; rounding must not decide which of two equal ones is kept.
        better = value > best + 1e-9
        best[better] = value[better]
        found[better, 0], found[better, 1] = phrase, place[better]
    return found


def _statements(table: Floats, phrase: int) -> Floats:
    """(N, 1 + 3 P): no phrase; and, or, without every phrase; joined with itself it stands alone."""
    one = table[:, [phrase]]
    return np.concatenate([1 - one, np.minimum(one, table), np.maximum(one, table), np.minimum(one, 1 - table)], axis=1)


def plain_measures(explaining: Pixels, evaluation: Pixels, channels: Sequence[str]) -> tuple[Floats, Floats]:
    """Shares of each tile where a band, an index or its variation in 3 x 3 pixels lies beyond, or within, a level.

    Args:
        explaining: (N, C, H, W) reflectance of the tiles labels are chosen on; their percentiles are the levels.
        evaluation: (M, C, H, W) of the tiles labels are scored on.
        channels: C band names.

    Returns:
        (N, Q) and (M, Q) in [0, 1].
    """
    first: list[Floats] = []
    second: list[Floats] = []
    for here, there in zip(_maps(explaining, channels), _maps(evaluation, channels), strict=True):
        for one, other, places in ((here, there, _LEVELS), (_varied(here), _varied(there), _SPREADS)):
            for level in np.percentile(one, places):
                above = [(each > level).mean(axis=(1, 2)) for each in (one, other)]
                first += [above[0], 1 - above[0]]
                second += [above[1], 1 - above[1]]
    return np.stack(first, axis=1), np.stack(second, axis=1)


def _maps(pixels: Pixels, channels: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """(N, H, W) of every band, then of every index that the bands allow."""
    import spyndex

    from geoaudit.bands import spyndex_indices

    yield from pixels.transpose(1, 0, 2, 3)
    bands = {name: pixels[:, index] for name, index in spyndex_indices(channels).items()}
    for index in _INDICES:
        needs = spyndex.indices[index].bands
        if set(needs) <= set(bands):
            with np.errstate(all="ignore"):
                found = spyndex.computeIndex([index], params={name: bands[name] for name in needs})
            yield np.nan_to_num(np.asarray(found, dtype=np.float32), posinf=0, neginf=0)


def _varied(values: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    mean, square = (uniform_filter(each, size=(0, 3, 3)) for each in (values, values**2))
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def weighted_sums(activations: NDArray[np.floating], extents: Floats, other: Floats) -> Floats:
    """What a weighted sum of a few phrases, fitted to each unit, is on other tiles.

    The linear explanations of Oikarinen and Weng (2024) are such sums; here phrases are found one by one, each the best
    for what those before leave, and weights fitted anew (orthogonal matching pursuit).

    Args:
        activations: (N, U).
        extents: (N, P) of the phrases on the same tiles.
        other: (M, P) of the phrases on the tiles asked for.

    Returns:
        (M, U), of any sign.
    """
    from sklearn.linear_model import OrthogonalMatchingPursuit

    # Phrases said of the very same tiles are one.
    _, kept = np.unique(extents.round(9), axis=1, return_index=True)
    kept = kept[extents[:, kept].std(axis=0) > 0]
    units = np.asarray(activations, dtype=np.float64)
    found = np.zeros((len(other), units.shape[1]))
    for unit in np.flatnonzero(units.std(axis=0) > 0):
        model = OrthogonalMatchingPursuit(n_nonzero_coefs=min(_SUMMED, len(kept)))
        found[:, unit] = model.fit(extents[:, kept], units[:, unit]).predict(other[:, kept])
    return found


def limits(
    explaining: NDArray[np.floating],
    evaluated: NDArray[np.floating],
    captions: tuple[Sequence[str], Sequence[str]],
    encoder: TextEncoder,
    measures: tuple[Floats, Floats],
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
        measures: from :func:`plain_measures`, of the explaining tiles and of the evaluation's.
        blocks: (M,) spatial block of each tile of the evaluation.
        draws: bootstrap draws.
        seed: decides them.

    Returns:
        Key of :data:`LIMITS` -> scores that have ``r`` alone.
    """
    from sklearn.linear_model import RidgeCV

    there, elsewhere = phrase_extents(*captions, encoder)
    ridge = RidgeCV(alphas=_ALPHAS, alpha_per_target=True).fit(there, np.asarray(explaining, dtype=np.float64))
    more, elsewhere_more = (np.concatenate(both, axis=1) for both in zip((there, elsewhere), measures, strict=True))
    predicted = {
        "statement": best_statements(explaining, there, elsewhere),
        "measured": best_statements(explaining, more, elsewhere_more),
        "weighted": weighted_sums(explaining, there, elsewhere),
        "ridge": np.asarray(ridge.predict(elsewhere), dtype=np.float64),
        "hindsight": best_statements(evaluated, elsewhere, elsewhere),
    }
    everyone = np.ones(evaluated.shape[1], dtype=bool)
    return {
        key: score_labels(evaluated, presence, everyone, blocks=blocks, draws=draws, seed=seed).only("r")
        for key, presence in predicted.items()
    }
