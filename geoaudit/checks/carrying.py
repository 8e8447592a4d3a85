"""Which units carry an artefact to a class: those that react to it, in the direction that the class is read from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnd_core.attribution import sensitivities
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.probing import activate
from geoaudit.checks.base import AuditContext

__all__ = ["between", "painted_shift", "reacting", "towards"]

# So much of a layer is held: few units where the imagery never shows the artefact, for then only units made for something
# like it can carry it; many where it does, for what was learned from it spreads.
REACTING, SPREAD = 0.05, 0.2
REACTION_IMAGES = 256

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def painted_shift(context: AuditContext, info: LayerInfo, images: ImageSet, rows: Ints) -> tuple[Floats, Ints]:
    """(units,) how much a layer's pooled activations change when an artefact is painted, and the images it was seen on."""
    seen = rows[:: max(1, len(rows) // REACTION_IMAGES)]
    painted = activate(context.network, [info], images.pixels(seen.tolist()), context.pooling)[info.name]
    return (painted - np.asarray(context.activations[info.name][seen])).mean(axis=0, dtype=np.float64), seen


def between(context: AuditContext, info: LayerInfo, shown: Ints, other: Ints) -> Floats:
    """(units,) how much more a layer's units fire on images that show a concept than on their partners without it."""
    values = context.activations[info.name]
    return np.asarray((np.asarray(values[shown]) - np.asarray(values[other])).mean(axis=0, dtype=np.float64))


def reacting(context: AuditContext, info: LayerInfo, shift: Floats) -> Ints:
    """The few units that react most, in their own standard deviations, whatever the class; sorted."""
    spread = np.asarray(context.activations[info.name]).std(axis=0, dtype=np.float64)
    strength = np.abs(shift) / np.where(spread > 1e-9, spread, np.inf)
    return _first(-strength, REACTING)


def towards(
    context: AuditContext, info: LayerInfo, shift: Floats, images: ImageSet, rows: Ints, classes: Sequence[int]
) -> dict[int, Ints]:
    """By class the units whose reaction moves the network most towards it (first order); sorted.

    Args:
        context: the audit.
        info: the layer.
        shift: (units,) their reaction.
        images: images with the artefact, on which the class's score is differentiated.
        rows: which of them.
        classes: numbers of the classes.
    """
    slopes = sensitivities(
        context.network, info, images, classes, indices=rows[:REACTION_IMAGES], batch_size=context.batch_size
    )
    return {target: _first(-slope * shift, SPREAD) for target, slope in zip(classes, slopes, strict=True)}


def _first(order: Floats, share: float) -> Ints:
    return np.sort(np.argsort(order, kind="stable")[: max(1, round(share * len(order)))]).astype(np.int64)
