"""The bench's measures do what they say, notice wrong labels, and comparators find what is plainly there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dnd_core.benching import (
    PRIMARY,
    SECONDARY,
    TESTS,
    CachedCaptioner,
    clip_dissect,
    constant_labels,
    dissection_iou,
    estimate,
    plant,
    primary,
    random_labels,
    sanity_tests,
    score_labels,
    secondary,
    shuffled_labels,
)
from dnd_core.benching.metrics import f1_iou
from dnd_core.errors import ConfigError, LayerNotFound
from dnd_core.images import ArrayImages
from dnd_core.layers import list_layers, resolve
from dnd_core.networks import Network
from dnd_core.probing import activate
from dnd_core.scoring import activation_rate, cosy_auc, cosy_mad, f1_iou_at


def units_and_truth(seed=0, images=300, units=12, noise=0.5):
    rng = np.random.default_rng(seed)
    truth = rng.random((images, units)) < 0.15
    return truth + noise * rng.normal(size=truth.shape), truth


def test_f1_and_iou_agree_with_counting_by_hand():
    a = np.arange(20.0)[:, None]
    c = np.zeros((20, 1))
    c[[19, 3, 4]] = 1
    f1, iou = f1_iou(a, c, top_share=0.1)
    # Two images fire (18, 19), three are said, one is both.
    assert f1[0] == pytest.approx(2 * 1 / 5)
    assert iou[0] == pytest.approx(1 / 4)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.4))
def test_f1_and_iou_do_not_depend_on_the_order_of_images(seed, share):
    rng = np.random.default_rng(seed)
    a, c = rng.integers(0, 4, (60, 3)).astype(float), rng.random((60, 3))
    order = rng.permutation(60)
    for one, other in zip(f1_iou(a, c, share), f1_iou(a[order], c[order], share), strict=True):
        np.testing.assert_allclose(one, other)
        assert ((one >= 0) & (one <= 1 + 1e-12)).all()


def test_f1_and_iou_are_those_of_the_engine_where_as_many_are_said_as_fire():
    rng = np.random.default_rng(3)
    a, c = rng.normal(size=(100, 5)), np.zeros((100, 5))
    c[:5] = 1
    engine = f1_iou_at(a, c, 0.05)
    np.testing.assert_allclose(f1_iou(a, c, 0.05)[0], engine.f1)
    np.testing.assert_allclose(f1_iou(a, c, 0.05)[1], engine.iou)


def test_a_top_share_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        f1_iou(np.zeros((4, 1)), np.zeros((4, 1)), 1.0)


def test_secondary_measures_are_those_of_the_engine():
    rng = np.random.default_rng(1)
    control, shown = rng.normal(size=(50, 2)), [rng.normal(1, 1, 7), np.empty(0)]
    found = secondary(control, shown, np.array([1.0, 1.0]))
    assert found["cosy_auc"][0].mean() == pytest.approx(cosy_auc(control[:, 0], shown[0]))
    assert found["cosy_mad"][0].mean() == pytest.approx(cosy_mad(control[:, 0], shown[0]))
    assert found["activation_rate"][0].mean() == pytest.approx(activation_rate(shown[0], 1.0))
    assert np.isnan(found["cosy_auc"][1]).all()


def test_saying_nothing_scores_as_nothing():
    a, truth = units_and_truth()
    found = primary(a, np.zeros_like(a))
    assert (found["r"] == 0).all()
    assert (found["f1"] == 0).all()
    assert (found["iou"] == 0).all()
    np.testing.assert_allclose(found["auprc"], 15 / 300)
    unlabelled = score_labels(a, truth, np.zeros(a.shape[1], bool), draws=5)
    np.testing.assert_array_equal(unlabelled.units["r"], 0)


def test_intervals_hold_the_mean_and_are_wider_when_images_hang_together():
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(20), 15)
    level = rng.normal(size=(20, 8))[blocks]
    a, c = level + 0.1 * rng.normal(size=level.shape), np.clip(level, 0, 1)
    apart = score_labels(a, c, np.ones(8, bool), draws=60)
    together = score_labels(a, c, np.ones(8, bool), blocks=blocks, draws=60)
    for scores in (apart, together):
        assert scores["r"].low <= scores["r"].value <= scores["r"].high
    assert np.std(together.draws["r"]) > np.std(apart.draws["r"])


def test_the_same_seed_gives_the_same_interval():
    a, truth = units_and_truth()
    shown = [a[truth[:, unit], unit] for unit in range(a.shape[1])]
    options = {"shown": shown, "thresholds": np.percentile(a, 99, axis=0), "draws": 20}
    one, two = (score_labels(a, truth, np.ones(12, bool), **options) for _ in range(2))
    assert all(one[name] == two[name] for name in (*PRIMARY, *SECONDARY))
    assert one["r"] != score_labels(a, truth, np.ones(12, bool), **options, seed=1)["r"]


def test_an_estimate_over_parts_counts_every_unit_once():
    a, truth = units_and_truth()
    small = score_labels(a[:, :3], truth[:, :3], np.ones(3, bool), draws=10)
    large = score_labels(a[:, 3:], truth[:, 3:], np.ones(9, bool), draws=10)
    pooled = estimate([small, large], "r")
    assert pooled.n == 12
    assert pooled.value == pytest.approx(np.concatenate([small.units["r"], large.units["r"]]).mean())
    assert estimate([], "r").n == 0


def test_primary_measures_survive_the_sanity_tests_and_the_others_do_not():
    a, truth = units_and_truth(units=40)
    results = {(result.metric, result.test): result for result in sanity_tests(a, truth)}
    assert all(results[metric, test].passed for metric in PRIMARY for test in TESTS)
    assert not any(results[metric, TESTS[0]].passed for metric in SECONDARY)
    assert all(result.after < result.before for (metric, _), result in results.items() if metric in PRIMARY)


def test_sanity_tests_refuse_units_that_nothing_can_be_dropped_from():
    a, truth = units_and_truth()
    with pytest.raises(ConfigError, match="at least four images"):
        sanity_tests(a, np.zeros_like(truth))


def test_clip_dissect_names_the_concept_of_the_top_images():
    rng = np.random.default_rng(0)
    concepts = np.eye(4, 16, dtype=np.float32)
    shows = rng.integers(4, size=200)
    images = concepts[shows] + 0.1 * rng.normal(size=(200, 16)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    activations = np.stack([(shows == unit) + 0.2 * rng.normal(size=200) for unit in range(4)], axis=1)
    scores = clip_dissect(activations.astype(np.float32), images, concepts)
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="at least one probing image"):
        clip_dissect(activations[:0], images[:0], concepts)


class Halves(nn.Module):
    """Unit 0 fires left, unit 1 on the right, unit 2 nowhere in particular."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(1, 3, 1, bias=False)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([1.0, -1.0, 0.0])[:, None, None, None])

    def forward(self, images):
        return self.head(self.maps(images).mean((2, 3)))


