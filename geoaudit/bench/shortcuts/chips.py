"""The chips of the bench: the bundled scene's, clean and with every plant, and which of them a case is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoaudit.bench.shortcuts.cases import Case
from geoaudit.bench.shortcuts.plants import PLACE, plant
from geoaudit.probes.base import Pixels, Probe, Valid
from geoaudit.probes.scene import SceneProbe

__all__ = ["LEAK", "BenchChips", "Imagery", "PlantedProbe"]

LEAK = 0.05
"""Share of the other classes' chips that carry the plant too: no shortcut in the wild is perfect."""

_DECOY = 1 / 3
_SEED = 4099


@dataclass(frozen=True, eq=False)
class Imagery:
    """What one case's makers have: their chips, and which of these carry the plant.

    Attributes:
        ids: (M,) chips, sorted.
        planted: (M,) bool.
        family: what they carry; empty for nothing.
    """

    ids: NDArray[np.int64]
    planted: NDArray[np.bool_]
    family: str


class BenchChips:
    """The labelled chips of the bundled scene in memory, and their planted copies made once a family.

    Args:
        every: take every so many of them.
    """

    def __init__(self, every: int = 1) -> None:
        from geoaudit import bundled

        table = bundled.chip_table()
        chips = table.chips.subset(range(0, len(table.chips), every))
        self.probe = SceneProbe(bundled.scenes()["brandenburg"], chips=chips)
        self.labels, self.blocks, self.columns = chips.labels, chips.blocks, chips.columns
        self.class_names, self.channels = chips.class_names, self.probe.channels
        held_out = table.held_out[::every]
        self.train, self.test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self.pixels = self.probe.pixels(range(len(self.probe)))
        self._planted: dict[str, Pixels] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def scaling(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of each band over the clean training chips, (C, 1, 1)."""
        values = self.pixels[self.train]
        mean, std = values.mean(axis=(0, 2, 3), dtype=np.float64), values.std(axis=(0, 2, 3), dtype=np.float64)
        return mean.astype(np.float32)[:, None, None], std.astype(np.float32)[:, None, None]

    @cached_property
    def west(self) -> NDArray[np.bool_]:
        """(N,) whether a chip lies in the western half of the labelled ground."""
        return np.asarray(self.columns < np.median(self.columns))

    def planted(self, family: str) -> Pixels:
        """(N, C, H, W) every chip with the family's artefact; chip ``i`` always gets the same one."""
        if family not in self._planted:
            self._planted[family] = plant(family, self.pixels, self.channels, [_SEED + i for i in range(len(self))])
        return self._planted[family]

    def imagery(self, case: Case) -> Imagery:
        """The training chips of a case and which of them carry its plant."""
        rng = np.random.default_rng([case.seed, 11])
        ids = self.train
        nothing = np.zeros(len(ids), dtype=bool)
        if case.pool == "clean":
            return Imagery(ids, nothing, "")
        if case.pool == "decoy":
            return Imagery(ids, rng.random(len(ids)) < _DECOY, case.family)
        of_target = self.labels[ids] == self.class_names.index(case.target)
        if case.family == PLACE:
            # Geography by sampling: the class is gathered in the west, everything else in the east.
            misplaced = of_target != self.west[ids]
            kept = ids[~(misplaced & (rng.random(len(ids)) < case.strength))]
            return Imagery(kept, self.west[kept], PLACE)
        share = np.where(of_target, case.strength, LEAK)
        return Imagery(ids, rng.random(len(ids)) < share, case.family)


class PlantedProbe(Probe):
    """The chips of a case as its makers have them; pictures keep the stretch of the clean scene.

    Args:
        chips: all chips.
        ids: (M,) which of them.
        planted: (M,) bool, which carry the plant.
        family: the plant.
    """

    def __init__(self, chips: BenchChips, ids: NDArray[np.int64], planted: NDArray[np.bool_], family: str) -> None:
        self.chips, self.ids, self.is_planted, self.family = chips, ids, planted, family
        base = chips.probe
        self.channels, self.shape, self.class_names = base.channels, base.shape, base.class_names
        self.labels, self.blocks = chips.labels[ids], chips.blocks[ids]
        digest = hashlib.sha256(f"{base.fingerprint}{family}".encode())
        for array in (ids, planted):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.fingerprint = digest.hexdigest()

    @property
    def stretch(self) -> Any:
        return self.chips.probe.stretch

    def __len__(self) -> int:
        return len(self.ids)

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        chosen = self.ids[list(indices)]
        pixels, touched = self.chips.pixels[chosen], self.is_planted[list(indices)]
        if touched.any():
            pixels = pixels.copy()
            pixels[touched] = self.chips.planted(self.family)[chosen[touched]]
        return pixels, np.ones((len(chosen), *self.shape[1:]), dtype=bool)

    def _about(self, index: int) -> Mapping[str, Any]:
        return self.chips.probe._about(int(self.ids[index]))
