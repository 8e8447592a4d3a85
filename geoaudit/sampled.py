"""Accuracy of the map and hectares of each class, where the labelled images are a random sample of the mapped ground.

Only a sample drawn by chance says anything about the whole map (Olofsson et al. 2014, section 3), and only its owner
knows how it was drawn: the configuration says so in ``audit.sample``. What the sample is compared with is the map that the
audit wrote, read at the centre of each image; labels chosen for training, as probes mostly are, give no hectares, and the
audit says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoaudit.accuracy import (
    AccuracyError,
    AccuracyReport,
    cluster_accuracy,
    error_matrix,
    simple_accuracy,
    stratified_accuracy,
)
from geoaudit.checks.base import AuditContext
from geoaudit.statistics import Estimate

__all__ = ["class_maps", "mapped_classes", "sampled_accuracy"]

NODATA = 255
NO_DESIGN = (
    "nothing says that the labelled images are a random sample of the mapped ground (audit.sample), so hectares from them would "
    "have no honest interval"
)


def class_maps(root: Path) -> list[Path]:
    """The class maps of a run's scenes."""
    folder = root / "maps"
    return [path for path in (folder / "classes.tif", *sorted(folder.glob("*/classes.tif"))) if path.is_file()]


def mapped_classes(context: AuditContext, rows: NDArray[np.int64], maps: Sequence[Path]) -> NDArray[np.int64]:
    """(n,) class that the map gives to the centre of each image; -1 outside every map and where the map has no data."""
    import rasterio
    from pyproj import Transformer

    found = np.full(len(rows), -1, dtype=np.int64)
    places = [context.about[int(row)] for row in rows]
    for path in maps:
        with rasterio.open(path) as dataset:
            band, turns = dataset.read(1), {}
            for number, about in enumerate(places):
                if found[number] >= 0 or not about.get("crs") or not about.get("bounds"):
                    continue
                left, bottom, right, top = about["bounds"]
                crs = str(about["crs"])
                if crs not in turns:
                    turns[crs] = Transformer.from_crs(crs, dataset.crs, always_xy=True)
                row, column = dataset.index(*turns[crs].transform((left + right) / 2, (bottom + top) / 2))
                if 0 <= row < dataset.height and 0 <= column < dataset.width and band[row, column] != NODATA:
                    found[number] = int(band[row, column])
    return found


def sampled_accuracy(context: AuditContext, design: str, maps: Sequence[Path]) -> dict[str, Any]:
    """Accuracy and class areas by the design of the sample.

    Args:
        context: the audit; its labelled images are the sample.
        design: ``none``, ``simple``, ``stratified`` (by mapped class) or ``cluster`` (whole blocks), as
            ``audit.sample`` says.
        maps: the class maps that the sample was drawn from.

    Returns:
        ``design, n, clusters, overall, users, producers, areas_ha, mapped_ha, hectares, notes``, the by-class ones by name,
        estimates as ``{estimate, low, high}``; or ``{hectares: False, reason}``.
    """
    from geoaudit.areas import mapped_areas_ha

    labels = context.images.labels
    rows = np.zeros(0, dtype=np.int64) if labels is None else np.flatnonzero(labels >= 0)
    if not len(rows):
        return _none("the images have no true classes")
    if design == "none":
        return _none(NO_DESIGN)
    if not maps:
        return _none("there is no map of classes to sample: give scenes, and describe the layer output")
    mapped = mapped_classes(context, rows, maps)
    outside = int((mapped < 0).sum())
    if outside:
        return _none(f"{outside} of the {len(rows)} labelled images do not lie on the mapped ground")
    names, reference = context.class_names, context.reference[rows]
    areas = np.sum([mapped_areas_ha(path, len(names)) for path in maps], axis=0)
    try:
        if design == "cluster":
            if context.blocks is None:
                return _none("the images have no blocks, so nobody knows which of them were drawn together")
            told = cluster_accuracy(mapped, reference, context.blocks[rows], names, float(areas.sum()))
        else:
            counts = error_matrix(mapped, reference, len(names))
            draw = stratified_accuracy if design == "stratified" else simple_accuracy
            told = draw(counts, areas, names)
    except AccuracyError as error:
        return _none(str(error))
    left_out = len(labels) - len(rows) if labels is not None else 0
    notes = (*told.notes, *((f"{left_out} images without a true class were left out",) if left_out else ()))
    return _plain(told, areas, notes)


def _none(reason: str) -> dict[str, Any]:
    return {"hectares": False, "reason": reason}


def _plain(told: AccuracyReport, areas: NDArray[np.float64], notes: Sequence[str]) -> dict[str, Any]:
    def figures(estimate: Estimate) -> dict[str, float | None]:
        values = {"estimate": estimate.value, "low": estimate.low, "high": estimate.high}
        return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}

    def by_class(estimates: Sequence[Estimate]) -> dict[str, dict[str, float | None]]:
        return {name: figures(estimate) for name, estimate in zip(told.classes, estimates, strict=True)}

    return {
        "hectares": True,
        "design": told.design,
        "n": told.n,
        "clusters": told.clusters,
        "overall": figures(told.overall),
        "users": by_class(told.users),
        "producers": by_class(told.producers),
        "areas_ha": by_class(told.areas),
        "mapped_ha": {name: round(float(area), 6) for name, area in zip(told.classes, areas, strict=True)},
        "notes": list(notes),
    }
