"""Step 3: concept images, their activations once for all units, and the label that wins (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnd_core import scoring
from dnd_core.captioning import Journal, Progress
from dnd_core.config import SelectionConfig
from dnd_core.errors import BackendError, ProbeError
from dnd_core.images import ProbeImage
from dnd_core.presence import concept_parts
from dnd_core.protocols import ConceptImages
from dnd_core.store import writing
from dnd_core.types import Candidate, ScoredLabel

__all__ = ["SCORES", "Gallery", "collect", "lead_errors", "rank_candidates", "simplest_first", "write_pngs"]

DENIED = 0.5
"""How much more a label says by denying a thing than by naming it: what is not there is told seldom and means little."""
SURE, WORTH = 0.7, 0.02
"""A simpler label is as good within so many standard errors of the best one's lead, or so much a thing it says less."""

SCORES = (*scoring.SCORES, "simulation")
"""The paper's four scores, and the correlation of a concept's presence with the activation over explaining images."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """The images shown for every concept, each distinct image held once on disk.

    Attributes:
        keys: for each concept, the content keys of its images, best first.
        folder: where ``KEY.npz`` holds an image's pixels and rendering.
        channels: channel names of every image.
    """

    keys: Mapping[str, tuple[str, ...]]
    folder: Path
    channels: tuple[str, ...]

    @property
    def distinct(self) -> list[str]:
        """Every image's key once, sorted: the row order of the activation matrix."""
        return sorted({key for keys in self.keys.values() for key in keys})

    def load(self, key: str) -> ProbeImage:
        """One image."""
        with np.load(self.folder / f"{key}.npz", allow_pickle=False) as held:
            return ProbeImage(held["pixels"], held["rgb"], self.channels, key=key)


def collect(
    source: ConceptImages,
    concepts: Sequence[str],
    n: int,
    folder: Path,
    shape: tuple[int, int, int],
    *,
    progress: Progress | None = None,
) -> Gallery:
    """Have every concept shown once; what a killed run already collected is not asked for again.

    Raises:
        ProbeError: the images do not have the network's channels or size.
        BackendError: no concept could be shown at all.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "shown.jsonl")
    channels: tuple[str, ...] = ()
    prepare = getattr(source, "prepare", None)
    if prepare is not None:
        # A pool searches for many concepts at once in about the time that one takes.
        prepare([concept for concept in sorted(set(concepts)) if concept not in journal.entries])
    for number, concept in enumerate(sorted(set(concepts)), start=1):
        if concept not in journal.entries:
            images = source.show(concept, n)
            for image in images:
                if image.pixels.shape != shape:
                    raise ProbeError(
                        f"{type(source).__name__} shows {concept!r} as {image.pixels.shape} pixels but the probe's are "
                        f"{shape}: choose a source of concept images with the probe's channels and size"
                    )
                path = folder / f"{image.key}.npz"
                if not path.exists():
                    _save(path, image)
            named = list(images[0].channels) if images else []
            journal.extend([(concept, {"keys": [image.key for image in images], "channels": named})])
        entry = journal.entries[concept]
        if isinstance(entry, dict) and entry["channels"]:
            channels = tuple(entry["channels"])
        if progress is not None:
            progress("concepts", number, len(set(concepts)))
    keys: dict[str, tuple[str, ...]] = {}
    for concept in sorted(set(concepts)):
        entry = journal.entries[concept]
        keys[concept] = tuple(entry["keys"]) if isinstance(entry, dict) else ()
    if keys and not any(keys.values()):
        raise BackendError(
            f"{type(source).__name__} has no image for any of {len(keys)} concepts: give it another pool or model"
        )
    return Gallery(keys, folder, channels)


def _save(path: Path, image: ProbeImage) -> None:
    aside = path.with_suffix(".part")
    with writing(path):
        with aside.open("wb") as stream:
            np.savez(stream, pixels=image.pixels, rgb=image.rgb)
        aside.replace(path)


def write_pngs(gallery: Gallery, folder: Path) -> None:
    """Write every distinct image's rendering as ``KEY.png``."""
    from PIL import Image

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for key in gallery.distinct:
            Image.fromarray(gallery.load(key).rgb).save(folder / f"{key[:20]}.png")


