"""Tiny copies of torchgeo data sets: each in the folder layout its own class reads, a few drawn images large."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .drawing import ramp, write_raster

EUROSAT_ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
EUROSAT_CLASSES = ("AnnualCrop", "Forest", "River")


def eurosat(root: Path, prefix: str = "eurosat", images: int = 2) -> Path:
    """Band ``b`` of image ``i`` holds 100 x (b + 1) + i; images lie 10 km apart."""
    base = root / "ds" / "images" / "remote_sensing" / "otherDatasets" / "sentinel_2" / "tif"
    names = []
    for label, name in enumerate(EUROSAT_CLASSES):
        for index in range(1, images + 1):
            file = f"{name}_{index}"
            place = (400000.0 + 10000 * (label * images + index), 5800000.0)
            write_raster(base / name / f"{file}.tif", ramp(13, 64, 64, 100 + index, 100), origin=place)
            names.append(f"{file}.jpg")
    for split in ("train", "val", "test"):
        (root / f"{prefix}-{split}.txt").write_text("\n".join(names) + "\n")
    return root


def photographs(root: Path, folder: str, split_file: str, size: int, suffix: str) -> Path:
    """Two classes of flat-coloured pictures, listed in a split file."""
    from PIL import Image

    names = []
    for label, name in enumerate(("beach", "forest")):
        (root / folder / name).mkdir(parents=True)
        for index in range(2):
            colour = np.full((size, size, 3), (10 + 100 * label, 20, 30 + index), np.uint8)
            file = f"{name}_{index}{suffix}"
            Image.fromarray(colour).save(root / folder / name / file)
            names.append(file)
    for split in ("train", "val", "test"):
        (root / split_file.format(split=split)).write_text("\n".join(names) + "\n")
    return root


PATCHES = (
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57",
    "S2B_MSIL2A_20180204T101031_N9999_R022_T33UUP_27_58",
)
RADAR = ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57", "S1B_IW_GRDH_1SDV_20180204T165043_33UUP_27_58")
OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def _patch(folder: Path, name: str, bands: tuple[str, ...], start: int, easting: float) -> None:
    for number, band in enumerate(bands):
        side, pixel = (20, 60.0) if band in ("B01", "B09") else (120, 10.0)
        values = np.full((1, side, side), start + 100 * number, np.int16)
        write_raster(folder / f"{name}_{band}.tif", values, origin=(easting, 5800000.0), pixel=pixel)


def bigearthnet_v2(root: Path) -> Path:
    """Two patches: one with a single class, one with two."""
    import pandas as pd

    for number, (patch, radar) in enumerate(zip(PATCHES, RADAR, strict=True)):
        optical = root / "BigEarthNet-S2" / patch.rsplit("_", 2)[0] / patch
        s1 = root / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar
        maps = root / "Reference_Maps" / patch.rsplit("_", 2)[0] / patch
        _patch(optical, patch, OPTICAL, 1000, 300000.0 + 50000 * number)
        _patch(s1, radar, ("VV", "VH"), -12, 300000.0 + 50000 * number)
        write_raster(maps / f"{patch}_reference_map.tif", np.full((1, 120, 120), 211, np.uint16))
    table = pd.DataFrame(
        {
            "patch_id": PATCHES,
            "s1_name": RADAR,
            "labels": [["Arable land"], ["Arable land", "Inland waters"]],
            "split": ["test", "test"],
        }
    )
    table.to_parquet(root / "metadata.parquet")
    return root


def bigearthnet_v1(root: Path) -> Path:
    for patch, labels in zip(PATCHES, (["Pastures"], ["Pastures", "Water bodies"]), strict=True):
        folder = root / "BigEarthNet-v1.0" / patch
        _patch(folder, patch, OPTICAL, 1000, 300000.0)
        (folder / f"{patch}_labels_metadata.json").write_text(json.dumps({"labels": labels}))
    for split in ("train", "val", "test"):
        lines = [f"{patch},{radar}" for patch, radar in zip(PATCHES, RADAR, strict=True)]
        (root / f"bigearthnet-{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def so2sat(root: Path) -> Path:
    """Three images; radar band ``b`` holds -b, optical band ``b`` holds reflectance 0.1 + b/100."""
    import h5py

    labels = np.eye(17, dtype=np.float64)[[0, 16, 3]]
    with h5py.File(root / "testing.h5", "w") as file:
        file["label"] = labels
        file["sen1"] = np.broadcast_to(-np.arange(8.0), (3, 32, 32, 8))
        file["sen2"] = np.broadcast_to(0.1 + np.arange(10) / 100, (3, 32, 32, 10))
    return root
