"""What a reader of a run gets to hold: its tables' columns, and a unit with its evidence as frozen values.

Read through :mod:`geoaudit.results`, which re-exports the names here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dnd_core.types import Box, UnitId

__all__ = [
    "AUDIT_ONLY",
    "DESCRIBED",
    "FIGURES",
    "TABLES",
    "Layer",
    "Problem",
    "TopImage",
    "Unit",
    "as_box",
    "as_number",
    "as_text",
    "decisions",
    "designed_accuracy",
    "is_inside",
    "json_list",
]

# Columns that readers rely on; a table may hold more.
TABLES: Mapping[str, tuple[str, ...]] = {
    "neurons": (
        "layer", "unit", "status", "label", "labels", "group", "r", "auprc", "activation_rate", "p", "q", "stability",
        "threshold", "p99", "reason", "candidates", "top_images",
    ),
    "groups": ("group", "name", "units", "threshold"),
    "top_images": ("layer", "unit", "rank", "image", "left", "top", "right", "bottom", "activation"),
    "captions": ("image", "left", "top", "right", "bottom", "caption"),
    "candidates": ("layer", "unit", "label", "support", "contrast", "meaning"),
    "scores": ("layer", "unit", "rank", "label"),
    "concept_images": ("concept", "slot", "key", "row"),
    "images": ("image", "source", "split", "block", "label", "predicted", "probability", "crs", "left", "bottom",
               "right", "top", "acquired", "painted"),
    "ablation": ("group", "class", "n", "accuracy_before", "accuracy_after", "change", "low", "high", "random_mean",
                 "random_low", "random_high", "gap", "gap_low", "gap_high", "p"),
    "reliance": ("group", "concept", "class", "association", "association_p", "q", "reliance", "reliance_low",
                 "reliance_high", "reliance_p", "gap", "gap_low", "gap_high", "n", "grade"),
}  # fmt: skip
AUDIT_ONLY = ("images", "ablation", "reliance")
DESCRIBED = tuple(name for name in TABLES if name not in AUDIT_ONLY)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a run that a reader must know before trusting it.

    Attributes:
        kind: how far it goes: ``unfinished``, ``damaged``, ``other_version`` or ``empty``.
        where: file or folder inside the run.
        sentence: what is wrong and what it means for the reader.

    """

    kind: Literal["unfinished", "damaged", "other_version", "empty"]
    where: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A probed layer: its name, its kind (conv, tokens, linear) and how many units it has."""

    name: str
    kind: str
    units: int


@dataclass(frozen=True, slots=True)
class TopImage:
    """A view on which a unit fires strongly; ``box`` is None for the whole image, else pixels of it."""

    image: int
    box: Box | None
    activation: float


@dataclass(frozen=True)
class Unit:
    """Everything a run says about one unit.

    Attributes:
        id: the unit.
        status: ``labelled``, ``weak``, ``abstained`` or ``dead``.
        label: best label, or an empty string.
        labels: the label and further meanings.
        reason: why this status, in words.
        group: concept group, or None.
        figures: ``r, auprc, activation_rate, p, q, stability, threshold, p99``; None where not measured.
        candidates: every label considered, best first, with its scores.
        top_images: the views it fires on most, strongest first.

    """

    id: UnitId
    status: str
    label: str
    labels: tuple[str, ...]
    reason: str
    group: int | None
    figures: Mapping[str, float | None]
    candidates: tuple[Mapping[str, Any], ...]
    top_images: tuple[TopImage, ...]


FIGURES = ("r", "auprc", "activation_rate", "p", "q", "stability", "threshold", "p99")


def is_inside(name: Any) -> bool:
    """A layer's name becomes part of a path, so it must not lead out of the run."""
    return isinstance(name, str) and bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts


def json_list(text: Any) -> list[Any]:
    """The list in a JSON text; empty for anything else."""
    if not isinstance(text, str):
        return []
    try:
        value = json.loads(text)
    except ValueError:
        return []
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """A text, or an empty one for what is none."""
    return value if isinstance(value, str) else ""


def as_number(value: Any) -> float | None:
    """A finite number, or None."""
    if value is None or isinstance(value, str):
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def as_box(corners: list[Any]) -> Box | None:
    """Left, top, right and bottom as a box; None for the -1s that stand for the whole image."""
    left, top, right, bottom = (int(corner) for corner in corners)
    return Box(left, top, right, bottom) if 0 <= left < right and 0 <= top < bottom else None


def decisions(reviews: Any) -> dict[str, dict[str, str]]:
    """Fingerprint of a finding to what was decided on it last, from the ``reviews.json`` that the dashboard writes."""
    told = reviews.get("findings") if isinstance(reviews, dict) else None
    return {
        str(fingerprint): {name: as_text(entries[0].get(name)) for name in ("verdict", "by", "on", "note")}
        for fingerprint, entries in (told.items() if isinstance(told, dict) else ())
        if isinstance(entries, list) and entries and isinstance(entries[0], dict)
    }


def designed_accuracy(audit: Mapping[str, Any]) -> dict[str, Any] | None:
    """Accuracy and class areas that a labelled sample of known design gives (``accuracy`` of the audit).

    Returns:
        ``design, n, clusters, overall, classes [{name, users, producers, area, mapped}], notes, reason``: estimates are
        ``{estimate, low, high}`` (shares; areas in hectares), None where undefined; ``classes`` is empty and ``reason`` says why
        where the sample gives none. None where the audit says nothing about it.
    """
    told = audit.get("accuracy")
    if not isinstance(told, Mapping) or not ("areas_ha" in told or "reason" in told):
        # Runs before schema 1.1 know the share of the probe classified right and no more.
        return None
    columns = {name: _by_class(told.get(key)) for name, key in
               (("users", "users"), ("producers", "producers"), ("area", "areas_ha"), ("mapped", "mapped_ha"))}  # fmt: skip
    names = dict.fromkeys(name for column in columns.values() for name in column)
    notes = told.get("notes")
    return {
        "design": as_text(told.get("design")), "n": told.get("n"), "clusters": told.get("clusters"),
        "reason": as_text(told.get("reason")), "overall": _estimate(told.get("overall")),
        "classes": [
            {"name": name, **{key: _estimate(column.get(name)) for key, column in columns.items()}} for name in names
        ],
        "notes": [str(note) for note in notes] if isinstance(notes, list) else [],
    }  # fmt: skip


def _by_class(column: Any) -> dict[str, Any]:
    """Class name to estimate, from an object or from a list of estimates that carry their ``class``."""
    if isinstance(column, Mapping):
        return {str(name): entry for name, entry in column.items()}
    rows = column if isinstance(column, list) else []
    return {str(row["class"]): row for row in rows if isinstance(row, Mapping) and "class" in row}


def _estimate(entry: Any) -> dict[str, float | None]:
    values = entry if isinstance(entry, Mapping) else {"estimate": entry}
    kept = {name: values.get(name) for name in ("estimate", "low", "high")}
    return {
        name: float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value) else None
        for name, value in kept.items()
    }  # fmt: skip
