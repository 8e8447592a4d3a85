"""Attribution: how a class's score would change if a unit of a layer fired a little more everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import NetworkError
from dnd_core.forward import blocks_of, device_of, order_channels, tensor_of
from dnd_core.hooks import attached, find_module, main_tensor, with_main_tensor
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network

__all__ = ["sensitivities"]


def sensitivities(
    network: Network,
    info: LayerInfo,
    images: ImageSet,
    classes: Sequence[int],
    *,
    indices: ArrayLike | None = None,
    batch_size: int = 64,
) -> NDArray[np.float64]:
    """Derivative of each class's score by a shift of a whole activation map, averaged over images.

    The score is the class's logit less the mean logit, so what lifts all classes alike counts for nothing. Times the
    change of a unit's mean activation it says, to first order, how far that change moved the network towards the class.

    Args:
        network: the target network.
        info: the layer.
        images: the images at which the derivative is taken.
        classes: C outputs.
        indices: N of the images; all when None.
        batch_size: images a pass.

    Returns:
        (C, units) float64; logits a unit of activation.

    Raises:
        NetworkError: the layer answers with no tensor, or nothing that it says reaches the output.
    """
    rows = np.arange(len(images)) if indices is None else np.asarray(indices, dtype=np.int64)
    order, device = order_channels(network, images), device_of(network.module)
    total = np.zeros((len(classes), info.units))
    with torch.enable_grad():
        shift = torch.zeros(info.units, device=device, requires_grad=True)
        with attached([(find_module(network.module, info.name), _shifting(info, shift))]):
            for block in blocks_of(len(rows), batch_size):
                pixels = order(images.pixels(rows[block.start : block.stop].tolist()))
                answer = main_tensor(network.module(network.preprocess(tensor_of(pixels, device))))
                if answer is None or not answer.requires_grad:
                    raise NetworkError(f"what layer {info.name!r} of {network.name} says does not reach the output")
                logits = answer.float() if answer.ndim == 2 else answer.float().mean(dim=(2, 3))
                scores = (logits - logits.mean(dim=1, keepdim=True)).sum(dim=0)
                for place, target in enumerate(classes):
                    (found,) = torch.autograd.grad(scores[target], shift, retain_graph=True)
                    total[place] += found.cpu().numpy()
    return total / max(1, len(rows))


def _shifting(info: LayerInfo, shift: torch.Tensor) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        tensor = main_tensor(output)
        if tensor is None:
            raise NetworkError(f"layer {info.name!r} answers with {type(output).__name__}, not with a tensor")
        shape = [1] * tensor.ndim
        shape[info.unit_axis] = info.units
        return with_main_tensor(output, tensor + shift.to(tensor).view(shape))

    return hook
