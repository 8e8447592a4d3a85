"""The networks of the bench: one backbone a seed, tuned for a few epochs on the imagery of each case, kept on disk.

Every network is trained with the care that a good team takes: flips and turns, gains, shifts of brightness, and artefacts
of all families but the planted one on most chips, regardless of class. What it leans on after that, it learned from its case.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoaudit.bench.shortcuts.cases import Case
from geoaudit.bench.shortcuts.chips import BenchChips, Imagery
from geoaudit.bench.shortcuts.plants import ARTEFACTS, EVERYDAY
from geoaudit.probes.base import Pixels

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dnd_core.networks import Network

__all__ = ["LAYERS", "as_network", "make_base", "make_model"]

LAYERS = ("layer3", "output")
BASE_EPOCHS, EPOCHS, BATCH, RATE = 70, 9, 64, 2e-3
CARE, SHIFTED = 0.8, 0.2
CASES_A_BASE = 1000
"""Seeds that are equal modulo this number start from one backbone."""
WIDTHS = (32, 48, 64, 64)


def build(channels: int, classes: int) -> nn.Module:
    """A small convolutional classifier with named stages, the last of 64 units."""
    from collections import OrderedDict

    from torch import nn

    def stage(before: int, after: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())

    stem, one, two, three = WIDTHS
    return nn.Sequential(
        OrderedDict(
            stem=stage(channels, stem, 2),
            layer1=stage(stem, one, 1),
            layer2=stage(one, two, 2),
            layer3=stage(two, three, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(three, classes),
        )
    )


class _Scaled:
    """Reflectance to the network's input."""

    def __init__(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        import torch

        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(std)

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


def as_network(module: Any, chips: BenchChips) -> Network:
    """The module with its preprocessing, as the auditor takes it."""
    from dnd_core.networks import Network

    shape = chips.probe.shape
    return Network(module, _Scaled(*chips.scaling), shape, chips.channels, chips.class_names, "bench network")


def make_base(seed: int, chips: BenchChips, folder: Path) -> Path:
    """Where the backbone that a seed's networks start from is kept; trained first where it is not."""
    import torch

    start = seed % CASES_A_BASE
    base = folder / f"base_{start}.safetensors"
    if not base.is_file():
        everything = Imagery(chips.train, np.zeros(len(chips.train), dtype=bool), "")
        torch.manual_seed(start)
        module = build_into(build(len(chips.channels), len(chips.class_names)))
        _fit(module, chips, everything, start, BASE_EPOCHS, RATE)
        _keep(module, base)
    return base


def make_model(case: Case, chips: BenchChips, folder: Path) -> Network:
    """The network of a case, trained now or read from ``folder``.

    Weights are written aside as safetensors and renamed, so a kill leaves no half model.
    """
    from safetensors.torch import load_file

    module = build(len(chips.channels), len(chips.class_names))
    base = make_base(case.seed, chips, folder)
    own = folder / f"{case.name}.safetensors"
    if own.is_file():
        module.load_state_dict(load_file(own))
        return as_network(module, chips)
    module.load_state_dict(load_file(base))
    _fit(module, chips, chips.imagery(case), case.seed, EPOCHS, RATE)
    _keep(module, own)
    return as_network(module, chips)


def build_into(module: Any) -> Any:
    """The module with weights drawn anew from the seed in force."""
    module.apply(lambda part: part.reset_parameters() if hasattr(part, "reset_parameters") else None)
    return module


def _keep(module: Any, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".writing")
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, aside)
    aside.replace(path)


def _fit(module: Any, chips: BenchChips, imagery: Imagery, seed: int, epochs: int, rate: float) -> None:
    import torch
    from torch.nn import functional as F

    scaled = _Scaled(*chips.scaling)
    labels = chips.labels[imagery.ids]
    weights = 1 / np.sqrt(np.maximum(np.bincount(labels, minlength=len(chips.class_names)), 1))
    weight = torch.from_numpy((weights / weights.mean()).astype(np.float32))
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.02)
    steps = max(1, len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.25)
    module.train()
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch, 3])
        order = rng.permutation(len(labels))
        pixels = _shown(chips, imagery, rng)
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            inputs = scaled(_turned(torch.from_numpy(pixels[rows]), rng))
            loss = F.cross_entropy(module(inputs), torch.from_numpy(labels[rows]), weight=weight, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    module.eval()


def _shown(chips: BenchChips, imagery: Imagery, rng: np.random.Generator) -> Pixels:
    """One epoch's pixels: the plants where they are, gains on all, other families' artefacts on most chips."""
    pixels = chips.pixels[imagery.ids]
    others = [name for name in (*ARTEFACTS, *EVERYDAY) if name != imagery.family]
    kind = rng.integers(len(others), size=len(imagery.ids))
    careful = (rng.random(len(imagery.ids)) < CARE) & ~imagery.planted
    for number, name in enumerate(others):
        rows = careful & (kind == number)
        pixels[rows] = chips.planted(name)[imagery.ids[rows]]
    if imagery.planted.any():
        pixels[imagery.planted] = chips.planted(imagery.family)[imagery.ids[imagery.planted]]
    gains = np.exp(rng.normal(0, 0.06, (len(pixels), 1)) + rng.normal(0, 0.04, (len(pixels), pixels.shape[1])))
    shifts = rng.uniform(0, 0.1, len(pixels)) * (rng.random(len(pixels)) < SHIFTED) * (imagery.family != "offset")
    for image, gain, shift in zip(pixels, gains.astype(np.float32), shifts.astype(np.float32), strict=True):
        lost = image == 0
        image *= gain[:, None, None]
        image += shift
        # What holds no data stays without.
        image[lost] = 0
    return pixels


def _turned(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Each chip turned and flipped at random."""
    import torch

    turns = rng.integers(8, size=len(pixels))
    parts = []
    for image, turn in zip(pixels, turns, strict=True):
        turned = torch.rot90(image, int(turn % 4), (1, 2))
        parts.append(turned.flip(2) if turn > 3 else turned)
    return torch.stack(parts)


Progress = Callable[[str, int, int], None]
