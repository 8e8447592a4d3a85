"""How right a map is, and how many hectares of what it shows (method section 4, "Hectares, not only percent").

Estimators after Olofsson et al., *Good practices for estimating area and assessing accuracy of land change*, Remote
Sensing of Environment 148 (2014), numbered here by its equations; cluster samples by ratio estimators with linearised
variances (Stehman 1997; Sarndal et al. 1992, section 8.7). Rows of an error matrix are map classes, columns reference
classes. All intervals are normal or, for clusters, Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import DndError
from geoaudit.rates import check_level
from geoaudit.statistics import Estimate, block_bootstrap, bootstrap_interval

__all__ = [
    "AccuracyError",
    "AccuracyReport",
    "Design",
    "affected_area",
    "cluster_accuracy",
    "error_matrix",
    "simple_accuracy",
    "stratified_accuracy",
]

Design = Literal["simple", "poststratified", "stratified", "cluster"]


class AccuracyError(DndError):
    """A sample cannot carry the accuracy or area asked for."""


@dataclass(frozen=True, eq=False)
class AccuracyReport:
    """Accuracies and areas of a map, estimated from a labelled sample.

    Attributes:
        design: how the sample was drawn.
        classes: K class names.
        counts: (K, K) sample counts, map class by reference class.
        proportions: (K, K) estimated shares of the mapped area, summing to 1 (equation 4).
        overall: share of the area that is mapped right, in [0, 1].
        users: K user's accuracies (of what is mapped c, how much is c); NaN for a class that is not mapped.
        producers: K producer's accuracies (of what is c, how much is mapped c); NaN for a class never seen.
        areas: K bias-adjusted areas of the reference classes, in the unit of the mapped areas.
        mapped: (K,) mapped areas, or None where they are not known (then ``areas`` are shares).
        n: sample units; for clusters, how many units lie in them.
        clusters: how many clusters, or None for other designs.
        notes: what limits the figures, in plain words.

    """

    design: Design
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    proportions: NDArray[np.float64]
    overall: Estimate
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    areas: tuple[Estimate, ...]
    mapped: NDArray[np.float64] | None
    n: int
    clusters: int | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undefined figures are None."""

        def plain(estimate: Estimate) -> dict[str, float | None]:
            figures = {"estimate": estimate.value, "low": estimate.low, "high": estimate.high}
            return {name: None if np.isnan(value) else value for name, value in figures.items()}

        return {
            "design": self.design,
            "n": self.n,
            "clusters": self.clusters,
            "level": self.overall.level,
            "counts": self.counts.tolist(),
            "overall": plain(self.overall),
            "classes": [
                {
                    "name": name,
                    "users": plain(self.users[k]),
                    "producers": plain(self.producers[k]),
                    "area": plain(self.areas[k]),
                    "mapped": None if self.mapped is None else float(self.mapped[k]),
                }
                for k, name in enumerate(self.classes)
            ],
            "notes": list(self.notes),
        }


