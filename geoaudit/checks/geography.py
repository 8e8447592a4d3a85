"""Do the network's features know the place rather than the land cover?

Images of one place look alike, so a probe trained and tested in the same place flatters. How much is the gap between
a random and a spatially blocked split (Roberts et al. 2017; Ploton et al. 2020). The imagery itself gives place away
too: the same gap on the bands' means and deviations is what a network must exceed before it is said to lean on place.
Beside it stand how much of the activation and of the error the place explains once the class is known, Moran's I of the
error, and the area of applicability after Meyer and Pebesma (2021). Classes that were gathered in one part of the ground
are tested for the look of that part (:mod:`geoaudit.checks.gathered`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoaudit.applicability import Applicability, applicability
from geoaudit.autocorrelation import morans_i_points
from geoaudit.checks.base import AuditContext
from geoaudit.checks.causal import MIN_EFFECT, points
from geoaudit.checks.gathered import gathered_classes
from geoaudit.checks.wording import area_words
from geoaudit.findings import CheckResult, Evidence, Hypothesis
from geoaudit.paired import PairedDifference, paired_difference

__all__ = ["Applicability", "Geography", "applicability", "explained_by_place", "split_gap"]

FOLDS = 5
FEWEST_BLOCKS = 4
# A linear probe on more images than this takes minutes and its accuracy no longer moves.
MOST_IMAGES = 2000
NEIGHBOURS = 8
# The mean of Moran's I over a layer's units is settled by this many, evenly spread.
MOST_UNITS = 64

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Place = tuple[str, tuple[float, float, float, float]]


def explained_by_place(values: ArrayLike, labels: ArrayLike, blocks: ArrayLike) -> float:
    """Adjusted share of the variance within classes that the block explains; about 0 where place says nothing.

    Args:
        values: (N,) or (N, D); columns count alike.
        labels: (N,) classes.
        blocks: (N,) ids.

    Returns:
        At most 1, slightly negative by chance; 0 where nothing varies within classes or every block holds one image.
    """
    columns = np.asarray(values, dtype=np.float64).reshape(len(np.asarray(labels)), -1)
    spread = columns.std(axis=0)
    columns = (columns - columns.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    _, kind = np.unique(np.asarray(labels), return_inverse=True)
    _, place = np.unique(np.asarray(blocks), return_inverse=True)
    cell = np.unique(kind * (place.max() + 1) + place, return_inverse=True)[1]
    within, left = _residual(columns, kind), _residual(columns, cell)
    total, free = float((within**2).sum()), len(columns) - int(cell.max()) - 1
    if total <= 1e-12 or free <= 0:
        return 0.0
    return 1 - float((left**2).sum()) / total * (len(columns) - int(kind.max()) - 1) / free


def _residual(columns: Floats, codes: NDArray[np.intp]) -> Floats:
    sums = np.zeros((int(codes.max()) + 1, columns.shape[1]))
    np.add.at(sums, codes, columns)
    return np.asarray(columns - (sums / np.bincount(codes)[:, None])[codes])


def _probed(features: Floats, labels: Ints, folds: Iterable[tuple[Ints, Ints]]) -> NDArray[np.bool_]:
    """Which images a linear probe trained on the other folds gets right."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right = np.zeros(len(labels), dtype=bool)
    for train, test in folds:
        if len(np.unique(labels[train])) == 1:
            right[test] = labels[test] == labels[train][0]
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        with warnings.catch_warnings():
            # Only which side of the boundary an image falls on is used, not the last digits of the weights.
            warnings.simplefilter("ignore", ConvergenceWarning)
            right[test] = probe.fit(features[train], labels[train]).predict(features[test]) == labels[test]
    return right


