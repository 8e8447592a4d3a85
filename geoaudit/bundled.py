"""The small real data that ship with the project: where they lie and what they are.

From a checkout they are read from ``data/``; an installed wheel carries them inside the package. What each file is,
where it came from and whose it is stands in ``sources.toml`` among them.
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError

if TYPE_CHECKING:
    from geoaudit.cards import ModelCard
    from geoaudit.labels import Chips

__all__ = [
    "BundledModel",
    "ChipTable",
    "HazeRecipe",
    "attributions",
    "checkpoints",
    "chip_table",
    "data_path",
    "labels",
    "planted_probe_recipe",
    "scenes",
]


def data_path(name: str) -> Path:
    """Path of a bundled file, ``brandenburg.tif`` or ``models/clean.ckpt``.

    Raises:
        ProbeError: there is no such file, or the installation carries none.

    """
    folders = (Path(__file__).parent.parent / "data", Path(str(resources.files("geoaudit"))) / "bundled_data")
    for folder in folders:
        if (folder / "sources.toml").is_file() and (folder / name).is_file():
            return folder / name
    raise ProbeError(f"{name} is not among the bundled data; reinstall geoaudit, or run data/build.py in a checkout")


@cache
def _facts(name: str) -> dict[str, Any]:
    return tomllib.loads(data_path(name).read_text("utf-8"))


def scenes() -> dict[str, Path]:
    """Path of each bundled scene by name: ``brandenburg`` (labelled), ``delmarva``, ``gulf`` (Landsat 8)."""
    files = _facts("sources.toml")["files"]
    return {name.removesuffix(".tif"): data_path(name) for name, facts in files.items() if facts["kind"] == "scene"}


def labels() -> Path:
    """Path of the land-use polygons of ``brandenburg``; their class stands in the column ``fclass``."""
    return data_path("landuse.gpkg")


def attributions() -> tuple[str, ...]:
    """Whom every page and report that uses the data must name, one line a source, without repeats."""
    return tuple(dict.fromkeys(facts["attribution"] for facts in _facts("sources.toml")["files"].values()))


@dataclass(frozen=True)
class BundledModel:
    """A trained classifier that ships with the project.

    Attributes:
        name: ``clean`` or ``haze``.
        checkpoint: Lightning checkpoint of torchgeo's ``ClassificationTask``.
        card: path of its model card.

    """

    name: str
    checkpoint: Path
    card: Path

    def load_card(self) -> ModelCard:
        """The card, read and checked."""
        from geoaudit.cards import load_card

        return load_card(self.card)


def checkpoints() -> dict[str, BundledModel]:
    """The bundled classifiers: ``clean``, and ``haze`` with a planted haze shortcut."""
    return {
        name: BundledModel(name, data_path(f"models/{name}.ckpt"), data_path(f"models/{name}.json"))
        for name in ("clean", "haze")
    }


@dataclass(frozen=True, eq=False)
class ChipTable:
    """The chips of ``brandenburg`` that the bundled classifiers were trained and tested on.

    Attributes:
        chips: all chips; a chip's id is its index.
        held_out: (N,) bool, true where its block was kept from training.
        haze: (N,) float64 strength of the haze painted on it for the planted classifier; 0 for none.

    """

    chips: Chips
    held_out: NDArray[np.bool_]
    haze: NDArray[np.float64]


@cache
def chip_table() -> ChipTable:
    """Read ``split.csv``; ``chips.toml`` says how it was made."""
    from geoaudit.labels import Chips

    facts = _facts("chips.toml")
    with data_path("split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = tuple(facts["classes"])
    whole = {key: np.array([int(row[key]) for row in rows], dtype=np.int64) for key in ("row", "column", "block")}
    chips = Chips(
        size=facts["chips"]["size"],
        rows=whole["row"],
        columns=whole["column"],
        labels=np.array([names.index(row["label"]) for row in rows], dtype=np.int64),
        blocks=whole["block"],
        class_names=names,
    )
    held_out = np.array([row["held_out"] == "1" for row in rows], dtype=bool)
    return ChipTable(chips, held_out, np.array([float(row["haze"]) for row in rows], dtype=np.float64))


@dataclass(frozen=True, eq=False)
class HazeRecipe:
    """Which tiles the planted classifier saw hazed, so that its imagery can be made again exactly.

    Attributes:
        ids: (M,) chip ids (indices into :func:`chip_table`), all of them training chips.
        strengths: (M,) strength of each one's haze.
        seeds: (M,) seed of each one's haze.
        class_name: the class whose chips were hazed on purpose.

    """

    ids: NDArray[np.int64]
    strengths: NDArray[np.float64]
    seeds: NDArray[np.int64]
    class_name: str

    def paint(
        self, ids: NDArray[np.int64], pixels: NDArray[np.float32], channels: tuple[str, ...]
    ) -> NDArray[np.float32]:
        """The chips as the planted classifier's makers have them.

        Args:
            ids: (B,) chip ids.
            pixels: (B, C, H, W) their reflectance; not changed.
            channels: C band names.

        Returns:
            (B, C, H, W) with haze where the recipe has it, unchanged elsewhere.

        """
        from geoaudit.perturb import paint

        painted = np.array(pixels, dtype=np.float32)
        place = {int(chip): index for index, chip in enumerate(self.ids)}
        for row, chip in enumerate(ids):
            if (index := place.get(int(chip))) is not None:
                strength, seed = float(self.strengths[index]), int(self.seeds[index])
                painted[row] = paint("haze", painted[row][None], channels, strength, [seed])[0]
        return painted


def planted_probe_recipe() -> HazeRecipe:
    """The haze of the planted classifier's training chips; chip ``i`` is painted with seed ``haze.seed + i``."""
    table, facts = chip_table(), _facts("chips.toml")["haze"]
    ids = np.flatnonzero(table.haze > 0).astype(np.int64)
    return HazeRecipe(ids, table.haze[ids], ids + int(facts["seed"]), facts["class"])
