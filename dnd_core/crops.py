"""Attention crops: the parts of an image where a unit fires (paper section 3.1).

Pure functions of arrays. A map is upsampled to image size, scaled min-max to [0, 255] in float (never cast to
uint8, which would wrap), thresholded with Otsu's method, and its connected components' boxes are kept, largest
first, as long as they overlap neither each other nor the whole image too much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnd_core.types import Box

__all__ = ["attention_boxes", "attention_boxes_many", "otsu", "upsample"]

_BINS = 256
_EIGHT = np.ones((3, 3), dtype=np.int8)
# Maps are worked on a few at a time: their copies then stay in the processor's cache, and memory flat.
_PIXELS = 1 << 17


def attention_boxes(
    activation: NDArray[np.floating],
    size: tuple[int, int],
    per_image: int = 4,
    iou: float = 0.5,
    whole_iou: float = 0.8,
) -> list[Box]:
    """Boxes of one unit on one image, largest first; none for a constant map.

    Args:
        activation: (h, w) map of the unit.
        size: rows and columns of the image.
        per_image: at most this many boxes.
        iou: a box overlapping a kept one more than this is dropped, in [0, 1].
        whole_iou: a box whose overlap with the whole image reaches this is dropped, in [0, 1].

    """
    return attention_boxes_many(np.asarray(activation)[None], size, per_image, iou, whole_iou)[0]


def attention_boxes_many(
    maps: NDArray[np.floating],
    size: tuple[int, int],
    per_image: int = 4,
    iou: float = 0.5,
    whole_iou: float = 0.8,
) -> list[list[Box]]:
    """:func:`attention_boxes` of many maps (M, h, w) of one size at once."""
    found: list[list[Box]] = []
    chunk = max(1, _PIXELS // (size[0] * size[1]))
    for first in range(0, len(maps), chunk):
        found += _boxes(maps[first : first + chunk], size, per_image, iou, whole_iou)
    return found


def _boxes(
    maps: NDArray[np.floating], size: tuple[int, int], per_image: int, iou: float, whole_iou: float
) -> list[list[Box]]:
    from scipy import ndimage

    large = upsample(maps, size)
    low = large.min(axis=(1, 2), keepdims=True)
    span = large.max(axis=(1, 2), keepdims=True) - low
    # Interpolating equal values can differ in the last bit; such a map is as constant as the original.
    constant = span[:, 0, 0] <= 1e-12 * np.abs(large).max(axis=(1, 2))
    scaled = np.clip((large - low) * (255.0 / np.where(constant[:, None, None], 1.0, span)), 0.0, 255.0)
    masks = scaled > otsu(scaled)[:, None, None]
    found: list[list[Box]] = []
    for mask, empty in zip(masks, constant, strict=True):
        if empty:
            found.append([])
            continue
        labels, _count = ndimage.label(mask, structure=_EIGHT)
        slices = ndimage.find_objects(labels)
        edges = np.array([(c.start, r.start, c.stop, r.stop) for r, c in slices], dtype=np.int64).reshape(-1, 4)
        found.append(_keep(edges, size, per_image, iou, whole_iou))
    return found


def upsample(maps: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float64]:
    """Maps (M, h, w) resized bilinearly to (M, *size*), float64, so that faint maps keep their contrast."""
    import torch
    from torch.nn import functional as F

    stack = torch.from_numpy(np.array(maps, dtype=np.float64))[:, None]
    if stack.shape[2:] != size:
        stack = F.interpolate(stack, size=size, mode="bilinear", align_corners=False)
    return np.asarray(stack[:, 0].numpy())


def otsu(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Otsu's threshold of each of M images, from a histogram of 256 bins between 0 and 255.

    Args:
        scaled: (M, H, W) in [0, 255], each image reaching both ends.

    Returns:
        (M,) thresholds; what lies above is foreground.

    """
    count = len(scaled)
    edges = np.linspace(0.0, 255.0, _BINS + 1)
    flat = scaled.reshape(count, -1)
    bins = np.minimum((flat * (_BINS / 255.0)).astype(np.int64), _BINS - 1)
    # Rounding can put a value on an edge into the neighbouring bin; numpy's own histogram corrects it the same way.
    bins -= flat < edges[bins]
    bins += (flat >= edges[bins + 1]) & (bins != _BINS - 1)
    offsets = np.arange(count)[:, None] * _BINS
    counts = np.bincount((bins + offsets).ravel(), minlength=count * _BINS).reshape(count, _BINS).astype(np.float64)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(1), counts[:, ::-1].cumsum(1)[:, ::-1]
    moment = counts * centres
    mean_below = moment.cumsum(1) / np.maximum(below, 1)
    mean_above = moment[:, ::-1].cumsum(1)[:, ::-1] / np.maximum(above, 1)
    between = below[:, :-1] * above[:, 1:] * (mean_below[:, :-1] - mean_above[:, 1:]) ** 2
    return np.asarray(centres[between.argmax(axis=1)])


def _keep(edges: NDArray[np.int64], size: tuple[int, int], per_image: int, iou: float, whole_iou: float) -> list[Box]:
    """Greedy choice among (n, 4) left, top, right, bottom: largest first, then topmost, then leftmost."""
    area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    edges = edges[np.lexsort((edges[:, 0], edges[:, 1], -area))]
    kept: list[Box] = []
    for left, top, right, bottom in edges.tolist():
        box = Box(left, top, right, bottom)
        if box.area >= whole_iou * size[0] * size[1] or any(box.iou(other) > iou for other in kept):
            continue
        kept.append(box)
        if len(kept) == per_image:
            break
    return kept
