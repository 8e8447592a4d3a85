"""Mismatches between network and data: each said, none silent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dnd_core.errors import ProbeError
from dnd_core.images import ArrayImages
from geoaudit.networks import InputSpec
from geoaudit.probes import ContractNote, check_contract

BANDS = ("B02", "B03", "B04", "B08")


def images(level: float = 0.15, channels: tuple[str, ...] = BANDS, side: int = 32, **options: Any) -> ArrayImages:
    generator = np.random.default_rng(0)
    pixels = (level * generator.uniform(0.1, 1.5, (6, len(channels), side, side))).astype(np.float32)
    rgb = np.zeros((6, side, side, 3), np.uint8)
    return ArrayImages(pixels, rgb=rgb, channels=channels, **options)


def spec(**changes: Any) -> InputSpec:
    return InputSpec(**{"bands": BANDS, "input_size": (32, 32), **changes})


def only(notes: list[ContractNote], field: str) -> ContractNote:
    found = [note for note in notes if note.field == field]
    assert len(found) == 1
    return found[0]


def test_a_perfect_fit_says_nothing() -> None:
    assert check_contract(spec(mean=(0.12,) * 4, std=(0.05,) * 4), images()) == []


def test_a_missing_band_is_an_error() -> None:
    with pytest.raises(ProbeError, match="lack band B11"):
        check_contract(spec(bands=(*BANDS, "B11")), images())


def test_another_band_order_is_said() -> None:
    note = only(check_contract(spec(), images(channels=("B01", "B8", "B04", "B03", "B02"))), "bands")
    assert note.severity == "info"
    assert "brought into the network's order" in note.message
    assert "B01 are not used" in note.message


@pytest.mark.parametrize(
    ("level", "severity", "words"),
    [(1500.0, "error", "looks like digital numbers"), (1e-5, "warning", "scaled twice")],
)
def test_units_that_are_not_reflectance(level: float, severity: str, words: str) -> None:
    note = only(check_contract(spec(), images(level)), "units")
    assert note.severity == severity
    assert words in note.message


def test_the_processing_offset_left_in_is_noticed() -> None:
    shifted = images()
    shifted._pixels = shifted._pixels + np.float32(0.1)
    note = only(check_contract(spec(), shifted), "units")
    assert note.severity == "warning"
    assert "+1000 DN offset" in note.message


def test_data_far_from_the_training_data_name_the_band() -> None:
    notes = check_contract(spec(mean=(0.12, 0.12, 0.12, 0.9), std=(0.05,) * 4), images())
    assert "B08 (" in only(notes, "units").message


def test_distances_are_taken_band_by_band_whatever_the_order() -> None:
    bright = images()
    bright._pixels = bright._pixels * np.array([1, 1, 1, 5], np.float32)[:, None, None]
    order = ("B08", "B02", "B03", "B04")
    fitting = spec(bands=order, mean=(0.6, 0.12, 0.12, 0.12), std=(0.05,) * 4)
    assert [note.field for note in check_contract(fitting, bright)] == ["bands"]
    wrong = spec(bands=order, mean=(0.12, 0.6, 0.12, 0.12), std=(0.05,) * 4)
    message = only(check_contract(wrong, bright), "units").message
    assert "B08 (" in message
    assert "B02 (" in message
    assert "B03 (" not in message


def test_classes() -> None:
    labels = np.zeros(6, np.int64)
    data = images(labels=labels, class_names=("field", "water"))
    assert check_contract(spec(class_names=("field", "water")), data) == []
    mixed = only(check_contract(spec(class_names=("water", "field")), data), "classes")
    assert mixed.severity == "error"
    other = only(check_contract(spec(class_names=("field", "forest")), data), "classes")
    assert other.severity == "warning"
    assert "only in the data water" in other.message
    assert "only in the network forest" in other.message


def test_sizes() -> None:
    near = only(check_contract(spec(input_size=(40, 40)), images()), "size")
    assert near.severity == "info"
    far = only(check_contract(spec(input_size=(224, 224)), images()), "size")
    assert far.severity == "warning"
    assert "another scale" in far.message
    # A network trained on 32-pixel chips enlarged to 64 gets what it knows.
    assert check_contract(spec(input_size=(64, 64), chip_size=(32, 32)), images()) == []


def test_errors_come_first() -> None:
    data = images(1500.0, channels=BANDS[::-1], labels=np.zeros(6, np.int64), class_names=("a", "b"))
    notes = check_contract(spec(class_names=("a", "c")), data)
    assert [note.severity for note in notes] == ["error", "warning", "info"]


def test_a_loaded_network_and_its_card_say_the_same(tmp_path: Any) -> None:
    import timm
    import torch

    from geoaudit.networks import load_network, with_channels

    model = timm.create_model("resnet10t", in_chans=4, num_classes=2)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    said = spec(class_names=("a", "b"), mean=(0.12,) * 4, std=(0.05,) * 4)
    network = with_channels(load_network(tmp_path / "w.pt", said, model="resnet10t"), ("B01", *BANDS))
    data = images(channels=("B01", *BANDS))
    assert check_contract(network, data) == check_contract(said, data)
