"""Loading a trained vision network by name, without running any code that a weight file may carry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnd_core.checkpoints import read_checkpoint
from dnd_core.errors import ConfigError, NetworkError
from dnd_core.images import RGB
from dnd_core.networks import Network, weights_fingerprint

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Standardise", "fill", "load"]

_PREFIXES = ("", "model.", "module.", "network.", "net.", "module.model.", "_orig_mod.", "model._orig_mod.")
_DEFAULT_CLASSES = 1000


@dataclass(frozen=True)
class Standardise:
    """Preprocessing of a network trained on standardised pixels: (pixels - mean) / std, channel by channel.

    Attributes:
        mean: one number a channel, in the pixels' units.
        std: likewise, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or any(not value > 0 for value in self.std):
            raise ConfigError(f"mean {self.mean} and std {self.std} need one number a channel, std above 0")

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) pixels, standardised; the argument stays as it is."""
        import torch

        shape = (1, len(self.mean), 1, 1)
        mean, std = (torch.tensor(v, dtype=pixels.dtype, device=pixels.device) for v in (self.mean, self.std))
        return (pixels - mean.view(shape)) / std.view(shape)


_UNCHANGED = Standardise((0.0,), (1.0,))


def load(
    name: str,
    weights: Path | None = None,
    class_names: Sequence[str] = (),
    *,
    random_weights: bool = False,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Network:
    """A network by name, with its weights and the preprocessing they were trained with.

    Args:
        name: ``torchvision:resnet18``, ``timm:resnet10t``, ``torchscript:PATH``, or a factory
            ``package.module:function`` that returns a module or a whole :class:`~dnd_core.networks.Network`.
        weights: safetensors, or a pickle of plain tensors: a state dict or a Lightning checkpoint. The number of
            classes follows from it.
        class_names: names of the outputs, in order.
        random_weights: go on without weights, with initial ones drawn from a fixed seed.
        input_size: rows and columns of the images; by default the size the published weights were trained on.
            TorchScript files and factories that return a bare module have no such default.
        mean: of each channel, subtracted from pixels in [0, 1]; by default the published weights' own (none for
            TorchScript and factories).
        std: likewise, divided by.

    Raises:
        ConfigError: the name has no known form, or mean, std and class names do not fit the network.
        NetworkError: there is no such network, no weights were given, or they do not fit; names the keys.
    """
    if input_size is not None and input_size < 1:
        raise ConfigError(f"input_size must be at least 1 pixel, got {input_size}")
    kind, _, rest = name.partition(":")
    if kind == "torchscript":
        from dnd_core.torchscript import read_torchscript

        if weights is not None:
            raise ConfigError(f"{name} holds its own weights: leave out weights={weights}")
        network = _bare(read_torchscript(rest), name, input_size)
    elif kind in ("torchvision", "timm"):
        network = _published(kind, rest, weights, random_weights, input_size)
    elif rest or "." in name:
        module_name, function = (kind, rest) if rest else name.rsplit(".", 1)
        network = _from_factory(module_name, function, weights, input_size)
    else:
        raise ConfigError(
            f"a network is named torchvision:NAME, timm:NAME, torchscript:PATH or package.module:factory, got {name!r}"
        )
    return _finished(network, class_names, mean, std)


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict whose keys may carry a wrapper's prefix (``model.`` of a Lightning task).

    Args:
        module: takes the tensors.
        state: name -> tensor; those outside the prefix (a loss's class weights) are left aside.
        source: for messages.

    Raises:
        NetworkError: keys are missing, left over, or of another shape; nothing was loaded.
    """
    own = module.state_dict()
    mine = _stripped(state, own)
    missing = [key for key in own if key not in mine]
    extra = [key for key in mine if key not in own]
    misfits = [
        f"{key} is {tuple(mine[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in mine and mine[key].shape != own[key].shape
    ]
    faults = [
        f"{what}: {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", misfits))
        if keys
    ]
    if faults:
        told = f"{source} does not fit {type(module).__name__} ({'; '.join(faults)})"
        raise NetworkError(f"{told}: name the architecture that it was trained as")
    module.load_state_dict(mine)


def _stripped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    best = max(_PREFIXES, key=lambda prefix: sum(key in own for key in under(prefix)))
    return under(best)


def _published(kind: str, name: str, weights: Path | None, random_weights: bool, input_size: int | None) -> Network:
    if weights is None and not random_weights:
        raise NetworkError(
            f"{kind}:{name} was given no weights, and a network with random weights has nothing to describe: "
            "give a weight file, or ask for random weights by name for a trial"
        )
    build, size, preprocess = _torchvision(name) if kind == "torchvision" else _timm(name)
    module = _built(build, _DEFAULT_CLASSES)
    if weights is not None:
        state = read_checkpoint(weights).state_dict
        classes = _classes_in(state, module)
        if classes != _DEFAULT_CLASSES:
            module = _built(build, classes)
        fill(module, state, str(weights))
    side = input_size or size
    return Network(module, preprocess, (3, side, side), RGB, name=name)


