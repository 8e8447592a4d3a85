"""Meanings found by clustering, contrast drawn from the right images, proposals cut, journaled and asked for once."""

import numpy as np
import pytest

from dnd_core.candidates import candidates_of, contrast_images, evidence_of, meanings, propose
from dnd_core.config import CandidateConfig
from dnd_core.errors import BackendError
from dnd_core.testing import WordVectors
from dnd_core.types import Candidate, UnitId

UNIT = UnitId("layer", 3)


def around(rng, centre, count, spread):
    rows = np.asarray(centre) + spread * rng.normal(size=(count, len(centre)))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_two_clear_clusters_are_two_meanings_and_one_is_one():
    rng = np.random.default_rng(0)
    axes = np.eye(16)
    two = np.concatenate([around(rng, axes[0], 6, 0.05), around(rng, axes[1], 4, 0.05)]).astype(np.float32)
    assert meanings(two, 3).tolist() == [0] * 6 + [1] * 4
    assert meanings(two[::-1].copy(), 3).tolist() == [0] * 4 + [1] * 6
    one = around(rng, axes[0], 10, 0.3).astype(np.float32)
    assert meanings(one, 3).tolist() == [0] * 10


def test_three_clusters_are_three_unless_fewer_are_allowed():
    rng = np.random.default_rng(1)
    rows = np.concatenate([around(rng, np.eye(8)[i], 4, 0.03) for i in range(3)]).astype(np.float32)
    assert len(set(meanings(rows, 3).tolist())) == 3
    assert len(set(meanings(rows, 2).tolist())) <= 2
    assert set(meanings(rows, 1).tolist()) == {0}


def test_a_cluster_of_two_images_is_no_meaning():
    rng = np.random.default_rng(2)
    rows = np.concatenate([around(rng, np.eye(8)[0], 8, 0.01), around(rng, np.eye(8)[1], 2, 0.01)]).astype(np.float32)
    assert set(meanings(rows, 2).tolist()) == {0}
    assert set(meanings(rows[:5], 3).tolist()) == {0}


def test_equal_captions_are_one_meaning():
    rows = np.tile(np.eye(4, dtype=np.float32)[:1], (10, 1))
    assert set(meanings(rows, 3).tolist()) == {0}


def test_contrast_is_half_random_and_half_near_misses():
    order = np.random.default_rng(3).permutation(1000)
    drawn = contrast_images(order, 10, 40, (0, 1, 2))
    place = {int(image): rank for rank, image in enumerate(order)}
    ranks = np.array([place[int(image)] for image in drawn])
    assert ranks.min() >= 10
    assert 20 <= ((ranks >= 200) & (ranks < 500)).sum() <= 35
    assert (ranks >= 500).any()
    assert 35 <= len(drawn) <= 40
    assert drawn.tolist() == sorted(set(drawn.tolist())) == contrast_images(order, 10, 40, (0, 1, 2)).tolist()
    assert drawn.tolist() != contrast_images(order, 10, 40, (1, 1, 2)).tolist()


@pytest.mark.parametrize("count", [3, 10, 12, 25])
def test_a_small_probe_gives_less_contrast_and_never_the_unit_s_own_images(count):
    order = np.arange(count)
    drawn = contrast_images(order, 10, 40, (0,))
    assert set(drawn.tolist()) <= set(range(10, count))
    assert len(drawn) == max(0, count - 10) or len(drawn) >= 2


def views(count, start=0):
    return [(index, -1, -1, -1, -1) for index in range(start, start + count)]


def evidence(captions, others=(), **changes):
    top, rest = views(len(captions)), views(len(others), 100)
    known = dict(zip([*top, *rest], [*captions, *others], strict=True))
    return evidence_of(
        UNIT,
        top,
        rest,
        known,
        WordVectors(),
        CandidateConfig(**changes),
        background=("behind", ""),
        activations=(0.5, 0.1),
        seed=7,
    )


def test_evidence_is_the_whole_first_and_then_each_meaning():
    whole, red, striped = evidence(["red disc"] * 4 + ["vertical stripes"] * 4, ["blue", "", "green"])
    assert whole.captions == ("red disc",) * 4 + ("vertical stripes",) * 4
    assert whole.contrast == ("blue", "green")
    assert (whole.background, whole.activations, whole.seed, whole.meaning) == (("behind", ""), (0.5, 0.1), 7, 0)
    assert (red.captions, red.meaning) == (("red disc",) * 4, 1)
    assert (striped.captions, striped.meaning) == (("vertical stripes",) * 4, 2)


def test_refused_captions_are_no_evidence():
    (whole,) = evidence(["red", "", "red"])
    assert whole.captions == ("red", "red")
    assert evidence(["", ""]) == []


def test_without_contrast_the_summarizer_sees_what_the_paper_shows_it():
    (whole,) = evidence(["red"] * 3, ["blue"], contrast=False)
    assert (whole.contrast, whole.background, whole.activations) == ((), (), ())


class Scripted:
    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def propose(self, evidence, n):
        self.asked.append(len(evidence))
        return [self.answers for _ in evidence]


def test_proposals_are_cut_to_n_of_five_words_each_once(tmp_path):
    said = [Candidate("one two three four five six", 3, 0.5), Candidate("Red"), Candidate("red"), Candidate(" ")]
    pieces = evidence(["red disc"] * 4 + ["vertical stripes"] * 4)
    summarizer = Scripted(said)
    table = propose(summarizer, {UNIT: pieces}, CandidateConfig(n=3), tmp_path / "journal")
    assert summarizer.asked == [3]
    assert table["label"].tolist() == ["one two three four five", "Red"]
    assert candidates_of(table) == [Candidate("one two three four five", 3, 0.5, 0), Candidate("Red")]


def test_the_meaning_is_that_of_the_evidence_whatever_the_summarizer_says(tmp_path):
    class Echo:
        def propose(self, evidence, n):
            return [[Candidate(piece.captions[-1], meaning=9)] for piece in evidence]

    pieces = evidence(["red disc"] * 4 + ["vertical stripes"] * 4)
    table = propose(Echo(), {UNIT: pieces}, CandidateConfig(), tmp_path / "journal")
    assert list(zip(table["label"], table["meaning"], strict=True)) == [("vertical stripes", 0), ("red disc", 1)]


def test_units_already_in_the_journal_are_not_asked_about_again(tmp_path):
    asked = {UnitId("layer", index): evidence(["red"] * 3) for index in range(5)}
    asked[UnitId("layer", 5)] = []
    first, second, told = Scripted([Candidate("red")]), Scripted([Candidate("blue")]), []
    part = {unit: asked[unit] for unit in list(asked)[:3]}
    propose(first, part, CandidateConfig(), tmp_path / "journal", chunk=2)
    table = propose(
        second, asked, CandidateConfig(), tmp_path / "journal", chunk=2, progress=lambda *step: told.append(step)
    )
    assert (sum(first.asked), sum(second.asked)) == (3, 2)
    assert table["label"].tolist() == ["red"] * 3 + ["blue"] * 2
    assert told[-1] == ("candidates", 6, 6)


def test_a_wrong_number_of_answers_is_an_error_and_journals_nothing(tmp_path):
    class Short:
        def propose(self, evidence, n):
            return []

    with pytest.raises(BackendError, match="Short answered 0 of 1"):
        propose(Short(), {UNIT: evidence(["red"])}, CandidateConfig(), tmp_path / "journal")
    assert not (tmp_path / "journal").exists()
