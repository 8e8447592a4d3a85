"""Probe images: what a network is shown, and how people and captioners see the same thing.

An :class:`ImageSet` is any sequence of :class:`ProbeImage` that can also hand over many images' pixels at once.
``pixels`` are in the set's own units (RGB in [0, 1], reflectance, ...); the network's own
preprocessing turns them into its input, so crops, painted images and retrieved images all enter at the same door.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from dnd_core.types import Box

__all__ = ["ArrayImages", "ImageSet", "ProbeImage", "Subset", "content_key", "resize_pixels"]

RGB = ("red", "green", "blue")


def content_key(pixels: NDArray[np.float32]) -> str:
    """Sha256 of an image's shape and pixels, the name under which everything about it is stored."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, dtype=np.float32).tobytes())
    return digest.hexdigest()


def resize_pixels(pixels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize (C, H, W) to (C, *size*) bilinearly, with antialiasing when shrinking."""
    import torch
    from torch.nn import functional as F

    if pixels.shape[-2:] == size:
        return pixels
    stack = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))[None]
    resized = F.interpolate(stack, size=size, mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(resized[0].numpy(), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ProbeImage:
    """One image with its context.

    Attributes:
        pixels: (C, H, W) float32 in the set's units.
        rgb: (H, W, 3) uint8, the rendering that captioners and people see.
        channels: C names, in the order of ``pixels``.
        valid: (H, W) bool, false where there is no data; None means all valid.
        metadata: anything the maker of the set knows (source, label, crs, bounds, acquisition ...).
        key: content hash of ``pixels``; computed when not given.

    """

    pixels: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    channels: tuple[str, ...] = RGB
    valid: NDArray[np.bool_] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[0] != len(self.channels):
            raise ProbeError(f"pixels {self.pixels.shape} do not match the {len(self.channels)} channels named")
        if self.rgb.shape != (*self.pixels.shape[1:], 3) or self.rgb.dtype != np.uint8:
            raise ProbeError(f"rgb must be {(*self.pixels.shape[1:], 3)} uint8, got {self.rgb.shape} {self.rgb.dtype}")
        if not self.key:
            object.__setattr__(self, "key", content_key(self.pixels))

    def crop(self, box: Box) -> ProbeImage:
        """The part inside ``box``, resized back to this image's own size (paper section 3.1)."""
        from PIL import Image

        height, width = self.pixels.shape[1:]
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        rgb = Image.fromarray(self.rgb[rows, columns]).resize((width, height), Image.Resampling.BILINEAR)
        valid = None
        if self.valid is not None:
            part = Image.fromarray(self.valid[rows, columns]).resize((width, height), Image.Resampling.NEAREST)
            valid = np.asarray(part, dtype=bool)
        return ProbeImage(
            pixels=resize_pixels(self.pixels[:, rows, columns], (height, width)),
            rgb=np.asarray(rgb),
            channels=self.channels,
            valid=valid,
            metadata={**self.metadata, "crop": (box.left, box.top, box.right, box.bottom)},
        )


@runtime_checkable
class ImageSet(Protocol):
    """A finite, ordered set of images of one size that can be read in any order.

    Attributes:
        channels: names of the channels of every image.
        shape: (C, H, W) of every image.
        labels: (N,) int64 class indices, or None.
        class_names: names of the classes, empty without labels.
        blocks: (N,) int64 ids of groups that belong together (spatial blocks, source files), or None
            when images are independent. Held-out images never share a block with the others.
        fingerprint: hash of everything that decides what the images are.

    """

    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    blocks: NDArray[np.int64] | None
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ProbeImage: ...

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """(B, C, H, W) float32 pixels of several images, the fast path of a forward pass."""
        ...


class ArrayImages:
    """Images already in memory (or memory-mapped).

    Args:
        pixels: (N, C, H, W) float32.
        rgb: (N, H, W, 3) uint8; made from three-channel pixels in [0, 1] when None.
        channels: C names.
        labels, class_names, blocks: see :class:`ImageSet`.
        metadata: one mapping an image, or none.

    Raises:
        ProbeError: shapes disagree, or ``rgb`` is missing for pixels that are not RGB.

    """

    def __init__(
        self,
        pixels: NDArray[np.float32],
        *,
        rgb: NDArray[np.uint8] | None = None,
        channels: tuple[str, ...] = RGB,
        labels: NDArray[np.int64] | None = None,
        class_names: tuple[str, ...] = (),
        blocks: NDArray[np.int64] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if pixels.ndim != 4 or pixels.shape[1] != len(channels):
            raise ProbeError(f"pixels must be (N, {len(channels)}, H, W), got {pixels.shape}")
        if rgb is None and len(channels) != 3:
            raise ProbeError(f"{len(channels)}-channel images need an rgb rendering for captioners: pass rgb=")
        for name, values in (("rgb", rgb), ("labels", labels), ("blocks", blocks), ("metadata", metadata)):
            if values is not None and len(values) != len(pixels):
                raise ProbeError(f"{name} has {len(values)} entries for {len(pixels)} images")
        self._pixels, self._rgb, self._metadata = pixels, rgb, metadata
        self.channels = channels
        self.shape = (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))
        self.labels, self.class_names, self.blocks = labels, class_names, blocks
        digest = hashlib.sha256(repr((pixels.shape, channels, class_names)).encode())
        for array in (pixels, rgb, labels, blocks):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> ProbeImage:
        pixels = np.asarray(self._pixels[index], dtype=np.float32)
        if self._rgb is None:
            rgb = (np.clip(pixels, 0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
        else:
            rgb = self._rgb[index]
        metadata = self._metadata[index] if self._metadata is not None else {"index": int(index)}
        return ProbeImage(pixels, rgb, self.channels, metadata=metadata)

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        return np.asarray(self._pixels[np.asarray(indices, dtype=np.int64)], dtype=np.float32)


class Subset:
    """Some images of another set, in the order given."""

    def __init__(self, images: ImageSet, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = np.asarray(indices, dtype=np.int64)
        self.channels, self.shape, self.class_names = images.channels, images.shape, images.class_names
        self.labels = None if images.labels is None else images.labels[self.indices]
        self.blocks = None if images.blocks is None else images.blocks[self.indices]
        self.fingerprint = hashlib.sha256(images.fingerprint.encode() + self.indices.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> ProbeImage:
        return self.images[int(self.indices[index])]

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        return self.images.pixels(self.indices[np.asarray(indices, dtype=np.int64)].tolist())