def split_gap(features: ArrayLike, labels: ArrayLike, blocks: ArrayLike, seed: int = 0) -> tuple[Floats, Floats]:
    """Which images a linear probe gets right under a random and under a spatially blocked split.

    Args:
        features: (N, D).
        labels: (N,) classes, each with at least two images in at least two blocks.
        blocks: (N,) ids.
        seed: of the folds.

    Returns:
        Two (N,) arrays of 0 and 1.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    x, y, place = np.asarray(features, dtype=np.float64), np.asarray(labels), np.asarray(blocks)
    _, codes = np.unique(y, return_inverse=True)
    fewest = int(np.bincount(codes).min())
    count = max(2, min(FOLDS, fewest, len(np.unique(place))))
    alone = StratifiedKFold(count, shuffle=True, random_state=seed).split(x, y)
    apart = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(x, y, place)
    return _probed(x, y, alone).astype(np.float64), _probed(x, y, apart).astype(np.float64)


class Geography:
    """Place against land cover: grade 1, and up to 3 for classes that were gathered in one place."""

    rule = "geography"
    title = "Features that know the place rather than the land cover"
    needs: tuple[str, ...] = ("georeference", "labels")
    cost = (
        "twenty linear fits on the last layer's pooled activations, one reading of the images; a dozen passes over the evaluated "
        "images for a class gathered in one place"
    )
    null = "the same gap on the bands' means and deviations; block sign flips"

    def run(self, context: AuditContext) -> CheckResult:
        """Measure the gap, the explained shares, Moran's I and the area of applicability."""
        layers = [info.name for info in context.layers if info.name != "output"]
        if not layers:
            return self._unsure("no layer before the output is described, so there are no features to probe")
        rows, places, where = _usable(context)
        if len(np.unique(where)) < FEWEST_BLOCKS or len(np.unique(context.reference[rows])) < 2:
            return self._unsure(
                f"the labelled images lie in fewer than {FEWEST_BLOCKS} blocks, or only one class lies in two of them"
            )
        labels = context.reference[rows]
        features = np.asarray(context.activations[layers[-1]][rows], dtype=np.float64)
        imagery = _band_statistics(context, rows)
        context.report("geography", 0, 2)
        net = split_gap(features, labels, where, context.seed)
        context.report("geography", 1, 2)
        raw = split_gap(imagery, labels, where, context.seed)
        context.report("geography", 2, 2)
        hypotheses = tuple(
            self._test(context, int(target), labels == target, rows, where, net, raw, layers[-1])
            for target in np.unique(labels)
        )
        leaning = [h.class_name for h in hypotheses if h.evidence[0].holds]
        looks = gathered_classes(context, rows, places, where)
        gap = _difference(context, net[0], net[1], where).estimate
        wrong = (context.predicted[rows] != labels).astype(np.float64)
        error = morans_i_points(
            places,
            _residual(wrong[:, None], np.unique(labels, return_inverse=True)[1])[:, 0],
            neighbours=min(NEIGHBOURS, len(rows) - 1),
            permutations=199,
            seed=context.seed,
        )
        activation = _mean_moran(places, features, labels)
        reason = (
            f"a linear probe on {layers[-1]} is right on {net[0].mean():.0%} of {len(rows)} images when split at random and "
            f"on {net[1].mean():.0%} when split by block (a gap of {points(gap.value)}, 95 % interval {points(gap.low)} to "
            f"{points(gap.high)}; on bare band statistics {points(raw[0].mean() - raw[1].mean())}); place explains "
            f"{explained_by_place(features, labels, where):.0%} of the activation after class "
            f"({explained_by_place(imagery, labels, where):.0%} of the band statistics) and "
            f"{max(0.0, explained_by_place(wrong, labels, where)):.0%} of the error; Moran's I beyond class "
            f"{activation:.2f} of the activation (mean over units), {error.value:.2f} of the error (p {error.p:.3f}); "
            f"{self._applicability(context, features, rows, where)}; "
            f"{', '.join(leaning) or 'no class'} leans on place beyond what the imagery gives away; {_gathered_words(looks)}"
        )
        return CheckResult(
            self.rule,
            self.title,
            "fail" if leaning or any(_leans(h) for h in looks) else "pass",
            reason,
            len(hypotheses) + len(looks),
            self.null,
            self.cost,
            (*hypotheses, *looks),
        )

    def _unsure(self, reason: str) -> CheckResult:
        return CheckResult(self.rule, self.title, "inconclusive", reason, 0, self.null, self.cost)

    def _applicability(self, context: AuditContext, features: Floats, rows: Ints, where: Ints) -> str:
        held = np.isin(rows, context.held_out)
        if not held.any() or len(np.unique(where[~held])) < 2:
            return "no images were held out, so the area of applicability is unknown"
        found = applicability(features[~held], features[held], where[~held])
        return (
            f"{found.outside:.0%} of {int(held.sum())} held-out images lie outside the area of applicability of the "
            f"others (dissimilarity above {found.threshold:.2f})"
        )

    def _test(
        self,
        context: AuditContext,
        target: int,
        mine: NDArray[np.bool_],
        rows: Ints,
        where: Ints,
        net: tuple[Floats, Floats],
        raw: tuple[Floats, Floats],
        layer: str,
    ) -> Hypothesis:
        name = context.class_names[target]
        gap = _difference(context, net[0][mine], net[1][mine], where[mine])
        beyond = _difference(context, net[0][mine] - net[1][mine], raw[0][mine] - raw[1][mine], where[mine])
        value, ci = gap.estimate.value, gap.estimate.ci
        p = max(gap.p, beyond.p)
        holds = value >= MIN_EFFECT and ci[0] > 0 and beyond.estimate.low > 0 and p <= 0.01
        lost = (net[0] > net[1]) & mine
        area = context.area_of(rows, lost, np.ones(len(rows)))
        evidence = Evidence(
            1,
            "split gap",
            f"A probe on {layer} recognises {net[0][mine].mean():.0%} of {name} where it has seen neighbouring ground and "
            f"{net[1][mine].mean():.0%} elsewhere (a gap of {points(value)}, 95 % interval {points(ci[0])} to {points(ci[1])}), "
            f"{points(beyond.estimate.value)} beyond the gap on bare band statistics.",
            value,
            ci,
            p,
            self.null,
            holds,
        )
        return Hypothesis(
            rule=self.rule,
            concept=f"ground near known {name}",
            class_name=name,
            layer=layer,
            units=(),
            n=int(mine.sum()),
            p=p,
            evidence=(evidence,),
            metric="split gap",
            value=value,
            ci=ci,
            prevalence=None,
            spurious=True,
            why="a class is what covers the ground, wherever it lies",
            examples=tuple(int(i) for i in rows[lost][:6]),
            counterexamples=tuple(int(i) for i in rows[mine & (net[1] > 0)][:6]),
            area_ha=area,
            area_meaning=f"ground of {name} that is recognised only beside ground seen before" if area else "",
            recommendation=(
                f"Report accuracy of {name} from a spatially blocked split only, and gather {name} in other places"
                f"{f', {area_words(area)} of it are recognised only beside known ground' if area else ''}. Run this audit "
                "again afterwards."
            ),
            title=f"{name} is recognised by its place",
            limitations="A gap of a linear probe on the features is association; nothing was changed in the images.",
        )


