"""Labels out of free text: a table of what models really write, and what it must come to."""

from __future__ import annotations

import pytest

from dnd_core import prompts
from dnd_core.backends.answers import clean_sentence, contrast_of, is_refusal, merge_labels, parse_label


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Forest", "forest"),
        ("  Label: Forest edge.  ", "forest edge"),
        ("**Green fields**", "green fields"),
        ("1. Red roofs\n2. Cars", "red roofs"),
        ("- sand", "sand"),
        ("The images show rows of parked cars.", "rows of parked cars"),
        ("Most of the images are of tall buildings", "tall buildings"),
        ("They all have in common: circles", "circles"),
        ("The common concept is “bodies of water” because most lines name lakes.", "bodies of water"),
        ("The label is 'farmer's field'.", "farmer's field"),
        ("Here is the name:\n\n“Bright sand”", "bright sand"),
        ("Images of snow", "snow"),
        ("A lake", "lake"),
        ("Water, seen from a boat at night in winter", "water"),
        ("Name: water\n\nGroup:\n- dog", "water"),
        ("<think>The lines name dogs, mostly.</think>\nDogs", "dogs"),
        ('{"label": "Urban area"}', "urban area"),
        ('```json\n{"name": "urban area"}\n```', "urban area"),
        ("black-and-white stripes", "black-and-white stripes"),
        ("Straßen", "straßen"),
        ("show jumping", "show jumping"),
        ("mixed forest", "mixed forest"),
        ("sorry looking dogs", "sorry looking dogs"),
    ],
)
def test_labels_are_found(answer: str, label: str) -> None:
    assert parse_label(answer) == label


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "none",
        "N/A",
        "Unknown.",
        "Various objects",
        "different images",
        "12 34",
        "?!",
        "roof\x06",
        "r\ufffdof tops",
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I cannot identify this.",
        "As an AI language model, I cannot see images",
        "As a large language model I have no eyes",
        "It is difficult to determine a common concept",
        "Cannot be determined",
        "cannot determine",
        "Unable to determine",
        "There is no clear common theme.",
        "Please provide the images.",
        "Unfortunately, I do not have enough information",
        "We do not know",
        "<think>the lines name dogs and",
        "a very long sentence about many things without any end or point at all",
    ],
)
def test_what_is_no_label_is_none(answer: str) -> None:
    assert parse_label(answer) is None


@pytest.mark.parametrize(
    "caption",
    ["a sorry looking dog on a lawn", "Sorry! board game box on a table", "people who cannot see the sign"],
)
def test_captions_about_sorrow_are_no_refusals(caption: str) -> None:
    assert not is_refusal(caption)
    assert clean_sentence(f' "{caption}"\n') == caption


def test_refused_captions_are_empty() -> None:
    assert clean_sentence("I'm sorry, I can't describe this image.") == ""
    assert clean_sentence(" . ") == ""
    assert clean_sentence("<think>hm</think> a red  field\nby a road") == "a red field by a road"


def test_forms_are_merged_and_counted() -> None:
    said = ["Water", "sand", "water!", "sand dunes", "WATER", "sand"]
    assert merge_labels(said) == [("Water", 3), ("sand", 2), ("sand dunes", 1)]
    assert merge_labels([]) == []


def test_contrast_is_the_difference_of_mention() -> None:
    ours, others = ["red roofs by a road", "a roof"], ["a road", "a road and trees"]
    assert contrast_of(["red roof", "road", "sky"], ours, others) == [0.75, -0.5, 0.0]
    assert contrast_of(["roof"], ours, []) == [0.0]


def test_prompts_show_everything_and_keep_to_their_lines() -> None:
    prompt = prompts.label_prompt(["red\nroof", "barn"], ["road"], domain="aerial  photos")
    assert prompt.text().endswith("Group:\n- red roof\n- barn\nOther images:\n- road\nName:")
    assert "The images are aerial photos." in prompt.instruction
    turns = prompt.messages()
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * len(prompt.examples) + ["user"]
    assert turns[0]["content"].startswith(prompt.instruction)
    assert "Other images" not in prompts.label_prompt(["barn"]).question
    shown = prompts.simplify_prompt("a barn")
    assert shown.text().endswith("Caption: a barn\nShort form:")
    assert all(1 <= len(answer.split()) <= 6 for _, answer in shown.examples)
    assert all(parse_label(answer) == answer for _, answer in prompt.examples)
