"""The part of a network behind a layer, run from recorded activations.

Ablating many sets of units on many images would run the whole network once a set. What lies before the edited layer
does not change, so it runs once and only the rest, the tail, runs again. Whether a network can be cut there is tried,
not assumed: the tail must give the network's own answer back, which it does not where a connection passes around the
layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.hooks import OUTPUT, find_module, main_tensor, record, with_main_tensor
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ablated_logits"]

Floats = NDArray[np.float32]


def ablated_logits(
    network: Network,
    images: ImageSet,
    indices: Sequence[int] | NDArray[np.int64],
    info: LayerInfo,
    sets: Sequence[NDArray[np.int64]],
    values: NDArray[np.float32],
    *,
    pixels: Any = None,
    batch_size: int = 128,
) -> Floats:
    """Answers of a network while sets of units of one layer are held at given values.

    Args:
        network: the network.
        images: what it is shown.
        indices: which of them.
        info: the layer.
        sets: units to hold, one array a set; an empty one leaves the network as it is.
        values: (units,) what each unit is held at, everywhere in its map.
        pixels: a function from an index array to (B, C, H, W) pixels, in place of ``images.pixels``.
        batch_size: images a pass.

    Returns:
        (sets, images, classes) float32; maps of segmentation networks are averaged over space.
    """
    import torch

    rows = np.asarray(indices, dtype=np.int64)
    read = pixels or (lambda part: images.pixels(part.tolist()))
    held = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    answers: list[list[Floats]] = [[] for _ in sets]
    cut: _Cut | None = None
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            shown = torch.from_numpy(np.ascontiguousarray(read(rows[start : start + batch_size])))
            ready = network.preprocess(shown)
            if cut is None:
                cut = _Cut(network.module, info, ready[:2])
            maps, plain = cut.front(ready)
            for number, units in enumerate(sets):
                if len(units) == 0:
                    answer = plain
                else:
                    edited = maps.clone()
                    index = torch.from_numpy(np.asarray(units, dtype=np.int64))
                    axis = info.unit_axis % edited.ndim
                    shape = [1] * edited.ndim
                    shape[axis] = len(index)
                    constant = held[index].reshape(shape).expand(_size(edited, axis, index))
                    edited.index_copy_(axis, index, constant)
                    answer = cut.back(edited, ready)
                if answer.ndim == 4:
                    answer = answer.mean(dim=(2, 3))
                answers[number].append(answer.float().numpy())
    return np.stack([np.concatenate(part) for part in answers])


def _size(tensor: Tensor, axis: int, index: Tensor) -> list[int]:
    size = list(tensor.shape)
    size[axis] = len(index)
    return size


class _Cut:
    """A network cut behind a layer; where the cut is not exact the whole runs, with the layer's answer replaced."""

    def __init__(self, module: nn.Module, info: LayerInfo, trial: Tensor) -> None:
        self.module, self.info = module, info
        self.target = find_module(module, info.name)
        self.before = [] if info.name == OUTPUT else _finished_before(module, self.target, trial)
        maps, plain = self.front(trial)
        self.exact = bool(self.before) and _close(self.back(maps, trial), plain)
        if not self.exact:
            self.before = []

    def front(self, ready: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's answer and the network's."""
        with record(self.module, [self.info.name]) as held:
            answer = main_tensor(self.module(ready))
        if answer is None:
            raise TypeError(f"{type(self.module).__name__} answers with no tensor")
        return held[self.info.name], answer

    def back(self, maps: Tensor, ready: Tensor) -> Tensor:
        """The network's answer were the layer's answer ``maps``."""
        if self.info.name == OUTPUT:
            return maps
        with _skipping(self.before), _answering(self.target, maps):
            answer = main_tensor(self.module(ready))
        if answer is None:
            raise TypeError(f"{type(self.module).__name__} answers with no tensor")
        return answer


def _close(one: Tensor, two: Tensor) -> bool:
    import torch

    return one.shape == two.shape and bool(torch.allclose(one, two, rtol=1e-4, atol=1e-5))


def _finished_before(module: nn.Module, target: nn.Module, trial: Tensor) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """The largest submodules that ran once, answered with a tensor, and were done before ``target`` began."""
    from torch import Tensor

    calls: dict[nn.Module, int] = {}
    done: dict[nn.Module, tuple[int, ...]] = {}
    begun = [False]

    def before_call(called: nn.Module, _inputs: Any) -> None:
        calls[called] = calls.get(called, 0) + 1
        begun[0] = begun[0] or called is target

    def after_call(called: nn.Module, _inputs: Any, output: Any) -> None:
        if not begun[0] and isinstance(output, Tensor):
            done[called] = tuple(output.shape[1:])

    with ExitStack() as stack:
        for part in module.modules():
            stack.callback(part.register_forward_pre_hook(before_call).remove)
            stack.callback(part.register_forward_hook(after_call).remove)
        module(trial)
    once = {part: shape for part, shape in done.items() if calls[part] == 1}
    inside = {child for part in once for child in part.modules() if child is not part}
    return [(part, shape) for part, shape in once.items() if part not in inside]


@contextmanager
def _skipping(parts: Sequence[tuple[nn.Module, tuple[int, ...]]]) -> Iterator[None]:
    """Let submodules whose answers do not matter answer with zeros of the right shape."""
    import torch

    def zeros(shape: tuple[int, ...]) -> Any:
        return lambda *inputs, **_: torch.zeros((inputs[0].shape[0], *shape))

    with ExitStack() as stack:
        for part, shape in parts:
            part.forward = zeros(shape)
            stack.callback(delattr, part, "forward")
        yield


@contextmanager
def _answering(target: nn.Module, maps: Tensor) -> Iterator[None]:
    """Let a submodule answer with what it is given."""

    def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return with_main_tensor(output, maps)

    handle = target.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
