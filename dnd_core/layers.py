"""Which layers a network has, and what one image's activation of each looks like.

One dry forward pass of zeros tells the shapes; the kind of a layer (where its units are) follows from the
module that made it, from the tensor it was made of, and only then from the shape.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dnd_core.errors import LayerNotFound, NetworkError
from dnd_core.networks import Network

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Kind", "LayerInfo", "list_layers", "resolve"]

Kind = Literal["map", "map_last", "tokens", "vector"]


@dataclass(frozen=True)
class LayerInfo:
    """A layer whose units can be described.

    Attributes:
        name: dotted path of the submodule, or ``output`` for the network's own output.
        kind: ``map`` (units, H, W), ``map_last`` (H, W, units), ``tokens`` (T, units) or ``vector`` (units,).
        shape: of one image's activation, without the batch.
        units: how many units.
        prefix_tokens: class and register tokens in front of the patch tokens; 0 for other kinds.
        grid: rows and columns of the patch tokens, or None where they lie on no known grid or the kind is another.
        module: class name of the submodule, for people.

    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    units: int
    prefix_tokens: int = 0
    grid: tuple[int, int] | None = None
    module: str = ""

    @property
    def unit_axis(self) -> int:
        """Axis of the units in a batch's activation."""
        return 1 if self.kind in ("map", "vector") else -1

    @property
    def spatial(self) -> bool:
        """Whether a unit has a map from which crops can be cut."""
        return self.kind in ("map", "map_last") or self.grid is not None


@dataclass(frozen=True)
class _TokenFacts:
    prefix: int
    grid: tuple[int, int] | None


def list_layers(network: Network) -> list[LayerInfo]:
    """The layers of a network in the order they run, ``output`` last, from one dry forward pass of zeros.

    Left out are submodules that run more than once in a pass (a shared ReLU has no activation of its own),
    and those whose answer is not per image (attention windows, attention weights).
    For compiled TorchScript the only layer is ``output``.

    Raises:
        NetworkError: the network cannot run on zeros of its input shape.

    """
    return _survey(network)[0]


def resolve(network: Network, patterns: Sequence[str]) -> list[LayerInfo]:
    """The layers that names or globs (``layer*``, ``blocks.?``) match, in the order they run, each once.

    Raises:
        LayerNotFound: a pattern matches nothing; the message names the nearest layers, or says why
            the layer cannot be used.

    """
    layers, refused = _survey(network)
    names = [info.name for info in layers]
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise LayerNotFound(_not_found(network, pattern, names, refused))
        chosen.update(matched)
    return [info for info in layers if info.name in chosen]


def _not_found(network: Network, pattern: str, names: list[str], refused: dict[str, str]) -> str:
    if pattern in refused:
        return f"layer {pattern!r} of {network.name} {refused[pattern]}; choose another layer"
    if names == ["output"]:
        return f"{network.name} has no layer {pattern!r}: its inside cannot be hooked (TorchScript); use 'output'"
    nearest = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[-3:]
    return f"{network.name} has no layer {pattern!r}; the nearest are {', '.join(nearest)}"


def _survey(network: Network) -> tuple[list[LayerInfo], dict[str, str]]:
    """The usable layers, and the reasons why other submodules are not."""
    import torch

    from dnd_core.hooks import OUTPUT, attached, main_tensor

    root = network.module
    named = {
        name or OUTPUT: module
        for name, module in root.named_modules()
        if not isinstance(module, torch.jit.ScriptModule) and name != OUTPUT
    }
    if OUTPUT not in named:
        raise NetworkError(f"{network.name} is bare TorchScript: wrap it in dnd_core.hooks.Opaque to see its output")
    batch = 2
    kinds = _Kinds(named, network.input_shape[1:])
    found: dict[str, LayerInfo] = {}
    refused: dict[str, str] = {}

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = main_tensor(output)
            if tensor is None or not tensor.is_floating_point():
                refused[name] = "answers with no tensor of numbers"
            elif name in found or name in refused:
                found.pop(name, None)
                refused[name] = "runs more than once in a forward pass, so it has no activation of its own"
            else:
                kind = kinds.of(name, module, inputs, tensor) if tensor.shape[0] == batch else None
                if kind is None or 0 in tensor.shape:
                    refused[name] = f"answers with {tuple(tensor.shape)}, which is no activation of units per image"
                else:
                    found[name] = _describe(name, kind, module, tensor, kinds.tokens_of(name))

        return hook

    device = next((p.device for p in root.parameters()), torch.device("cpu"))
    zeros = torch.zeros((batch, *network.input_shape), device=device)
    try:
        with attached([(module, hook_for(name)) for name, module in named.items()]):
            network(zeros)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise NetworkError(
            f"{network.name} cannot run on images of shape {network.input_shape} (channels, rows, columns): {error}"
        ) from error
    last = found.pop(OUTPUT, None)
    if last is None:
        raise NetworkError(f"{network.name} {refused.get(OUTPUT, 'gives no output')}: logits (B, classes) are needed")
    return [*found.values(), last], refused


def _describe(name: str, kind: Kind, module: nn.Module, tensor: Tensor, facts: _TokenFacts | None) -> LayerInfo:
    shape = tuple(int(size) for size in tensor.shape[1:])
    units = shape[-1] if kind in ("tokens", "map_last") else shape[0]
    prefix, grid = 0, None
    if kind == "tokens":
        prefix, grid = _token_layout(shape[0], facts)
    return LayerInfo(name, kind, shape, units, prefix, grid, type(module).__name__)


