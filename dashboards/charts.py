"""Charts, in colours that colour-blind people tell apart and that suit a light and a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboards.components import STATUSES, clean

if TYPE_CHECKING:
    from geoaudit.results import Results

__all__ = [
    "ablation", "accuracy", "class_accuracy", "coverage", "distribution", "histogram", "reliance_matrix", "wilson", "words_map",
]  # fmt: skip

_STATUS_COLOURS = {"labelled": "#0072B2", "weak": "#E69F00", "abstained": "#999999", "dead": "#56565a"}
TONES = {"without these neurons": "#D55E00", "without as many random neurons": "#7f7f7f"}
CHANGE_COLUMNS = (
    "accuracy_before", "accuracy_after", "change", "low", "high", "random_mean", "random_low", "random_high", "gap",
    "gap_low", "gap_high",
)  # fmt: skip
KINDS = {"in a concept": "#0072B2", "on its own": "#E69F00"}
BELOW = alt.Legend(orient="bottom", labelLimit=400)
COUNTS = alt.Axis(values=[0, 1, 10, 100, 1000, 10_000, 100_000])
# A label is one mark's text: what is longer would push the chart off the page.
_WORD = 38


def wilson(hits: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) for no observation."""
    if n <= 0:
        return 0.0, 1.0
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def coverage(neurons: pd.DataFrame) -> Any:
    """Neurons of each layer by status."""
    counts = neurons.groupby(["layer", "status"], sort=False).size().reset_index(name="neurons")
    counts["layer"] = [clean(name, _WORD) for name in counts["layer"]]
    order = [name for name in _STATUS_COLOURS if name in set(counts["status"])]
    counts["place"] = [order.index(name) if name in order else len(order) for name in counts["status"]]
    counts["status"] = [STATUSES[name][0] if name in STATUSES else clean(name, 20) for name in counts["status"]]
    domain, colours = [STATUSES[name][0] for name in order], [_STATUS_COLOURS[name] for name in order]
    return (
        alt.Chart(counts)
        .mark_bar()
        .encode(
            x=alt.X("neurons:Q", title="neurons"),
            y=alt.Y("layer:N", title=None, sort=None),
            color=alt.Color("status:N", scale=alt.Scale(domain=domain, range=colours), title=None, legend=BELOW),
            order="place:Q",
            tooltip=["layer", "status", "neurons"],
        )
        .properties(height=alt.Step(34))
    )  # fmt: skip


def class_accuracy(truth: NDArray[np.int64], said: NDArray[np.int64], names: Sequence[str]) -> pd.DataFrame:
    """Share of each class's tiles that were found, with its Wilson interval."""
    rows = []
    for number in np.unique(truth):
        of = truth == number
        hits = int((said[of] == number).sum())
        low, high = wilson(hits, int(of.sum()))
        name = clean(names[number], _WORD) if 0 <= number < len(names) else f"class {number}"
        rows.append((name, int(of.sum()), hits / of.sum(), low, high))
    return pd.DataFrame(rows, columns=["class", "tiles", "found", "low", "high"])


def accuracy(table: pd.DataFrame) -> Any:
    """Points with intervals, one a class."""
    base = alt.Chart(table).encode(y=alt.Y("class:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)))
    scale = alt.Scale(domain=[0, 1])
    bars = base.mark_rule(strokeWidth=3, opacity=0.5, color="#0072B2").encode(
        x=alt.X("low:Q", title="share of the class's tiles found", scale=scale), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=80, color="#0072B2").encode(
        x=alt.X("found:Q", scale=scale),
        tooltip=["class", "tiles", *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("found", "low", "high"))],
    )
    return (bars + points).properties(height=alt.Step(26))


def histogram(values: NDArray[np.float32], mark: float | None) -> Any:
    """Activation over the probe; a line where the 99th percentile lies."""
    finite = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(finite, bins=40) if len(finite) else (np.zeros(1), np.array([0.0, 1.0]))
    table = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "tiles": counts})
    bars = (
        alt.Chart(table)
        .mark_bar(color="#0072B2")
        .encode(
            x=alt.X("from:Q", title="activation", bin="binned"),
            x2="to:Q",
            y=alt.Y("tiles:Q", scale=alt.Scale(type="symlog"), axis=COUNTS),
        )
    )
    line = pd.DataFrame({"p99": [] if mark is None else [mark]})
    rule = alt.Chart(line).mark_rule(color="#D55E00", strokeDash=[4, 3]).encode(x="p99:Q")
    return (bars + rule).properties(height=190)