def halves():
    torch.manual_seed(0)
    network = Network(Halves(), preprocess=lambda pixels: pixels, input_shape=(1, 8, 8), channels=("grey",))
    pixels = np.zeros((6, 1, 8, 8), dtype=np.float32)
    pixels[..., 4:], pixels[..., :4] = -1, 1
    images = ArrayImages(pixels, rgb=np.zeros((6, 8, 8, 3), np.uint8), channels=("grey",))
    return network, images, pixels


def test_network_dissection_finds_where_units_fire_and_leaves_out_what_is_not_known():
    network, images, pixels = halves()
    pixels += 0.01 * np.random.default_rng(0).random(pixels.shape, dtype=np.float32)
    masks = np.zeros((6, 2, 8, 8), dtype=bool)
    masks[:, 0, :, :4], masks[:, 1, :, 4:] = True, True
    layers = [*resolve(network, ["maps"]), *resolve(network, ["head"])]
    found = dissection_iou(network, images, layers, masks, quantile=0.5)
    assert found["maps"][:2].argmax(axis=1).tolist() == [0, 1]
    assert found["maps"][0, 0] > 0.9
    assert (found["head"] == 0).all()
    known = masks.copy()
    known[:, 0] = False
    assert dissection_iou(network, images, layers, masks, known, quantile=0.5)["maps"][0, 0] == 0


def test_planted_units_change_no_answer_and_compute_what_they_should():
    network, images, pixels = halves()
    before = network(torch.from_numpy(pixels))

    class Brightest(nn.Module):
        def forward(self, given):
            return torch.cat([given.amax((2, 3), keepdim=True).expand_as(given), given * 0 + 5], dim=1)

    planted, layer = plant(network, "maps", 3, Brightest(), "brightest")
    torch.testing.assert_close(planted(torch.from_numpy(pixels)), before, rtol=0, atol=0)
    info = next(info for info in list_layers(planted) if info.name == layer)
    assert info.units == 5
    fired = activate(planted, [info], [images[i] for i in range(3)])[layer]
    np.testing.assert_allclose(fired[:, 3], pixels.max())
    np.testing.assert_allclose(fired[:, 4], 5)
    again, _, _ = halves()
    assert planted.fingerprint != plant(again, "maps", 3, Brightest(), "another")[0].fingerprint


def test_units_are_not_planted_in_the_output():
    with pytest.raises(LayerNotFound, match="inner layer"):
        plant(halves()[0], "output", 2, nn.Identity())


def test_labels_that_know_nothing():
    labels = ["haze", "", "water", "haze", "trees"]
    assert constant_labels(labels) == ["haze"] * 5
    assert constant_labels(["", ""]) == ["", ""]
    assert random_labels(labels) == random_labels(labels)
    assert set(random_labels(labels)) <= {"haze", "water", "trees"}
    assert random_labels(["", ""]) == ["", ""]
    shuffled = shuffled_labels(labels)
    assert sorted(shuffled) == sorted(labels)
    assert shuffled[1] == ""


class Counting:
    fingerprint = "counting"

    def __init__(self):
        self.asked = 0

    def caption(self, images):
        self.asked += len(images)
        return [
            f"an image {float(image.pixels.mean()):.1f}{' cut' if 'crop' in image.metadata else ''}" for image in images
        ]


def test_captions_are_made_once_and_survive_a_kill(tmp_path):
    from dnd_core.types import Box

    _, images, _ = halves()
    inner = Counting()
    captioner = CachedCaptioner(inner, tmp_path)
    whole = [images[0], images[1]]
    cut = images[0].crop(Box(0, 0, 8, 8))
    first = captioner.caption([*whole, cut])
    assert first[2].endswith("cut")
    # Images of equal content are one image; the crop of everything has the same pixels and a caption of its own.
    assert inner.asked == 2
    assert CachedCaptioner(inner, tmp_path).caption([*whole, cut]) == first
    assert inner.asked == 2
