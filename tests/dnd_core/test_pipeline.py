"""A run from end to end on units whose truth is known, and every kind of bad input."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dnd_core import publishing
from dnd_core.config import CandidateConfig, DescribeConfig, ProbingConfig, SelectionConfig, VerificationConfig
from dnd_core.errors import BackendError, BackendUnavailable, LayerNotFound, NetworkError, ProbeError, StoreMismatch
from dnd_core.images import ArrayImages
from dnd_core.pipeline import installed
from dnd_core.presence import presence
from dnd_core.store import read_manifest
from dnd_core.testing import OracleCaptioner, OracleConceptImages, WordVectors
from dnd_core.types import Candidate, UnitId
from dnd_core.verification import Evidence

QUICK = DescribeConfig(
    probing=ProbingConfig(top_k=8, batch_size=32),
    candidates=CandidateConfig(n=3, contrast_images=12),
    selection=SelectionConfig(images_per_concept=4, beta=2),
    verification=VerificationConfig(permutations=50, resamples=20),
)
SMALL = DescribeConfig(probing=ProbingConfig(top_k=3), verification=VerificationConfig(permutations=20, resamples=2))


def test_units_get_the_labels_of_what_they_compute(finished):
    said = {(row.layer, row.unit): row for row in finished.neurons.itertuples(index=False)}
    for layer in ("maps", "mix"):
        for unit, colour in enumerate(("red", "green", "blue")):
            assert said[layer, unit].status == "labelled"
            assert said[layer, unit].label == colour
    assert said["maps", 3].label == "yellow"
    assert said["maps", 4].label == "vertical stripes"


def test_a_dead_unit_is_dead_and_nobody_is_asked_about_it(finished):
    dead = finished.neurons.query("layer == 'maps' and unit == 6").iloc[0]
    assert (dead["status"], dead["label"], list(dead["labels"])) == ("dead", "", [])
    assert dead["candidates"] == "[]"
    asked = pd.read_parquet(finished.root / "candidates.parquet").query("layer == 'maps'")
    assert set(asked["unit"]) == set(range(6))


def test_the_run_folder_holds_what_its_page_says(finished):
    root = finished.root
    manifest = read_manifest(root)
    assert set(manifest["stages"]) == {
        "probing", "top", "captions", "candidates", "concepts", "selection", "verification"
    }  # fmt: skip
    assert manifest["probe"]["explain"] + manifest["probe"]["held_out"] == manifest["probe"]["images"] == 120
    assert manifest["versions"]["numpy"] == np.__version__
    assert installed(["no such package"]) == {"no such package": "unknown"}
    for name in ("config.yaml", "layers.json", "top_images.parquet", "captions.parquet", "scores.parquet"):
        assert (root / name).is_file()
    assert not (root / ".work").exists()
    assert finished.activations("maps").shape == (120, 7)
    assert not set(finished.explain) & set(finished.held_out)
    tops = pd.read_parquet(root / "top_images.parquet")
    assert set(tops["image"]) <= set(finished.explain.tolist())
    for row in finished.neurons.itertuples(index=False):
        assert all(len(view) == 6 for view in json.loads(row.top_images))
        assert str(UnitId.parse(f"{row.layer}/{row.unit}")) == f"{row.layer}/{row.unit}"
    pictures = pd.read_parquet(root / "concept_images.parquet")
    assert all((root / "concept_images" / f"{key[:20]}.png").is_file() for key in pictures["key"])
    space = np.load(root / "concept_images" / "image-space.npy")
    assert len(space) == len(np.load(root / "concept_images" / "maps.npy")) == pictures["row"].max() + 1


def test_top_images_are_the_highest_of_the_explaining_ones(finished):
    """Whole images among the top ones are those of highest activation; crops only displace lower ones."""
    tops = pd.read_parquet(finished.root / "top_images.parquet")
    pooled = finished.activations("mix")
    for unit, part in tops[tops["layer"] == "mix"].groupby("unit"):
        order = sorted(finished.explain.tolist(), key=lambda i: (-pooled[i, unit], i))
        assert part.sort_values("rank")["image"].tolist() == order[:8]


def test_without_verification_every_choice_is_published(tiny, tmp_path):
    config = DescribeConfig(probing=ProbingConfig(top_k=3), verification=VerificationConfig(enabled=False))
    run = tiny(tmp_path / "run", config)
    assert len(run.held_out) == 0
    alive = run.neurons[run.neurons["unit"] != 6]
    assert set(alive["status"]) == {"labelled"}
    assert set(alive["reason"]) == {"verification is off"}
    assert alive["r"].isna().all()


class Refuses(OracleCaptioner):
    """A captioner that has nothing to say about images with red in them, or about any image at all."""

    def __init__(self, about: str) -> None:
        super().__init__(0.0, 0)
        self.about = about

    def caption(self, images):
        return ["  " if self.about in text else text for text in super().caption(images)]


@pytest.mark.parametrize("text_and_images", [False, True])
def test_when_nothing_is_said_nothing_is_labelled(tiny, tmp_path, text_and_images):
    changes = {"image_encoder": Clip()} if text_and_images else {}
    run = tiny(tmp_path / "run", captioner=Refuses(""), **changes)
    assert set(run.neurons["status"]) == {"abstained", "dead"}
    assert set(run.neurons["label"]) == {""}


def test_refused_captions_never_become_labels(tiny, tmp_path):
    run = tiny(tmp_path / "run", SMALL, captioner=Refuses("red"))
    captions = pd.read_parquet(run.root / "captions.parquet")["caption"]
    assert (captions == "").any()
    assert (captions != "").any()
    candidates = pd.read_parquet(run.root / "candidates.parquet")
    assert (candidates["label"].str.strip() != "").all()
    assert not candidates["label"].str.contains("red").any()


class Clip:
    """An image encoder that also reads texts: an image lies where the words for what was drawn in it lie."""

    fingerprint = "words of drawn images"

    def encode_images(self, images):
        return self.encode_texts([" ".join(image.metadata.get("attributes", ("nothing",))) for image in images])

    def encode_texts(self, texts):
        return WordVectors().encode_texts(texts)


def test_with_a_clip_presence_is_seen_and_held_out_images_need_no_captions(tiny, tmp_path):
    run = tiny(tmp_path / "run", image_encoder=Clip())
    said = {(row.layer, row.unit): row.label for row in run.neurons.itertuples(index=False)}
    assert [said["mix", unit] for unit in range(3)] == ["red", "green", "blue"]
    captioned = pd.read_parquet(run.root / "captions.parquet")["image"]
    assert set(captioned) <= set(run.explain.tolist())


class Chatty:
    fingerprint = "chatty"

    def caption(self, images):
        return ["a red disc"] * (len(images) + 1)

    def propose(self, evidence, n):
        return [[Candidate("red")]] * (len(evidence) - 1)


def test_a_backend_that_answers_another_number_is_named(tiny, tmp_path):
    with pytest.raises(BackendError, match=r"Chatty gave \d+ captions for \d+ images"):
        tiny(tmp_path / "a", captioner=Chatty())
    with pytest.raises(BackendError, match=r"Chatty answered \d+ of \d+ questions"):
        tiny(tmp_path / "b", summarizer=Chatty())


class Long:
    """A summarizer that says too much: too many candidates, too many words, the same twice, nothing."""

    fingerprint = "long"

    def propose(self, evidence, n):
        labels = ["a red disc on a very grey ground", "A RED disc on a", "", "  ", "green", "blue", "white"]
        return [[Candidate(label) for label in labels]] * len(evidence)


def test_what_a_summarizer_says_is_cut_to_n_labels_of_five_words(tiny, tmp_path):
    run = tiny(tmp_path / "run", summarizer=Long())
    labels = pd.read_parquet(run.root / "candidates.parquet").groupby(["layer", "unit"])["label"].agg(list)
    assert all(found == ["a red disc on a"] for found in labels)


class Missing(OracleConceptImages):
    def check(self):
        raise BackendUnavailable("the painter is not installed: pip install paint")


def test_a_backend_that_cannot_run_is_refused_before_anything_starts(tiny, tmp_path):
    with pytest.raises(BackendUnavailable, match="pip install paint"):
        tiny(tmp_path / "run", concept_images=Missing())
    left = [path for path in (tmp_path / "run").rglob("*") if path.name != ".lock"]
    assert left == []
    # The corrected command runs without --resume.
    tiny(tmp_path / "run", SMALL, layers=["mix"])
    with pytest.raises(StoreMismatch, match="--resume"):
        tiny(tmp_path / "run", SMALL, layers=["mix"])


def test_concept_images_of_another_size_are_refused(tiny, tmp_path):
    with pytest.raises(ProbeError, match=r"\(3, 40, 40\).*\(3, 48, 48\)"):
        tiny(tmp_path / "run", concept_images=OracleConceptImages(size=40))


class Shows(OracleConceptImages):
    """Has images of one colour only."""

    def __init__(self, known: str) -> None:
        super().__init__()
        self.known = known

    def show(self, concept, n):
        return super().show(concept, n) if concept == self.known else []


def test_concepts_that_cannot_be_shown_come_last_and_none_at_all_is_an_error(tiny, tmp_path):
    with pytest.raises(BackendError, match="no image for any of"):
        tiny(tmp_path / "none", concept_images=Shows("nothing"))
    by_images = replace(QUICK, selection=replace(QUICK.selection, score="topk_squared"))
    run = tiny(tmp_path / "one", by_images, concept_images=Shows("grey background"))
    scores = pd.read_parquet(run.root / "scores.parquet")
    first = scores[scores["rank"] == 0].set_index(["layer", "unit"])["label"]
    with_grey = scores[scores["label"] == "grey background"].set_index(["layer", "unit"]).index
    assert len(with_grey)
    assert (first[with_grey] == "grey background").all()
    assert scores.query("label != 'grey background'")["mean"].isna().all()


class Broken(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.value = value

    def forward(self, images):
        return (self.layer(images) * self.value).mean((2, 3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_no_number_is_an_error(tiny, tmp_path, value):
    with pytest.raises(NetworkError, match=r"output.*(NaN|infinite)"):
        tiny(tmp_path / "run", network=tiny.network(Broken(value)), layers=["output"])
    assert not (tmp_path / "run" / "activations").exists()


@pytest.mark.parametrize("layers", [["mapz"], ["maps", "mapz"], ["map?z*"]])
def test_a_missing_layer_names_the_nearest(tiny, tmp_path, layers):
    with pytest.raises(LayerNotFound, match="maps"):
        tiny(tmp_path / "run", layers=layers)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_no_layer_at_all(tiny, tmp_path):
    with pytest.raises(NetworkError, match="no layer of tiny was named"):
        tiny(tmp_path / "run", layers=[])


def subset(probe, count, **changes):
    given = {"metadata": [probe[index].metadata for index in range(count)], **changes}
    return ArrayImages(probe.pixels(range(count)), **given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda probe: subset(probe, 7), "7 images, fewer than the 8 top images"),
        (lambda probe: subset(probe, 10), r"10 probe images are too few: 6 are left to find 8 top images in and 4"),
        (lambda probe: subset(probe, 40, blocks=np.zeros(40, dtype=np.int64)), "whole blocks at a time"),
        (lambda probe: subset(probe, 40, channels=("blue", "green", "red")), "not in the order tiny expects"),
        (
            lambda probe: ArrayImages(probe.pixels(range(40))[:, :, :40]),
            re.escape("(3, 40, 48)") + ".*" + re.escape("(3, 48, 48)"),
        ),
    ],
)
def test_a_probe_that_does_not_fit_says_how(tiny, probe, tmp_path, make, message):
    with pytest.raises(ProbeError, match=message):
        tiny(tmp_path / "run", images=make(probe))
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_changed_weight_and_a_changed_image_recompute_everything(tiny, probe, tmp_path):
    root = tmp_path / "run"
    tiny(root, SMALL, layers=["mix"])
    before = read_manifest(root)["stages"]
    network = tiny.network()
    with torch.no_grad():
        network.module.mix.bias[0] = 1e-3
    tiny(root, SMALL, layers=["mix"], network=tiny.network(network.module), resume=True)
    weight = read_manifest(root)["stages"]
    assert all(before[name]["key"] != weight[name]["key"] for name in before)
    pixels = probe.pixels(range(120)).copy()
    pixels[0, 0, 0, 0] += 0.01
    images = ArrayImages(pixels, metadata=[probe[index].metadata for index in range(120)])
    tiny(root, SMALL, layers=["mix"], images=images, resume=True)
    image = read_manifest(root)["stages"]
    assert all(before[name]["key"] != image[name]["key"] for name in before)


def test_a_backend_that_changes_while_it_works_keeps_its_stages(tiny, tmp_path):
    """A counter or a cache inside a backend is no reason to do its work again."""
    root = tmp_path / "run"
    tiny(root, SMALL, layers=["mix"], text_encoder=Counting())
    before = read_manifest(root)
    tiny(root, SMALL, layers=["mix"], text_encoder=Counting(), resume=True)
    assert read_manifest(root)["stages"] == before["stages"]
    assert "probing" in before["timings"]["stages"]


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def encode_texts(self, texts):
        self.calls += 1
        return WordVectors().encode_texts(texts)


@pytest.mark.parametrize(
    ("r", "q", "status", "reason"),
    [
        (0.6, 0.01, "labelled", "r 0.60 on held-out images, null 0.30"),
        (0.2, 0.01, "weak", "no better than other units' labels reach (0.30)"),
        (0.6, 0.20, "abstained", "do not support it (r 0.60, q 0.20)"),
        (0.2, 0.20, "abstained", "do not support it"),
    ],
)
def test_a_label_must_pass_both_nulls(r, q, status, reason):
    one = np.ones(1)
    found = publishing._judge(Evidence(r * one, 0.5 * one, 0.01 * one, q * one, 0.3), 0, 0.05)
    assert found["status"] == status
    assert reason in found["reason"]


@pytest.mark.parametrize("together", [True, False])
def test_a_further_label_must_make_the_labels_together_better(together):
    rng = np.random.default_rng(0)
    if together:
        first, second = np.zeros(400), np.zeros(400)
        first[:40], second[40:80] = 1, 1
        activation = first + second + 0.1 * rng.normal(size=400)
    else:
        # The second explains what the first leaves, but is nearly everywhere: "red or dots" says next to nothing.
        first, left = rng.random(400), rng.normal(size=400)
        second = (left > -1).astype(float)
        activation = first + 0.3 * left
    context = SimpleNamespace(config=DescribeConfig(verification=VerificationConfig(permutations=50)))
    labels = pd.DataFrame({"label": ["red", "dots"]})
    concepts = np.stack([first, second], axis=1).astype(np.float32)
    place = {"red": 0, "dots": 1}
    said = publishing._meanings(context, activation.astype(np.float32), concepts, labels, place, None, 0.2)
    assert said == (["red", "dots"] if together else ["red"])


def test_every_row_follows_from_its_evidence(finished):
    """Status, threshold and numbers of the table agree; further labels are candidates of the unit."""
    for row in finished.neurons.query("status != 'dead'").itertuples(index=False):
        supported = row.q <= 0.05
        expected = "labelled" if supported and row.r >= row.threshold else "weak" if supported else "abstained"
        assert row.status == expected
        offered = {candidate["label"] for candidate in json.loads(row.candidates)}
        assert set(row.labels) <= offered
        assert row.label == row.labels[0]
        assert 0 <= row.p <= 1
        assert 0 <= row.stability <= 1
        assert 0 <= row.activation_rate <= 1
    groups = pd.read_parquet(finished.root / "groups.parquet")
    grouped = finished.neurons[finished.neurons["group"] >= 0]
    assert {unit for units in groups["units"] for unit in json.loads(units)} == {
        f"{row.layer}/{row.unit}" for row in grouped.itertuples(index=False)
    }
    assert set(grouped["status"]) <= {"labelled"}


def test_held_out_presence_and_activation_decide_r(finished):
    """r is the plain correlation, over held-out images, of what a unit does and what its label's caption says."""
    captions = pd.read_parquet(finished.root / "captions.parquet").query("left == -1").set_index("image")["caption"]
    pooled = finished.activations("mix")[finished.held_out]
    for unit, colour in enumerate(("red", "green", "blue")):
        there = presence([colour], [captions[i] for i in finished.held_out], WordVectors())[0]
        said = finished.neurons.query("layer == 'mix' and unit == @unit").iloc[0]
        assert said["r"] == pytest.approx(np.corrcoef(pooled[:, unit], there)[0, 1], abs=1e-6)
