"""Chips of a scene: the right pixels, place, class and picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dnd_core.errors import ConfigError, ProbeError
from dnd_core.images import ImageSet
from geoaudit.bands import SENTINEL2
from geoaudit.labels import Chips, Labels
from geoaudit.perturb import paint
from geoaudit.probes import Artefact, SceneProbe
from geoaudit.scenes import open_scene

from .drawing import write_raster

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene 96 x 64 whose pixel (row, column) holds 1000 + row in every band and 100 x band more."""
    rows = np.arange(64, dtype=np.uint16)[None, :, None]
    bands = 100 * np.arange(4, dtype=np.uint16)[:, None, None]
    values = (1000 + rows + bands + np.zeros((1, 1, 96), np.uint16)).astype(np.uint16)
    values[:, :4, :4] = 0
    folder = tmp_path_factory.mktemp("scene with space ü")
    return write_raster(
        folder / "scene.tif", values, bands=BANDS, scale=1e-4, nodata=0, tags={"ACQUIRED": "2017-02-16"}
    )


def halves() -> Labels:
    raster = np.zeros((64, 96), dtype=np.int16)
    raster[:, 48:] = 1
    return Labels(raster, ("west", "east"))


@pytest.fixture(scope="module")
def probe(path: Path) -> SceneProbe:
    return SceneProbe(path, halves(), chip_size=16, centre=8, stride=16, block=32)


def test_it_is_an_image_set_of_reflectance(probe: SceneProbe) -> None:
    assert isinstance(probe, ImageSet)
    assert probe.channels == BANDS
    assert probe.shape == (4, 16, 16)
    # 4 x 6 chips less the one with the nodata corner.
    assert len(probe) == 23
    pixels = probe.pixels([0, 5])
    assert pixels.dtype == np.float32
    assert pixels.shape == (2, 4, 16, 16)
    np.testing.assert_allclose(pixels[0, :, 0, 0], [0.1, 0.11, 0.12, 0.13], atol=1e-6)
    # The sixth chip stands in the second row of chips: row 16 of the scene.
    np.testing.assert_allclose(pixels[1, 0, :, 0], (1000 + np.arange(16, 32)) / 1e4, atol=1e-6)


def test_every_chip_knows_its_place_class_and_day(probe: SceneProbe) -> None:
    image = probe[5]
    assert image.metadata["crs"] == "EPSG:32633"
    assert image.metadata["bounds"] == (300000.0, 5800000.0 - 320, 300160.0, 5800000.0 - 160)
    assert image.metadata["acquired"] == "2017-02-16"
    assert image.metadata["source"].endswith("scene.tif")
    assert image.metadata["class_name"] == "west"
    assert image.metadata["label"] == 0
    assert probe.labels is not None
    assert probe[len(probe) - 1].metadata["class_name"] == "east"
    mask = probe.mask(0)
    assert mask is not None
    assert np.all(mask == 0)


def test_blocks_never_share_a_pixel(path: Path) -> None:
    probe = SceneProbe(path, halves(), chip_size=16, centre=8, stride=4, block=32)
    owners = np.full((64, 96), -1)
    assert probe.blocks is not None
    for index, block in enumerate(probe.blocks):
        row, column = int(probe.chips.rows[index]), int(probe.chips.columns[index])
        part = owners[row : row + 16, column : column + 16]
        assert np.all((part == -1) | (part == block))
        part[:] = block


def test_pictures_use_one_stretch_whatever_chips_are_chosen(path: Path, probe: SceneProbe) -> None:
    few = SceneProbe(path, chips=probe.chips.subset([3, 7]))
    assert few.stretch == probe.stretch
    assert np.array_equal(few[1].rgb, probe[7].rgb)
    assert few.fingerprint != probe.fingerprint
    # Rows get brighter southwards, so must the pictures.
    assert probe[20].rgb.mean() > probe[0].rgb.mean()


def test_bands_can_be_chosen_and_reordered(path: Path) -> None:
    probe = SceneProbe(path, halves(), bands=("B8", "B04", "B03", "B02"), chip_size=16, centre=8, stride=16, block=32)
    assert probe.channels == ("B08", "B04", "B03", "B02")
    np.testing.assert_allclose(probe.pixels([0])[0, :, 0, 0], [0.13, 0.12, 0.11, 0.1], atol=1e-6)


def test_a_scene_without_labels_and_one_too_large_to_keep(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SceneProbe(path, chip_size=16, stride=16, block=32)
    assert kept.labels is None
    assert kept.class_names == ()
    assert "label" not in kept[0].metadata
    monkeypatch.setattr("geoaudit.probes.scene._MEMORY_BYTES", 0)
    windowed = SceneProbe(path, chip_size=16, stride=16, block=32)
    assert np.array_equal(windowed.pixels(range(len(windowed))), kept.pixels(range(len(kept))))
    assert windowed._whole is None


def test_a_recipe_paints_the_chosen_chips_only(probe: SceneProbe) -> None:
    recipe = {2: Artefact("haze", 0.8, 7), 4: Artefact("stripes_vertical", 0.5, 8), 6: Artefact("haze", 0.8, 9)}
    painted = probe.painted(recipe)
    clean, dirty = probe.pixels(range(8)), painted.pixels(range(8))
    for index in range(8):
        if index in recipe:
            one = recipe[index]
            expected = paint(one.name, clean[index][None], BANDS, one.strength, [one.seed])[0]
            assert not np.array_equal(dirty[index], clean[index])
            assert np.array_equal(dirty[index], expected)
            assert painted[index].metadata["painted"]["name"] == one.name
            assert painted[index].key != probe[index].key
        else:
            assert np.array_equal(dirty[index], clean[index])
            assert "painted" not in painted[index].metadata
    assert np.array_equal(painted[1].rgb, probe[1].rgb)
    assert painted.stretch == probe.stretch
    assert painted.fingerprint != probe.fingerprint
    assert probe.painted({}).fingerprint != painted.fingerprint
    with pytest.raises(ProbeError, match="image 99"):
        probe.painted({99: Artefact("haze", 0.5, 0)})
    with pytest.raises(ConfigError, match="no perturbation"):
        probe.painted({0: Artefact("dust", 0.5, 0)})


def test_the_cache_stays_small_and_indices_are_checked(probe: SceneProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoaudit.probes.base._CACHE_BYTES", 0)
    for index in range(len(probe)):
        probe[index]
    assert probe._cache is not None
    assert len(probe._cache) <= 8
    assert probe[-1].key == probe[len(probe) - 1].key
    with pytest.raises(IndexError):
        probe[len(probe)]
    assert len(list(iter(probe[i] for i in range(3)))) == 3


def test_bad_input(path: Path) -> None:
    with pytest.raises(ProbeError, match="field="):
        SceneProbe(path, "polygons.gpkg")
    with pytest.raises(ProbeError, match="grid of 3 x 2 pixels"):
        SceneProbe(path, Labels(np.zeros((2, 3), np.int16), ("a",)))


def test_given_chips_are_taken_as_they_are(path: Path) -> None:
    zero = np.zeros(1, dtype=np.int64)
    chips = Chips(32, zero + 8, zero + 40, zero + 1, zero + 5, ("a", "b"))
    probe = SceneProbe(open_scene(path), chips=chips)
    assert len(probe) == 1
    assert probe[0].metadata["class_name"] == "b"
    assert probe.blocks is not None
    assert probe.blocks.tolist() == [5]
    assert len(SENTINEL2) == 13
