"""Mismatched input is said, and so is input unlike what batch normalisations remember."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnd_core.images import ArrayImages
from geoaudit.checks.base import PaintedImages
from geoaudit.checks.input_contract import InputContract, nodata_share, norm_shifts
from geoaudit.checks.pretraining import band_doubt
from geoaudit.networks.preprocess import Preprocess

from .planted import BANDS, CLASSES, context_of, network_of, tiles

MEAN, STD = (0.05, 0.07, 0.08, 0.2), (0.05, 0.05, 0.08, 0.15)


class Normalised(nn.Module):
    """A batch normalisation that remembers exactly what the clean tiles are."""

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.features, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.features.running_mean = seen.mean(dim=(0, 2, 3))
        self.features.running_var = seen.var(dim=(0, 2, 3), correction=0)

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Tensor = self.head(self.features(pixels).mean(dim=(2, 3)))
        return answer


def context_with(mean=MEAN, std=STD, images: ArrayImages | None = None):
    clean, _ = tiles(haze=0.0)
    preprocess = Preprocess(BANDS, BANDS, mean, std)
    module = Normalised(Preprocess(BANDS, BANDS, MEAN, STD)(torch.from_numpy(clean.pixels(range(len(clean))))))
    return context_of(network_of(module, preprocess=preprocess), images or clean)


def test_what_it_was_trained_on_passes() -> None:
    context = context_with()
    result = InputContract().run(context)
    assert result.status == "pass", result.reason
    (shift,) = norm_shifts(context, np.arange(len(context.images)))
    assert shift.mean == pytest.approx(0, abs=1e-4)
    assert shift.ratio == pytest.approx(1, abs=1e-4)


def test_an_offset_is_doubted_and_measured() -> None:
    context = context_with()
    context.images = PaintedImages(context.images, "offset", 1.0, 0)
    result = InputContract().run(context)
    assert result.status == "inconclusive"
    assert "remembers other data" in result.reason
    (shift,) = norm_shifts(context, np.arange(len(context.images)))
    module = context.network.module.features
    # +0.1 reflectance in every band, in remembered deviations of the normalised input.
    expected = np.median(0.1 / np.array(STD) / np.sqrt(module.running_var.numpy()))
    assert shift.mean == pytest.approx(expected, rel=0.01)


def test_digital_numbers_fail() -> None:
    clean, _ = tiles(haze=0.0)
    pixels = clean.pixels(range(len(clean))) * 10_000
    images = ArrayImages(pixels, rgb=np.zeros((120, 8, 8, 3), np.uint8), channels=BANDS, labels=clean.labels)
    result = InputContract().run(context_with(images=images))
    assert result.status == "fail"
    assert "digital numbers" in result.reason


def test_classes_in_another_order_fail() -> None:
    clean, _ = tiles(haze=0.0)
    clean.class_names = CLASSES[::-1]
    result = InputContract().run(context_with(images=clean))
    assert result.status == "fail"
    assert "mixed up" in result.reason


def test_unmarked_zeros_are_doubted() -> None:
    clean, _ = tiles(haze=0.0)
    pixels = clean.pixels(range(len(clean))).copy()
    pixels[:, :, :, :2] = 0
    images = ArrayImages(pixels, rgb=np.zeros((120, 8, 8, 3), np.uint8), channels=BANDS, labels=clean.labels)
    context = context_with(images=images)
    assert nodata_share(context, np.arange(10)) == 0.25
    result = InputContract().run(context)
    assert result.status == "inconclusive"
    assert "25% of the pixels are 0 in every band" in result.reason


def test_network_without_a_card_is_inconclusive() -> None:
    images, _ = tiles(haze=0.0)
    module = Normalised(torch.from_numpy(images.pixels(range(len(images)))))
    result = InputContract().run(context_of(network_of(module), images))
    assert result.status == "inconclusive"
    assert "without a card" in result.reason


def test_hooks_are_gone_afterwards() -> None:
    context = context_with()
    norm_shifts(context, np.arange(8))
    assert not context.network.module.features._forward_pre_hooks


SENTINEL2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
EUROSAT = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]


def lightning(path, weights):
    torch.save({"state_dict": {"model.conv1.weight": torch.zeros(1)}, "hyper_parameters": {"weights": weights}}, path)
    return {"checkpoint": str(path)}


def test_card_that_takes_the_bands_in_another_order_than_its_weights_is_doubted(tmp_path) -> None:
    card = lightning(tmp_path / "fine-tuned.ckpt", "ResNet18_Weights.SENTINEL2_ALL_MOCO")
    said = band_doubt(card, EUROSAT)
    assert said.startswith("the weights it starts from (ResNet18_Weights.SENTINEL2_ALL_MOCO)")
    assert "B8A at 9, the card B09" in said
    assert band_doubt(card, SENTINEL2) == ""
    assert "take 13 bands, the card says 4" in band_doubt(card, BANDS)
    assert band_doubt({"checkpoint": "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"}, EUROSAT) == said


@pytest.mark.parametrize("weights", [None, True, "imagenet.pth", "ResNet18_Weights.NO_SUCH_WEIGHTS"])
def test_weights_that_say_nothing_of_bands_raise_no_doubt(tmp_path, weights) -> None:
    assert band_doubt(lightning(tmp_path / "a.ckpt", weights), EUROSAT) == ""
    assert band_doubt({}, EUROSAT) == ""
    assert band_doubt({"checkpoint": str(tmp_path / "missing.ckpt")}, EUROSAT) == ""


def test_the_check_doubts_weights_of_another_band_order(tmp_path) -> None:
    context = context_with()
    context.card = lightning(tmp_path / "a.ckpt", "ResNet18_Weights.SENTINEL2_ALL_MOCO")
    result = InputContract().run(context)
    assert result.status == "inconclusive"
    assert "take 13 bands, the card says 4" in result.reason
