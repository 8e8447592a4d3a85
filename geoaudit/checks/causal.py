"""Causal measures shared by the checks: paired reliance, and ablation against matched random units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.ablation import Ablation as UnitAblation
from dnd_core.ablation import UnitSet, matched_random_sets, unit_statistics
from dnd_core.images import ImageSet
from geoaudit.checks.base import AuditContext
from geoaudit.findings import PREVALENT
from geoaudit.paired import paired_difference
from geoaudit.perturb import Perturbation
from geoaudit.statistics import block_bootstrap, bootstrap_interval

__all__ = [
    "MIN_EFFECT",
    "Ablation",
    "Effect",
    "ablation_holds",
    "ablations",
    "accuracy_change",
    "effect_of",
    "points",
    "reliance",
    "usual_strength",
]

# The smallest change of a share that is worth a reader's time: one image in ten.
MIN_EFFECT = 0.1
RANDOM_SETS = 8
# Fewer images prove nothing: were all eight turned, chance would do the same in one of 256 cases.
FEWEST = 8


def points(share: float) -> str:
    """A difference of shares in words: "72 points" for 0.72."""
    return f"{100 * share:.0f} points"


@dataclass(frozen=True)
class Effect:
    """A change of a share with its 95 % interval, its one-sided p-value and the images behind it."""

    value: float
    ci: tuple[float, float]
    p: float
    n: int

    @property
    def holds(self) -> bool:
        """Large enough to matter, and not by chance."""
        return self.value >= MIN_EFFECT and self.ci[0] > 0 and self.p <= 0.01


def usual_strength(context: AuditContext, artefact: Perturbation) -> float:
    """How strongly an artefact is painted: as strong as it gets where the imagery shows it, else the middle of what is usual.

    What the captions of ordinary imagery speak of is no faint trace, and a network that learned it there learned it so.
    """
    seen = (context.prevalence(artefact.sight) or 0.0) >= PREVALENT
    return artefact.strengths[-1 if seen else len(artefact.strengths) // 2]


def reliance(
    context: AuditContext, rows: NDArray[np.int64], before: NDArray[np.float32], after: NDArray[np.float32], target: int
) -> Effect:
    """R = P(f(x + g) = c) - P(f(x) = c) over images not of class c (method section 4, counterfactual).

    Args:
        context: the audit.
        rows: (n,) image indices.
        before: (n, classes) logits of the images as they are.
        after: (n, classes) logits of the images with the concept put in.
        target: class c.
    """
    outside = context.reference[rows] != target
    a = (after[outside].argmax(axis=1) == target).astype(float)
    b = (before[outside].argmax(axis=1) == target).astype(float)
    return effect_of(context, rows[outside], a, b)


def effect_of(
    context: AuditContext, rows: NDArray[np.int64], after: NDArray[np.float64], before: NDArray[np.float64]
) -> Effect:
    """Mean of paired differences with its block-bootstrap interval and sign-flip p; nothing holds below eight pairs.

    Args:
        context: the audit.
        rows: (n,) image indices, whose blocks are resampled.
        after: (n,) measure with the concept.
        before: (n,) measure without it.
    """
    n = len(rows)
    if n < FEWEST:
        return Effect(0.0, (-1.0, 1.0), 1.0, n)
    if not (after != before).any():
        return Effect(0.0, (0.0, 0.0), 1.0, n)
    found = paired_difference(after, before, context.blocks_of(rows), n=context.draws, seed=context.seed)
    return Effect(found.estimate.value, found.estimate.ci, found.p, n)


def ablation_holds(own: Effect, gap: Effect) -> bool:
    """Whether an ablation supports a finding: the units' own effect matters, and so does what it is beyond random units'.

    The gap alone would not do: it also opens where random units push the answer the other way.
    """
    return own.holds and gap.holds


@dataclass(frozen=True, eq=False)
class Ablation:
    """What holding units at their probe mean does, beside matched random units.

    Attributes:
        plain: (n, classes) logits untouched.
        held: (n, classes) logits with the units held.
        random: (sets, n, classes) logits with matched random units held.
        rows: (n,) image indices.
    """

    plain: NDArray[np.float32]
    held: NDArray[np.float32]
    random: NDArray[np.float32]
    rows: NDArray[np.int64]

    def drop(self, context: AuditContext, target: int, mask: NDArray[np.bool_]) -> tuple[Effect, Effect]:
        """How much rarer class c becomes among ``mask``: by itself, and beyond matched random units (the gap)."""
        before = (self.plain[mask].argmax(axis=1) == target).astype(float)
        after = (self.held[mask].argmax(axis=1) == target).astype(float)
        chance = (self.random[:, mask].argmax(axis=2) == target).mean(axis=0)
        rows = self.rows[mask]
        return effect_of(context, rows, before, after), effect_of(context, rows, chance, after)

    def by_chance(
        self, context: AuditContext, target: int, mask: NDArray[np.bool_], number: int
    ) -> tuple[Effect, Effect]:
        """What :meth:`drop` says when one of the random sets stands in for the units, beside the other random sets.

        An effect too small to hold is not given an interval: it cannot raise a false alarm.
        """
        called = (self.random[:, mask].argmax(axis=2) == target).astype(float)
        after, others = called[number], np.delete(called, number, axis=0).mean(axis=0)
        before = (self.plain[mask].argmax(axis=1) == target).astype(float)
        rows = self.rows[mask]
        if len(rows) < FEWEST:
            none = Effect(0.0, (-1.0, 1.0), 1.0, len(rows))
            return none, none
        own, gap = float((before - after).mean()), float((others - after).mean())
        if min(own, gap) < MIN_EFFECT:
            return Effect(own, (-1.0, 1.0), 1.0, len(rows)), Effect(gap, (-1.0, 1.0), 1.0, len(rows))
        return effect_of(context, rows, before, after), effect_of(context, rows, others, after)

    def chance_gaps(self, target: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The gap of each random set against the others: what the gate would say of units that mean nothing."""
        if not mask.any():
            return np.zeros(0)
        share = (self.random[:, mask].argmax(axis=2) == target).mean(axis=1)
        total = share.sum()
        others = (total - share) / max(1, len(share) - 1)
        return np.asarray(others - share, dtype=np.float64)


