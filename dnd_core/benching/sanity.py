"""Do measures notice wrong labels? Half of a concept's positives are dropped, or as many false ones are added.

A measure that does not fall then cannot tell a right label from one that is too narrow or too wide (the missing- and the
extra-labels test of Oikarinen, Yan and Weng 2025, "Evaluating Neuron Explanations"; method section 3). The tests need
units whose concept is known image by image: analytic units, or the outputs of a classifier with labelled images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.benching.metrics import PRIMARY, SECONDARY, primary, secondary
from dnd_core.errors import ConfigError

__all__ = ["TESTS", "SanityResult", "sanity_tests"]

TESTS = ("half of the positives dropped", "as many false positives added")
PASSED = 0.9
"""A measure passes when it falls for this share of units."""

_FEWEST = 4


@dataclass(frozen=True, slots=True)
class SanityResult:
    """What one measure does in one test.

    Attributes:
        metric: name in ``PRIMARY`` or ``SECONDARY``.
        test: name in :data:`TESTS`.
        before: mean over units with the right positives.
        after: mean with the wrong ones.
        fell: share of units whose score, averaged over draws, fell.
        units: how many units were tested.
    """

    metric: str
    test: str
    before: float
    after: float
    fell: float
    units: int

    @property
    def passed(self) -> bool:
        """The score falls for nine units in ten or more."""
        return self.fell >= PASSED


def sanity_tests(
    activations: ArrayLike, truth: ArrayLike, *, top_share: float = 0.05, draws: int = 40, seed: int = 0
) -> list[SanityResult]:
    """Run both tests on every measure.

    Args:
        activations: (N, U) of the units.
        truth: (N, U) bool, the images on which each unit's concept really is. Units with fewer than four positives, or
            with too few other images for as many false ones, are left out.
        top_share: share of images on which a unit counts as firing.
        draws: random choices of what is dropped or added, averaged unit by unit.
        seed: decides them.

    Returns:
        One result a measure and test.

    Raises:
        ConfigError: no unit can be tested.
    """
    a, holds = np.asarray(activations, dtype=np.float64), np.asarray(truth, dtype=bool)
    positives = holds.sum(axis=0)
    usable = (positives >= _FEWEST) & (2 * positives <= len(a)) & (a.std(axis=0) > 0)
    if not usable.any():
        raise ConfigError(
            "the sanity tests need a unit whose concept is on at least four images and on at most half of them"
        )
    a, holds = a[:, usable], holds[:, usable]
    rng = np.random.default_rng([seed, 22])
    right = _scores(a, holds, top_share)
    changed: dict[str, list[dict[str, NDArray[np.float64]]]] = {test: [] for test in TESTS}
    for _ in range(draws):
        # One random order a unit: the first half of its positives goes, the first of the others come.
        order = rng.random(a.shape)
        place = np.argsort(np.argsort(np.where(holds, order, 2), axis=0), axis=0)
        changed[TESTS[0]].append(_scores(a, holds & (place >= holds.sum(axis=0) // 2), top_share))
        place = np.argsort(np.argsort(np.where(holds, 2, order), axis=0), axis=0)
        changed[TESTS[1]].append(_scores(a, holds | (place < holds.sum(axis=0)), top_share))
    results = []
    for metric in (*PRIMARY, *SECONDARY):
        for test in TESTS:
            after = np.mean([scores[metric] for scores in changed[test]], axis=0)
            fell = float((after < right[metric] - 1e-9).mean())
            results.append(
                SanityResult(metric, test, float(right[metric].mean()), float(after.mean()), fell, int(usable.sum()))
            )
    return results


def _scores(a: NDArray[np.float64], holds: NDArray[np.bool_], top_share: float) -> dict[str, NDArray[np.float64]]:
    found = primary(a, holds.astype(np.float64), top_share)
    shown = [a[holds[:, unit], unit] for unit in range(a.shape[1])]
    pieces = secondary(a, shown, np.percentile(a, 99, axis=0))
    return found | {name: np.nanmean(table, axis=1) for name, table in pieces.items()}