def _token_layout(tokens: int, facts: _TokenFacts | None) -> tuple[int, tuple[int, int] | None]:
    """How many of T tokens come before the patches, and the grid of the rest.

    A layer before the class token is joined on (a patch embedding) has exactly as many tokens as patches.
    """
    if facts is not None and facts.grid is not None:
        patches = facts.grid[0] * facts.grid[1]
        if tokens == patches + facts.prefix:
            return facts.prefix, facts.grid
        if tokens == patches:
            return 0, facts.grid
    for prefix in (facts.prefix if facts is not None else 0, 0):
        side = math.isqrt(max(0, tokens - prefix))
        if side > 1 and side * side == tokens - prefix:
            return prefix, (side, side)
    return (facts.prefix, None) if facts is not None and facts.prefix < tokens else (0, None)


class _Kinds:
    """Decides where the units of an activation are."""

    def __init__(self, named: dict[str, nn.Module], input_size: tuple[int, int]) -> None:
        self._named = named
        self._square = input_size[0] == input_size[1]
        self._known: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Kind] = {}
        # Tensors are held for the dry pass: a freed one's address could return as another tensor's.
        self._held: list[Tensor] = []
        self._tokens = {
            name: facts for name, module in named.items() if (facts := _token_facts(module, input_size)) is not None
        }

    def tokens_of(self, name: str) -> _TokenFacts | None:
        """What the nearest enclosing module knows about its tokens."""
        path = name.split(".")
        for length in range(len(path), 0, -1):
            if (facts := self._tokens.get(".".join(path[:length]))) is not None:
                return facts
        return self._tokens.get("output")

    def of(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Kind | None:
        kind = self._decide(name, module, inputs, output)
        if kind is not None:
            self._held.append(output)
            self._known[_identity(output)] = kind
        return kind

    def _decide(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Kind | None:
        from torch import Tensor, nn

        if output.ndim == 2:
            return "vector"
        if output.ndim == 3:
            channels_first = isinstance(module, (nn.Conv1d, nn.BatchNorm1d, nn.Flatten))
            return None if channels_first else "tokens"
        if output.ndim != 4:
            return None
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.Upsample)):
            return "map"
        # Attention weights and per-head queries are four-dimensional too, but no maps.
        if self._inside_attention(name):
            return None
        if isinstance(module, nn.Linear):
            return "map_last"
        if isinstance(module, nn.LayerNorm):
            channels = tuple(module.normalized_shape)
            last = "2d" not in type(module).__name__.lower() and channels == (output.shape[-1],)
            return "map_last" if last else "map"
        if (known := self._known.get(_identity(output))) is not None:
            return known
        if (declared := _declared_format(module, output)) is not None:
            return declared
        source = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        leaf = next(module.children(), None) is None
        if leaf and source is not None and source.shape == output.shape:
            known = self._known.get(_identity(source))
            if known is not None:
                return known
        return self._by_shape(output)

    def _inside_attention(self, name: str) -> bool:
        path = name.split(".")
        parents = (self._named.get(".".join(path[:length])) for length in range(1, len(path)))
        return any("attention" in type(parent).__name__.lower() for parent in parents)

    def _by_shape(self, output: Tensor) -> Kind:
        first, second, third = output.shape[1:]
        if self._square and first == second != third:
            return "map_last"
        return "map"


def _identity(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())


def _declared_format(module: nn.Module, output: Tensor) -> Kind | None:
    """What the class is known to answer with: Swin's blocks and stages keep their channels last."""
    declared = str(getattr(module, "output_fmt", "") or "").rsplit(".", 1)[-1]
    if declared in ("NHWC", "NCHW"):
        return "map_last" if declared == "NHWC" else "map"
    home, name = type(module).__module__, type(module).__name__
    if home.startswith(("timm.models.swin_transformer", "torchvision.models.swin_transformer")):
        return "map_last" if name != "SwinTransformer" else None
    if home.startswith("torchvision.") and name == "Permute":
        return {(0, 2, 3, 1): "map_last", (0, 3, 1, 2): "map"}.get(tuple(getattr(module, "dims", ())))  # type: ignore[return-value]
    return None


def _token_facts(module: nn.Module, input_size: tuple[int, int]) -> _TokenFacts | None:
    """Class and register tokens of the vision transformers of timm, torchvision and transformers."""
    from torch import nn

    prefix = getattr(module, "num_prefix_tokens", None)
    if isinstance(prefix, int):
        grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
        return _TokenFacts(prefix, (int(grid[0]), int(grid[1])) if grid is not None else None)
    if isinstance(getattr(module, "class_token", None), nn.Parameter) and isinstance(
        getattr(module, "patch_size", None), int
    ):
        patch = int(module.patch_size)  # type: ignore[arg-type]
        size = int(getattr(module, "image_size", input_size[0]))
        return _TokenFacts(1, (size // patch, size // patch))
    config: Any = getattr(module, "config", None)
    if getattr(config, "model_type", None) in ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "beit"):
        sides = [v if isinstance(v, int) else int(v[0]) for v in (config.image_size, config.patch_size)]
        side = sides[0] // sides[1]
        extra = int(getattr(config, "num_register_tokens", 0)) + (1 if config.model_type == "deit" else 0)
        return _TokenFacts(1 + extra, (side, side))
    return None