def distribution(table: pd.DataFrame) -> Any:
    """Quartiles of the activation by class; columns ``class, low, middle, high, tiles``."""
    base = alt.Chart(table).encode(y=alt.Y("class:N", title=None, sort="-x", axis=alt.Axis(labelLimit=220)))
    bars = base.mark_bar(height=10, opacity=0.55, color="#0072B2").encode(
        x=alt.X("low:Q", title="activation: middle half of the tiles, and median"), x2="high:Q"
    )
    ticks = base.mark_tick(thickness=3, color="#D55E00").encode(x="middle:Q", tooltip=["class", "tiles", "middle"])
    return (bars + ticks).properties(height=alt.Step(24))


def reliance_matrix(table: pd.DataFrame, value: str, concepts: Sequence[str], classes: Sequence[str]) -> Any:
    """Concepts x classes as a heat map; columns ``concept, class`` and ``value``."""
    ends = float(np.nanmax(np.abs(table[value].to_numpy(dtype=np.float64)))) if len(table) else 1.0
    ends = ends if np.isfinite(ends) and ends > 0 else 1.0
    return (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("class:N", sort=list(classes), title=None, axis=alt.Axis(labelAngle=-40, labelLimit=160)),
            y=alt.Y("concept:N", sort=list(concepts), title=None, axis=alt.Axis(labelLimit=240)),
            color=alt.Color(f"{value}:Q", title=value, scale=alt.Scale(scheme="purpleorange", domain=[-ends, ends])),
            tooltip=["concept", "class", alt.Tooltip(f"{value}:Q", format="+.3f")],
        )
        .properties(height=alt.Step(26))
    )  # fmt: skip


def ablation(table: pd.DataFrame) -> Any:
    """Change of each class's accuracy without a group, beside matched random units; an interval each."""
    base = alt.Chart(table).encode(y=alt.Y("class:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)))
    tone = alt.Color(
        "what:N", title=None, sort=list(TONES), legend=BELOW,
        scale=alt.Scale(domain=list(TONES), range=list(TONES.values())),
    )  # fmt: skip
    offset = alt.YOffset("what:N")
    bars = base.mark_rule(strokeWidth=3, opacity=0.6).encode(
        x=alt.X("low:Q", title="change of the class's accuracy"), x2="high:Q", color=tone, yOffset=offset
    )
    points = base.mark_point(filled=True, size=70).encode(
        x="change:Q", color=tone, yOffset=offset, shape=alt.Shape("what:N", legend=None),
        tooltip=["class", "what", alt.Tooltip("change:Q", format="+.3f")],
    )  # fmt: skip
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(opacity=0.6).encode(x="zero:Q")
    return (zero + bars + points).properties(height=alt.Step(22))


def words_map(table: pd.DataFrame) -> Any:
    """Labels by nearness of meaning; columns ``x, y, label, neurons, group``."""
    return (
        alt.Chart(table)
        .mark_circle(opacity=0.75, stroke="#333", strokeWidth=0.5)
        .encode(
            x=alt.X("x:Q", axis=None), y=alt.Y("y:Q", axis=None),
            size=alt.Size("neurons:Q", legend=None, scale=alt.Scale(range=[50, 600])),
            color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values()))),
            tooltip=["label", "neurons", "kind"],
        )
        .properties(height=420)
    )  # fmt: skip


def of_unit(results: Results, values: NDArray[np.float32]) -> pd.DataFrame:
    """Quartiles of an activation by true class (by decided class where none is known), for :func:`distribution`."""
    images = results.images
    if images.empty:
        return pd.DataFrame(columns=["class", "low", "middle", "high", "tiles"])
    names: Any = results.class_names
    numbers = images["image"].to_numpy(dtype=np.int64)
    classes = images["label"].astype("float64").fillna(-1).to_numpy()
    if not (classes >= 0).any():
        classes = images["predicted"].astype("float64").fillna(-1).to_numpy()
    fits = (numbers < len(values)) & (classes >= 0)
    rows = []
    for number in np.unique(classes[fits]).astype(int):
        part = values[numbers[fits & (classes == number)]].astype(np.float64)
        low, middle, high = np.nanpercentile(part, (25, 50, 75))
        name = clean(names[number], _WORD) if number < len(names) else f"class {number}"
        rows.append((name, low, middle, high, len(part)))
    return pd.DataFrame(rows, columns=["class", "low", "middle", "high", "tiles"])
