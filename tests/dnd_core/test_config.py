"""Every setting changes what a run does, and the keys of exactly the stages that use it."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from dnd_core.config import CandidateConfig, DescribeConfig, ProbingConfig, SelectionConfig, VerificationConfig
from dnd_core.errors import ConfigError
from dnd_core.images import ArrayImages
from dnd_core.pipeline import settings_of

STAGES = ("probing", "top", "captions", "candidates", "concepts", "selection", "verification")

# Field: another value, the first stage that uses it, and the table in which the difference must be seen.
CASES = {
    "probing.pooling": ("max", "probing", "top_images"),
    "probing.top_k": (5, "top", "top_images"),
    "probing.crops": (False, "top", "top_images"),
    "probing.crops_per_image": (1, "top", "top_images"),
    "probing.crop_iou": (0.0, "top", None),
    "probing.crop_whole_iou": (0.01, "top", "top_images"),
    "probing.batch_size": (50, "probing", None),
    "candidates.n": (1, "candidates", "candidates"),
    "candidates.contrast": (False, "candidates", "candidates"),
    "candidates.contrast_images": (4, "candidates", "candidates"),
    "candidates.max_meanings": (1, "candidates", "candidates"),
    "selection.images_per_concept": (6, "concepts", "concept_images"),
    "selection.beta": (1, "selection", "scores"),
    "selection.score": ("mean", "selection", "scores"),
    "verification.enabled": (False, "top", "neurons"),
    "verification.holdout": (0.3, "top", "neurons"),
    "verification.top_share": (0.2, "verification", "neurons"),
    "verification.alpha": (0.001, "verification", "neurons"),
    "verification.permutations": (60, "verification", "neurons"),
    "verification.resamples": (21, "verification", "neurons"),
    "seed": (1, "top", "neurons"),
}


def every_field(section=None, prefix=""):
    for field in dataclasses.fields(section or DescribeConfig):
        value = getattr(section or DescribeConfig(), field.name)
        if dataclasses.is_dataclass(value):
            yield from every_field(value, f"{field.name}.")
        else:
            yield prefix + field.name


def changed(config: DescribeConfig, name: str, value: object) -> DescribeConfig:
    section, _, field = name.rpartition(".")
    if not section:
        return dataclasses.replace(config, **{field: value})
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{field: value})})


def keys(root) -> dict[str, str]:
    return {name: stage["key"] for name, stage in json.loads((root / "manifest.json").read_text())["stages"].items()}


def test_every_field_has_a_case():
    assert list(CASES) == list(every_field())


@pytest.mark.parametrize("name", CASES)
def test_a_setting_changes_the_run_and_recomputes_what_depends_on_it(tiny, finished, tmp_path, name):
    value, first, table = CASES[name]
    root = tmp_path / "run"
    shutil.copytree(finished.root, root)
    before, old = keys(root), {path.name: path.stat().st_ino for path in root.glob("*.parquet")}
    seen = set()
    tiny(root, changed(tiny.config, name, value), resume=True, progress=lambda stage, *_: seen.add(stage))
    after = keys(root)
    affected = set(STAGES[STAGES.index(first) :])
    assert {stage for stage in STAGES if before[stage] != after[stage]} == affected
    # Files of other stages are not even written again.
    kept = {"top_images": "top", "captions": "captions", "candidates": "candidates", "concept_images": "concepts"}
    for file, stage in kept.items():
        if stage not in affected:
            assert (root / f"{file}.parquet").stat().st_ino == old[f"{file}.parquet"], file
    assert ("probing" in seen) == ("probing" in affected)
    if table is not None:
        one, two = (pd.read_parquet(where / f"{table}.parquet") for where in (finished.root, root))
        assert not one.equals(two)
    assert settings_of(root) == changed(tiny.config, name, value)


def test_the_batch_size_is_the_number_of_images_that_go_together(tiny, tmp_path):
    """It decides no result, but how many images a forward pass holds."""
    for size in (32, 50):
        network = tiny.network()
        batches = []
        network.module.register_forward_pre_hook(lambda _, inputs, batches=batches: batches.append(len(inputs[0])))
        config = changed(tiny.config, "probing.batch_size", size)
        tiny(tmp_path / str(size), config, network=network)
        assert max(batches) == size
    one, two = (np.load(tmp_path / str(size) / "activations" / "maps.npy") for size in (32, 50))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_crops_that_overlap_a_kept_one_are_dropped(tiny, probe, tmp_path):
    """An angle of red with a red dot in its corner: the dot's box lies inside the angle's."""
    pixels = probe.pixels(range(60)).copy()
    red, background = np.array([0.95, 0.05, 0.05])[:, None, None], 0.5
    for image in pixels:
        image[0] = np.minimum(image[0], background)
        image[:, 4:28, 4:28] = background
        image[:, 4:28, 4:8] = red
        image[:, 24:28, 4:28] = red
        image[:, 10:18, 14:22] = red
    images = ArrayImages(pixels, metadata=[probe[index].metadata for index in range(60)])
    dots = {}
    for iou in (0.0, 0.5):
        root = tmp_path / str(iou)
        tiny(root, changed(tiny.config, "probing.crop_iou", iou), images=images, layers=["maps"])
        table = pd.read_parquet(root / "top_images.parquet").query("layer == 'maps' and unit == 0")
        dots[iou] = int(((table["left"] > 8) & (table["right"] < 28)).sum())
    assert dots[0.0] == 0
    assert dots[0.5] > 0


def test_the_papers_values_are_the_defaults():
    config = DescribeConfig()
    assert (config.probing.pooling, config.probing.top_k, config.probing.crops_per_image) == ("mean", 10, 4)
    assert (config.probing.crop_iou, config.probing.crop_whole_iou) == (0.5, 0.8)
    assert (config.candidates.n, config.selection.images_per_concept, config.selection.beta) == (5, 10, 5)


@pytest.mark.parametrize("name", CASES)
def test_settings_survive_writing_and_are_frozen(name):
    config = changed(DescribeConfig(), name, CASES[name][0])
    assert config != DescribeConfig()
    assert DescribeConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
    section, _, field = name.rpartition(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(getattr(config, section) if section else config, field, CASES[name][0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probing.pooling", "median"),
        ("probing.top_k", 0),
        ("probing.top_k", "ten"),
        ("probing.top_k", True),
        ("probing.crops", "no"),
        ("probing.crops_per_image", 0),
        ("probing.crop_iou", 1.1),
        ("probing.crop_whole_iou", -0.1),
        ("probing.batch_size", 0),
        ("candidates.n", 0),
        ("candidates.contrast", 1),
        ("candidates.contrast_images", 1),
        ("candidates.max_meanings", 4),
        ("selection.images_per_concept", 0),
        ("selection.beta", 11),
        ("selection.score", "best"),
        ("verification.enabled", None),
        ("verification.holdout", 1.0),
        ("verification.holdout", float("nan")),
        ("verification.top_share", 0),
        ("verification.alpha", "0.05"),
        ("verification.permutations", 19),
        ("verification.resamples", 1),
        ("seed", -1),
        ("seed", "zero"),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        changed(DescribeConfig(), name, value)


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"topk.*known are.*top_k"):
        DescribeConfig.from_dict({"probing": {"topk": 3}})
    with pytest.raises(ConfigError, match="probes"):
        DescribeConfig.from_dict({"probes": {}})
    with pytest.raises(ConfigError, match="probing must hold settings"):
        DescribeConfig.from_dict({"probing": 3})
    assert DescribeConfig.from_dict({"probing": None}) == DescribeConfig()


@pytest.mark.parametrize("text", [None, "", "- 1", "probing: ["])
def test_settings_of_a_damaged_run(tmp_path, text):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        settings_of(tmp_path)


def test_sections_stand_alone():
    assert ProbingConfig() == DescribeConfig().probing
    assert CandidateConfig(n=2).n == 2
    assert SelectionConfig(images_per_concept=3, beta=3).beta == 3
    assert VerificationConfig(enabled=False).enabled is False
