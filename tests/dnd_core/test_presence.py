"""Caption entailment: composition, extent, denial, against hand-set embeddings and the real encoder."""

from collections.abc import Sequence

import numpy as np
import pytest

from dnd_core.backends.sentences import SentenceEncoder
from dnd_core.presence import CaptionIndex, Clause, clauses, concept_parts, presence

AXES = {"haze": 0, "mist": 0, "water": 1, "lake": 1, "fields": 2, "trees": 3}


class Axes:
    """Texts on hand-set axes: a text is the sum of the axes of its words; unknown words have an axis of their own."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 5), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row[AXES.get(word, 4)] += 1.0 if word in AXES else 1e-3
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def real() -> SentenceEncoder:
    return SentenceEncoder()


def score(concept: str, caption: str) -> float:
    return float(presence([concept], [caption], Axes())[0, 0])


def test_clauses_have_content_extent_and_denial() -> None:
    found = clauses("Thin haze over most of the tile, a few bright points, no water and trees without snow.")
    assert found[:2] == (Clause("thin haze", 0.9), Clause("bright points", 0.6))
    assert Clause("water", 0.8, denied=True) in found
    assert Clause("snow", 0.8, denied=True) in found
    assert clauses("") == ()
    assert clauses("a no-data wedge") == (Clause("a nodata wedge", 0.8),)


def test_concepts_are_alternatives_of_parts() -> None:
    assert concept_parts("haze over bare fields") == ((Clause("haze"), Clause("bare fields")),)
    assert concept_parts("snow or cloud") == ((Clause("snow"),), (Clause("cloud"),))
    assert concept_parts("fields without trees") == ((Clause("fields"), Clause("trees", denied=True)),)
    assert concept_parts("haze over most of the tile") == ((Clause("haze"),),)


def test_same_word_is_full_and_synonym_half() -> None:
    assert score("haze", "haze everywhere") == pytest.approx(1.0)
    assert score("mist", "haze everywhere") == pytest.approx(0.5, abs=1e-3)
    assert score("haze", "water everywhere") == pytest.approx(0.0, abs=1e-3)
    assert score("hazy", "haze everywhere") >= 0.5
    assert score("haze", "") == 0.0


def test_more_cover_scores_higher() -> None:
    said = [f"haze over {extent} the tile" for extent in ("all of", "most of", "half of", "part of", "a little of")]
    scores = presence(["haze"], [*said, "hardly any haze", "no haze"], Axes())[0]
    assert (np.diff(scores) < 0).all()
    assert scores[-1] < 0.01


def test_composites() -> None:
    both, one = "haze everywhere, fields everywhere", "haze everywhere, water everywhere"
    assert score("haze and fields", both) == pytest.approx(1.0)
    assert score("haze and fields", one) < 0.01
    assert score("haze or fields", one) == pytest.approx(1.0)
    assert score("haze without fields", one) > 0.95
    assert score("haze without fields", both) < 0.05


def test_best_clause_counts_and_shape_is_concepts_by_captions() -> None:
    table = presence(["lake", "trees", "haze"], ["water, trees everywhere", "haze"], Axes())
    assert table.shape == (3, 2)
    assert table.dtype == np.float32
    assert table[1, 0] == pytest.approx(1.0)
    assert table[2].argmax() == 1
    assert presence([], ["haze"], Axes()).shape == (0, 1)
    assert presence(["haze"], [], Axes()).shape == (1, 0)


def test_a_captions_score_does_not_hang_on_the_others() -> None:
    captions = ["thin haze, water", "dark trees", "fields with straight edges"]
    whole = CaptionIndex(captions, Axes()).presence(["haze", "dark water"])
    each = np.concatenate([presence(["haze", "dark water"], [caption], Axes()) for caption in captions], axis=1)
    assert np.allclose(whole, each, atol=1e-6)


def test_real_encoder_ranks_what_people_mean(real: SentenceEncoder) -> None:
    captions = [
        "thin haze over most of the tile, pale brown bare fields with straight edges",
        "dark open water over all of the tile, smooth texture",
        "dark forest-like vegetation over most of the tile, rough texture",
        "bright built-up area over part of the tile, many bright points",
        "vertical stripes over all of the tile, green fields",
        "clear, no haze, brown bare fields over all of the tile",
    ]
    wanted = {"hazy": 0, "thin haze": 0, "lake": 1, "trees": 2, "town buildings": 3, "sensor striping": 4}
    table = presence(list(wanted), captions, real)
    assert table.argmax(axis=1).tolist() == list(wanted.values())
    assert presence(["haze"], captions, real)[0, 5] < 0.1
    assert presence(["haze and bare fields"], captions, real)[0].argmax() == 0


def test_caption_vectors_follow_what_captions_say():
    """Captions that share clauses are near; a denied clause points away; order and wording around them do not matter."""
    from dnd_core.presence import caption_vectors
    from dnd_core.testing.words import WordVectors

    same, swapped, other, denied, empty = caption_vectors(
        ["thin haze, bare fields", "bare fields, thin haze", "open water, dark forest", "no haze", ""], WordVectors()
    )
    assert same @ swapped > 0.999
    assert same @ other < 0.5
    haze = caption_vectors(["haze"], WordVectors())[0]
    assert denied @ haze < -0.9
    assert abs(float(empty @ empty) - 1) < 1e-5


def test_presence_follows_the_amount_or_tells_whether_it_is_there() -> None:
    captions = ["haze over all of the tile", "haze over half of the tile", "haze over a little of the tile", "fields"]
    amounts = CaptionIndex(captions, Axes(), amounts=True).presence(["haze"])[0]
    there = CaptionIndex(captions, Axes()).presence(["haze"])[0]
    assert amounts == pytest.approx([1.0, 0.55, 0.12, 0.0], abs=0.01)
    assert there == pytest.approx([1.0, 0.75, 0.45, 0.0], abs=0.01)
    assert (presence(["haze"], captions, Axes())[0] == amounts).all()
