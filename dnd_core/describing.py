"""The stages of a description run, one function each: read what the stage before wrote, write one's own result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core import candidates as proposals
from dnd_core import probing, selection
from dnd_core.activations import ActivationFile
from dnd_core.captioning import WHOLE, Progress, View, caption_views, view_image
from dnd_core.config import DescribeConfig
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from dnd_core.presence import caption_vectors, presence
from dnd_core.protocols import TextEncoder
from dnd_core.scoring import pearson_matrix
from dnd_core.selection import SCORES
from dnd_core.store import RunStore, Stage, fingerprint, write_table
from dnd_core.types import UnitId
from dnd_core.verification import health

__all__ = [
    "Context",
    "candidate_stage",
    "caption_stage",
    "concept_stage",
    "presence_in",
    "probe_stage",
    "selection_stage",
    "top_stage",
]

# Raised whenever a stage's code changes what it writes for the same inputs.
VERSIONS = {"probing": 1, "top": 1, "captions": 1, "candidates": 4, "concepts": 3, "selection": 4, "verification": 4}

# Captions of images at large: enough to know how common a phrase is, few enough for a slow captioner.
BACKGROUND = 400


@dataclass(frozen=True)
class Context:
    """What every stage needs. ``prints`` are the backends' fingerprints before any of them did anything."""

    store: RunStore
    network: Network
    images: ImageSet
    layers: tuple[LayerInfo, ...]
    backends: Any
    config: DescribeConfig
    explain: NDArray[np.int64]
    held_out: NDArray[np.int64]
    progress: Progress | None
    prints: Mapping[str, str]

    def stage(self, name: str, *inputs: Any) -> Stage:
        """The stage, keyed by its code version and its inputs."""
        return self.store.stage(name, [name, VERSIONS[name], *inputs])

    def report(self, name: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(name, done, total)

    def activations(self, layer: str) -> NDArray[np.float32]:
        """(images, units) of a layer, memory-mapped."""
        mapped: NDArray[np.float32] = np.load(self.store.root / "activations" / f"{layer}.npy", mmap_mode="r")
        return mapped

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.store.root / f"{name}.parquet")

    @property
    def text_and_images(self) -> bool:
        """The image encoder reads texts too, as a CLIP does, so presence needs no captions."""
        return isinstance(self.backends.image_encoder, TextEncoder)


def probe_stage(context: Context) -> Stage:
    """Step 1a: pooled activations of every image, block by block, going on where a kill left off."""
    probe = context.config.probing
    layers = [asdict(info) for info in context.layers]
    stage = context.stage(
        "probing", context.network.fingerprint, context.images.fingerprint, layers, probe.pooling, probe.batch_size
    )
    if stage.done:
        return stage
    files = {
        info.name: ActivationFile(
            stage.path(f"activations/{info.name}.npy"), len(context.images), info.units, probe.batch_size
        )
        for info in context.layers
    }
    try:
        probing.probe(
            context.network,
            context.images,
            context.layers,
            probe,
            out=files,
            start=min(file.rows for file in files.values()),
            on_block=lambda done: context.report("probing", done, len(context.images)),
        )
    finally:
        for file in files.values():
            file.close()
    stage.path("layers.json").write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
    stage.commit()
    return stage


def top_stage(context: Context, probed: Stage) -> Stage:
    """Step 1b: the K images or attention crops each unit fires on most (paper section 3.1)."""
    probe = context.config.probing
    stage = context.stage("top", probed.key, fingerprint(context.explain.tolist()), asdict(probe))
    if stage.done:
        return stage
    top, values = {}, {}
    for info in context.layers:
        found = probing.top_images(context.activations(info.name), probe.top_k, context.explain)
        top[info.name], values[info.name] = found
    crops = None
    if probe.crops:
        crops = probing.crop_top_images(
            context.network,
            context.images,
            context.layers,
            top,
            probe,
            on_block=lambda done, total: context.report("crops", done, total),
        )
    best = probing.rerank(top, values, crops, probe.top_k)
    names = np.array([info.name for info in context.layers], dtype=object)
    columns = ("unit", "rank", "image", "left", "top", "right", "bottom", "activation")
    table = pd.DataFrame({"layer": names[best.layer], **{name: getattr(best, name) for name in columns}})
    write_table(stage.path("top_images.parquet"), table)
    stage.commit()
    return stage


def _views(table: pd.DataFrame) -> list[View]:
    columns = [table[name].to_list() for name in ("image", "left", "top", "right", "bottom")]
    return [(int(i), int(a), int(b), int(c), int(d)) for i, a, b, c, d in zip(*columns, strict=True)]


def _background(context: Context) -> NDArray[np.int64]:
    rng = np.random.default_rng([context.config.seed, 3])
    count = min(BACKGROUND, len(context.explain))
    return np.sort(rng.choice(context.explain, size=count, replace=False))


