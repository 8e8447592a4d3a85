"""The example configurations parse, name things that exist, and build as far as weights allow."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.registry import build
from geoaudit.settings import BACKENDS, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_there_is_one_for_every_way_to_run():
    assert {path.stem for path in CONFIGS} == {"offline", "local-weights", "api", "remoteclip"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_parses_and_its_paths_exist(path):
    config = load_config(path)
    assert Path(config.model["checkpoint"]).is_file()
    assert all(Path(scene).is_file() for scene in config.scenes)
    assert set(config.backends) == set(BACKENDS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_backends_build_and_say_what_they_lack(path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, spec in (yaml.safe_load(path.read_text()).get("backends") or {}).items():
        backend = build(spec)
        with pytest.raises((BackendUnavailable, ConfigError)) as error:
            backend.check()
        assert len(str(error.value)) > 20, name


def test_the_offline_one_loads_its_network_and_probe():
    from geoaudit.launch import prepare

    subject, backends = prepare(load_config(Path(__file__).parents[2] / "configs" / "offline.yaml"))
    backends.check()
    assert subject.network.class_names == ("farm", "forest", "meadow", "residential", "water")
    assert len(subject.probe) > 300
    assert len(subject.pool) > 50
    assert set(subject.probe.blocks).isdisjoint(subject.pool.blocks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("modell: {}", "did you mean model"),
        ("audit: {evaluated: 3}", "a whole number from 20, got 3"),
        ("audit: {evaluated: many}", "a whole number from 20, got 'many'"),
        ("audit: {draws: null}", "a whole number from 100, got None"),
        ("audit: {draws: true}", "a whole number from 100, got True"),
        ("audit: {alpha: .nan}", "a number between 0 and 1"),
        ("audit: {checks: geography}", "a list of rules"),
        ("audit: {checks: 3}", "a list of rules"),
        ("audit: all", "audit must be a mapping"),
        ("model: [m.ckpt]", "model must be a mapping"),
        ("model: {checkpoint: 3}", "checkpoint .a path."),
        ("model: {checkpoint: a.ckpt, options: [1]}", "model.options must be a mapping"),
        ("model:", "the field model is missing"),
        ("probe: {init_args: {}}", "probe must be a mapping of class_path"),
        ("layers: []", "layers must be a list of layers"),
        ("layers: [3]", "layers must be a list of layers"),
        ("pool: tiles", "pool must be a mapping of class_path"),
        ("scenes: a.tif", "scenes must be a list of rasters"),
        ("labels: a.gpkg", "labels must be a mapping"),
        ("labels: {path: a.gpkg}", "labels takes path, field and classes, got .*path"),
        ("labels: {pth: a.gpkg}", "labels takes path, field and classes, got .*pth"),
        ("definitions: [water]", "definitions must be a mapping"),
        ("attributions: me", "attributions must be a list"),
        ("backends: [blip]", "backends must be a mapping"),
        ("settings: quick", "settings must be a mapping"),
        ("audit: {evaluate: 30}", "unknown audit settings"),
        ("settings: {probing: {topk: 3}}", "topk"),
        ("backends: {captionner: blip}", "backends are"),
        ("layers: layer4", "layers"),
        ("- a list", "must hold fields"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(tmp_path, change, words):
    path = tmp_path / "audit.yaml"
    base = "model: {checkpoint: a.ckpt}\nprobe: {class_path: x.Y}\nlayers: [layer4]\n"
    key = change.split(":")[0]
    kept = "" if change.startswith("-") else "\n".join(line for line in base.splitlines() if not line.startswith(key))
    path.write_text(f"{kept}\n{change}\n")
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenes": ["nowhere.tif"]}, "nowhere.tif: no such file"),
        ({"scenes": ["cut.tif"]}, "cut.tif"),
        ({"scenes": ["gulf.tif"]}, "B"),
        ({"labels": {"path": "nowhere.gpkg", "field": "fclass"}}, "nowhere.gpkg"),
        ({"labels": {"field": "kind"}}, "no column 'kind'"),
        ({"labels": {"classes": ["lava"]}}, "no lava polygon"),
        ({"scenes": ["delmarva.tif"]}, "landuse.gpkg.*scene|scene.*landuse.gpkg"),
    ],
)
def test_a_scene_or_labels_that_cannot_be_used_are_found_out_before_the_long_job(tmp_path, change, words):
    """Nothing has been described when the sentence comes: the probe is not even opened."""
    from dnd_core.errors import DndError
    from geoaudit import bundled
    from geoaudit.launch import prepare

    (tmp_path / "cut.tif").write_bytes(bundled.scenes()["gulf"].read_bytes()[:5000])
    found = load_config(CONFIGS[0].with_name("offline.yaml"))
    at_hand = {path.name: str(path) for path in bundled.scenes().values()} | {"cut.tif": str(tmp_path / "cut.tif")}
    scenes = tuple(at_hand.get(name, name) for name in change.get("scenes", [bundled.scenes()["brandenburg"].name]))
    labels = {"path": str(bundled.labels()), "field": "fclass", **change.get("labels", {})}
    wrong = dataclasses.replace(found, scenes=scenes, labels=labels, probe={"class_path": "nothing.There"})
    with pytest.raises(DndError, match=words):
        prepare(wrong)
