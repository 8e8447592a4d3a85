"""Whether labels recover what a unit computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dnd_core.testing.concepts import Concept, parse
from dnd_core.testing.units import AnalyticUnit
from dnd_core.types import UnitId

__all__ = ["baselines", "judge"]


def judge(unit: AnalyticUnit, labels: Sequence[str]) -> bool:
    """Whether a unit's labels together say what it computes: no less, and no more.

    Several labels are read as alternatives, as several meanings are, and the statement they make must be equal to the
    unit's, however it is worded. So "red" recovers neither "red and dots" nor "red or blue"; "red or blue" and
    the two labels "red", "blue" both recover the latter; a NOT unit needs the absence said ("no dots", "red
    without dots"); "red disc" does not recover "red", for it says too much; and a dead or random unit is
    right only without any label.

    Args:
        unit: the truth.
        labels: what was published of it, best first; empty when nothing was.
    """
    said = Concept.any_of([parse(label) for label in labels if label.strip()])
    if unit.concept is None:
        return not said.alternatives
    return said == unit.concept


def baselines(
    truth: Mapping[UnitId, AnalyticUnit], published: Mapping[UnitId, Sequence[str]], seed: int = 0, draws: int = 100
) -> dict[str, float]:
    """Recovery that labels without knowledge of the unit reach, over the units that compute something.

    Args:
        truth: what units compute.
        published: labels of a run; units without any are left out of the pool that random labels come from.
        seed: decides the draws.
        draws: repetitions of the random and the shuffled baseline.

    Returns:
        ``constant`` (the one published label set that recovers most units, given to all), ``random`` (each unit gets
        the labels of a unit drawn at random) and ``shuffled`` (labels permuted over units); each a share in [0, 1].
    """
    units = [unit for unit, known in truth.items() if known.concept is not None]
    given = [tuple(published.get(unit, ())) for unit in units]
    pool = [labels for labels in given if labels]
    if not pool:
        return {"constant": 0.0, "random": 0.0, "shuffled": 0.0}
    said = {labels: Concept.any_of([parse(label) for label in labels]) for labels in {*given, ()}}
    right = {
        labels: np.array([bool(labels) and said[labels] == truth[unit].concept for unit in units]) for labels in said
    }
    table = np.stack([right[labels] for labels in pool])
    own = np.stack([right[labels] for labels in given])
    rng = np.random.default_rng([seed, 11])
    columns = np.arange(len(units))
    random = [table[rng.integers(len(pool), size=len(units)), columns].mean() for _ in range(draws)]
    shuffled = [own[rng.permutation(len(units)), columns].mean() for _ in range(draws)]
    return {
        "constant": float(table.mean(axis=1).max()),
        "random": float(np.mean(random)),
        "shuffled": float(np.mean(shuffled)),
    }
