"""A plain folder of GeoTIFF chips, one sub-folder a class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnd_core.errors import ProbeError
from dnd_core.images import resize_pixels
from geoaudit.probes.base import Pixels, Probe, Skip, Valid, canonical_names, files_fingerprint, ground_blocks
from geoaudit.scenes import Scene, open_scene

__all__ = ["FolderProbe"]

_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")


class FolderProbe(Probe):
    """Chips that each keep their own CRS and bounds.

    A file that cannot be used (empty, truncated, all nodata, without CRS, of other bands or another size) is left out
    and stands in ``skipped`` with the reason; only if none is left is that an error. The fingerprint is that of the
    files (:func:`geoaudit.probes.base.files_fingerprint`) and of every argument.

    Args:
        root: the folder; sub-folders are classes, in alphabetical order. Without sub-folders there are no labels.
        bands: names in file order; None takes the files' band descriptions.
        scale: reflectance a digital number; None takes the files'.
        offset: reflectance of digital number zero; None takes the files'.
        nodata: value that means no data; None takes the files'.
        size: (height, width) to resize every chip to; None takes the most frequent size and leaves out the others.
        classes: sub-folders wanted, in the order of the class index; None takes all.
        block_size: side in metres of the blocks of ground that chips are grouped by.
        verify: read every file once at the start; off checks only that it opens.
        photographs: the files are RGB pictures, shown without a stretch.

    Raises:
        ProbeError: no such folder, no chip in it that can be used, or a class without a folder.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        bands: Sequence[str] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        size: tuple[int, int] | None = None,
        classes: Sequence[str] | None = None,
        block_size: float = 5000.0,
        verify: bool = True,
        photographs: bool = False,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ProbeError(f"{self.root}: no such folder of chips")
        files, names = _list(self.root, classes)
        opened: list[tuple[Scene, int]] = []
        skipped: list[Skip] = []
        first = ""
        for path, label in files:
            try:
                scene = open_scene(path, bands=bands, scale=scale, offset=offset, nodata=nodata, verify=verify)
                opened.append((scene, label))
            except ProbeError as error:
                skipped.append(Skip.from_error(path, error))
                first = first or f": {error}"
        self._chips = _alike(opened, size, skipped)
        self.skipped = tuple(skipped)
        if not self._chips:
            raise ProbeError(f"{self.root} holds no chip that can be used, {len(skipped)} were left out{first}")
        first_scene = self._chips[0][0]
        self._resize = size
        self.channels = canonical_names(first_scene.bands)
        height, width = size or (first_scene.height, first_scene.width)
        self.shape = (len(self.channels), height, width)
        self.class_names = names
        self.labels = np.array([label for _, label in self._chips], dtype=np.int64) if names else None
        self.photographs = photographs
        self.blocks = ground_blocks([(scene.crs, scene.bounds) for scene, _ in self._chips], block_size)
        text = repr((bands, scale, offset, nodata, size, names, block_size, photographs))
        text += files_fingerprint([scene.path for scene, _ in self._chips], self.root)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._chips)

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        parts = [self._chips[index][0].read() for index in indices]
        if self._resize is not None:
            size = self._resize
            parts = [(resize_pixels(pixels, size), _nearest(valid, size)) for pixels, valid in parts]
        return np.stack([pixels for pixels, _ in parts]), np.stack([valid for _, valid in parts])

    def _about(self, index: int) -> Mapping[str, Any]:
        scene = self._chips[index][0]
        return {"source": str(scene.path), "crs": scene.crs, "bounds": scene.bounds, "acquired": scene.acquired}


def _list(root: Path, classes: Sequence[str] | None) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """Files with their class index, and the classes; index 0 and no classes for a folder without sub-folders."""
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = tuple(folders if classes is None else classes)
    if missing := [name for name in names if name not in folders]:
        raise ProbeError(f"{root} has no folder {', '.join(missing)}; it has {', '.join(folders) or 'none'}")
    places = [(root / name, index) for index, name in enumerate(names)] or [(root, 0)]
    found = [
        (path, index)
        for folder, index in places
        for path in sorted(folder.rglob("*") if names else folder.iterdir())
        if path.is_file() and path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]
    return found, names


def _alike(
    opened: Sequence[tuple[Scene, int]], size: tuple[int, int] | None, skipped: list[Skip]
) -> list[tuple[Scene, int]]:
    """The chips that have the bands and, unless resized, the size that most have."""
    if not opened:
        return []
    bands = Counter(scene.bands for scene, _ in opened).most_common(1)[0][0]
    same = [(scene, label) for scene, label in opened if scene.bands == bands]
    grid = Counter((scene.height, scene.width) for scene, _ in same).most_common(1)[0][0]
    kept = []
    for scene, label in opened:
        if scene.bands != bands:
            reason = f"has bands {', '.join(scene.bands)} where most chips have {', '.join(bands)}"
        elif size is None and (scene.height, scene.width) != grid:
            reason = f"is not {grid[1]} x {grid[0]} pixels as most chips are; pass size= to resize all"
        else:
            kept.append((scene, label))
            continue
        skipped.append(Skip(str(scene.path), reason))
    return kept


def _nearest(valid: Valid, size: tuple[int, int]) -> Valid:
    rows = (np.arange(size[0]) + 0.5) * valid.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * valid.shape[1] / size[1]
    return np.asarray(valid[rows.astype(int)[:, None], columns.astype(int)[None]])
