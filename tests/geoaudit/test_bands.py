"""Band names, order, roles and pictures."""

from __future__ import annotations

import numpy as np
import pytest

from dnd_core.errors import ProbeError
from geoaudit.bands import (
    LANDSAT8,
    SENTINEL2,
    Stretch,
    band,
    canonical,
    find_role,
    render_rgb,
    reorder,
    role,
    spyndex_indices,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("B1", "B01"),
        ("B01", "B01"),
        ("b8a", "B8A"),
        ("B8a", "B8A"),
        ("B08A", "B8A"),
        ("band 11", "B11"),
        ("red", "B04"),
        ("R", "B04"),
        ("NIR", "B08"),
        ("nir08", "B8A"),
        ("swir1", "B11"),
        ("SR_B5", "L8_B5"),
        ("LC08_B10", "L8_B10"),
        ("L8_B2", "L8_B2"),
    ],
)
def test_canonical_knows_every_spelling(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_canonical_follows_the_sensor() -> None:
    assert canonical("B5") == "B05"
    assert canonical("B5", "landsat-8") == "L8_B5"
    assert band("B5").role == "rededge071"
    assert band("B5", "landsat-8").role == "nir08"
    assert canonical("nir", "landsat-8") == "L8_B5"


@pytest.mark.parametrize("name", ["B13", "B4A", "VV", "", "rededge"])
def test_an_unknown_band_is_refused(name: str) -> None:
    with pytest.raises(ProbeError, match="unknown band"):
        canonical(name)


def test_unknown_sensor_and_landsat_letter() -> None:
    with pytest.raises(ProbeError, match="unknown sensor 'spot'"):
        canonical("B1", "spot")
    with pytest.raises(ProbeError, match="unknown band 'B8A' for landsat-8"):
        canonical("B8A", "landsat-8")


def test_every_band_is_its_own_canonical_name_and_roles_are_unique() -> None:
    for names in (SENTINEL2, LANDSAT8):
        assert [canonical(name) for name in names] == list(names)
        assert len({role(name) for name in names}) == len(names)
    assert len(SENTINEL2) == 13


def test_reorder_moves_eurosats_last_b8a() -> None:
    eurosat = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
    indices = reorder(eurosat, SENTINEL2)
    assert [eurosat[i] for i in indices] == list(SENTINEL2)
    assert indices[8] == 12
    assert reorder(("red", "green", "blue"), ("B02", "B4")) == (2, 0)
    assert reorder(("VV", "dem"), ("dem",)) == (1,)


def test_reorder_names_what_is_missing() -> None:
    with pytest.raises(ProbeError, match="lack bands B08, B11: they have B02, B03, B04"):
        reorder(("B02", "B03", "B04"), ("B04", "B08", "B11"))
    with pytest.raises(ProbeError, match="'B4' stands twice"):
        reorder(("B04", "B4"), ("B04",))


def test_spyndex_names() -> None:
    found = spyndex_indices(SENTINEL2)
    assert found["N"] == 7
    assert found["N2"] == 8
    assert found["S1"] == 11
    assert spyndex_indices(("B04", "B8A")) == {"R": 0, "N2": 1, "N": 1}
    assert spyndex_indices(("L8_B4", "L8_B5", "dem")) == {"R": 0, "N": 1}
    assert find_role(("B8A", "B02"), "nir", "nir08") == 0
    assert find_role(("VV",), "red") is None


@pytest.mark.parametrize("channels", [("red", "green", "blue"), ("B08", "B02", "B03", "B04"), SENTINEL2])
def test_rendering_takes_the_right_bands(channels: tuple[str, ...]) -> None:
    pixels = np.full((len(channels), 4, 5), 0.9, dtype=np.float32)
    for value, colour in ((0.1, "red"), (0.2, "green"), (0.3, "blue")):
        pixels[find_role(channels, colour)] = value
    picture = render_rgb(pixels, channels, Stretch((0, 0, 0), (0.4, 0.4, 0.4)))
    assert picture.shape == (4, 5, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [64, 128, 191]
    batch = render_rgb(np.stack([pixels, pixels]), channels, Stretch((0, 0, 0), (0.4, 0.4, 0.4)))
    assert batch.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(batch[1], picture)


def test_rendering_refuses_what_has_no_colour() -> None:
    with pytest.raises(ProbeError, match="no green and no blue"):
        render_rgb(np.zeros((2, 3, 3), np.float32), ("B04", "B08"))
    with pytest.raises(ProbeError, match="do not match the 3 channels"):
        render_rgb(np.zeros((2, 3, 3), np.float32), ("red", "green", "blue"))


def test_stretch_of_a_scene_is_its_percentiles_over_valid_pixels() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.05, 0.3, (4, 60, 50)).astype(np.float32)
    channels = ("blue", "green", "red", "nir")
    valid = np.ones((60, 50), dtype=bool)
    valid[:, :10] = False
    pixels[:, ~valid] = 50.0
    stretch = Stretch.from_scene(pixels, channels, valid=valid, percentiles=(2, 98), gamma=1)
    for colour, index in enumerate((2, 1, 0)):
        expected = np.percentile(pixels[index][valid], (2, 98))
        assert (stretch.low[colour], stretch.high[colour]) == pytest.approx(tuple(expected), abs=1e-6)
    picture = render_rgb(pixels, channels, stretch, valid=valid)
    assert (picture[~valid] == 0).all()
    assert (picture[valid] == 255).any()


def test_stretch_is_monotone_and_guards_its_range() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8).repeat(3, axis=0)
    picture = render_rgb(ramp, ("red", "green", "blue"), Stretch(gamma=0.7)).reshape(-1, 3).astype(int)
    assert (np.diff(picture, axis=0) >= 0).all()
    assert Stretch.from_scene(np.full((3, 4, 4), 0.2, np.float32), ("red", "green", "blue")).high[0] > 0.2
    with pytest.raises(ProbeError, match="low < high"):
        Stretch((0.5, 0, 0), (0.5, 1, 1))
    with pytest.raises(ProbeError, match="gamma"):
        Stretch(gamma=0)
    with pytest.raises(ProbeError, match="one valid pixel"):
        Stretch.from_scene(ramp, ("red", "green", "blue"), valid=np.zeros((8, 8), bool))
