"""Where a layer's cells really look: their displacement from the grid of equal rectangles.

A convolution of odd kernel with padding and stride 2 centres its first cell on the first pixel, not on the middle of
the first two. Over a plain ResNet this adds up to half a cell, 16 input pixels at the last layer, always towards the
upper left. It is measured as the centroid of the input gradient (the effective receptive field of Luo et al., NeurIPS
2016), which needs no knowledge of the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnd_core.networks import Network
from geoaudit.windows import SpatialError

if TYPE_CHECKING:
    from torch import Tensor

    from dnd_core.layers import LayerInfo

__all__ = ["measure_offsets"]


def measure_offsets(
    network: Network, layers: Sequence[LayerInfo], images: int = 4, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """How far each layer's cells lie from their rectangles, for the ``offsets`` of a sliding pass.

    Cells at the rim see less on one side, so only inner cells count where a layer has three or more; layers without
    space (and of one cell) are left out.

    Args:
        network: differentiated with respect to its pixels, its preprocessing included.
        layers: the layers to measure.
        images: random images averaged over.
        seed: of the images.

    Returns:
        Layer -> (rows, columns) in pixels of the network's own chip, to the nearest half pixel; negative is up, left.

    Raises:
        SpatialError: no gradient reaches the pixels (compiled or non-differentiable networks).

    """
    import torch

    from dnd_core.hooks import attached, find_module, main_tensor
    from dnd_core.pooling import unit_maps

    spatial = [info for info in layers if info.spatial]
    generator = torch.Generator().manual_seed(seed)
    device = next((parameter.device for parameter in network.module.parameters()), torch.device("cpu"))
    pixels = (torch.rand((images, *network.input_shape), generator=generator) * 0.5).to(device).requires_grad_()
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = main_tensor(output)
            if tensor is not None:
                # An operation of its own: a later in-place ReLU must not reach back into what is differentiated.
                held[name] = tensor * 1

        return hook

    found: dict[str, tuple[float, float]] = {}
    with torch.enable_grad():
        # The engine's own recording detaches activations; here their history is the point.
        with attached([(find_module(network.module, info.name), keep(info.name)) for info in spatial]):
            network.module(network.preprocess(pixels))
        for info in spatial:
            maps = unit_maps(held[info.name], info)
            if maps is None or not maps.requires_grad:
                raise SpatialError(
                    f"no gradient passes from layer {info.name!r} to the pixels of {network.name}, so the place of its "
                    "cells cannot be measured: map it without offsets"
                )
            found[info.name] = (_offset(maps, pixels, 2), _offset(maps, pixels, 3))
    return found


def _offset(maps: Tensor, pixels: Tensor, axis: int) -> float:
    """Median distance of the gradient's centroid from the middle of its cell, along one axis, in pixels."""
    import torch

    cells, size = maps.shape[axis], pixels.shape[axis]
    inner = range(1, cells - 1) if cells >= 3 else range(cells)
    distances = []
    for cell in inner:
        # Squares, so that units of either sign add up instead of cancelling.
        (gradient,) = torch.autograd.grad((maps.select(axis, cell) ** 2).sum(), pixels, retain_graph=True)
        profile = gradient.abs().sum(dim=[0, 1, 5 - axis]).double().cpu().numpy()
        if profile.sum() > 0:
            centroid = float((profile * (np.arange(size) + 0.5)).sum() / profile.sum())
            distances.append(centroid - (cell + 0.5) * size / cells)
    return round(2 * float(np.median(distances))) / 2 if distances and cells > 1 else 0.0