def _built(build: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """Initial weights come from a fixed seed, and the caller's random state stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(classes)


def _classes_in(state: Mapping[str, Tensor], module: nn.Module) -> int:
    """How many classes a state dict's head has: the one size by which it differs from a head of 1000."""
    own = module.state_dict()
    mine = _stripped(state, own)
    sizes = {
        int(mine[key].shape[0])
        for key, value in own.items()
        if key in mine
        and value.ndim > 0
        and mine[key].ndim == value.ndim
        and value.shape[0] == _DEFAULT_CLASSES != mine[key].shape[0]
        and mine[key].shape[1:] == value.shape[1:]
    }
    return sizes.pop() if len(sizes) == 1 else _DEFAULT_CLASSES


def _torchvision(name: str) -> tuple[Callable[[int], nn.Module], int, Standardise]:
    import difflib

    from torchvision import models

    classifiers = models.list_models(module=models)
    if name not in classifiers:
        near = difflib.get_close_matches(name, classifiers, n=3)
        raise NetworkError(f"torchvision has no classifier {name!r}; the nearest are {', '.join(near) or 'none'}")
    transforms = models.get_model_weights(name).DEFAULT.transforms()

    def build(classes: int) -> nn.Module:
        options: dict[str, Any] = {"weights": None, "num_classes": classes}
        if name.startswith(("googlenet", "inception")):
            options["init_weights"] = False
        module: nn.Module = models.get_model(name, **options)
        return module

    return build, int(transforms.crop_size[0]), Standardise(tuple(transforms.mean), tuple(transforms.std))


def _timm(name: str) -> tuple[Callable[[int], nn.Module], int, Standardise]:
    import difflib

    import timm
    from timm.data.config import resolve_data_config

    plain = name.split(".")[0]
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain, timm.list_models(), n=3)
        raise NetworkError(f"timm has no model {name!r}; the nearest are {', '.join(near) or 'none'}")
    published: Any = timm.get_pretrained_cfg(name)
    fields = published.to_dict() if published is not None else {}
    config: Any = resolve_data_config(pretrained_cfg=fields)  # type: ignore[no-untyped-call]

    def build(classes: int) -> nn.Module:
        module: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
        return module

    return build, int(config["input_size"][-1]), Standardise(tuple(config["mean"]), tuple(config["std"]))


def _from_factory(module_name: str, function: str, weights: Path | None, input_size: int | None) -> Network:
    from torch import nn

    try:
        factory = getattr(import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise NetworkError(f"the network factory {module_name}:{function} cannot be imported: {error}") from error
    try:
        made = factory()
    except Exception as error:
        # Somebody else's code may fail in any way; --debug shows where.
        said = " ".join(str(error).split())[:200]
        raise NetworkError(
            f"the network factory {module_name}:{function} failed: {type(error).__name__}: {said}"
        ) from error
    if isinstance(made, Network):
        if weights is not None:
            fill(made.module, read_checkpoint(weights).state_dict, str(weights))
            made = _renewed(made, made.preprocess, made.class_names)
        return made
    if not isinstance(made, nn.Module):
        raise NetworkError(f"{module_name}:{function} returned {type(made).__name__}, not a torch module or a Network")
    if weights is not None:
        fill(made, read_checkpoint(weights).state_dict, str(weights))
    return _bare(made, function, input_size)


def _bare(module: nn.Module, name: str, input_size: int | None) -> Network:
    if input_size is None:
        raise NetworkError(f"{name} does not say the size of its images: give input_size, in pixels")
    return Network(module, _UNCHANGED, (3, input_size, input_size), RGB, name=name.rsplit("/", 1)[-1])


def _finished(
    network: Network, class_names: Sequence[str], mean: Sequence[float] | None, std: Sequence[float] | None
) -> Network:
    import torch

    from dnd_core.forward import device_of, run
    from dnd_core.hooks import main_tensor

    preprocess = network.preprocess
    if (mean is None) != (std is None):
        raise ConfigError("give mean and std together")
    if mean is not None and std is not None:
        preprocess = Standardise(tuple(mean), tuple(std))
        if len(preprocess.mean) not in (1, network.input_shape[0]):
            raise ConfigError(f"mean has {len(preprocess.mean)} numbers for {network.input_shape[0]} channels")
    names = tuple(class_names) or network.class_names
    answer = main_tensor(run(network, torch.zeros((2, *network.input_shape), device=device_of(network.module))))
    if answer is None or answer.ndim not in (2, 4):
        raise NetworkError(f"{network.name} does not answer with (B, classes) logits or (B, classes, H, W) maps")
    if names and len(names) != answer.shape[1]:
        raise ConfigError(f"{len(names)} class names were given for the {answer.shape[1]} outputs of {network.name}")
    return _renewed(network, preprocess, names)


def _renewed(network: Network, preprocess: Callable[[Tensor], Tensor], class_names: tuple[str, ...]) -> Network:
    """The same network with another preprocessing and a fingerprint that tells both."""
    weights = weights_fingerprint(network.module)
    told = repr(preprocess) if isinstance(preprocess, Standardise) else network.fingerprint
    fingerprint = hashlib.sha256(f"{weights} {told} {network.input_shape}".encode()).hexdigest()
    return Network(
        network.module,
        preprocess,
        network.input_shape,
        network.channels,
        class_names,
        network.name,
        fingerprint,
    )
