"""Statements that follow a unit's activation over images at large, the best of every kind.

The first images alone cannot tell what a unit's amount goes with, nor a second meaning that they do not show. Extents count
as in :mod:`dnd_core.presence`: the smaller of two for "and", the larger for "or", what is left to 1 for a denied one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.corpus import Corpus, Statement, inside
from dnd_core.backends.phrases import Phrase
from dnd_core.protocols import Evidence

__all__ = ["following"]

Floats = NDArray[np.float64]

# Fewer captions than this follow nothing; how many phrases are paired, those that follow best and those that follow least;
# and what a word must add to a correlation to be worth proposing.
_ENOUGH = 3
_BEST, _LEAST = 16, 6
_WORD = 0.01
# Correlation with what the first phrase leaves from which a second one is proposed beside it.
_LEFT = 0.15


def following(item: Evidence, corpus: Corpus, compounds: Sequence[str], longest: int) -> list[Statement]:
    """Of plain phrases and of each compound, the statement that follows the unit most, best first.

    Args:
        item: the evidence of a unit; nothing is found for one meaning of several, whose images are not the unit's all,
            or where the activations on the background are not given.
        corpus: knows its captions.
        compounds: which of "and", "or", "without" and "no" are wanted; one is kept if it follows better than every plain
            phrase by a hundredth for each word it has more.
        longest: words a label may have.

    Returns:
        At most six; their worth is the correlation with the activation, in (0, 1].
    """
    a = np.asarray(item.activations, dtype=np.float64)
    if item.meaning or len(a) < _ENOUGH or a.std() < 1e-9:
        return []
    _, ids = corpus.group(item.background)
    counts = np.bincount(ids, minlength=len(corpus.words))
    known = np.flatnonzero((counts >= _ENOUGH) & (counts <= len(a) - _ENOUGH))
    table = corpus.extents(item.background, known.tolist())
    whole = _wholes(table, [corpus.words[i] for i in known])
    known, table = known[whole], table[:, whole]
    surface = [corpus.surfaces[i] for i in known]
    words = np.array([len(text.split()) for text in surface], dtype=np.float64)
    r = _correlation(a, table)
    order = sorted(range(len(known)), key=lambda k: (-round(float(r[k]), 9), surface[k]))
    best = [k for k in order if r[k] > 0][:_BEST]
    # "no clouds" said by a caption is a phrase of its own and is not denied once more.
    least = [k for k in reversed(order) if r[k] < 0 and corpus.words[known[k]][0] != "no"][:_LEAST]
    if not best and not least:
        return []
    found: list[tuple[float, Statement]] = []

    def keep(kind: str, first: int, second: int | None, value: float, label: str) -> None:
        parts = tuple(int(known[k]) for k in (first, second) if k is not None)
        support = int(_true(kind, parts, corpus, item.captions).sum())
        found.append((value - _WORD * len(label.split()), Statement(label, value, support, parts, kind)))

    if best:
        k = _first(np.where(words[best] <= longest, r[best] - _WORD * words[best], -1.0))
        if words[best[k]] <= longest:
            keep("", best[k], None, float(r[best[k]]), surface[best[k]])
    if "no" in compounds and least:
        k = _first(-r[least] - _WORD * (words[least] + 1))
        if words[least[k]] < longest:
            keep("no", least[k], None, -float(r[least[k]]), f"no {surface[least[k]]}")
    x, y = table[:, best], table[:, least]
    joined = {
        "and": (np.minimum(x[:, :, None], x[:, None, :]), best),
        "or": (np.maximum(x[:, :, None], x[:, None, :]), best),
        "without": (np.minimum(x[:, :, None], 1 - y[:, None, :]), least),
    }
    for kind, (both, others) in joined.items():
        if kind not in compounds or not both.size:
            continue
        values = _correlation(a, both.reshape(len(a), -1)).reshape(both.shape[1:])
        length = words[best][:, None] + words[others][None, :] + 1
        allowed = (length <= longest) & ~_overlapping(
            [corpus.words[known[k]] for k in best], [corpus.words[known[k]] for k in others]
        )
        if kind != "without":
            allowed &= np.triu(np.ones_like(allowed), 1)
        if not allowed.any():
            continue
        i, j = divmod(_first(np.where(allowed, values - _WORD * length, -2.0).ravel()), len(others))
        said = [surface[best[i]], surface[others[j]]]
        label = f" {kind} ".join(said if kind == "without" else sorted(said))
        keep(kind, best[i], others[j], float(values[i, j]), label)
    plain = next((worth for worth, statement in found if not statement.kind), 0.0)
    kept = [pair for pair in found if pair[1].worth > 0 and (not pair[1].kind or pair[0] > plain)]
    kept.sort(key=lambda pair: (-round(pair[0], 9), pair[1].label))
    answer = [statement for _, statement in kept]
    # A unit of two meanings may be given two labels: the second is what follows best what the first plain phrase leaves.
    if best and any(not statement.kind for statement in answer):
        k = next(number for number in best if (int(known[number]),) == next(s.parts for s in answer if not s.kind))
        left = _left(a, table[:, k])
        rest = _correlation(left, table)
        j = _first(np.where((r > 0) & (words <= longest), rest, -1.0))
        if j != k and rest[j] > _LEFT:
            parts = (int(known[j]),)
            support = int(_true("", parts, corpus, item.captions).sum())
            answer.insert(1, Statement(surface[j], float(r[j]), support, parts))
    return answer


def _left(activations: Floats, column: Floats) -> Floats:
    """What a linear fit on a column leaves of the activations."""
    c = column - column.mean()
    a = activations - activations.mean()
    return np.asarray(a - c * float(a @ c) / max(float(c @ c), 1e-12))


def _first(worth: Floats) -> int:
    """The highest, and of those that differ by rounding the first."""
    return int(np.argmax(np.round(worth, 9)))


def _correlation(activations: Floats, columns: Floats) -> Floats:
    """Pearson correlation of (B,) with each of (B, P); 0 for constant columns."""
    a = activations - activations.mean()
    c = columns - columns.mean(axis=0)
    length = np.sqrt((c**2).sum(axis=0)) * np.sqrt((a**2).sum())
    return np.asarray(np.divide(a @ c, length, out=np.zeros(columns.shape[1]), where=length > 1e-9))


def _wholes(table: Floats, words: list[Phrase]) -> list[int]:
    """Columns without those of fragments ("open") that are said wherever, and only where, a longer phrase is."""
    same: dict[bytes, list[int]] = {}
    for k, column in enumerate(np.ascontiguousarray(table.T)):
        same.setdefault(column.tobytes(), []).append(k)
    return sorted(
        k
        for group in same.values()
        for k in group
        if not any(len(words[j]) > len(words[k]) and inside(words[k], words[j]) for j in group)
    )


def _overlapping(first: list[Phrase], second: list[Phrase]) -> NDArray[np.bool_]:
    """(first, second) true where one phrase's words are all in the other."""
    sets = [set(words) for words in first], [set(words) for words in second]
    return np.array([[a <= b or b <= a for b in sets[1]] for a in sets[0]], dtype=bool).reshape(len(first), len(second))


def _true(kind: str, parts: tuple[int, ...], corpus: Corpus, captions: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which captions a statement is true of."""
    held = corpus.held(captions, parts)
    if kind == "or":
        return np.asarray(held.any(axis=1))
    if kind == "no":
        return np.asarray(~held[:, 0])
    return np.asarray(held[:, 0] & ~held[:, 1] if kind == "without" else held.all(axis=1))
