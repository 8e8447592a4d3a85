import numpy as np
import pytest

from dashboards.meaning import Labels, encoder, overlap


def test_the_encoder_agrees_with_the_reference():
    # First numbers and cosines that sentence-transformers 6.2 gives for the same model.
    vectors = encoder().encode(
        ["thin cloud", "hazy bright scene", "brown ploughed fields", "dark blue water", "veil of mist"]
    )
    assert vectors[0, :4] == pytest.approx([-0.0284976, 0.02856058, 0.06128976, 0.03909135], abs=1e-5)
    assert vectors @ vectors[0] == pytest.approx([1.0, 0.357, 0.256, 0.352, 0.372], abs=6e-4)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_padding_changes_nothing():
    alone = encoder().encode(["haze"])[0]
    beside = encoder().encode(["haze", "a very long description of fields, hedges and lanes in the evening"])[0]
    assert alone == pytest.approx(beside, abs=1e-5)


def test_words_in_common():
    assert overlap("plough", "Brown ploughed fields") == 1
    assert overlap("brown sky", "brown ploughed fields") == 0.5
    assert overlap("", "anything") == 0
    assert overlap("field", "afield") == 0


def test_labels_are_searched_by_words_until_their_meaning_is_known():
    labels = Labels(("brown ploughed fields", "dark blue water"))
    assert labels.nearness("lake") == {}
    assert set(labels.nearness("water")) == {"dark blue water"}
    labels.encode()
    assert labels.ready
    assert max(labels.nearness("lake"), key=labels.nearness("lake").get) == "dark blue water"


def test_nothing_to_encode():
    labels = Labels(())
    labels.encode()
    assert labels.nearness("haze") == {}
