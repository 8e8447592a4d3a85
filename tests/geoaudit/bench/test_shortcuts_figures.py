"""Figures and comparators of the shortcuts bench against slow formulas and planted truths."""

import csv
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dnd_core.images import ArrayImages
from dnd_core.layers import list_layers
from dnd_core.networks import Network
from geoaudit.bench.shortcuts.comparators import COMPARATORS, Material
from geoaudit.bench.shortcuts.metrics import auroc, hit, interval, reciprocal_rank, tpr_at_far
from geoaudit.bench.shortcuts.plants import FAMILIES
from geoaudit.bench.shortcuts.summary import summarise
from geoaudit.bench.shortcuts.tables import markdown, write_csv, write_docs


def test_auroc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 5, 30), rng.integers(0, 4, 20)
    pairs = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(positive, negative)]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc([], negative))


def test_tpr_lets_no_more_negatives_through_than_allowed():
    negative = np.arange(100.0)
    assert tpr_at_far([94.5, 93.9, 200], negative) == pytest.approx(2 / 3)
    assert (negative > 94).mean() <= 0.05
    # All negatives alike: only what is above them counts.
    assert tpr_at_far([0, 0, 1], np.zeros(60)) == pytest.approx(1 / 3)
    assert tpr_at_far([1.0], [0.0, 5.0]) == 0


def test_hits_and_reciprocal_ranks_count_never_as_nothing():
    ranks = [1, 3, 0, 4]
    assert (hit(ranks, 1), hit(ranks, 3)) == (0.25, 0.5)
    assert reciprocal_rank(ranks) == pytest.approx((1 + 1 / 3 + 0 + 1 / 4) / 4)


def test_an_interval_covers_its_figure_and_narrows_with_networks():
    few, many = (interval(lambda v: float(v.mean()), np.tile([0.0, 1.0], n)) for n in (10, 500))
    assert few.low <= 0.5 <= few.high
    assert few.high - few.low > many.high - many.low
    empty = interval(lambda v: float("nan"), [])
    assert np.isnan(empty.value)
    assert np.isnan(empty.low)


class _Mean(nn.Module):
    """Two units: the mean of the image, and its negative; class 1 is answered for bright images."""

    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.units.weight.zero_()
            self.units.weight[0] = 1 / 3
            self.units.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[1, 0] = 10
            self.head.bias[:] = torch.tensor([5.0, 0.0])

    def forward(self, pixels):
        return self.head(self.units(pixels).mean(dim=(2, 3)))


def _material(captions=None, label="a veil of haze", flipped=0.0):
    rng = np.random.default_rng(3)
    bright = np.arange(60) % 2 == 1
    pixels = (rng.uniform(0.2, 0.4, (60, 3, 8, 8)) + 0.4 * bright[:, None, None, None]).astype(np.float32)
    labels = np.where(rng.random(60) < flipped, 0, bright.astype(np.int64))
    images = ArrayImages(pixels, labels=labels, class_names=("dark", "bright"))
    network = Network(_Mean().eval(), lambda x: x, (3, 8, 8), images.channels, ("dark", "bright"))
    logits = network(torch.from_numpy(pixels)).numpy()
    layers = tuple(info for info in list_layers(network) if info.name == "units")
    with torch.inference_mode():
        features = network.module.units(torch.from_numpy(pixels)).mean(dim=(2, 3)).numpy()
    said = captions or [
        "thin haze over all of the tile, houses" if b else "houses, dark forest over half of the tile" for b in bright
    ]
    neurons = pd.DataFrame({"layer": "units", "unit": [0, 1, 2, 3], "label": [label, "", "houses", ""]})
    return Material(network, images, layers, said, labels, logits, features, neurons, ("dark", "bright"), 0)


def test_a_property_that_tells_the_classes_apart_comes_first():
    first = COMPARATORS["image properties"](_material())[0]
    assert FAMILIES["offset"].named(first.words)
    assert first.score == pytest.approx(1.0)
    nothing = COMPARATORS["image properties"](_material(flipped=1.0))
    assert nothing == []


def test_keywords_of_wrong_answers_name_what_they_share():
    first = COMPARATORS["error keywords"](_material(flipped=0.5))[0]
    assert (first.words, first.class_name) == ("thin haze", "bright")
    assert first.score > 0.4
    assert COMPARATORS["error keywords"](_material()) == []


def test_a_slice_of_errors_is_found_and_named():
    first = COMPARATORS["error slices"](_material(flipped=0.5))[0]
    assert first.words == "thin haze"
    assert first.class_name == "bright"
    assert first.score > 0.2


