"""Study A: concept groups in an unsupervised embedding, and what pruning the units outside them costs (paper section 5).

All units of a Tile2Vec network's five stages are described as "visual concept (land-cover class)" and grouped by meaning.
The units in no group, which people cannot make sense of, are pruned, and a random forest on the embedding is compared
before and after, kept as it was or fitted anew. The paper stops there; here as many random units are pruned too, many times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.captioning import Progress
from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError
from dnd_core.grouping import Grouping
from dnd_core.pipeline import Run, describe_into
from dnd_core.store import RunStore, Stage
from geoaudit.studies.embedders import Embedder
from geoaudit.studies.forests import colours, compare, embeddings, random_sets, right, splits
from geoaudit.studies.pairs import NO_CLASS, group_pairs, told_classes
from geoaudit.studies.tile2vec_report import write_tile2vec
from geoaudit.studies.writing import to_json

__all__ = ["ALL", "Options", "run_tile2vec"]

VERSION = 1
ALL = "all layers"


@dataclass(frozen=True)
class Options:
    """What the study does beyond describing.

    Attributes:
        draws: random prunings beside each pruning of ungrouped units.
        splits: 80/20 splits of each kind.
        trees: of a random forest.
    """

    draws: int = 20
    splits: int = 3
    trees: int = 50

    def __post_init__(self) -> None:
        for name, least in (("draws", 10), ("splits", 1), ("trees", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least}, got {getattr(self, name)}")


def run_tile2vec(
    embedder: Embedder,
    out: Path,
    settings: DescribeConfig,
    options: Options,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Describe, pair, group, prune and classify; everything is written into ``out``.

    Args:
        embedder: network and tiles.
        out: run folder; besides the description it gets ``study.md``, ``study.json``, CSV tables and PNG pictures.
        settings: of the description; with verification off every label counts, as in the paper.
        options: of the study.
        resume: go on with what is there.
        progress: called with (stage, done, total).

    Returns:
        What ``study.json`` holds.

    Raises:
        DndError: anything the description refuses, or tiles that cannot be split.
    """
    with RunStore(
        out, resume=resume, header={"tool": {"name": "geoaudit study tile2vec", "version": VERSION}}
    ) as store:
        run = describe_into(
            store,
            embedder.network,
            embedder.probe,
            embedder.layers,
            embedder.backends,
            settings,
            held_out=embedder.held_out if settings.verification.enabled else None,
            progress=progress,
        )
        key = [VERSION, store.manifest["stages"]["verification"]["key"], embedder.tiles.fingerprint, asdict(options)]
        pairs, grouping = _pairs(embedder, run, settings.seed)
        parts = [
            _forest(store, key, embedder, run, pairs, name, options, settings.seed, progress) for name in _names(run)
        ]
        stage = store.stage("study", ["study", key])
        if not stage.done:
            found = pd.concat([pd.read_csv(path) for path in parts if path is not None], ignore_index=True)
            _write(stage, embedder, run, pairs, grouping, found, options, settings.seed)
            stage.commit()
    summary: dict[str, Any] = json.loads((out / "study.json").read_text(encoding="utf-8"))
    return summary


def _names(run: Run) -> list[str]:
    return [*(info.name for info in run.layers), ALL]


def _pairs(embedder: Embedder, run: Run, seed: int) -> tuple[pd.DataFrame, Grouping]:
    """One row a unit: ``layer, unit, status, concept, class, class_score, class_p, pair, group``."""
    probe = embedder.probe
    labels = np.asarray(probe.labels)
    names = probe.class_names
    held = run.held_out if len(run.held_out) else run.explain
    rows = []
    for info in run.layers:
        activations = np.asarray(run.activations(info.name))
        told = told_classes(activations, labels, run.explain, held, probe.blocks, len(names), seed)
        part = run.neurons[run.neurons["layer"] == info.name].sort_values("unit")
        for record in part.itertuples(index=False):
            unit = int(record.unit)
            number = int(told.classes[unit])
            rows.append(
                {
                    "layer": info.name,
                    "unit": unit,
                    "status": record.status,
                    "concept": str(record.label) if record.status == "labelled" else "",
                    "class": names[number] if number >= 0 else NO_CLASS,
                    "class_score": float(told.scores[unit]),
                    "class_p": float(told.p[unit]),
                }
            )
    return group_pairs(pd.DataFrame(rows), embedder.backends.text_encoder)


def _forest(
    store: RunStore,
    key: Sequence[Any],
    embedder: Embedder,
    run: Run,
    pairs: pd.DataFrame,
    name: str,
    options: Options,
    seed: int,
    progress: Progress | None,
) -> Path | None:
    """Compare forests with one layer's (or all layers') ungrouped units pruned; None where there are none."""
    loose = pairs[(pairs["group"] < 0) & ((pairs["layer"] == name) | (name == ALL))]
    if loose.empty:
        return None
    chosen = {str(layer): [int(unit) for unit in part["unit"]] for layer, part in loose.groupby("layer", sort=False)}
    stage = store.stage(f"forest-{name.replace(' ', '-')}", ["forest", name, chosen, *key])
    target = f"forests/{name.replace(' ', '-')}.csv"
    if not stage.done:
        layers = [info for info in run.layers if info.name in chosen]
        sets = random_sets(layers, {layer: len(units) for layer, units in chosen.items()}, options.draws, seed)
        report = None if progress is None else _counting(progress, f"pruning {name}")
        base, held = embeddings(embedder.network, layers, embedder.tiles, [chosen, *sets], report)
        labels: NDArray[np.int64] = np.asarray(embedder.tiles.labels)
        folds = splits(labels, embedder.tiles.blocks, options.splits, seed)
        of = sum(info.units for info in layers)
        report = None if progress is None else _counting(progress, f"forests {name}")
        rows = compare(name, len(loose), of, base, held, labels, folds, options.trees, seed, report)
        stage.path(target).write_text(pd.DataFrame(map(asdict, rows)).to_csv(index=False), encoding="utf-8")
        stage.commit()
    return store.root / target


def _counting(progress: Progress, name: str) -> Any:
    return lambda done, total: progress(name, done, total)


def _write(
    stage: Stage,
    embedder: Embedder,
    run: Run,
    pairs: pd.DataFrame,
    grouping: Grouping,
    found: pd.DataFrame,
    options: Options,
    seed: int,
) -> None:
    labels = np.asarray(embedder.tiles.labels)
    folds = splits(labels, embedder.tiles.blocks, options.splits, seed)
    counts = np.bincount(labels, minlength=len(embedder.tiles.class_names))
    summary = {
        "study": "tile2vec",
        "network": embedder.name,
        "embedding": int(run.layers[-1].units) if run.layers else 0,
        "layers": {info.name: info.units for info in run.layers},
        "described_on": len(embedder.probe),
        "tiles": len(labels),
        "classes": dict(zip(embedder.tiles.class_names, map(int, counts), strict=True)),
        "colours_alone": right(colours(embedder.tiles), labels, folds, options.trees, seed),
        "largest_class": float(counts.max() / counts.sum()),
        "threshold": grouping.threshold,
        "threshold_source": grouping.threshold_source,
        **asdict(options),
    }
    summary = write_tile2vec(stage, summary, pairs, grouping.names, found)
    text = json.dumps(to_json(summary), indent=1, sort_keys=True, ensure_ascii=False)
    stage.path("study.json").write_text(text + "\n", encoding="utf-8")
