"""Seconds a unit for Steps 1-3, beside a plain unit-by-unit loop, with the same cheap backends and the same results.

    python benchmarks/steps.py [--images 600] [--loop-units 4]

Both describe a ResNet-18 with random weights at 64 px (layers 3 and 4: 768 units) on drawn images, the paper's settings and
score, without verification. The loop does what the published code does, in our own words: for every unit it builds
the network from its file again, and pushes probe images, crops and concept images through it one by one, keeping nothing
for the next unit. It is timed on a few units. Both must choose the same labels and the same top images. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision

from dnd_core.backends.measured import MeasuredCaptioner
from dnd_core.config import CandidateConfig, DescribeConfig, ProbingConfig, SelectionConfig, VerificationConfig
from dnd_core.crops import attention_boxes
from dnd_core.hooks import record
from dnd_core.images import ArrayImages, ProbeImage
from dnd_core.networks import Network
from dnd_core.pipeline import Backends, describe
from dnd_core.protocols import Evidence
from dnd_core.scoring import order_of, score_concepts
from dnd_core.testing import DrawnSpace, draw_probe
from dnd_core.testing.words import WordVectors
from dnd_core.types import Box, Candidate

LAYERS = ("layer3", "layer4")
SIZE = 64
CONFIG = DescribeConfig(
    probing=ProbingConfig(batch_size=64),
    candidates=CandidateConfig(contrast=False, max_meanings=1),
    selection=SelectionConfig(score="topk_squared_x_image_products"),
    verification=VerificationConfig(enabled=False),
)


class CommonClauses:
    """The clauses that most of a unit's captions hold, commonest first: a summarizer that costs next to nothing."""

    fingerprint = "common-clauses"

    def propose(self, evidence: Sequence[Evidence], n: int) -> list[list[Candidate]]:
        answers = []
        for piece in evidence:
            said = collections.Counter(part.strip(" .").lower() for c in piece.captions for part in set(c.split(",")))
            ranked = sorted(said.items(), key=lambda item: (-item[1], item[0]))
            labels = [(" ".join(text.split()[:5]), count) for text, count in ranked if text]
            answers.append([Candidate(text, count) for text, count in dict(labels[:n]).items()])
        return answers


class Textures:
    """Ten images a concept, drawn from the concept's own seed: concept images that cost next to nothing."""

    fingerprint = "textures"

    def show(self, concept: str, n: int) -> list[ProbeImage]:
        rng = np.random.default_rng(list(concept.encode()))
        coarse = rng.random((n, 3, 8, 8), dtype=np.float32)
        fine = np.repeat(np.repeat(coarse, SIZE // 8, axis=2), SIZE // 8, axis=3)
        return list(ArrayImages(fine))


def network_from(path: Path) -> Network:
    module = torchvision.models.resnet18()
    module.load_state_dict(torch.load(path, weights_only=True))
    return Network(module, lambda pixels: (pixels - 0.45) / 0.22, (3, SIZE, SIZE), fingerprint="resnet18")


def maps_of(network: Network, image: ProbeImage, layer: str) -> np.ndarray:
    """(units, h, w) of one image."""
    with record(network.module, [layer]) as held:
        network(torch.from_numpy(image.pixels[None]))
    return held[layer][0].numpy()


def describe_one(path: Path, images: ArrayImages, layer: str, unit: int, backends: Backends) -> tuple[list[str], set]:
    """Labels of one unit, best first, and its top views, by a loop that shares nothing with other units."""
    network = network_from(path)
    probe, selection = CONFIG.probing, CONFIG.selection
    maps = [maps_of(network, images[i], layer)[unit] for i in range(len(images))]
    pooled = np.array([m.mean() for m in maps])
    top = np.argsort(-pooled, kind="stable")[: probe.top_k]
    views: list[tuple[float, int, Box | None, ProbeImage]] = [
        (float(pooled[i]), int(i), None, images[int(i)]) for i in top
    ]
    for i in top:
        boxes = attention_boxes(maps[i], (SIZE, SIZE), probe.crops_per_image, probe.crop_iou, probe.crop_whole_iou)
        for box in boxes:
            crop = images[int(i)].crop(box)
            views.append((float(maps_of(network, crop, layer)[unit].mean()), int(i), box, crop))
    best = sorted(views, key=lambda v: -v[0])[: probe.top_k]
    captions = [backends.captioner.caption([image])[0] for *_, image in best]
    (candidates,) = backends.summarizer.propose([Evidence(tuple(captions))], CONFIG.candidates.n)
    activations, space = [], []
    for candidate in candidates:
        shown = backends.concept_images.show(candidate.label, selection.images_per_concept)
        activations.append([float(maps_of(network, image, layer)[unit].mean()) for image in shown])
        space.append([backends.image_encoder.encode_images([image])[0] for image in shown])
    own = np.stack([backends.image_encoder.encode_images([image])[0] for *_, image in best])
    scores = score_concepts(np.array(activations), np.array(space), own, beta=selection.beta)
    order = order_of(selection.score, scores[selection.score])
    return [candidates[int(i)].label for i in order], {(i, box) for _, i, box, _ in best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600, help="drawn probe images")
    parser.add_argument("--loop-units", type=int, default=4, help="units that the loop is timed on")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = draw_probe(arguments.images, SIZE, seed=0)
    backends = Backends(MeasuredCaptioner(), CommonClauses(), Textures(), DrawnSpace(), WordVectors())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.pt"
        torch.save(torchvision.models.resnet18().state_dict(), path)
        start = time.perf_counter()
        run = describe(network_from(path), images, LAYERS, Path(folder) / "run", backends, CONFIG)
        ours = time.perf_counter() - start
        rows = {(row.layer, row.unit): row for row in run.neurons.itertuples(index=False)}
        chosen = [(LAYERS[n % 2], 37 * n % 256) for n in range(arguments.loop_units)]
        times, same_label, same_images = [], 0, 0.0
        for layer, unit in chosen:
            start = time.perf_counter()
            labels, views = describe_one(path, images, layer, unit, backends)
            times.append(time.perf_counter() - start)
            row = rows[layer, unit]
            same_label += [c["label"] for c in json.loads(row.candidates)] == labels
            found = {(int(v[0]), None if v[1] < 0 else Box(*map(int, v[1:5]))) for v in json.loads(row.top_images)}
            same_images += len(found & views) / len(views)
    units = len(rows)
    each, loop = ours / units, float(np.median(times))
    print(f"{'units described':<40}{units:>10}   in {ours:.1f} s")
    print(f"{'seconds a unit, all at once':<40}{each:>10.4f}")
    print(
        f"{'seconds a unit, unit by unit':<40}{loop:>10.3f}   {min(times):.3f} to {max(times):.3f}, {len(times)} units"
    )
    print(f"{'speedup':<40}{loop / each:>10.0f}")
    print(f"{'units with the same ranked labels':<40}{same_label:>10} of {len(chosen)}")
    print(f"{'same top images and crops':<40}{same_images / len(chosen):>10.2f}")
    print(
        json.dumps(
            {
                "seconds_per_unit": round(each, 5),
                "loop_seconds_per_unit": round(loop, 4),
                "speedup": round(loop / each, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
