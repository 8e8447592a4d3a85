"""Concept images collected once, candidates ranked as the paper's formulas say, shorter labels preferred among equals."""

import numpy as np
import pytest

from dnd_core.config import SelectionConfig
from dnd_core.errors import BackendError, ProbeError
from dnd_core.scoring import SCORES as PAPER_SCORES
from dnd_core.selection import SCORES, collect, complexity, lead_errors, rank_candidates, simplest_first, write_pngs
from dnd_core.testing import OracleConceptImages
from dnd_core.types import Candidate

SHAPE = (3, 48, 48)


class Counted(OracleConceptImages):
    def __init__(self, **changes):
        super().__init__(**changes)
        self.asked = []

    def show(self, concept, n):
        self.asked.append(concept)
        return super().show(concept, n)


def test_each_concept_is_shown_once_and_found_again_after_a_kill(tmp_path):
    first, second = Counted(), Counted()
    collect(first, ["red", "blue", "red"], 3, tmp_path, SHAPE)
    told = []
    gallery = collect(second, ["green", "red", "blue"], 3, tmp_path, SHAPE, progress=lambda *step: told.append(step))
    assert (first.asked, second.asked) == (["blue", "red"], ["green"])
    assert told == [("concepts", number, 3) for number in (1, 2, 3)]
    assert {concept: len(keys) for concept, keys in gallery.keys.items()} == {"blue": 3, "green": 3, "red": 3}
    assert gallery.distinct == sorted(gallery.distinct)
    key = gallery.keys["red"][0]
    image = gallery.load(key)
    np.testing.assert_array_equal(image.pixels, OracleConceptImages().show("red", 1)[0].pixels)
    assert (image.key, image.channels) == (key, ("red", "green", "blue"))


def test_an_image_that_shows_two_concepts_is_held_once(tmp_path):
    class Same(OracleConceptImages):
        def show(self, concept, n):
            return super().show("red", n)

    gallery = collect(Same(), ["red", "crimson"], 2, tmp_path, SHAPE)
    assert len(gallery.distinct) == 2
    assert gallery.keys["red"] == gallery.keys["crimson"]
    write_pngs(gallery, tmp_path / "pictures")
    assert sorted(path.stem for path in (tmp_path / "pictures").iterdir()) == [key[:20] for key in gallery.distinct]


def test_what_cannot_be_shown_is_said(tmp_path):
    # A contradiction cannot be drawn.
    gallery = collect(OracleConceptImages(), ["red", "stripes without stripes"], 2, tmp_path / "a", SHAPE)
    assert gallery.keys["stripes without stripes"] == ()
    with pytest.raises(BackendError, match="OracleConceptImages has no image for any of 1 concepts"):
        collect(OracleConceptImages(), ["stripes without stripes"], 2, tmp_path / "b", SHAPE)
    with pytest.raises(ProbeError, match="channels and size"):
        collect(OracleConceptImages(size=40), ["red"], 2, tmp_path / "c", SHAPE)
    assert collect(OracleConceptImages(), [], 2, tmp_path / "d", SHAPE).distinct == []


def ranked(score="mean", *, counts=(4, 4, 4), simulation=(0.1, 0.8, 0.2), beta=2):
    """Three candidates; the unit fires most on the images of the first."""
    labels = ["red", "dots", "grain"]
    rows, start = {}, 0
    for label, count in zip(labels, counts, strict=True):
        rows[label] = np.arange(start, start + count)
        start += count
    activations = np.linspace(1, 0, start).astype(np.float32)
    # Every image looks like its concept; the unit's own images look like the third.
    space = np.zeros((start, 3), dtype=np.float32)
    for number, label in enumerate(labels):
        space[rows[label], number] = 1.0
    config = SelectionConfig(images_per_concept=4, beta=beta, score=score)
    return rank_candidates(
        [Candidate(label) for label in labels],
        activations,
        rows,
        config,
        image_space=space,
        top_space=np.tile(np.eye(3, dtype=np.float32)[2], (5, 1)),
        simulation=np.array(simulation),
        errors=np.zeros(3),
    )


