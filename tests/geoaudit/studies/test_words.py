"""What labels talk about, judged by their words."""

from __future__ import annotations

import pytest

from dnd_core.errors import ConfigError
from geoaudit.studies.words import KINDS, content_words, judge_label, judge_labels, parse_words, select, word_counts


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("dark forest", "land cover"),
        ("Bare farm fields", "land cover"),
        ("estuaries at dusk", "land cover"),
        ("orchards with houses", "land cover"),
        ("Purple and Pink Motifs", "out of domain"),
        ("purple and pink", "appearance"),
        ("thin haze over vertical stripes", "appearance"),
        ("Fishing Success", "out of domain"),
        ("Diverse Subjects", "out of domain"),
        ("I'm sorry, I cannot name a concept", "refusal"),
        ("as an AI I see a forest", "refusal"),
        ("", "none"),
        ("   ", "none"),
        ("people on a beach", "land cover"),
    ],
)
def test_kinds(label: str, kind: str) -> None:
    assert judge_label(label) == kind


def test_class_names_are_land_cover_too() -> None:
    assert judge_label("krill") == "out of domain"
    assert judge_label("krill", ["KrillBank"]) == "land cover"
    assert judge_label("banks", ["krill_bank"]) == "land cover"


def test_shares_are_of_given_labels() -> None:
    found = judge_labels(["forest", "Fishing Moments", "", "dark"])
    assert found.total == 4
    assert set(found.counts) == set(KINDS)
    assert found.share("land cover") == pytest.approx(1 / 3)
    assert judge_labels([""]).share("land cover") != judge_labels([""]).share("land cover")


def test_words_count_labels_not_mentions() -> None:
    assert content_words("Fields of the fields, almost") == ["fields", "fields"]
    assert word_counts(["fields and fields", "haze", "haze over fields"]) == [("fields", 2), ("haze", 2)]


def test_words_select_longer_forms_at_their_beginning_only() -> None:
    labels = ["Fishing Success", "selfish", "FISH market", "pinkish veil", "hot-pink"]
    assert select(labels, ("fish",)) == [0, 2]
    assert select(labels, ("purple", "pink")) == [3, 4]


def test_sets_of_words() -> None:
    assert parse_words("fish; purple, Pink") == (("fish",), ("purple", "pink"))
    for bad in ("", "fish;", ";;", "a b", "fish, 3"):
        with pytest.raises(ConfigError, match="no list of words"):
            parse_words(bad)
