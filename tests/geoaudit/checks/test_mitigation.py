"""Repairs of a planted network: exact, measured on held-out blocks, written beside the user's file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from dnd_core.ablation import Ablation, unit_statistics
from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, NetworkError, StoreError, StoreMismatch
from dnd_core.layers import resolve
from dnd_core.probing import activate
from geoaudit import bundled
from geoaudit.heads import LinearHead, find_head, train_head
from geoaudit.launch import prepare
from geoaudit.mitigation import repair
from geoaudit.repairing import mitigate, write_checkpoint
from geoaudit.settings import load_config

from .planted import HAZE_NAMES, HAZE_UNITS, Classifier, planted_context

FINDING = {"id": "F01", "title": "water is predicted where there is haze", "concept": "haze", "class_pair": ["water"]}
# Blocks 8 to 11 of 12, which share no image with the others.
HELD = np.flatnonzero((np.arange(120) // 3) % 12 >= 8)


@pytest.fixture(scope="module")
def context():
    return planted_context(450.0, held_out=HELD)


def lines_of(report) -> dict:
    return {line.name: line for line in report.lines}


def test_pruned_head_answers_as_the_ablated_network(context) -> None:
    means = unit_statistics(context.activations["features"]).means
    head = find_head(context.network.module, context.activations["features"], context.logits)
    assert head is not None
    assert head.name == "head"
    engine = Ablation(context.network, context.layers[:1], {"features": means})
    _, held = engine.logits_with(context.images, [{"features": HAZE_UNITS}])
    pruned = head.pruned(HAZE_UNITS, means)(context.activations["features"])
    np.testing.assert_allclose(pruned, held[0], atol=1e-4)


def test_pruning_takes_the_planted_reliance_away_and_random_pruning_does_not(context) -> None:
    done, report = repair(context, {**FINDING, "units": HAZE_NAMES}, "prune")
    reliance = lines_of(report)["reliance of water"]
    assert done.pruned == HAZE_UNITS
    # Held at what they are on the fitted images that show no haze: on the others their mean is part of the haze.
    clear = ["haze" not in caption for caption in context.captions]
    rows = np.setdiff1d(np.flatnonzero(clear), HELD)
    means = context.activations["features"][rows].mean(axis=0)
    head = context.network.module.head
    expected = head.bias + head.weight[:, HAZE_UNITS] @ torch.from_numpy(means[list(HAZE_UNITS)])
    np.testing.assert_allclose(done.head.bias, expected.numpy(), rtol=1e-4)
    assert reliance.before.value > 0.9
    assert reliance.after.value == 0
    assert reliance.change.high < -0.5
    assert reliance.random is not None
    assert reliance.random.low > 0.9
    assert lines_of(report)["accuracy"].after.value >= lines_of(report)["accuracy"].before.value
    worst = lines_of(report)["worst group"]
    assert (worst.before.value, worst.after.value) == (0.0, 1.0)


def test_retrained_head_loses_the_reliance_and_keeps_the_accuracy(context) -> None:
    _, report = repair(context, {**FINDING, "units": []}, "retrain-head")
    lines = lines_of(report)
    assert lines["reliance of water"].after.value < 0.05
    assert lines["accuracy"].after.value > 0.95
    assert lines["accuracy"].random is None
    assert any("No matched random units" in said for said in report.limitations)
    assert report.artefact == "haze of strength 1", (
        "a tenth of the images shows it, so it is painted as strong as it gets"
    )
    assert f"trained anew on {120 - len(HELD)} images" in report.words, "held-out images are kept from the fit"


def test_a_network_without_the_plant_gains_nothing() -> None:
    _, report = repair(planted_context(0.0, held_out=HELD), {**FINDING, "units": HAZE_NAMES}, "prune")
    for line in report.lines:
        assert line.change.value == pytest.approx(0, abs=1e-9)


def test_table_and_json_hold_every_line(context) -> None:
    _, report = repair(context, {**FINDING, "units": HAZE_NAMES}, "prune")
    text, plain = report.table(), json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [line["name"] for line in plain["lines"]] == [line.name for line in report.lines]
    assert all(line.name in text for line in report.lines)


@pytest.mark.parametrize(
    ("change", "by", "words"),
    [
        ({"units": ["stem/1"]}, "prune", "names no unit of features"),
        ({"units": HAZE_NAMES, "concept": "bright roofs"}, "retrain-head", "cannot be painted"),
    ],
)
def test_what_cannot_be_done_exactly_is_refused(context, change, by, words) -> None:
    with pytest.raises(ConfigError, match=words):
        repair(context, {**FINDING, **change}, by)


def test_unpaintable_concepts_are_pruned_without_reliance(context) -> None:
    _, report = repair(context, {**FINDING, "concept": "bright roofs", "units": HAZE_NAMES}, "prune")
    assert "reliance of water" not in lines_of(report)
    assert any("no reliance was measured" in said for said in report.limitations)


def test_no_linear_head_or_no_held_out_images_are_refused(context) -> None:
    class Squared(Classifier):
        def forward(self, pixels):
            return super().forward(pixels) ** 3

    from .planted import context_of, network_of, tiles

    squared = context_of(network_of(Squared(450.0)), tiles()[0], held_out=HELD)
    with pytest.raises(ConfigError, match="no linear layer"):
        repair(squared, {**FINDING, "units": HAZE_NAMES}, "prune")
    with pytest.raises(ConfigError, match="held out"):
        repair(planted_context(450.0), {**FINDING, "units": HAZE_NAMES}, "prune")


def test_units_of_other_layers_are_named_as_left(context) -> None:
    done, report = repair(context, {**FINDING, "units": [*HAZE_NAMES, "stem/7"]}, "prune")
    assert done.left == ("stem/7",)
    assert any("stem/7" in said for said in report.limitations)


def test_trained_head_of_two_classes_and_missing_class() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 3)) * [1, 100, 0.01] + np.outer(y, [6, 0, 0])
    head, _ = train_head("fc", x, y, 2, np.arange(60) // 6)
    assert (head(x).argmax(axis=1) == y).mean() > 0.95
    with pytest.raises(ConfigError, match="class number 2"):
        train_head("fc", x, y, 3, None)


def test_head_without_bias_cannot_be_pruned() -> None:
    module = nn.Linear(3, 2, bias=False)
    features = np.random.default_rng(0).normal(size=(20, 3))
    logits = features @ module.weight.detach().numpy().T
    head = find_head(nn.Sequential(module), features, logits)
    assert head is not None
    with pytest.raises(ConfigError, match="no bias"):
        head.pruned([0], features.mean(axis=0))


def test_checkpoints_of_every_kind_keep_the_rest(tmp_path: Path) -> None:
    state = {"model.head.weight": torch.ones(2, 3), "model.head.bias": torch.ones(2), "model.stem": torch.ones(4)}
    head = LinearHead("head", np.full((2, 3), 5.0), np.zeros(2))
    lightning = tmp_path / "a.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"model": "resnet18"}, "epoch": 3}, lightning)
    before = lightning.read_bytes()
    write_checkpoint(lightning, tmp_path / "new" / "b.ckpt", head)
    found = torch.load(tmp_path / "new" / "b.ckpt", weights_only=True)
    assert (found["epoch"], found["hyper_parameters"]) == (3, {"model": "resnet18"})
    assert (found["state_dict"]["model.head.weight"] == 5).all()
    assert (found["state_dict"]["model.stem"] == 1).all()
    assert lightning.read_bytes() == before
    plain = {name.removeprefix("model."): value for name, value in state.items()}
    save_file(plain, tmp_path / "c.safetensors")
    write_checkpoint(tmp_path / "c.safetensors", tmp_path / "d.safetensors", head)
    assert (load_file(tmp_path / "d.safetensors")["head.weight"] == 5).all()
    with pytest.raises(NetworkError, match=r"no fc\.weight"):
        write_checkpoint(lightning, tmp_path / "e.ckpt", LinearHead("fc", head.weight, head.bias))
    assert not (tmp_path / "e.ckpt").exists()


def audited_run(root: Path, stride: int, audit: dict) -> tuple:
    """A run folder of the bundled planted classifier on a thin sample of its scene, with its arrays as an audit has them."""
    config = root / "audit.yaml"
    model = bundled.checkpoints()["haze"]
    probe = {
        "scene": str(bundled.scenes()["brandenburg"]),
        "labels": str(bundled.labels()),
        "field": "fclass",
        "classes": ["farm", "forest", "meadow", "residential", "water"],
        "stride": stride,
    }
    values = {
        "model": {"checkpoint": str(model.checkpoint), "card": str(model.card)},
        "probe": {"class_path": "geoaudit.probes.SceneProbe", "init_args": probe},
        "layers": ["layer4", "output"],
        "audit": audit,
    }
    config.write_text(yaml.safe_dump(values))
    subject, _ = prepare(load_config(config))
    layers = resolve(subject.network, subject.layers)
    found = activate(subject.network, layers, subject.probe.pixels(range(len(subject.probe))))
    folder = root / "run"
    (folder / "activations").mkdir(parents=True)
    (folder / "predictions").mkdir()
    for name, values_ in found.items():
        np.save(folder / "activations" / f"{name}.npy", values_)
    np.save(folder / "predictions" / "logits.npy", found["output"])
    (folder / "config.yaml").write_text(yaml.safe_dump({"layers": ["layer4", "output"], **DescribeConfig().to_dict()}))
    manifest = {
        "model": {"name": subject.network.name, "fingerprint": subject.network.fingerprint},
        "probe": {"fingerprint": subject.probe.fingerprint},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    finding = {
        **FINDING, "fingerprint": "f" * 16, "class_pair": ["meadow"], "units": ["layer4/17", "layer4/19"],
        "severity": "critical", "rule": "concept-reliance",
        "effect": {"metric": "reliance", "value": 0.72, "ci": [0.6, 0.8]},
    }  # fmt: skip
    summary = {"counts": {"critical": 1}}
    (folder / "audit.json").write_text(json.dumps({"findings": [finding], "summary": summary}))
    return folder, config, model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return audited_run(tmp_path_factory.mktemp("run"), 16, {})


def test_mitigate_from_a_run_to_a_checkpoint_that_loads(run, tmp_path: Path) -> None:
    from geoaudit.networks import load_network

    folder, config, model = run
    before = hashlib.sha256(model.checkpoint.read_bytes()).hexdigest()
    report = mitigate(folder, "F01", "retrain-head", config, tmp_path / "out", again=False)
    lines = lines_of(report)
    assert lines["reliance of meadow"].change.value < -0.2
    network = load_network(
        tmp_path / "out" / "haze-F01-retrain-head.ckpt", tmp_path / "out" / "haze-F01-retrain-head.json"
    )
    assert network.name.endswith("retrain-head against F01")
    saved = json.loads((tmp_path / "out" / "mitigation.json").read_text())
    assert saved["written"]["checkpoint"] == "haze-F01-retrain-head.ckpt"
    assert hashlib.sha256(model.checkpoint.read_bytes()).hexdigest() == before
    with pytest.raises(ConfigError, match="not overwritten"):
        mitigate(folder, "f" * 16, "retrain-head", config, tmp_path / "out")


def test_mitigate_refuses_strangers(run, tmp_path: Path) -> None:
    folder, config, _ = run
    with pytest.raises(ConfigError, match="it has F01"):
        mitigate(folder, "F09", "prune", config, tmp_path)
    with pytest.raises(StoreError, match=r"no audit\.json"):
        mitigate(tmp_path, "F01", "prune", config, tmp_path)
    other = yaml.safe_load(config.read_text())
    clean = bundled.checkpoints()["clean"]
    other["model"] = {"checkpoint": str(clean.checkpoint), "card": str(clean.card)}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(StoreMismatch, match="model of"):
        mitigate(folder, "F01", "prune", tmp_path / "other.yaml", tmp_path)


def test_repaired_network_is_audited_like_the_first(tmp_path: Path) -> None:
    few = {"checks": ["sensor-probe"], "evaluated": 60, "draws": 100, "map_units": 0}
    folder, config, _ = audited_run(tmp_path, 48, few)
    report = mitigate(folder, "F01", "retrain-head", config, tmp_path / "out")
    told = report.reaudit
    assert told["before"] == {"severity": "critical", "reliance": 0.72, "ci": [0.6, 0.8], "counts": {"critical": 1}}
    again = json.loads((tmp_path / "out" / "audit" / "audit.json").read_text())
    assert [check["rule"] for check in again["checks"]] == ["sensor-probe"]
    assert told["after"]["counts"] == again["summary"]["counts"]
    # The probe that paints haze and asks for meadow measures what the finding said, on the repaired network.
    tested = json.loads((tmp_path / "out" / "audit" / "checks.json").read_text())["results"][0]["hypotheses"]
    haze = next(h for h in tested if (h["concept"], h["class_name"]) == ("haze", "meadow"))
    assert told["after"]["reliance"] == pytest.approx(haze["value"], abs=1e-6)
    assert told["after"]["reliance"] < 0.5
    (said,) = report.became()
    assert said.startswith("Audited again: critical, reliance +0.72")
    assert json.loads((tmp_path / "out" / "mitigation.json").read_text())["reaudit"] == told
    assert again["model"]["fingerprint"] != json.loads((folder / "manifest.json").read_text())["model"]["fingerprint"]


def test_a_finding_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    from geoaudit.reauditing import compared

    from .test_findings import hypothesis

    (tmp_path / "audit.json").write_text(json.dumps({"summary": {"counts": {"critical": 1}}}))
    first = {**FINDING, "severity": "critical", "rule": "concept-reliance", "class_pair": ["water"], "concept": "haze"}
    document = {"findings": [], "summary": {"counts": {"critical": 0}}}
    told = compared(tmp_path, {**first, "effect": {"metric": "reliance", "value": 0.7, "ci": None}}, document, [])
    assert told["after"] == {"severity": "none", "reliance": None, "ci": None, "counts": {"critical": 0}}
    left = {"severity": "minor", "class_pair": ["water"], "concept": "thin haze"}
    other = {"severity": "major", "class_pair": ["farm"], "concept": "haze"}
    tested = [hypothesis(2, value=0.1, class_name="farm"), hypothesis(2, value=0.2)]
    told = compared(
        tmp_path,
        {**first, "effect": {"metric": "reliance", "value": 0.7, "ci": None}},
        {"findings": [other, left], "summary": {"counts": {}}},
        tested,
    )
    assert (told["after"]["severity"], told["after"]["reliance"]) == ("minor", 0.2)
