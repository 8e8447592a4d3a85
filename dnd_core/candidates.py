"""Step 2b: what each unit's images have that others lack, as evidence and then candidate labels (paper section 3.2).

The paper shows a language model the captions of a unit's top images. We show it two things more: captions of other
images, so that what is common to the whole probe is not mistaken for what the unit looks for, and, for a unit whose top
images fall into clusters, each cluster by itself, so that several meanings can be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.captioning import Journal, Progress, View
from dnd_core.config import CandidateConfig
from dnd_core.errors import BackendError
from dnd_core.presence import caption_vectors
from dnd_core.protocols import Evidence, Summarizer, TextEncoder
from dnd_core.types import Candidate, UnitId

__all__ = ["contrast_images", "evidence_of", "meanings", "propose"]

MAX_WORDS = 5
MIN_CLUSTER = 3
# Near misses are images the unit answers to weakly: below its top fifth, above its median.
NEAR = (0.2, 0.5)


def contrast_images(order: NDArray[np.int64], exclude: int, n: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """Images to set a unit's own against: half random, half near misses.

    Args:
        order: (N,) image indices from the highest activation to the lowest.
        exclude: this many of the first images are the unit's own and never drawn.
        n: images wanted; fewer come back when the probe is small.
        seed: decides the draw.

    Returns:
        Sorted, distinct image indices.
    """
    rng = np.random.default_rng(list(seed))
    others = order[exclude:]
    low, high = int(len(order) * NEAR[0]), int(len(order) * NEAR[1])
    near = order[max(low, exclude) : max(high, exclude)]
    drawn = [rng.choice(pool, size=min(n // 2, len(pool)), replace=False) for pool in (others, near) if len(pool)]
    return np.unique(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)


def meanings(embeddings: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Cluster a unit's top images by what is said of them.

    Average-linkage clustering on cosine distance; the number of clusters is the one with the best silhouette, and
    one where no split separates clearly (silhouette above 0.25, the usual bound for any structure at all; Kaufman &
    Rousseeuw 1990) or a cluster would hold fewer than three images.

    Args:
        embeddings: (K, D) rows of length one.
        most: at most this many clusters.

    Returns:
        (K,) cluster of each image, 0 being the cluster of the first image.
    """
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    count = len(embeddings)
    one = np.zeros(count, dtype=np.int64)
    if most < 2 or count < 2 * MIN_CLUSTER:
        return one
    distance = np.clip(1.0 - embeddings.astype(np.float64) @ embeddings.T.astype(np.float64), 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    distance = (distance + distance.T) / 2
    best, best_score = one, 0.25
    for clusters in range(2, min(most, count // MIN_CLUSTER) + 1):
        found = AgglomerativeClustering(clusters, metric="precomputed", linkage="average").fit_predict(distance)
        sizes = np.bincount(found)
        if sizes.min() < MIN_CLUSTER or len(sizes) < 2:
            continue
        score = float(silhouette_score(distance, found, metric="precomputed"))
        if score > best_score:
            best, best_score = found.astype(np.int64), score
    _, first = np.unique(best, return_index=True)
    rank = {int(best[position]): number for number, position in enumerate(sorted(first))}
    return np.array([rank[int(value)] for value in best], dtype=np.int64)


def evidence_of(
    unit: UnitId,
    top: Sequence[View],
    contrast: Sequence[View],
    captions: Mapping[View, str],
    encoder: TextEncoder,
    config: CandidateConfig,
    *,
    background: tuple[str, ...],
    activations: tuple[float, ...] = (),
    seed: int,
) -> list[Evidence]:
    """The unit's evidence: all its top images first, then each meaning by itself where there are several.

    ``activations`` are the unit's on the background's images: captions that are paid for anyway then also tell what the
    unit does with images that are not among its highest.
    """
    own = [captions[view] for view in top if captions[view]]
    if not own:
        return []
    other = tuple(c for c in (captions[view] for view in contrast) if c) if config.contrast else ()
    if not config.contrast:
        background = activations = ()
    whole = Evidence(tuple(own), other, background, seed, activations=activations)
    clusters = meanings(caption_vectors(own, encoder), config.max_meanings)
    if clusters.max() == 0:
        return [whole]
    parts = [
        Evidence(
            tuple(caption for caption, cluster in zip(own, clusters, strict=True) if cluster == number),
            other,
            background,
            seed,
            meaning=number + 1,
            activations=activations,
        )
        for number in range(int(clusters.max()) + 1)
    ]
    return [whole, *parts]


def propose(
    summarizer: Summarizer,
    evidence: Mapping[UnitId, Sequence[Evidence]],
    config: CandidateConfig,
    journal: Path,
    *,
    chunk: int = 64,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Ask the summarizer about every unit, in chunks that are journaled.

    Returns:
        One row a candidate in the order proposed: ``layer, unit, label, support, contrast, meaning``.
        A label comes once a unit, whatever its case.

    Raises:
        BackendError: the summarizer answered about another number of evidences than it was asked.
    """
    done = Journal(journal)
    units = list(evidence)
    for start in range(0, len(units), chunk):
        waiting = [unit for unit in units[start : start + chunk] if str(unit) not in done.entries]
        asked = [(unit, piece) for unit in waiting for piece in evidence[unit]]
        if asked:
            answers = summarizer.propose([piece for _, piece in asked], config.n)
            if len(answers) != len(asked):
                raise BackendError(f"{type(summarizer).__name__} answered {len(answers)} of {len(asked)} questions")
            found: dict[str, list[object]] = {str(unit): [] for unit in waiting}
            for (unit, piece), candidates in zip(asked, answers, strict=True):
                found[str(unit)] += [[c.label, c.support, c.contrast, piece.meaning] for c in candidates[: config.n]]
            done.extend(found.items())
        else:
            done.extend((str(unit), []) for unit in waiting)
        if progress is not None:
            progress("candidates", min(start + chunk, len(units)), len(units))
    rows = []
    for unit in units:
        seen: set[str] = set()
        listed = done.entries.get(str(unit), [])
        for label, support, contrast, meaning in listed if isinstance(listed, list) else []:
            label = " ".join(str(label).split()[:MAX_WORDS])
            if label and label.casefold() not in seen:
                seen.add(label.casefold())
                rows.append((unit.layer, unit.index, label, int(support), float(contrast), int(meaning)))
    return pd.DataFrame(rows, columns=["layer", "unit", "label", "support", "contrast", "meaning"])


def candidates_of(frame: pd.DataFrame) -> list[Candidate]:
    """The candidates in rows of a table made by :func:`propose`."""
    return [
        Candidate(str(row.label), int(row.support), float(row.contrast), int(row.meaning))
        for row in frame.itertuples(index=False)
    ]
