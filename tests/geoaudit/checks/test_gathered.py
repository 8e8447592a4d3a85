"""A class gathered in one part of the ground, which looks different there: found where the network uses that look."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dnd_core.images import ArrayImages
from geoaudit.checks.gathered import LookImages, _gathered, gathered_classes
from geoaudit.checks.geography import Geography, _usable
from geoaudit.findings import judge

from .planted import BANDS, CLASSES, HAZE_NAMES, SPECTRA, Classifier, context_of, network_of

BLOCKS, EACH = 24, 12
WATER = CLASSES.index("water")


def ground(planted: float, gathered: float = 0.95, look: float = 2.8, others: float = 0.35, seed: int = 0):
    """Tiles in columns from west to east; water keeps to the west, where blue is brighter by the factor ``look``."""
    rng = np.random.default_rng(seed)
    columns = np.repeat(np.arange(BLOCKS), EACH)
    west = columns < BLOCKS // 2
    labels = np.empty(len(columns), dtype=np.int64)
    for index, here in enumerate(west):
        chance = (gathered if here else 1 - gathered) / 2
        labels[index] = WATER if rng.random() < chance else rng.integers(2)
    kept = west | (labels == WATER) | (rng.random(len(columns)) < 1)
    kept &= ~(west & (labels != WATER) & (rng.random(len(columns)) >= others))
    pixels = SPECTRA[labels][:, :, None, None] * np.exp(rng.normal(0, 0.03, (len(columns), len(BANDS), 1, 1)))
    pixels = pixels + rng.normal(0, 0.002, (len(columns), len(BANDS), 8, 8))
    pixels[west, 0] *= look
    pixels, labels, columns = pixels[kept].clip(0.001).astype(np.float32), labels[kept], columns[kept]
    rows = np.arange(len(labels))
    images = ArrayImages(
        pixels,
        rgb=np.zeros((len(labels), 8, 8, 3), np.uint8),
        channels=BANDS,
        labels=labels,
        class_names=CLASSES,
        blocks=columns.astype(np.int64),
        metadata=[
            {"crs": "EPSG:32633", "bounds": (x, y, x + 80.0, y + 80.0)}
            for x, y in zip(500_000 + 1_000.0 * columns, 5_800_000 + 100.0 * (rows % EACH), strict=True)
        ],
    )
    textures = ["smooth ground", "rough ground", "straight edges"]
    captions = [f"{CLASSES[label]} colours, {textures[i % 3]}" for i, label in enumerate(labels)]
    return context_of(network_of(Classifier(planted)), images, captions=captions)


def looks(context):
    rows, centres, blocks = _usable(context)
    return {h.class_name: h for h in gathered_classes(context, rows, centres, blocks)}


def held(hypothesis) -> list[tuple[int, bool]]:
    return [(e.grade, e.holds) for e in hypothesis.evidence]


def test_a_network_that_knows_the_place_ranks_first() -> None:
    context = ground(450.0)
    result = Geography().run(context)
    first = judge(result.hypotheses)[0]
    assert (first.severity, first.hypothesis.class_name) == ("critical", "water")
    assert first.title == "Water is predicted wherever the ground looks as in the western part"
    assert held(first.hypothesis) == [(1, True), (2, True), (3, True)]
    assert "B02 +1" in first.hypothesis.evidence[1].sentence, "blue is twice as bright there"
    assert set(HAZE_NAMES) <= set(first.hypothesis.units)
    centre = np.median([image["bounds"][0] for image in context.about])
    shown = list(first.hypothesis.examples)
    assert all(context.predicted[i] == WATER and context.about[i]["bounds"][0] < centre + 1_000 for i in shown)
    assert context.reference[shown[0]] != WATER, "what is called water wrongly comes first"
    assert 0.3 < first.hypothesis.prevalence < 0.7
    assert result.status == "fail"
    assert "gathered in one part of the ground: " in result.reason
    assert "water of them predicted by how that part looks" in result.reason


def test_no_class_overlaps_the_cut() -> None:
    """All water in the west and nothing else there: pairs of other classes with like captions must do."""
    context = ground(450.0, gathered=2.0, others=0.0)
    context.captions = [f"ground, {caption.split(', ')[1]}" for caption in context.captions]
    assert held(looks(context)["water"])[:1] == [(1, True)]
    assert len(looks(context)["water"].evidence) >= 2


@pytest.mark.parametrize(("planted", "look"), [(0.0, 2.8), (450.0, 1.0)])
def test_silent_where_the_look_is_not_used_or_not_there(planted, look) -> None:
    found = looks(ground(planted, look=look))
    assert held(found["water"]) == [(1, True), (2, False)]
    assert judge(list(found.values())) == []


def test_a_class_that_lies_everywhere_is_not_asked() -> None:
    assert "water" not in looks(ground(450.0, gathered=0.5, others=1.0))


def test_a_look_of_noise_does_no_more_than_looks_of_chance(monkeypatch) -> None:
    """Evidence falls as soon as one look made by changing sides at random does as much."""
    monkeypatch.setattr("geoaudit.checks.gathered._chance", lambda *_: np.full(10, 0.999))
    assert held(looks(ground(450.0))["water"]) == [(1, True), (2, False)]


def test_nothing_is_said_without_captions() -> None:
    context = ground(450.0)
    context.captions = None
    assert looks(context) == {}


def test_look_images_change_pixels_and_fingerprint_only() -> None:
    images = ground(0.0).images
    look = LookImages(images, np.array([2.0, 1.0, 1.0, 0.5]))
    assert look.pixels([3, 1])[:, 0] == pytest.approx(2 * images.pixels([3, 1])[:, 0])
    assert look[3].pixels[3] == pytest.approx(images[3].pixels[3] / 2)
    assert look.fingerprint not in (images.fingerprint, LookImages(images, np.ones(4)).fingerprint)
    assert len(look) == len(images)


def test_chance_is_given_the_same_choice_of_cuts(monkeypatch) -> None:
    """Of some fifty cuts the best one always looks good; classes strewn by chance must not be called gathered for it."""
    monkeypatch.setattr("geoaudit.checks.gathered.GATHERED", 0.0)
    rng = np.random.default_rng(5)
    blocks = np.repeat(np.arange(30), 4)
    found = []
    for seed in range(80):
        centres = rng.random((30, 2))[blocks] + rng.normal(0, 0.005, (len(blocks), 2))
        labels = (rng.random(30) < 0.4)[blocks].astype(np.int64)
        context = SimpleNamespace(reference=labels, images=blocks, draws=99, seed=seed)
        part = _gathered(context, 1, np.arange(len(blocks)), centres, blocks)
        found.append(part.p if part is not None else 1.0)
    assert np.mean(np.array(found) <= 0.05) < 0.15
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.2)
