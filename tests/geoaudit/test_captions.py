"""Captions of tiles whose content is known: typical spectra, painted artefacts, mapped chips of the bundled scene."""

from functools import cache

import numpy as np
import pytest

from dnd_core.backends.measured import stack_valid
from dnd_core.errors import ConfigError, ProbeError
from dnd_core.images import ProbeImage
from dnd_core.presence import clauses
from dnd_core.types import Box
from geoaudit import bundled
from geoaudit.agreement import ARTEFACT_WORDS, artefact_agreement, as_images, cover_agreement
from geoaudit.bands import SENTINEL2
from geoaudit.captions import SatelliteCaptioner, extent, measures
from geoaudit.cover import COVERS, classify, clear, level_of, luminance
from geoaudit.flaws import find_flaws
from geoaudit.perturb import paint
from geoaudit.scenes import open_scene

SIZE = 32
# Surface reflectance of typical covers, in the order of SENTINEL2 (B10 apart).
SPECTRA = {
    "water": (0.03, 0.035, 0.04, 0.025, 0.02, 0.015, 0.015, 0.012, 0.012, 0.01, 0.0, 0.006, 0.004),
    "dense vegetation": (0.02, 0.025, 0.06, 0.03, 0.08, 0.3, 0.4, 0.42, 0.43, 0.42, 0.0, 0.19, 0.09),
    "forest": (0.02, 0.022, 0.035, 0.025, 0.05, 0.13, 0.17, 0.18, 0.19, 0.18, 0.0, 0.1, 0.05),
    "bare soil": (0.06, 0.08, 0.11, 0.15, 0.17, 0.19, 0.2, 0.21, 0.22, 0.22, 0.0, 0.3, 0.25),
    "snow": (0.8, 0.82, 0.82, 0.8, 0.8, 0.78, 0.76, 0.74, 0.72, 0.6, 0.0, 0.08, 0.06),
    "sand": (0.2, 0.26, 0.32, 0.38, 0.4, 0.41, 0.42, 0.43, 0.44, 0.44, 0.0, 0.5, 0.46),
}
# Path radiance of clear air at top of atmosphere.
AIR = np.array([0.125, 0.09, 0.045, 0.02, 0.015, 0.01, 0.01, 0.008, 0.008, 0.0, 0.001, 0.0, 0.0], dtype=np.float32)
WORDS = {
    "water": "open water",
    "dense vegetation": "dense green vegetation",
    "forest": "forest",
    "bare soil": "bare farm fields",
    "snow": "snow or ice",
    "sand": "sand",
}
BANDS = {13: list(range(13)), 4: [3, 2, 1, 7], 3: [3, 2, 1]}


def tile(*parts: str, toa: bool = True, seed: int = 0) -> np.ndarray:
    """(1, 13, H, W): vertical strips of the covers named, with a little noise."""
    rng = np.random.default_rng(seed)
    strips = np.array_split(np.arange(SIZE), len(parts))
    pixels = np.concatenate(
        [
            np.tile(np.array(SPECTRA[p], np.float32)[:, None, None], (1, SIZE, len(s)))
            for p, s in zip(parts, strips, strict=True)
        ],
        axis=2,
    )
    pixels *= 1 + 0.02 * rng.standard_normal((1, SIZE, SIZE)).astype(np.float32)
    return (pixels + (AIR[:, None, None] if toa else 0)).astype(np.float32)[None]


def say(pixels: np.ndarray, bands: int = 13, level: str = "auto") -> str:
    channels = tuple(SENTINEL2[i] for i in BANDS[bands])
    chosen = np.ascontiguousarray(pixels[:, BANDS[bands]]) if pixels.shape[1] == 13 else pixels
    return SatelliteCaptioner(level=level).caption(as_images(chosen, channels))[0]


@cache
def chips() -> tuple[np.ndarray, tuple[str, ...]]:
    """Every fifth held-out chip of the bundled scene, and its land use."""
    table = bundled.chip_table()
    scene, _ = open_scene(bundled.scenes()["brandenburg"], verify=False).read()
    chosen = np.flatnonzero(table.held_out)[::5]
    corners = zip(table.chips.rows[chosen], table.chips.columns[chosen], strict=True)
    pixels = np.stack([scene[:, r : r + SIZE, c : c + SIZE] for r, c in corners])
    return pixels, tuple(table.chips.class_names[label] for label in table.chips.labels[chosen])


