"""The contract of a check, and what every check may ask of an audit: predictions, painted copies, ablations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.config import Pooling
from dnd_core.images import ImageSet, ProbeImage, Subset
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from dnd_core.protocols import TextEncoder
from dnd_core.store import fingerprint
from geoaudit.findings import CheckResult
from geoaudit.perturb import paint

if TYPE_CHECKING:
    from dnd_core.presence import CaptionIndex
    from geoaudit.checks.nulls import NullTest
    from geoaudit.checks.pairing import CaptionSpace

__all__ = ["AuditContext", "Check", "choose_evaluated"]

# A caption says that a concept is there from this presence on: half the words and the meaning of a clause over part of a tile.
SAID = 0.5

Floats = NDArray[np.float64]


class Check(Protocol):
    """One hypothesis about a network, tested.

    Attributes:
        rule: its id, in kebab case.
        title: what it looks for, in plain words.
        needs: any of ``labels``, ``georeference``, ``bands``, ``classes``, ``groups``; without them it reports
            ``not_run``.
        cost: how its time grows.
        null: what chance looks like.
    """

    rule: str
    title: str
    needs: tuple[str, ...]
    cost: str
    null: str

    def run(self, context: AuditContext) -> CheckResult:
        """Test the hypothesis on this audit."""
        ...


class PaintedImages(Subset):
    """The images of another set with an artefact painted on every one as it is read.

    Args:
        images: the clean set.
        artefact: a name of :data:`geoaudit.perturb.PERTURBATIONS`.
        strength: in [0, 1].
        seed: with an image's index it decides where the artefact lies on that image.
    """

    def __init__(self, images: ImageSet, artefact: str, strength: float, seed: int) -> None:
        super().__init__(images, range(len(images)))
        self.artefact, self.strength, self.seed = artefact, strength, seed
        self.fingerprint = fingerprint([images.fingerprint, artefact, strength, seed])

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        seeds = [self.seed * 1_000_003 + int(index) for index in indices]
        return paint(self.artefact, super().pixels(indices), self.channels, self.strength, seeds)

    def __getitem__(self, index: int) -> ProbeImage:
        image = super().__getitem__(index)
        return replace(image, pixels=self.pixels([index])[0], key="")


@dataclass(eq=False)
class AuditContext:
    """A described network on its probe set, with what checks share so that nothing is computed twice.

    Attributes:
        network: the audited network.
        images: the probe set.
        layers: the layers described.
        neurons, groups: tables of the run.
        activations: layer name to (images, units) pooled activations.
        logits: (images, classes).
        encoder: sentence encoder.
        definitions: the user's class definitions, by class name.
        evaluated: image indices on which causal tests run.
        seed: of every draw.
        draws: bootstrap and permutation draws.
        pooling: how activations were pooled.
        batch_size: images a forward pass.
        captions: of every image, empty where none was made; or None.
        held_out: indices of the images kept from describing.
        tables: rows for the run's tables, by table.
        chance_gaps: ablation gaps of random unit sets.
        null_tests: every test made again on shuffled labels, from which the false-alarm rate is measured.
        card: what the run knows of the model beyond its weights: ``checkpoint``, a path or ``torchgeo:NAME``.
        report: progress callback (stage, done, total).
    """

    network: Network
    images: ImageSet
    layers: tuple[LayerInfo, ...]
    neurons: pd.DataFrame
    groups: pd.DataFrame
    activations: Mapping[str, NDArray[np.float32]]
    logits: NDArray[np.float32]
    encoder: TextEncoder
    definitions: Mapping[str, str]
    evaluated: NDArray[np.int64]
    captions: Sequence[str] | None = None
    held_out: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seed: int = 0
    draws: int = 1000
    pooling: Pooling = "mean"
    batch_size: int = 128
    card: Mapping[str, Any] = field(default_factory=dict)
    report: Callable[[str, int, int], None] = lambda stage, done, total: None
    chance_gaps: list[float] = field(default_factory=list)
    null_tests: list[NullTest] = field(default_factory=list)
    _painted: dict[tuple[str, float], NDArray[np.float32]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's classes."""
        return self.network.class_names or tuple(f"class {i}" for i in range(self.logits.shape[1]))

    @cached_property
    def probabilities(self) -> Floats:
        """(images, classes) softmax of the logits."""
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        scores = np.exp(shifted)
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(images,) class of highest logit."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @cached_property
    def reference(self) -> NDArray[np.int64]:
        """(images,) true classes where known, else the clean predictions: which images are not of class c."""
        labels = self.images.labels
        return self.predicted if labels is None else np.where(labels >= 0, labels, self.predicted)

    @cached_property
    def blocks(self) -> NDArray[np.int64] | None:
        """(images,) spatial blocks."""
        return self.images.blocks

    def blocks_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Blocks of some images, or None where there is only one (independent rows are then assumed)."""
        if self.blocks is None:
            return None
        part = self.blocks[indices]
        return part if len(np.unique(part)) > 1 else None

    def batches(self, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The indices in batches."""
        return [indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size)]

    def answer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, classes) logits of (B, C, H, W) pixels."""
        import torch

        logits = self.network(torch.from_numpy(np.ascontiguousarray(pixels)))
        if logits.ndim == 4:
            logits = logits.mean(dim=(2, 3))
        return np.asarray(logits.float().numpy(), dtype=np.float32)

    def painted_images(self, name: str, strength: float) -> PaintedImages:
        """The probe with an artefact on every image, each image's own seed."""
        return PaintedImages(self.images, name, strength, self.seed)

    def painted(self, name: str, strength: float) -> NDArray[np.float32]:
        """(evaluated, classes) logits of the evaluated images with an artefact painted on them; computed once."""
        key = (name, strength)
        if key not in self._painted:
            images = self.painted_images(name, strength)
            parts = [self.answer(images.pixels(rows.tolist())) for rows in self.batches(self.evaluated)]
            self._painted[key] = np.concatenate(parts)
        return self._painted[key]

    @cached_property
    def about(self) -> tuple[Mapping[str, Any], ...]:
        """What each image knows of itself. Asked once: a set reads, and paints, an image to answer."""
        return tuple(self.images[index].metadata for index in range(len(self.images)))

    @cached_property
    def caption_index(self) -> CaptionIndex | None:
        """The captions, made ready to be asked for many concepts; None without captions."""
        from dnd_core.presence import CaptionIndex

        return None if self.captions is None else CaptionIndex(self.captions, self.encoder)

    @cached_property
    def caption_space(self) -> CaptionSpace | None:
        """The captions taken apart, so that images can be compared beside a concept; None without captions."""
        from geoaudit.checks.pairing import CaptionSpace

        return None if self.captions is None else CaptionSpace(self.captions, self.encoder)

    def shows(self, concept: str) -> NDArray[np.bool_] | None:
        """(images,) whether each image's caption says that the concept is there; None without captions."""
        # A caption that was never made is empty, and an empty caption says nothing.
        return None if self.caption_index is None else np.asarray(self.caption_index.presence([concept])[0] >= SAID)

    def footprint(self, chosen: NDArray[np.bool_]) -> dict[str, Any] | None:
        """The ground that some of the probe's images cover, as a GeoJSON geometry; None where nobody knows."""
        from pyproj import Transformer
        from shapely import box, set_precision, transform, union_all
        from shapely.geometry import mapping

        places = [self.about[int(i)] for i in np.flatnonzero(chosen)]
        systems = {place.get("crs") for place in places}
        if len(systems) != 1 or None in systems or not all(place.get("bounds") for place in places):
            return None
        ground = union_all([box(*place["bounds"]) for place in places])
        to_degrees = Transformer.from_crs(systems.pop(), "EPSG:4326", always_xy=True)
        degrees = transform(ground, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
        shape: dict[str, Any] = json.loads(json.dumps(mapping(set_precision(degrees, 1e-6))))
        return shape

    def sighted(self, concept: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
        """Images from which the concept's share of the area is counted, and which of them show it; None without captions.

        Held-out images where there are any: the others were captioned because units fire on them.
        """
        said = self.shows(concept)
        if said is None or self.captions is None:
            return None
        known = np.array([bool(caption) for caption in self.captions])
        kept = np.zeros(len(known), dtype=bool)
        kept[self.held_out] = True
        rows = np.flatnonzero(known & kept if (known & kept).any() else known)
        return (rows, said[rows]) if len(rows) else None

    def prevalence(self, concept: str) -> float | None:
        """Share of the probe whose captions say that the concept is there; None without captions."""
        found = self.sighted(concept)
        return None if found is None else float(found[1].mean())

    def area_in_sight(self, concept: str, target: int) -> tuple[tuple[float, float, float] | None, str]:
        """Hectares that are called class c and show the concept, with a 95 % interval, and what they are, in words."""
        found = self.sighted(concept)
        if found is None:
            return None, ""
        rows, shown = found
        area = self.area_of(rows, shown & (self.predicted[rows] == target), np.ones(len(rows)))
        return area, f"ground called {self.class_names[target]} that shows {concept}" if area is not None else ""

    @cached_property
    def hectares(self) -> float | None:
        """Area on the ellipsoid covered by the probe's images, overlaps counted once; None where one has no place."""
        from pyproj import CRS
        from shapely import box, get_parts, union_all

        from geoaudit.areas import geometry_areas_ha

        grounds: dict[str, list[Any]] = {}
        for about in self.about:
            if not about.get("crs") or not about.get("bounds"):
                return None
            grounds.setdefault(str(about["crs"]), []).append(box(*about["bounds"]))
        # A local grid has no place on Earth, so nobody knows how large its units are.
        if any(CRS.from_user_input(crs).geodetic_crs is None for crs in grounds):
            return None
        return float(sum(geometry_areas_ha(list(get_parts(union_all(g))), crs).sum() for crs, g in grounds.items()))

    def area_of(
        self, rows: NDArray[np.int64], affected: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
    ) -> tuple[float, float, float] | None:
        """Hectares of the probe for which a sample of images stands: estimate and 95 % interval, or None unplaced.

        Args:
            rows: (n,) image indices.
            affected: (n,) which of them count.
            weights: (n,) images each stands for; by default those of the evaluated images.
        """
        from geoaudit.accuracy import affected_area

        blocks = self.blocks_of(rows)
        if self.hectares is None or len(rows) < 2:
            return None
        given = self.sample_weights[rows] if weights is None else weights
        found = affected_area(affected, given, blocks, total=self.hectares, n=self.draws, seed=self.seed)
        return found.value, found.low, found.high

    @cached_property
    def sample_weights(self) -> NDArray[np.float64]:
        """(images,) how many images of its class each evaluated image stands for."""
        weights = np.ones(len(self.reference))
        for name in np.unique(self.reference):
            mine = self.evaluated[self.reference[self.evaluated] == name]
            weights[mine] = (self.reference == name).sum() / max(1, len(mine))
        return weights


def choose_evaluated(reference: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """At most ``most`` images for causal tests, the classes as equal in number as they allow; sorted indices."""
    rng = np.random.default_rng([seed, 5])
    classes, counts = np.unique(reference, return_counts=True)
    quota, left = dict.fromkeys(classes.tolist(), 0), min(most, len(reference))
    for place, number in enumerate(np.argsort(counts, kind="stable")):
        share = min(int(counts[number]), left // (len(classes) - place))
        quota[int(classes[number])] = share
        left -= share
    drawn = [
        rng.choice(np.flatnonzero(reference == name), size=count, replace=False)
        for name, count in quota.items()
        if count
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)
