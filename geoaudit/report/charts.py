"""Charts of a report (Altair): a still picture for print and a live one with tooltips, from one specification."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from geoaudit.report.text import plain
from geoaudit.report.wording import say
from geoaudit.results import Results

__all__ = ["Chart", "charts", "library"]

ACCENT, WARM, QUIET = "#1f7a6d", "#d1495b", "#8a9a96"
STATUS_COLOURS = {"labelled": "#1f7a6d", "weak": "#e0a030", "abstained": "#9aa8a4", "dead": "#4b5653"}
FONT = "Noto Sans, sans-serif"
_WIDTH = 430
_MOST_BARS = 24


@dataclass(frozen=True)
class Chart:
    """A chart: its name, its title, its Vega-Lite specification and its still picture (SVG)."""

    name: str
    title: str
    spec: dict[str, Any]
    svg: str


@lru_cache(maxsize=1)
def library() -> str:
    """The JavaScript that draws the live charts, to be put inside the page."""
    import vl_convert

    # A second or two of work, the same each time.
    script: str = vl_convert.javascript_bundle(snippet="window.drawChart = vegaEmbed;")
    return script


def charts(results: Results, content: Mapping[str, Any], width: int = _WIDTH) -> list[Chart]:
    """Those charts that the run has figures for.

    Args:
        results: the run.
        content: of the report.
        width: of the plotting area in pixels; a narrow one keeps letters legible where the picture is set small.
    """
    drawn = [
        ("accuracy", _accuracy(content["accuracy"]) if content["accuracy"] else None),
        ("reliance", _reliance(results)),
        ("status", _statuses(content["layers"]) if content["layers"] else None),
        ("fit", _fit(results)),
    ]
    return [_finish(name, chart.properties(width=width), width) for name, chart in drawn if chart is not None]


def _finish(name: str, chart: Any, width: int) -> Chart:
    import vl_convert

    title = say(f"chart.{name}")
    # The page's own text colour, so that one chart serves light, dark and paper.
    chart = (
        chart.properties(background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="currentColor", titleColor="currentColor", tickColor="currentColor", domainColor="currentColor",
            gridColor="currentColor", gridOpacity=0.12, domainOpacity=0.4, tickOpacity=0.4, labelLimit=min(190, width * 2 // 3),
            titleFontWeight="normal", labelFontSize=12, titleFontSize=12, labelFont=FONT, titleFont=FONT,
        )
        .configure_axisX(labelOverlap="parity", labelFlush=False)
        .configure_legend(labelColor="currentColor", titleColor="currentColor", labelFont=FONT, labelFontSize=12)
    )  # fmt: skip
    # Text is measured with the report's own font, so that the picture does not depend on the machine.
    vl_convert.register_font_directory(str(resources.files("geoaudit.report").joinpath("fonts")))
    spec = _fitted(json.loads(chart.to_json(indent=None)), width)
    svg: str = vl_convert.vegalite_to_svg(json.dumps(spec))
    return Chart(name, title, spec, _own_names(svg, name))


def _fitted(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """The specification with titles of the lower axis broken into lines that are no wider than the plot."""
    for part in (spec, *spec.get("layer", ())):
        axis = part.get("encoding", {}).get("x", {})
        if isinstance(axis.get("title"), str):
            axis["title"] = textwrap.wrap(axis["title"], max(20, width // 6))
    return spec


def _own_names(svg: str, prefix: str) -> str:
    """Names of clipping paths that are the chart's own: the drawing library counts on over a whole process."""
    names: dict[str, str] = {}

    def renamed(found: re.Match[str]) -> str:
        return found[1] + names.setdefault(found[2], f"{prefix}-clip{len(names)}") + found[3]

    return re.sub(r'(id="|url\(#)(clip\d+)("|\))', renamed, svg)


def _accuracy(table: Mapping[str, Any]) -> Any:
    import altair as alt
    import pandas as pd

    rows = pd.DataFrame([
        {"class": f"{number + 1}. {_label(row['name'], 26)}", "found": row["producers"]["estimate"],
         "low": row["producers"]["low"], "high": row["producers"]["high"], "tiles": row["n"]}
        for number, row in enumerate(table["classes"]) if row["producers"]["estimate"] is not None
    ][:_MOST_BARS])  # fmt: skip
    y = alt.Y("class:N", title=None, sort=None)
    tip = [alt.Tooltip("class:N"), alt.Tooltip("found:Q", format=".0%"), "tiles:Q"]
    x = alt.X(
        "found:Q", title=say("chart.accuracy.x"), scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)
    )
    base = alt.Chart(rows).encode(y=y)
    bars = base.mark_bar(color=ACCENT, opacity=0.32, height=13, cornerRadiusEnd=2).encode(x=x, tooltip=tip)
    whisker = base.mark_rule(color=ACCENT, strokeWidth=2).encode(
        x=alt.X("low:Q", title=say("chart.accuracy.x")), x2="high:Q"
    )
    dots = base.mark_point(color=ACCENT, filled=True, size=70, opacity=1).encode(x=x, tooltip=tip)
    return (bars + whisker + dots).properties(height=alt.Step(26))


