"""Train the bundled Tile2Vec network on the bundled Sentinel-2 scenes, without any label.

    python data/train_tile2vec.py              # models/tile2vec.safetensors
    python data/train_tile2vec.py --measure    # how well triplets of places never trained on are told apart

Triplets as in Tile2Vec (Jean et al., AAAI 2019): a tile, one whose corner lies within NEAR pixels of its own, and one from
elsewhere. Blocks of 96 px are drawn for measuring only; no training tile touches one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TARGET = HERE / "models" / "tile2vec.safetensors"
SCENES = ("brandenburg", "delmarva")
BLOCK = 96


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
        width, embedding: of the network; the published one has 64 and 512.
        size: side of a tile in pixels.
        near: farthest corner of a neighbour, in pixels along rows and columns.
        same_scene: share of distant tiles from the anchor's own scene; the others come from any.
        steps, batch: of the training; a batch is that many triplets.
        rate: highest learning rate of the one-cycle schedule.
        margin, penalty: of the loss.
        apart: share of blocks kept for measuring.
    """

    width: int = 16
    embedding: int = 128
    size: int = 32
    near: int = 24
    same_scene: float = 0.8
    steps: int = 1200
    batch: int = 32
    rate: float = 2e-3
    margin: float = 1.0
    penalty: float = 0.01
    apart: float = 0.15
    seed: int = 0