def error_matrix(mapped: ArrayLike, reference: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Sample counts (K, K) from (N,) map and reference class indices.

    Raises:
        AccuracyError: no sample, lengths differ, or a class outside 0 .. K - 1.

    """
    rows, columns = np.asarray(mapped), np.asarray(reference)
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise AccuracyError(
            f"map and reference classes must be two lists of one length, got {rows.shape}, {columns.shape}"
        )
    if len(rows) == 0:
        raise AccuracyError("the sample is empty; accuracy needs labelled sample units")
    for name, values in (("map", rows), ("reference", columns)):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() >= classes:
            raise AccuracyError(f"{name} classes must be whole numbers from 0 to {classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def stratified_accuracy(
    counts: ArrayLike, mapped: ArrayLike, classes: Sequence[str] = (), level: float = 0.95
) -> AccuracyReport:
    """Accuracy and area from a random sample stratified by map class (equations 1-11).

    Args:
        counts: (K, K) sample counts, rows the map class (the stratum), columns the reference class.
        mapped: (K,) mapped area of each class, in any unit (hectares, pixels); the areas come out in it.
        classes: K names.
        level: of the intervals.

    Raises:
        AccuracyError: shapes disagree, a count or area is negative or not finite, or a class that is mapped has
            fewer than two samples (no variance can be estimated).

    """
    n = _counts(counts)
    areas = _areas(mapped, len(n))
    return _by_stratum(n, areas, "stratified", _names(classes, len(n)), level)


def simple_accuracy(
    counts: ArrayLike, mapped: ArrayLike | None = None, classes: Sequence[str] = (), level: float = 0.95
) -> AccuracyReport:
    """Accuracy and area from a simple random sample.

    With the mapped areas the sample is post-stratified by map class, which Olofsson et al. recommend (section 5.1.1);
    without them the sample's own shares are the estimates, and ``areas`` are shares of the whole.

    Raises:
        AccuracyError: as :func:`stratified_accuracy`; without areas, fewer than two samples in all.

    """
    n = _counts(counts)
    names = _names(classes, len(n))
    if mapped is not None:
        return _by_stratum(n, _areas(mapped, len(n)), "poststratified", names, level)
    total = int(n.sum())
    if total < 2:
        raise AccuracyError(f"a sample of {total} has no variance; at least two sample units are needed")
    z = _normal(level)
    rows, columns, right = n.sum(axis=1), n.sum(axis=0), np.diag(n)

    def share(k: float, of: float) -> Estimate:
        if of == 0:
            return _undefined(level)
        p = k / of
        return _bounded(p, z * np.sqrt(p * (1 - p) / (of - 1)) if of > 1 else np.nan, level)

    return AccuracyReport(
        "simple",
        names,
        n,
        n / total,
        share(right.sum(), total),
        tuple(share(*pair) for pair in zip(right, rows, strict=True)),
        tuple(share(*pair) for pair in zip(right, columns, strict=True)),
        tuple(share(k, total) for k in columns),
        None,
        total,
        notes=_small(n, names, "simple"),
    )


def cluster_accuracy(
    mapped: ArrayLike,
    reference: ArrayLike,
    clusters: ArrayLike,
    classes: Sequence[str],
    total_area: float | None = None,
    level: float = 0.95,
) -> AccuracyReport:
    """Accuracy and area from a one-stage cluster sample: whole tiles drawn at random, every unit in them labelled.

    Every figure is a ratio of cluster totals; its variance is that of the linearised residuals between clusters, so
    neighbouring units that agree do not count twice.

    Args:
        mapped: (N,) map class indices of the sample units.
        reference: (N,) their reference class indices.
        clusters: (N,) cluster ids.
        classes: K names.
        total_area: area of the whole map; ``areas`` are shares of it when None.
        level: of the intervals (Student's t with clusters - 1 degrees of freedom).

    Raises:
        AccuracyError: fewer than two clusters, lengths or classes that do not fit, an area that is not positive.

    """
    from scipy import stats

    check_level(level)
    k = len(classes)
    counts = error_matrix(mapped, reference, k)
    rows, columns = np.asarray(mapped), np.asarray(reference)
    ids = np.asarray(clusters)
    if ids.shape != rows.shape:
        raise AccuracyError(f"clusters must hold one id for each of the {len(rows)} sample units, got {ids.shape}")
    _, codes = np.unique(ids, return_inverse=True)
    m = int(codes.max()) + 1
    if m < 2:
        raise AccuracyError("all sample units lie in one cluster; at least two clusters are needed for an interval")
    if total_area is not None and not (np.isfinite(total_area) and total_area > 0):
        raise AccuracyError(f"the total area must be positive, got {total_area}")
    t = float(stats.t.ppf((1 + level) / 2, m - 1))

    def ratio(top: NDArray[np.bool_], bottom: NDArray[np.bool_], scale: float = 1.0, ceiling: float = 1.0) -> Estimate:
        above, below = np.bincount(codes, top, m), np.bincount(codes, bottom, m)
        if below.sum() == 0:
            return _undefined(level)
        value = above.sum() / below.sum()
        residual = above - value * below
        error = np.sqrt(m * (residual**2).sum() / (m - 1)) / below.sum()
        return _bounded(scale * value, scale * t * error, level, ceiling)

    everything = np.ones(len(rows), dtype=bool)
    area = 1.0 if total_area is None else float(total_area)
    notes = _small(counts, tuple(classes), "cluster")
    if m < 10:
        notes += (f"only {m} clusters were drawn, so the intervals are rough",)
    return AccuracyReport(
        "cluster",
        tuple(classes),
        counts,
        counts / counts.sum(),
        ratio(rows == columns, everything),
        tuple(ratio((rows == c) & (columns == c), rows == c) for c in range(k)),
        tuple(ratio((rows == c) & (columns == c), columns == c) for c in range(k)),
        tuple(ratio(columns == c, everything, area, area) for c in range(k)),
        None if total_area is None else area * np.bincount(rows, minlength=k) / len(rows),
        len(rows),
        m,
        notes,
    )


def affected_area(
    affected: ArrayLike,
    hectares: ArrayLike,
    blocks: ArrayLike | None = None,
    total: float | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Hectares whose predicted class hangs on a concept, with a block-bootstrap interval.

    Args:
        affected: (N,) per unit of area (pixel, tile): whether its class flips when the concept is taken away or put
            in, or the share of it that does, in [0, 1].
        hectares: (N,) area of each unit, or one number for all.
        blocks: (N,) spatial blocks; None treats units as independent.
        total: area in hectares that the units stand for; the affected share of them is scaled to it. None: the
            units are the whole area.
        n: bootstrap draws.
        seed: of the bootstrap.
        level: of the interval.

    Returns:
        The estimate in hectares; its interval lies within [0, total].

    Raises:
        AccuracyError: shares outside [0, 1], areas that are not positive, or fewer than two blocks.

    """
    share = np.asarray(affected, dtype=np.float64)
    if share.ndim != 1 or len(share) == 0 or not ((share >= 0) & (share <= 1)).all():
        raise AccuracyError("affected must be a list of shares in [0, 1], one a unit of area")
    area = np.asarray(hectares, dtype=np.float64)
    if area.shape not in ((), share.shape) or not (np.isfinite(area) & (area > 0)).all():
        raise AccuracyError("hectares must be one positive number, or one for each unit of area")
    area = np.broadcast_to(area, share.shape)
    whole = float(area.sum()) if total is None else float(total)
    if not (np.isfinite(whole) and whole > 0):
        raise AccuracyError(f"the total area must be positive, got {total}")
    count = len(share) if blocks is None else len(np.unique(np.asarray(blocks)))
    if count < 2:
        raise AccuracyError("all units lie in one block, so the affected area has no interval; use smaller blocks")
    sums = block_bootstrap(np.column_stack([share * area, area]), blocks, n=n, seed=seed)
    low, high = bootstrap_interval(sums[:, 0] / sums[:, 1], level, count)
    value = whole * float((share * area).sum() / area.sum())
    return Estimate(value, whole * max(0.0, float(low)), whole * min(1.0, float(high)), level)


def _by_stratum(
    n: NDArray[np.int64], areas: NDArray[np.float64], design: Design, names: tuple[str, ...], level: float
) -> AccuracyReport:
    """Equations 1-11; ``areas`` are the strata's sizes N_i in any unit."""
    z = _normal(level)
    rows = n.sum(axis=1)
    for name, size, area in zip(names, rows, areas, strict=True):
        if area > 0 and size < 2:
            raise AccuracyError(
                f"map class {name!r} has {size} sample units; every class that is mapped needs at least two: "
                "draw more, or merge it with another class"
            )
        if area == 0 and size > 0:
            raise AccuracyError(
                f"map class {name!r} has {size} sample units but no mapped area; check the mapped areas"
            )
    total = areas.sum()
    weight = areas / total
    # Classes that are not mapped have no rows; 1 stands in for their sizes and is multiplied by weight zero.
    size = np.maximum(rows, 1)
    within = n / size[:, None]
    proportions = weight[:, None] * within
    spread = within * (1 - within) / np.maximum(size - 1, 1)[:, None]
    users, right = np.diag(within), np.diag(proportions)
    columns = proportions.sum(axis=0)
    overall = _bounded(right.sum(), z * np.sqrt((weight**2 * np.diag(spread)).sum()), level)
    user = tuple(
        _bounded(u, z * np.sqrt(v), level) if area > 0 else _undefined(level)
        for u, v, area in zip(users, np.diag(spread), areas, strict=True)
    )
    producer = []
    for j, column in enumerate(columns):
        if column == 0:
            producer.append(_undefined(level))
            continue
        p = right[j] / column
        others = np.delete(weight**2 * spread[:, j], j).sum()
        variance = (weight[j] ** 2 * (1 - p) ** 2 * spread[j, j] + p**2 * others) / column**2
        producer.append(_bounded(p, z * np.sqrt(variance), level))
    errors = np.sqrt((weight[:, None] ** 2 * spread).sum(axis=0))
    adjusted = tuple(_bounded(total * c, z * total * e, level, total) for c, e in zip(columns, errors, strict=True))
    size_of_sample, notes = int(n.sum()), _small(n, names, design)
    return AccuracyReport(
        design, names, n, proportions, overall, user, tuple(producer), adjusted, areas, size_of_sample, notes=notes
    )


def _counts(counts: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] < 2:
        raise AccuracyError(f"an error matrix is square with at least two classes, got shape {values.shape}")
    if not (np.isfinite(values) & (values >= 0) & (values == np.round(values))).all():
        raise AccuracyError("an error matrix holds sample counts: whole numbers, none negative")
    return values.astype(np.int64)


def _areas(mapped: ArrayLike, k: int) -> NDArray[np.float64]:
    areas = np.asarray(mapped, dtype=np.float64)
    if areas.shape != (k,):
        raise AccuracyError(f"mapped areas must be {k} numbers, one a map class, got shape {areas.shape}")
    if not (np.isfinite(areas) & (areas >= 0)).all() or areas.sum() == 0:
        raise AccuracyError("mapped areas must be finite, not negative, and not all zero")
    return areas


def _names(classes: Sequence[str], k: int) -> tuple[str, ...]:
    names = tuple(classes) or tuple(f"class {i}" for i in range(k))
    if len(names) != k:
        raise AccuracyError(f"{len(names)} class names were given for an error matrix of {k} classes")
    return names


def _small(n: NDArray[np.int64], names: tuple[str, ...], design: Design) -> tuple[str, ...]:
    """Warnings about classes with few samples: normal intervals are poor below about 20."""
    axis, kind = (1, "mapped") if design in ("stratified", "poststratified") else (0, "labelled")
    few = [name for name, size in zip(names, n.sum(axis=axis), strict=True) if 0 < size < 20]
    return (f"fewer than 20 sample units {kind} {', '.join(few)}: intervals are rough",) if few else ()


def _normal(level: float) -> float:
    from scipy import stats

    check_level(level)
    # Olofsson et al. round to 1.96 at 95 %; the difference is below their printed digits.
    return float(stats.norm.ppf((1 + level) / 2))


def _bounded(value: float, half: float, level: float, ceiling: float = 1.0) -> Estimate:
    low, high = max(0.0, float(value - half)), min(float(ceiling), float(value + half))
    return (
        Estimate(float(value), low, high, level) if np.isfinite(half) else Estimate(float(value), 0.0, ceiling, level)
    )


def _undefined(level: float) -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), level)
