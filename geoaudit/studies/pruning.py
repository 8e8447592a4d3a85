"""Pruning the units of a residual stage in its weights, so that nothing but a checkpoint is needed to do without them.

A unit is a channel of what the stage answers: ``relu(norm(conv(...)) + shortcut)`` of its last block. Its filter of the
last convolution and its scale and shift of the norm become 0, and so do its filter and norm in a shortcut that has
weights. A shortcut without weights hands on the channel of the block before, which other filters read too and which
was never described; there the norm's shift is set so low that the sum lies below 0 whatever comes, and the ReLU
answers 0. Either way the unit is exactly 0 on every image, and every other unit of the stage answers as before.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from dnd_core.errors import ConfigError, NetworkError
from dnd_core.hooks import record

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_pruned", "last_block", "prune", "touched"]

_SHORTCUTS = ("downsample", "shortcut")


def last_block(module: nn.Module, layer: str) -> nn.Module:
    """The residual block that a stage ends with.

    Raises:
        ConfigError: the layer is none, or does not end with one.
    """
    named = dict(module.named_modules())
    if layer not in named:
        raise ConfigError(f"the network has no module {layer!r} to prune in; name a stage such as layer4")
    block: nn.Module = named[layer]
    while isinstance(block, nn.Sequential) and len(block):
        block = list(block.children())[-1]
    if _numbered(block, "conv") is None or _numbered(block, "bn") is None:
        raise ConfigError(
            f"{layer} does not end with a residual block of convolutions conv1 ... and norms bn1 ... (it ends with "
            f"{type(block).__name__}), so its units cannot be pruned in weights; choose a stage such as layer4"
        )
    return block


def _numbered(block: nn.Module, kind: str) -> tuple[str, nn.Module] | None:
    """The last of ``conv1``, ``conv2`` ... with its name."""
    found = [(int(m[1]), name) for name, _ in block.named_children() if (m := re.fullmatch(rf"{kind}(\d+)", name))]
    return (max(found)[1], block.get_submodule(max(found)[1])) if found else None


def _projection(block: nn.Module) -> Iterator[nn.Module]:
    """Convolution and norm of a shortcut that has weights."""
    for name, part in block.named_modules():
        if name.split(".")[0] in _SHORTCUTS and isinstance(part, nn.Conv2d | nn.BatchNorm2d):
            yield part


def prune(module: nn.Module, layer: str, units: Sequence[int]) -> nn.Module:
    """A copy of a network that does without some units of a residual stage.

    Args:
        module: the network; it is not changed.
        layer: dotted path of the stage.
        units: channels of its answer.

    Raises:
        ConfigError: the layer does not end with a residual block, or a unit is outside it.
        NetworkError: the block ends with no convolution and batch norm, so channels cannot be pruned one by one.
    """
    pruned = copy.deepcopy(module)
    block = last_block(pruned, layer)
    (_, conv), (_, norm) = _numbered(block, "conv") or ("", block), _numbered(block, "bn") or ("", block)
    # Other norms take their scale from many channels at once, and pruning one would change its neighbours.
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or not norm.affine:
        raise NetworkError(
            f"the last block of {layer} ends with {type(conv).__name__} and {type(norm).__name__}; pruning in weights "
            "needs a convolution and a batch norm with scale and shift"
        )
    count = conv.out_channels
    wrong = [unit for unit in units if not 0 <= unit < count]
    if wrong:
        raise ConfigError(f"{layer} has units 0 to {count - 1}, so unit {wrong[0]} cannot be pruned")
    chosen = torch.as_tensor(sorted(set(map(int, units))), dtype=torch.long)
    with torch.no_grad():
        projection = list(_projection(block))
        for part in (conv, norm, *projection):
            for values in (part.weight, part.bias):
                if isinstance(values, nn.Parameter):
                    values[chosen] = 0.0
        if not projection:
            # A quarter of the lowest number: the sum with any activation stays finite and below 0.
            norm.bias[chosen] = torch.finfo(norm.bias.dtype).min / 4
    return pruned


def touched(module: nn.Module, pruned: nn.Module) -> dict[str, list[int]]:
    """Which channels of which parameters differ: name -> first-axis indices."""
    before, after = module.state_dict(), pruned.state_dict()
    found = {}
    for name, value in before.items():
        rows = (value != after[name]).reshape(len(value), -1).any(dim=1) if value.ndim else value != after[name]
        if bool(rows.any()):
            found[name] = [int(row) for row in torch.nonzero(rows.reshape(-1)).reshape(-1)]
    return found


def check_pruned(
    module: nn.Module, pruned: nn.Module, layer: str, units: Sequence[int], inputs: Tensor
) -> tuple[float, float]:
    """What pruning did to a stage's answer on some inputs.

    Args:
        module: the network before.
        pruned: the network after.
        layer: the stage.
        units: those pruned.
        inputs: (B, C, H, W) as the network takes them, preprocessed.

    Returns:
        The largest absolute answer of a pruned unit, and the largest change of any other unit; both are 0 where
        pruning is exact.
    """
    answers = []
    for network in (module, pruned):
        with torch.inference_mode(), record(network, [layer]) as seen:
            network(inputs)
            answers.append(seen[layer].clone())
    mine = torch.zeros(answers[0].shape[1], dtype=torch.bool)
    mine[list(units)] = True
    left = answers[1][:, mine].abs().max() if mine.any() else torch.zeros(())
    moved = (answers[1] - answers[0])[:, ~mine].abs().max() if (~mine).any() else torch.zeros(())
    return float(left), float(moved)