@pytest.mark.parametrize("toa", [True, False], ids=["toa", "surface"])
@pytest.mark.parametrize("cover", WORDS)
def test_typical_spectra_get_their_name(cover: str, toa: bool) -> None:
    pixels = tile(cover, toa=toa)
    level = "toa" if toa else "surface"
    kinds = classify(clear(pixels, SENTINEL2, level=level))
    assert (kinds == COVERS.index(cover)).mean() > 0.95
    words = say(pixels, level=level)
    assert f"{WORDS[cover]} over all of the tile" in words
    assert "haze" not in words
    assert sum(noun in words for noun in WORDS.values()) == 1


@pytest.mark.parametrize(
    ("bands", "covers"), [(4, ("water", "forest", "bare soil", "dense vegetation")), (3, ("bare soil", "sand"))]
)
def test_fewer_bands_tell_fewer_covers_but_not_wrong_ones(bands: int, covers: tuple[str, ...]) -> None:
    for cover in covers:
        assert f"{WORDS[cover]} over all of the tile" in say(tile(cover), bands, "toa")
        assert f"{WORDS[cover]} over all of the tile" in say(tile(cover, toa=False), bands, "surface")


def test_extent_follows_the_share() -> None:
    said = say(tile("water", "water", "water", "bare soil"))
    assert "open water over most of the tile" in said
    assert "bare farm fields over a third of the tile" in said
    assert said.index("water") < said.index("fields")
    shares = (0.95, 0.7, 0.45, 0.3, 0.2, 0.05)
    said = [clauses(f"haze {extent(share)}")[0] for share in shares]
    assert len({clause.extent for clause in said}) == len(shares)
    assert [clause.extent for clause in said] == sorted((clause.extent for clause in said), reverse=True)
    # A word of extent stands for about what it says, so that presence can follow the amount.
    assert [clause.amount for clause in said] == pytest.approx(shares, abs=0.11)


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("ground", ["bare soil", "forest", "water"])
def test_haze_grows_thicker_with_its_strength(ground: str, bands: int) -> None:
    pixels = tile(ground)
    assert "haze" not in say(pixels, bands, "toa")
    for strength, word in ((0.4, "haze over"), (0.7, "haze over all of"), (1.0, "thick haze over all of")):
        assert word in say(paint("haze", pixels, SENTINEL2, strength, 3), bands, "toa"), strength
    amounts = [float(clear(paint("haze", pixels, SENTINEL2, s, 3), SENTINEL2).haze[0]) for s in (0, 0.2, 0.5, 0.8)]
    assert amounts == sorted(amounts)


def test_haze_on_surface_reflectance_and_photographs() -> None:
    surface = tile("bare soil", "forest", toa=False)
    assert "haze" not in say(surface, level="surface")
    assert "haze" in say(paint("haze", surface, SENTINEL2, 0.8, 1), level="surface")
    rng = np.random.default_rng(0)
    photograph = rng.uniform(0.05, 0.7, (1, 3, SIZE, SIZE)).astype(np.float32)
    names = ("red", "green", "blue")
    assert level_of(names) == "photograph"
    assert "haze" not in SatelliteCaptioner().caption(as_images(photograph, names))[0]
    veiled = (0.15 * photograph + 0.55).astype(np.float32)
    assert "haze" in SatelliteCaptioner().caption(as_images(veiled, names))[0]


def test_ground_keeps_its_name_under_haze_offset_stripes_and_gaps() -> None:
    for ground in ("bare soil", "water", "dense vegetation"):
        for name, strength in (
            ("haze", 0.5),
            ("offset", 1.0),
            ("stripes_vertical", 0.5),
            ("wedge", 0.5),
            ("border", 1.0),
        ):
            words = say(paint(name, tile(ground), SENTINEL2, strength, 3))
            assert WORDS[ground] in words, (ground, name, words)


