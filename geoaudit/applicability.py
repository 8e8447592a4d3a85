"""Where an audit's figures apply: how unlike the audited images each place of a scene is (Meyer and Pebesma 2021).

The dissimilarity of an image is its distance in feature space to the nearest audited image, over the mean distance between
audited images. Beyond the largest one among audited images of other blocks that is no outlier, the network is at work on
something the audit has not seen, and none of its figures speak of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from dnd_core.config import Pooling
    from dnd_core.images import ImageSet
    from dnd_core.pipeline import Run
    from geoaudit.canvas import Grid

__all__ = ["Applicability", "ApplicabilityMap", "Reference", "applicability", "reference_of"]

# More audited images than this make every window dearer and hardly move the threshold.
MOST_IMAGES = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Applicability:
    """Area of applicability in feature space.

    Attributes:
        index: (M,) dissimilarity of each new image: distance to the nearest training image over the mean distance
            between training images.
        threshold: the largest dissimilarity among training images of other blocks that is no outlier (upper whisker).
    """

    index: Floats
    threshold: float

    @property
    def outside(self) -> float:
        """Share of the new images beyond the threshold."""
        return float((self.index > self.threshold).mean())


@dataclass(frozen=True, eq=False)
class Reference:
    """The images that others are compared with.

    Attributes:
        known: (N, D) their features, scaled.
        scale: (D,) what features are multiplied by: one over their deviation, times their weight.
        mean: mean distance between two of them.
        threshold: see :class:`Applicability`.
    """

    known: Floats
    scale: Floats
    mean: float
    threshold: float

    @classmethod
    def fit(cls, train: ArrayLike, blocks: ArrayLike, weights: ArrayLike | None = None) -> Reference:
        """Measure the scale and the threshold on the known images; see :func:`applicability`."""
        from scipy.spatial.distance import cdist

        known, ids = np.asarray(train, dtype=np.float64), np.asarray(blocks)
        if len(np.unique(ids)) < 2:
            raise ValueError("the dissimilarity of training images needs at least two blocks")
        spread = known.std(axis=0)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        scale = scale * (1.0 if weights is None else np.asarray(weights, dtype=np.float64))
        known = known * scale
        among = cdist(known, known)
        mean = float(among.sum() / (len(known) * (len(known) - 1))) or 1.0
        among[ids[:, None] == ids[None, :]] = np.inf
        own = among.min(axis=1) / mean
        low, high = np.quantile(own, [0.25, 0.75])
        inside = own[own <= high + 1.5 * (high - low)]
        return cls(known, scale, mean, float(inside.max()))

    def index(self, new: ArrayLike) -> Floats:
        """(M,) dissimilarity of new images, (M, D)."""
        fresh = np.asarray(new, dtype=np.float64) * self.scale
        # One matrix product instead of N differences each: a scene asks for a hundred thousand windows.
        squared = (fresh**2).sum(axis=1)[:, None] + (self.known**2).sum(axis=1) - 2 * (fresh @ self.known.T)
        nearest = squared.argmin(axis=1)
        return np.asarray(np.linalg.norm(fresh - self.known[nearest], axis=1) / self.mean)


def applicability(
    train: ArrayLike, new: ArrayLike, blocks: ArrayLike, weights: ArrayLike | None = None
) -> Applicability:
    """Dissimilarity of new images to training images (Meyer and Pebesma 2021, sections 2.1-2.3).

    Args:
        train: (N, D) features; they set the scale.
        new: (M, D).
        blocks: (N,) blocks of the training images; one is compared with those of other blocks only, as in a blocked
            cross-validation.
        weights: (D,) importance of each feature, at least 0; all alike when None.

    Raises:
        ValueError: fewer than two blocks.
    """
    reference = Reference.fit(train, blocks, weights)
    return Applicability(reference.index(new), reference.threshold)


def reference_of(run: Run, images: ImageSet, layer: str, seed: int = 0) -> Reference | None:
    """The labelled images of an audit that were not held out, seen by one layer; None where they lie in one block.

    Args:
        run: the description, with its pooled activations.
        images: the probe.
        layer: whose units are the features.
        seed: of the choice where there are more than :data:`MOST_IMAGES`.
    """
    known = np.ones(len(images), dtype=bool) if images.labels is None else images.labels >= 0
    known[run.held_out] = False
    rows = np.flatnonzero(known)
    if len(rows) > MOST_IMAGES:
        rows = np.sort(np.random.default_rng([seed, 17]).choice(rows, MOST_IMAGES, replace=False))
    # Images without blocks count as far apart: nothing else is known about them.
    blocks = rows if images.blocks is None else images.blocks[rows]
    if len(np.unique(blocks)) < 2:
        return None
    return Reference.fit(np.asarray(run.activations(layer)[rows]), blocks)


class ApplicabilityMap:
    """Dissimilarity over a scene, gathered while a sliding pass runs: each cell takes the mean of the windows over it.

    Given to :class:`geoaudit.sliding.SlidingPass` as ``features``.

    Args:
        reference: what windows are compared with.
        layer: whose units are the features.
        pooling: how the audit pooled them.

    """

    def __init__(self, reference: Reference, layer: str, pooling: Pooling) -> None:
        self.reference, self.layer, self.pooling = reference, layer, pooling
        self._found: list[tuple[int, int, float]] = []

    def add(self, top: int, lefts: Sequence[int], values: NDArray[np.float32]) -> None:
        """Take the pooled features (windows, D) of windows at row ``top`` and columns ``lefts``."""
        index = self.reference.index(values)
        self._found += [(top, left, float(value)) for left, value in zip(lefts, index, strict=True)]

    def raster(self, grid: Grid, chip: tuple[int, int]) -> NDArray[np.float32]:
        """(rows, columns) on a grid of scene cells; NaN where no window lay.

        Args:
            grid: of the map.
            chip: rows and columns of a window in scene pixels.

        """
        total, count = np.zeros((grid.height, grid.width)), np.zeros((grid.height, grid.width))
        step = grid.resolution
        for top, left, value in self._found:
            area = (slice(top // step, -(-(top + chip[0]) // step)), slice(left // step, -(-(left + chip[1]) // step)))
            total[area] += value
            count[area] += 1
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(count > 0, total / count, np.nan), dtype=np.float32)

    def write(self, path: Path, grid: Grid, chip: tuple[int, int], crs: str, seen: Path | None) -> float:
        """Write the map beside the others and return the share of its cells beyond the threshold.

        Args:
            path: the file, ``maps/applicability.tif``.
            grid: of the map.
            chip: rows and columns of a window in scene pixels.
            crs: of the scene.
            seen: a map on the same grid that is NaN where the scene holds no data.

        """
        import rasterio

        from geoaudit.cogs import Scratch, write_activation
        from geoaudit.styles import ramp_sidecar, write_sidecar

        values = self.raster(grid, chip)
        if seen is not None:
            with rasterio.open(seen) as known:
                values[~np.isfinite(known.read(1))] = np.nan
        cells = values[np.isfinite(values)]
        outside = float((cells > self.reference.threshold).mean()) if len(cells) else float("nan")
        tags: dict[str, Any] = {
            "LAYER": self.layer, "THRESHOLD": f"{self.reference.threshold:.6g}", "OUTSIDE": f"{outside:.6g}",
            "IMAGES": len(self.reference.known),
        }  # fmt: skip
        with Scratch(path.with_suffix(".raw"), 1, grid) as scratch:
            scratch.write(0, values[None])
            words = "dissimilarity to the audited images"
            write_activation(path, scratch, 0, crs, words, "float32", path.parent, {k: str(v) for k, v in tags.items()})
        write_sidecar(path, ramp_sidecar(0.0, 2 * self.reference.threshold))
        return outside