def ablations(
    context: AuditContext,
    sets: Sequence[UnitSet],
    rows: NDArray[np.int64],
    images: ImageSet | None = None,
    absent: str = "",
    level: NDArray[np.int64] | None = None,
) -> list[Ablation | None]:
    """Hold each set of units at its probe means, and matched random ones of the same layers, all in one pass.

    Args:
        context: the audit.
        sets: unit sets, layer name to unit indices.
        rows: images to do it on.
        images: another set with the same indices (painted copies); the probe when None.
        absent: a concept; means are then taken over the images whose captions do not speak of it. Where a third of the
            probe shows the concept, the mean over all of it is a third of the concept, and holding units there leaves it in.
        level: images over which means are taken, where it is known; goes before ``absent``.

    Returns:
        One a set; None where a layer has too few other units to match.
    """
    names = sorted({name for units in sets for name in units})
    if level is None and absent:
        level = _without(context, absent)
    statistics = {name: unit_statistics(context.activations[name], level) for name in names}
    norms = {name: found.norms for name, found in statistics.items()}
    able = [all(len(chosen) * 2 <= len(norms[name]) for name, chosen in units.items()) for units in sets]
    asked: list[UnitSet] = []
    for units, can in zip(sets, able, strict=True):
        asked += [units, *matched_random_sets(units, norms, RANDOM_SETS, seed=context.seed)] if can else []
    if not asked:
        return [None for _ in sets]
    infos = [info for info in context.layers if info.name in names]
    whole, each = UnitAblation(context.network, infos, {name: s.means for name, s in statistics.items()}).logits_with(
        images or context.images, asked, indices=rows, batch_size=context.batch_size
    )
    parts = iter(each.reshape(-1, RANDOM_SETS + 1, *whole.shape))
    found: list[Ablation | None] = []
    for can in able:
        part = next(parts) if can else None
        found.append(None if part is None else Ablation(whole, part[0], part[1:], rows))
    return found


def _without(context: AuditContext, concept: str) -> NDArray[np.int64] | None:
    """Images whose captions do not speak of a concept; None, for all, where captions are missing or leave too few."""
    said = context.shows(concept)
    if said is None or context.captions is None:
        return None
    rows = np.flatnonzero(~said & np.array([bool(caption) for caption in context.captions]))
    return rows if len(rows) >= FEWEST else None


def accuracy_change(
    context: AuditContext, found: Ablation, target: int
) -> tuple[int, float, float, Effect, tuple[float, float, float], Effect]:
    """Accuracy of class c before and after an ablation, the change, random sets' change, and the gap to them.

    Returns:
        ``n, before, after, change, (random mean, low, high), gap``; the gap is negative where the units matter more.
    """
    mask = context.reference[found.rows] == target
    rows = found.rows[mask]
    right = (found.plain[mask].argmax(axis=1) == target).astype(float)
    held = (found.held[mask].argmax(axis=1) == target).astype(float)
    chance = (found.random[:, mask].argmax(axis=2) == target).astype(float)
    n = int(mask.sum())
    if n < 2:
        none = Effect(float("nan"), (float("nan"), float("nan")), 1.0, n)
        return n, float("nan"), float("nan"), none, (float("nan"),) * 3, none
    blocks = context.blocks_of(rows)
    change = _effect(held - right, blocks, context)
    gap = _effect(held - chance.mean(axis=0), blocks, context)
    shares = chance.mean(axis=1) - right.mean()
    low, high = np.quantile(shares, [0.025, 0.975])
    return n, float(right.mean()), float(held.mean()), change, (float(shares.mean()), float(low), float(high)), gap


def _effect(values: NDArray[np.float64], blocks: NDArray[np.int64] | None, context: AuditContext) -> Effect:
    count = len(values) if blocks is None else len(np.unique(blocks))
    draws = block_bootstrap(values, blocks, n=context.draws, seed=context.seed)
    low, high = bootstrap_interval(draws, 0.95, count)
    p = float((1 + (draws >= 0).sum()) / (1 + len(draws)))
    return Effect(float(values.mean()), (float(low), float(high)), p, len(values))
