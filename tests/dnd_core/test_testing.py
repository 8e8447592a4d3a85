"""The analytic network computes what its truth says, drawn images show what their content says, the judge is strict."""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dnd_core.errors import ConfigError, ProbeError
from dnd_core.images import ArrayImages, ProbeImage
from dnd_core.protocols import Captioner, ConceptImages, ImageEncoder
from dnd_core.testing import (
    ATTRIBUTES,
    AnalyticUnit,
    DrawnSpace,
    OracleCaptioner,
    OracleConceptImages,
    analytic_network,
    baselines,
    draw_probe,
    draw_scene,
    judge,
    parse,
)
from dnd_core.testing.drawing import visible
from dnd_core.types import Box, UnitId

IMAGES = 400


@pytest.fixture(scope="module")
def probe() -> ArrayImages:
    return draw_probe(IMAGES, seed=5)


def activate(images: ArrayImages, batch: int = 100) -> dict[str, NDArray[np.float32]]:
    """(images, units) pooled activations of both layers."""
    network = analytic_network(seed=5)
    seen: dict[str, list[torch.Tensor]] = {"maps": [], "concepts": []}
    hooks = [
        network.module.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: seen[name].append(output.mean((2, 3)) if output.ndim == 4 else output)
        )
        for name in seen
    ]
    for start in range(0, len(images), batch):
        stop = min(start + batch, len(images))
        logits = network(torch.from_numpy(images.pixels(range(start, stop))))
        assert logits.shape == (stop - start, len(network.class_names))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts).numpy() for name, parts in seen.items()}


@pytest.fixture(scope="module")
def activations(probe: ArrayImages) -> dict[str, NDArray[np.float32]]:
    return activate(probe)


def test_there_are_enough_units_of_every_kind() -> None:
    kinds = Counter(unit.kind for unit in analytic_network().module.truth.values())
    assert kinds["single"] >= 20
    assert min(kinds[kind] for kind in ("and", "or", "not", "dead", "random")) >= 10
    assert kinds["two_meanings"] >= 6


def test_units_compute_their_concept_and_nothing_else(
    probe: ArrayImages, activations: dict[str, NDArray[np.float32]]
) -> None:
    contents = [probe[i].metadata["attributes"] for i in range(IMAGES)]
    for unit, truth in analytic_network().module.truth.items():
        fired = activations[unit.layer][:, unit.index]
        if truth.concept is None:
            continue
        holds = np.array([truth.concept.holds(content) for content in contents])
        assert 5 <= holds.sum() <= IMAGES - 5, unit
        pairs = fired[holds][:, None] > fired[~holds][None, :]
        assert pairs.mean() > 0.97, f"{unit} {truth.concept}"
        assert fired[~holds].mean() < 0.1 * fired[holds].mean(), f"{unit} {truth.concept}"
        assert holds[np.argsort(-fired, kind="stable")[:5]].all(), f"{unit} {truth.concept}"


def test_dead_units_never_fire_and_random_ones_follow_nothing(
    probe: ArrayImages, activations: dict[str, NDArray[np.float32]]
) -> None:
    content = np.array([[name in probe[i].metadata["attributes"] for name in ATTRIBUTES] for i in range(IMAGES)])
    for unit, truth in analytic_network().module.truth.items():
        fired = activations[unit.layer][:, unit.index].astype(np.float64)
        if truth.kind == "dead":
            assert (fired == 0).all()
        elif truth.kind == "random":
            r = [np.corrcoef(fired, column)[0, 1] for column in content.T]
            # 17 attributes x 10 units: four standard errors.
            assert np.abs(r).max() < 4 / np.sqrt(IMAGES)
            assert fired.max() > 2 * fired.mean() > 0


def test_activations_do_not_depend_on_the_batch(probe: ArrayImages) -> None:
    few = ArrayImages(probe.pixels(range(12)))
    one, many = activate(few, 1), activate(few, 12)
    for name, values in many.items():
        np.testing.assert_allclose(one[name], values, atol=1e-5)
    random = [u.index for u, t in analytic_network().module.truth.items() if t.kind == "random" and u.layer == "maps"]
    assert (one["maps"][:, random] == many["maps"][:, random]).all()


