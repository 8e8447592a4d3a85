"""The bench of labels: labels are read as meant, units compute what they say, splits stay apart, tables hold hostile text."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dnd_core.errors import ConfigError
from dnd_core.images import ArrayImages
from dnd_core.testing import Concept
from dnd_core.types import UnitId
from geoaudit.bands import SENTINEL2
from geoaudit.bench import labels as bench_labels
from geoaudit.bench.labels_networks import read_labels
from geoaudit.bench.labels_tiles import index_masks, parts
from geoaudit.bench.labels_units import KINDS, EarthUnit, EarthUnits, earth_units, extension, told
from geoaudit.bench.labels_words import read
from geoaudit.perturb import paint


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("dark forest or green grass", Concept.of("vegetation")),
        ("dark grey open water", Concept.of("water")),
        ("brown dry grass", Concept.of("dry ground")),
        ("pale brown bare farm fields without haze", Concept.of("dry ground", without=["haze"])),
        ("houses", Concept.of("dry ground")),
        ("thick haze and vertical", Concept.of("haze", "vertical stripes")),
        ("vertical stripes or horizontal stripes", Concept.of("stripes")),
        ("no trees", Concept.of(without=["vegetation"])),
        ("black nodata wedge", Concept.of("nodata")),
        ("dark tile border", Concept.of("border")),
        ("rough texture", Concept.of("rough")),
        ("dark overall", Concept.of("dark")),
    ],
)
def test_labels_are_read_as_they_are_meant(label, meant):
    assert read(label) == meant


@pytest.mark.parametrize("label", ["fishing boats", "narrow line", "water towers at noon"])
def test_foreign_words_spoil_a_label(label):
    assert read(label).alternatives
    assert all(read(label) != unit.concept for unit in earth_units())


def test_an_empty_label_says_nothing():
    assert read(" ").alternatives == frozenset()


@pytest.fixture(scope="module")
def ground():
    """Four tiles each of green land, water and dry soil: (12, 13, 32, 32) reflectance."""
    rng = np.random.default_rng(0)
    spectra = {
        "vegetation": {"B02": 0.105, "B03": 0.08, "B04": 0.05, "B08": 0.35, "B11": 0.15},
        "water": {"B02": 0.105, "B03": 0.07, "B04": 0.04, "B08": 0.02, "B11": 0.01},
        "dry ground": {"B02": 0.16, "B03": 0.15, "B04": 0.15, "B08": 0.2, "B11": 0.3},
    }
    rows = [[spectra[name].get(band, 0.05) for band in SENTINEL2] for name in spectra for _ in range(4)]
    pixels = np.array(rows, np.float32)[:, :, None, None] + rng.normal(0, 0.0005, (12, 13, 32, 32))
    return pixels.astype(np.float32)


def fired(units, pixels):
    return EarthUnits(units, SENTINEL2, seed=0)(torch.from_numpy(pixels)).mean((2, 3)).numpy()


def single(name):
    return EarthUnit("single", Concept.of(name), name)


def test_index_units_fire_on_their_ground_alone(ground):
    found = fired([single(name) for name in ("vegetation", "water", "dry ground")], ground)
    np.testing.assert_allclose(found, np.repeat(np.eye(3), 4, axis=0), atol=0.02)


@pytest.mark.parametrize(
    ("painted", "name"),
    [
        ("haze", "haze"),
        ("stripes_vertical", "vertical stripes"),
        ("stripes_horizontal", "horizontal stripes"),
        ("border", "border"),
        ("wedge", "nodata"),
    ],
)
def test_artefact_units_fire_on_what_was_painted_alone(ground, painted, name):
    names = ("haze", "vertical stripes", "horizontal stripes", "border", "nodata")
    marked = paint(painted, ground, SENTINEL2, 0.7, 1)
    before, after = (fired([single(n) for n in names], pixels) for pixels in (ground, marked))
    assert before.max() < 0.1
    place = names.index(name)
    assert (after[:, place] > 0.3).all()
    assert np.delete(after, place, axis=1).max() < 0.1


def test_haze_does_not_change_what_the_ground_is(ground):
    units = [single(name) for name in ("vegetation", "water", "dry ground")]
    hazed = fired(units, paint("haze", ground, SENTINEL2, 0.8, 1))
    assert hazed.argmax(axis=1).tolist() == np.repeat([0, 1, 2], 4).tolist()


def test_compound_units_join_their_parts(ground):
    pixels = ground.copy()
    pixels[:6] = paint("haze", ground[:6], SENTINEL2, 1.0, 1)
    both = EarthUnit("and", None, "vegetation", "haze", "and")
    either = EarthUnit("or", None, "water", "dry ground", "or")
    without = EarthUnit("not", None, "water", "haze", "without")
    denied = EarthUnit("not", None, "water", "", "not")
    found = fired([both, either, without, denied], pixels)
    assert (found[:4, 0] > 0.8).all()
    assert found[4:, 0].max() < 0.1
    np.testing.assert_allclose(found[:, 1], [0] * 4 + [1] * 8, atol=0.05)
    # Tiles 4 and 5 are hazy water, 6 and 7 clear water.
    assert found[4:6, 2].max() < 0.2
    assert (found[6:8, 2] > 0.9).all()
    np.testing.assert_allclose(found[:, 3], [1] * 4 + [0] * 4 + [1] * 4, atol=0.02)


def test_dead_units_never_fire_and_random_ones_do_not_depend_on_the_batch(ground):
    rng = np.random.default_rng(0)
    pixels = np.round(rng.random((60, 13, 32, 32)) * 3000).astype(np.float32) / 10_000
    units = [EarthUnit("dead", None, how="dead"), EarthUnit("random", None, how="random")]
    whole = fired(units, pixels)
    assert (whole[:, 0] == 0).all()
    assert 0.02 < (whole[:, 1] > 0).mean() < 0.5
    np.testing.assert_array_equal(whole[7:9], fired(units, pixels[7:9]))


def test_every_kind_of_unit_is_there_and_says_what_it_computes(ground):
    units = earth_units(0)
    assert {unit.kind for unit in units} == set(KINDS)
    assert earth_units(0) == units
    assert earth_units(1) != units
    named = [unit for unit in units if unit.concept is not None]
    assert len(named) == len(units) - 12
    # What is known of a unit in words is what its channel computes, but for its own small shift of thresholds.
    plain = [EarthUnit(u.kind, u.concept, u.first, u.second, u.how) for u in named]
    pixels = np.concatenate([ground, paint("border", paint("haze", ground, SENTINEL2, 1.0, 1), SENTINEL2, 0.7, 1)])
    found = fired(plain, pixels)
    for place, unit in enumerate(named):
        np.testing.assert_allclose(found[:, place], extension(unit.concept, pixels, SENTINEL2), atol=1e-5)


def test_units_are_told_in_the_same_words_in_every_process():
    """A killed bench goes on in another process, where sets have another order."""
    code = "from geoaudit.bench.labels_units import earth_units, told; print(told(earth_units(3)))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.decode() == told(earth_units(3)) + "\n"
    assert "set(" not in told(earth_units(3))
    assert told(earth_units(3)) != told(earth_units(4))


def test_what_no_unit_measures_has_no_extension(ground):
    assert extension(Concept.of("fishing boats"), ground, SENTINEL2) is None
    assert extension(read(""), ground, SENTINEL2) is None


def test_index_masks_are_where_the_indices_say(ground):
    masks = index_masks(ground, SENTINEL2).mean(axis=(2, 3))
    assert (masks[:4, 0] == 1).all()
    assert (masks[4:8, 1] > 0.99).all()
    assert (masks[8:, 2] == 1).all()


def test_no_block_is_both_seen_and_scored():
    blocks = np.repeat(np.arange(40), 5)
    pixels = np.random.default_rng(0).random((200, 3, 8, 8), dtype=np.float32)
    split = parts(ArrayImages(pixels, blocks=blocks), seed=4)
    sides = [
        split.probe.blocks[np.setdiff1d(np.arange(len(split.probe)), split.held_out)],
        split.probe.blocks[split.held_out],
        split.pool.blocks,
        split.evaluation.blocks,
    ]
    assert sum(map(len, sides)) == 200
    assert all(not set(a) & set(b) for i, a in enumerate(sides) for b in sides[:i])
    np.testing.assert_array_equal(split.evaluation.pixels([0])[0], pixels[split.evaluated[0]])
    np.testing.assert_array_equal(split.probe.pixels([3])[0], pixels[split.probed[3]])
    assert 0.2 < len(split.evaluation) / 200 < 0.3


LAYERS = {"layer4": 96, "output": 5}


def table(tmp_path, text):
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_labels_are_read_by_classifier(tmp_path):
    path = table(
        tmp_path, "layer,unit,label,model\nlayer4,3,dark forest; haze,clean\noutput,0,fields,haze\nlayer4,5,,\n"
    )
    assert read_labels(path, "clean", LAYERS, ["haze"]) == {
        UnitId("layer4", 3): ("dark forest", "haze"),
        UnitId("layer4", 5): (),
    }
    assert read_labels(path, "haze", LAYERS, ["clean"]) == {UnitId("output", 0): ("fields",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer,unit\nlayer4,1\n", "no column label"),
        ("layer,unit,label\nlayer9,1,a\n", "line 2: layer 'layer9'"),
        ("layer,unit,label\nlayer4,96,a\n", "line 2: unit '96'"),
        ("layer,unit,label\nlayer4,-1,a\n", "line 2: unit '-1'"),
        ("layer,unit,label,model\nlayer4,1,a,other\n", "line 2: model 'other'"),
        ("", "no column layer, unit, label"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_sentence(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        read_labels(table(tmp_path, text), "clean", LAYERS, ["haze"])


def test_a_missing_file_of_labels_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels(tmp_path / "none.csv", "clean", LAYERS, [])


def test_wrong_labels_of_a_user_are_refused_before_anything_runs(tmp_path):
    path = table(tmp_path, "layer,unit,label\nlayer4,1000,a\n")
    with pytest.raises(ConfigError, match="unit '1000'"):
        bench_labels.run_labels(tmp_path / "out", bench_labels.QUICK, path)
    assert not (tmp_path / "out").exists()


def test_a_cell_depends_on_the_labels_of_a_user(tmp_path):
    part = SimpleNamespace(fingerprint="a")
    case = SimpleNamespace(name="clean-1", network=part, probe=part, pool=part, evaluation=part, layers=("layer4",))
    encoder = SimpleNamespace(fingerprint="e")
    keys = [bench_labels._cell_file(tmp_path, case, part, encoder, inputs)[1] for inputs in ("one", "one", "two")]
    assert keys[0] == keys[1] != keys[2]
