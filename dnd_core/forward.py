"""Running a network over images: channels in its order, the next batch read meanwhile, layers pooled as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnd_core.config import Pooling
from dnd_core.errors import NetworkError, ProbeError
from dnd_core.hooks import record
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from dnd_core.pooling import check_pooling, pool, unit_maps

__all__ = ["Recorder", "blocks_of", "channel_order", "device_of", "order_channels", "prefetched", "run", "tensor_of"]

Item = TypeVar("Item")
Read = TypeVar("Read")


def blocks_of(count: int, size: int, start: int = 0) -> list[range]:
    """Ranges of ``size`` that cover ``start..count``; the last may be shorter."""
    return [range(first, min(first + size, count)) for first in range(start, count, size)]


def prefetched(read: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[tuple[Item, Read]]:
    """Each item with what was read for it; one thread reads the next while the caller works on this one."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as reader:
        waiting = None
        for item in items:
            coming = (item, reader.submit(read, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def channel_order(expected: Sequence[str], given: Sequence[str], channels: int) -> list[int] | None:
    """Where the network's channels are among an image's, or None when they already agree.

    Args:
        expected: the network's channel names; empty when unknown.
        given: the image's channel names.
        channels: how many the network takes.

    Raises:
        ProbeError: a channel is missing, or their number differs and no names tell which to take.
    """
    if not expected or tuple(expected) == tuple(given):
        if len(given) != channels:
            raise ProbeError(
                f"the network takes {channels} channels and the images have {len(given)} ({', '.join(given)}): "
                "give images of that many channels, or a network whose channel names are known"
            )
        return None
    missing = [name for name in expected if name not in given]
    if missing:
        raise ProbeError(
            f"the network needs channel {', '.join(missing)}, but the images have {', '.join(given)}: "
            "give images with these channels, or name the network's channels as the images do"
        )
    return [list(given).index(name) for name in expected]


def order_channels(network: Network, images: ImageSet) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What puts (B, C, H, W) pixels of a set into the network's channel order.

    Raises:
        ProbeError: as :func:`channel_order`.
    """
    order = channel_order(network.channels, images.channels, network.input_shape[0])
    return (lambda pixels: pixels) if order is None else (lambda pixels: pixels[:, order])


def device_of(module: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next((value.device for value in chain(module.parameters(), module.buffers())), torch.device("cpu"))


def tensor_of(pixels: NDArray[np.float32], device: torch.device) -> Tensor:
    """Pixels as a float32 tensor on a device; read-only memory is copied."""
    return torch.from_numpy(np.require(pixels, np.float32, ["C", "W"])).to(device)


def run(network: Network, pixels: Tensor) -> Tensor:
    """The network's answer.

    Raises:
        NetworkError: it cannot run on pixels of this shape.
    """
    try:
        return network(pixels)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise NetworkError(
                f"{network.name} ran out of memory on a batch of {len(pixels)} images: lower probing.batch_size"
            ) from error
        raise NetworkError(
            f"{network.name} cannot run on a batch of shape {tuple(pixels.shape)} "
            f"(it expects images of {network.input_shape}): {error}"
        ) from error


class Recorder(AbstractContextManager["Recorder"]):
    """A network whose layers are pooled as they run, while the ``with`` lasts.

    Pooling happens inside the hook: no layer's maps are kept longer than needed, and a later in-place operation
    cannot change what was pooled.

    Args:
        network: the target network.
        layers: what to record.
        pooling: how.
        maps: keep the layers' spatial maps of the batch too.

    Raises:
        ConfigError: the pooling has no meaning for a layer.
    """

    def __init__(self, network: Network, layers: Sequence[LayerInfo], pooling: Pooling, *, maps: bool = False) -> None:
        for info in layers:
            check_pooling(info, pooling)
        self._network, self._pooling = network, pooling
        self._infos = {info.name: info for info in layers}
        self._device = device_of(network.module)
        self._recording = record(network.module, list(self._infos), self._take)
        self._images: Sequence[int] = ()
        self.maps: dict[str, Tensor] | None = {} if maps else None

    def __enter__(self) -> Recorder:
        self._held = self._recording.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._recording.__exit__(*error)  # type: ignore[arg-type]

    def _take(self, name: str, activation: Tensor) -> Tensor:
        info = self._infos[name]
        if self.maps is not None and (spread := unit_maps(activation, info)) is not None:
            self.maps[name] = spread.clone()
        return pool(activation, info, self._pooling, self._images)

    def __call__(self, pixels: NDArray[np.float32], images: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Run a batch.

        Args:
            pixels: (B, C, H, W) in the network's channel order.
            images: the B images' indices, for messages.

        Returns:
            Layer name -> (B, units) float32.

        Raises:
            NetworkError: the network cannot run, or an activation is NaN or infinite.
        """
        self._images = images
        self._held.clear()
        run(self._network, tensor_of(pixels, self._device))
        silent = [name for name in self._infos if name not in self._held]
        if silent:
            raise NetworkError(f"layer {silent[0]!r} of {self._network.name} did not run on these images")
        return {name: self._held[name].cpu().numpy() for name in self._infos}
