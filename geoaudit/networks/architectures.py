"""Empty networks from their names: timm, torchvision and segmentation-models, with any number of bands and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from dnd_core.errors import NetworkError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Architecture",
    "binary_to_two_logits",
    "build",
    "classifier_name",
    "from_hyper_parameters",
    "infer_shape",
    "load_weights",
]

_SMP = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "deeplabv3+": "DeepLabV3Plus",
    "deeplabv3plus": "DeepLabV3Plus",
    "fpn": "FPN",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "dpt": "DPT",
    "linknet": "Linknet",
    "manet": "MAnet",
    "pan": "PAN",
    "pspnet": "PSPNet",
}
# Left behind in checkpoints by losses and metrics; they are no part of the network.
_TRAINING_ONLY = ("criterion.", "loss.", "train_metrics.", "val_metrics.", "test_metrics.")
_PREFIXES = ("", "model.", "module.", "net.", "network.", "model.module.", "_orig_mod.", "model._orig_mod.")


@dataclass(frozen=True)
class Architecture:
    """Which network to build.

    Attributes:
        family: ``timm``, ``torchvision``, ``smp`` or ``fcn`` (torchgeo's plain convolutional segmenter).
        name: the model's name in its family.
        encoder: the backbone of an smp model; empty elsewhere.
        in_channels: bands it takes.
        outputs: logits it answers, per image or per pixel.
        task: ``multiclass``, ``multilabel`` or ``binary``.
        options: further arguments of its constructor.

    """

    family: str
    name: str
    encoder: str = ""
    in_channels: int = 3
    outputs: int = 1000
    task: str = "multiclass"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ":".join(part for part in (self.family, self.name, self.encoder) if part)

    @property
    def dense(self) -> bool:
        """Answers a class for every pixel."""
        return self.family in ("smp", "fcn")

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """``timm:resnet18``, ``torchvision:resnet18`` or ``smp:unet:resnet18``; a bare name is timm's.

        Raises:
            NetworkError: the family is unknown or the name incomplete.

        """
        family, _, rest = text.partition(":") if ":" in text else ("timm", ":", text)
        name, _, encoder = rest.partition(":")
        complete = bool(name) and (family == "smp") == bool(encoder)
        if family not in ("timm", "torchvision", "smp") or not complete:
            raise NetworkError(
                f"unknown architecture {text!r}: write timm:NAME, torchvision:NAME or smp:NAME:ENCODER, "
                "for instance smp:unet:resnet18"
            )
        return cls(family, name, encoder)


def from_hyper_parameters(parameters: Mapping[str, Any], where: str) -> Architecture:
    """The network of a torchgeo ``ClassificationTask`` or ``SemanticSegmentationTask``.

    Args:
        parameters: ``hyper_parameters`` of the Lightning checkpoint.
        where: the file, for messages.

    Raises:
        NetworkError: another task made the checkpoint, or it has no hyper-parameters.

    """
    needed = {"model", "in_channels", "loss"}
    given = ", ".join(sorted(map(str, parameters))) or "none"
    if not needed <= set(parameters) or "trainable_layers" in parameters or "num_outputs" in parameters:
        raise NetworkError(
            f"{where}: its hyper_parameters ({given}) are not those of torchgeo's "
            "ClassificationTask or SemanticSegmentationTask; name the network with model=, such as timm:resnet18"
        )
    outputs = parameters.get("num_classes") or parameters.get("num_labels") or 1
    task = str(parameters.get("task", "multiclass"))
    common: dict[str, Any] = {"in_channels": int(parameters["in_channels"]), "outputs": int(outputs), "task": task}
    name = str(parameters["model"])
    if "backbone" not in parameters:
        return Architecture("timm", name, **common)
    if name == "fcn":
        return Architecture("fcn", "fcn", options={"num_filters": int(parameters.get("num_filters", 3))}, **common)
    return Architecture("smp", name, str(parameters["backbone"]), **common)


def build(architecture: Architecture) -> nn.Module:
    """The network with random weights.

    Raises:
        NetworkError: its family has no model of that name, or its library is missing.

    """
    builders = {"timm": _build_timm, "torchvision": _build_torchvision, "smp": _build_smp, "fcn": _build_fcn}
    return builders[architecture.family](architecture)


def _unknown(architecture: Architecture, name: str, known: list[str]) -> NetworkError:
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known[:8])} ..."
    return NetworkError(f"{architecture.family} has no model {name!r}: {hint}")


def _build_timm(architecture: Architecture) -> nn.Module:
    import timm

    # Names such as hf-hub:... would reach for the network, so only the registry's own are let through.
    if not timm.is_model(architecture.name.split(".")[0]):
        raise _unknown(architecture, architecture.name, timm.list_models())
    model: nn.Module = timm.create_model(
        architecture.name,
        pretrained=False,
        in_chans=architecture.in_channels,
        num_classes=architecture.outputs,
        **architecture.options,
    )
    return model


def _build_torchvision(architecture: Architecture) -> nn.Module:
    import torchvision
    from torch import nn

    known = torchvision.models.list_models(module=torchvision.models)
    if architecture.name not in known:
        raise _unknown(architecture, architecture.name, known)
    model: nn.Module = torchvision.models.get_model(
        architecture.name, weights=None, num_classes=architecture.outputs, **architecture.options
    )
    if architecture.in_channels != 3:
        name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
        settings = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        chosen = {setting: getattr(first, setting) for setting in settings}
        _replace(model, name, nn.Conv2d(architecture.in_channels, bias=first.bias is not None, **chosen))
    return model


def _build_smp(architecture: Architecture) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise NetworkError(
            f"{architecture} needs segmentation-models-pytorch: pip install geoaudit[segmentation]"
        ) from error
    if architecture.name not in _SMP:
        raise _unknown(architecture, architecture.name, list(_SMP))
    try:
        model: nn.Module = getattr(smp, _SMP[architecture.name])(
            encoder_name=architecture.encoder,
            encoder_weights=None,
            in_channels=architecture.in_channels,
            classes=architecture.outputs,
            **architecture.options,
        )
    except (KeyError, RuntimeError) as error:
        raise _unknown(architecture, architecture.encoder, sorted(smp.encoders.get_encoder_names())) from error
    return model


def _build_fcn(architecture: Architecture) -> nn.Module:
    from torchgeo.models import FCN

    model: nn.Module = FCN(in_channels=architecture.in_channels, classes=architecture.outputs, **architecture.options)
    return model


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _ends(model: nn.Module) -> tuple[str, str]:
    """Names of the layer that takes the bands and of the one that answers the classes."""
    from torch import nn

    settings = getattr(model, "default_cfg", None) or {}
    first, last = settings.get("first_conv"), settings.get("classifier")
    if isinstance(first, str) and isinstance(last, str):
        return first, last
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    answers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return convolutions[0], answers[-1]


def classifier_name(architecture: Architecture) -> str:
    """Name of the layer that answers the classes."""
    return _ends(build(architecture))[1]


def infer_shape(architecture: Architecture, state: Mapping[str, Tensor], where: str) -> Architecture:
    """The architecture with the bands and classes that its weights have.

    Raises:
        NetworkError: the weights are of another architecture.

    """
    first, last = _ends(build(architecture))
    state = _stripped(state, (f"{first}.weight", f"{last}.weight"))
    missing = [name for name in (first, last) if f"{name}.weight" not in state]
    if missing:
        raise NetworkError(
            f"{where}: holds no {missing[0]}.weight, so it is not a {architecture}; name the right one with model="
        )
    shape = state[f"{first}.weight"].shape
    return replace(architecture, in_channels=int(shape[1]), outputs=int(state[f"{last}.weight"].shape[0]))


def _stripped(state: Mapping[str, Tensor], wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """The state under the prefix a wrapper (Lightning, DataParallel, compile) put before every name."""
    prefix = max(_PREFIXES, key=lambda p: sum(f"{p}{name}" in state for name in wanted))
    return {name.removeprefix(prefix): value for name, value in state.items() if not name.startswith(_TRAINING_ONLY)}


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str, where: str) -> None:
    """Copy weights into a network; every weight must find its place and every place its weight.

    Raises:
        NetworkError: names or shapes differ, or a weight is NaN or infinite.

    """
    import torch

    target = module.state_dict()
    state = _stripped(state, tuple(target))
    # Old checkpoints lack this counter, which no evaluation reads.
    missing = [n for n in target if n not in state and not n.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in target]
    shapes = [n for n in target if n in state and state[n].shape != target[n].shape]
    problems = []
    if missing:
        problems.append(f"lacks {_some(missing)}")
    if unknown:
        problems.append(f"has {_some(unknown)} too many")
    if shapes:
        name = shapes[0]
        problems.append(f"has {name} of shape {tuple(state[name].shape)} where {tuple(target[name].shape)} is needed")
    if problems:
        raise NetworkError(f"{where}: does not fit {what}: it {', and '.join(problems)}; check the architecture")
    broken = [n for n, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise NetworkError(f"{where}: {_some(broken)} hold NaN or infinity; use a checkpoint from before it diverged")
    module.load_state_dict(dict(state), strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def binary_to_two_logits(module: nn.Module) -> None:
    """Let a one-logit network answer two: 0 for "not", its own logit for "is", whose softmax is its sigmoid.

    The last layer is widened in place, so every layer keeps its name.

    Raises:
        NetworkError: its last layer is no linear or convolutional layer with one output.

    """
    import torch
    from torch import nn

    name = _ends(module)[1]
    old = module.get_submodule(name)
    if isinstance(old, nn.Linear) and old.out_features == 1:
        new: nn.Linear | nn.Conv2d = nn.Linear(old.in_features, 2, bias=True)
    elif isinstance(old, nn.Conv2d) and old.out_channels == 1:
        new = nn.Conv2d(old.in_channels, 2, old.kernel_size, old.stride, old.padding, old.dilation)  # type: ignore[arg-type]
    else:
        raise NetworkError(f"a binary network must end in a layer with one output, {name} is {old}")
    bias = torch.zeros(1) if old.bias is None else old.bias
    with torch.no_grad():
        new.weight.copy_(torch.cat([torch.zeros_like(old.weight), old.weight]))
        new.bias = nn.Parameter(torch.cat([torch.zeros_like(bias), bias]))
    _replace(module, name, new)