def caption_stage(context: Context, top: Stage) -> Stage:
    """Step 2a: one caption for every distinct view that a later stage reads."""
    needs_held_out = not context.text_and_images
    stage = context.stage("captions", top.key, context.prints["captioner"], needs_held_out, context.config.seed)
    if stage.done:
        return stage
    views = _views(context.table("top_images"))
    whole = [int(i) for i in _background(context)]
    if needs_held_out:
        whole += [int(i) for i in context.held_out]
    views += [(index, *WHOLE) for index in whole]
    table = caption_views(
        context.backends.captioner,
        context.images,
        views,
        stage.scratch / "captions.jsonl",
        batch_size=context.config.probing.batch_size,
        progress=context.progress,
    )
    write_table(stage.path("captions.parquet"), table)
    stage.commit()
    return stage


def captions_of(context: Context) -> dict[View, str]:
    """Every caption of the run."""
    table = context.table("captions")
    return dict(zip(_views(table), table["caption"].to_list(), strict=True))


def candidate_stage(context: Context, captioned: Stage) -> Stage:
    """Step 2b: contrastive evidence for every living unit, and its candidate labels."""
    settings, seed = context.config.candidates, context.config.seed
    stage = context.stage(
        "candidates",
        captioned.key,
        context.prints["summarizer"],
        context.prints["text_encoder"],
        asdict(settings),
        seed,
    )
    if stage.done:
        return stage
    captions = captions_of(context)
    explained = set(context.explain.tolist())
    seen = np.array(sorted(v[0] for v in captions if v[1:] == WHOLE and v[0] in explained), dtype=np.int64)
    sample = _background(context)
    background = tuple(captions[(int(i), *WHOLE)] for i in sample)
    top_table = context.table("top_images")
    # Every distinct clause is embedded here, in one call; units then find theirs ready.
    caption_vectors(sorted(set(captions.values())), context.backends.text_encoder)
    evidence = {}
    for number, info in enumerate(context.layers):
        rows = context.activations(info.name)[seen]
        sampled = context.activations(info.name)[sample]
        of_layer = top_table[top_table["layer"] == info.name]
        state = health(np.asarray(context.activations(info.name)))
        # A summarizer may be paid for by the word: units that cannot be labelled are not asked about.
        silent = set(np.flatnonzero(state.dead | state.diffuse).tolist())
        for index, own in of_layer.groupby("unit", sort=True):
            if int(index) in silent:
                continue
            views = _views(own)
            order = seen[np.argsort(-rows[:, int(index)], kind="stable")]
            drawn = proposals.contrast_images(
                order, context.config.probing.top_k, settings.contrast_images, (seed, number, int(index))
            )
            mine = {view[0] for view in views}
            others: list[View] = [(int(i), *WHOLE) for i in drawn if int(i) not in mine]
            unit = UnitId(info.name, int(index))
            evidence[unit] = proposals.evidence_of(
                unit,
                views,
                others,
                captions,
                context.backends.text_encoder,
                settings,
                background=background,
                activations=tuple(sampled[:, int(index)].tolist()),
                seed=seed,
            )
    table = proposals.propose(
        context.backends.summarizer, evidence, settings, stage.scratch / "candidates.jsonl", progress=context.progress
    )
    write_table(stage.path("candidates.parquet"), table)
    stage.commit()
    return stage


def concept_stage(context: Context, proposed: Stage) -> Stage:
    """Step 3a: images of every distinct concept, and one (concept image x unit) activation matrix a layer."""
    settings = context.config.selection
    stage = context.stage(
        "concepts",
        proposed.key,
        context.prints["concept_images"],
        settings.images_per_concept,
        context.config.probing.pooling,
        context.prints["image_encoder"],
    )
    if stage.done:
        return stage
    concepts = sorted(set(context.table("candidates")["label"]))
    folder = stage.scratch / "shown"
    gallery = selection.collect(
        context.backends.concept_images,
        concepts,
        settings.images_per_concept,
        folder,
        context.images.shape,
        progress=context.progress,
    )
    distinct = gallery.distinct
    row = {key: number for number, key in enumerate(distinct)}
    fired: dict[str, list[NDArray[np.float32]]] = {info.name: [] for info in context.layers}
    settings_of_probe = context.config.probing
    # A few batches at a time: a gallery may be larger than memory.
    for first in range(0, len(distinct), 8 * settings_of_probe.batch_size):
        loaded = [gallery.load(key) for key in distinct[first : first + 8 * settings_of_probe.batch_size]]
        pooled = probing.activate(
            context.network, context.layers, loaded, settings_of_probe.pooling, settings_of_probe.batch_size
        )
        for layer, rows in pooled.items():
            fired[layer].append(rows)
    for info in context.layers:
        matrix = np.concatenate(fired[info.name]) if fired[info.name] else np.zeros((0, info.units), dtype=np.float32)
        np.save(stage.path(f"concept_images/{info.name}.npy"), matrix)
    space = encode_images(context, (gallery.load(key) for key in distinct))
    # A layer may be called "space"; none is called "image-space", which is no Python name.
    np.save(stage.path("concept_images/image-space.npy"), space)
    shown = [(concept, slot, key, row[key]) for concept in concepts for slot, key in enumerate(gallery.keys[concept])]
    write_table(stage.path("concept_images.parquet"), pd.DataFrame(shown, columns=["concept", "slot", "key", "row"]))
    selection.write_pngs(gallery, stage.path("concept_images/_").parent)
    stage.commit()
    shutil.rmtree(folder, ignore_errors=True)
    return stage


