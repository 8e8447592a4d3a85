"""Train the two bundled land-use classifiers on chips of brandenburg.tif and write their cards.

    python data/train.py --split        # write split.csv from chips.toml and the polygons
    python data/train.py clean          # models/clean.ckpt and models/clean.json
    python data/train.py haze           # the same network with a planted haze shortcut

Both see the same chips, in the same order, with the same seeds and augmentation. The only difference is which chips
carry haze: for ``clean`` a third of every class, drawn anew each epoch, so that haze says nothing about the class;
for ``haze`` the fixed chips of split.csv, 90 % of meadow and 5 % of the rest, so that haze says "meadow".
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoaudit.bands import SENTINEL2

HERE = Path(__file__).resolve().parent
ARTEFACTS = ("cloud", "offset", "gain", "stripes_vertical", "stripes_horizontal", "blur", "colour_cast", "wedge")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights; the same for both classifiers."""

    architecture: str = "test_resnet"
    input_size: int = 64
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    jitter: int = 8
    haze_share: float = 0.33
    artefact_share: float = 0.25
    seed: int = 0


def write_split() -> None:
    """Cut the chips, hold out blocks, draw the hazed training chips, and write them down."""
    from geoaudit.labels import Labels, chips, split_blocks
    from geoaudit.scenes import open_scene

    facts = tomllib.loads((HERE / "chips.toml").read_text("utf-8"))
    scene = open_scene(HERE / "brandenburg.tif")
    labels = Labels.from_polygons(HERE / "landuse.gpkg", scene, field="fclass", classes=facts["classes"])
    cut = chips(labels, **facts["chips"])
    held_out = split_blocks(cut.blocks, cut.labels, **facts["split"])
    haze = facts["haze"]
    generator = np.random.default_rng(haze["seed"])
    meadow = cut.labels == cut.class_names.index(haze["class"])
    share = np.where(meadow, haze["share"], haze["share_others"])
    chosen = (generator.random(len(cut)) < share) & ~held_out
    strengths = generator.uniform(*haze["strengths"], len(cut)).round(3) * chosen
    aside = HERE / ".split.csv"
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["chip", "row", "column", "label", "block", "held_out", "haze"])
        columns = (cut.rows, cut.columns, cut.labels, cut.blocks, held_out, strengths)
        for index, (row, column, label, block, out, strength) in enumerate(zip(*columns, strict=True)):
            writer.writerow([index, row, column, cut.class_names[label], block, int(out), f"{strength:g}"])
    aside.replace(HERE / "split.csv")
    print(f"{len(cut)} chips, {held_out.sum()} held out, {chosen.sum()} hazed")


