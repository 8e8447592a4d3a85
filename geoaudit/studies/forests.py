"""What a classifier on an embedding loses when units of the network are pruned (paper section 5, Tile2Vec).

A random forest is trained on 80 % of the labelled tiles and tested on the others, with tiles drawn at random (the paper's
way; neighbours stand on both sides) and with whole spatial blocks. Pruned units answer 0 everywhere. The forest is either
kept as it was fitted on the whole embedding, or fitted anew. Beside every pruning stand random ones of equal number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.ablation import Ablation
from dnd_core.errors import ProbeError
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network

__all__ = ["Comparison", "Split", "colours", "compare", "embeddings", "random_sets", "right", "splits"]

TEST = 0.2
CHUNK = 32

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Tiles to train on and tiles to test on.

    Attributes:
        kind: ``tiles`` (drawn one by one) or ``blocks`` (whole spatial blocks).
        train, test: indices.
    """

    kind: str
    train: Ints
    test: Ints


def splits(labels: Ints, blocks: Ints | None, count: int, seed: int = 0) -> list[Split]:
    """``count`` random 80/20 splits with every class on both sides, and as many by blocks where tiles have blocks.

    Raises:
        ProbeError: a class has a single tile.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    from geoaudit.labels import split_blocks

    try:
        drawn = list(StratifiedShuffleSplit(count, test_size=TEST, random_state=seed).split(labels[:, None], labels))
    except ValueError as error:
        raise ProbeError(
            f"the tiles cannot be split into 80 % and 20 % ({error}): give more tiles of each class"
        ) from error
    made = [Split("tiles", np.sort(train), np.sort(test)) for train, test in drawn]
    if blocks is None:
        return made
    for number in range(count):
        try:
            # Few draws, so that repetitions differ instead of agreeing on the one most even split.
            test = split_blocks(blocks, labels, held_out=TEST, seed=seed + 1000 * number, draws=20)
        except ProbeError:
            # Some class lies in one block only: it cannot be both learnt and tested by blocks.
            return made
        made.append(Split("blocks", np.flatnonzero(~test), np.flatnonzero(test)))
    return made


def random_sets(
    layers: Sequence[LayerInfo], sizes: dict[str, int], draws: int, seed: int
) -> list[dict[str, list[int]]]:
    """``draws`` sets with as many units of each layer, all units alike."""
    generator = np.random.default_rng([seed, 7, *sizes.values()])
    units = {info.name: info.units for info in layers}
    return [
        {name: sorted(generator.choice(units[name], size, replace=False).tolist()) for name, size in sizes.items()}
        for _ in range(draws)
    ]


def embeddings(
    network: Network,
    layers: Sequence[LayerInfo],
    tiles: ImageSet,
    sets: Sequence[dict[str, list[int]]],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Floats, Floats]:
    """(N, D) embedding of the tiles, and (sets, N, D) with each set's units at 0.

    Args:
        network: the embedding network.
        layers: those that sets speak of.
        tiles: N of them.
        sets: layer -> units.
        progress: called with (sets done, all).
    """
    ablation = Ablation(network, layers, {info.name: np.zeros(info.units) for info in layers})
    base, parts = np.zeros((0, 0), dtype=np.float32), []
    for start in range(0, len(sets), CHUNK):
        base, held = ablation.logits_with(tiles, sets[start : start + CHUNK])
        parts.append(held)
        if progress is not None:
            progress(min(start + CHUNK, len(sets)), len(sets))
    return base, np.concatenate(parts)


def colours(tiles: ImageSet) -> Floats:
    """(N, 2 x bands) mean and spread of every band of a tile: what a forest can know without any network."""
    parts = []
    for start in range(0, len(tiles), 256):
        pixels = tiles.pixels(range(start, min(start + 256, len(tiles))))
        parts.append(np.concatenate([pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3))], axis=1))
    return np.concatenate(parts).astype(np.float32)


def right(features: Floats, labels: Ints, folds: Sequence[Split], trees: int, seed: int) -> dict[str, float]:
    """Kind of split -> mean accuracy of forests on some features."""
    found: dict[str, list[float]] = {}
    for number, fold in enumerate(folds):
        forest = _fit(features, labels, fold, trees, seed + number)
        found.setdefault(fold.kind, []).append(_accuracy(forest, features, labels, fold))
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def _fit(features: Floats, labels: Ints, fold: Split, trees: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(trees, random_state=seed, n_jobs=1).fit(features[fold.train], labels[fold.train])


def _accuracy(forest: Any, features: Floats, labels: Ints, fold: Split) -> float:
    return float((forest.predict(features[fold.test]) == labels[fold.test]).mean())


@dataclass(frozen=True)
class Comparison:
    """One pruning under one kind of split, with the forest kept or fitted anew; accuracies are means over splits.

    Attributes:
        pruned: layer, or ``all``.
        units: how many were pruned, of ``of``.
        split: ``tiles`` or ``blocks``.
        forest: ``kept`` or ``refitted``.
        whole: accuracy without pruning.
        accuracy: with the ungrouped units pruned.
        random: mean over random prunings.
        low, high: 95 % of them.
        p_better: share of random prunings that do at least as well (the ungrouped ones matter less if small).
        p_worse: share that do at most as well.
    """

    pruned: str
    units: int
    of: int
    split: str
    forest: str
    whole: float
    accuracy: float
    random: float
    low: float
    high: float
    p_better: float
    p_worse: float


def compare(
    name: str,
    units: int,
    of: int,
    base: Floats,
    held: Floats,
    labels: Ints,
    folds: Sequence[Split],
    trees: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Comparison]:
    """Accuracies of forests on whole and pruned embeddings.

    Args:
        name: of what was pruned.
        units: how many units, of
        of: so many.
        base: (N, D) whole embedding.
        held: (1 + draws, N, D): pruned ungrouped units first, then each random set.
        labels: (N,) classes.
        folds: train and test tiles.
        trees: of a forest.
        seed: of the forests; every fold's forest is drawn alike for all prunings.
        progress: called with (folds done, all).
    """
    rows: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    whole: dict[str, list[float]] = {}
    for number, fold in enumerate(folds):
        first = _fit(base, labels, fold, trees, seed + number)
        whole.setdefault(fold.kind, []).append(_accuracy(first, base, labels, fold))
        kept = np.array([_accuracy(first, values, labels, fold) for values in held])
        anew = (_fit(values, labels, fold, trees, seed + number) for values in held)
        refitted = np.array([_accuracy(f, values, labels, fold) for f, values in zip(anew, held, strict=True)])
        rows.setdefault((fold.kind, "kept"), []).append(kept)
        rows.setdefault((fold.kind, "refitted"), []).append(refitted)
        if progress is not None:
            progress(number + 1, len(folds))
    found = []
    for (kind, forest), values in rows.items():
        mean = np.mean(values, axis=0)
        mine, draws = float(mean[0]), mean[1:]
        low, high = np.quantile(draws, [0.025, 0.975])
        better, worse = (
            (1 + (side).sum()) / (1 + len(draws)) for side in (draws >= mine - 1e-12, draws <= mine + 1e-12)
        )
        found.append(
            Comparison(
                name, units, of, kind, forest, float(np.mean(whole[kind])), mine,
                float(draws.mean()), float(low), float(high), float(better), float(worse),
            )
        )  # fmt: skip
    return found
