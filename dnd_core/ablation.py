"""Ablation: what a network still knows when some units are held at their mean (method section 4, grade 3).

Many sets of units are tried on the same images. Each batch is read once, runs through the whole network once, and for
every set only the part behind its first edited layer runs again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dnd_core.errors import ConfigError, NetworkError
from dnd_core.forward import blocks_of, device_of, order_channels, prefetched, run, tensor_of
from dnd_core.hooks import attached, edit, main_tensor
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network

__all__ = ["Ablation", "UnitSet", "UnitStatistics", "matched_random_sets", "unit_statistics"]

UnitSet = Mapping[str, Sequence[int]]
"""Layer name -> units."""


@dataclass(frozen=True, eq=False)
class UnitStatistics:
    """What is known of a layer's units over the probe.

    Attributes:
        means: (units,) float64, the value that an ablated unit takes.
        norms: (units,) float64 root mean square, by which random sets are matched.
    """

    means: NDArray[np.float64]
    norms: NDArray[np.float64]


def unit_statistics(
    activations: NDArray[np.float32], indices: ArrayLike | None = None, block: int = 4096
) -> UnitStatistics:
    """Mean and root mean square of every unit.

    Args:
        activations: (N, units), may be memory-mapped: it is read in blocks of rows.
        indices: only these images; all when None.
        block: rows read at a time.

    Raises:
        ConfigError: there are no images.
    """
    rows = np.arange(len(activations)) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(rows) == 0:
        raise ConfigError("means of units need at least one image")
    total = np.zeros(activations.shape[1])
    squared = np.zeros(activations.shape[1])
    for first in range(0, len(rows), block):
        part = np.asarray(activations[rows[first : first + block]], dtype=np.float64)
        total += part.sum(axis=0)
        squared += (part**2).sum(axis=0)
    return UnitStatistics(total / len(rows), np.sqrt(squared / len(rows)))


class Ablation:
    """A network some of whose units can be held at their means.

    Args:
        network: the target network.
        layers: what is known about the layers to edit.
        means: layer name -> (units,) values that ablated units take at every position.

    Raises:
        ConfigError: a layer has no means, or their number is not its number of units.
    """

    def __init__(self, network: Network, layers: Sequence[LayerInfo], means: Mapping[str, ArrayLike]) -> None:
        self._network, self._layers = network, tuple(layers)
        self._means = {name: np.asarray(values, dtype=np.float64) for name, values in means.items()}
        for info in layers:
            known = self._means.get(info.name)
            if known is None or known.shape != (info.units,):
                raise ConfigError(f"ablating layer {info.name!r} needs the means of its {info.units} units")
        self._trace = _trace(network)

    def logits_with(
        self,
        images: ImageSet,
        sets: Sequence[UnitSet],
        *,
        indices: ArrayLike | None = None,
        batch_size: int = 64,
        on_block: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The network's answers as it is, and with each set of units held at their means.

        Args:
            images: the images.
            sets: S sets of units; an empty one changes nothing.
            indices: N of the images, in this order; all when None.
            batch_size: images a forward pass.
            on_block: called with (done, total) images.

        Returns:
            Logits (N, classes) of the whole network and (S, N, classes) of the ablated ones. A segmentation network's
            logits are averaged over space.

        Raises:
            LayerNotFound: a set names a layer that is not among the layers given.
            NetworkError: a unit is outside its layer, or the network cannot run on the images.
        """
        rows = np.arange(len(images)) if indices is None else np.asarray(indices, dtype=np.int64)
        edits = [
            {layer: {int(u): float(self._mean(layer, u)) for u in units} for layer, units in s.items()} for s in sets
        ]
        replays = [self._skippable([layer for layer, units in s.items() if len(units)]) for s in sets]
        needed = sorted(set().union(*replays)) if replays else []
        order, device = order_channels(self._network, images), device_of(self._network.module)

        def read(block: range) -> NDArray[np.float32]:
            return order(images.pixels(rows[block.start : block.stop].tolist()))

        ready = replace(self._network, preprocess=_as_given)
        base: list[NDArray[np.float32]] = []
        touched: dict[tuple[str, ...], frozenset[str]] = {}
        ablated: list[list[NDArray[np.float32]]] = []
        for block, pixels in prefetched(read, blocks_of(len(rows), batch_size)):
            # Preprocessing comes before every layer, so no edit can change it: it runs once a batch.
            batch = self._network.preprocess(tensor_of(pixels, device))
            with _remembering(self._network.module, needed) as outputs:
                base.append(_logits(run(ready, batch)))
            for replay in set(replays) - set(touched):
                touched[replay] = self._overwritten(ready, batch, {name: outputs[name] for name in replay})
            answers = []
            for changes, replay in zip(edits, replays, strict=True):
                kept = {name: outputs[name] for name in replay}
                with (
                    _replaying(self._network.module, kept, touched[replay]),
                    edit(self._network.module, self._layers, changes),
                ):
                    answers.append(_logits(run(ready, batch)))
            ablated.append(answers)
            if on_block is not None:
                on_block(block.stop, len(rows))
        whole = np.concatenate(base) if base else np.zeros((0, 0), dtype=np.float32)
        each = [np.concatenate([batch[number] for batch in ablated]) for number in range(len(sets)) if ablated]
        return whole, np.stack(each) if each else np.zeros((len(sets), *whole.shape), dtype=np.float32)

    def _overwritten(self, ready: Network, batch: Tensor, outputs: Mapping[str, Tensor]) -> frozenset[str]:
        """Modules whose played-back answer is changed in place by what comes after them; only those need a copy."""
        trial = {name: tensor.clone() for name, tensor in outputs.items()}
        with _replaying(self._network.module, trial, frozenset()):
            run(ready, batch)
        return frozenset(name for name, tensor in trial.items() if not torch.equal(tensor, outputs[name]))

    def _mean(self, layer: str, unit: int) -> float:
        # Edits check layers and units themselves; nothing is looked up for those it will refuse.
        values = self._means.get(layer)
        return float(values[unit]) if values is not None and 0 <= unit < len(values) else 0.0

    def _skippable(self, layers: Sequence[str]) -> tuple[str, ...]:
        """The outermost modules that have finished when the first edited layer has: no edit can change their answer."""
        # The output finishes after every submodule; an empty set edits nothing, so everything can be played back.
        last = math.inf
        finished = [self._trace[name].finished if name in self._trace else last for name in layers] or [last]
        early = {n for n, call in self._trace.items() if call.replayable and call.finished <= min(finished)}
        return tuple(sorted(name for name in early if not any(parent in early for parent in _parents(name))))


