"""How much of what decides a class do we understand? Dead, duplicate and diffuse units, and evidence without a label.

Each class's logit is written as a sum over the units of the last described layer: exactly, where a linear head reads
their means, else by ridge regression. A unit's evidence is how much its term moves over the images; the share carried
by units without a verified label is what the audit cannot put in words, and it says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.verification import UnitHealth as Health
from dnd_core.verification import health
from geoaudit.checks.base import AuditContext
from geoaudit.findings import CheckResult, CheckStatus
from geoaudit.heads import find_head

__all__ = ["ClassEvidence", "UnitHealth", "class_evidence", "duplicates", "streamed_health"]

# Two units that correlate more than this say the same.
SAME = 0.98
# Below this share of the held-out variance a linear reading of the layer does not say how the class is decided.
LEAST_R2 = 0.5
RIDGE = 1.0
# Correlations and evidence are settled by this many images; more would only take memory.
MOST_IMAGES = 5000
ROWS = 4096

Floats = NDArray[np.float64]


def duplicates(activations: NDArray[np.float32], same: float = SAME) -> list[tuple[int, int]]:
    """Pairs of units whose activations correlate, positively or negatively, more than ``same``.

    Args:
        activations: (images, units); constant units pair with none.
        same: least absolute Pearson correlation.
    """
    values = np.asarray(activations, dtype=np.float64)
    centred = values - values.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    scaled = centred / np.where(norms > 1e-9, norms, np.inf)
    left, right = np.nonzero(np.triu(np.abs(scaled.T @ scaled) > same, 1))
    return list(zip(left.tolist(), right.tolist(), strict=True))


def streamed_health(activations: NDArray[np.float32], rows: int = ROWS) -> Health:
    """Dead and diffuse units, with no more of the matrix in memory than a block of rows.

    Dead is exact: least and largest activation are taken over every image. Diffuse compares percentiles, which an even
    sample of :data:`MOST_IMAGES` images settles.

    Args:
        activations: (images, units), memory-mapped where it is large.
        rows: images read at a time.
    """
    low = np.full(activations.shape[1], np.inf, dtype=np.float32)
    high = -low
    for start in range(0, len(activations), rows):
        block = np.asarray(activations[start : start + rows])
        np.minimum(low, block.min(axis=0), out=low)
        np.maximum(high, block.max(axis=0), out=high)
    dead = (high - low) <= 1e-7 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    sampled = health(np.asarray(activations[_some(len(activations))]))
    return Health(dead, ~dead & sampled.diffuse)


@dataclass(frozen=True, eq=False)
class ClassEvidence:
    """What each unit of a layer adds to each class.

    Attributes:
        layer: its name.
        shares: (classes, units) each unit's share of the evidence, rows adding up to 1 (0 for a constant logit).
        r2: share of the logits' variance that the sum of the units' terms explains on images it was not fitted on.
        exact: the terms are those of the network's own linear head.
    """

    layer: str
    shares: Floats
    r2: float
    exact: bool


def class_evidence(context: AuditContext, layer: str) -> ClassEvidence:
    """Write each class's logit as a sum over a layer's units.

    Args:
        context: the audit.
        layer: name of a described layer.
    """
    rows = _some(len(context.logits))
    values = np.asarray(context.activations[layer][rows], dtype=np.float64)
    logits = context.logits[rows].astype(np.float64)
    head = find_head(context.network.module, values, logits)
    if head is not None:
        weights, r2 = head.weight, 1.0
    else:
        weights, r2 = _ridge(context, rows, values, logits)
    moved = np.abs(weights) * np.abs(values - values.mean(axis=0)).mean(axis=0)
    total = moved.sum(axis=1, keepdims=True)
    return ClassEvidence(layer, moved / np.where(total > 0, total, 1.0), r2, head is not None)


def _some(count: int) -> NDArray[np.int64]:
    """Evenly spread image numbers, at most :data:`MOST_IMAGES`."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(np.int64))


