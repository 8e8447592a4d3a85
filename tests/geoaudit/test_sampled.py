"""Accuracy and hectares from a labelled sample of known design, and the reason where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from dnd_core.errors import ConfigError
from geoaudit.accuracy import stratified_accuracy
from geoaudit.sampled import class_maps, mapped_classes, sampled_accuracy
from geoaudit.settings import AuditSettings

NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
# Olofsson et al. 2014, table 8: sample counts by map class (rows) and reference class (columns).
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
# Its map has 200,000 / 150,000 / 3,200,000 / 6,450,000 pixels; a thousandth of each is drawn here as rows of the raster.
ROWS = (20, 15, 320, 645)
WIDTH, PIXEL = 10, 30.0
LEFT, TOP = 500_000.0, 5_500_000.0


@dataclass
class Probe:
    labels: Any
    places: list[dict[str, Any]]
    blocks: Any = None

    def __len__(self) -> int:
        return len(self.places)


@dataclass
class Context:
    images: Probe
    class_names: tuple[str, ...] = NAMES

    @property
    def reference(self):
        return np.asarray(self.images.labels)

    @property
    def blocks(self):
        return self.images.blocks

    @property
    def about(self):
        return self.images.places


def write_map(path: Path, band: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff", "height": band.shape[0], "width": band.shape[1], "count": 1, "dtype": "uint8", "nodata": 255,
        "crs": "EPSG:32633", "transform": from_origin(LEFT, TOP, PIXEL, PIXEL),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(band.astype(np.uint8), 1)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A class map in bands of the four classes, and images on it whose labels give the paper's error matrix."""
    root = tmp_path_factory.mktemp("run")
    band = np.repeat(np.arange(4), ROWS)[:, None] * np.ones(WIDTH, dtype=int)
    write_map(root / "maps" / "classes.tif", band)
    starts = np.r_[0, np.cumsum(ROWS)]
    labels, places, blocks = [], [], []
    for mapped, row in enumerate(COUNTS):
        for reference, count in enumerate(row):
            for _ in range(count):
                number = len(labels)
                line = starts[mapped] + number % ROWS[mapped]
                x, y = LEFT + PIXEL * (number % WIDTH + 0.5), TOP - PIXEL * (line + 0.5)
                labels.append(reference)
                places.append({"crs": "EPSG:32633", "bounds": (x - 40, y - 40, x + 40, y + 40)})
                blocks.append(number % 40)
    return root, Context(Probe(np.array(labels), places, np.array(blocks)))


def test_the_map_is_read_at_the_centre_of_each_image(run) -> None:
    root, context = run
    found = mapped_classes(context, np.arange(len(context.images)), class_maps(root))
    np.testing.assert_array_equal(found, np.repeat(np.arange(4), COUNTS.sum(axis=1)))


def test_the_paper_s_worked_example_comes_out_of_a_run(run) -> None:
    root, context = run
    told = sampled_accuracy(context, "stratified", class_maps(root))
    assert (told["hectares"], told["design"], told["n"]) == (True, "stratified", 640)
    assert told["overall"]["estimate"] == pytest.approx(0.947, abs=5e-4)
    assert [round(told["users"][name]["estimate"], 2) for name in NAMES] == [0.88, 0.73, 0.93, 0.96]
    assert [round(told["producers"][name]["estimate"], 2) for name in NAMES] == [0.75, 0.85, 0.93, 0.96]
    # The paper's hectares, a thousandth of the pixels and 0.04 % less for the scale of UTM on its central meridian squared.
    for name, hectares in zip(NAMES, (21_158, 11_686, 285_770, 581_386), strict=True):
        assert told["areas_ha"][name]["estimate"] == pytest.approx(hectares / 1000, rel=1.5e-3)
    half = told["areas_ha"]["deforestation"]["high"] - told["areas_ha"]["deforestation"]["estimate"]
    assert half == pytest.approx(6.158, rel=2e-3)
    assert told["mapped_ha"]["forest gain"] == pytest.approx(13.5, rel=1.5e-3)


@pytest.mark.parametrize(("design", "kind"), [("simple", "poststratified"), ("cluster", "cluster")])
def test_other_designs_by_their_own_estimators(run, design: str, kind: str) -> None:
    root, context = run
    told = sampled_accuracy(context, design, class_maps(root))
    assert told["design"] == kind
    assert told["clusters"] == (40 if design == "cluster" else None)
    total = sum(told["mapped_ha"].values())
    assert sum(area["estimate"] for area in told["areas_ha"].values()) == pytest.approx(total, rel=1e-6)
    if design == "simple":
        expected = stratified_accuracy(COUNTS, list(told["mapped_ha"].values()), NAMES).overall.value
        assert told["overall"]["estimate"] == pytest.approx(expected)
    else:
        assert told["overall"]["estimate"] == pytest.approx(np.diag(COUNTS).sum() / COUNTS.sum())


def test_without_a_design_there_are_no_hectares(run) -> None:
    root, context = run
    told = sampled_accuracy(context, "none", class_maps(root))
    assert set(told) == {"hectares", "reason"}
    assert not told["hectares"]
    assert "random sample" in told["reason"]


def test_what_cannot_carry_areas_says_why(run, tmp_path: Path) -> None:
    root, context = run
    maps = class_maps(root)

    def reason(probe: Probe, design: str = "stratified", paths=maps) -> str:
        told = sampled_accuracy(Context(probe), design, paths)
        assert told["hectares"] is False
        return told["reason"]

    probe = context.images
    assert "no true classes" in reason(Probe(None, probe.places))
    assert "no true classes" in reason(Probe(np.full(len(probe), -1), probe.places))
    assert "no map of classes" in reason(probe, paths=[])
    assert "no blocks" in reason(Probe(probe.labels, probe.places), "cluster")
    away = [{"crs": "EPSG:32633", "bounds": (0, 0, 1, 1)}, *probe.places[1:]]
    assert "1 of the 640 labelled images" in reason(Probe(probe.labels, away))
    assert "deforestation" in reason(Probe(probe.labels[75:], probe.places[75:]))


def test_images_without_a_label_are_counted_out(run) -> None:
    root, context = run
    labels = np.array(context.images.labels)
    labels[-3:] = -1
    told = sampled_accuracy(Context(Probe(labels, context.images.places)), "stratified", class_maps(root))
    assert told["n"] == 637
    assert told["notes"][-1] == "3 images without a true class were left out"


def test_maps_of_several_scenes_are_one_map(run, tmp_path: Path) -> None:
    write_map(tmp_path / "maps" / "classes.tif", np.zeros((4, 4)))
    write_map(tmp_path / "maps" / "second" / "classes.tif", np.full((4, 4), 255))
    found = class_maps(tmp_path)
    assert [path.parent.name for path in found] == ["maps", "second"]
    images = Probe(np.array([0]), [{"crs": "EPSG:32633", "bounds": (LEFT, TOP - 60, LEFT + 60, TOP)}])
    assert mapped_classes(Context(images), np.array([0]), found).tolist() == [0]
    assert mapped_classes(Context(images), np.array([0]), found[1:]).tolist() == [-1], "no data is no class"


def test_an_unknown_design_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"audit\.sample must be one of none, simple, stratified, cluster"):
        AuditSettings(sample="random")