def _as_given(pixels: Tensor) -> Tensor:
    return pixels


@dataclass(frozen=True)
class _Call:
    finished: int
    replayable: bool


def _trace(network: Network) -> dict[str, _Call]:
    """When each submodule finishes in a forward pass, and whether its answer can be played back."""
    calls: dict[str, _Call] = {}
    clock = 0

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal clock
            clock += 1
            calls[name] = _Call(clock, name not in calls and isinstance(output, Tensor))

        return hook

    hooks = [
        (module, hook_for(name))
        for name, module in network.module.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    with attached(hooks):
        run(network, torch.zeros((2, *network.input_shape), device=device_of(network.module)))
    return calls


def _parents(name: str) -> Iterator[str]:
    path = name.split(".")
    return (".".join(path[:length]) for length in range(1, len(path)))


@contextmanager
def _remembering(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    held: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        # Copied at once: a later in-place operation would change it.
        return lambda _module, _inputs, output: held.update({name: output.clone()})

    named = dict(module.named_modules())
    with attached([(named[name], hook_for(name)) for name in names]):
        yield held


@contextmanager
def _replaying(module: nn.Module, outputs: Mapping[str, Tensor], copied: Set[str]) -> Iterator[None]:
    """Modules answer with what they answered before, without running; those in ``copied`` with a copy of it."""

    def answer(tensor: Tensor, copy: bool) -> Callable[..., Tensor]:
        return lambda *_inputs, **_options: tensor.clone() if copy else tensor

    named = dict(module.named_modules())
    with ExitStack() as stack:
        for name, tensor in outputs.items():
            # An entry of the instance hides the class's method; taking it out brings the method back.
            hidden = named[name].__dict__.get("forward")
            named[name].__dict__["forward"] = answer(tensor, name in copied)
            stack.callback(_restore, named[name], hidden)
        yield


def _restore(module: nn.Module, hidden: Any) -> None:
    del module.__dict__["forward"]
    if hidden is not None:
        module.__dict__["forward"] = hidden


def _logits(answer: Any) -> NDArray[np.float32]:
    tensor = main_tensor(answer)
    if tensor is None or tensor.ndim not in (2, 4):
        raise NetworkError("ablation needs a network that answers (B, classes) logits or (B, classes, H, W) maps")
    values = tensor.float() if tensor.ndim == 2 else tensor.float().mean(dim=(2, 3))
    return np.asarray(values.cpu().numpy())


def matched_random_sets(
    units: UnitSet,
    norms: Mapping[str, ArrayLike],
    draws: int,
    *,
    seed: int = 0,
    exclude: UnitSet | None = None,
    nearest: int = 5,
) -> list[dict[str, list[int]]]:
    """Random sets of other units, matched layer by layer in number and activation norm.

    For each unit, in random order, one of the ``nearest`` unused units by norm is drawn.

    Args:
        units: the set to match.
        norms: layer name -> (units,) norms, see :func:`unit_statistics`.
        draws: how many sets.
        seed: decides the draws.
        exclude: units that may not be drawn besides those of the set (those of related groups).
        nearest: among how many units of the closest norm to draw.

    Returns:
        Sets of the same layers and sizes; units sorted.

    Raises:
        ConfigError: a layer has fewer other units than the set holds.
    """
    generator = np.random.default_rng([seed, *sorted(int(u) for its in units.values() for u in its)])
    free: dict[str, NDArray[np.int64]] = {}
    for layer, its in units.items():
        taken = {*map(int, its), *(map(int, exclude.get(layer, ())) if exclude is not None else ())}
        free[layer] = np.array([u for u in range(len(np.asarray(norms[layer]))) if u not in taken], dtype=np.int64)
        if len(free[layer]) < len(its):
            raise ConfigError(
                f"layer {layer!r} has {len(free[layer])} units outside the {len(its)} to ablate, too few for random "
                "sets of the same size: ablate fewer units, or exclude fewer"
            )
    sets = []
    for _ in range(draws):
        drawn = {}
        for layer, its in units.items():
            norm, left, mine = np.asarray(norms[layer], dtype=np.float64), free[layer], []
            for unit in generator.permutation(np.asarray(its, dtype=np.int64)):
                close = np.argsort(np.abs(norm[left] - norm[unit]), kind="stable")[:nearest]
                picked = int(generator.choice(close))
                mine.append(int(left[picked]))
                left = np.delete(left, picked)
            drawn[layer] = sorted(mine)
        sets.append(drawn)
    return sets
