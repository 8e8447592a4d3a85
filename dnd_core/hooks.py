"""Reading and editing activations while a network runs.

Every hook lives inside a ``with`` and is gone when the block ends, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dnd_core.errors import LayerNotFound, NetworkError

if TYPE_CHECKING:
    from dnd_core.layers import LayerInfo

__all__ = ["OUTPUT", "Opaque", "attached", "edit", "find_module", "main_tensor", "record", "with_main_tensor"]

OUTPUT = "output"
"""The layer name that always means the network's own output."""


class Opaque(nn.Module):
    """A compiled TorchScript module made hookable from outside.

    PyTorch refuses hooks on scripted modules, so only the whole network's answer can be seen:
    the one layer of an opaque network is ``output``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


def find_module(module: nn.Module, name: str) -> nn.Module:
    """The submodule at a dotted path; ``output`` is the network itself.

    Raises:
        LayerNotFound: there is no such submodule.
        NetworkError: the submodule is compiled TorchScript, which takes no hooks.

    """
    found = module if name == OUTPUT else dict(module.named_modules()).get(name)
    if found is None:
        raise LayerNotFound(f"the network has no layer {name!r}; `dnd layers` lists what it has")
    if isinstance(found, torch.jit.ScriptModule):
        raise NetworkError(
            f"layer {name!r} is compiled TorchScript and takes no hooks: wrap the network in dnd_core.hooks.Opaque "
            "and use its layer 'output', or load the network as a plain PyTorch module"
        )
    return found


def main_tensor(output: Any) -> Tensor | None:
    """The tensor that a module's answer is about: itself, the first of a tuple, or a mapping's logits; else None."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for key in ("logits", "out", "last_hidden_state"):
            if isinstance(output.get(key), Tensor):
                return output[key]  # type: ignore[no-any-return]
        return next((value for value in output.values() if isinstance(value, Tensor)), None)
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def with_main_tensor(output: Any, tensor: Tensor) -> Any:
    """The same answer with its :func:`main_tensor` replaced."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, Mapping):
        old = main_tensor(output)
        return type(output)(**{key: tensor if value is old else value for key, value in output.items()})
    rest = tuple(output[1:])
    return type(output)((tensor, *rest)) if not hasattr(output, "_fields") else type(output)(tensor, *rest)


@contextmanager
def attached(hooks: Sequence[tuple[nn.Module, Callable[[nn.Module, Any, Any], Any]]]) -> Iterator[None]:
    """Forward hooks ``hook(module, inputs, output)`` that exist only inside the ``with``."""
    with ExitStack() as stack:
        for module, hook in hooks:
            handle = module.register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


@contextmanager
def record(
    module: nn.Module,
    names: Sequence[str],
    transform: Callable[[str, Tensor], Tensor] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of layers while the network runs inside the ``with``.

    Args:
        module: the network.
        names: dotted paths, or ``output``.
        transform: applied to (name, output) at the moment the layer has run. By default the output is copied:
            a later in-place operation (``ReLU(inplace=True)``) would otherwise change what was recorded.

    Yields:
        A dictionary, empty at first; after each forward pass it holds the latest tensor a layer.

    Raises:
        LayerNotFound: a name is no submodule.
        NetworkError: a layer takes no hooks or answers with no tensor.

    """
    held: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = main_tensor(output)
            if tensor is None:
                raise NetworkError(f"layer {name!r} answers with {type(output).__name__}, not with a tensor")
            held[name] = tensor.detach().clone() if transform is None else transform(name, tensor.detach())

        return hook

    with attached([(find_module(module, name), hook_for(name)) for name in names]):
        yield held


@contextmanager
def edit(
    module: nn.Module,
    layers: Sequence[LayerInfo],
    edits: Mapping[str, Mapping[int, float]],
) -> Iterator[None]:
    """Replace whole activation maps of units by constants while inside the ``with``.

    Args:
        module: the network.
        layers: what is known about the edited layers (at least those named in ``edits``).
        edits: layer name -> {unit: value}. Every position of the unit, class and register tokens
            included, takes the value.

    Raises:
        LayerNotFound: an edited layer is not among ``layers`` or not in the network.
        NetworkError: a unit is outside its layer.

    """
    infos = {info.name: info for info in layers}
    hooks = []
    for name, values in edits.items():
        if name not in infos:
            raise LayerNotFound(f"layer {name!r} is edited but not described: pass its LayerInfo")
        wrong = [unit for unit in values if not 0 <= unit < infos[name].units]
        if wrong:
            raise NetworkError(f"layer {name!r} has units 0 to {infos[name].units - 1}, not {wrong[0]}")
        if values:
            hooks.append((find_module(module, name), _replacing(infos[name], values)))
    with attached(hooks):
        yield


def _replacing(info: LayerInfo, values: Mapping[int, float]) -> Callable[[nn.Module, Any, Any], Any]:
    units = torch.tensor(sorted(values), dtype=torch.long)
    constants = torch.tensor([values[int(unit)] for unit in units], dtype=torch.float32)

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = main_tensor(output)
        if tensor is None:
            raise NetworkError(f"layer {info.name!r} answers with {type(output).__name__}, not with a tensor")
        edited = tensor.clone()
        shape = [1] * tensor.ndim
        shape[info.unit_axis] = len(units)
        replacement = (
            constants.to(tensor)
            .view(shape)
            .expand(
                [len(units) if axis == info.unit_axis % tensor.ndim else size for axis, size in enumerate(tensor.shape)]
            )
        )
        edited.index_copy_(info.unit_axis, units.to(tensor.device), replacement)
        return with_main_tensor(output, edited)

    return hook
