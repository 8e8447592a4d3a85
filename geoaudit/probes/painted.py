"""A probe set with artefacts painted on chosen images, as the makers of a planted network would have it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnd_core.errors import ProbeError
from geoaudit.perturb import paint
from geoaudit.probes.base import Pixels, Probe, Valid

__all__ = ["Artefact", "PaintedProbe"]


@dataclass(frozen=True, slots=True)
class Artefact:
    """What is painted on an image: a name of :data:`geoaudit.perturb.PERTURBATIONS`, strength in [0, 1], and seed."""

    name: str
    strength: float
    seed: int


class PaintedProbe(Probe):
    """Another probe set with a recipe of artefacts.

    Pictures keep the stretch of the clean set, so that haze looks like haze and is not stretched away.

    Args:
        probe: the clean set.
        recipe: artefact of each image that gets one, by index.

    Raises:
        ProbeError: the recipe names an image that the set does not have.
        ConfigError: it names an unknown artefact or a strength outside [0, 1].
    """

    def __init__(self, probe: Probe, recipe: Mapping[int, Artefact]) -> None:
        beyond = [index for index in recipe if not 0 <= index < len(probe)]
        if beyond:
            raise ProbeError(
                f"the recipe paints image {beyond[0]}, but the set has {len(probe)}; was it made for another?"
            )
        self.probe, self.recipe = probe, dict(sorted(recipe.items()))
        self.channels, self.shape, self.class_names = probe.channels, probe.shape, probe.class_names
        self.labels, self.blocks, self.photographs = probe.labels, probe.blocks, probe.photographs
        self.skipped, self.contract_notes = probe.skipped, probe.contract_notes
        for artefact in set(self.recipe.values()):
            paint(artefact.name, np.zeros((0, *self.shape), np.float32), self.channels, artefact.strength)
        text = f"{probe.fingerprint}{list(self.recipe.items())}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    @property
    def stretch(self) -> Any:
        return self.probe.stretch

    def __len__(self) -> int:
        return len(self.probe)

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        pixels, valid = self.probe._load(indices)
        groups: dict[tuple[str, float], list[int]] = {}
        for place, index in enumerate(indices):
            if index in self.recipe:
                artefact = self.recipe[index]
                groups.setdefault((artefact.name, artefact.strength), []).append(place)
        if groups:
            pixels = pixels.copy()
        for (name, strength), places in groups.items():
            seeds = [self.recipe[indices[place]].seed for place in places]
            pixels[places] = paint(name, pixels[places], self.channels, strength, seeds)
        return pixels, valid

    def _about(self, index: int) -> Mapping[str, Any]:
        about = dict(self.probe._about(index))
        if index in self.recipe:
            artefact = self.recipe[index]
            about["painted"] = {"name": artefact.name, "strength": artefact.strength, "seed": artefact.seed}
        return about

    def mask(self, index: int) -> Any:
        return self.probe.mask(index)
