"""Labels of one network's units by every method of the bench: ours, ours with parts left out, and comparators.

What all methods share is made once: captions of tiles, activations, the text encoder. Each method sees the same probe; none
sees the tiles that labels are scored on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import (
    CachedCaptioner,
    clip_dissect,
    constant_labels,
    dissection_iou,
    random_labels,
    shuffled_labels,
)
from dnd_core.benching.comparators import DETECTOR
from dnd_core.config import CandidateConfig, DescribeConfig, SelectionConfig, VerificationConfig
from dnd_core.images import ImageSet
from dnd_core.networks import Network
from dnd_core.pipeline import Backends, Run, describe_into
from dnd_core.types import Status, UnitId

if TYPE_CHECKING:
    from dnd_core.backends.sentences import SentenceEncoder
    from dnd_core.captioning import Progress

__all__ = ["CONCEPTS", "DND", "METHODS", "OURS", "Case", "Labels", "label_units", "ours_of"]

OURS, DND = "ours", "dnd"
METHODS: Mapping[str, str] = {
    OURS: "ours",
    "ours_no_contrast": "ours without contrast",
    "ours_no_verification": "ours without verification",
    DND: "DnD as published",
    "clip_dissect": "CLIP-Dissect",
    "network_dissection": "Network Dissection",
    "constant": "one label for all",
    "random": "random labels",
    "shuffled": "our labels shuffled",
}
"""Every method by key, as tables name it."""

COMPARATORS = (DND, "clip_dissect", "network_dissection", "constant", "random", "shuffled")
"""Methods that are not ours or ours with a part left out."""

CONCEPTS: tuple[str, ...] = (
    "annual crop", "arable land", "bare field", "bare rock", "bare soil", "beach", "bog", "broad-leaved forest",
    "bridge", "built-up area", "burnt area", "cloud", "cloud shadow", "coniferous forest", "construction site",
    "cropland", "dense forest", "dry grass", "dunes", "dump site", "estuary", "farmland", "fields", "fog", "forest",
    "glacier", "golf course", "grassland", "greenhouses", "harbour", "haze", "heathland", "herbaceous vegetation",
    "highway", "houses", "industrial area", "irrigated land", "lake", "lawn", "mangrove", "marsh", "meadow",
    "mixed forest", "moor", "moss and lichen", "ocean", "olive grove", "orchard", "park", "pasture", "permanent crop",
    "permanent water", "pond", "quarry", "railway", "reservoir", "residential area", "rice field", "river", "road",
    "salt marsh", "sand", "scrub", "sea", "shadow", "shrubland", "smoke", "snow", "ice", "solar panels",
    "sparse vegetation", "stream", "suburb", "swamp", "town", "tree cover", "tundra", "urban area", "village",
    "vineyard", "water", "wetland", "winter crops",
)  # fmt: skip
"""The concept list of CLIP-Dissect: land-cover wording of CORINE, ESA WorldCover, EuroSAT and OpenStreetMap, and the sky's."""


@dataclass(frozen=True, eq=False)
class Case:
    """One network and the tiles it is described and scored on.

    Attributes:
        name: file name of its runs.
        network: the network.
        layers: layers whose units are labelled.
        probe: tiles that units are described on; ``held_out`` of them are our verification's.
        held_out: indices into the probe.
        pool: tiles that concept images are taken from while describing.
        evaluation: tiles that no method sees.
        masks: (probe, C, H, W) bool for Network Dissection, where each of ``mask_names`` is.
        known: (probe, C, H, W) bool where that is known.
        mask_names: C names.
        seed: of every draw.
        units: only these units of the layers count; all when empty.
        wider: the evaluation's and the pool's tiles together; None for analytic units.
    """

    name: str
    network: Network
    layers: tuple[str, ...]
    probe: ImageSet
    held_out: NDArray[np.int64]
    pool: ImageSet
    evaluation: ImageSet
    masks: NDArray[np.bool_]
    known: NDArray[np.bool_]
    mask_names: tuple[str, ...]
    seed: int
    units: tuple[UnitId, ...] = ()
    wider: ImageSet | None = None


@dataclass(frozen=True, eq=False)
class Labels:
    """What every method says.

    Attributes:
        units: the units, in one order for all.
        said: method -> one tuple of labels a unit, empty where it says nothing.
        run: our run, for activations.
    """

    units: tuple[UnitId, ...]
    said: Mapping[str, tuple[tuple[str, ...], ...]]
    run: Run


