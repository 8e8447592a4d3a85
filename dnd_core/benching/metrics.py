"""How well labels fit units, with intervals: the measures of method section 3, primary ones apart from the others.

Primary measures compare a unit's activations with the presence of its label's concept on held-out images; they fall
when half of a concept's positives are lost and when as many false ones are added (:mod:`dnd_core.benching.sanity` runs
both tests). Secondary measures look only at images that show the concept, so lost positives do not trouble them.

A unit without a label says nothing: its presence is 0 everywhere, which makes r, F1 and IoU 0 and AUPRC the chance level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import ConfigError
from dnd_core.scoring import auprc, pearson

__all__ = [
    "PRIMARY",
    "SECONDARY",
    "Estimate",
    "LabelScores",
    "estimate",
    "f1_iou",
    "primary",
    "score_labels",
    "secondary",
]

Floats = NDArray[np.float64]

PRIMARY = ("r", "auprc", "f1", "iou")
"""Simulation r, AUPRC, F1 and IoU at the top share: these survive the sanity tests."""

SECONDARY = ("cosy_auc", "cosy_mad", "activation_rate")
"""CoSy AUC, CoSy MAD and activation rate: reported with the warning that they do not."""

SAID = 0.5
"""Presence from which a concept counts as said to be there, for F1 and IoU."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over units with its 95 % bootstrap interval.

    Attributes:
        value: the mean; NaN where no unit counts.
        low, high: the interval.
        n: units that count.
    """

    value: float
    low: float
    high: float
    n: int


def f1_iou(
    activations: ArrayLike, presence: ArrayLike, top_share: float = 0.05, said: float = SAID
) -> tuple[Floats, Floats]:
    """F1 and IoU of the images a concept is said to be on against the top share by activation.

    Images that tie at the threshold share what is left of the top share evenly, so the order of images decides nothing.

    Args:
        activations: (N, U).
        presence: (N, U) in [0, 1], one concept a unit.
        top_share: share of images on which a unit counts as firing; at least one image.
        said: presence from which the concept counts as there.

    Returns:
        (U,) each, in [0, 1]; 0 where nothing is said.

    Raises:
        ConfigError: ``top_share`` is not between 0 and 1.
    """
    if not 0 < top_share < 1:
        raise ConfigError(f"top_share must be between 0 and 1, got {top_share}")
    a, c = np.asarray(activations, dtype=np.float64), np.asarray(presence, dtype=np.float64)
    quota = max(1, round(top_share * len(a)))
    threshold = -np.partition(-a, quota - 1, axis=0)[quota - 1]
    above, tied = a > threshold, a == threshold
    fires = above + tied * ((quota - above.sum(axis=0)) / tied.sum(axis=0))
    there = c >= said
    both, said_on = (fires * there).sum(axis=0), there.sum(axis=0)
    return 2 * both / (quota + said_on), both / (quota + said_on - both)


def primary(
    activations: ArrayLike, presence: ArrayLike, top_share: float = 0.05, said: float = SAID
) -> dict[str, Floats]:
    """Every primary measure of every unit.

    Args:
        activations: (N, U) on held-out images.
        presence: (N, U) of each unit's label there, in [0, 1]; 0 all over for a unit without one.
        top_share: as in :func:`f1_iou`; also AUPRC's share of positives.
        said: as in :func:`f1_iou`.

    Returns:
        Name in :data:`PRIMARY` -> (U,).
    """
    f1, iou = f1_iou(activations, presence, top_share, said)
    a, c = np.asarray(activations), np.asarray(presence)
    return {"r": pearson(a, c), "auprc": auprc(a, c, top_share), "f1": f1, "iou": iou}


def secondary(control: ArrayLike, shown: Sequence[ArrayLike], thresholds: ArrayLike) -> dict[str, Floats]:
    """What each single concept image adds to every secondary measure; a unit's measure is the mean of its row.

    Args:
        control: (N, U) activations on images at large.
        shown: U arrays (M_u,) of activations on the images that show each unit's concept; empty without any.
        thresholds: (U,) activation that counts as firing (the 99th percentile over the probe).

    Returns:
        Name in :data:`SECONDARY` -> (U, M), NaN behind a unit's last image. CoSy AUC counts a tie as a loss; CoSy MAD is
        0 where the control does not vary.
    """
    base, bars = np.asarray(control, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    longest = max((len(np.atleast_1d(s)) for s in shown), default=0)
    found = {name: np.full((base.shape[1], longest), np.nan) for name in SECONDARY}
    ordered, centre, spread = np.sort(base, axis=0), base.mean(axis=0), base.std(axis=0)
    for unit, values in enumerate(shown):
        v = np.asarray(values, dtype=np.float64)
        found["cosy_auc"][unit, : len(v)] = np.searchsorted(ordered[:, unit], v, side="left") / len(base)
        found["cosy_mad"][unit, : len(v)] = (v - centre[unit]) / spread[unit] if spread[unit] > 0 else 0.0
        found["activation_rate"][unit, : len(v)] = v > bars[unit]
    return found


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Scores of one set of labels on one set of units.

    Attributes:
        units: name -> (U,) of every measure, NaN for secondary measures of units without concept images.
        draws: name -> (B,) bootstrap means over units; images are drawn again whole blocks at a time, and units too.
        labelled: (U,) bool, units that have a label.
    """

    units: Mapping[str, Floats]
    draws: Mapping[str, Floats]
    labelled: NDArray[np.bool_]

    def __getitem__(self, name: str) -> Estimate:
        return estimate([self], name)

    def only(self, name: str) -> LabelScores:
        """The same with one measure."""
        return LabelScores({name: self.units[name]}, {name: self.draws[name]}, self.labelled)


