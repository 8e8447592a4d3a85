"""The crops of every unit's top images, measured, and the views that describe a unit (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.config import ProbingConfig
from dnd_core.crops import attention_boxes_many
from dnd_core.forward import Recorder, blocks_of, order_channels, prefetched
from dnd_core.images import ImageSet, resize_pixels
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from dnd_core.types import Box

__all__ = ["CropResult", "crop_top_images", "rerank"]

_WHOLE = -1
_ROW = np.dtype(
    [("layer", "i4"), ("unit", "i4"), ("image", "i8")]
    + [(edge, "i4") for edge in ("left", "top", "right", "bottom")]
    + [("activation", "f4")]
)
_PLACE = ("image", "left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False)
class CropResult:
    """Images and parts of images that make units fire, one row each, sorted by layer, unit and rank.

    Attributes:
        layers: names of the layers.
        layer: (R,) int32 index into ``layers``.
        unit: (R,) int32.
        rank: (R,) int32, 0 = highest activation of its unit.
        image: (R,) int64 index into the image set.
        left: (R,) int32 first column of the crop, -1 for the whole image.
        top: (R,) int32 first row, likewise.
        right: (R,) int32 column behind the last, likewise.
        bottom: (R,) int32 row behind the last, likewise.
        activation: (R,) float32 of the unit on the image, or on the crop resized to image size.
    """

    layers: tuple[str, ...]
    layer: NDArray[np.int32]
    unit: NDArray[np.int32]
    rank: NDArray[np.int32]
    image: NDArray[np.int64]
    left: NDArray[np.int32]
    top: NDArray[np.int32]
    right: NDArray[np.int32]
    bottom: NDArray[np.int32]
    activation: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("unit", "rank", "image", "left", "top", "right", "bottom", "activation"):
            if getattr(self, name).shape != self.layer.shape:
                raise ValueError(f"column {name} has shape {getattr(self, name).shape}, expected {self.layer.shape}")

    def __len__(self) -> int:
        return len(self.layer)

    def rows(self, layer: str, unit: int) -> NDArray[np.int64]:
        """Row numbers of one unit, best first; none for a layer that is not here."""
        position = self.layers.index(layer) if layer in self.layers else len(self.layers)
        start, stop = np.searchsorted(self.layer, [position, position + 1])
        first, last = np.searchsorted(self.unit[start:stop], [unit, unit + 1])
        return np.arange(start + first, start + last, dtype=np.int64)

    def box(self, row: int) -> Box | None:
        """The crop of a row, or None for the whole image."""
        if self.left[row] == _WHOLE:
            return None
        return Box(int(self.left[row]), int(self.top[row]), int(self.right[row]), int(self.bottom[row]))


def crop_top_images(
    network: Network,
    images: ImageSet,
    layers: Sequence[LayerInfo],
    top: Mapping[str, NDArray[np.int64]],
    config: ProbingConfig,
    *,
    on_block: Callable[[int, int], None] | None = None,
) -> CropResult:
    """Cut the attention crops of every unit's top images and measure the unit on each of them.

    Each distinct top image goes through the network once for all layers and units, and each distinct crop once for
    all units that asked for it. Layers without space get no crops.

    Args:
        network: the target network.
        images: the probe set.
        layers: the layers of the units.
        top: layer name -> (units, K) image indices; -1 is skipped.
        config: how crops are cut, pooling and batch size.
        on_block: called with (done, total) images, first for the top images, then for the crops.

    Returns:
        The crops alone, ranked within their unit.

    Raises:
        NetworkError: as in :func:`dnd_core.probing.probe`.
        ProbeError: likewise.
    """
    names = tuple(info.name for info in layers)
    spatial = [info for info in layers if info.spatial]
    wanted = _wanted(network, images, spatial, names, top, config, on_block)
    wanted.sort(order=[*_PLACE, "layer", "unit"])
    if len(wanted) == 0:
        return _ranked(names, wanted, None)
    places = np.stack([wanted[name].astype(np.int64) for name in _PLACE], axis=1)
    is_new = np.concatenate([[True], (places[1:] != places[:-1]).any(axis=1)])
    distinct, crop_of = places[is_new], np.cumsum(is_new) - 1
    order = order_channels(network, images)

    def read(block: range) -> NDArray[np.float32]:
        return order(_cut(images, distinct[block.start : block.stop]))

    with Recorder(network, spatial, config.pooling) as forward:
        for block, pixels in prefetched(read, blocks_of(len(distinct), config.batch_size)):
            pooled = forward(pixels, distinct[block.start : block.stop, 0].tolist())
            begin, end = np.searchsorted(crop_of, [block.start, block.stop])
            part = wanted[begin:end]
            for position, name in enumerate(names):
                mine = np.flatnonzero(part["layer"] == position)
                if len(mine):
                    part["activation"][mine] = pooled[name][crop_of[begin + mine] - block.start, part["unit"][mine]]
            if on_block is not None:
                on_block(block.stop, len(distinct))
    return _ranked(names, wanted, None)


def rerank(
    top: Mapping[str, NDArray[np.int64]],
    values: Mapping[str, NDArray[np.float32]],
    crops: CropResult | None,
    k: int,
) -> CropResult:
    """Join top images with their crops and keep the K of highest activation a unit (paper section 3.1).

    Args:
        top: layer name -> (units, K') image indices, -1 where none.
        values: layer name -> (units, K') activations.
        crops: what :func:`crop_top_images` gave, or None to rank whole images only.
        k: how many to keep.

    Returns:
        At most k rows a unit. Among equals a whole image goes before a crop, then the lower image index, then the box
        further left and further up.
    """
    names = tuple(top)
    parts = []
    for position, name in enumerate(names):
        units, ranks = np.nonzero(top[name] >= 0)
        part = np.full(len(units), _WHOLE, dtype=_ROW)
        part["layer"], part["unit"] = position, units
        part["image"], part["activation"] = top[name][units, ranks], values[name][units, ranks]
        parts.append(part)
    if crops is not None:
        renumbered = np.array([names.index(name) if name in names else -1 for name in crops.layers], dtype=np.int32)
        part = np.empty(len(crops), dtype=_ROW)
        for column in _ROW.names or ():
            part[column] = getattr(crops, column)
        part["layer"] = renumbered[crops.layer]
        parts.append(part[part["layer"] >= 0])
    return _ranked(names, np.concatenate(parts) if parts else np.empty(0, dtype=_ROW), k)


def _wanted(
    network: Network,
    images: ImageSet,
    spatial: Sequence[LayerInfo],
    names: tuple[str, ...],
    top: Mapping[str, NDArray[np.int64]],
    config: ProbingConfig,
    on_block: Callable[[int, int], None] | None,
) -> NDArray[np.void]:
    """One row for every (layer, unit, crop), activation still unknown."""
    asked = {}
    for info in spatial:
        units, ranks = np.nonzero(top[info.name] >= 0)
        image = top[info.name][units, ranks]
        order = np.lexsort((units, image))
        asked[info.name] = (image[order], units[order])
    union = np.unique(np.concatenate([image for image, _ in asked.values()] or [np.zeros(0, dtype=np.int64)]))
    size = images.shape[1:]
    order_pixels = order_channels(network, images)
    found: list[tuple[int, ...]] = []

    def read(block: range) -> NDArray[np.float32]:
        return order_pixels(images.pixels(union[block.start : block.stop].tolist()))

    with Recorder(network, spatial, config.pooling, maps=True) as forward:
        for block, pixels in prefetched(read, blocks_of(len(union), config.batch_size)):
            batch = union[block.start : block.stop]
            forward(pixels, batch.tolist())
            for info in spatial:
                maps = (forward.maps or {}).get(info.name)
                if maps is None:
                    continue
                image, units = asked[info.name]
                first, last = np.searchsorted(image, [batch[0], batch[-1] + 1])
                mine, own = image[first:last], units[first:last]
                chosen = maps[np.searchsorted(batch, mine), own].double().cpu().numpy()
                position = names.index(info.name)
                boxes = attention_boxes_many(
                    chosen, size, config.crops_per_image, config.crop_iou, config.crop_whole_iou
                )
                found += [
                    (position, int(unit), int(index), box.left, box.top, box.right, box.bottom, 0)
                    for index, unit, several in zip(mine, own, boxes, strict=True)
                    for box in several
                ]
            if on_block is not None:
                on_block(block.stop, len(union))
    return np.array(found, dtype=_ROW)


def _cut(images: ImageSet, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """(B, C, H, W) pixels of crops, the same bits as ``images[i].crop(box).pixels``."""
    distinct, where = np.unique(places[:, 0], return_inverse=True)
    pixels = images.pixels(distinct.tolist())
    size = (images.shape[1], images.shape[2])
    cuts = [
        resize_pixels(pixels[row, :, upper:lower, left:right], size)
        for row, (left, upper, right, lower) in zip(where.tolist(), places[:, 1:].tolist(), strict=True)
    ]
    return np.stack(cuts)


def _ranked(layers: tuple[str, ...], rows: NDArray[np.void], k: int | None) -> CropResult:
    # A whole image has -1 for its edges and so goes before the crops of the same image among equals.
    is_crop = rows["left"] != _WHOLE
    keys = (rows["bottom"], rows["right"], rows["top"], rows["left"], rows["image"], is_crop)
    rows = rows[np.lexsort((*keys, -rows["activation"], rows["unit"], rows["layer"]))]
    changes = np.flatnonzero((rows["layer"][1:] != rows["layer"][:-1]) | (rows["unit"][1:] != rows["unit"][:-1])) + 1
    starts = np.concatenate([[0], changes]) if len(rows) else np.zeros(0, dtype=np.int64)
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    if k is not None:
        rows, rank = rows[rank < k], rank[rank < k]
    columns = {name: np.ascontiguousarray(rows[name]) for name in _ROW.names or ()}
    return CropResult(layers=layers, rank=rank.astype(np.int32), **columns)