def _leans(hypothesis: Hypothesis) -> bool:
    return any(e.grade >= 2 and e.holds for e in hypothesis.evidence)


def _gathered_words(looks: Sequence[Hypothesis]) -> str:
    if not looks:
        return "no class was gathered in one part of the ground"
    said = ", ".join(h.class_name for h in looks)
    leaning = ", ".join(h.class_name for h in looks if _leans(h)) or "none"
    return f"gathered in one part of the ground: {said}; {leaning} of them predicted by how that part looks"


def _mean_moran(places: Floats, features: Floats, labels: Ints) -> float:
    """Moran's I of each unit's activation once its class mean is taken out, averaged over units that vary."""
    left = _residual(features, np.unique(labels, return_inverse=True)[1])
    varying = left[:, left.std(axis=0) > 1e-9]
    neighbours = min(NEIGHBOURS, len(labels) - 1)
    kept = np.unique(np.linspace(0, varying.shape[1] - 1, min(MOST_UNITS, varying.shape[1])).astype(int))
    found = [
        morans_i_points(places, column, neighbours=neighbours, permutations=1).value for column in varying[:, kept].T
    ]
    return float(np.mean(found)) if found else 0.0


def _difference(context: AuditContext, a: Floats, b: Floats, where: Ints) -> PairedDifference:
    blocks = where if len(np.unique(where)) > 1 else None
    return paired_difference(a, b, blocks, n=context.draws, seed=context.seed)


