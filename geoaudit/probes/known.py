"""What is known about torchgeo's data sets that their samples do not say: bands, units, classes and files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import RGB
from geoaudit.bands import SENTINEL2

__all__ = ["KNOWN", "Known", "find_known"]

_DATE = re.compile(r"_(20\d{2})(\d{2})(\d{2})T\d{6}")
_S1 = ("VH", "VV")
_BIGEARTHNET = tuple(band for band in SENTINEL2 if band != "B10")


@dataclass(frozen=True)
class Known:
    """How to read a torchgeo data set as reflectance.

    Attributes:
        bands: of a data set as it was made, in the order of its samples.
        scale: reflectance (or [0, 1]) per number of one band.
        classes: names of the classes.
        files: files of image ``i``; the first carries the georeference.
        labels: class index of every image without reading any, or multi-hot rows, or None to read the samples.
        photographs: RGB pictures.
    """

    bands: Callable[[Any], tuple[str, ...]]
    scale: Callable[[str], float]
    classes: Callable[[Any], tuple[str, ...]]
    files: Callable[[Any, int], list[Path]]
    labels: Callable[[Any], NDArray[np.int64] | None]
    photographs: bool = False

    def acquired(self, dataset: Any, index: int) -> str | None:
        """ISO date in the name of an image's file, or None."""
        for path in self.files(dataset, index):
            if match := _DATE.search(path.name):
                return "-".join(match.groups())
        return None


def _sentinel(band: str) -> float:
    # Radar backscatter has no reflectance; it is left in the units of its file.
    return 1.0 if band in _S1 else 1e-4


def _image_files(dataset: Any, index: int) -> list[Path]:
    return [Path(dataset.imgs[index][0])]


def _folder_targets(dataset: Any) -> NDArray[np.int64]:
    return np.array(dataset.targets, dtype=np.int64)


def _bigearthnet_bands(dataset: Any) -> tuple[str, ...]:
    # Radar files are read in alphabetical order, so VH stands before VV whatever the documentation says.
    return {"s1": _S1, "s2": _BIGEARTHNET, "all": _S1 + _BIGEARTHNET}[dataset.bands]


def _first_files(dataset: Any, index: int) -> list[Path]:
    folders = dataset.folders[index]
    chosen = ["s1", "s2"] if dataset.bands == "all" else [dataset.bands]
    return [path for name in reversed(chosen) for path in sorted(Path(folders[name]).glob("*.tif"))]


def _second_files(dataset: Any, index: int) -> list[Path]:
    row = dataset.metadata_df.iloc[index]
    patch, radar = str(row["patch_id"]), str(row["s1_name"])
    optical = Path(dataset.root) / "BigEarthNet-S2" / patch.rsplit("_", 2)[0] / patch
    s1 = Path(dataset.root) / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar
    folders = {"s2": [optical], "s1": [s1], "all": [optical, s1]}[dataset.bands]
    return [path for folder in folders for path in sorted(folder.glob("*.tif"))]


def _second_labels(dataset: Any) -> NDArray[np.int64]:
    rows = np.zeros((len(dataset), len(dataset.class_set)), dtype=np.int64)
    for index, names in enumerate(dataset.metadata_df["labels"]):
        rows[index, [dataset.class2idx[name] for name in names]] = 1
    return rows


def _so2sat_labels(dataset: Any) -> NDArray[np.int64]:
    import h5py

    with h5py.File(dataset.fn, "r") as file:
        return np.asarray(file["label"][:].argmax(axis=1), dtype=np.int64)


_PHOTOGRAPHS = Known(
    bands=lambda dataset: RGB,
    scale=lambda band: 1 / 255,
    classes=lambda dataset: tuple(dataset.classes),
    files=_image_files,
    labels=_folder_targets,
    photographs=True,
)

KNOWN: dict[str, Known] = {
    "EuroSAT": Known(
        # Its files put B8A last; the data set's own list says so, and channels are matched by name.
        bands=lambda dataset: tuple(dataset.bands),
        scale=_sentinel,
        classes=lambda dataset: tuple(dataset.classes),
        files=_image_files,
        labels=_folder_targets,
    ),
    "UCMerced": _PHOTOGRAPHS,
    "RESISC45": _PHOTOGRAPHS,
    "BigEarthNet": Known(
        bands=_bigearthnet_bands,
        scale=_sentinel,
        classes=lambda dataset: tuple(dataset.class_sets[dataset.num_classes]),
        files=_first_files,
        labels=lambda dataset: np.stack([dataset._load_target(i).numpy() for i in range(len(dataset))]),
    ),
    "BigEarthNetV2": Known(
        bands=_bigearthnet_bands,
        scale=_sentinel,
        classes=lambda dataset: tuple(dataset.class_set),
        files=_second_files,
        labels=_second_labels,
    ),
    "So2Sat": Known(
        # Its optical bands are reflectance already; radar comes first in every sample.
        bands=lambda dataset: (*dataset.s1_band_names, *(name.removeprefix("S2_") for name in dataset.s2_band_names)),
        scale=lambda band: 1.0,
        classes=lambda dataset: tuple(dataset.classes),
        files=lambda dataset, index: [Path(dataset.fn)],
        labels=_so2sat_labels,
    ),
}
"""By class name; subclasses (EuroSAT100, EuroSATSpatial) follow their parent."""


def find_known(dataset: Any) -> Known | None:
    """The entry of a data set's class or of the nearest parent that has one."""
    return next((KNOWN[cls.__name__] for cls in type(dataset).__mro__ if cls.__name__ in KNOWN), None)
