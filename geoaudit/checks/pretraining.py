"""The band order that published weights list of themselves, held against the one that the card says.

Fine-tuning keeps the first layer's meaning: weights that learned B8A as their ninth band read whatever comes ninth as B8A.
EuroSAT's files have it thirteenth, and nothing in a checkpoint would say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnd_core.errors import DndError

__all__ = ["band_doubt", "own_bands", "weights_name"]


def weights_name(card: Mapping[str, Any]) -> str:
    """The torchgeo weights that a network starts from, ``ResNet18_Weights.SENTINEL2_ALL_MOCO``; empty where none are named.

    Args:
        card: what the run knows of the model: ``checkpoint``, a path or ``torchgeo:NAME``.
    """
    from geoaudit.networks import is_torchscript, read_checkpoint
    from geoaudit.networks.pretrained import PREFIX

    checkpoint = str(card.get("checkpoint", ""))
    if checkpoint.startswith(PREFIX):
        return checkpoint.removeprefix(PREFIX)
    path = Path(checkpoint)
    if not path.is_file() or is_torchscript(path):
        return ""
    named = read_checkpoint(path).hyper_parameters.get("weights")
    return str(named) if isinstance(named, str) and "_Weights." in named else ""


def own_bands(name: str) -> tuple[str, ...]:
    """The bands that weights of torchgeo list of themselves, in their order; empty where they list none we know."""
    from geoaudit.networks.pretrained import weight_bands

    try:
        return weight_bands(name)
    except DndError:
        # Weights of another torchgeo, or of a sensor without band names: there is nothing to compare.
        return ()


def band_doubt(card: Mapping[str, Any], bands: Sequence[str]) -> str:
    """One sentence where the card's band order is not the weights' own; empty where they agree or nothing is known.

    Args:
        card: what the run knows of the model.
        bands: that the card says the network takes, in its order.
    """
    name = weights_name(card)
    own = own_bands(name) if name else ()
    if not own or tuple(bands) == own:
        return ""
    if len(own) != len(bands):
        return f"the weights it starts from ({name}) take {len(own)} bands, the card says {len(bands)}"
    moved = [
        f"{theirs} at {place}, the card {mine}"
        for place, (theirs, mine) in enumerate(zip(own, bands, strict=True), start=1)
        if theirs != mine
    ]
    return (
        f"the weights it starts from ({name}) list other bands than the card ({'; '.join(moved[:3])}"
        f"{' ...' if len(moved) > 3 else ''}): unless the first layer was trained anew, bands are mixed up"
    )