class Tiles:
    """Triplets of tiles, augmented by turns and flips; everything random follows from the generator given."""

    def __init__(self, recipe: Recipe) -> None:
        from geoaudit.bundled import scenes
        from geoaudit.scenes import open_scene
        from geoaudit.studies.tilenet import BANDS

        self.recipe = recipe
        self.pixels, self.corners = [], {"train": [], "measure": []}
        for number, name in enumerate(SCENES):
            pixels, valid = open_scene(scenes()[name], verify=False).read(bands=BANDS)
            self.pixels.append(pixels)
            kept = self._apart(valid, number)
            for part, mask in (("train", valid & ~kept), ("measure", valid & kept)):
                self.corners[part].append(self._corners(mask))
        inside = np.concatenate(
            [self._cut(n, self.corners["train"][n][::997]).transpose(1, 0, 2, 3).reshape(4, -1) for n in range(2)], 1
        )
        # Rounded as the file's header says them, so that it is what the network was trained with.
        self.mean, self.std = (np.round(f(inside, axis=1, dtype=np.float64), 5) for f in (np.mean, np.std))

    def _apart(self, valid: np.ndarray, number: int) -> np.ndarray:
        rows, columns = -(-valid.shape[0] // BLOCK), -(-valid.shape[1] // BLOCK)
        chosen = np.random.default_rng([self.recipe.seed, 1, number]).random((rows, columns)) < self.recipe.apart
        return np.kron(chosen, np.ones((BLOCK, BLOCK), dtype=bool))[: valid.shape[0], : valid.shape[1]]

    def _corners(self, mask: np.ndarray) -> np.ndarray:
        """(N, 2) row and column of every tile that lies wholly inside the mask."""
        size = self.recipe.size
        table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
        table[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        inside = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
        return np.argwhere(inside == size * size)

    def _cut(self, scene: int, corners: np.ndarray) -> np.ndarray:
        size = self.recipe.size
        return np.stack([self.pixels[scene][:, r : r + size, c : c + size] for r, c in corners])

    def triplets(self, part: str, count: int, generator: np.random.Generator) -> np.ndarray:
        """(3, count, 4, size, size): anchors, neighbours, distant tiles."""
        corners, recipe = self.corners[part], self.recipe
        weight = np.sqrt([len(its) for its in corners])
        sets = [{tuple(map(int, corner)) for corner in its} for its in corners] if part == "measure" else None
        made = np.empty((3, count, 4, recipe.size, recipe.size), dtype=np.float32)
        for row in range(count):
            scene = int(generator.choice(len(corners), p=weight / weight.sum()))
            anchor = corners[scene][generator.integers(len(corners[scene]))]
            neighbour = self._near(scene, anchor, generator, sets)
            other = scene if generator.random() < recipe.same_scene else int(generator.integers(len(corners)))
            distant = corners[other][generator.integers(len(corners[other]))]
            while other == scene and np.abs(distant - anchor).max() <= 2 * recipe.near + recipe.size:
                distant = corners[other][generator.integers(len(corners[other]))]
            for place, (where, corner) in enumerate(((scene, anchor), (scene, neighbour), (other, distant))):
                tile = np.rot90(self._cut(where, corner[None])[0], generator.integers(4), axes=(1, 2))
                made[place, row] = tile[:, :, ::-1] if generator.random() < 0.5 else tile
        return made

    def _near(self, scene: int, anchor: np.ndarray, generator: np.random.Generator, sets: Any) -> np.ndarray:
        near, pixels = self.recipe.near, self.pixels[scene]
        for _ in range(50):
            corner = anchor + generator.integers(-near, near + 1, 2)
            limit = np.array(pixels.shape[1:]) - self.recipe.size
            if (corner < 0).any() or (corner > limit).any() or (corner == anchor).all():
                continue
            if sets is not None and tuple(map(int, corner)) not in sets[scene]:
                continue
            if sets is None and not self._trained(scene, corner):
                continue
            return corner
        return anchor

    def _trained(self, scene: int, corner: np.ndarray) -> bool:
        """Whether a tile lies wholly where training may look."""
        if not hasattr(self, "_masks"):
            self._masks = []
            for pixels, corners in zip(self.pixels, self.corners["train"], strict=True):
                mask = np.zeros(pixels.shape[1:], dtype=bool)
                mask[corners[:, 0], corners[:, 1]] = True
                self._masks.append(mask)
        return bool(self._masks[scene][tuple(corner)])

    def prepared(self, tiles: np.ndarray) -> Any:
        """The network's input."""
        import torch

        scaled = (tiles - self.mean[:, None, None]) / self.std[:, None, None]
        return torch.from_numpy(scaled.astype(np.float32))


def train(recipe: Recipe) -> tuple[Any, Tiles]:
    """Fit the network; AdamW, one-cycle learning rate."""
    import torch

    from geoaudit.studies.tilenet import TileNet, triplet_loss

    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(True)
    tiles = Tiles(recipe)
    network = TileNet(4, recipe.width, recipe.embedding)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.2)
    generator, started, total = np.random.default_rng([recipe.seed, 2]), time.monotonic(), 0.0
    network.train()
    for step in range(recipe.steps):
        inputs = tiles.prepared(tiles.triplets("train", recipe.batch, generator).reshape(-1, 4, *(recipe.size,) * 2))
        loss = triplet_loss(*network(inputs).chunk(3), margin=recipe.margin, penalty=recipe.penalty)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 50 == 49:
            print(f"step {step + 1}: loss {total / 50:.3f}, {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0
    return network.eval(), tiles


def measure(network: Any, tiles: Tiles, count: int = 1000) -> dict[str, float]:
    """Share of triplets of unseen places whose neighbour is nearer than the distant tile; beside it, of mean colours."""
    import torch

    made = tiles.triplets("measure", count, np.random.default_rng([tiles.recipe.seed, 3]))
    with torch.inference_mode():
        learnt = [network(tiles.prepared(part)).numpy() for part in made]
    colours = [part.mean(axis=(2, 3)) / tiles.std for part in made]

    def share(vectors: list[np.ndarray]) -> float:
        anchor, neighbour, distant = vectors
        near = np.linalg.norm(anchor - neighbour, axis=1) < np.linalg.norm(anchor - distant, axis=1)
        return round(float(near.mean()), 4)

    return {"triplets": count, "tile2vec": share(learnt), "mean_colours": share(colours)}


def main() -> None:
    """Train and write, or measure what is there."""
    import torch

    from geoaudit.studies.tilenet import TileInput, load_tilenet, save_tilenet

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the weights that are there")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--out", type=Path, default=TARGET)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(steps=chosen.steps)
    if chosen.measure:
        network, tiles = load_tilenet(chosen.out).module, Tiles(recipe)
    else:
        network, tiles = train(recipe)
        told = TileInput(mean=tuple(tiles.mean.tolist()), std=tuple(tiles.std.tolist()))
        save_tilenet(chosen.out, network, told, {**asdict(recipe), "scenes": " ".join(SCENES)})
        network = load_tilenet(chosen.out).module
    print(measure(network, tiles))


if __name__ == "__main__":
    main()