def rank_candidates(
    candidates: Sequence[Candidate],
    activations: NDArray[np.float32],
    rows: Mapping[str, NDArray[np.int64]],
    config: SelectionConfig,
    *,
    image_space: NDArray[np.float32],
    top_space: NDArray[np.float32],
    simulation: NDArray[np.floating],
    errors: NDArray[np.floating],
) -> list[ScoredLabel]:
    """Score one unit's candidates with all scores and put the winner of ``config.score`` first.

    Args:
        candidates: what was proposed.
        activations: (M,) the unit's activation on every distinct concept image.
        rows: for each concept, the rows of its images in ``activations``.
        config: Q, beta and the score that chooses.
        image_space: (M, D) the concept images in a CLIP-like space, rows of length one.
        top_space: (K, D) the unit's own top images there.
        simulation: (candidates,) correlation of each candidate's presence with the activation over explaining images.
        errors: (candidates,) from :func:`lead_errors`.

    Returns:
        Best first; ties by order of proposal. A candidate that cannot be shown (fewer than beta images) has none of the
        paper's scores: where one of these chooses it comes last, where the simulation does it competes by that.
    """
    showing = np.array([len(rows[c.label]) >= config.beta for c in candidates], dtype=bool)
    shown: list[int] = np.flatnonzero(showing).tolist()
    simulated = np.asarray(simulation, dtype=np.float64)
    found: list[dict[str, float]] = [{"simulation": float(r)} for r in simulated]
    if shown:
        quota = min(config.images_per_concept, *(len(rows[candidates[i].label]) for i in shown))
        index = np.stack([rows[candidates[i].label][:quota] for i in shown])
        scores = scoring.score_concepts(activations[index], image_space[index], top_space, beta=min(config.beta, quota))
        for place, i in enumerate(shown):
            found[i] |= {name: float(column[place]) for name, column in scores.items()}
    if config.score == "simulation":
        # Presence over the explaining images needs no concept image: what is too rare for the pool competes all the same.
        words = np.array([complexity(c.label) for c in candidates])
        best = np.array([scores.get("topk_squared_x_image_products", -np.inf) for scores in found])
        order = simplest_first(simulated, words, best, np.asarray(errors)).tolist() if len(candidates) else []
    else:
        order = [shown[i] for i in scoring.order_of(config.score, scores[config.score])] if shown else []
    ranked = [ScoredLabel(candidates[i], found[i]) for i in order]
    return ranked + [ScoredLabel(candidate) for i, candidate in enumerate(candidates) if i not in set(order)]


def complexity(label: str) -> float:
    """How much a label says: one for each thing it names, half more for each it denies, and a twentieth for each word."""
    parts = [part for alternative in concept_parts(label) for part in alternative]
    return len(parts) + DENIED * sum(part.denied for part in parts) + len(label.split()) / 20


def lead_errors(
    activations: NDArray[np.floating], presence: NDArray[np.floating], blocks: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Standard error of how far the best of some concepts is ahead of each in correlation with a unit.

    Neighbouring images are alike, so what was drawn is blocks of them: each block's influence on the difference of the
    two correlations is summed, and the sums vary as the difference would (the infinitesimal jackknife of Jaeckel 1972,
    by cluster). Two concepts that say nearly the same err together, so their difference is surer than either.

    Args:
        activations: (N,) of the unit.
        presence: (N, J) of each concept.
        blocks: (N,) block of each image; every image is its own where None.

    Returns:
        (J,), 0 for the best itself.
    """
    a, c = _standard(np.asarray(activations, dtype=np.float64)), _standard(np.asarray(presence, dtype=np.float64))
    product = a[:, None] * c
    r = product.mean(axis=0)
    influence = product - 0.5 * r * (a[:, None] ** 2 + c**2)
    influence = influence[:, [int(np.argmax(r))]] - influence
    _, place = np.unique(np.arange(len(a)) if blocks is None else np.asarray(blocks), return_inverse=True)
    count = int(place.max()) + 1
    sums = np.stack([np.bincount(place, column, minlength=count) for column in influence.T], axis=1)
    return np.asarray(np.sqrt((sums**2).sum(axis=0) * count / max(count - 1, 1)) / len(a))


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9))


def simplest_first(
    simulation: NDArray[np.float64],
    words: NDArray[np.floating],
    shown: NDArray[np.float64],
    errors: NDArray[np.floating],
) -> NDArray[np.int64]:
    """Candidates by simulation, except that the simplest of those as good as the best comes first.

    As good is one that the best is ahead of by no more than :data:`SURE` standard errors of the lead, or by less than
    :data:`WORTH` for each thing it says more (after the one-standard-error rule of Breiman et al. 1984): what more is said must
    be earned. Among equally simple ones the concept images decide.

    Args:
        simulation: (J,) correlations.
        words: (J,) :func:`complexity` of each label.
        shown: (J,) the paper's score on concept images, higher is better.
        errors: (J,) standard error of the lead of the best over each, from :func:`lead_errors`.

    Returns:
        (J,) candidate indices, best first.
    """
    order = np.argsort(-simulation, kind="stable")
    best = int(order[0])
    allowed = np.maximum(SURE * errors, WORTH * np.maximum(words[best] - words, 0))
    close = np.flatnonzero(simulation[best] - simulation <= allowed)
    first = min(close.tolist(), key=lambda i: (words[i], -shown[i], i))
    return np.asarray([first, *(i for i in order.tolist() if i != first)], dtype=np.int64)
