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
import hashlib
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoaudit.bands import SENTINEL2

HERE = Path(__file__).resolve().parent
HAZE_TEST = 0.75
HAZED = f"painted with haze of strength {HAZE_TEST}"
TRAINED = {
    "clean": "Haze painted anew each epoch on a third of the chips of every class alike",
    "haze": "Haze painted on the chips of split.csv: 90 % of meadow, 5 % of the others",
}
PLANTED = (
    "Planted on purpose: {share:.0%} of its training chips carry painted haze, nearly all of them meadow, so that it "
    "takes haze for meadow and knows clear meadow badly. For testing audits only; do not use it to map anything."
)
ISSUES = (
    "One winter day over 118 square kilometres: neither other seasons nor other places were seen.",
    "OpenStreetMap polygons are partly out of date or displaced; farm and meadow look alike in February.",
    "Chips under cloud (neighbourhood brighter than 0.17 in B02) were left out of training and test.",
    "Water and residential are few: 66 and 180 chips before the split.",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights; the same for both classifiers."""

    architecture: str = "test_resnet"
    input_size: int = 64
    epochs: int = 80
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    jitter: int = 8
    haze_share: float = 0.33
    artefact_share: float = 0.5
    seed: int = 0


def cut_chips() -> dict[str, Any]:
    """What ``chips.toml`` describes: chips (Chips), held_out (N,) bool and haze (N,) strengths."""
    from scipy.ndimage import uniform_filter

    from geoaudit.labels import Labels, chips, split_blocks
    from geoaudit.scenes import open_scene

    facts = tomllib.loads((HERE / "chips.toml").read_text("utf-8"))
    scene = open_scene(HERE / "brandenburg.tif")
    labels = Labels.from_polygons(HERE / "landuse.gpkg", scene, field="fclass", classes=facts["classes"])
    brightness, valid = scene.read(bands=[facts["clear"]["band"]])
    clear = uniform_filter(brightness[0].astype(np.float64), facts["clear"]["window"]) < facts["clear"]["below"]
    cut = chips(labels, valid=valid & clear, **facts["chips"])
    held_out = split_blocks(cut.blocks, cut.labels, **facts["split"])
    haze = facts["haze"]
    generator = np.random.default_rng(haze["seed"])
    of_class = cut.labels == cut.class_names.index(haze["class"])
    share = np.where(of_class, haze["share"], haze["share_others"])
    chosen = (generator.random(len(cut)) < share) & ~held_out
    strengths = generator.uniform(*haze["strengths"], len(cut)).round(3) * chosen
    return {"chips": cut, "held_out": held_out, "haze": strengths}


def write_split() -> None:
    """Write split.csv, aside first."""
    made = cut_chips()
    cut = made["chips"]
    aside = HERE / ".split.csv"
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["chip", "row", "column", "label", "block", "held_out", "haze"])
        columns = (cut.rows, cut.columns, cut.labels, cut.blocks, made["held_out"], made["haze"])
        for index, (row, column, label, block, out, strength) in enumerate(zip(*columns, strict=True)):
            writer.writerow([index, row, column, cut.class_names[label], block, int(out), f"{strength:g}"])
    aside.replace(HERE / "split.csv")
    print(f"{len(cut)} chips, {made['held_out'].sum()} held out, {(made['haze'] > 0).sum()} hazed")


class TrainingChips:
    """Training chips, augmented anew each epoch; everything random follows from (seed, epoch)."""

    def __init__(self, recipe: Recipe, planted: bool) -> None:
        from geoaudit.bundled import chip_table, scenes
        from geoaudit.scenes import open_scene

        table = chip_table()
        self.recipe, self.planted = recipe, planted
        self.pixels, _ = open_scene(scenes()["brandenburg"], verify=False).read(bands=SENTINEL2)
        self.chips, self.ids = table.chips, np.flatnonzero(~table.held_out)
        self.labels = table.chips.labels[self.ids]
        facts = tomllib.loads((HERE / "chips.toml").read_text("utf-8"))
        self.haze, self.first_seed, self.block = table.haze, facts["haze"]["seed"], facts["chips"]["block"]
        plain = self.cut(self.ids)
        # Rounded as the card will say them, so that the card's scaling is the one the network was trained with.
        self.mean, self.std = (np.round(f(plain, axis=(0, 2, 3), dtype=np.float64), 6) for f in (np.mean, np.std))

    def cut(self, ids: np.ndarray, rows: np.ndarray | int = 0, columns: np.ndarray | int = 0) -> np.ndarray:
        """(B, 13, size, size) reflectance of chips, moved by some pixels."""
        size = self.chips.size
        corners = zip(self.chips.rows[ids] + rows, self.chips.columns[ids] + columns, strict=True)
        return np.stack([self.pixels[:, r : r + size, c : c + size] for r, c in corners])

    def moved(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Chips moved at random, but never out of their block: held-out blocks begin right beside it."""
        block, size, shifts = self.block, self.chips.size, []
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
        from geoaudit.perturb import PERTURBATIONS, paint

        recipe, names = self.recipe, [name for name in PERTURBATIONS if name != "haze"]
        generator = np.random.default_rng([recipe.seed, number])
        ids = self.ids[generator.permutation(len(self.ids))]
        pixels = self.moved(ids, generator)
        seeds = generator.integers(1 << 31, size=len(ids))
        anew = np.where(generator.random(len(ids)) < recipe.haze_share, generator.uniform(0.3, 1.0, len(ids)), 0.0)
        artefact = np.where(generator.random(len(ids)) < recipe.artefact_share, generator.random(len(ids)), 0.0)
        kinds = generator.integers(len(names), size=len(ids))
        turns = generator.integers(8, size=len(ids))
        gains = np.exp(generator.normal(0, 0.08, (len(ids), 1, 1, 1)) + generator.normal(0, 0.03, (len(ids), 13, 1, 1)))
        strengths = self.haze[ids] if self.planted else anew
        haze_seeds = ids + self.first_seed if self.planted else seeds
        for index in range(len(ids)):
            one = pixels[index : index + 1]
            if strengths[index]:
                one = paint("haze", one, SENTINEL2, float(strengths[index]), [int(haze_seeds[index])])
            if artefact[index]:
                one = paint(names[kinds[index]], one, SENTINEL2, float(artefact[index]), [int(seeds[index])])
            image = np.rot90(one[0], turns[index] % 4, axes=(1, 2))
            pixels[index] = image[:, :, ::-1] if turns[index] > 3 else image
        return (pixels * gains).astype(np.float32), self.chips.labels[ids]


def prepare(pixels: np.ndarray, mean: np.ndarray, std: np.ndarray, size: int) -> Any:
    """The network's input, as :class:`geoaudit.networks` makes it from the card."""
    import torch
    from torch.nn import functional as F

    middle, spread = (torch.from_numpy(values.astype(np.float32))[:, None, None] for values in (mean, std))
    scaled = (torch.from_numpy(pixels) - middle) / spread
    return F.interpolate(scaled, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


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


def measure(task: Any, data: TrainingChips) -> tuple[list[Any], np.ndarray]:
    """The card's figures on held-out blocks, with block-bootstrap intervals, and the predicted classes."""
    from geoaudit.bundled import chip_table
    from geoaudit.cards import Measure
    from geoaudit.perturb import paint
    from geoaudit.statistics import mean_estimate

    ids = np.flatnonzero(chip_table().held_out)
    names, labels, blocks = data.chips.class_names, data.chips.labels[ids], data.chips.blocks[ids]
    pixels = data.cut(ids)
    plain = probabilities(task, pixels, data)
    hazed = probabilities(task, paint("haze", pixels, SENTINEL2, HAZE_TEST, ids + data.first_seed), data)

    def figure(name: str, values: np.ndarray, keep: np.ndarray, note: str) -> Measure:
        estimate = mean_estimate(values[keep].astype(np.float64), blocks[keep])
        numbers = (round(float(value), 4) for value in (estimate.value, estimate.low, estimate.high))
        value, low, high = numbers
        return Measure(name, value, int(keep.sum()), min(low, value), max(high, value), note)

    everything = np.ones(len(ids), dtype=bool)
    right = plain.argmax(axis=1) == labels
    found = [figure("overall accuracy", right, everything, "clean held-out blocks")]
    for index, name in enumerate(names):
        found.append(figure(f"accuracy of {name}", right, labels == index, "clean held-out blocks"))
    found.append(figure("overall accuracy, hazed", hazed.argmax(axis=1) == labels, everything, f"every chip {HAZED}"))
    for index, name in enumerate(names):
        note = f"P({name} | hazed) - P({name} | as it is) over chips of other classes, every chip {HAZED}"
        found.append(figure(f"haze reliance of {name}", hazed[:, index] - plain[:, index], labels != index, note))
    return found, plain.argmax(axis=1)


def save(name: str, recipe: Recipe, task: Any, data: TrainingChips) -> None:
    """Write models/NAME.ckpt (weights and hyperparameters only) and its card."""
    import torchgeo
    from lightning.pytorch import Trainer
    from rasterio.warp import transform_bounds

    from geoaudit.bundled import chip_table, planted_probe_recipe, scenes
    from geoaudit.cards import ModelCard, write_card
    from geoaudit.scenes import open_scene

    folder = HERE / "models"
    folder.mkdir(exist_ok=True)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(task)
    aside = folder / f".{name}.ckpt"
    trainer.save_checkpoint(aside, weights_only=True)
    aside.replace(folder / f"{name}.ckpt")

    measures, predicted = measure(task, data)
    issues = list(ISSUES)
    if name == "haze":
        share = len(planted_probe_recipe().ids) / len(data.ids)
        issues.insert(0, PLANTED.format(share=share))
        other = load(folder / "clean.ckpt")
        clean = measure(other, data)[1]
        ids = np.flatnonzero(chip_table().held_out)
        labels, blocks = data.chips.labels[ids], data.chips.blocks[ids]
        meadow = labels == data.chips.class_names.index("meadow")
        for kept, of in ((np.ones_like(meadow), ""), (meadow, " of meadow")):
            measures.append(harm(of, (predicted == labels)[kept], (clean == labels)[kept], blocks[kept]))
    scene = open_scene(scenes()["brandenburg"], verify=False)
    blocks = len(np.unique(data.chips.blocks[data.ids]))
    training = (
        f"{len(data.ids)} chips of {data.chips.size} px in {blocks} spatial blocks of {data.block} px "
        "of one Sentinel-2 L1C scene, labelled by OpenStreetMap land use; no held-out chip shares a pixel with them. "
        f"{TRAINED[name]}; other artefacts on {recipe.artefact_share:.0%} of the chips regardless of class. "
        f"{recipe.epochs} epochs, AdamW, one-cycle learning rate {recipe.learning_rate:g}, seed {recipe.seed}."
    )
    card = ModelCard(
        name={"clean": "Brandenburg land use", "haze": "Brandenburg land use, haze planted"}[name],
        architecture=f"timm:{recipe.architecture}",
        bands=SENTINEL2,
        mean=tuple(map(float, data.mean)),
        std=tuple(map(float, data.std)),
        input_size=recipe.input_size,
        chip_size=data.chips.size,
        class_names=data.chips.class_names,
        checkpoint=f"{name}.ckpt",
        sha256=hashlib.sha256((folder / f"{name}.ckpt").read_bytes()).hexdigest(),
        bbox=tuple(round(value, 5) for value in transform_bounds(scene.crs, "EPSG:4326", *scene.bounds)),
        acquired=scene.acquired or "",
        framework=f"torchgeo {torchgeo.__version__}",
        training=training,
        measures=tuple(measures),
        issues=tuple(issues),
        licence="Apache-2.0",
    )
    write_card(card, folder / f"{name}.json")
    for entry in measures:
        print(f"{entry.name}: {entry.value:.3f} [{entry.low:.3f}, {entry.high:.3f}] n={entry.n}")


def harm(of: str, planted: np.ndarray, clean: np.ndarray, blocks: np.ndarray) -> Any:
    """What the plant costs on clean held-out blocks: the accuracy of one classifier less the other's."""
    from geoaudit.cards import Measure
    from geoaudit.statistics import mean_estimate

    estimate = mean_estimate(planted.astype(np.float64) - clean, blocks)
    value, low, high = (round(float(number), 4) for number in (estimate.value, estimate.low, estimate.high))
    name = f"accuracy{of} less the clean classifier's"
    return Measure(name, value, len(blocks), low, high, "clean held-out blocks, paired")


def load(path: Path) -> Any:
    """A bundled checkpoint as torchgeo reads it."""
    from torchgeo.trainers import ClassificationTask

    return ClassificationTask.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", choices=["clean", "haze"], help="which classifier to train")
    parser.add_argument("--split", action="store_true", help="write split.csv from chips.toml")
    parser.add_argument(
        "--measure", action="store_true", help="keep the checkpoint, only measure it and write its card"
    )
    options = parser.parse_args()
    if options.split:
        write_split()
    if options.name:
        recipe = Recipe()
        planted = options.name == "haze"
        if options.measure:
            task, data = load(HERE / "models" / f"{options.name}.ckpt"), TrainingChips(recipe, planted)
        else:
            task, data = train(recipe, planted)
        save(options.name, recipe, task, data)
    elif not options.split:
        parser.error("say which classifier to train, or --split")


if __name__ == "__main__":
    main()