@pytest.mark.parametrize("name", ARTEFACT_WORDS)
def test_artefacts_painted_on_real_chips_are_said_and_clean_ones_are_not(name: str) -> None:
    pixels, _ = chips()
    rows = artefact_agreement(SatelliteCaptioner(), pixels[:60], SENTINEL2, names=[name], seed=5)
    assert all(row.base == 0.5 for row in rows)
    assert rows[-1].precision > 0.97
    assert rows[-1].recall > 0.85
    if name not in ("colour_cast", "blur"):  # at their faintest these two are within what the ground does itself
        assert rows[0].recall > 0.85


def test_captions_agree_with_the_map_far_beyond_chance() -> None:
    pixels, labels = chips()
    captions = SatelliteCaptioner().caption(as_images(pixels, SENTINEL2))
    rows = {row.truth: row for row in cover_agreement(captions, labels)}
    assert set(rows) == {"farm", "forest", "meadow", "residential", "water"}
    for row in rows.values():
        assert row.precision > 1.3 * row.base, row
        assert row.recall > 0.35, row
    shuffled = list(np.random.default_rng(0).permutation(np.array(labels)))
    chance = cover_agreement(captions, shuffled)
    assert np.mean([row.precision for row in rows.values()]) > 2 * np.mean([row.precision for row in chance])


def test_stripes_need_to_run_through_and_to_be_several() -> None:
    rng = np.random.default_rng(0)
    ground = rng.normal(0.15, 0.01, (3, 13, SIZE, SIZE)).astype(np.float32)
    ground[1, :, :, 10] += 0.1  # one road
    ground[2, :, :16, ::4] += 0.1  # rows of trees in the upper half
    found = find_flaws(ground, SENTINEL2, np.ones((3, SIZE, SIZE), bool))
    assert (found.stripes_vertical < 0.5).all()
    assert (found.stripes_horizontal < 0.5).all()


def test_structure_points_lines_and_straight_edges() -> None:
    fields = tile("bare soil", "dense vegetation", "bare soil", "dense vegetation")
    assert "straight vertical edges" in say(fields)
    dotted = tile("dense vegetation")
    dotted[0, :10, 5::9, 4::9] += 0.3
    assert "bright points" in say(dotted)
    crossed = tile("dense vegetation")
    for step in range(SIZE):
        crossed[0, [1, 2, 3], step, min(step, SIZE - 1)] += 0.15
    assert "a narrow bright diagonal line" in say(crossed)
    assert "smooth texture" in say(tile("water"))