def _reliance(results: Results) -> Any:
    import altair as alt
    import pandas as pd

    frame = results.reliance
    values = pd.to_numeric(frame["reliance"], errors="coerce")
    strongest = values.dropna().abs().sort_values(ascending=False, kind="stable").index[:_MOST_BARS]
    if len(strongest) == 0:
        return None
    rows = pd.DataFrame([
        {"pair": say("chart.reliance.pair", name=_label(frame.at[i, "class"], 18), concept=_label(frame.at[i, "concept"], 28)),
         "reliance": float(values[i]),
         "low": _number(frame.at[i, "reliance_low"]), "high": _number(frame.at[i, "reliance_high"]),
         "proven": bool((_number(frame.at[i, "grade"]) or 0) >= 2)}
        for i in values.loc[strongest].sort_values(ascending=False, kind="stable").index[:16]
    ])  # fmt: skip
    # Two pairs that look alike once shortened must not share a line.
    again = rows.groupby("pair").cumcount()
    rows["pair"] += [f" ({number + 1})" if number else "" for number in again]
    colour = alt.condition("datum.proven", alt.value(WARM), alt.value(QUIET))
    x = alt.X("reliance:Q", title=say("chart.reliance.x"), axis=alt.Axis(format="+.2f", tickCount=5))
    base = alt.Chart(rows).encode(y=alt.Y("pair:N", title=None, sort=None))
    whisker = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=say("chart.reliance.x")), x2="high:Q", color=colour
    )
    tip = ["pair:N", alt.Tooltip("reliance:Q", format="+.3f"), alt.Tooltip("low:Q", format="+.3f"),
           alt.Tooltip("high:Q", format="+.3f")]  # fmt: skip
    dots = base.mark_point(filled=True, size=75, opacity=1).encode(x=x, color=colour, tooltip=tip)
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(strokeDash=[3, 3], opacity=0.6).encode(
        x="zero:Q", color=alt.value("currentColor")
    )  # fmt: skip
    return (zero + whisker + dots).properties(height=alt.Step(24))


def _label(text: Any, limit: int) -> str:
    """A short text of a chart. The drawing library cuts letters beyond 16 bits (emoji) in two and fails; they become codes."""
    said = re.sub("[\U00010000-\U0010ffff]", lambda found: f"[U+{ord(found[0]):04X}]", plain(text, limit))
    return plain(said, limit) or "\u2013"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _statuses(layers: Sequence[Mapping[str, Any]]) -> Any:
    import altair as alt
    import pandas as pd

    rows = pd.DataFrame([
        {"layer": _label(row["layer"], 24), "status": say(f"neuron.{status}"), "order": order, "neurons": row[status]}
        for row in layers[:_MOST_BARS] for order, status in enumerate(STATUS_COLOURS)
    ])  # fmt: skip
    colours = alt.Scale(domain=[say(f"neuron.{s}") for s in STATUS_COLOURS], range=list(STATUS_COLOURS.values()))
    chart = (
        alt.Chart(rows)
        .mark_bar(height=16)
        .encode(
            y=alt.Y("layer:N", title=None, sort=None),
            x=alt.X("neurons:Q", title=say("chart.status.x"), axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("status:N", scale=colours, legend=alt.Legend(title=None, orient="top"), sort=None),
            order="order:Q",
            tooltip=["layer:N", "status:N", "neurons:Q"],
        )
    )
    return chart.properties(height=alt.Step(30))


def _fit(results: Results) -> Any:
    import altair as alt
    import pandas as pd

    frame = results.neurons
    r = pd.to_numeric(frame["r"], errors="coerce")
    rows = pd.DataFrame({"r": r, "status": frame["status"]})[r.notna()]
    if rows.empty:
        return None
    rows["bin"] = (rows["r"].clip(-1, 1) * 20).round() / 20
    counted = rows.groupby(["bin", "status"]).size().reset_index(name="neurons")
    counted["low"], counted["high"] = counted["bin"] - 0.023, counted["bin"] + 0.023
    counted["word"] = [
        say(f"neuron.{status}") if status in STATUS_COLOURS else _label(status, 20) for status in counted["status"]
    ]
    colours = alt.Scale(domain=[say(f"neuron.{s}") for s in STATUS_COLOURS], range=list(STATUS_COLOURS.values()))
    wide = alt.Scale(domain=[min(-0.2, float(r.min()) - 0.05), 1])
    bars = (
        alt.Chart(counted)
        .mark_bar()
        .encode(
            x=alt.X("low:Q", bin="binned", title=say("chart.fit.x"), axis=alt.Axis(tickCount=6), scale=wide),
            x2="high:Q",
            y=alt.Y("neurons:Q", title=say("chart.fit.y"), axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("word:N", scale=colours, legend=alt.Legend(title=None, orient="top"), sort=None),
            tooltip=["word:N", "bin:Q", "neurons:Q"],
        )
    )
    return bars.properties(height=190)
