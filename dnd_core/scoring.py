"""Step 3: the four scores that choose a concept (paper section 3.3), and measures of how well a label fits a unit.

The scores take activations of the candidates' images with the shape (..., J, Q): J candidates of a unit, Q images each,
any number of units in front. A candidate with fewer images, or a unit with fewer candidates, is padded with NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import ConfigError

__all__ = [
    "LOWER_IS_BETTER",
    "SCORES",
    "Overlap",
    "activation_rate",
    "auprc",
    "choose",
    "cosy_auc",
    "cosy_mad",
    "f1_iou_at",
    "image_products",
    "mean",
    "order_of",
    "pearson",
    "pearson_matrix",
    "ranks",
    "score_concepts",
    "similarity",
    "topk_squared",
    "topk_squared_x_image_products",
]

Floats = NDArray[np.float64]

SCORES = ("mean", "topk_squared", "image_products", "topk_squared_x_image_products")
"""The paper's four scores by name."""

LOWER_IS_BETTER = frozenset({"mean", "topk_squared"})
"""The scores that are ranks; the others are similarities."""


def ranks(activations: ArrayLike) -> Floats:
    """Rank of every concept image among all J*Q of its unit, 0 = highest activation.

    Equal activations share the mean of their ranks, so that no candidate gains from its place in the list.

    Args:
        activations: (..., J, Q), NaN where there is no image.

    Returns:
        (..., J, Q) ranks in 0 .. J*Q - 1, NaN where there is no image.
    """
    from scipy.stats import rankdata

    values = np.asarray(activations, dtype=np.float64)
    flat = values.reshape(*values.shape[:-2], -1)
    if flat.size == 0:
        return values.copy()
    ranked = np.asarray(rankdata(-flat, method="average", axis=-1, nan_policy="omit")) - 1
    return ranked.reshape(values.shape)


def mean(ranked: ArrayLike) -> Floats:
    """Mean rank of each candidate's images; lower is better.

    Args:
        ranked: (..., J, Q) from :func:`ranks`.

    Returns:
        (..., J), NaN for a candidate without images.
    """
    return _mean_of(np.asarray(ranked, dtype=np.float64))


def topk_squared(ranked: ArrayLike, beta: int = 5) -> Floats:
    """Mean of the squared ranks of each candidate's beta best-ranked images; lower is better.

    Args:
        ranked: (..., J, Q) from :func:`ranks`.
        beta: how many images count; all of a candidate that has fewer.

    Returns:
        (..., J), NaN for a candidate without images.
    """
    best = np.sort(np.asarray(ranked, dtype=np.float64), axis=-1)[..., :beta]
    return _mean_of(best**2)


def similarity(concepts: ArrayLike, own: ArrayLike) -> Floats:
    """Mean cosine similarity of concept images with a unit's own top images.

    Args:
        concepts: (..., D) concept images in a CLIP-like space, rows of length one.
        own: (K, D) the unit's top images there, rows of length one.

    Returns:
        (...) in [-1, 1].
    """
    # A mean of cosines of unit vectors is the product with the mean vector.
    return np.asarray(np.asarray(concepts, np.float64) @ np.asarray(own, np.float64).mean(axis=0))


def image_products(ranked: ArrayLike, similar: ArrayLike, beta: int = 5) -> Floats:
    """Mean similarity between each candidate's beta best-ranked images and the unit's own top images; higher is better.

    Args:
        ranked: (..., J, Q) from :func:`ranks`.
        similar: (..., J, Q) from :func:`similarity`.
        beta: how many images count. Among equal ranks the earlier image goes first.

    Returns:
        (..., J) in [-1, 1], NaN for a candidate without images.
    """
    ranked = np.asarray(ranked, dtype=np.float64)
    best = np.argsort(ranked, axis=-1, kind="stable")[..., :beta]
    masked = np.where(np.isnan(ranked), np.nan, np.asarray(similar, dtype=np.float64))
    return _mean_of(np.take_along_axis(masked, best, axis=-1))