@pytest.mark.parametrize(
    ("score", "best"),
    [
        ("mean", "red"),
        ("topk_squared", "red"),
        ("image_products", "grain"),
        ("topk_squared_x_image_products", "grain"),
        ("simulation", "dots"),
    ],
)
def test_every_score_chooses_by_itself(score, best):
    found = ranked(score)
    assert found[0].label == best
    assert {label.label for label in found} == {"red", "dots", "grain"}
    assert all(set(label.scores) == set(SCORES) for label in found)
    assert set(SCORES) - set(PAPER_SCORES) == {"simulation"}


def test_scores_are_the_papers():
    scores = {label.label: label.scores for label in ranked()}
    assert scores["red"]["mean"] == pytest.approx(np.mean([0, 1, 2, 3]))
    assert scores["dots"]["mean"] == pytest.approx(np.mean([4, 5, 6, 7]))
    assert scores["red"]["topk_squared"] == pytest.approx((0**2 + 1**2) / 2)
    assert scores["grain"]["image_products"] == pytest.approx(1.0)
    assert scores["red"]["image_products"] == pytest.approx(0.0)


def test_a_candidate_with_too_few_images_comes_last_where_images_choose():
    found = ranked("mean", counts=(4, 1, 4))
    assert [label.label for label in found] == ["red", "grain", "dots"]
    assert found[-1].scores == {}
    assert all(label.scores == {} for label in ranked(counts=(1, 1, 0)))


def test_a_candidate_too_rare_for_the_pool_competes_where_the_simulation_chooses():
    found = ranked("simulation", counts=(4, 1, 4))
    assert [label.label for label in found] == ["dots", "grain", "red"]
    assert found[0].scores == {"simulation": 0.8}
    assert set(found[1].scores) == set(SCORES)
    # Among equals one that images were found for comes first.
    assert ranked("simulation", counts=(1, 4, 4), simulation=(0.8, 0.8, 0.8))[0].label == "grain"
    assert [label.label for label in ranked("simulation", counts=(0, 0, 0))] == ["dots", "grain", "red"]


def test_the_simplest_of_those_as_good_as_the_best_comes_first():
    simulation = np.array([0.80, 0.77, 0.50])
    says, shown = np.array([2.2, 1.1, 1.1]), np.array([0.0, 0.0, 9.0])
    assert simplest_first(simulation, says, shown, np.array([0.0, 0.06, 0.06])).tolist() == [1, 0, 2]
    # A lead beyond its error is no chance, and what more is said is earned.
    assert simplest_first(simulation, says, shown, np.array([0.0, 0.01, 0.01])).tolist() == [0, 1, 2]
    # However sure it is, a lead of a hundredth is not worth a thing more.
    assert simplest_first(np.array([0.80, 0.79, 0.50]), says, shown, np.zeros(3)).tolist() == [1, 0, 2]
    # Among equally simple ones the concept images decide, then the order of proposal.
    one, unsure = np.ones(2), np.array([0.0, 0.1])
    assert simplest_first(np.array([0.8, 0.79]), one, np.array([1.0, 2.0]), unsure).tolist() == [1, 0]
    assert simplest_first(np.array([0.8, 0.8]), one, np.array([2.0, 2.0]), unsure).tolist() == [0, 1]


def test_a_label_says_more_with_every_thing_it_names_and_most_by_denying_one():
    labels = ["haze", "thin haze", "haze or water", "haze without water"]
    assert [complexity(label) for label in labels] == sorted({complexity(label) for label in labels})
    assert complexity("no water") > complexity("open grey water")


def test_the_error_of_a_lead_is_that_of_drawing_blocks_anew():
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(60), 8)
    # Neighbours are alike: what a block adds is the same for all of it.
    shared = rng.normal(size=(60, 3))[blocks]
    fired = shared[:, 0] + 0.3 * rng.normal(size=480)
    said = np.stack([fired + shared[:, 1], fired + 1.5 * shared[:, 2], fired + shared[:, 1]], axis=1)
    errors = lead_errors(fired, said, blocks)
    assert errors[0] == errors[2] == 0, "the best, and what says the same"
    drawn = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(blocks == block) for block in rng.integers(0, 60, size=60)])
        r = [np.corrcoef(fired[rows], said[rows, k])[0, 1] for k in (0, 1)]
        drawn.append(r[0] - r[1])
    assert errors[1] == pytest.approx(np.std(drawn), rel=0.15)
    assert errors[1] > 1.5 * lead_errors(fired, said)[1], "taking neighbours for independent makes it look surer"
