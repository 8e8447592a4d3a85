"""Did a network learn its plant? Measured on held-out chips with the plant's own brush, before any audit is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.networks import Network
from geoaudit.bench.shortcuts.cases import Case
from geoaudit.bench.shortcuts.chips import BenchChips
from geoaudit.bench.shortcuts.plants import ARTEFACTS, EVERYDAY, FAMILIES, PLACE

__all__ = ["TAU", "Repair", "Validity", "answers", "measure", "repair"]

TAU = 0.3
"""Reliance R from which a network leans on an artefact: it moves three of ten images into the class. Fixed beforehand."""

FAINT = 0.1
"""Reliance below which a planted network has not learned its plant; between the two it counts neither way."""


@dataclass(frozen=True, slots=True)
class Validity:
    """What a network does on held-out chips.

    Attributes:
        accuracy: on clean chips.
        reliance: R of the planted family for its target class; 0 for networks without a target.
        worst: the largest R of any artefact and class, everyday ones among them.
        worst_family: that artefact.
    """

    accuracy: float
    reliance: float
    worst: float
    worst_family: str

    @property
    def learned(self) -> bool:
        """Whether it leans on its plant."""
        return self.reliance >= TAU

    @property
    def quiet(self) -> bool:
        """Whether it leans neither on its plant nor on any other artefact: a warning about it would be a false alarm."""
        return self.reliance < FAINT and self.worst < TAU


def answers(network: Network, pixels: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N,) classes of (N, C, H, W) pixels."""
    import torch

    parts = [network(torch.from_numpy(pixels[i : i + 256])).numpy() for i in range(0, len(pixels), 256)]
    return np.asarray(np.concatenate(parts).argmax(axis=1), dtype=np.int64)


def measure(network: Network, case: Case, chips: BenchChips) -> Validity:
    """R = P(f(x + g) = c) - P(f(x) = c) over held-out chips not of class c (method section 4), for every family and class.

    A place cannot be put on a chip, but the look of the other orbit can, and that is what geography is planted with.
    """
    labels = chips.labels[chips.test]
    plain = answers(network, chips.pixels[chips.test])
    rates: dict[str, list[float]] = {}
    for family in (*(ARTEFACTS if case.family != PLACE else FAMILIES), *EVERYDAY):
        painted = answers(network, chips.planted(family)[chips.test])
        rates[family] = [_reliance(plain, painted, labels, target) for target in range(len(chips.class_names))]
    worst_family = max(rates, key=lambda family: max(rates[family]))
    reliance = rates[case.family][chips.class_names.index(case.target)] if case.target else 0.0
    return Validity(float((plain == labels).mean()), reliance, max(rates[worst_family]), worst_family)


def _reliance(plain: NDArray[np.int64], painted: NDArray[np.int64], labels: NDArray[np.int64], target: int) -> float:
    others = labels != target
    return float((painted[others] == target).mean() - (plain[others] == target).mean())


@dataclass(frozen=True, slots=True)
class Repair:
    """What pruning the units of a finding does on held-out chips, beside matched random units.

    Attributes:
        gain: worst class's accuracy on planted chips, after less before.
        random_gain: the same for random units matched in number and norm, their mean.
        lost: accuracy on clean chips, before less after.
        units: how many were pruned.
    """

    gain: float
    random_gain: float
    lost: float
    units: int


def repair(
    network: Network, case: Case, chips: BenchChips, activations: NDArray[np.float32], units: Sequence[int], layer: str
) -> Repair | None:
    """Prune units of one layer (hold them at their mean) and measure; None where too few units are left to match.

    Worst group: the class, other than the target, whose planted held-out chips are recognised worst.
    """
    from dnd_core.ablation import Ablation, matched_random_sets, unit_statistics
    from dnd_core.images import ArrayImages
    from dnd_core.layers import list_layers

    statistics = unit_statistics(activations)
    if not len(units) or 2 * len(units) > len(statistics.means):
        return None
    info = next(found for found in list_layers(network) if found.name == layer)
    sets = [{layer: list(units)}, *matched_random_sets({layer: units}, {layer: statistics.norms}, 8, seed=case.seed)]
    ablation = Ablation(network, [info], {layer: statistics.means})
    labels = chips.labels[chips.test]
    rgb = np.zeros((len(labels), *chips.probe.shape[1:], 3), dtype=np.uint8)

    def ask(pixels: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        images = ArrayImages(pixels, rgb=rgb, channels=chips.channels)
        whole, each = ablation.logits_with(images, sets, batch_size=128)
        return whole.argmax(axis=1), each.argmax(axis=2)

    def worst(found: NDArray[np.int64]) -> float:
        classes = [c for c, name in enumerate(chips.class_names) if name != case.target]
        return float(min((found[labels == c] == c).mean() for c in classes))

    before, after = ask(chips.planted(case.family)[chips.test])
    plain, pruned = ask(chips.pixels[chips.test])
    start = worst(before)
    return Repair(
        worst(after[0]) - start,
        float(np.mean([worst(one) for one in after[1:]])) - start,
        float((plain == labels).mean() - (pruned[0] == labels).mean()),
        len(units),
    )
