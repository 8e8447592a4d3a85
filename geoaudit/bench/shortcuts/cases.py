"""Which networks the bench makes: every family at every strength and seed, and those that must stay silent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dnd_core.errors import ConfigError
from geoaudit.bench.shortcuts.plants import ARTEFACTS, FAMILIES

__all__ = ["STRENGTHS", "Case", "Half", "Pool", "plan"]

Pool = Literal["planted", "decoy", "clean"]
Half = Literal["tuning", "evaluation"]

STRENGTHS = (0.5, 0.75, 0.9, 1.0)
"""Shares of the target class's chips that carry the plant; strength 0 is the pool ``clean``."""

TARGETS = ("farm", "meadow", "forest")
DECOYS_A_FAMILY = 3
CLEAN_A_SEED = 3
FIRST: Mapping[Half, int] = MappingProxyType({"tuning": 0, "evaluation": 10})
"""The first seed of each half."""


@dataclass(frozen=True, slots=True)
class Case:
    """One network of the bench.

    Attributes:
        pool: ``planted`` (the family predicts the class), ``decoy`` (the family lies on a third of every class alike)
            or ``clean``.
        family: of :data:`geoaudit.bench.shortcuts.plants.FAMILIES`; empty for clean networks.
        strength: share of the target's chips that carry the plant, in [0, 1].
        target: class that the plant points to; empty where it points to none.
        seed: decides the weights, the chips and every draw.
        half: tuning cases may be looked at while thresholds are chosen, evaluation cases never.
    """

    pool: Pool
    family: str
    strength: float
    target: str
    seed: int
    half: Half

    @property
    def name(self) -> str:
        """Unique among the cases of a plan, and fit for a file's name."""
        parts = [self.pool, self.family.replace("/", "-").replace(" ", "-"), f"{self.strength:g}", str(self.seed)]
        return "_".join(part for part in parts if part)


def plan(seeds: int = 5, half: Half = "evaluation", quick: bool = False) -> Iterator[Case]:
    """The cases of one half, seed by seed, so that a bench cut short holds whole seeds.

    Args:
        seeds: how many seeds.
        half: which half. No seed is in both; networks, draws and shares are made alike.
        quick: one strength only, for a first look.
    """
    most = FIRST["evaluation"] - FIRST["tuning"]
    if half == "tuning" and seeds > most:
        raise ConfigError(
            f"the tuning half has {most} seeds, not {seeds}: those that follow belong to the evaluation half"
        )
    strengths = (0.9,) if quick else STRENGTHS
    for seed in range(FIRST[half], FIRST[half] + seeds):
        for place, (family, strength) in enumerate(itertools.product(FAMILIES, strengths)):
            # The target goes round with seed and family, so that no family is tied to one class.
            target = TARGETS[(seed + place // len(strengths)) % len(TARGETS)]
            yield Case("planted", family, strength, target, seed, half)
        for number in range(CLEAN_A_SEED + 1):
            yield Case("clean", "", 0.0, "", 1000 * (number + 1) + seed, half)
        for place, family in enumerate(ARTEFACTS):
            # Three of every five seeds: as many decoys as a family needs.
            if quick or (seed + place) % 5 < DECOYS_A_FAMILY:
                yield Case("decoy", family, 1 / 3, "", seed, half)
