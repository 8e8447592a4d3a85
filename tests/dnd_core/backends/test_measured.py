"""The measured captioner says what was drawn, the same way every time."""

import numpy as np
import pytest

from dnd_core.backends.colours import COLOURS, colour_shares, lab_pixels, name_pixels
from dnd_core.backends.measured import MeasuredCaptioner, Phrase, measure, phrases, sentence
from dnd_core.backends.textures import blobs, direction_word, texture
from dnd_core.errors import ConfigError
from dnd_core.images import ProbeImage

SIZE = 64
ROW, COLUMN = np.mgrid[:SIZE, :SIZE]
RED, GREEN, BLUE, WHITE, BLACK = (230, 20, 20), (20, 150, 30), (20, 40, 220), (255, 255, 255), (0, 0, 0)


def two(mask: np.ndarray, inside: tuple[int, ...], outside: tuple[int, ...]) -> np.ndarray:
    return np.where(mask[..., None], inside, outside).astype(np.uint8)


def image(rgb: np.ndarray, valid: np.ndarray | None = None) -> ProbeImage:
    return ProbeImage((rgb.transpose(2, 0, 1) / 255).astype(np.float32), rgb, valid=valid)


def caption(rgb: np.ndarray, valid: np.ndarray | None = None) -> str:
    return MeasuredCaptioner().caption([image(rgb, valid)])[0]