def test_drawing_is_seeded_and_its_content_is_where_it_says(probe: ArrayImages) -> None:
    assert draw_probe(3, seed=1).fingerprint == draw_probe(3, seed=1).fingerprint
    assert draw_probe(3, seed=1).fingerprint != draw_probe(3, seed=2).fingerprint
    for number in range(100):
        image = probe[number]
        for name, shape, (left, top, right, bottom) in image.metadata["items"]:
            middle = image.pixels[:, (top + bottom) // 2 - 1 : (top + bottom) // 2 + 2, left:right].mean(axis=1)
            rgb = middle[:, middle.shape[1] // 2]
            if name == "yellow":
                assert rgb[0] > 0.8
                assert rgb[1] > 0.8
                assert rgb[2] < 0.2
            elif name == "black":
                assert rgb.max() < 0.2
            elif not shape:
                assert np.ptp(image.pixels[:, top:bottom, left:right].mean(axis=0)) > 0.4


def test_scenes_obey_what_is_asked_of_them() -> None:
    for number in range(30):
        rng = np.random.default_rng(number)
        _, content = draw_scene(rng, 48, ["red", "stripes", "dark background"], ["vertical stripes", "dots"])
        assert {"red", "stripes", "dark background"} <= set(content["attributes"])
        assert not {"vertical stripes", "dots"} & set(content["attributes"])
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="at least 36"):
        draw_scene(rng, 20)
    with pytest.raises(ConfigError, match="no image can show"):
        draw_scene(rng, 48, ["bright background", "dark background"])
    with pytest.raises(ConfigError, match="no image can show"):
        draw_scene(rng, 48, ["red"], ["red"])


def test_crops_show_what_is_inside_them() -> None:
    content = {
        "background": "dark background",
        "items": (("red", "disc", (0, 0, 12, 12)), ("dots", "", (32, 32, 48, 48))),
    }
    assert list(visible(content, (48, 48))) == ["dark background", "dots", "red"]
    assert list(visible({**content, "crop": (0, 0, 24, 24)}, (48, 48))) == ["dark background", "red"]
    assert list(visible({**content, "crop": (34, 34, 46, 46)}, (48, 48))) == ["dots"]
    assert list(visible({**content, "crop": (11, 11, 30, 30)}, (48, 48))) == ["dark background"]


def test_the_oracle_tells_the_truth_and_errs_as_told(probe: ArrayImages) -> None:
    images = [probe[i] for i in range(200)]
    honest = OracleCaptioner()
    assert isinstance(honest, Captioner)
    for image, caption in zip(images, honest.caption(images), strict=True):
        said = {name for name in ATTRIBUTES if name in caption} | ({"stripes"} if "stripes" in caption else set())
        assert said == set(image.metadata["attributes"]), caption
    assert honest.caption(images) == OracleCaptioner().caption(images)
    assert OracleCaptioner(0.3, 1).caption(images) != OracleCaptioner(0.3, 2).caption(images)
    lost = added = there = 0
    for image, caption in zip(images, OracleCaptioner(0.3).caption(images), strict=True):
        shown = set(image.metadata["attributes"]) - {"stripes"}
        said = {name for name in ATTRIBUTES if name in caption} - {"stripes"}
        lost, added, there = lost + len(shown - said), added + len(said - shown), there + len(shown)
    assert lost / there == pytest.approx(0.3, abs=0.06)
    assert added / there == pytest.approx(0.3, abs=0.06)
    left, top, right, bottom = images[2].metadata["items"][0][2]
    part = images[2].crop(Box(left, top, right, bottom))
    assert images[2].metadata["items"][0][0] in honest.caption([part])[0]


def test_the_oracle_refuses_what_it_cannot_know() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        OracleCaptioner(1.5)
    stranger = ProbeImage(np.zeros((3, 8, 8), dtype=np.float32), np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(ProbeError, match="draw_probe"):
        OracleCaptioner().caption([stranger])


@pytest.mark.parametrize(
    "concept",
    ["red", "vertical stripes", "red and dots", "red or blue", "no stripes", "checkerboard without dark background"],
)
def test_concept_images_show_the_concept(concept: str) -> None:
    source = OracleConceptImages(seed=3)
    assert isinstance(source, ConceptImages)
    images = source.show(concept, 8)
    assert len(images) == 8
    assert all(parse(concept).holds(image.metadata["attributes"]) for image in images)
    assert [image.key for image in images] == [image.key for image in OracleConceptImages(seed=3).show(concept, 8)]
    assert images[0].key != OracleConceptImages(seed=4).show(concept, 1)[0].key


def test_concept_images_of_nothing_and_of_the_impossible() -> None:
    source = OracleConceptImages()
    assert len(source.show("freedom", 3)) == 3
    assert source.show("bright background and dark background", 3) == []
    assert source.show("red without red", 3) == []
    assert source.show("", 3) == []


def test_drawn_space_brings_like_images_together() -> None:
    source, space = OracleConceptImages(), DrawnSpace()
    assert isinstance(space, ImageEncoder)
    red, dots = (space.encode_images(source.show(name, 20)) for name in ("red and no dots", "dots without red"))
    np.testing.assert_allclose(np.linalg.norm(red, axis=1), 1, atol=1e-5)
    assert (red @ red.T).mean() > (red @ dots.T).mean()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("blue and red", "Red with some blue"),
        ("red or blue", "blue or red"),
        ("stripes and vertical stripes", "vertical stripes"),
        ("stripes or diagonal stripes", "striped"),
        ("red or red and dots", "red"),
        ("no dots or grain", "without dots and no grain"),
        ("red without dots", "red but not dotted"),
        ("bright", "a bright background"),
    ],
)
def test_labels_that_say_the_same_are_the_same(one: str, other: str) -> None:
    assert parse(one) == parse(other)


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        ("red", [["red"], ["red patch"], ["red", "red areas"]], [["red disc"], ["red or blue"], ["red and dots"], []]),
        ("red and dots", [["dots and red"], ["red dots"]], [["red"], ["red", "dots"], ["red or dots"], ["red circle"]]),
        ("red or blue", [["blue or red"], ["red", "blue"]], [["red"], ["red and blue"], ["red", "green"], ["colour"]]),
        ("no stripes", [["no stripes"], ["without stripes"]], [["stripes"], ["no dots"], ["plain"], ["no red"]]),
        ("red without dots", [["red but not dots"]], [["red"], ["no dots"], ["red", "no dots"], ["red and dots"]]),
        ("stripes", [["striped"]], [["vertical stripes"], ["vertical stripes", "horizontal stripes"]]),
    ],
)
def test_the_judge_wants_no_less_and_no_more(truth: str, right: list[list[str]], wrong: list[list[str]]) -> None:
    unit = AnalyticUnit("single", parse(truth))
    assert all(judge(unit, labels) for labels in right)
    assert not any(judge(unit, labels) for labels in wrong)


def test_only_silence_is_right_about_units_that_compute_nothing() -> None:
    for kind in ("dead", "random"):
        assert judge(AnalyticUnit(kind, None), [])
        assert not judge(AnalyticUnit(kind, None), ["red"])
    with pytest.raises(ConfigError, match="analytic unit"):
        AnalyticUnit("other", None)


def test_labels_without_knowledge_score_low() -> None:
    truth = analytic_network().module.truth
    perfect: dict[UnitId, tuple[str, ...]] = {
        unit: (str(known.concept),) if known.concept else () for unit, known in truth.items()
    }
    assert all(judge(truth[unit], labels) for unit, labels in perfect.items())
    rates = baselines(truth, perfect, seed=1)
    assert rates.keys() == {"constant", "random", "shuffled"}
    assert all(rate <= 0.05 for rate in rates.values())
    assert rates["constant"] >= max(rates["random"], rates["shuffled"]) > 0
    assert baselines(truth, {}) == {"constant": 0.0, "random": 0.0, "shuffled": 0.0}
