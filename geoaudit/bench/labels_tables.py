"""Cells and tables of the bench of labels, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any

from dnd_core.benching import Estimate

__all__ = ["as_csv", "figure", "in_cell", "interval", "table"]


def interval(found: Estimate) -> str:
    """A value with its interval, three digits each; a dash where there is none."""
    return "-" if math.isnan(found.value) else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def figure(value: float | None, digits: int = 4) -> str:
    """A number without trailing zeros; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"


def in_cell(text: str) -> str:
    """Labels are text from anywhere: nothing in them may end a table's cell or be read as markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what its cells hold is Markdown already."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; columns are all their keys, in the order met."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # A spreadsheet runs a cell that begins like a formula.
        safe = {k: f"'{v}" if isinstance(v, str) and v[:1] in ("=", "+", "@") else v for k, v in row.items()}
        writer.writerow(safe)
    return buffer.getvalue()