def _usable(context: AuditContext) -> tuple[Ints, Floats, Ints]:
    """Labelled, placed images of classes that lie in two blocks or more, at most :data:`MOST_IMAGES` of them.

    Returns:
        Their indices, (n, 2) centres in metres, and blocks: the set's own, else squares eight images wide.
    """
    labels = context.images.labels
    rows = np.arange(len(context.images)) if labels is None else np.flatnonzero(labels >= 0)
    if len(rows) > MOST_IMAGES:
        rng = np.random.default_rng([context.seed, 13])
        rows = np.sort(rng.choice(rows, MOST_IMAGES, replace=False))
    places = [_place(context.about[int(index)]) for index in rows]
    centres = _centres(places)
    blocks = _own_blocks(places) if context.blocks is None else context.blocks[rows]
    kept = np.zeros(len(rows), dtype=bool)
    known = np.isfinite(centres).all(axis=1)
    for target in np.unique(context.reference[rows[known]]):
        mine = known & (context.reference[rows] == target)
        kept |= mine & (len(np.unique(blocks[mine])) >= 2)
    return rows[kept].astype(np.int64), centres[kept], blocks[kept]


def _band_statistics(context: AuditContext, rows: Ints) -> Floats:
    """(n, 2 C) mean and deviation of every band."""
    parts = []
    for batch in context.batches(rows):
        pixels = context.images.pixels(batch.tolist())
        parts.append(np.concatenate([pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3))], axis=1))
    return np.concatenate(parts).astype(np.float64)


def _place(about: Mapping[str, Any]) -> Place | None:
    bounds = about.get("bounds")
    if not about.get("crs") or bounds is None:
        return None
    return str(about["crs"]), (float(bounds[0]), float(bounds[1]), float(bounds[2]), float(bounds[3]))


def _centres(places: Sequence[Place | None]) -> Floats:
    """(n, 2) centres in metres on the equal-area grid EPSG:6933; NaN where an image has no place."""
    from pyproj import Transformer

    centres = np.full((len(places), 2), np.nan)
    by_crs: dict[str, list[tuple[int, float, float]]] = {}
    for index, place in enumerate(places):
        if place is not None:
            left, bottom, right, top = place[1]
            by_crs.setdefault(place[0], []).append((index, (left + right) / 2, (bottom + top) / 2))
    for crs, members in by_crs.items():
        indices, xs, ys = (list(column) for column in zip(*members, strict=True))
        centres[indices] = np.column_stack(Transformer.from_crs(crs, "EPSG:6933", always_xy=True).transform(xs, ys))
    return centres


def _own_blocks(places: Sequence[Place | None]) -> Ints:
    """Blocks for a set that has none: squares eight images wide."""
    from pyproj import Transformer

    from geoaudit.probes.base import ground_blocks

    widths = []
    for crs, (left, bottom, right, _) in (place for place in places if place is not None):
        xs, _ = Transformer.from_crs(crs, "EPSG:6933", always_xy=True).transform([left, right], [bottom, bottom])
        widths.append(abs(xs[1] - xs[0]))
    blocks = ground_blocks(places, 8 * float(np.median(widths))) if widths else None
    return np.arange(len(places), dtype=np.int64) if blocks is None else blocks
