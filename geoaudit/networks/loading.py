"""From a model file and its card to a network that the engine can look into."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dnd_core.errors import NetworkError
from dnd_core.networks import Network, weights_fingerprint
from geoaudit.networks.architectures import (
    Architecture,
    binary_to_two_logits,
    build,
    from_hyper_parameters,
    infer_shape,
    load_weights,
)
from geoaudit.networks.checkpoints import file_sha256, is_torchscript, read_checkpoint
from geoaudit.networks.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

    from geoaudit.cards import ModelCard

__all__ = ["InputSpec", "load_network", "with_channels"]

log = logging.getLogger(__name__)

Task = Literal["scene-classification", "semantic-segmentation"]


@dataclass(frozen=True)
class InputSpec:
    """What a checkpoint does not say of itself: what its network eats and what its answers are called.

    Attributes:
        bands: names of the bands it takes, in its order.
        mean, std: of the training data on reflectance, one a band: it was trained on ``(reflectance - mean) / std``.
            A network trained on raw Sentinel-2 DN has mean 0 and std 1e-4.
        input_size: (height, width) it is fed.
        chip_size: (height, width) of the pixels given, before they are resized to ``input_size``; None means the same.
        class_names: of its outputs, in order.
        task: a class for the image, or for every pixel; None takes the checkpoint's word.
        name: shown to people.
        model: the architecture, ``timm:resnet18``; needed for plain weights.
        sha256: of the checkpoint file; empty leaves it unchecked.

    Raises:
        NetworkError: no bands, bands named twice, or a size below one pixel.

    """

    bands: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_size: tuple[int, int] = (64, 64)
    chip_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    task: Task | None = None
    name: str = ""
    model: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise NetworkError(f"name each band of the network once, got {list(self.bands)}")
        if min(self.input_size) < 1 or min(self.chip_size or self.input_size) < 1:
            raise NetworkError(f"sizes must be at least 1 x 1 pixel, got {self.input_size} and {self.chip_size}")

    def preprocess(self, channels: Sequence[str] | None = None) -> Preprocess:
        """The preprocessing of pixels whose channels are ``channels`` (default: the network's own bands)."""
        count = len(self.bands)
        return Preprocess(
            channels=tuple(channels or self.bands),
            bands=self.bands,
            mean=self.mean or (0.0,) * count,
            std=self.std or (1.0,) * count,
            size=self.input_size,
        )


def load_network(
    checkpoint: str | Path,
    card: ModelCard | InputSpec | str | Path,
    *,
    model: str | None = None,
    channels: Sequence[str] | None = None,
    chip_size: int | tuple[int, int] | None = None,
) -> Network:
    """A trained network, safely loaded, with the preprocessing its card tells of.

    What may be in the file:

    - a Lightning checkpoint of torchgeo's ``ClassificationTask`` or ``SemanticSegmentationTask``: the architecture
      is read from it;
    - plain weights (``.safetensors`` or a state dict) of a timm, torchvision or smp model that ``model`` or the card
      names;
    - a TorchScript archive: it runs, but only its outputs can be looked at (layer ``output``).

    A network with one binary logit answers two (0 and the logit), so that class 1 is "yes". Layers keep the names
    they have in their library (``layer4``, ``encoder.layer3``, ``decoder.blocks.0``).

    Args:
        checkpoint: the model file.
        card: its model card, or the path of one, or an :class:`InputSpec` where there is no card.
        model: architecture of plain weights, ``timm:resnet18``, ``torchvision:resnet18``, ``smp:unet:resnet18``.
        channels: names of the channels of the pixels that will be given, if they stand in another order than the
            card's bands or are more of them.
        chip_size: (height, width) of the pixels that will be given; default the card's.

    Raises:
        NetworkError: the file cannot be read, wants to run code, or contradicts its card; the message says which.

    """
    path = Path(checkpoint)
    spec = _spec(card)
    if not path.is_file():
        raise NetworkError(f"{path}: no such file; give the path of a checkpoint")
    if spec.sha256 and file_sha256(path) != spec.sha256.lower():
        raise NetworkError(
            f"{path}: is not the file its card describes (its sha256 differs); fetch it again or fix the card"
        )
    module, architecture = _module(path, model or spec.model, bool(model))
    name = spec.name or path.stem
    if architecture is None:
        name = f"{name} (TorchScript: only its outputs are units)"
        log.warning("%s is TorchScript: only its outputs can be described, no inner layer", path)
    names = spec.class_names
    if architecture is not None:
        names = _agree(path, architecture, spec, bool(model))
        if architecture.outputs == 1:
            binary_to_two_logits(module)
    size = (chip_size, chip_size) if isinstance(chip_size, int) else chip_size or spec.chip_size or spec.input_size
    network = _network(module, spec.preprocess(channels), size, names, name)
    _try(network, path)
    return network


def with_channels(network: Network, channels: Sequence[str], chip_size: tuple[int, int] | None = None) -> Network:
    """The same network for pixels with other channels (another order, or some to spare) or of another size.

    Raises:
        NetworkError: a band it needs is missing, or it was not loaded by :func:`load_network`.

    """
    if not isinstance(network.preprocess, Preprocess):
        raise NetworkError(f"{network.name} was not loaded with a card, so its bands are unknown; use load_network")
    preprocess = network.preprocess.given(channels)
    size = chip_size or network.input_shape[1:]
    return _network(network.module, preprocess, size, network.class_names, network.name)


def _network(
    module: nn.Module, preprocess: Preprocess, size: tuple[int, int], class_names: tuple[str, ...], name: str
) -> Network:
    both = f"{weights_fingerprint(module)} {preprocess.fingerprint}"
    return Network(
        module=module,
        preprocess=preprocess,
        input_shape=(len(preprocess.channels), int(size[0]), int(size[1])),
        channels=preprocess.channels,
        class_names=class_names,
        name=name,
        fingerprint=hashlib.sha256(both.encode()).hexdigest(),
    )


def _spec(card: ModelCard | InputSpec | str | Path) -> InputSpec:
    if isinstance(card, InputSpec):
        return card
    if isinstance(card, str | Path):
        from geoaudit.cards import load_card

        card = load_card(card)
    return InputSpec(
        bands=tuple(card.bands),
        mean=tuple(card.mean),
        std=tuple(card.std),
        input_size=(card.input_size, card.input_size),
        chip_size=(card.chip_size, card.chip_size),
        class_names=tuple(card.class_names),
        task=card.task,
        name=card.name,
        model=card.architecture,
        sha256=card.sha256,
    )


def _module(path: Path, model: str, named: bool) -> tuple[nn.Module, Architecture | None]:
    """The network in a file and what it is; None for TorchScript, whose insides cannot be told."""
    if is_torchscript(path):
        from geoaudit.networks.torchscript import read_torchscript

        return read_torchscript(path), None
    found = read_checkpoint(path)
    if found.lightning and not named and found.hyper_parameters:
        architecture = from_hyper_parameters(found.hyper_parameters, str(path))
    elif model:
        architecture = infer_shape(Architecture.parse(model), found.state_dict, str(path))
    else:
        raise NetworkError(f"{path}: does not name the network its weights are for; give model=, such as timm:resnet18")
    module = build(architecture)
    load_weights(module, found.state_dict, str(architecture), str(path))
    return module, architecture


def _agree(path: Path, architecture: Architecture, spec: InputSpec, named: bool) -> tuple[str, ...]:
    """The class names, once card and checkpoint are found to speak of the same network."""
    if architecture.in_channels != len(spec.bands):
        raise NetworkError(
            f"{path}: takes {architecture.in_channels} bands, but its card names {len(spec.bands)} "
            f"({', '.join(spec.bands)}); correct the card's bands or use its own checkpoint"
        )
    names = spec.class_names
    if architecture.outputs == 1:
        # One logit stands for yes; a card that names only that class leaves "no" to be named here.
        names = (f"not {names[0]}", names[0]) if len(names) == 1 else names
    answers = 2 if architecture.outputs == 1 else architecture.outputs
    if names and len(names) != answers:
        raise NetworkError(
            f"{path}: answers {answers} classes, but its card names {len(names)} ({', '.join(names)}); "
            "correct the card's classes or use its own checkpoint"
        )
    if spec.task is not None and (spec.task == "semantic-segmentation") != architecture.dense:
        kind = "segments pixels" if architecture.dense else "classifies whole images"
        raise NetworkError(f"{path}: {kind}, but its card says {spec.task}; correct the card's task")
    if spec.model and not named:
        said = Architecture.parse(spec.model)
        if (said.name, said.encoder) != (architecture.name, architecture.encoder):
            raise NetworkError(
                f"{path}: holds {architecture}, but its card says {said}; correct the card's architecture"
            )
    return names


def _try(network: Network, path: Path) -> None:
    """Run one black image through: a network that cannot eat its own card's input is found here, not hours later."""
    import torch

    black = torch.zeros(1, *network.input_shape)
    try:
        answer = network(black)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NetworkError(
            f"{path}: cannot take an input of {tuple(network.preprocess(black).shape[1:])} as its card says: {reason}"
        ) from error
    if not isinstance(answer, torch.Tensor) or answer.ndim not in (2, 4):
        raise NetworkError(f"{path}: must answer (B, classes) or (B, classes, H, W), got {type(answer).__name__}")
    if not torch.isfinite(answer).all():
        raise NetworkError(f"{path}: answers NaN or infinity for a black image; check its weights and the card's std")
    if network.class_names and answer.shape[1] != len(network.class_names):
        raise NetworkError(
            f"{path}: answers {answer.shape[1]} classes, its card names {len(network.class_names)}; correct the card"
        )
