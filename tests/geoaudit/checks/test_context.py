"""Surroundings are weighed against their area: linear networks on drawn tiles give the shares exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnd_core.images import ArrayImages, Subset
from geoaudit.checks.context import Context, labelled_regions, swap_surroundings
from geoaudit.findings import judge

from .planted import context_of, network_of, tiles


class Weighted(nn.Module):
    """The class of B11 averaged with a weight for every pixel: 1 in the centre, ``around`` outside."""

    def __init__(self, inside: float, around: float) -> None:
        super().__init__()
        weight = torch.full((8, 8), around)
        weight[2:6, 2:6] = inside
        self.register_buffer("weight", weight / weight.sum())
        self.features = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        level = (self.features(pixels)[:, 3] * self.weight).sum(dim=(1, 2))
        return torch.stack([50 * level - 15, 0 * level, 5.5 - 50 * level], dim=1)


def result_of(inside: float, around: float):
    images, _ = tiles(haze=0.0)
    context = context_of(network_of(Weighted(inside, around)), images, layers=["features"])
    return context, Context().run(context)


def test_network_that_looks_outside_ranks_first() -> None:
    context, result = result_of(0.0, 1.0)
    assert result.status == "fail"
    findings = judge(result.hypotheses)
    assert {f.hypothesis.class_name for f in findings} == {"field", "forest", "water"}
    assert all(f.severity == "minor" for f in findings), "no unit was ablated, so nothing above minor"
    assert "100% of the evidence" in findings[0].hypothesis.evidence[0].sentence
    assert findings[0].title.endswith("is decided by what lies around the labelled ground")
    # Every image of a class changes it, so the area is what the class covers: a third of the probe.
    area, probe = findings[0].hypothesis.area_ha, context.hectares
    assert area is not None
    assert area[0] == pytest.approx(probe / 3, rel=0.05)
    assert f"check the {area[0]:.0f} ha" in findings[0].hypothesis.recommendation


@pytest.mark.parametrize(("inside", "around"), [(1.0, 0.0), (1.0, 1.0)])
def test_centre_and_whole_image_stay_silent(inside: float, around: float) -> None:
    _, result = result_of(inside, around)
    assert result.status == "pass"
    assert judge(result.hypotheses) == []


def test_linear_network_shares_by_its_weights() -> None:
    context, result = result_of(1.0, 1.0)
    found = swap_surroundings(context)
    assert found is not None
    around, whole = found.parts(context)
    # 48 of 64 pixels lie outside, and tiles are flat but for noise.
    assert around.sum() / whole.sum() == pytest.approx(0.75, abs=0.01)
    assert found.area == pytest.approx(0.75)
    assert "75% of the evidence" in result.reason
    assert (context.predicted[found.hosts] != context.predicted[found.donors]).all()
    assert (context.blocks[found.hosts] != context.blocks[found.donors]).all()


def test_accuracy_falls_where_surroundings_decide() -> None:
    _, outside = result_of(0.0, 1.0)
    _, inside = result_of(1.0, 0.0)
    assert "accuracy 100%, 0% in another image's surroundings" in outside.reason
    assert "accuracy 100%, 100% in another image's surroundings" in inside.reason


def test_pixel_labels_are_used_where_a_set_has_them() -> None:
    class Masked(ArrayImages):
        def mask(self, index: int) -> np.ndarray:
            mask = np.full((8, 8), -1)
            mask[:2] = self.labels[index]
            return mask

    images, _ = tiles(haze=0.0)
    masked = Masked(
        images.pixels(range(len(images))),
        rgb=np.zeros((len(images), 8, 8, 3), np.uint8),
        channels=images.channels,
        labels=images.labels,
        class_names=images.class_names,
        blocks=images.blocks,
    )
    part = Subset(masked, range(60, 120))
    context = context_of(network_of(Weighted(1.0, 1.0)), part, layers=["features"])
    regions, source = labelled_regions(context, np.arange(5))
    assert regions[:, :2].all()
    assert not regions[:, 2:].any()
    assert source == "pixel labels say where the class lies"


def test_one_class_only_is_inconclusive() -> None:
    images, _ = tiles(haze=0.0)
    one = Subset(images, np.flatnonzero(images.labels == 0))
    context = context_of(network_of(Weighted(1.0, 1.0)), one, layers=["features"])
    result = Context().run(context)
    assert result.status == "inconclusive"
    assert "fewer than 20 pairs" in result.reason
