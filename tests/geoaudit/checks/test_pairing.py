"""Retrieval pairs: real images that differ in one concept, found among captions and never among the network's features."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dnd_core.images import ArrayImages
from geoaudit.checks.concept_reliance import ConceptReliance, paintable
from geoaudit.checks.nulls import calibrate
from geoaudit.checks.pairing import CaptionSpace, Pairs, pair_reliance, retrieve_pairs
from geoaudit.findings import judge
from geoaudit.perturb import paint

from .planted import BANDS, CLASSES, HAZE_NAMES, SPECTRA, Classifier, WordVectors, context_of, network_of

CONCEPT = "pale roofs"


def context(planted: float, share: float = 0.4, n: int = 240):
    """Tiles some of which carry a bluish thing that captions call roofs: it cannot be painted, only found."""
    rng = np.random.default_rng(4)
    labels = np.arange(n) % len(CLASSES)
    pixels = (SPECTRA[labels][:, :, None, None] + rng.normal(0, 0.004, (n, len(BANDS), 8, 8))).clip(0.001)
    shown = rng.random(n) < share
    pixels = pixels.astype(np.float32)
    pixels[shown] = paint("haze", pixels[shown], BANDS, 0.6, 1)
    ground = ["smooth ground", "rough ground", "straight edges", "many bright points"]
    captions = [
        ", ".join(([f"{CONCEPT} over part of the tile"] if s else []) + [ground[i // 3 % 4], f"{CLASSES[k]} colours"])
        for i, (s, k) in enumerate(zip(shown, labels, strict=True))
    ]
    images = ArrayImages(
        pixels,
        rgb=np.zeros((n, 8, 8, 3), dtype=np.uint8),
        channels=BANDS,
        labels=labels.astype(np.int64),
        class_names=CLASSES,
        blocks=((np.arange(n) // 3) % 20).astype(np.int64),
        metadata=[{}] * n,
    )
    groups = pd.DataFrame([{"group": 0, "name": CONCEPT, "units": json.dumps(HAZE_NAMES), "threshold": 0.9}])
    made = context_of(network_of(Classifier(planted)), images, groups=groups, captions=captions)
    made.neurons.loc[made.neurons["unit"].isin((3, 4, 5)), "group"] = 0
    return made, shown


def test_pairs_differ_in_the_concept_alone() -> None:
    made, shown = context(0.0)
    pairs = retrieve_pairs(made, CONCEPT)
    assert pairs is not None
    assert shown[pairs.shown].all()
    assert not shown[pairs.other].any()
    assert (made.reference[pairs.shown] == made.reference[pairs.other]).all()
    assert len(set(pairs.other)) == len(pairs.other), "an image serves one pair only"
    # All pairs within the caliper say the same beside the roofs.
    ground = np.array([caption.split(", ")[-2] for caption in made.captions])
    assert (ground[pairs.shown] == ground[pairs.other]).mean() > 0.9
    assert pairs.alike > pairs.chance + 0.2
    assert len(pairs.shown) + pairs.unmatched == shown.sum()


def test_what_speaks_of_the_concept_is_left_out_of_the_comparison() -> None:
    space = CaptionSpace(["pale roofs, smooth ground", "smooth ground", "rough ground", "no pale roofs"], WordVectors())
    beside = space.beside(CONCEPT)
    assert beside[0] @ beside[1] == pytest.approx(1)
    assert beside[0] @ beside[2] < 0.9
    assert not beside[3].any(), "a denial speaks of it too"


def test_reliance_of_pairs_by_hand() -> None:
    made, _ = context(0.0)
    rows = np.flatnonzero(made.reference == 0)
    pairs = Pairs(rows[:40], rows[40:80], 0, 1.0, 0.5)
    logits = np.zeros((240, 3), dtype=np.float32)
    logits[:, 0] = 1
    logits[rows[:10], 2] = 2
    effect = pair_reliance(made, pairs, logits, 2)
    assert (effect.value, effect.n) == (0.25, 40)
    # Nothing but images of other classes counts.
    assert pair_reliance(made, pairs, logits, 0).n == 0


def test_unpaintable_shortcut_ranks_first_by_retrieved_pairs() -> None:
    made, _ = context(450.0)
    assert paintable(CONCEPT, made) is None
    # "Artefact" by its likeness to a nuisance, which a drawn word has not: the check is asked for its evidence.
    result = ConceptReliance().run(made)
    water = next(h for h in result.hypotheses if h.class_name == "water")
    found = {e.name: e for e in water.evidence}
    assert found["retrieved pairs"].holds
    assert found["retrieved pairs"].value > 0.5
    assert found["ablation"].holds
    assert "pairs of real images" in found["retrieved pairs"].sentence
    assert "captions do not say may differ too" in water.limitations
    from dataclasses import replace

    spurious = [replace(h, spurious=True) for h in result.hypotheses]
    findings = judge(spurious, 0.05, calibrate(made.null_tests, 0.05).thresholds)
    assert findings[0].hypothesis.class_name == "water"
    assert findings[0].severity == "critical"


def test_unused_concept_stays_silent_on_pairs() -> None:
    made, _ = context(0.0)
    result = ConceptReliance().run(made)
    assert not any(e.holds for h in result.hypotheses for e in h.evidence if e.grade >= 2)
    assert result.status == "pass"


def test_too_few_pairs_make_no_counterfactual() -> None:
    made, _ = context(450.0, share=0.05)
    result = ConceptReliance().run(made)
    assert all(e.name != "retrieved pairs" for h in result.hypotheses for e in h.evidence)
    assert "fewer than 8 pairs" in result.hypotheses[0].limitations


def test_no_captions_or_no_such_image_gives_no_pairs() -> None:
    made, _ = context(0.0)
    assert retrieve_pairs(made, "purple elephants") is None
    made.captions = None
    for name in ("caption_index", "caption_space"):
        made.__dict__.pop(name, None)
    assert retrieve_pairs(made, CONCEPT) is None