def test_tone_and_texture_are_the_grounds_and_not_the_renderings() -> None:
    """Two scenes are stretched differently for the eye; their reflectance is the same, and so are the words."""
    pixels, _ = chips()
    plain = as_images(pixels[:30], SENTINEL2)
    stretched = [ProbeImage(i.pixels, (i.rgb // 4), SENTINEL2) for i in plain]
    words = ("bright areas", "dark areas", "rough texture", "smooth texture")
    told = []
    for images in (plain, stretched):
        said = [clauses(caption) for caption in SatelliteCaptioner(limit=30).caption(images)]
        told.append([[(c.content, c.amount) for c in some if c.content in words] for some in said])
    assert told[0] == told[1]
    assert {content for some in told[0] for content, _ in some} == set(words)
    # The same ground, from orbit and at the surface.
    for cover, words_of_it in (("sand", "bright areas"), ("water", "dark areas")):
        assert words_of_it in say(tile(cover))
        assert words_of_it in say(tile(cover, toa=False), level="surface")


def test_luminance_is_what_is_seen_less_clear_air() -> None:
    grey = np.full((2, 13, 8, 8), 0.2, np.float32)
    known = np.ones((2, 8, 8), bool)
    np.testing.assert_allclose(luminance(grey, SENTINEL2, known, "surface"), 0.2, rtol=1e-5)
    air = 0.2126 * 0.02 + 0.7152 * 0.04 + 0.0722 * 0.075
    np.testing.assert_allclose(luminance(grey, SENTINEL2, known, "toa"), 0.2 - air, rtol=1e-5)
    grey[1, :, :4], known[1, :4] = np.nan, False
    np.testing.assert_allclose(luminance(grey, SENTINEL2, known, "surface"), 0.2, rtol=1e-5)


def test_a_frame_is_dark_and_so_is_a_little_of_a_tile() -> None:
    ground = tile("bare soil")
    framed = measures(paint("border", ground, SENTINEL2, 0.8, 3), SENTINEL2)
    assert framed.flaws.frame[0] > 0.25
    assert framed.dark[0] == pytest.approx(1 - ((SIZE - 4) / SIZE) ** 2, abs=0.01)
    assert measures(ground, SENTINEL2).dark[0] == 0
    assert measures(paint("wedge", ground, SENTINEL2, 1.0, 3), SENTINEL2).dark[0] == 0  # nothing is seen there
    assert "dark areas over a third of the tile" in say(tile("water", "sand", "sand", "sand"))


def test_smooth_is_said_from_four_tenths_on() -> None:
    rng = np.random.default_rng(0)
    for lines, said in ((20, True), (8, False)):
        ground = tile("sand")
        ground[:, :, lines:] *= 1 + 0.2 * rng.standard_normal((1, 13, SIZE - lines, SIZE)).astype(np.float32)
        ground[:, :, :lines] = ground[:, :, :lines].mean(axis=(2, 3), keepdims=True)
        (words,) = SatelliteCaptioner(limit=30).caption(as_images(ground, SENTINEL2))
        assert ("smooth texture" in words) is said
        assert "rough texture" in words


def test_bright_dry_ground_under_haze_is_no_cloud() -> None:
    for seed in range(5):
        hazy = paint("haze", tile("bare soil", seed=seed) * np.float32(1.3), SENTINEL2, 0.6, seed)
        assert "cloud" not in say(hazy), seed
        assert "cloud" in say(paint("cloud", tile("bare soil", seed=seed), SENTINEL2, 1.0, seed)), seed


def test_same_words_alone_in_company_and_for_a_crop_of_the_same_cover() -> None:
    pixels, _ = chips()
    images = as_images(pixels[:20], SENTINEL2)
    together = SatelliteCaptioner(batch_size=7).caption(images)
    assert together == [SatelliteCaptioner().caption([image])[0] for image in images]
    assert together[::-1] == SatelliteCaptioner().caption(images[::-1])
    whole = as_images(tile("water"), SENTINEL2)[0]
    enlarged = SatelliteCaptioner().caption([whole.crop(Box(4, 4, 14, 14))])[0]
    assert "open water over all of the tile" in enlarged
    assert "blurred" not in enlarged


def test_a_sentence_holds_no_more_than_its_limit_and_no_nodata_is_measured() -> None:
    image = as_images(chips()[0][:1], SENTINEL2)[0]
    assert len(SatelliteCaptioner(limit=2).caption([image])[0].split(", ")) <= 2
    empty = as_images(np.zeros((1, 13, SIZE, SIZE), np.float32), SENTINEL2)
    assert SatelliteCaptioner().caption(empty) == ["nodata all over"]
    half = tile("water", "bare soil")
    valid = np.zeros((SIZE, SIZE), bool)
    valid[:, :16] = True
    masked = ProbeImage(half[0], as_images(half, SENTINEL2)[0].rgb, SENTINEL2, valid=valid)
    words = SatelliteCaptioner().caption([masked])[0]
    assert "open water over all of the tile" in words
    assert "soil" not in words
    assert "nodata" in words
    assert stack_valid([masked]) is not None


def test_nan_is_missing_not_poison() -> None:
    pixels = tile("forest")
    pixels[0, 4, :8] = np.nan
    found = measures(pixels, SENTINEL2)
    assert found.flaws.missing[0] == pytest.approx(0.25)
    assert found.cover[0, COVERS.index("forest")] > 0.7


def test_settings_enter_the_fingerprint_and_bad_ones_are_refused() -> None:
    prints = {SatelliteCaptioner(**s).fingerprint for s in ({}, {"limit": 3}, {"level": "toa"})}
    assert len(prints) == 3
    with pytest.raises(ConfigError, match="level must be one of"):
        SatelliteCaptioner(level="orbit")
    with pytest.raises(ConfigError, match="at least 1"):
        SatelliteCaptioner(limit=0)
    with pytest.raises(ProbeError, match="red, green and blue"):
        measures(np.zeros((1, 2, 8, 8), np.float32), ("B08", "B11"))
    with pytest.raises(ProbeError, match="13 channels"):
        measures(np.zeros((1, 2, 8, 8), np.float32), SENTINEL2)
    assert level_of(SENTINEL2) == "toa"
    assert level_of(("B04", "B03", "B02", "B08")) == "surface"
