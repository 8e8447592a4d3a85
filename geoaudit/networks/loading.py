"""From a model file and its card to a network that the engine can look into."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dnd_core.checkpoints import is_torchscript, read_checkpoint
from dnd_core.errors import NetworkError
from dnd_core.networks import Network, weights_fingerprint
from dnd_core.store import file_sha256
from geoaudit.networks.architectures import (
    Architecture,
    binary_to_two_logits,
    build,
    from_hyper_parameters,
    infer_shape,
    load_weights,
)
from geoaudit.networks.preprocess import Preprocess
from geoaudit.networks.pretrained import PREFIX, pretrained_spec, pretrained_state
from geoaudit.networks.spec import InputSpec, spec_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from geoaudit.cards import ModelCard

__all__ = ["load_network", "with_channels"]

log = logging.getLogger(__name__)


def load_network(
    checkpoint: str | Path,
    card: ModelCard | InputSpec | str | Path | None = None,
    *,
    model: str | None = None,
    head: str | Path | None = None,
    channels: Sequence[str] | None = None,
    chip_size: int | tuple[int, int] | None = None,
) -> Network:
    """A trained network, safely loaded, with the preprocessing its card tells of.

    What may be in the file:

    - a Lightning checkpoint of torchgeo's ``ClassificationTask`` or ``SemanticSegmentationTask``: the architecture
      is read from it;
    - plain weights (``.safetensors`` or a state dict) of a timm, torchvision or smp model that ``model`` or the card
      names;
    - a backbone of torchgeo (``model="torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"``) beside the ``head`` trained on
      it; ``torchgeo:...`` in place of the checkpoint takes the weights from torch's hub cache, or fetches them;
    - a TorchScript archive: it runs, but only its outputs can be looked at (layer ``output``).

    A network with one binary logit answers two (0 and the logit), so that class 1 is "yes". Layers keep the names
    they have in their library (``layer4``, ``encoder.layer3``, ``decoder.blocks.0``).

    Args:
        checkpoint: the model file.
        card: its model card, or the path of one, or an :class:`InputSpec`; torchgeo's backbones can do without.
        model: architecture of plain weights, ``timm:resnet18``, ``torchvision:resnet18``, ``smp:unet:resnet18``.
        head: file of the linear head of a torchgeo backbone, where the checkpoint has none.
        channels: names of the channels of the pixels that will be given, if they stand in another order than the
            card's bands or are more of them.
        chip_size: (height, width) of the pixels that will be given; default the card's.

    Raises:
        NetworkError: the file cannot be read, wants to run code, or contradicts its card; the message says which.
    """
    hub = str(checkpoint).startswith(PREFIX)
    name = str(checkpoint) if hub else model or ""
    if card is None and not name.startswith(PREFIX):
        raise NetworkError(f"{checkpoint}: give the card of the network, since its file names no bands and no classes")
    spec = pretrained_spec(name) if card is None else spec_of(card)
    path = Path(checkpoint)
    if not hub:
        _check_file(path, spec)
    module: nn.Module
    title = spec.name or path.stem
    names = spec.class_names
    if not hub and is_torchscript(path):
        from dnd_core.torchscript import read_torchscript

        module = read_torchscript(path)
        title = f"{title} (TorchScript: only its outputs are units)"
        log.warning("%s is TorchScript: only its outputs can be described, no inner layer", path)
    else:
        architecture, state = _contents(path, None if hub else path, name or spec.model, bool(name), head)
        names = _agree(path, architecture, spec, bool(name))
        module = build(architecture)
        load_weights(module, state, str(architecture), str(path))
        if architecture.outputs == 1:
            binary_to_two_logits(module)
    size = (chip_size, chip_size) if isinstance(chip_size, int) else chip_size or spec.chip_size or spec.input_size
    network = _network(module, spec.preprocess(channels), size, names, title)
    _try(network, path)
    return network


def _check_file(path: Path, spec: InputSpec) -> None:
    if not path.is_file():
        raise NetworkError(f"{path}: no such file; give the path of a checkpoint")
    if spec.sha256 and file_sha256(path) != spec.sha256.lower():
        raise NetworkError(f"{path}: is not the file of its card (the sha256 differs); fetch it again or fix the card")


def _contents(
    path: Path, file: Path | None, model: str, named: bool, head: str | Path | None
) -> tuple[Architecture, dict[str, Tensor]]:
    """What network a file holds, and its weights."""
    if model.startswith(PREFIX):
        return pretrained_state(model, file, head)
    if head is not None:
        raise NetworkError(f"{path}: a head goes with a torchgeo backbone; name it with model={PREFIX}...")
    found = read_checkpoint(path)
    if found.lightning and not named and found.hyper_parameters:
        return from_hyper_parameters(found.hyper_parameters, str(path)), found.state_dict
    if model:
        return infer_shape(Architecture.parse(model), found.state_dict, str(path)), found.state_dict
    raise NetworkError(f"{path}: does not name the network its weights are for; give model=, such as timm:resnet18")


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
    if spec.model and not named and not _same(architecture, spec.model):
        raise NetworkError(
            f"{path}: holds {architecture}, but its card says {spec.model}; correct the card's architecture"
        )
    return names


def _same(architecture: Architecture, said: str) -> bool:
    """Whether a card's words mean this architecture: ``timm:resnet18`` exactly, ``ResNet-18`` loosely."""
    if said == str(architecture) or said.startswith(PREFIX):
        return True
    if said.partition(":")[0] in ("timm", "torchvision", "smp"):
        return False
    words = "".join(letter for letter in said.lower() if letter.isalnum())
    parts = (architecture.name, architecture.encoder)
    return all("".join(letter for letter in part.lower() if letter.isalnum()) in words for part in parts)


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
