"""Chips cut from one georeferenced scene, with the land cover that polygons give them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.bands import Stretch
from geoaudit.labels import Chips, Labels, chips
from geoaudit.probes.base import Pixels, Probe, Valid, canonical_names
from geoaudit.scenes import Scene, open_scene

__all__ = ["SceneProbe"]

_MEMORY_BYTES = 256 << 20
_STRETCH_WINDOWS, _STRETCH_SIZE = 8, 64


class SceneProbe(Probe):
    """Square windows of a scene, each with a class and a spatial block.

    A scene of less than 256 MB as float32 is read once and kept; of a larger one only the windows asked for are read.
    The pictures' stretch is taken over the whole scene, so that chips of any selection look alike. The fingerprint is
    that of the scene's bytes, its bands, and the windows with their labels and blocks.

    Args:
        scene: an open scene, or the path of a raster that names its bands, scale and CRS.
        labels: classes on the scene's grid, or the path of labelled polygons, or None for chips without labels.
        field: column of the polygons that holds the class; needed with a path.
        classes: names of the classes wanted, by index; None takes all of the polygons.
        bands: names of the bands wanted, in order; None takes the scene's.
        chips: windows already cut; the arguments below are not looked at then.
        chip_size: side of a chip in pixels.
        centre: side of the central square that decides the class.
        stride: distance between chips' corners in pixels.
        min_purity: more than this part of the central square must be of one class, in [0.5, 1).
        block: side of a spatial block in pixels; no chip lies across two.

    Raises:
        ProbeError: the scene or the labels cannot be used, or no chip is left.
    """

    def __init__(
        self,
        scene: Scene | str | Path,
        labels: Labels | str | Path | None = None,
        *,
        field: str | None = None,
        classes: Sequence[str] | None = None,
        bands: Sequence[str] | None = None,
        chips: Chips | None = None,
        chip_size: int = 32,
        centre: int = 16,
        stride: int = 8,
        min_purity: float = 0.6,
        block: int = 96,
    ) -> None:
        self.scene = scene if isinstance(scene, Scene) else open_scene(scene)
        self._bands = tuple(bands or self.scene.bands)
        self.channels = canonical_names(self._bands)
        self._whole: tuple[Pixels, Valid] | None = None
        if isinstance(labels, str | Path):
            if field is None:
                raise ProbeError(f"{labels}: say which column holds the class (field=)")
            labels = Labels.from_polygons(labels, self.scene, field=field, classes=classes)
        self._labels = labels
        if labels is not None and labels.raster.shape != (self.scene.height, self.scene.width):
            raise ProbeError(
                f"the labels lie on a grid of {labels.raster.shape[1]} x {labels.raster.shape[0]} pixels, the scene "
                f"{self.scene.path} on {self.scene.width} x {self.scene.height}; rasterise them for this scene"
            )
        self.chips = chips or self._cut(chip_size, centre, stride, min_purity, block)
        self.shape = (len(self.channels), self.chips.size, self.chips.size)
        labelled = chips is not None or labels is not None
        self.labels = self.chips.labels if labelled else None
        self.class_names = self.chips.class_names if labelled else ()
        self.blocks = self.chips.blocks
        digest = hashlib.sha256(f"{self.scene.fingerprint}{self._bands}{self.class_names}{self.chips.size}".encode())
        for array in (self.chips.rows, self.chips.columns, self.chips.labels, self.chips.blocks):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.fingerprint = digest.hexdigest()

    def _cut(self, size: int, centre: int, stride: int, purity: float, block: int) -> Chips:
        labels = self._labels
        if labels is None:
            # Without polygons every valid chip counts: one class that lies everywhere, dropped again afterwards.
            everywhere = np.zeros((self.scene.height, self.scene.width), dtype=np.int16)
            labels = Labels(everywhere, ("any",))
        return chips(
            labels,
            size=size,
            centre=min(centre, size),
            step=stride,
            share=purity,
            block=max(block, size),
            valid=self._validity(),
        )

    def _validity(self) -> Valid:
        from rasterio.windows import Window

        rows = 512
        parts = [
            self.scene.read(Window(0, top, self.scene.width, min(rows, self.scene.height - top)))[1]
            for top in range(0, self.scene.height, rows)
        ]
        return np.concatenate(parts)

    def __len__(self) -> int:
        return len(self.chips)

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        size = self.chips.size
        if self.scene.width * self.scene.height * 4 * len(self.channels) > _MEMORY_BYTES:
            return self.scene.read_many(self.chips.subset(list(indices)).windows(), bands=self._bands)
        if self._whole is None:
            self._whole = self.scene.read(bands=self._bands)
        pixels, valid = self._whole
        corners = [(int(self.chips.rows[i]), int(self.chips.columns[i])) for i in indices]
        return (
            np.stack([pixels[:, row : row + size, column : column + size] for row, column in corners]),
            np.stack([valid[row : row + size, column : column + size] for row, column in corners]),
        )

    @property
    def stretch(self) -> Stretch | None:
        if self._stretch is None:
            from rasterio.windows import Window

            side = min(_STRETCH_SIZE, self.scene.width, self.scene.height)
            rows = np.linspace(0, self.scene.height - side, _STRETCH_WINDOWS).astype(int)
            columns = np.linspace(0, self.scene.width - side, _STRETCH_WINDOWS).astype(int)
            windows = [Window(int(column), int(row), side, side) for row in rows for column in columns]
            pixels, valid = self.scene.read_many(windows, bands=self._bands)
            colours, names = self._colours(pixels)
            self._stretch = Stretch.from_scene(colours, names, valid=valid)
        return self._stretch

    def _window(self, index: int) -> Any:
        return self.chips.subset([index]).windows()[0]

    def _about(self, index: int) -> Mapping[str, Any]:
        return {
            "source": str(self.scene.path),
            "crs": self.scene.crs,
            "bounds": self.scene.window_bounds(self._window(index)),
            "acquired": self.scene.acquired,
            "row": int(self.chips.rows[index]),
            "column": int(self.chips.columns[index]),
        }

    def mask(self, index: int) -> NDArray[np.int64] | None:
        index = self._check(index)
        if self._labels is None:
            return None
        row, column, size = int(self.chips.rows[index]), int(self.chips.columns[index]), self.chips.size
        return self._labels.raster[row : row + size, column : column + size].astype(np.int64)