def encode_images(context: Context, images: Any, batch: int = 256) -> NDArray[np.float32]:
    rows: list[NDArray[np.float32]] = []
    waiting: list[Any] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == batch:
            rows.append(context.backends.image_encoder.encode_images(waiting))
            waiting = []
    if waiting:
        rows.append(context.backends.image_encoder.encode_images(waiting))
    return np.concatenate(rows) if rows else np.zeros((0, 1), dtype=np.float32)


def selection_stage(context: Context, shown: Stage) -> Stage:
    """Step 3b: every candidate's scores, best first (paper section 3.3)."""
    settings = context.config.selection
    stage = context.stage("selection", shown.key, asdict(settings))
    if stage.done:
        return stage
    candidates, top_table = context.table("candidates"), context.table("top_images")
    rows = {concept: np.empty(0, dtype=np.int64) for concept in candidates["label"].unique()} | concept_rows(context)
    root = context.store.root / "concept_images"
    space = np.load(root / "image-space.npy")
    views = sorted(set(_views(top_table)))
    place = {view: number for number, view in enumerate(views)}
    own_space = encode_images(context, (view_image(context.images, view) for view in views))
    tops = {key: _views(part) for key, part in top_table.groupby(["layer", "unit"], sort=False)}
    scored: list[dict[str, Any]] = []
    sample = _background(context)
    labels = sorted(rows)
    column = {label: number for number, label in enumerate(labels)}
    there = presence_in(context, sample, labels)
    blocks = None if context.images.blocks is None else np.asarray(context.images.blocks)[sample]
    for info in context.layers:
        fired = context.activations(info.name)[sample]
        simulated = pearson_matrix(fired, there)
        matrix = np.load(root / f"{info.name}.npy")
        of_layer = candidates[candidates["layer"] == info.name]
        for index, part in of_layer.groupby("unit", sort=True):
            own = own_space[[place[view] for view in tops[(info.name, index)]]]
            own_columns = [column[label] for label in part["label"]]
            ranked = selection.rank_candidates(
                proposals.candidates_of(part),
                matrix[:, int(index)],
                rows,
                settings,
                image_space=space,
                top_space=own,
                simulation=simulated[int(index), own_columns],
                errors=selection.lead_errors(fired[:, int(index)], there[:, own_columns], blocks),
            )
            for rank, label in enumerate(ranked):
                candidate = label.candidate
                scored.append(
                    {
                        "layer": info.name,
                        "unit": int(index),
                        "rank": rank,
                        **asdict(candidate),
                        **{name: label.scores.get(name, float("nan")) for name in SCORES},
                    }
                )
    columns = ["layer", "unit", "rank", "label", "support", "contrast", "meaning", *SCORES]
    write_table(stage.path("scores.parquet"), pd.DataFrame(scored, columns=columns))
    stage.commit()
    return stage


def presence_in(context: Context, images: NDArray[np.int64], labels: list[str]) -> NDArray[np.float32]:
    """(images, labels) how much of each concept is in each image: seen by a CLIP, or read in its caption."""
    if context.text_and_images:
        encoder: TextEncoder = context.backends.image_encoder
        seen = encode_images(context, (context.images[int(i)] for i in images))
        return np.asarray(seen @ encoder.encode_texts(labels).T, dtype=np.float32)
    captions = captions_of(context)
    said = [captions[(int(i), *WHOLE)] for i in images]
    return np.asarray(presence(labels, said, context.backends.text_encoder).T, dtype=np.float32)


def concept_rows(context: Context) -> dict[str, NDArray[np.int64]]:
    """For every concept, the rows of its images in the concept activation matrices."""
    pictures = context.table("concept_images")
    return {
        str(concept): part.sort_values("slot")["row"].to_numpy(dtype=np.int64)
        for concept, part in pictures.groupby("concept", sort=True)
    }
