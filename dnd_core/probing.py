"""Step 1: which images, and which parts of them, make each unit fire (paper section 3.1).

One pass over the probe writes every layer's pooled activations; one further pass over the union of all top images cuts
their attention crops. Memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dnd_core.config import Pooling, ProbingConfig
from dnd_core.cropping import CropResult, crop_top_images, rerank
from dnd_core.errors import ProbeError
from dnd_core.forward import Recorder, blocks_of, channel_order, order_channels, prefetched
from dnd_core.images import ImageSet, ProbeImage
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from dnd_core.topk import StreamingTopK

__all__ = ["CropResult", "Rows", "activate", "crop_top_images", "probe", "rerank", "top_images"]


class Rows(Protocol):
    """Anything that rows of activations can be written to: an array, a memory map, a file.

    Attributes:
        shape: (images, units).
        dtype: float32.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __setitem__(self, rows: slice, values: NDArray[np.float32], /) -> None: ...


def probe(
    network: Network,
    images: ImageSet,
    layers: Sequence[LayerInfo],
    config: ProbingConfig,
    *,
    out: Mapping[str, Rows],
    start: int = 0,
    on_block: Callable[[int], None] | None = None,
) -> None:
    """Write the pooled activations of every unit of several layers on every image, in one pass.

    Images go through the network in blocks of ``config.batch_size`` that always begin at the same places, so that a
    resumed pass writes the same bits as an undisturbed one.

    Args:
        network: the target network.
        images: N probe images.
        layers: what to record.
        config: pooling and batch size.
        out: layer name -> writable (N, units) float32 rows, on disk or in memory.
        start: images already done, a whole number of blocks (or N).
        on_block: called with the number of images done after each block was written.

    Raises:
        ConfigError: the pooling has no meaning for a layer.
        NetworkError: an activation is NaN or infinite, or the network cannot run on the images.
        ProbeError: the probe is empty, lacks a channel, or an output array has the wrong shape.
    """
    count, size = len(images), config.batch_size
    if count == 0:
        raise ProbeError("the probe set holds no images: give at least one")
    if start != count and (not 0 <= start < count or start % size):
        raise ProbeError(f"a pass resumes at a multiple of the batch size {size}, not at image {start} of {count}")
    for info in layers:
        target = out.get(info.name)
        if target is None or target.shape != (count, info.units) or target.dtype != np.float32:
            raise ProbeError(f"layer {info.name!r} needs float32 rows of shape {(count, info.units)} to write to")
    order = order_channels(network, images)
    blocks = blocks_of(count, size, start)
    with Recorder(network, layers, config.pooling) as forward:
        for block, pixels in prefetched(lambda rows: order(images.pixels(list(rows))), blocks):
            for name, pooled in forward(pixels, block).items():
                out[name][block.start : block.stop] = pooled
            if on_block is not None:
                on_block(block.stop)


def top_images(
    activations: NDArray[np.float32],
    k: int,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    block: int = 4096,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The K highest-activating images of every unit.

    Args:
        activations: (N, units) float32, may be memory-mapped: it is read in blocks of rows.
        k: how many.
        indices: only these images compete, each once; all when None.
        block: rows read at a time.

    Returns:
        Image indices (units, k) int64 and activations (units, k) float32, highest first, the lower index first among
        equals; -1 and -inf where fewer than k images compete.
    """
    rows = np.arange(len(activations)) if indices is None else np.unique(np.asarray(indices, dtype=np.int64))
    best = StreamingTopK(k, activations.shape[1])
    for first in range(0, len(rows), block):
        part = rows[first : first + block]
        best.update(np.asarray(activations[part]), part)
    return best.result()


def activate(
    network: Network,
    layers: Sequence[LayerInfo],
    images: Sequence[ProbeImage] | NDArray[np.float32],
    pooling: Pooling = "mean",
    batch_size: int = 64,
) -> dict[str, NDArray[np.float32]]:
    """Pooled activations of loose images, such as concept images (Step 3).

    Args:
        network: the target network.
        layers: what to record.
        images: M images of any sizes, or pixels (M, C, H, W) in the network's channel order.
        pooling: as in the probing pass.
        batch_size: images a forward pass; those of one size go together.

    Returns:
        Layer name -> (M, units) float32.

    Raises:
        ConfigError, NetworkError, ProbeError: as in :func:`probe`.
    """
    answers = {info.name: np.empty((len(images), info.units), dtype=np.float32) for info in layers}
    with Recorder(network, layers, pooling) as forward:
        for rows in _same_size_batches(images, batch_size):
            for name, pooled in forward(_pixels_of(network, images, rows), rows).items():
                answers[name][rows] = pooled
    return answers


def _pixels_of(
    network: Network, images: Sequence[ProbeImage] | NDArray[np.float32], rows: list[int]
) -> NDArray[np.float32]:
    if isinstance(images, np.ndarray):
        return np.asarray(images[rows])
    chosen = []
    for row in rows:
        order = channel_order(network.channels, images[row].channels, network.input_shape[0])
        chosen.append(images[row].pixels if order is None else images[row].pixels[order])
    return np.stack(chosen)


def _same_size_batches(images: Sequence[ProbeImage] | NDArray[np.float32], size: int) -> Iterator[list[int]]:
    shapes: dict[tuple[object, ...], list[int]] = {}
    if isinstance(images, np.ndarray):
        shapes[images.shape[1:]] = list(range(len(images)))
    else:
        for row, image in enumerate(images):
            shapes.setdefault((*image.pixels.shape, *image.channels), []).append(row)
    for rows in shapes.values():
        for first in range(0, len(rows), size):
            yield rows[first : first + size]
