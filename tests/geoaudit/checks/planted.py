"""Tiny networks whose weights are set by hand, on drawn tiles: what each check must find is known beforehand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnd_core.images import ArrayImages
from dnd_core.layers import resolve
from dnd_core.networks import Network
from dnd_core.probing import activate
from geoaudit.checks.base import AuditContext
from geoaudit.perturb import paint

BANDS = ("B02", "B03", "B04", "B11")
CLASSES = ("field", "forest", "water")
# Haze hardly reaches B11, so a network that reads the class there has no reason to care about it.
SPECTRA = np.array([[0.06, 0.12, 0.18, 0.40], [0.03, 0.06, 0.04, 0.20], [0.05, 0.04, 0.02, 0.02]])
HAZE_UNITS, UNITS, SIDE = (3, 4, 5), 60, 8
HAZE_NAMES = [f"features/{unit}" for unit in HAZE_UNITS]


class WordVectors:
    """A text encoder under which texts are alike as far as they share words."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([sum((self._word(word) for word in text.casefold().split()), np.zeros(64)) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.sha256(word.strip(",.").encode()).digest()[:4], "big")
        return np.random.default_rng(seed).standard_normal(64)


def tiles(n: int = 120, haze: float = 0.1, seed: int = 0) -> tuple[ArrayImages, NDArray[np.bool_]]:
    """Noisy flat tiles of three classes in twelve blocks; every class is hazed alike, so haze predicts nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    noise = rng.normal(0, 0.005, (n, len(BANDS), SIDE, SIDE))
    pixels = np.clip(SPECTRA[labels][:, :, None, None] + noise, 0.001, None).astype(np.float32)
    hazed = rng.random(n) < haze
    pixels[hazed] = paint("haze", pixels[hazed], BANDS, 0.6, seed)
    blocks = (np.arange(n) // 3) % 12
    metadata = [
        {"crs": "EPSG:32633", "bounds": (500_000 + 80 * i, 5_800_000, 500_080 + 80 * i, 5_800_080)} for i in range(n)
    ]
    rgb = (np.clip(pixels[:, [2, 1, 0]], 0, 0.4) / 0.4 * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    images = ArrayImages(
        pixels,
        rgb=np.ascontiguousarray(rgb),
        channels=BANDS,
        labels=labels.astype(np.int64),
        class_names=CLASSES,
        blocks=blocks.astype(np.int64),
        metadata=metadata,
    )
    return images, hazed


class Classifier(nn.Module):
    """Sixty pixel-wise units, averaged over space, read by a linear head.

    Unit 0 is the class (B11), units 3 to 5 fire on haze (blue above what clear ground has), the others are noise of
    like size.
    """

    def __init__(self, planted: float) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        conv, head = nn.Conv2d(len(BANDS), UNITS, 1), nn.Linear(UNITS, len(CLASSES))
        with torch.no_grad():
            conv.weight[:] = (torch.rand(UNITS, len(BANDS), generator=rng) - 0.3)[:, :, None, None]
            conv.bias[:] = 0.02
            haze = [(unit, (1, 0, 0, 0), -0.09) for unit in HAZE_UNITS]
            for unit, weights, bias in [(0, (0, 0, 0, 1), 0.0), *haze]:
                conv.weight[unit, :, 0, 0], conv.bias[unit] = torch.tensor(weights, dtype=torch.float32), bias
            head.weight[:] = (torch.rand(len(CLASSES), UNITS, generator=rng) - 0.5) * 0.2
            head.weight[:, 0] = torch.tensor([50.0, 0.0, -50.0])
            head.bias[:] = torch.tensor([-15.0, 0.0, 5.5])
            head.weight[:, HAZE_UNITS] = torch.tensor([0.0, 0.0, planted / len(HAZE_UNITS)])[:, None]
        self.features, self.head = nn.Sequential(conv, nn.ReLU()), head

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Tensor = self.head(self.features(pixels).mean(dim=(2, 3)))
        return answer


def network_of(module: nn.Module, side: int = SIDE, preprocess: Any = None, bands: Sequence[str] = BANDS) -> Network:
    return Network(
        module,
        preprocess or (lambda pixels: pixels),
        (len(bands), side, side),
        channels=tuple(bands),
        class_names=CLASSES,
        name="planted",
    )


def context_of(
    network: Network, images: ArrayImages, layers: Sequence[str] = ("features", "output"), **given: Any
) -> AuditContext:
    """An audit's context as the pipeline makes it, without describing anything."""
    infos = tuple(resolve(network, layers))
    activations = activate(network, infos, images.pixels(range(len(images))))
    logits = activations.get("output")
    if logits is None:
        logits = activate(network, resolve(network, ["output"]), images.pixels(range(len(images))))["output"]
    neurons = pd.DataFrame(
        [
            {"layer": info.name, "unit": unit, "status": "labelled", "label": "haze", "group": -1, "r": 0.5}
            for info in infos
            for unit in range(info.units)
        ]
    )
    values: dict[str, Any] = {
        "neurons": neurons,
        "groups": pd.DataFrame(columns=["group", "name", "units"]),
        "encoder": WordVectors(),
        "definitions": {},
        "evaluated": np.arange(len(images)),
        "draws": 400,
    }
    return AuditContext(
        network=network, images=images, layers=infos, activations=activations, logits=logits, **{**values, **given}
    )


def planted_context(planted: float, concept: str = "haze", **given: Any) -> AuditContext:
    """The classifier on its tiles, the haze unit published as a concept group; ``planted`` 0 leaves it unused."""
    images, hazed = tiles()
    captions = ["haze over ground" if h else "clear ground" for h in hazed]
    network = network_of(Classifier(planted))
    groups = pd.DataFrame([{"group": 0, "name": concept, "units": json.dumps(HAZE_NAMES), "threshold": 0.9}])
    context = context_of(network, images, groups=groups, captions=captions, **given)
    context.neurons.loc[context.neurons["unit"].isin(HAZE_UNITS), "group"] = 0
    return context