def score_labels(
    activations: ArrayLike,
    presence: ArrayLike,
    labelled: ArrayLike,
    *,
    shown: Sequence[ArrayLike] = (),
    thresholds: ArrayLike = (),
    blocks: ArrayLike | None = None,
    top_share: float = 0.05,
    said: float = SAID,
    draws: int = 100,
    seed: int = 0,
) -> LabelScores:
    """Score a set of labels on held-out images.

    Args:
        activations: (N, U).
        presence: (N, U) of each unit's label, in [0, 1].
        labelled: (U,) bool; presence of the others is taken as 0.
        shown: as in :func:`secondary`; without them only primary measures are there.
        thresholds: as in :func:`secondary`.
        blocks: (N,) ids of images that belong together, or None.
        top_share: as in :func:`f1_iou`.
        said: as in :func:`f1_iou`.
        draws: bootstrap draws.
        seed: decides them.
    """
    a = np.asarray(activations, dtype=np.float64)
    has = np.asarray(labelled, dtype=bool)
    c = np.where(has, np.asarray(presence, dtype=np.float64), 0.0)
    units = primary(a, c, top_share, said)
    pieces: dict[str, Floats] = {}
    if len(shown):
        pieces = secondary(a, shown, thresholds)
        units |= {name: _row_means(values) for name, values in pieces.items()}
    rng = np.random.default_rng([seed, 21])
    groups = np.arange(len(a)) if blocks is None else np.unique(np.asarray(blocks), return_inverse=True)[1]
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    drawn: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(draws):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        columns = rng.integers(a.shape[1], size=a.shape[1])
        for name, values in primary(a[rows], c[rows], top_share, said).items():
            drawn[name].append(float(values[columns].mean()))
        for name, table in pieces.items():
            pick = rng.integers(table.shape[1], size=table.shape) if table.shape[1] else np.zeros(table.shape, int)
            again = _row_means(np.take_along_axis(table, pick, axis=1))[columns]
            drawn[name].append(_mean(again))
    return LabelScores(units, {name: np.asarray(values) for name, values in drawn.items()}, has)


def estimate(parts: Sequence[LabelScores], name: str) -> Estimate:
    """One measure over several sets of units (networks, seeds), every unit counting once.

    Args:
        parts: scores of the same kind of labels.
        name: in :data:`PRIMARY` or :data:`SECONDARY`.
    """
    counts = [int((~np.isnan(part.units[name])).sum()) for part in parts]
    total = sum(counts)
    if not total:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value = sum(float(np.nansum(part.units[name])) for part in parts) / total
    kept = [(part.draws[name], n / total) for part, n in zip(parts, counts, strict=True) if n]
    joined = np.sum([np.nan_to_num(draw) * weight for draw, weight in kept], axis=0)
    low, high = np.quantile(joined, [0.025, 0.975]) if len(joined) else (value, value)
    return Estimate(value, float(low), float(high), total)


def _row_means(table: Floats) -> Floats:
    counts = (~np.isnan(table)).sum(axis=1)
    return np.where(counts > 0, np.nansum(table, axis=1) / np.maximum(counts, 1), np.nan)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
