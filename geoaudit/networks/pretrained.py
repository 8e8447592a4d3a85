"""torchgeo's pretrained backbones with a head of the user's: what their weights say of themselves becomes the card."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnd_core.checkpoints import read_checkpoint
from dnd_core.errors import NetworkError, ProbeError
from geoaudit.bands import canonical
from geoaudit.networks.architectures import Architecture, classifier_name
from geoaudit.networks.spec import InputSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PREFIX", "pretrained_spec", "pretrained_state"]

PREFIX = "torchgeo:"
"""Before the name of a weights enum: ``torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO``."""

_SENSORS = {"SENTINEL2": "sentinel-2", "LANDSAT_OLI": "landsat-8"}


def _weights(name: str) -> Any:
    from torchgeo.models import get_weight

    text = name.removeprefix(PREFIX)
    try:
        weights = get_weight(text)
    except (ValueError, KeyError) as error:
        raise NetworkError(f"torchgeo has no weights {text!r}; one is ResNet18_Weights.SENTINEL2_ALL_MOCO") from error
    return weights


def pretrained_spec(
    name: str, *, scale: float | None = None, class_names: Sequence[str] = (), chip_size: tuple[int, int] | None = None
) -> InputSpec:
    """The input that torchgeo's weights were trained on, from their own band list and transforms.

    A centre crop in the transforms becomes a resize, so that activation maps cover the whole image.

    Args:
        name: ``torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO``.
        scale: pixel units per digital number of the training data; None is 1e-4 (reflectance a Sentinel-2 DN) for
            Sentinel-2 weights trained on plain DN, and refused for others.
        class_names: of the head's outputs.
        chip_size: (height, width) of the pixels given; None means the network's own input size.

    Raises:
        NetworkError: no such weights, transforms that are no scaling and resizing, or bands or units that must be told.

    """
    weights = _weights(name)
    bands = _bands(weights)
    mean, std, size, plain = _scaling(weights, len(bands))
    if scale is None:
        if not (plain and weights.name.startswith("SENTINEL2")):
            raise NetworkError(
                f"{name}: was not trained on plain Sentinel-2 digital numbers; pass scale= (pixel units per number, "
                "1/255 for photographs)"
            )
        scale = 1e-4
    return InputSpec(
        bands=bands,
        mean=tuple(value * scale for value in mean),
        std=tuple(value * scale for value in std),
        input_size=size,
        chip_size=chip_size,
        class_names=tuple(class_names),
        name=name.removeprefix(PREFIX),
        model=f"timm:{weights.meta['model']}",
    )


def weight_bands(name: str) -> tuple[str, ...]:
    """The bands that weights list of themselves, in their order.

    Raises:
        NetworkError: no such weights, or they do not name their bands.
    """
    return _bands(_weights(name))


def _bands(weights: Any) -> tuple[str, ...]:
    names = weights.meta.get("bands")
    sensor = next((sensor for prefix, sensor in _SENSORS.items() if weights.name.startswith(prefix)), None)
    if names is None or sensor is None:
        raise NetworkError(
            f"torchgeo's {weights} does not say which bands it takes in names this project knows "
            f"({', '.join(names or ()) or 'none'}); give a card that names them by role (red, nir, swir16 ...)"
        )
    try:
        return tuple(canonical(band, sensor) for band in names)
    except ProbeError as error:
        raise NetworkError(f"torchgeo's {weights}: {error}; give a card") from error


def _scaling(weights: Any, count: int) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, int], bool]:
    """Mean and std of all normalisations in a row, the input size, and whether they start from plain DN."""
    import numpy as np
    from torch import nn
    from torchvision.transforms import v2

    mean, std = np.zeros(count), np.ones(count)
    size: tuple[int, int] | None = None
    steps = 0
    for step in weights.transforms:
        if isinstance(step, v2.Normalize):
            # (x - mean)/std once more: mean grows by the old std times the new mean.
            mean = mean + std * np.asarray(step.mean, dtype=float)
            std = std * np.asarray(step.std, dtype=float)
            steps += 1
        elif isinstance(step, v2.Resize | v2.CenterCrop):
            height, width = (list(step.size) * 2)[:2]
            size = (int(height), int(width))
        elif not isinstance(step, nn.Identity):
            raise NetworkError(f"torchgeo's {weights} transforms images by {step}, which no card can say; give a card")
    plain = steps == 1 and bool((std != 255).all())
    return tuple(mean.tolist()), tuple(std.tolist()), size or (224, 224), plain


def pretrained_state(
    name: str, checkpoint: Path | None, head: str | Path | None
) -> tuple[Architecture, dict[str, Tensor]]:
    """Backbone and head as one state dict, and the architecture it fits.

    Args:
        name: ``torchgeo:ENUM.NAME``.
        checkpoint: file of the backbone's weights; None takes torch's hub cache, or downloads them.
        head: file with the head's ``weight`` (classes, features) and ``bias``; None if the checkpoint holds it.

    Raises:
        NetworkError: the weights cannot be read or fetched, or there is no head.

    """
    weights = _weights(name)
    last = classifier_name(Architecture("timm", str(weights.meta["model"])))
    state = _fetch(name, weights) if checkpoint is None else dict(read_checkpoint(checkpoint).state_dict)
    if head is not None:
        given = read_checkpoint(head).state_dict
        parts = {part: [v for k, v in given.items() if k.split(".")[-1] == part] for part in ("weight", "bias")}
        if len(parts["weight"]) != 1 or len(parts["bias"]) > 1 or parts["weight"][0].ndim != 2:
            raise NetworkError(f"{head}: a head is one linear layer's weight (classes, features) and bias")
        import torch

        weight = parts["weight"][0]
        bias = parts["bias"][0] if parts["bias"] else torch.zeros(weight.shape[0])
        state = {**state, f"{last}.weight": weight, f"{last}.bias": bias}
    if f"{last}.weight" not in state:
        raise NetworkError(f"{name}: is a backbone without classes; give the head you trained on it (head=)")
    architecture = Architecture(
        "timm",
        str(weights.meta["model"]),
        in_channels=int(weights.meta["in_chans"]),
        outputs=int(state[f"{last}.weight"].shape[0]),
    )
    return architecture, state


def _fetch(name: str, weights: Any) -> dict[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise NetworkError(
            f"{name}: its weights are not in torch's hub cache and cannot be fetched from {weights.url} ({error}); "
            "download the file and give its path as the checkpoint"
        ) from error
    return dict(state)
