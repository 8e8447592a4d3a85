"""Painted artefacts do what their words say, on 3, 4 and 13 bands, and nothing else."""

import numpy as np
import pytest

from dnd_core.errors import ConfigError, ProbeError
from geoaudit.painters import OFFSET, wavelengths
from geoaudit.perturb import PERTURBATIONS, image_seeds, paint

S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
BANDS = {3: ("red", "green", "blue"), 4: ("red", "green", "blue", "nir"), 13: S2}


def tiles(n: int, bands: int, size: int = 32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.03, 0.3, (n, bands, size, size)).astype(np.float32)


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_pure_seeded_and_graded(name: str, bands: int) -> None:
    before = tiles(5, bands)
    kept = before.copy()
    strong = paint(name, before, BANDS[bands], 1.0, range(5))
    assert np.array_equal(before, kept)
    assert strong.dtype == np.float32
    assert strong.shape == before.shape
    assert np.isfinite(strong).all()
    assert np.array_equal(paint(name, before, BANDS[bands], 0.0, range(5)), before)
    change = [np.abs(paint(name, before, BANDS[bands], s, range(5)) - before).mean() for s in (0.2, 0.5, 1.0)]
    assert 0 < change[0] < change[1] < change[2]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_neither_order_nor_batching_matters(name: str) -> None:
    before = tiles(6, 13)
    whole = paint(name, before, S2, 0.7, 42)
    turned = paint(name, before[::-1], S2, 0.7, 42)[::-1]
    single = np.concatenate([paint(name, before[i : i + 1], S2, 0.7, 42) for i in range(6)])
    assert np.array_equal(whole, turned)
    assert np.array_equal(whole, single)


def test_another_seed_moves_what_is_random() -> None:
    before = tiles(1, 13)
    for name in ("haze", "cloud", "wedge", "band_dropout"):
        painted = {paint(name, before, S2, 0.6, [seed]).tobytes() for seed in range(12)}
        assert len(painted) > 3, name
    assert image_seeds(before, 0) != image_seeds(before, 1)


def test_nodata_stays_nodata() -> None:
    before = tiles(1, 13)
    before[:, :, :10, :10] = 0
    for name in PERTURBATIONS:
        assert (paint(name, before, S2, 1.0, 3)[:, :, :10, :10] == 0).all(), name


def test_haze_is_strongest_in_blue_absent_in_cirrus_and_lowers_contrast() -> None:
    before = np.full((1, 13, 64, 64), 0.1, np.float32)
    rise = (paint("haze", before, S2, 0.6, 0) - before).mean(axis=(0, 2, 3))
    vis_to_swir = rise[[0, 1, 2, 3, 7, 11, 12]]
    assert (np.diff(vis_to_swir) < 0).all()
    assert rise[S2.index("B10")] == 0
    noisy = tiles(1, 13)
    hazy = paint("haze", noisy, S2, 0.6, 0)
    assert hazy[0, 1].std() < noisy[0, 1].std()
    veil = paint("haze", before, S2, 1.0, 0)[0, 1] - 0.1
    assert np.abs(np.diff(veil, axis=0)).max() < 0.1 * veil.mean()
    assert np.ptp(veil) > 0.1 * veil.mean()


def test_offset_and_gain_are_exact() -> None:
    before = tiles(2, 4)
    assert np.allclose(paint("offset", before, BANDS[4], 1.0) - before, OFFSET, atol=1e-6)
    assert np.allclose(paint("gain", before, BANDS[4], 1.0), before * 1.3)


def test_stripes_run_the_way_their_name_says() -> None:
    before = np.full((1, 3, 32, 32), 0.1, np.float32)
    vertical = paint("stripes_vertical", before, BANDS[3], 1.0, 5)[0, 0]
    assert (np.ptp(vertical, axis=0) == 0).all()
    lines = np.flatnonzero(vertical[0] > 0.1)
    assert len(lines) == 8
    assert (np.diff(lines) == 4).all()
    assert (np.ptp(paint("stripes_horizontal", before, BANDS[3], 1.0, 5)[0, 0], axis=1) == 0).all()


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_wedge_takes_half_its_strength_of_the_tile(strength: float) -> None:
    lost = (paint("wedge", tiles(1, 13), S2, strength, 7) == 0).all(axis=1).mean()
    assert lost == pytest.approx(strength / 2, abs=0.01)


def test_border_cast_quantise_blur_swap_and_dropout() -> None:
    before = tiles(1, 3)
    framed = paint("border", before, BANDS[3], 1.0)
    assert (framed[..., 0, :] == 0).all()
    assert np.array_equal(framed[..., 4:-4, 4:-4], before[..., 4:-4, 4:-4])
    cast = paint("colour_cast", before, BANDS[3], 1.0)
    assert np.allclose(cast[:, 1], before[:, 1])
    assert (cast[:, 0] > before[:, 0]).all()
    assert (cast[:, 2] < before[:, 2]).all()
    assert len(np.unique(paint("quantise", before, BANDS[3], 1.0))) <= 6
    assert paint("blur", before, BANDS[3], 1.0).std() < 0.2 * before.std()
    swapped = paint("band_swap", before, BANDS[3], 1.0)
    assert np.allclose(swapped[:, [2, 1, 0]], before, atol=1e-7)
    gone = (paint("band_dropout", before, BANDS[3], 1.0) == 0).all(axis=(0, 2, 3))
    assert gone.sum() == 1


def test_jpeg_leaves_whole_blocks_and_cloud_brings_light_and_shadow() -> None:
    blocky = paint("jpeg", 0.3 * tiles(1, 3), BANDS[3], 1.0)[0, 0]
    jumps = np.abs(np.diff(blocky, axis=1)).mean(axis=0)
    assert jumps[7::8].mean() > 1.5 * np.delete(jumps, np.s_[7::8]).mean()
    flat = np.full((1, 13, 64, 64), 0.1, np.float32)
    cloudy = paint("cloud", flat, S2, 0.6, 1)[0, 3]
    assert (cloudy > 0.5).mean() > 0.1
    assert (cloudy < 0.06).mean() > 0.02


def test_watermark_stays_in_its_corner() -> None:
    before = tiles(1, 13)
    changed = (paint("watermark", before, S2, 1.0) != before).any(axis=(0, 1))
    assert changed[23:, 23:].any()
    assert not changed[:22].any()
    assert not changed[:, :22].any()


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="choose one of haze"):
        paint("fogg", tiles(1, 3), BANDS[3], 0.5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        paint("haze", tiles(1, 3), BANDS[3], 1.5)
    with pytest.raises(ProbeError, match="13 channels"):
        paint("haze", tiles(1, 3), S2, 0.5)
    with pytest.raises(ProbeError, match="2 seeds for 1 images"):
        paint("haze", tiles(1, 3), BANDS[3], 0.5, [1, 2])
    with pytest.raises(ProbeError, match="'depth'"):
        wavelengths(("red", "depth"))