DISC = (COLUMN - 32) ** 2 + (ROW - 32) ** 2
DRAWN = {
    "red all over": np.full((SIZE, SIZE, 3), RED, np.uint8),
    "a round red blob in the centre": two(DISC < 200, RED, WHITE),
    "a blue square at the bottom left": two((abs(COLUMN - 15) < 9) & (abs(ROW - 50) < 9), BLUE, BLACK),
    "a green triangle": two((ROW > 10) & (ROW < 50) & (abs(COLUMN - 32) < (ROW - 10) / 2), GREEN, WHITE),
    "a red rectangle": two((abs(COLUMN + ROW - 64) < 12) & (abs(COLUMN - ROW) < 26), RED, WHITE),
    "red ring": two((DISC < 300) & (DISC > 150), RED, WHITE),
    "red diagonal bar": two(abs(COLUMN - ROW) < 4, RED, WHITE),
    "several round red blobs": two((COLUMN % 20 - 10) ** 2 + (ROW % 20 - 10) ** 2 < 20, RED, WHITE),
    "vertical stripes": two(COLUMN // 4 % 2 == 0, WHITE, BLACK),
    "horizontal stripes": two(ROW // 4 % 2 == 0, WHITE, BLACK),
    "diagonal stripes": two((ROW + COLUMN) // 5 % 2 == 0, WHITE, BLACK),
    "checkerboard": two((ROW // 8 + COLUMN // 8) % 2 == 0, WHITE, BLACK),
    "grid of lines": two((ROW % 8 == 0) | (COLUMN % 8 == 0), WHITE, GREEN),
    "brighter towards the right": np.repeat((COLUMN * 4)[..., None], 3, 2).astype(np.uint8),
    "brighter towards the top": np.repeat((252 - ROW * 4)[..., None], 3, 2).astype(np.uint8),
    "noisy texture": np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8),
    "very dark overall": np.full((SIZE, SIZE, 3), 12, np.uint8),
}


@pytest.mark.parametrize("said", DRAWN)
def test_says_what_was_drawn_among_the_first_two_things(said: str) -> None:
    first = ", ".join(caption(DRAWN[said]).split(", ")[:2])
    assert said in first


@pytest.mark.parametrize("said", ["stripes", "blob", "checkerboard", "grid", "gradient", "ring", "triangle"])
def test_does_not_say_it_of_the_others(said: str) -> None:
    for drawn, rgb in DRAWN.items():
        if said not in drawn and not (said == "gradient" and "brighter" in drawn):
            assert said not in caption(rgb), drawn


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"),
        ((255, 165, 0), "orange"),
        ((255, 255, 0), "yellow"),
        ((0, 255, 0), "green"),
        ((0, 100, 0), "dark green"),
        ((0, 0, 255), "blue"),
        ((135, 206, 235), "light blue"),
        ((128, 0, 128), "purple"),
        ((255, 192, 203), "pink"),
        ((139, 69, 19), "brown"),
        ((210, 180, 140), "pale brown"),
        ((0, 128, 128), "teal"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((0, 0, 0), "black"),
    ],
)
def test_colour_names(rgb: tuple[int, int, int], name: str) -> None:
    assert COLOURS[int(name_pixels(np.array(rgb, np.uint8)))] == name


def test_lab_table_stays_within_its_step_of_the_exact_conversion() -> None:
    from skimage.color import rgb2lab

    rgb = np.random.default_rng(1).integers(0, 256, (200, 3)).astype(np.uint8)
    assert np.abs(lab_pixels(rgb) - rgb2lab(rgb / 255)).max() < 8


def test_colour_shares_count_valid_pixels_only() -> None:
    rgb = np.stack([two(COLUMN < 16, RED, WHITE)] * 2)
    valid = np.stack([COLUMN >= 0, COLUMN < 32])
    shares = colour_shares(name_pixels(rgb), valid)
    assert shares[:, COLOURS.index("red")] == pytest.approx([0.25, 0.5])
    assert shares.sum(axis=1) == pytest.approx([1, 1])


def test_texture_measures_known_angles_and_periods() -> None:
    for degrees in (0.0, 30.0, 75.0, 120.0):
        across = np.radians(degrees)
        wave = np.sin((COLUMN * np.sin(across) + ROW * np.cos(across)) * 2 * np.pi / 8).astype(np.float32)[None]
        measured = texture(wave)
        gap = abs((float(measured.direction[0]) - degrees + 90) % 180 - 90)
        assert gap < 4
        assert float(measured.period[0]) == pytest.approx(8, rel=0.1)
        assert measured.repetition[0] > 0.8
        assert measured.coherence[0] > 0.9
    assert [direction_word(d) for d in (0, 45, 90, 135, 179)] == [
        "horizontal",
        "diagonal",
        "vertical",
        "diagonal",
        "horizontal",
    ]


def test_one_edge_is_no_stripe_and_noise_has_no_direction() -> None:
    edge = texture((COLUMN > 30).astype(np.float32)[None])
    assert edge.repetition[0] < 0.2
    noise = texture(np.random.default_rng(0).normal(size=(1, SIZE, SIZE)).astype(np.float32))
    assert noise.coherence[0] < 0.1
    assert noise.repetition[0] < 0.1


def test_blobs_are_counted_in_each_image_by_itself() -> None:
    masks = np.zeros((3, 20, 20), bool)
    masks[0, :10] = True
    masks[1, 2:6, 2:6] = masks[1, 10:18, 10:18] = True
    found = blobs(masks)
    assert found.count.tolist() == [1, 2, 0]
    assert found.share == pytest.approx([0.5, 64 / 400, 0])
    assert found.mask[1].sum() == 64
    assert found.elongation[0] == pytest.approx(2, rel=0.05)


def test_same_words_alone_or_in_company_and_in_any_order() -> None:
    images = [image(rgb) for rgb in DRAWN.values()]
    images.insert(3, image(np.full((9, 17, 3), 90, np.uint8)))
    together = MeasuredCaptioner(batch_size=4).caption(images)
    alone = [MeasuredCaptioner().caption([one])[0] for one in images]
    assert together == alone
    assert MeasuredCaptioner().caption(images[::-1]) == alone[::-1]
    assert MeasuredCaptioner().caption([]) == []


def test_missing_pixels_are_said_and_not_measured() -> None:
    rgb = two(COLUMN < 24, BLACK, RED)
    words = caption(rgb, valid=COLUMN >= 24)
    assert "red all over" in words
    assert "nodata" in words
    assert "black" not in words
    assert caption(rgb, valid=np.zeros((SIZE, SIZE), bool)) == "nodata all over"


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 3), (5, 4)])
def test_tiny_pictures_still_get_a_caption(shape: tuple[int, int]) -> None:
    assert "red all over" in caption(np.full((*shape, 3), RED, np.uint8))


def test_limit_orders_by_salience_and_enters_the_fingerprint() -> None:
    assert sentence([Phrase("b", 0.2), Phrase("a", 0.9), Phrase("c", 0.2)], 2) == "a, b"
    rgb = DRAWN["a round red blob in the centre"]
    assert MeasuredCaptioner(limit=1).caption([image(rgb)]) == ["a round red blob in the centre"]
    assert MeasuredCaptioner(limit=1).fingerprint != MeasuredCaptioner(limit=2).fingerprint
    with pytest.raises(ConfigError, match="at least 1"):
        MeasuredCaptioner(limit=0)
    measures = measure(rgb[None])
    assert len(measures) == 1
    assert all("," not in phrase.text for phrase in phrases(measures, 0))