def configs(seed: int) -> dict[str, DescribeConfig]:
    """Settings of the methods that are runs of the engine."""
    ours = DescribeConfig(seed=seed)
    plain = DescribeConfig(
        candidates=CandidateConfig(contrast=False, max_meanings=1),
        selection=SelectionConfig(score="topk_squared_x_image_products"),
        verification=VerificationConfig(enabled=False),
        seed=seed,
    )
    without = replace(ours, candidates=CandidateConfig(contrast=False))
    return {OURS: ours, "ours_no_contrast": without, DND: plain}


def backends(case: Case, captioner: CachedCaptioner, encoder: SentenceEncoder) -> Backends:
    """The offline backends of an audit, with captions shared between runs."""
    from dnd_core.backends.caption_space import CaptionSpace
    from dnd_core.backends.keyphrases import Keyphrases
    from geoaudit.retrieval import TilePool

    pool = TilePool(case.pool, case.probe, encoder, captioner=captioner)
    return Backends(captioner, Keyphrases(encoder), pool, CaptionSpace(captioner, encoder), encoder)


def ours_of(run: Run, *, verified: bool = True) -> dict[UnitId, tuple[str, ...]]:
    """What a run says of its units: published labels, or every unit's best guess where ``verified`` is false."""
    found = {}
    for row in run.neurons.itertuples(index=False):
        published = row.status == Status.LABELLED.value
        labels = tuple(row.labels) if published else (row.label,) if not verified and row.label else ()
        found[UnitId(str(row.layer), int(row.unit))] = labels
    return found


def label_units(
    case: Case,
    folder: Path,
    captioner: CachedCaptioner,
    encoder: SentenceEncoder,
    *,
    methods: Sequence[str] = tuple(METHODS),
    progress: Progress | None = None,
) -> Labels:
    """Have every method label a case's units. What an earlier, killed call did is not done again.

    Args:
        case: network and tiles.
        folder: where the engine's runs go, one folder each.
        captioner: shared by all methods.
        encoder: shared by all methods.
        methods: keys of :data:`METHODS`; ours is always made.
        progress: called with (stage, done, total).
    """
    from dnd_core.store import RunStore

    runs: dict[str, Run] = {}
    for key, config in configs(case.seed).items():
        if key not in methods and key != OURS:
            continue
        with RunStore(folder / f"{case.name}-{key}", resume=True, header={"tool": {"name": "bench"}}) as store:
            runs[key] = describe_into(
                store,
                case.network,
                case.probe,
                case.layers,
                backends(case, captioner, encoder),
                config,
                held_out=case.held_out,
                progress=progress,
            )
    ours = runs[OURS]
    published = ours_of(ours)
    units = case.units or tuple(published)
    said: dict[str, Any] = {key: [ours_of(run)[unit] for unit in units] for key, run in runs.items()}
    guesses = ours_of(ours, verified=False)
    said["ours_no_verification"] = [published[unit] or guesses[unit] for unit in units]
    if "clip_dissect" in methods:
        said["clip_dissect"] = _clip_dissect(case, ours, units, captioner, encoder)
    if "network_dissection" in methods:
        said["network_dissection"] = _network_dissection(case, ours, units)
    flat = ["; ".join(labels) for labels in said[OURS]]
    empty = {"constant": constant_labels(flat), "random": random_labels(flat, case.seed)}
    for key, labels in (empty | {"shuffled": shuffled_labels(flat, case.seed)}).items():
        said[key] = [tuple(label.split("; ")) if label else () for label in labels]
    kept = {
        key: tuple(tuple(labels) for labels in said[key]) for key in METHODS if key in said and key in (*methods, OURS)
    }
    return Labels(tuple(units), kept, ours)


def _clip_dissect(
    case: Case, run: Run, units: Sequence[UnitId], captioner: CachedCaptioner, encoder: SentenceEncoder
) -> list[tuple[str, ...]]:
    from dnd_core.presence import caption_vectors

    captions: list[str] = []
    for first in range(0, len(case.probe), 64):
        captions += captioner.caption([case.probe[i] for i in range(first, min(first + 64, len(case.probe)))])
    images, concepts = caption_vectors(captions, encoder), encoder.encode_texts(CONCEPTS)
    best = {layer: clip_dissect(run.activations(layer), images, concepts).argmax(axis=1) for layer in _layers(units)}
    return [(CONCEPTS[int(best[unit.layer][unit.index])],) for unit in units]


def _network_dissection(case: Case, run: Run, units: Sequence[UnitId]) -> list[tuple[str, ...]]:
    found = dissection_iou(case.network, case.probe, run.layers, case.masks, case.known)
    answers: list[tuple[str, ...]] = []
    for unit in units:
        row = found[unit.layer][unit.index]
        best = int(row.argmax())
        answers.append((case.mask_names[best],) if row[best] > DETECTOR else ())
    return answers


def _layers(units: Sequence[UnitId]) -> list[str]:
    return list(dict.fromkeys(unit.layer for unit in units))