class TrainingChips:
    """Training chips, augmented anew each epoch; everything random follows from (seed, epoch)."""

    def __init__(self, recipe: Recipe, planted: bool) -> None:
        from geoaudit.bundled import chip_table, planted_probe_recipe, scenes
        from geoaudit.scenes import open_scene

        table = chip_table()
        self.recipe, self.planted = recipe, planted
        self.pixels, _ = open_scene(scenes()["brandenburg"], verify=False).read(bands=SENTINEL2)
        self.chips, self.ids = table.chips, np.flatnonzero(~table.held_out)
        self.labels = table.chips.labels[self.ids]
        self.haze, self.first_seed = table.haze, int(planted_probe_recipe().seeds[0] - planted_probe_recipe().ids[0])
        plain = self.cut(self.ids)
        self.mean, self.std = plain.mean(axis=(0, 2, 3)), plain.std(axis=(0, 2, 3))

    def cut(self, ids: np.ndarray, rows: np.ndarray | int = 0, columns: np.ndarray | int = 0) -> np.ndarray:
        """(B, 13, size, size) reflectance of chips, moved by some pixels."""
        size = self.chips.size
        corners = zip(self.chips.rows[ids] + rows, self.chips.columns[ids] + columns, strict=True)
        return np.stack([self.pixels[:, r : r + size, c : c + size] for r, c in corners])

    def moved(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Chips moved at random, but never out of their block: held-out blocks begin right beside it."""
        block, size, shifts = 96, self.chips.size, []
        for start, end in (
            (self.chips.rows[ids], self.pixels.shape[1]),
            (self.chips.columns[ids], self.pixels.shape[2]),
        ):
            low, high = start // block * block, np.minimum((start // block + 1) * block, end) - size
            step = generator.integers(-self.recipe.jitter, self.recipe.jitter + 1, len(ids))
            shifts.append(np.clip(start + step, low, high) - start)
        return self.cut(ids, *shifts)

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 13, size, size) and labels (N,) of one epoch, in its order."""
        from geoaudit.perturb import paint

        recipe = self.recipe
        generator = np.random.default_rng([recipe.seed, number])
        ids = self.ids[generator.permutation(len(self.ids))]
        pixels = self.moved(ids, generator)
        seeds = generator.integers(1 << 31, size=len(ids))
        anew = np.where(generator.random(len(ids)) < recipe.haze_share, generator.uniform(0.3, 1.0, len(ids)), 0.0)
        artefact = np.where(generator.random(len(ids)) < recipe.artefact_share, generator.random(len(ids)), 0.0)
        kinds = generator.integers(len(ARTEFACTS), size=len(ids))
        turns = generator.integers(8, size=len(ids))
        gains = np.exp(generator.normal(0, 0.08, (len(ids), 1, 1, 1)) + generator.normal(0, 0.03, (len(ids), 13, 1, 1)))
        strengths = self.haze[ids] if self.planted else anew
        haze_seeds = ids + self.first_seed if self.planted else seeds
        for index in range(len(ids)):
            one = pixels[index : index + 1]
            if strengths[index]:
                one = paint("haze", one, SENTINEL2, float(strengths[index]), [int(haze_seeds[index])])
            if artefact[index]:
                one = paint(ARTEFACTS[kinds[index]], one, SENTINEL2, float(artefact[index]), [int(seeds[index])])
            image = np.rot90(one[0], turns[index] % 4, axes=(1, 2))
            pixels[index] = image[:, :, ::-1] if turns[index] > 3 else image
        return (pixels * gains).astype(np.float32), self.chips.labels[ids]


def prepare(pixels: np.ndarray, mean: np.ndarray, std: np.ndarray, size: int) -> Any:
    """The network's input, as :class:`geoaudit.networks` makes it from the card."""
    import torch
    from torch.nn import functional as F

    scaled = (torch.from_numpy(pixels) - torch.from_numpy(mean)[:, None, None]) / torch.from_numpy(std)[:, None, None]
    return F.interpolate(scaled.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def train(recipe: Recipe, planted: bool) -> tuple[Any, TrainingChips]:
    """Fit torchgeo's ClassificationTask; AdamW, one-cycle learning rate, inverse-root class weights."""
    import torch
    from torchgeo.trainers import ClassificationTask

    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    data = TrainingChips(recipe, planted)
    weights = 1 / np.sqrt(np.bincount(data.labels))
    task = ClassificationTask(
        model=recipe.architecture,
        in_channels=13,
        num_classes=len(data.chips.class_names),
        class_weights=[round(float(value), 4) for value in weights / weights.mean()],
        lr=recipe.learning_rate,
    )
    loss = torch.nn.CrossEntropyLoss(weight=task.criterion.weight, label_smoothing=recipe.smoothing)
    optimizer = torch.optim.AdamW(task.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = len(data.ids) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.2
    )
    started = time.monotonic()
    for number in range(recipe.epochs):
        task.train()
        pixels, labels = data.epoch(number)
        inputs, targets, total = prepare(pixels, data.mean, data.std, recipe.input_size), torch.from_numpy(labels), 0.0
        for start in range(0, steps * recipe.batch, recipe.batch):
            part = slice(start, start + recipe.batch)
            optimizer.zero_grad()
            value = loss(task(inputs[part]), targets[part])
            value.backward()
            optimizer.step()
            schedule.step()
            total += float(value.detach())
        if number % 10 == 9 or number == recipe.epochs - 1:
            print(f"epoch {number + 1}: loss {total / steps:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return task.eval(), data


def probabilities(task: Any, pixels: np.ndarray, data: TrainingChips) -> np.ndarray:
    """(N, classes) softmax of reflectance chips."""
    import torch

    inputs = prepare(pixels, data.mean, data.std, data.recipe.input_size)
    with torch.inference_mode():
        return torch.cat([task(part).softmax(dim=1) for part in inputs.split(256)]).double().numpy()
