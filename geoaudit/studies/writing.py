"""What a study leaves behind: CSV tables, PNG pictures, a page in Markdown and one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoaudit.report.text import figure, plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "NOT_MEASURED",
    "bars",
    "cell",
    "csv_table",
    "interval_chart",
    "markdown_table",
    "picture",
    "share",
    "spread",
    "to_json",
]

ACCENT, WARM, QUIET = "#1f7a6d", "#d1495b", "#8a9a96"
FONT = "Noto Sans"
NOT_MEASURED = "\u2013"
"""Stands where there is no figure, as in every report."""


def cell(text: Any, limit: int = 80) -> str:
    """Any text as one Markdown cell: labels and class names are other people's words and may hold markup."""
    told = plain(text, limit)
    for mark in "\\|`*_[]<>":
        told = told.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return told


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent, a dash where there is none."""
    return figure(None if value is None else 100 * float(value), digits)


def spread(value: float, low: float, high: float, digits: int = 1) -> str:
    """A share with its interval in percent."""
    if not math.isfinite(value):
        return NOT_MEASURED
    ends = f" [{share(low, digits)}, {share(high, digits)}]" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{share(value, digits)}{ends}"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; cells are taken as they are, see :func:`cell`."""
    lines = [list(headers), ["---"] * len(headers), *[[str(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def csv_table(path: Path, frame: pd.DataFrame) -> None:
    """A table as CSV; text that a spreadsheet would calculate gets an apostrophe before it."""
    safe = frame.copy()
    for name in safe.columns:
        if safe[name].dtype.kind in "OU" or str(safe[name].dtype) in ("string", "str"):
            safe[name] = [_inert(value) if isinstance(value, str) else value for value in safe[name]]
    path.write_text(safe.to_csv(index=False, float_format="%.6g", lineterminator="\n"), encoding="utf-8")


def _inert(text: str) -> str:
    told = plain(text, 2000)
    return f"'{told}" if told[:1] in ("=", "+", "-", "@") else told


def to_json(value: Any) -> Any:
    """Plain values with figures to six digits; what is no number becomes null."""
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def picture(path: Path, chart: Any) -> None:
    """Draw an Altair chart as PNG on white, with the reports' own font, so that machines draw alike."""
    import vl_convert

    vl_convert.register_font_directory(str(resources.files("geoaudit.report").joinpath("fonts")))
    styled = (
        chart.configure_view(stroke=None)
        .configure_axis(labelFont=FONT, titleFont=FONT, titleFontWeight="normal", labelLimit=260, gridOpacity=0.4)
        .configure_legend(labelFont=FONT, titleFont=FONT, labelLimit=260)
        .configure_title(font=FONT, fontSize=13, anchor="start", fontWeight="normal")
        .configure_header(labelFont=FONT, titleFont=FONT)
        .properties(background="white")
    )
    path.write_bytes(vl_convert.vegalite_to_png(json.dumps(styled.to_dict()), scale=1.5))


def bars(rows: Sequence[tuple[str, float]], title: str, axis: str, colour: str = ACCENT) -> Any:
    """Horizontal bars in the order given."""
    import altair as alt
    import pandas as pd

    data = [{"name": plain(name, 60), "value": float(value)} for name, value in rows]
    return (
        alt.Chart(pd.DataFrame(data), title=title, width=380, height=max(40, 20 * len(data)))
        .mark_bar(color=colour)
        .encode(
            y=alt.Y("name:N", sort=None, title=None),
            x=alt.X("value:Q", title=axis, axis=alt.Axis(tickMinStep=1)),
        )
    )


def interval_chart(rows: Sequence[Mapping[str, Any]], title: str, axis: str) -> Any:
    """Points with intervals: rows of ``name``, ``what`` (colour), ``value``, ``low``, ``high``."""
    import altair as alt
    import pandas as pd

    data = [{**row, "name": plain(row["name"], 60)} for row in to_json(list(rows)) if row["value"] is not None]
    names = list(dict.fromkeys(row["what"] for row in data))
    base = alt.Chart(pd.DataFrame(data), width=420, height=max(60, 34 * len({row["name"] for row in data})))
    colour = alt.Color(
        "what:N", title=None, sort=None,
        scale=alt.Scale(domain=names, range=[QUIET, ACCENT, WARM, "#4a6fa5"][: len(names)]),
        legend=alt.Legend(orient="bottom", columns=2),
    )  # fmt: skip
    place = alt.Y("name:N", sort=None, title=None)
    beside = alt.YOffset("what:N", sort=None)
    rule = base.mark_rule(strokeWidth=2).encode(
        y=place, yOffset=beside, color=colour, x=alt.X("low:Q", title=axis, scale=alt.Scale(zero=False)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=55, opacity=1).encode(y=place, yOffset=beside, color=colour, x="value:Q")
    return (rule + points).properties(title=title)
