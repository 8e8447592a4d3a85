"""Parts of images as images of their own size, for concepts that cover less than a whole image.

What a text-to-image model paints for "forest" is forest from edge to edge; a real image is forest for the most part at best.
A window that lies within the forest, mirrored until it fills a frame, is real imagery and shows nothing else: its pixels keep
their size and spectrum, and mirroring leaves no seam.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError
from dnd_core.images import ImageSet, ProbeImage
from dnd_core.types import Box

__all__ = ["Windows", "fill"]


def fill(array: NDArray[Any], box: Box) -> NDArray[Any]:
    """The part of an array inside a box, mirrored to the right and downwards until it has the array's own size.

    Args:
        array: (..., H, W).
        box: columns and rows of the part, within the array.

    Returns:
        (..., H, W), of the array's type.
    """
    height, width = array.shape[-2:]
    part = array[..., box.top : box.bottom, box.left : box.right]
    spare = [(0, 0)] * (array.ndim - 2) + [(0, height - part.shape[-2]), (0, width - part.shape[-1])]
    return np.pad(part, spare, mode="symmetric")


class Windows:
    """The images of a set, and after them the windows of every image, each filled to full size by mirroring.

    Images 0 to N - 1 are the set's own; then follow the windows of image 0 from the top left, of image 1, and so on.
    Windows belong to their image's block and have no label: a class of the whole may be absent in a part.

    Args:
        images: the set.
        share: side of a window as a share of the image's, in (0, 1).
        steps: windows along each side, evenly spaced from edge to edge.

    Raises:
        ConfigError: a number out of range, or windows of less than a pixel.
    """

    def __init__(self, images: ImageSet, share: float = 0.5, steps: int = 3) -> None:
        _, height, width = images.shape
        if not 0 < share < 1 or steps < 1:
            raise ConfigError(f"windows: share must be in (0, 1) and steps at least 1, got {share} and {steps}")
        rows, columns = round(share * height), round(share * width)
        if not (rows and columns):
            raise ConfigError(f"windows of {share} of an image of {height} x {width} pixels have no pixel")
        self.images = images
        self.boxes = tuple(
            Box(left, top, left + columns, top + rows)
            for top in _starts(height - rows, steps)
            for left in _starts(width - columns, steps)
        )
        self.channels, self.shape = images.channels, images.shape
        self.labels: NDArray[np.int64] | None = None
        self.class_names: tuple[str, ...] = ()
        self.blocks: NDArray[np.int64] | None = (
            None
            if images.blocks is None
            else np.concatenate([images.blocks, np.repeat(images.blocks, len(self.boxes))])
        )
        self.fingerprint = hashlib.sha256(f"{images.fingerprint}:{self.boxes}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.images) * (1 + len(self.boxes))

    def origin(self, index: int) -> tuple[int, Box | None]:
        """The image that an index of this set belongs to, and its window there; None for the whole image."""
        count = len(self.images)
        if index < count:
            return index, None
        image, window = divmod(index - count, len(self.boxes))
        return image, self.boxes[window]

    def __getitem__(self, index: int) -> ProbeImage:
        image, box = self.origin(int(index))
        whole = self.images[image]
        if box is None:
            return whole
        return ProbeImage(
            pixels=fill(whole.pixels, box),
            rgb=fill(whole.rgb.transpose(2, 0, 1), box).transpose(1, 2, 0),
            channels=whole.channels,
            valid=None if whole.valid is None else fill(whole.valid, box),
            metadata={**whole.metadata, "window": (box.left, box.top, box.right, box.bottom)},
        )

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        found = [self.origin(int(index)) for index in indices]
        wholes = self.images.pixels([image for image, _ in found])
        filled = [whole if box is None else fill(whole, box) for whole, (_, box) in zip(wholes, found, strict=True)]
        return np.stack(filled) if filled else wholes


def _starts(room: int, steps: int) -> list[int]:
    """Where windows begin along a side: evenly from 0 to what room there is, each place once."""
    return sorted({round(place) for place in np.linspace(0, room, steps)}) if steps > 1 else [room // 2]
