"""Pruning after an audit, on networks whose weights are set by hand: what must be lost is known beforehand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, StoreError, StoreMismatch
from dnd_core.layers import resolve
from dnd_core.probing import activate
from dnd_core.types import UnitId
from geoaudit import bundled
from geoaudit.launch import prepare
from geoaudit.pruning import RANDOM_SETS, _measured, chosen_units, prune
from geoaudit.results import open_run
from geoaudit.settings import load_config

from .planted import UNITS, planted_context


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""


def test_pruning_the_units_of_a_class_costs_that_class_and_random_units_cost_nothing() -> None:
    context = planted_context(0.0)
    found = _measured(context, [UnitId("features", 0)], _silent)
    assert (found.images, found.random_sets) == (len(context.evaluated), RANDOM_SETS)
    assert [row.name for row in found.classes] == list(context.class_names)
    # Unit 0 is the only one that tells the classes apart: held at its mean, two of three classes cannot be told.
    assert found.overall.accuracy_before > 0.95
    assert found.overall.change < -0.4
    assert found.overall.high < 0
    assert found.overall.gap < -0.3
    assert found.overall.p < 0.01
    assert abs(found.overall.random_mean) < 0.1
    noise = _measured(context, [UnitId("features", 40)], _silent)
    assert abs(noise.overall.gap) < 0.1


def test_the_change_of_each_class_is_that_of_its_own_images() -> None:
    context = planted_context(0.0)
    found = _measured(context, [UnitId("features", 0)], _silent)
    from dnd_core.hooks import edit

    mean = float(context.activations["features"][:, 0].mean())
    with edit(context.network.module, context.layers, {"features": {0: mean}}):
        held = context.answer(context.images.pixels(context.evaluated.tolist()))
    truth = context.reference[context.evaluated]
    for number, row in enumerate(found.classes):
        mine = truth == number
        after = (held[mine].argmax(axis=1) == number).mean()
        before = (context.logits[context.evaluated][mine].argmax(axis=1) == number).mean()
        assert row.n == mine.sum()
        assert row.accuracy_before == pytest.approx(before)
        assert row.accuracy_after == pytest.approx(after)
        assert row.change == pytest.approx(after - before)
        assert row.low <= row.change <= row.high


def test_more_than_half_a_layer_has_nothing_to_be_compared_with() -> None:
    context = planted_context(0.0)
    found = _measured(context, [UnitId("features", index) for index in range(UNITS // 2 + 1)], _silent)
    assert found.random_sets == 0
    assert np.isnan(found.overall.gap)
    assert np.isfinite(found.overall.low)
    assert found.to_dict()["overall"]["gap"] is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of the bundled classifier on a thin sample of its scene, with its arrays as an audit has them."""
    root = tmp_path_factory.mktemp("run")
    config, model = root / "audit.yaml", bundled.checkpoints()["haze"]
    probe = {
        "scene": str(bundled.scenes()["brandenburg"]), "labels": str(bundled.labels()), "field": "fclass",
        "classes": ["farm", "forest", "meadow", "residential", "water"], "stride": 48,
    }  # fmt: skip
    config.write_text(yaml.safe_dump({
        "model": {"checkpoint": str(model.checkpoint), "card": str(model.card)},
        "probe": {"class_path": "geoaudit.probes.SceneProbe", "init_args": probe},
        "layers": ["layer4", "output"], "audit": {"evaluated": 60, "draws": 200},
    }))  # fmt: skip
    subject, _ = prepare(load_config(config))
    layers = resolve(subject.network, subject.layers)
    answers = activate(subject.network, layers, subject.probe.pixels(range(len(subject.probe))))
    folder = root / "run"
    (folder / "activations").mkdir(parents=True)
    (folder / "predictions").mkdir()
    for name, values in answers.items():
        np.save(folder / "activations" / f"{name}.npy", values)
    np.save(folder / "predictions" / "logits.npy", answers["output"])
    (folder / "config.yaml").write_text(yaml.safe_dump({"layers": ["layer4", "output"], **DescribeConfig().to_dict()}))
    (folder / "manifest.json").write_text(json.dumps({
        "schema_version": 1, "tool": {"name": "geoaudit"}, "seed": 0,
        "model": {"name": subject.network.name, "fingerprint": subject.network.fingerprint},
        "probe": {"fingerprint": subject.probe.fingerprint},
    }))  # fmt: skip
    rows = [{"layer": "output", "unit": 2, "status": "labelled", "label": "haze", "group": 3}]
    rows += [{"layer": "layer4", "unit": unit, "status": "labelled", "label": "haze", "group": 0} for unit in range(96)]
    pd.DataFrame(rows).to_parquet(folder / "neurons.parquet")
    members = json.dumps(["layer4/17", "layer4/19", "output/2"])
    pd.DataFrame([{"group": 3, "name": "haze", "units": members, "threshold": 0.5}]).to_parquet(
        folder / "groups.parquet"
    )
    return folder, config


def test_a_pruning_is_measured_once_and_kept_in_the_run(run) -> None:
    folder, config = run
    told: list[tuple[str, int, int]] = []
    first = prune(folder, ["layer4/5"], [3], config, lambda *step: told.append(step))
    assert first.units == ("layer4/5", "layer4/17", "layer4/19")
    assert (first.groups, first.images) == ((3,), 60)
    assert told[-1] == ("prune", 60, 60)
    (path,) = (folder / "prunings").iterdir()
    assert path.name == f"{first.key}.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    # The same units again, named otherwise and without the configuration: nothing is computed.
    again = prune(folder, ["layer4/19", "layer4/17", "layer4/5", "layer4/5"])
    assert again.to_dict() == first.to_dict()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    (kept,) = open_run(folder).prunings()
    assert kept["units"] == list(first.units)
    assert [row["name"] for row in kept["classes"]] == ["farm", "forest", "meadow", "residential", "water"]
    assert "all classes" in first.table()


def test_what_cannot_be_pruned_is_said(run, tmp_path: Path) -> None:
    folder, config = run
    for units, groups, words in (
        ([], [], "name what to prune"), (["layer4/960"], [], "has no unit"), (["x"], [], "table of neurons"),
        ([], [9], "no concept group 9; it has 3"), (["output/2"], [], "class of the output itself"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            chosen_units(folder, units, groups)
    with pytest.raises(StoreMismatch, match="--config"):
        prune(folder, ["layer4/6"])
    with pytest.raises(StoreError):
        prune(tmp_path / "missing", ["layer4/6"], (), config)


def test_a_damaged_pruning_is_said_and_left_out(run) -> None:
    folder, _ = run
    bad = folder / "prunings" / "bad.json"
    listed = '{"key": "k", "units": [], "overall": {"name": "x", "n": [1]}, "classes": []}'
    for text in ("{", "[]", listed, '{"key": "k", "units": [1], "overall": {}, "classes": []}', '{"key": "k"}'):
        bad.write_text(text)
        results = open_run(folder)
        assert all(entry["key"] != "k" for entry in results.prunings())
        assert any(problem.where == "prunings/bad.json" for problem in results.problems)
    bad.unlink()
