"""Concept groups as the checks use them: which units, how much they fire, and which artefact their words name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoaudit.checks.base import AuditContext
from geoaudit.definitions import stated
from geoaudit.perturb import PERTURBATIONS, Perturbation

__all__ = ["Group", "concept_groups", "group_score", "paintable", "spoken_of"]

# A concept whose words are this close to an artefact's can be painted: cosine of sentence embeddings.
ALIKE = 0.6
# One or two units are a coincidence, not a group that a finding should rest on.
LEAST_UNITS = 3


def paintable(concept: str, context: AuditContext) -> Perturbation | None:
    """The artefact that a concept's words name, or None: by word, else by meaning. What is denied is not named."""
    said = stated(concept)
    if not said:
        return None
    words = said.casefold()
    for artefact in PERTURBATIONS.values():
        if artefact.label in words or any(synonym in words for synonym in artefact.synonyms):
            return artefact
    names = [(artefact, name) for artefact in PERTURBATIONS.values() for name in (artefact.label, *artefact.synonyms)]
    vectors = context.encoder.encode_texts([said, *(name for _, name in names)])
    likeness = vectors[1:] @ vectors[0]
    best = int(np.argmax(likeness))
    return names[best][0] if likeness[best] >= ALIKE else None


@dataclass(frozen=True)
class Group:
    """Units that speak of one concept.

    Attributes:
        number: of the group in the run.
        name: the concept, in words.
        units: the layer that is edited, with the group's units in it.
        every_unit: all its units, as ``layer/unit``.
        confidence: mean held-out correlation of the units' labels.
    """

    number: int
    name: str
    units: dict[str, list[int]]
    every_unit: tuple[str, ...]
    confidence: float

    @property
    def layer(self) -> str:
        """The layers its units are in, in words."""
        return ", ".join(self.units)

    @property
    def size(self) -> int:
        """How many units are held when it is ablated."""
        return sum(len(units) for units in self.units.values())


def concept_groups(context: AuditContext) -> list[Group]:
    """The run's groups of at least :data:`LEAST_UNITS` units before the output, in the run's order."""
    infos = [info.name for info in context.layers]
    found = []
    for row in context.groups.itertuples(index=False):
        units = [str(u) for u in json.loads(row.units)]
        by_layer: dict[str, list[int]] = {}
        for unit in units:
            layer, _, index = unit.rpartition("/")
            if layer != "output":
                by_layer.setdefault(layer, []).append(int(index))
        if sum(map(len, by_layer.values())) < LEAST_UNITS:
            continue
        # The deepest layer is where the concept acts on the class most directly, and cheapest to edit.
        deepest = max(by_layer, key=infos.index)
        named = context.neurons[context.neurons["group"] == row.group]
        found.append(
            Group(
                int(row.group),
                str(row.name),
                {deepest: sorted(by_layer[deepest])},
                tuple(units),
                float(named["r"].mean()),
            )
        )
    return found


def spoken_of(context: AuditContext, layer: str, units: Sequence[int], most: int = 3) -> str:
    """Which concepts some units speak of, in words: "7 speak of haze, 2 of bare fields"; empty where none is in a group.

    Args:
        context: the audit.
        layer: of the units.
        units: their indices.
        most: concepts named.
    """
    wanted = {f"{layer}/{int(unit)}" for unit in units}
    counted = [
        (len(wanted & set(map(str, json.loads(row.units)))), str(row.name))
        for row in context.groups.itertuples(index=False)
    ]
    named = sorted((pair for pair in counted if pair[0]), key=lambda pair: (-pair[0], pair[1]))[:most]
    said = [f"{count} {'speak' if count > 1 else 'speaks'} of '{name}'" for count, name in named]
    return ", ".join(said)


def group_score(context: AuditContext, group: Group) -> NDArray[np.float64]:
    """(images,) mean activation of the group's units, each in its own standard deviations."""
    parts = []
    for layer, units in group.units.items():
        values = np.asarray(context.activations[layer][:, units], dtype=np.float64)
        spread = values.std(axis=0)
        parts.append((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1))
    return np.asarray(np.concatenate(parts, axis=1).mean(axis=1))