def _ridge(context: AuditContext, rows: NDArray[np.int64], values: Floats, logits: Floats) -> tuple[Floats, float]:
    """Weights of a ridge regression of the logits on the units, and its R2 on images it did not see."""
    from sklearn.linear_model import Ridge

    held = np.isin(rows, context.held_out)
    if not held.any() or held.all():
        held[:: max(2, len(held) // 20)] = True
    spread = values.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    scaled = (values - values.mean(axis=0)) * scale
    fitted = Ridge(alpha=RIDGE).fit(scaled[~held], logits[~held])
    left = logits[held] - fitted.predict(scaled[held])
    total = ((logits[held] - logits[~held].mean(axis=0)) ** 2).sum()
    r2 = 1 - float((left**2).sum()) / float(total) if total > 0 else 0.0
    return np.asarray(fitted.coef_ * scale, dtype=np.float64).reshape(logits.shape[1], -1), r2


class UnitHealth:
    """Dead, duplicate and diffuse units, and evidence without a reliable label."""

    rule = "unit-health"
    title = "Units that say nothing, and class evidence that no label explains"
    needs: tuple[str, ...] = ("classes",)
    cost = "correlations of every pair of units in a layer"
    null = "none; the figures describe"

    def run(self, context: AuditContext) -> CheckResult:
        """Count, and share out the evidence of every class."""
        infos = [info for info in context.layers if info.name != "output"]
        if not infos:
            return self._result("inconclusive", "no layer before the output is described, so no unit can be judged", 0)
        said, states = [], {}
        for info in infos:
            values = context.activations[info.name]
            state = states[info.name] = streamed_health(values)
            twins = {unit for pair in duplicates(values[_some(len(values))]) for unit in pair}
            said.append(
                f"{info.name}: {int(state.dead.sum())} dead, {len(twins)} duplicate and {int(state.diffuse.sum())} diffuse "
                f"of {info.units} units"
            )
        tested = sum(info.units for info in infos)
        last = infos[-1].name
        if bool(states[last].dead.all()):
            return self._result("inconclusive", f"every unit of {last} is dead on these images; {said[-1]}", tested)
        evidence = class_evidence(context, last)
        if evidence.r2 < LEAST_R2:
            why = f"a linear reading of {last} explains only {evidence.r2:.0%} of the logits"
            return self._result("inconclusive", f"{why}, so evidence cannot be shared out; {'; '.join(said)}", tested)
        labelled = _with_status(context, last, "labelled", infos[-1].units)
        weak = _with_status(context, last, "weak", infos[-1].units)
        unknown = evidence.shares[:, ~labelled].sum(axis=1)
        guessed = evidence.shares[:, weak].sum(axis=1)
        order = np.argsort(-unknown, kind="stable")
        shares = ", ".join(f"{context.class_names[c]} {unknown[c]:.0%} ({guessed[c]:.0%} weakly)" for c in order)
        how = (
            "exactly, by its linear head" if evidence.exact else f"by regression, R2 {evidence.r2:.2f} on unseen images"
        )
        said.append(
            f"evidence that no reliable label of {last} explains ({how}; in brackets what a weak label guesses): {shares}"
        )
        context.report("unit health", 1, 1)
        return self._result("pass", "; ".join(said), tested)

    def _result(self, status: CheckStatus, reason: str, tested: int) -> CheckResult:
        return CheckResult(
            self.rule,
            self.title,
            status,
            reason,
            tested,
            self.null,
            self.cost,
        )


def _with_status(context: AuditContext, layer: str, status: str, units: int) -> NDArray[np.bool_]:
    mine = context.neurons[(context.neurons["layer"] == layer) & (context.neurons["status"] == status)]
    found = np.zeros(units, dtype=bool)
    found[mine["unit"].to_numpy(dtype=np.int64)] = True
    return found
