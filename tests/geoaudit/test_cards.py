"""Model cards: written, read back, read by pystac, and refused when they contradict themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dnd_core.errors import ConfigError
from geoaudit.bands import SENTINEL2
from geoaudit.cards import Measure, ModelCard, load_card, write_card

CARD = ModelCard(
    name="Land use, Brandenburg",
    architecture="timm:resnet18",
    bands=SENTINEL2,
    mean=tuple(0.1 + 0.01 * i for i in range(13)),
    std=tuple(0.05 + 0.001 * i for i in range(13)),
    input_size=64,
    chip_size=32,
    class_names=("farm", "forest", "water"),
    checkpoint="model.ckpt",
    sha256=hashlib.sha256(b"weights").hexdigest(),
    bbox=(12.5, 52.4, 12.7, 52.5),
    acquired="2017-02-16",
    framework="torchgeo 0.8.1",
    training="Chips of one scene.",
    measures=(
        Measure("overall accuracy", 0.83, 560, 0.78, 0.88, "held-out blocks"),
        Measure("haze reliance", -0.01, 9),
    ),
    issues=("One winter day only.",),
    licence="ODbL-1.0",
)


def test_a_card_survives_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "Karte ü.json"
    write_card(CARD, path)
    assert load_card(path) == CARD
    first = path.read_bytes()
    write_card(CARD, path)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_card_without_date_or_measures_survives_too(tmp_path: Path) -> None:
    card = replace(CARD, acquired="", measures=(), task="semantic-segmentation")
    write_card(card, tmp_path / "c.json")
    assert load_card(tmp_path / "c.json") == card
    properties = json.loads((tmp_path / "c.json").read_text())["properties"]
    assert properties["datetime"] is None
    assert properties["mlm:output"][0]["result"]["shape"] == [-1, 3, 64, 64]


def test_pystac_reads_it_as_an_mlm_item(tmp_path: Path) -> None:
    import pystac
    from pystac.extensions.mlm import MLMExtension

    write_card(CARD, tmp_path / "c.json")
    item = pystac.Item.from_dict(json.loads((tmp_path / "c.json").read_text()))
    assert item.datetime is not None
    model = MLMExtension.ext(item)
    assert model.mlm_name == CARD.name
    assert model.architecture == CARD.architecture
    assert list(model.input[0].bands) == list(SENTINEL2)
    assert model.input[0].input.shape == [-1, 13, 64, 64]
    assert [c.name for c in model.output[0].classes or []] == list(CARD.class_names)


def test_the_checkpoint_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        CARD.check_file(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    assert CARD.check_file(tmp_path) == tmp_path / "model.ckpt"
    (tmp_path / "model.ckpt").write_bytes(b"others")
    with pytest.raises(ConfigError, match="sha256 differs"):
        CARD.check_file(tmp_path)


def test_measures_by_name() -> None:
    assert CARD.measure("haze reliance").value == -0.01
    with pytest.raises(ConfigError, match="no measure 'kappa'; it has overall accuracy, haze reliance"):
        CARD.measure("kappa")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": ""}, "needs its field 'name'"),
        ({"checkpoint": ""}, "needs its field 'checkpoint'"),
        ({"bands": ("B02", "B02")}, "each of the bands must be named once"),
        ({"class_names": ()}, "each of the class names"),
        ({"mean": (0.1,)}, "names 13 bands but scales 1 means and 13 deviations"),
        ({"std": (0.0,) * 13}, "deviations above 0"),
        ({"mean": (float("nan"),) * 13}, "means must be finite"),
        ({"chip_size": 0}, "must be positive"),
        ({"task": "regression"}, "unknown task 'regression'"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
    ],
)
def test_contradicting_fields(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(CARD, **changes)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (("", 0.5, 3), "needs a name"),
        (("a", float("inf"), 3), "finite value"),
        (("a", 0.5, 0), "n >= 1"),
        (("a", 0.5, 3, 0.1), "only one end"),
        (("a", 0.5, 3, 0.6, 0.7), "leaves out its value"),
    ],
)
def test_contradicting_measures(values: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Measure(*values)


def drop(*steps: str | int) -> Callable[[dict[str, Any]], None]:
    def change(item: dict[str, Any]) -> None:
        for step in steps[:-1]:
            item = item[step]  # type: ignore[index]
        del item[steps[-1]]  # type: ignore[arg-type]

    return change


def put(value: Any, *steps: str | int) -> Callable[[dict[str, Any]], None]:
    def change(item: dict[str, Any]) -> None:
        for step in steps[:-1]:
            item = item[step]  # type: ignore[index]
        item[steps[-1]] = value  # type: ignore[index]

    return change


INPUT, OUTPUT = ("properties", "mlm:input", 0), ("properties", "mlm:output", 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("properties"), "lacks properties"),
        (drop("properties", "mlm:name"), "lacks mlm:name"),
        (put([], "properties", "mlm:input"), "0 inputs and 1 outputs"),
        (put("B02", *INPUT, "bands"), "bands is not what"),
        (put(list(SENTINEL2[:12]), *INPUT, "bands"), r"names 12 bands but its shape is \[-1, 13, 64, 64\]"),
        (put([-1, 13, 64, 32], *INPUT, "input", "shape"), "must be square"),
        (put("min-max", *INPUT, "value_scaling", 0, "type"), "min-max, z-score is not read"),
        (drop(*INPUT, "value_scaling", 0), "scales 12 bands and names 13"),
        (drop(*INPUT, "value_scaling", 3, "mean"), "lacks mean"),
        (put([-1, 7], *OUTPUT, "result", "shape"), "answers 7 classes but names 3"),
        (put(5, *OUTPUT, "classification:classes", 0, "value"), "class values must be 0 to 2"),
        (put("water", *OUTPUT, "classification:classes", 0, "name"), "class names must be named once"),
        (put({}, "assets"), "role mlm:model, found 0"),
        (drop("assets", "model", "file:checksum"), "lacks file:checksum"),
        (put([1, 2], "bbox"), "bbox must be"),
        (put([{"name": "x"}], "properties", "geoaudit:measures"), "lacks value"),
        (put(["super-resolution"], "properties", "mlm:tasks"), "unknown task 'super-resolution'"),
    ],
)
def test_a_faulty_file_is_named_with_its_field(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    item = CARD.to_stac()
    change(item)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(item))
    with pytest.raises(ConfigError, match=rf"bad\.json.*{sentence}"):
        load_card(path)


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_card(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ConfigError, match="not a JSON file"):
        load_card(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="lacks properties"):
        load_card(tmp_path / "list.json")
    with pytest.raises(ConfigError, match="cannot write the model card"):
        write_card(CARD, tmp_path / "no such folder" / "c.json")


def test_a_foreign_item_gets_the_defaults(tmp_path: Path) -> None:
    item = CARD.to_stac()
    for key in [key for key in item["properties"] if key.startswith("geoaudit:")]:
        del item["properties"][key]
    item["properties"]["mlm:input"][0]["bands"] = [{"name": name} for name in SENTINEL2]
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "z-score", "mean": 0.2, "stddev": 0.1}]
    (tmp_path / "foreign.json").write_text(json.dumps(item))
    card = load_card(tmp_path / "foreign.json")
    assert card.mean == (0.2,) * 13
    assert card.chip_size == card.input_size == 64
    assert card.measures == ()
    del item["properties"]["mlm:input"][0]["value_scaling"]
    (tmp_path / "plain.json").write_text(json.dumps(item))
    assert load_card(tmp_path / "plain.json").std == (1.0,) * 13