def topk_squared_x_image_products(squared: ArrayLike, products: ArrayLike) -> Floats:
    """(J - position in the order of ``topk_squared``) times ``image_products``, the paper's choice; higher is better.

    Args:
        squared: (..., J) from :func:`topk_squared`; J counts the candidates that are not NaN.
        products: (..., J) from :func:`image_products`.

    Returns:
        (..., J). The best candidate has position 0; the earlier of two equals goes first.
    """
    squared = np.asarray(squared, dtype=np.float64)
    position = np.argsort(np.argsort(squared, axis=-1, kind="stable"), axis=-1, kind="stable")
    count = (~np.isnan(squared)).sum(axis=-1, keepdims=True)
    return np.where(np.isnan(squared), np.nan, (count - position) * np.asarray(products, dtype=np.float64))


def score_concepts(activations: ArrayLike, images: ArrayLike, own: ArrayLike, beta: int = 5) -> dict[str, Floats]:
    """All four scores of one unit's candidates.

    Args:
        activations: (J, Q) of the unit on the candidates' images, NaN where there is no image.
        images: (J, Q, D) those images in a CLIP-like space, rows of length one.
        own: (K, D) the unit's own top images there.
        beta: how many images of a candidate count.

    Returns:
        Name in :data:`SCORES` -> (J,).
    """
    ranked = ranks(activations)
    squared = topk_squared(ranked, beta)
    products = image_products(ranked, similarity(images, own), beta)
    combined = topk_squared_x_image_products(squared, products)
    return dict(zip(SCORES, (mean(ranked), squared, products, combined), strict=True))


def order_of(score: str, values: ArrayLike) -> NDArray[np.int64]:
    """Candidates from best to worst by a score; the earlier of two equals first, NaN last.

    Args:
        score: a name in :data:`SCORES`.
        values: (..., J) scores.

    Returns:
        (..., J) candidate indices.

    Raises:
        ConfigError: the score is unknown.
    """
    if score not in SCORES:
        raise ConfigError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    values = np.asarray(values, dtype=np.float64)
    return np.argsort(values if score in LOWER_IS_BETTER else -values, axis=-1, kind="stable")


def choose(score: str, values: ArrayLike) -> NDArray[np.int64]:
    """The best candidate of each unit, -1 where all are NaN.

    Args:
        score: a name in :data:`SCORES`.
        values: (..., J) scores.

    Returns:
        (...) candidate indices.
    """
    best = order_of(score, values)[..., 0]
    return np.where(np.isnan(np.asarray(values, dtype=np.float64)).all(axis=-1), -1, best)


