"""Accuracy and area against the worked example of Olofsson et al. (2014) and against simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from geoaudit.accuracy import (
    AccuracyError,
    affected_area,
    cluster_accuracy,
    error_matrix,
    simple_accuracy,
    stratified_accuracy,
)

# Olofsson et al. (2014), table 8 and the text around it: 30 m pixels, 0.09 ha each
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HECTARES = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")


def half(estimate):
    return estimate.high - estimate.value


def slow_producer_error(j):
    """Equation 7, term by term."""
    size = COUNTS.sum(axis=1)
    seen = sum(HECTARES[i] / size[i] * COUNTS[i, j] for i in range(4))
    producer = HECTARES[j] / size[j] * COUNTS[j, j] / seen
    user = COUNTS[j, j] / size[j]
    own = HECTARES[j] ** 2 * (1 - producer) ** 2 * user * (1 - user) / (size[j] - 1)
    others = 0.0
    for i in range(4):
        if i != j:
            share = COUNTS[i, j] / size[i]
            others += HECTARES[i] ** 2 * share * (1 - share) / (size[i] - 1)
    return np.sqrt((own + producer**2 * others) / seen**2)


def test_worked_example_to_the_printed_digits():
    report = stratified_accuracy(COUNTS, HECTARES, NAMES)
    assert round(report.overall.value, 3) == 0.947
    assert round(half(report.overall), 3) == 0.018
    assert [round(e.value, 2) for e in report.users] == [0.88, 0.73, 0.93, 0.96]
    assert [round(half(e), 2) for e in report.users] == [0.07, 0.10, 0.04, 0.02]
    assert [round(e.value, 2) for e in report.producers] == [0.75, 0.85, 0.93, 0.96]
    errors = [slow_producer_error(j) for j in range(4)]
    np.testing.assert_allclose([e.value - e.low for e in report.producers], np.array(errors) * 1.96, rtol=1e-4)
    assert [round(e.value) for e in report.areas] == [21_158, 11_686, 285_770, 581_386]
    # The paper multiplies by 1.96, which moves the last printed digit of 15,510 by less than one.
    np.testing.assert_allclose([half(e) for e in report.areas], [6_158, 3_756, 15_510, 16_282], atol=1.0)
    np.testing.assert_allclose(report.proportions.sum(), 1)
    assert report.proportions[0] == pytest.approx([0.0176, 0, 0.0013, 0.0011], abs=5e-5)


def test_areas_come_out_in_the_unit_they_went_in():
    hectares = stratified_accuracy(COUNTS, HECTARES)
    pixels = stratified_accuracy(COUNTS, HECTARES / 0.09)
    assert pixels.areas[0].value == pytest.approx(hectares.areas[0].value / 0.09)
    assert pixels.overall == hectares.overall


def test_adjusted_areas_undo_the_bias_of_pixel_counting():
    # everything mapped A is right, one quarter of what is mapped B is A in truth
    report = stratified_accuracy([[40, 0], [10, 30]], [100, 400], ("a", "b"))
    assert report.areas[0].value == pytest.approx(200)
    assert report.areas[1].value == pytest.approx(300)


def test_post_stratified_and_plain_simple_samples_agree_when_the_sample_mirrors_the_map():
    counts = np.array([[30, 10], [6, 54]])
    plain = simple_accuracy(counts)
    post = simple_accuracy(counts, [40, 60])
    assert (plain.design, post.design) == ("simple", "poststratified")
    assert plain.overall.value == pytest.approx(post.overall.value) == pytest.approx(0.84)
    assert plain.producers[0].value == pytest.approx(post.producers[0].value) == pytest.approx(30 / 36)
    assert plain.areas[0].value == pytest.approx(0.36)
    assert half(post.areas[0]) / 100 < half(plain.areas[0])


def draw_map(rng, size=20_000):
    truth = (rng.uniform(size=size) < 0.2).astype(int)
    flip = rng.uniform(size=size) < np.where(truth == 1, 0.3, 0.1)
    return np.where(flip, 1 - truth, truth), truth


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    mapped, truth = draw_map(rng)
    area = float(truth.sum())
    producer = (mapped * truth).sum() / truth.sum()
    sizes = np.bincount(mapped)
    hits = {"stratified area": 0, "stratified producer": 0, "simple area": 0, "simple producer": 0}
    trials = 300
    for _ in range(trials):
        picks = np.concatenate([rng.choice(np.flatnonzero(mapped == c), 100, replace=False) for c in (0, 1)])
        report = stratified_accuracy(error_matrix(mapped[picks], truth[picks], 2), sizes)
        hits["stratified area"] += report.areas[1].low <= area <= report.areas[1].high
        hits["stratified producer"] += report.producers[1].low <= producer <= report.producers[1].high
        picks = rng.choice(len(mapped), 200, replace=False)
        report = simple_accuracy(error_matrix(mapped[picks], truth[picks], 2), sizes)
        hits["simple area"] += report.areas[1].low <= area <= report.areas[1].high
        hits["simple producer"] += report.producers[1].low <= producer <= report.producers[1].high
    assert all(0.91 <= count / trials <= 0.99 for count in hits.values()), hits


def test_cluster_intervals_cover_where_simple_ones_are_fooled():
    rng = np.random.default_rng(1)
    tiles, size = 400, 25
    rate = rng.beta(2, 8, tiles)
    ids = np.repeat(np.arange(tiles), size)
    truth = (rng.uniform(size=tiles * size) < rate[ids]).astype(int)
    # whole tiles are mapped badly or well
    wrong = rng.uniform(size=tiles * size) < np.where(rng.uniform(size=tiles) < 0.3, 0.6, 0.02)[ids]
    mapped = np.where(wrong, 1 - truth, truth)
    accuracy = (mapped == truth).mean()
    by_cluster = by_simple = 0
    for _ in range(200):
        picks = np.isin(ids, rng.choice(tiles, 20, replace=False))
        report = cluster_accuracy(mapped[picks], truth[picks], ids[picks], ("a", "b"))
        by_cluster += report.overall.low <= accuracy <= report.overall.high
        plain = simple_accuracy(error_matrix(mapped[picks], truth[picks], 2))
        by_simple += plain.overall.low <= accuracy <= plain.overall.high
    assert by_cluster / 200 > 0.88
    assert by_simple / 200 < 0.75


def test_clusters_of_one_are_a_simple_sample():
    rng = np.random.default_rng(2)
    mapped, truth = draw_map(rng, 400)
    clusters = cluster_accuracy(mapped, truth, np.arange(400), ("a", "b"), total_area=1000.0)
    simple = simple_accuracy(error_matrix(mapped, truth, 2))
    assert clusters.overall.value == pytest.approx(simple.overall.value)
    assert half(clusters.overall) == pytest.approx(half(simple.overall), rel=0.01)
    assert clusters.areas[1].value == pytest.approx(1000 * simple.areas[1].value)
    assert clusters.mapped.sum() == pytest.approx(1000)


def test_a_class_nobody_mapped_or_saw_is_undefined_not_zero():
    report = stratified_accuracy([[20, 0, 1], [2, 18, 0], [0, 0, 0]], [50, 50, 0], ("a", "b", "c"))
    assert np.isnan(report.users[2].value)
    assert report.producers[2].value == 0
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert '"users": {"estimate": null' in text


def test_few_samples_are_said_in_words():
    report = stratified_accuracy([[5, 0], [2, 38]], [50, 50], ("reed", "water"))
    assert "reed" in report.notes[0]


def test_affected_area_weighs_by_area_and_scales_to_the_total():
    share = np.array([1, 0, 1, 0, 0, 0, 1, 0] * 20, dtype=float)
    hectares = np.tile([1.0, 2.0, 1.0, 2.0, 2.0, 2.0, 1.0, 2.0], 20)
    whole = affected_area(share, hectares, n=500)
    assert whole.value == pytest.approx(60)
    assert whole.low < 60 < whole.high
    assert affected_area(share, hectares, total=1300.0, n=500).value == pytest.approx(1300 * 60 / 260)


def test_affected_area_is_less_certain_when_it_comes_in_blocks():
    blocks = np.repeat(np.arange(12), 30)
    share = np.repeat([1.0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0], 30)
    honest, naive = affected_area(share, 0.01, blocks, n=500), affected_area(share, 0.01, n=500)
    assert honest.value == pytest.approx(0.9)
    assert honest.high - honest.low > 3 * (naive.high - naive.low)
    assert honest.low >= 0
    assert honest.high <= 3.6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stratified_accuracy([[5, 1], [0, 0]], [10, 10], ("a", "b")), "'b' has 0 sample units"),
        (lambda: stratified_accuracy([[5, 1], [0, 1]], [10, 10], ("a", "b")), "'b' has 1 sample units"),
        (lambda: stratified_accuracy([[5, 1], [1, 5]], [10, 0], ("a", "b")), "no mapped area"),
        (lambda: stratified_accuracy([[5, -1], [1, 5]], [10, 10]), "none negative"),
        (lambda: stratified_accuracy([[5, 0.5], [1, 5]], [10, 10]), "whole numbers"),
        (lambda: stratified_accuracy([[5, 1], [1, 5]], [10, -1]), "not negative"),
        (lambda: stratified_accuracy([[5, 1], [1, 5]], [10]), "2 numbers"),
        (lambda: stratified_accuracy([[5, 1]], [10]), "square"),
        (lambda: stratified_accuracy([[5, 1], [1, 5]], [1, 1], ("a",)), "1 class names"),
        (lambda: simple_accuracy([[1, 0], [0, 0]]), "no variance"),
        (lambda: error_matrix([], [], 2), "empty"),
        (lambda: error_matrix([0, 2], [0, 1], 2), "0 to 1"),
        (lambda: cluster_accuracy([0, 1], [0, 1], [3, 3], ("a", "b")), "one cluster"),
        (lambda: affected_area([0.2, 1.4], 1.0), r"shares in \[0, 1\]"),
        (lambda: affected_area([0.2, 0.4], 0.0), "positive"),
        (lambda: affected_area([0.2, 0.4], 1.0, [1, 1]), "one block"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, words):
    with pytest.raises(AccuracyError, match=words):
        call()
