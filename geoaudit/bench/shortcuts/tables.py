"""The bench in words and tables, for the terminal and for ``docs/bench-shortcuts.md``, and its rows as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dnd_core.store import write_atomic
from geoaudit.bench.shortcuts.comparators import COMPARATORS
from geoaudit.bench.shortcuts.metrics import Figure
from geoaudit.bench.shortcuts.summary import Method, Summary
from geoaudit.marks import put_between

__all__ = ["COLUMNS", "MARKS", "PAGE", "markdown", "write_csv", "write_docs"]

COLUMNS = (
    "name", "half", "pool", "family", "strength", "target", "seed", "valid_accuracy", "valid_reliance", "valid_worst",
    "valid_worst_family", "learned", "quiet", "score", "tripped", "rank", "class_rank", "precision", "shuffled",
    *(f"{name} {part}" for name in COMPARATORS for part in ("score", "rank")), "repair", "findings",
)  # fmt: skip
PAGE, MARKS = "bench-shortcuts", "bench"
"""Page of the documentation that the tables stand on, and the name of the marks they stand between."""


def _figure(figure: Figure, digits: int = 2) -> str:
    if not np.isfinite(figure.value):
        return "-"
    spread = f" ({figure.low:.{digits}f} to {figure.high:.{digits}f})" if np.isfinite(figure.low) else ""
    return f"{figure.value:.{digits}f}{spread}"


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def _line(name: str, method: Method) -> str:
    cells = [_figure(getattr(method, key)) for key in ("auroc", "tpr_at_far5", "hit1", "hit3", "mrr")]
    return f"| {name} | " + " | ".join(cells) + " |"


def markdown(found: Summary) -> str:
    """The tables. Intervals are 95 % percentile bootstraps over networks."""
    share = f"{found.far:.3f}" if np.isfinite(found.far) else "-"
    lines = [
        f"{found.networks} networks of {found.seeds} seed{'s' if found.seeds > 1 else ''}; {found.positives} of those planted "
        "learned their plant.",
        "",
        "| method | AUROC | TPR at FAR 5 % | Hit@1 | Hit@3 | MRR |",
        "|---|---|---|---|---|---|",
        _line("**geoaudit**", found.ours),
        *(_line(name, method) for name, method in found.comparators.items()),
        "",
        f"At the gate (a major finding): {_figure(found.tripped)} of the positives are stopped; false alarms {share} of "
        f"{found.negatives} negatives (95 % upper bound {found.far_upper:.3f}). Plant and class both named in the first "
        f"three: {_figure(found.class_hit3)}. Example images that carry the plant: {_figure(found.p10)}.",
        "",
        "| negatives | networks | false alarms |",
        "|---|---|---|",
        *(f"| {pool} | {count} | {alarms} |" for pool, (count, alarms) in found.pools.items()),
        "",
        f"{found.leaning[0]} further networks without a learned plant lean on some family all the same (R at or above the "
        f"threshold) and count neither way; the gate stops {found.leaning[1]} of them.",
        "",
        "| family | planted | learned | AUROC | stopped by the gate | Hit@1 | Hit@3 | MRR | examples | repaired | worst group, "
        "by pruning | by random pruning | accuracy lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in found.families:
        cells = [
            family.name,
            str(family.planted),
            str(family.learned),
            _figure(family.auroc),
            _figure(family.tripped),
            *map(_number, (family.hit1, family.hit3, family.mrr, family.precision)),
            str(family.repaired),
            *map(_number, (family.gained, family.random_gained, family.lost)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Repair over all families: the worst group gains {_figure(found.gained)} by pruning the finding's units, "
        f"{_figure(found.random_gained)} by pruning matched random ones; {_figure(found.lost)} of clean accuracy is lost.",
    ]
    return "\n".join(lines)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a network, aside first; nested figures as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in COLUMNS])
    write_atomic(path, text.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if not np.isfinite(value) else f"{value:.6g}"
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return "" if value is None else value


def write_docs(folder: Path, rows: Sequence[Mapping[str, Any]], found: Summary, command: str) -> list[Path]:
    """Put the tables between the marks of the bench's page, and the rows beside it.

    Raises:
        StoreError: the page is not there or lacks the marks.
    """
    page, table = folder / f"{PAGE}.md", folder / f"{PAGE}.csv"
    used = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "scikit-learn"))
    put_between(page, MARKS, f"\n    {command}\n\nMeasured with {used}.\n\n{markdown(found)}\n")
    write_csv(table, rows)
    return [page, table]
