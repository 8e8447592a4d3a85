"""Groups of labels that mean the same, with a threshold learnt from the labels themselves."""

import numpy as np
import pytest

from dnd_core.errors import ConfigError
from dnd_core.grouping import DEFAULT_THRESHOLD, group_labels, null_threshold


def planted(meanings, words_each, noise, seed=0, dim=64):
    """Labels of some meanings, each a direction of its own, and their noisy embeddings."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(meanings, dim))
    labels, rows = [], []
    for meaning in range(meanings):
        for word in range(words_each):
            labels.append(f"meaning {meaning} word {word}")
            rows.append(centres[meaning] + noise * generator.normal(size=dim))
    return labels, np.array(rows)


@pytest.mark.parametrize("seed", range(5))
def test_planted_meanings_are_found_and_loners_left_alone(seed):
    labels, rows = planted(6, 4, 0.35, seed)
    loners = np.random.default_rng(seed + 100).normal(size=(10, 64))
    grouping = group_labels(labels + [f"loner {i}" for i in range(10)], np.concatenate([rows, loners]))
    expected = [number for number in range(6) for _ in range(4)]
    assert list(grouping.groups[:24]) == expected
    assert grouping.ungrouped == tuple(range(24, 34))
    assert [name.split()[1] for name in grouping.names] == ["0", "1", "2", "3", "4", "5"]
    assert 0.3 < grouping.threshold < 0.8
    assert "pairs of the labels" in grouping.threshold_source


def test_unrelated_labels_stay_apart():
    generator = np.random.default_rng(7)
    grouped = [len(group_labels([str(i) for i in range(40)], generator.normal(size=(40, 48))).names) for _ in range(20)]
    # About one set in twenty may hold one false pair.
    assert np.mean(grouped) < 0.3


def test_identical_labels_share_a_group_whatever_their_embeddings():
    rows = np.eye(4)
    grouping = group_labels(["Blue roof", "forest", "blue  roof ", "river"], rows)
    assert grouping.groups == (0, -1, 0, -1)
    assert grouping.members(0) == (0, 2)
    assert grouping.threshold == DEFAULT_THRESHOLD
    assert "3 distinct labels are too few" in grouping.threshold_source
    strict = group_labels(["a", "a", "b"], np.array([[1.0, 0], [1, 0], [1, 1e-9]]), threshold=1.0)
    assert strict.groups[0] == strict.groups[1] == 0


def test_the_name_is_the_medoid_and_larger_groups_come_first():
    angle = np.deg2rad([0, 90, 100, 110, 8])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    grouping = group_labels(["p", "left", "middle", "right", "q"], rows, threshold=0.9)
    assert grouping.groups == (1, 0, 0, 0, 1)
    assert grouping.names == ("middle", "p")


def test_the_order_of_labels_does_not_matter():
    labels, rows = planted(5, 3, 0.3)
    mixed = np.random.default_rng(1).permutation(len(labels))
    one, other = group_labels(labels, rows), group_labels([labels[i] for i in mixed], rows[mixed])
    assert one.threshold == pytest.approx(other.threshold)
    together = {frozenset(one.members(g)) for g in range(len(one.names))}
    assert together == {frozenset(int(mixed[i]) for i in other.members(g)) for g in range(len(other.names))}
    assert sorted(one.names) == sorted(other.names)


def test_a_null_of_unrelated_texts_sets_the_threshold_of_few_labels():
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(3, 64))
    rows[1] = rows[0] + 0.4 * generator.normal(size=64)
    null = generator.normal(size=(60, 64))
    grouping = group_labels(["haze", "mist", "road"], rows, null=null)
    assert grouping.groups == (0, 0, -1)
    assert "unrelated texts" in grouping.threshold_source


def test_the_learnt_threshold_ignores_how_many_pairs_are_related():
    generator = np.random.default_rng(4)
    unrelated = generator.normal(size=(60, 64))
    unrelated /= np.linalg.norm(unrelated, axis=1, keepdims=True)
    _, rows = planted(12, 5, 0.3, seed=4)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert null_threshold(rows)[0] == pytest.approx(null_threshold(unrelated)[0], abs=0.08)


def test_synonyms_of_a_real_encoder_are_joined():
    from dnd_core.backends.sentences import SentenceEncoder

    labels = [
        "cloud haze", "hazy clouds", "dense forest", "thick forest trees", "river water", "city buildings",
        "striped sensor noise", "wheat field", "sandy beach", "runway of an airport", "snowy mountain", "red roof",
    ]  # fmt: skip
    grouping = group_labels(labels, SentenceEncoder().encode_texts(labels))
    assert grouping.groups == (0, 0, 1, 1, *[-1] * 8)


@pytest.mark.parametrize(
    ("labels", "rows", "options", "words"),
    [
        (["a"], np.eye(2), {}, "1 labels come with 2 embeddings"),
        (["a", "b"], np.array([[1.0, 0], [0, 0]]), {}, "zero or not finite"),
        (["a", "b"], np.array([[1.0, 0], [np.nan, 1]]), {}, "zero or not finite"),
        (["a", "b"], np.ones(2), {}, r"\(N, D\)"),
        (["a", "b"], np.eye(2), {"threshold": 1.5}, "between -1 and 1"),
    ],
)
def test_bad_input_is_refused(labels, rows, options, words):
    with pytest.raises(ConfigError, match=words):
        group_labels(labels, rows, **options)


def test_no_labels_give_no_groups():
    grouping = group_labels([], np.zeros((0, 3)))
    assert grouping.groups == grouping.names == ()
