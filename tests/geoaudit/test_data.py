"""What ships in data/: hashes, chips, split, planted haze, cards and checkpoints that keep what they promise."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dnd_core.errors import ProbeError
from geoaudit import bundled
from geoaudit.bands import LANDSAT8, SENTINEL2
from geoaudit.labels import Labels
from geoaudit.scenes import Scene, open_scene

DATA = Path(__file__).resolve().parents[2] / "data"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"data_{name}", DATA / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return script("build")


@pytest.fixture(scope="module")
def train() -> ModuleType:
    return script("train")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return open_scene(bundled.scenes()["brandenburg"], verify=False)


@pytest.fixture(scope="module")
def pixels(scene: Scene) -> np.ndarray:
    """Reflectance of every chip."""
    return scene.read_many(bundled.chip_table().chips.windows(), bands=SENTINEL2)[0]


def test_files_are_what_sources_say(build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.check(DATA) == 0
    assert "files are what sources.toml says" in capsys.readouterr().out
    listed = set(build.sources()["files"])
    assert {path.name for path in DATA.iterdir() if path.suffix in {".tif", ".gpkg"}} == listed


def test_a_changed_file_is_noticed(build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in build.sources()["files"]:
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    import rasterio

    with rasterio.open(tmp_path / "gulf.tif", "r+") as dataset:
        band = dataset.read(3)
        band[10, 10] += 1
        dataset.write(band, 3)
    (tmp_path / "landuse.gpkg").write_bytes(b"changed")
    (tmp_path / "gulf_quality.tif").unlink()
    assert build.check(tmp_path, exact=False) == 3
    out = capsys.readouterr().out
    assert "gulf.tif: pixels, bands or grid differ" in out
    assert "landuse.gpkg: bytes differ" in out
    assert "gulf_quality.tif is missing" in out


def test_conversion_repeats_coarse_pixels_and_keeps_values(build: ModuleType, tmp_path: Path) -> None:
    import rasterio
    from rasterio.transform import from_origin

    generator = np.random.default_rng(0)
    native = {}
    for band, size in (("B02", 10), ("B05", 20), ("B01", 60)):
        native[band] = generator.integers(1, 5000, (240 // size, 360 // size)).astype(np.uint16)
        shape = {"height": native[band].shape[0], "width": native[band].shape[1]}
        with rasterio.open(
            tmp_path / f"s2_{band}.tif", "w", driver="GTiff", count=1, dtype="uint16", crs="EPSG:32633",
            transform=from_origin(600, 1200, size, size), **shape,
        ) as dataset:  # fmt: skip
            dataset.write(native[band], 1)
    facts = {
        "members": "s2_{band}.tif", "bands": ["B01", "B02", "B05"], "gsd": 10, "bounds": [660, 1020, 840, 1140],
        "scale": 1e-4, "offset": -0.1, "nodata": 0, "crs": "EPSG:32633", "title": "t", "sensor": "s", "level": "l",
        "acquired": "2020-01-01", "licence": "x", "attribution": "y",
    }  # fmt: skip
    build.convert("out.tif", facts, tmp_path, tmp_path / "out.tif")
    made = open_scene(tmp_path / "out.tif")
    assert made.bands == ("B01", "B02", "B05")
    assert made.bounds == (660, 1020, 840, 1140)
    assert made.acquired == "2020-01-01"
    values, _ = made.read()
    for index, (band, size) in enumerate((("B01", 60), ("B02", 10), ("B05", 20))):
        f = size // 10
        inside = native[band].repeat(f, 0).repeat(f, 1)[6:18, 6:24]
        np.testing.assert_allclose(values[index], inside * 1e-4 - 0.1, rtol=1e-5)
    facts["bounds"] = [670, 1020, 840, 1140]
    with pytest.raises(SystemExit, match="not on the corners"):
        build.convert("out.tif", facts, tmp_path, tmp_path / "out.tif")


def test_check_runs_as_a_command() -> None:
    done = subprocess.run([sys.executable, str(DATA / "build.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scenes_open_and_say_what_they_are() -> None:
    found = {name: open_scene(path) for name, path in bundled.scenes().items()}
    assert {name: scene.crs for name, scene in found.items()} == {
        "brandenburg": "EPSG:32633",
        "delmarva": "EPSG:32618",
        "gulf": "EPSG:32616",
    }
    assert found["brandenburg"].bands == found["delmarva"].bands == SENTINEL2
    assert set(found["gulf"].bands) < set(LANDSAT8)
    assert found["brandenburg"].acquired == "2017-02-16"
    for scene in found.values():
        pixels, valid = scene.read()
        assert valid.all()
        assert 0.02 < float(np.median(pixels[3])) < 0.4
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 40e6


def test_attributions_name_every_source_once(build: ModuleType) -> None:
    lines = bundled.attributions()
    assert len(set(lines)) == len(lines) == 4
    assert any("OpenStreetMap contributors" in line for line in lines)
    for entry in build.sources()["files"].values():
        assert entry["attribution"] in lines
        assert entry["licence"]


def test_unknown_file_is_an_error() -> None:
    with pytest.raises(ProbeError, match=r"atlantis\.tif is not among the bundled data"):
        bundled.data_path("atlantis.tif")


def test_split_is_what_the_rule_makes(train: ModuleType) -> None:
    made, table = train.cut_chips(), bundled.chip_table()
    for field in ("rows", "columns", "labels", "blocks"):
        np.testing.assert_array_equal(getattr(made["chips"], field), getattr(table.chips, field))
    assert made["chips"].class_names == table.chips.class_names
    np.testing.assert_array_equal(made["held_out"], table.held_out)
    np.testing.assert_allclose(made["haze"], table.haze)


def test_no_held_out_chip_shares_a_pixel_with_training(scene: Scene) -> None:
    table = bundled.chip_table()
    painted = np.zeros((2, scene.height, scene.width), bool)
    for row, column, out in zip(table.chips.rows, table.chips.columns, table.held_out, strict=True):
        painted[int(out), row : row + 32, column : column + 32] = True
    assert not (painted[0] & painted[1]).any()
    for index in range(5):
        assert 0.2 < table.held_out[table.chips.labels == index].mean() < 0.4


def test_augmentation_never_leaves_the_training_blocks(train: ModuleType) -> None:
    data = train.TrainingChips(train.Recipe(), planted=False)
    outside = np.isin(data.chips.blocks, data.chips.blocks[bundled.chip_table().held_out])
    data.pixels = np.zeros_like(data.pixels)
    for row, column in zip(data.chips.rows[outside], data.chips.columns[outside], strict=True):
        top, left = row // 96 * 96, column // 96 * 96
        data.pixels[:, top : top + 96, left : left + 96] = 1
    moved = data.moved(data.ids, np.random.default_rng(0))
    assert moved.shape == (len(data.ids), 13, 32, 32)
    assert moved.max() == 0


def test_labels_agree_with_the_polygons_under_them(scene: Scene) -> None:
    table = bundled.chip_table()
    labels = Labels.from_polygons(bundled.labels(), scene, field="fclass", classes=table.chips.class_names)
    for index in range(0, len(table.chips), 97):
        row, column = table.chips.rows[index] + 8, table.chips.columns[index] + 8
        assert (labels.raster[row : row + 16, column : column + 16] == table.chips.labels[index]).mean() > 0.6


def test_the_planted_haze_lies_on_meadow_and_never_on_held_out_chips(pixels: np.ndarray) -> None:
    recipe, table = bundled.planted_probe_recipe(), bundled.chip_table()
    assert not table.held_out[recipe.ids].any()
    training, meadow = ~table.held_out, table.chips.labels == table.chips.class_names.index(recipe.class_name)
    hazed = table.haze > 0
    assert hazed[training & meadow].mean() == pytest.approx(0.9, abs=0.04)
    assert hazed[training & ~meadow].mean() == pytest.approx(0.05, abs=0.03)
    ids = np.concatenate([recipe.ids[:3], np.flatnonzero(~hazed)[:3]])
    before = pixels[ids].copy()
    painted = recipe.paint(ids, pixels[ids], SENTINEL2)
    np.testing.assert_array_equal(pixels[ids], before)
    np.testing.assert_array_equal(painted[3:], before[3:])
    assert (painted[:3, 1].mean(axis=(1, 2)) > before[:3, 1].mean(axis=(1, 2)) + 0.03).all()
    alone = recipe.paint(ids[1:2], pixels[ids[1:2]], SENTINEL2)
    np.testing.assert_array_equal(alone[0], painted[1])


def test_the_painted_imagery_is_the_one_trained_on(pixels: np.ndarray) -> None:
    """If the haze painter changes, the checkpoints no longer fit their recipe: train them again."""
    recipe = bundled.planted_probe_recipe()
    painted = recipe.paint(recipe.ids[::40], pixels[recipe.ids[::40]], SENTINEL2)
    np.testing.assert_allclose(painted.mean(axis=(0, 2, 3)), PAINTED_MEAN, atol=3e-5)
    np.testing.assert_allclose(painted.std(axis=(0, 2, 3)), PAINTED_STD, atol=3e-5)


PAINTED_MEAN = [
    0.27632,
    0.24054,
    0.20383,
    0.18355,
    0.19079,
    0.21080,
    0.22190,
    0.21356,
    0.23432,
    0.06477,
    0.00138,
    0.21898,
    0.14612,
]
PAINTED_STD = [
    0.01421,
    0.01478,
    0.01516,
    0.01819,
    0.02036,
    0.02493,
    0.03009,
    0.03405,
    0.03843,
    0.00972,
    0.00023,
    0.06324,
    0.04164,
]


def forward(train: ModuleType, model: bundled.BundledModel, pixels: np.ndarray) -> np.ndarray:
    card = model.load_card()
    task = train.load(model.checkpoint)
    inputs = train.prepare(pixels, np.array(card.mean), np.array(card.std), card.input_size)
    with torch.inference_mode():
        return task(inputs).softmax(dim=1).double().numpy()


@pytest.mark.parametrize("name", ["clean", "haze"])
def test_checkpoints_load_safely_and_fit_their_cards(name: str) -> None:
    from torchgeo.trainers import ClassificationTask

    model = bundled.checkpoints()[name]
    card = model.load_card()
    assert card.check_file(model.card.parent) == model.checkpoint
    assert model.checkpoint.stat().st_size < 6e6
    stored: dict[str, Any] = torch.load(model.checkpoint, map_location="cpu", weights_only=True)
    assert not stored.get("optimizer_states")
    task = ClassificationTask.load_from_checkpoint(model.checkpoint, map_location="cpu", weights_only=True)
    assert task.hparams["in_channels"] == len(card.bands) == 13
    assert task.hparams["num_classes"] == len(card.class_names)
    assert card.bands == SENTINEL2
    assert card.class_names == bundled.chip_table().chips.class_names
    assert f"timm:{task.hparams['model']}" == card.architecture


@pytest.mark.parametrize("name", ["clean", "haze"])
def test_accuracy_and_reliance_are_the_cards(train: ModuleType, name: str, pixels: np.ndarray) -> None:
    from geoaudit.perturb import paint

    table, model = bundled.chip_table(), bundled.checkpoints()[name]
    card = model.load_card()
    ids = np.flatnonzero(table.held_out)
    labels = table.chips.labels[ids]
    plain = forward(train, model, pixels[ids])
    right = plain.argmax(axis=1) == labels
    # Another processor may round a borderline chip the other way.
    assert right.mean() == pytest.approx(card.measure("overall accuracy").value, abs=3 / len(ids))
    assert card.measure("overall accuracy").n == len(ids)
    meadow = table.chips.class_names.index("meadow")
    kept = np.flatnonzero(labels != meadow)
    recipe_seed = int(bundled.planted_probe_recipe().seeds[0] - bundled.planted_probe_recipe().ids[0])
    hazed = paint("haze", pixels[ids[kept]], SENTINEL2, 0.75, ids[kept] + recipe_seed)
    reliance = (forward(train, model, hazed)[:, meadow] - plain[kept, meadow]).mean()
    assert reliance == pytest.approx(card.measure("haze reliance of meadow").value, abs=0.01)


def test_the_plant_is_learned_and_the_clean_one_does_not_lean_on_haze() -> None:
    clean, haze = (bundled.checkpoints()[name].load_card() for name in ("clean", "haze"))
    for name in clean.class_names:
        assert abs(clean.measure(f"haze reliance of {name}").value) < 0.05
    assert haze.measure("haze reliance of meadow").value > 0.5
    assert haze.measure("accuracy of meadow").value < clean.measure("accuracy of meadow").value - 0.3
    harm = haze.measure("accuracy of meadow less the clean classifier's")
    assert harm.high is not None
    assert harm.high < 0
    assert "Planted on purpose" in haze.issues[0]
