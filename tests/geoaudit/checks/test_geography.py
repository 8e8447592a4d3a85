"""Features that spell out the place are found; features of the land cover are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnd_core.images import ArrayImages
from geoaudit.checks.geography import Geography, applicability, explained_by_place, split_gap
from geoaudit.findings import judge

from .planted import BANDS, CLASSES, Classifier, context_of, network_of, tiles

BLOCKS = 24


def signed_tiles(seed: int = 0) -> ArrayImages:
    """Tiles whose only content is the faint pattern of their block; the class is drawn for the block."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(BLOCKS), 8)
    patterns = rng.choice([-0.01, 0.01], (BLOCKS, 1, 8, 8)) * np.array([1.0, -1.0, 1.0, -1.0]).reshape(1, 4, 1, 1)
    patterns -= patterns.mean(axis=(2, 3), keepdims=True)
    pixels = 0.2 + patterns[blocks] + rng.normal(0, 0.004, (len(blocks), 4, 8, 8))
    labels = (np.arange(BLOCKS) % 3)[blocks]
    metadata = [
        {"crs": "EPSG:32633", "bounds": (x, 5_800_000 + y, x + 80.0, 5_800_080 + y)}
        for x, y in zip(500_000 + 1_000.0 * blocks, 100.0 * (np.arange(len(blocks)) % 8), strict=True)
    ]
    return ArrayImages(
        pixels.astype(np.float32),
        rgb=np.zeros((len(blocks), 8, 8, 3), np.uint8),
        channels=BANDS,
        labels=labels.astype(np.int64),
        class_names=CLASSES,
        blocks=blocks.astype(np.int64),
        metadata=metadata,
    )


class Pattern(nn.Module):
    """Every pixel of the first band is a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Flatten(), nn.Linear(64, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Tensor = self.head(self.features(pixels[:, 0] - 0.2))
        return answer


@pytest.fixture(scope="module")
def planted():
    torch.manual_seed(0)
    context = context_of(network_of(Pattern()), signed_tiles(), held_out=np.arange(96))
    return context, Geography().run(context)


def test_features_that_spell_the_place_rank_first(planted) -> None:
    _, result = planted
    assert result.status == "fail", result.reason
    findings = judge(result.hypotheses)
    assert findings
    first = findings[0]
    assert first.title.endswith("is recognised by its place")
    assert first.hypothesis.value > 0.4
    assert first.severity == "minor", "a gap is association"
    context, _ = planted
    area = first.hypothesis.area_ha
    assert area is not None
    # A third of the ground is of the class, and the share of it that only neighbours recognise is the gap or more.
    assert first.hypothesis.value * context.hectares / 3 <= area[0] + 1e-6 <= context.hectares / 3 + 1e-6
    assert area[1] <= area[0] <= area[2]


def test_the_summary_names_every_figure(planted) -> None:
    _, result = planted
    for words in (
        "split at random",
        "split by block",
        "place explains",
        "Moran's I beyond class",
        "of the activation",
        "96 held-out images",
    ):
        assert words in result.reason


def test_features_of_the_land_cover_stay_silent() -> None:
    images, _ = tiles(haze=0.0)
    result = Geography().run(context_of(network_of(Classifier(0.0)), images))
    assert result.status == "pass", result.reason
    assert judge(result.hypotheses) == []
    assert "no images were held out" in result.reason


def test_place_that_the_imagery_gives_away_is_not_laid_to_the_network() -> None:
    images = signed_tiles()
    rng = np.random.default_rng(3)
    level = rng.uniform(0.1, 0.4, (BLOCKS, 4, 1, 1))[images.blocks]
    plain = ArrayImages(
        (images.pixels(range(len(images))) * 0 + level + rng.normal(0, 0.002, (len(images), 4, 1, 1))).astype(
            np.float32
        ),
        rgb=np.zeros((len(images), 8, 8, 3), np.uint8),
        channels=BANDS,
        labels=images.labels,
        class_names=CLASSES,
        blocks=images.blocks,
        metadata=[images[i].metadata for i in range(len(images))],
    )
    result = Geography().run(context_of(network_of(Classifier(0.0)), plain))
    assert max(h.value for h in result.hypotheses) > 0.2, "the features do tell the blocks apart"
    assert result.status == "pass", result.reason


def test_too_few_blocks_are_inconclusive() -> None:
    images, _ = tiles(haze=0.0)
    images.blocks = images.blocks % 3
    result = Geography().run(context_of(network_of(Classifier(0.0)), images))
    assert result.status == "inconclusive"
    assert "fewer than 4 blocks" in result.reason


def test_only_outputs_are_inconclusive() -> None:
    images, _ = tiles(haze=0.0)
    result = Geography().run(context_of(network_of(Classifier(0.0)), images, layers=["output"]))
    assert result.status == "inconclusive"


def test_blocks_are_drawn_on_the_ground_where_a_set_has_none() -> None:
    images = signed_tiles()
    images.blocks = None
    torch.manual_seed(0)
    result = Geography().run(context_of(network_of(Pattern()), images))
    assert result.status == "fail", result.reason


def test_split_gap_of_labels_that_only_neighbours_share() -> None:
    images = signed_tiles()
    features = images.pixels(range(len(images))).reshape(len(images), -1)
    alone, apart = split_gap(features, images.labels, images.blocks)
    assert alone.mean() > 0.95
    assert apart.mean() < 0.6


def test_applicability_by_hand() -> None:
    # Two blocks on a line: 0, 1 | 2, 4. Standard deviation s; mean pair distance (1+2+4+1+3+2)/6/s = 13/6/s.
    train = np.array([[0.0], [1.0], [2.0], [4.0]])
    found = applicability(train, [[1.0], [9.0]], [0, 0, 1, 1])
    mean = 13 / 6
    assert found.index == pytest.approx([0.0, 5 / mean])
    # Nearest of the other block: 2, 1, 1, 3; quartiles 1 and 2.25, whisker 4.125, so the largest, 3, is no outlier.
    assert found.threshold == pytest.approx(3 / mean)
    assert found.outside == 0.5


def test_applicability_leaves_an_outlier_out_and_weighs_features() -> None:
    train = np.column_stack([np.r_[np.arange(19.0), 200.0], np.zeros(20)])
    blocks = np.r_[np.arange(19) % 2, 0]
    wide = applicability(train, [[100.0, 5.0]], blocks)
    assert wide.outside == 1.0
    weighed = applicability(np.column_stack([train[:, 0], train[::-1, 0]]), [[0.0, 50.0]], blocks, weights=[1.0, 0.0])
    assert weighed.outside == 0.0
    with pytest.raises(ValueError, match="two blocks"):
        applicability(train, train, np.zeros(20))


def test_place_explains_what_blocks_share() -> None:
    rng = np.random.default_rng(0)
    blocks, labels = np.repeat(np.arange(40), 10), np.tile([0, 1], 200)
    level = rng.normal(size=40)[blocks]
    assert explained_by_place(level + 5 * labels, labels, blocks) == pytest.approx(1.0)
    assert explained_by_place(rng.normal(size=400), labels, blocks) == pytest.approx(0.0, abs=0.1)
    # Half the variance within classes is the block's, half is noise.
    mixed = level / level.std() + rng.normal(size=400)
    assert explained_by_place(mixed, labels, blocks) == pytest.approx(0.5, abs=0.1)
    assert explained_by_place(labels, labels, blocks) == 0.0
