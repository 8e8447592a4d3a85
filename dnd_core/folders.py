"""A folder of photographs as an image set."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from dnd_core.images import RGB, ProbeImage

__all__ = ["FolderImages"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SMALLEST = 2


class FolderImages:
    """Every readable image below a folder, in the order of their paths, brought to one size.

    An image is scaled until its shorter side fits and cut around its centre, as networks are commonly evaluated.
    Files are decoded when asked for, so memory does not grow with the folder. A file that is broken, empty, smaller
    than 2 x 2 pixels, of more than 8 bits a channel or no image at all is left out and listed in ``skipped``; hidden
    files are passed over.

    Args:
        root: the folder, searched recursively.
        size: (height, width) of the images handed over.

    Attributes:
        skipped: (path below the root, reason) of every file left out.

    Raises:
        ProbeError: the folder does not exist or holds no readable image.
    """

    def __init__(self, root: Path, size: tuple[int, int]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ProbeError(f"the image folder {self.root} does not exist: give --images a folder")
        found = sorted(p for p in self.root.rglob("*") if p.is_file() and not p.name.startswith("."))
        digest = hashlib.sha256(repr(size).encode())
        self.paths: list[Path] = []
        skipped: list[tuple[str, str]] = []
        for path in found:
            reason = _fault(path)
            if reason:
                skipped.append((self._name(path), reason))
                continue
            self.paths.append(path)
            name = os.fsencode(path.relative_to(self.root).as_posix())
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        self.skipped = tuple(skipped)
        if not self.paths:
            why = f"; the first of {len(skipped)} was left out because {skipped[0][1]}" if skipped else ""
            raise ProbeError(f"{self.root} holds no readable image ({', '.join(sorted(SUFFIXES))}){why}")
        self.shape = (3, *size)
        self.channels: tuple[str, ...] = RGB
        self.labels: NDArray[np.int64] | None = None
        self.class_names: tuple[str, ...] = ()
        self.blocks: NDArray[np.int64] | None = None
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.paths)

    def _name(self, path: Path) -> str:
        """The path below the root as text; bytes of a name that are no UTF-8 are written as escapes."""
        return os.fsencode(path.relative_to(self.root).as_posix()).decode("utf-8", "backslashreplace")

    def _rgb(self, index: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        try:
            with Image.open(self.paths[index]) as image:
                fitted = ImageOps.fit(image.convert("RGB"), (self.shape[2], self.shape[1]), Image.Resampling.BICUBIC)
        except OSError as error:
            raise ProbeError(
                f"{self._name(self.paths[index])} could be read when {self.root} was opened and cannot be read any more "
                f"({error}): keep the folder as it is during a run"
            ) from error
        return np.asarray(fitted, dtype=np.uint8)

    def __getitem__(self, index: int) -> ProbeImage:
        rgb = self._rgb(index)
        pixels = np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
        return ProbeImage(pixels, rgb, metadata={"source": self._name(self.paths[index])})

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        return np.stack([self[int(i)].pixels for i in indices])


def _fault(path: Path) -> str:
    """Why a file cannot be used, or an empty string."""
    from PIL import Image

    if path.suffix.lower() not in SUFFIXES:
        return f"it is no image file ({path.suffix or 'no suffix'})"
    try:
        if path.stat().st_size == 0:
            return "it is empty"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A bomb-sized image is a fault of the file, not a notice to print.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode = image.mode
                picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        return f"it cannot be read ({type(error).__name__})"
    if mode.startswith(("I", "F")):
        # Converting these to RGB would cut every value above 255 off.
        return f"its pixels have more than 8 bits (mode {mode}): save it as 8-bit RGB"
    return "" if min(picture.size) >= SMALLEST else f"it is {picture.size[0]} x {picture.size[1]} pixels"
