"""Answers of a network to many images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dnd_core.forward import blocks_of, device_of, order_channels, prefetched, run, tensor_of
from dnd_core.hooks import main_tensor
from dnd_core.images import ImageSet
from dnd_core.networks import Network

__all__ = ["predict", "preprocessed"]


def predict(
    network: Network, images: ImageSet, rows: NDArray[np.int64] | None = None, batch_size: int = 64
) -> NDArray[np.float32]:
    """(N, D) answers to the images at ``rows`` (all when None), batch by batch."""
    wanted = np.arange(len(images)) if rows is None else rows
    order, device = order_channels(network, images), device_of(network.module)

    def read(block: range) -> NDArray[np.float32]:
        return order(images.pixels(wanted[block.start : block.stop].tolist()))

    parts: list[Any] = []
    for _, pixels in prefetched(read, blocks_of(len(wanted), batch_size)):
        answer = main_tensor(run(network, tensor_of(pixels, device)))
        parts.append(np.zeros((0, 0)) if answer is None else answer.float().cpu().numpy())
    return np.concatenate(parts).astype(np.float32)


def preprocessed(network: Network, images: ImageSet, rows: NDArray[np.int64]) -> torch.Tensor:
    """(B, C, H, W) input of the network's module for a few images."""
    pixels = order_channels(network, images)(images.pixels(rows.tolist()))
    return network.preprocess(tensor_of(pixels, device_of(network.module)))