def _mean_of(values: Floats) -> Floats:
    counts = (~np.isnan(values)).sum(axis=-1)
    sums = np.nansum(values, axis=-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def pearson(activations: ArrayLike, presence: ArrayLike) -> Floats:
    """Simulation: correlation of a unit's activation with a concept's presence over images, in [-1, 1].

    Args:
        activations: (N,) or (N, U).
        presence: (N,), or (N, U) one concept a unit.

    Returns:
        () or (U,); 0 where either side is constant, since a constant simulates nothing.
    """
    a, c = _centred(activations), _centred(presence)
    if a.ndim == 2 and c.ndim == 1:
        c = c[:, None]
    return np.asarray((a * c).sum(axis=0))


def pearson_matrix(activations: ArrayLike, presence: ArrayLike) -> Floats:
    """:func:`pearson` of every unit (N, U) with every concept (N, L): (U, L)."""
    return np.asarray(_centred(activations).T @ _centred(presence))


def _centred(values: ArrayLike) -> Floats:
    """Columns of mean 0 and length 1; constant ones become 0."""
    values = np.asarray(values, dtype=np.float64)
    centred = values - values.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    # Rounding leaves a constant column a length of a few ulps, which must not be blown up to 1.
    real = length > 1e-12 * np.sqrt((values**2).sum(axis=0))
    return np.where(real, centred / np.where(real, length, 1.0), 0.0)


def _positives(activations: Floats, top_share: float) -> NDArray[np.bool_]:
    """The top share of images, at least one; the earlier of two equals first."""
    if not 0 < top_share < 1:
        raise ConfigError(f"top_share must be between 0 and 1, got {top_share}")
    count = max(1, round(top_share * len(activations)))
    order = np.argsort(-activations, axis=0, kind="stable")[:count]
    positive = np.zeros(activations.shape, dtype=np.bool_)
    np.put_along_axis(positive, order, True, axis=0)
    return positive


def auprc(activations: ArrayLike, presence: ArrayLike, top_share: float = 0.05) -> Floats:
    """Average precision of a concept's presence for a unit's top images, in [0, 1]; chance is ``top_share``.

    Args:
        activations: (N,) or (N, U).
        presence: (N,), or (N, U) one concept a unit; the score. Equal scores count as one threshold.
        top_share: the share of images with the highest activation that are positives; at least one image.

    Returns:
        () or (U,).
    """
    a, c = _aligned(activations, presence)
    positive = _positives(a, top_share)
    order = np.argsort(-c, axis=0, kind="stable")
    hits = np.take_along_axis(positive, order, axis=0)
    score = np.take_along_axis(c, order, axis=0)
    # A group of equal scores is one threshold: its precision is the one at its last row.
    rows = np.arange(len(c))[:, None]
    last = np.where(np.concatenate([score[1:] != score[:-1], np.ones((1, c.shape[1]), bool)]), rows, len(c))
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    precision = np.take_along_axis(hits.cumsum(axis=0), last, axis=0) / (last + 1)
    average = (precision * hits).sum(axis=0) / hits.sum(axis=0)
    return _shaped(average, activations)


class Overlap(NamedTuple):
    """How well the images a concept is most present in match a unit's top images; all in [0, 1]."""

    f1: Floats
    iou: Floats


def f1_iou_at(activations: ArrayLike, presence: ArrayLike, top_share: float = 0.05) -> Overlap:
    """F1 and IoU of the top share of images by presence against the top share by activation.

    Args:
        activations: (N,) or (N, U).
        presence: (N,), or (N, U) one concept a unit.
        top_share: of images on both sides.

    Returns:
        F1 and IoU, each () or (U,).
    """
    a, c = _aligned(activations, presence)
    truth, said = _positives(a, top_share), _positives(c, top_share)
    both = (truth & said).sum(axis=0)
    f1 = 2 * both / (truth.sum(axis=0) + said.sum(axis=0))
    iou = both / (truth | said).sum(axis=0)
    return Overlap(_shaped(f1, activations), _shaped(iou, activations))


def _aligned(activations: ArrayLike, presence: ArrayLike) -> tuple[Floats, Floats]:
    a, c = np.asarray(activations, dtype=np.float64), np.asarray(presence, dtype=np.float64)
    a = a[:, None] if a.ndim == 1 else a
    c = np.broadcast_to(c[:, None] if c.ndim == 1 else c, a.shape)
    return a, c


def _shaped(values: Floats, activations: ArrayLike) -> Floats:
    return np.asarray(values[0] if np.ndim(activations) == 1 else values)


def activation_rate(concept: ArrayLike, threshold: float) -> float:
    """Share of concept images (M,) on which a unit exceeds a threshold (its 99th percentile over the probe).

    Returns:
        In [0, 1]; NaN without images.
    """
    values = np.asarray(concept, dtype=np.float64)
    return float((values > threshold).mean()) if values.size else float("nan")


def cosy_auc(control: ArrayLike, concept: ArrayLike) -> float:
    """CoSy AUC: share of pairs whose concept image (M,) beats the control image (N,); a tie does not. In [0, 1].

    This measure hardly falls when a label's positives are diluted: report it beside others, never alone.
    """
    sorted_control = np.sort(np.asarray(control, dtype=np.float64))
    below = np.searchsorted(sorted_control, np.asarray(concept, dtype=np.float64), side="left")
    return float(below.mean() / len(sorted_control))


def cosy_mad(control: ArrayLike, concept: ArrayLike) -> float:
    """CoSy MAD: (mean on concept - mean on control images) / deviation on control images; 0 where that is 0."""
    base, values = np.asarray(control, dtype=np.float64), np.asarray(concept, dtype=np.float64)
    spread = float(base.std())
    return float((values.mean() - base.mean()) / spread) if spread > 0 else 0.0
