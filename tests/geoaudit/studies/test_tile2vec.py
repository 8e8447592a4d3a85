"""Study A: classes told, pairs grouped, forests compared, and the whole from a configuration to the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from dnd_core.errors import ConfigError, NetworkError, ProbeError
from dnd_core.images import ArrayImages
from dnd_core.layers import LayerInfo, resolve
from dnd_core.networks import Network
from geoaudit import bundled
from geoaudit.studies import commands, forests, tile2vec
from geoaudit.studies.forests import colours, compare, embeddings, random_sets, right, splits
from geoaudit.studies.pairs import NO_CLASS, class_scores, group_pairs, pair, told_classes
from geoaudit.studies.tile2vec import Options
from geoaudit.studies.tile2vec_report import answer, group_table, layer_table
from geoaudit.studies.tilenet import TileInput, TileNet, save_tilenet


class Letters:
    """Texts in the space of their words: cosine 1 for the same words, 0 for none in common."""

    words = ("haze", "fields", "dark", "water", "farm", "forest", NO_CLASS)

    def encode_texts(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return np.array([[float(word in text) for word in self.words] for text in texts]) + 1e-9


def test_class_scores_are_areas_under_the_curve() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2])
    activations = np.array([[5.0, 1], [4, 1], [1, 1], [2, 1], [3, 1], [0, 1]], dtype=np.float32)
    found = class_scores(activations, labels, 4)
    assert found[0].tolist() == [1.0, 0.5]
    # Pairs of class 1 against the others: each of 1, 2, 3 beats 0 and loses to 4 and 5.
    assert found[1, 0] == pytest.approx(1 / 3)
    assert found[3].tolist() == [0.5, 0.5]


def test_a_class_is_told_only_where_held_out_tiles_bear_it_out() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=240)
    blocks = np.repeat(np.arange(24), 10)
    explain, held = np.arange(120), np.arange(120, 240)
    activations = generator.normal(size=(240, 12)).astype(np.float32)
    activations[:, 0] += 3 * (labels == 2)
    # Tells class 1 where it is chosen, and no longer where it is tested.
    activations[explain, 1] += 3 * (labels[explain] == 1)
    found = told_classes(activations, labels, explain, held, blocks, 3, seed=1)
    assert found.classes[0] == 2
    assert found.scores[0] > 0.95
    assert found.p[0] == pytest.approx(1 / 501)
    assert found.classes[1] == -1
    assert (found.classes[2:] == -1).mean() > 0.9


def table(rows: list[tuple[str, int, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["layer", "unit", "concept", "class"])


def test_pairs_are_grouped_by_both_parts() -> None:
    rows = [
        ("a", 0, "haze", "farm"),
        ("b", 0, "haze", "farm"),
        ("a", 1, "haze", "forest"),
        ("a", 2, "dark", "farm"),
        ("b", 1, "", "farm"),
        ("b", 2, "water", NO_CLASS),
    ]
    found, grouping = group_pairs(table(rows), Letters())
    assert found["group"].tolist() == [0, 0, -1, -1, -1, -1]
    assert found["pair"].tolist() == ["haze (farm)", "haze (farm)", "haze (forest)", "dark (farm)", "", "water"]
    assert grouping.names == ("haze (farm)",)
    assert pair("haze", NO_CLASS) == "haze"
    counted = group_table(found, grouping.names)
    assert counted.to_dict("records") == [{"group": 0, "name": "haze (farm)", "units": 2, "a": 1, "b": 1}]
    layers = layer_table(found).set_index("layer")
    assert layers.loc["a"].to_dict() == {
        "units": 3, "concept": 3, "class": 3, "groups": 1, "grouped": 1, "alone": 2, "unlabelled": 0
    }  # fmt: skip
    assert layers.loc["b", ["concept", "class", "alone", "unlabelled"]].tolist() == [2, 1, 1, 1]


def test_without_any_label_nothing_is_grouped() -> None:
    found, grouping = group_pairs(table([("a", 0, "", "farm")]), Letters())
    assert found["group"].tolist() == [-1]
    assert grouping.names == ()


def test_splits_keep_classes_and_blocks_whole() -> None:
    labels, blocks = np.tile([0, 1], 100), np.repeat(np.arange(20), 10)
    made = splits(labels, blocks, 3, seed=0)
    assert [fold.kind for fold in made] == ["tiles"] * 3 + ["blocks"] * 3
    for fold in made:
        assert set(fold.train) | set(fold.test) == set(range(200))
        assert not set(fold.train) & set(fold.test)
        assert len(fold.test) == pytest.approx(40, abs=12)
        if fold.kind == "blocks":
            assert not set(blocks[fold.train]) & set(blocks[fold.test])
    assert len({tuple(fold.test) for fold in made}) == 6
    assert all(a.test.tolist() == b.test.tolist() for a, b in zip(made, splits(labels, blocks, 3, seed=0), strict=True))
    assert {fold.kind for fold in splits(labels, None, 2)} == {"tiles"}
    # A class in one block can be drawn tile by tile but not learnt in one block and tested in another.
    assert {fold.kind for fold in splits((blocks == 3).astype(int), blocks, 2)} == {"tiles"}
    with pytest.raises(ProbeError, match="cannot be split"):
        splits(np.array([0, 0, 0, 1]), None, 1)


def test_random_sets_have_the_same_number_of_each_layer() -> None:
    layers = [LayerInfo("a", "map", (6, 2, 2), 6), LayerInfo("b", "map", (4, 2, 2), 4)]
    sets = random_sets(layers, {"a": 2, "b": 4}, 12, seed=0)
    assert all(len(set(one["a"])) == 2 and one["b"] == [0, 1, 2, 3] for one in sets)
    assert len({tuple(one["a"]) for one in sets}) > 3
    assert sets == random_sets(layers, {"a": 2, "b": 4}, 12, seed=0)


def test_embeddings_are_those_of_a_network_without_the_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forests, "CHUNK", 2)
    torch.manual_seed(0)
    network = Network(TileNet(4, 4, 8), lambda pixels: pixels, (4, 16, 16))
    tiles = ArrayImages(
        np.random.default_rng(0).random((6, 4, 16, 16), dtype=np.float32),
        rgb=np.zeros((6, 16, 16, 3), np.uint8),
        channels=("B04", "B03", "B02", "B08"),
    )
    layers = resolve(network, ["layer4", "layer5"])
    seen: list[tuple[int, int]] = []
    base, held = embeddings(
        network, layers, tiles, [{"layer5": [1, 3]}, {"layer4": list(range(32))}, {}], lambda *s: seen.append(s)
    )
    assert seen == [(2, 3), (3, 3)]
    whole = network(torch.from_numpy(tiles.pixels(range(6)))).numpy()
    assert np.allclose(base, whole, atol=1e-6)
    assert np.allclose(held[2], whole, atol=1e-6)
    expected = whole.copy()
    expected[:, [1, 3]] = 0
    assert np.allclose(held[0], expected, atol=1e-6)
    # Without any unit of layer4 the fifth stage sees zeros whatever the tile.
    assert np.ptp(held[1], axis=0).max() == pytest.approx(0, abs=1e-6)


def test_forests_lose_what_is_pruned() -> None:
    generator = np.random.default_rng(0)
    labels, blocks = np.tile([0, 1], 100), np.repeat(np.arange(20), 10)
    base = generator.normal(size=(200, 10)).astype(np.float32)
    base[:, 0] = labels + generator.normal(scale=0.05, size=200)
    without = []
    for column in (0, *range(1, 10), 1, 2):
        pruned = base.copy()
        pruned[:, column] = 0
        without.append(pruned)
    rows = compare("layer5", 1, 10, base, np.stack(without), labels, splits(labels, blocks, 2, 0), 15, 0)
    assert {(row.split, row.forest) for row in rows} == {
        (s, f) for s in ("tiles", "blocks") for f in ("kept", "refitted")
    }
    for row in rows:
        assert row.whole > 0.95
        assert row.accuracy < 0.75
        assert row.random > 0.95
        assert row.p_better == 1.0
        assert row.p_worse == pytest.approx(1 / 12)


def test_what_colours_alone_know() -> None:
    pixels = np.zeros((20, 2, 4, 4), dtype=np.float32)
    pixels[10:, 1, :, :2] = 2.0
    tiles = ArrayImages(pixels, rgb=np.zeros((20, 4, 4, 3), np.uint8), channels=("B04", "B08"))
    features = colours(tiles)
    assert features[0].tolist() == [0, 0, 0, 0]
    assert features[19].tolist() == [0, 1, 0, 1]
    labels = np.repeat([0, 1], 10)
    assert right(features, labels, splits(labels, None, 2), 5, 0) == {"tiles": 1.0}


def comparisons(better: list[float], worse: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"p_better": better, "p_worse": worse, "accuracy": 0.8, "random": 0.79})


def test_the_answer_is_plain() -> None:
    assert answer(comparisons([0.01] * 8, [1.0] * 8)).startswith("Yes: ")
    assert answer(comparisons([0.01] * 4 + [0.5] * 4, [0.5] * 8)).startswith("In part: ")
    no = answer(comparisons([0.01] + [0.5] * 7, [0.5] * 6 + [0.02] * 2))
    assert no.startswith("No: ")
    assert "only 1 of 8 comparisons and is worse in 2; about 0.4 of each would be expected by chance" in no
    assert "+1.0 points" in no
    assert "nothing to prune" in answer(comparisons([], []))


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="--draws must be at least 10"):
        Options(draws=3)
    with pytest.raises(ConfigError, match="leave --weights out"):
        commands.tile2vec(weights=Path("a"), config=Path("b"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network, and tiles of the bundled scene, as a user's configuration names them."""
    folder = tmp_path_factory.mktemp("mine")
    torch.manual_seed(0)
    # Scaled by hand so that reflectance, around 0.1, fills the network's range.
    save_tilenet(folder / "weights.safetensors", TileNet(4, 4, 8), TileInput(), {})
    scene = {
        "scene": str(bundled.scenes()["brandenburg"]),
        "labels": str(bundled.labels()),
        "field": "fclass",
        "classes": ["farm", "forest", "meadow"],
        "bands": ["B04", "B03", "B02", "B08"],
        "chip_size": 16,
        "centre": 16,
        "stride": 24,
    }
    values = {
        "model": {"checkpoint": "weights.safetensors", "options": {"mean": [0.1] * 4, "std": [0.05] * 4}},
        "probe": {"class_path": "geoaudit.probes.SceneProbe", "init_args": scene},
        "layers": ["layer1", "layer5"],
        "settings": {"probing": {"crops": False, "top_k": 5}, "verification": {"permutations": 20, "resamples": 2}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return folder / "study.yaml"


def test_from_a_configuration_to_tables_and_pictures(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    arguments: dict[str, Any] = {"out": out, "config": config, "draws": 10, "splits": 1, "trees": 5, "quiet": True}
    commands.tile2vec(**arguments, unverified=True)
    summary = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert summary["layers"] == {"layer1": 4, "layer5": 8}
    assert summary["units"] == 12
    assert set(summary["classes"]) == {"farm", "forest", "meadow"}
    assert summary["answer"] in (out / "study.md").read_text()
    assert summary["threshold_source"]
    assert 0 < summary["colours_alone"]["blocks"] <= 1
    units = pd.read_csv(out / "units.csv", keep_default_na=False)
    assert len(units) == 12
    assert (units["group"] < 0).sum() == summary["ungrouped"]
    for name in ("groups.csv", "layers.csv", "forests.csv"):
        assert (out / name).stat().st_size > 30, name
    found = pd.read_csv(out / "forests.csv")
    pruned = set(found["pruned"])
    assert pruned <= {"layer1", "layer5", "all layers"}
    assert ("all layers" in pruned) == bool(summary["ungrouped"])
    assert (out / "forests.png").exists() == bool(summary["ungrouped"])
    described = set(pd.read_parquet(out / "top_images.parquet")["image"])
    assert max(described) < summary["described_on"]

    monkeypatch.setattr(tile2vec, "embeddings", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(tile2vec, "_write", lambda *_: pytest.fail("computed again"))
    commands.tile2vec(**arguments, unverified=True, resume=True)
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == summary


def test_tiles_to_describe_and_tiles_to_classify_share_no_block(config: Path) -> None:
    from geoaudit.settings import load_config
    from geoaudit.studies.embedders import configured_embedder

    made = configured_embedder(load_config(config))
    assert made.probe.blocks is not None
    assert made.tiles.blocks is not None
    assert not set(made.probe.blocks) & set(made.tiles.blocks)
    assert made.network.preprocess.std == (0.05,) * 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": {"checkpoint": "weights.safetensors", "card": "x.json"}}, ConfigError, "takes no model.card"),
        (
            {"model": {"checkpoint": "weights.safetensors", "options": {"scale": 1}}},
            ConfigError,
            "are bands, mean and std",
        ),
        ({"model": {"checkpoint": "absent.pt"}}, NetworkError, "no such file"),
        ({"pool": {"class_path": "geoaudit.probes.SceneProbe"}}, ConfigError, "takes no pool"),
        ({"labels": None}, ProbeError, "give tiles with labels"),
        ({"stride": 120}, ProbeError, "at least 50 of each"),
    ],
)
def test_a_bad_configuration_is_one_sentence(
    config: Path, tmp_path: Path, change: dict[str, Any], error, words: str
) -> None:
    values = yaml.safe_load(config.read_text())
    values["model"]["checkpoint"] = str(config.parent / "weights.safetensors")
    for name, value in change.items():
        if name in ("labels", "stride"):
            values["probe"]["init_args"][name] = value
        elif name == "model":
            place = config.parent / value["checkpoint"]
            values["model"] = {**value, "checkpoint": str(place)}
        else:
            values[name] = value
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(error, match=words) as caught:
        commands.tile2vec(tmp_path / "run", config=path, quiet=True)
    assert "\n" not in str(caught.value)