def test_pruning_by_keyword_names_the_word_whose_units_carry_the_class():
    first = COMPARATORS["prune by keyword"](_material())[0]
    assert "haze" in first.words
    assert first.class_name == "bright"
    assert first.score == pytest.approx(0.5)
    assert COMPARATORS["prune by keyword"](_material(label="houses")) == []


def _row(pool="planted", family="haze", score=3.5, learned=True, quiet=False, seed=0, **more):
    row = {
        "name": f"{pool}{family}{seed}{score}", "half": "evaluation", "pool": pool, "family": family, "strength": 0.9,
        "target": "meadow", "seed": seed, "valid_accuracy": 0.7, "valid_reliance": 0.5, "valid_worst": 0.5,
        "valid_worst_family": "haze", "learned": learned, "quiet": quiet, "score": score, "tripped": score >= 2, "rank": 1,
        "class_rank": 2, "precision": 0.5, "shuffled": 0.0, "findings": [["major", "sensor-probe", "=cmd()", "meadow", 0.5]],
        "repair": {"gain": 0.2, "random_gain": 0.0, "lost": 0.01, "units": 3},
    }  # fmt: skip
    for name in COMPARATORS:
        row |= {f"{name} score": 0.5, f"{name} rank": 0}
    return row | more


ROWS = [
    _row(),
    _row(seed=1, score=1.5, rank=0, class_rank=0, precision=float("nan"), repair=None, shuffled=2.5),
    _row(learned=False, quiet=True, score=0.0, seed=2),
    _row("clean", "", 2.2, False, True, seed=3),
    _row("clean", "", 2.2, False, False, seed=4),
    _row("decoy", "haze", 0.0, False, True, seed=5),
]


def test_every_network_counts_once_and_those_that_lean_by_nature_not_at_all():
    found = summarise(ROWS)
    assert (found.networks, found.positives, found.negatives) == (6, 2, 5)
    assert found.pools == {
        "clean": (1, 1), "planted, not learned": (1, 0), "balanced decoy": (1, 0), "shuffled unit labels": (2, 1),
    }  # fmt: skip
    assert found.leaning == (1, 1)
    assert found.far == pytest.approx(2 / 5)
    assert found.far < found.far_upper < 1
    assert found.ours.auroc.value == pytest.approx(auroc([3.5, 1.5], [0, 2.2, 0, 0, 2.5]))
    assert found.tripped.value == 0.5
    assert found.p10.value == 0.5
    assert found.comparators["error slices"].auroc.value == 0.5
    assert (found.gained.value, found.random_gained.value) == (0.2, 0.0)
    haze = found.families[0]
    assert (haze.name, haze.planted, haze.learned, haze.hit1, haze.repaired) == ("haze", 3, 2, 0.5, 1)
    keys = {"auroc", "tpr_at_far5", "far", "n_negatives", "hit1", "hit3", "mrr", "p10", "comparators"}
    assert set(json.loads(json.dumps(found.to_dict()))) == keys


def test_a_bench_without_positives_is_said_in_dashes():
    found = summarise([row for row in ROWS if row["pool"] == "clean"])
    assert found.to_dict()["auroc"] is None
    assert "| **geoaudit** | - |" in markdown(found)


def test_docs_keep_the_words_around_the_tables(tmp_path):
    page = tmp_path / "bench-shortcuts.md"
    page.write_text("# Before\n\n<!-- bench: begin -->\nold\n<!-- bench: end -->\n\nAfter.\n", encoding="utf-8")
    found = summarise(ROWS)
    write_docs(tmp_path, ROWS, found, "geoaudit bench shortcuts --seeds 5")
    first = page.read_text("utf-8")
    assert first.startswith("# Before\n")
    assert first.endswith("\n\nAfter.\n")
    assert "\nold\n" not in first
    assert markdown(found) in first
    assert "geoaudit bench shortcuts --seeds 5" in first
    write_docs(tmp_path, ROWS, found, "geoaudit bench shortcuts --seeds 5")
    assert page.read_text("utf-8") == first


def test_rows_come_back_from_the_csv(tmp_path):
    write_csv(tmp_path / "rows.csv", ROWS)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["name"] for row in read] == [row["name"] for row in ROWS]
    assert json.loads(read[0]["repair"])["gain"] == 0.2
    assert read[1]["precision"] == ""
    assert not any(cell.startswith(("=", "+", "@")) for row in read for cell in row.values())


def test_a_finding_without_one_right_example_counts_as_nought():
    """Nought is a figure: leaving it out had flattered the mean."""
    rows = [_row(seed=0, precision=0.5), _row(seed=1, precision=0.0), _row(seed=2, precision=None)]
    found = summarise(rows)
    assert found.p10.value == pytest.approx(0.25)
    assert next(family for family in found.families if family.learned).precision == pytest.approx(0.25)
