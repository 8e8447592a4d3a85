"""Concept images come from tiles the probe has never seen, and show the concept."""

import numpy as np
import pytest

from dnd_core.backends.sentences import SentenceEncoder
from dnd_core.errors import ProbeError
from dnd_core.images import ArrayImages, Subset
from geoaudit.bands import SENTINEL2, render_rgb
from geoaudit.perturb import paint
from geoaudit.retrieval import TilePool, check_apart, keep_apart

SOIL = (0.18, 0.165, 0.155, 0.17, 0.185, 0.2, 0.21, 0.22, 0.23, 0.22, 0.001, 0.3, 0.25)
WATER = (0.15, 0.12, 0.085, 0.045, 0.035, 0.025, 0.025, 0.02, 0.02, 0.01, 0.001, 0.006, 0.004)


def tiles(left: float = 0.0, seed: int = 0, crs: str = "EPSG:32633", step: float = 320.0) -> ArrayImages:
    """Twenty tiles in a row from ``left`` on: bare soil (even) and water (odd), every fourth pair under haze."""
    rng = np.random.default_rng(seed)
    spectra = np.array([SOIL, WATER] * 10, np.float32)[:, :, None, None]
    pixels = (spectra * (1 + 0.02 * rng.standard_normal((20, 1, 32, 32)))).astype(np.float32)
    hazy = np.arange(20) // 2 % 4 == 0
    pixels[hazy] = paint("haze", pixels[hazy], SENTINEL2, 0.7, seed)
    bounds = [(left + i * step, 5.8e6, left + i * step + 320, 5.8e6 + 320) for i in range(20)]
    return ArrayImages(
        pixels,
        rgb=render_rgb(pixels, SENTINEL2),
        channels=SENTINEL2,
        blocks=np.arange(20) // 4,
        metadata=[{"crs": crs, "bounds": b} for b in bounds],
    )


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_retrieved_tiles_show_the_concept(encoder: SentenceEncoder) -> None:
    pool = TilePool(tiles(10_000, seed=1), tiles(), encoder)
    hazy = {i for i in range(20) if i // 2 % 4 == 0}
    assert set(pool.choose("haze", 6)) <= hazy
    assert set(pool.choose("hazy", 6)) <= hazy
    assert set(pool.choose("lake", 6)) <= {i for i in range(20) if i % 2}
    assert set(pool.choose("haze over bare fields", 3)) == {i for i in hazy if i % 2 == 0}
    assert set(pool.choose("open water without haze", 5)) <= {i for i in range(20) if i % 2} - hazy
    assert [image.key for image in pool.show("haze", 3)] == [pool.pool[i].key for i in pool.choose("haze", 3)]


def test_windows_lie_within_what_half_a_tile_shows(encoder: SentenceEncoder) -> None:
    whole = tiles(10_000, seed=1)
    pixels = whole.pixels(range(20))
    # Every tile has bare soil in its left half and water in its right.
    pixels[:, :, :, :16], pixels[:, :, :, 16:] = pixels[[18]][..., :16], pixels[[19]][..., :16]
    halves = ArrayImages(pixels, rgb=render_rgb(pixels, SENTINEL2), channels=SENTINEL2)
    pool = TilePool(halves, tiles(), encoder, windows=True)
    assert {image.metadata["window"][0] for image in pool.show("open water", 6)} == {16}
    assert {image.metadata["window"][0] for image in pool.show("bare fields", 6)} == {0}


def test_a_tile_of_the_probe_is_refused(encoder: SentenceEncoder) -> None:
    probe = tiles()
    far = tiles(10_000, seed=1)
    check_apart(far, probe)
    mixed = np.concatenate([far.pixels(range(5)), probe.pixels([7])])
    equal = ArrayImages(mixed, rgb=render_rgb(mixed, SENTINEL2), channels=SENTINEL2)
    with pytest.raises(ProbeError, match=r"pool tile 5 equals probe tile 7 \(1 of 6 do\)"):
        TilePool(equal, probe, encoder)


def test_ground_shared_with_the_probe_is_refused_but_neighbours_are_not() -> None:
    probe = tiles()
    with pytest.raises(ProbeError, match="pool tile 0 overlaps probe tile 18 on the ground"):
        check_apart(tiles(18.5 * 320, seed=1), probe)
    check_apart(tiles(20 * 320, seed=1), probe)
    check_apart(Subset(probe, range(0, 20, 2)), Subset(probe, range(1, 20, 2)))


def test_what_the_probe_has_seen_is_left_out_of_a_pool_and_counted(encoder: SentenceEncoder) -> None:
    probe, far = tiles(), tiles(10_000, seed=1)
    assert keep_apart(far, probe) == (far, 0)
    pool, lost = keep_apart(tiles(18.5 * 320, seed=1), probe)
    assert (len(pool), lost) == (18, 2)
    TilePool(pool, probe, encoder)
    both = np.concatenate([far.pixels(range(5)), probe.pixels([7])])
    mixed = ArrayImages(both, rgb=render_rgb(both, SENTINEL2), channels=SENTINEL2)
    assert keep_apart(mixed, probe)[1] == 1
    with pytest.raises(ProbeError, match="all 20 tiles of the pool equal or overlap"):
        keep_apart(tiles(100, seed=1), probe)


def test_ground_is_compared_across_reference_systems() -> None:
    from rasterio.warp import transform_bounds

    probe = tiles(400_000)
    same_ground = [transform_bounds("EPSG:32633", "EPSG:4326", *probe[i].metadata["bounds"]) for i in range(20)]
    other = tiles(0, seed=1)
    moved = ArrayImages(
        other.pixels(range(20)),
        rgb=render_rgb(other.pixels(range(20)), SENTINEL2),
        channels=SENTINEL2,
        metadata=[{"crs": "EPSG:4326", "bounds": bounds} for bounds in same_ground],
    )
    with pytest.raises(ProbeError, match="overlaps probe tile"):
        check_apart(moved, probe)


def test_tiles_without_a_place_are_compared_by_content_only() -> None:
    probe, pool = tiles(), tiles(seed=1)
    bare = ArrayImages(pool.pixels(range(20)), rgb=render_rgb(pool.pixels(range(20)), SENTINEL2), channels=SENTINEL2)
    check_apart(bare, probe)
    assert bare[0].metadata.get("bounds") is None
