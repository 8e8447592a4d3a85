"""The two figures of the bench of labels, and the names and pooled figures that they share with its tables."""

from __future__ import annotations

import math
from pathlib import Path

from dnd_core.benching import Estimate, estimate
from dnd_core.store import write_atomic
from geoaudit.bench.labels import YOURS, Bench
from geoaudit.bench.labels_analytic import rates
from geoaudit.bench.labels_methods import DND, METHODS, OURS

__all__ = ["NAMES", "SHOWN_KINDS", "draw", "pooled"]

NAMES = {**METHODS, YOURS: "yours"}
SHOWN_KINDS = ("single", "and", "or", "not", "two_meanings")


def pooled(bench: Bench, method: str, name: str) -> Estimate:
    """A measure's mean over the units of all cells that a method labelled, with its interval."""
    return estimate([cell.scores[method] for cell in bench.cells if method in cell.scores], name)


def draw(bench: Bench, out: Path) -> list[Path]:
    """Write the figures of simulation r and of recovered units into a folder, as PNG.

    Returns:
        The files written.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    fits = [(method, pooled(bench, method, "r")) for method in bench.methods]
    fit = pd.DataFrame(
        [{"method": NAMES[m], "r": f.value, "low": f.low, "high": f.high} for m, f in fits if not math.isnan(f.value)]
    )
    order = [NAMES[method] for method in bench.methods]
    base = alt.Chart(fit).encode(y=alt.Y("method:N", sort=order, title=None))
    colour = alt.condition(
        alt.FieldOneOfPredicate("method", [NAMES[m] for m in bench.methods if m.startswith(OURS)]),
        alt.value("#1f7a6d"),
        alt.value("#9aa8a4"),
    )
    bars = base.mark_bar(height=14).encode(x=alt.X("r:Q", title="simulation r on tiles no method saw"), color=colour)
    lines = base.mark_rule(color="#23302d").encode(x="low:Q", x2="high:Q")
    recovered = []
    for method in (m for m in bench.methods if m in (OURS, DND, "clip_dissect", "network_dissection", "shuffled")):
        known = [row for cell in bench.cells for row in cell.recoveries if row.method == method]
        shares = rates(known) if known else {}
        recovered += [
            {"method": NAMES[method], "kind": kind.replace("_", " "), "recovered": shares[kind]}
            for kind in SHOWN_KINDS
            if kind in shares
        ]
    kinds = [kind.replace("_", " ") for kind in SHOWN_KINDS]
    second = (
        alt.Chart(pd.DataFrame(recovered))
        .mark_bar()
        .encode(
            x=alt.X("kind:N", sort=kinds, title=None, axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("method:N", sort=order),
            y=alt.Y("recovered:Q", scale=alt.Scale(domain=[0, 1]), title="share of units recovered"),
            color=alt.Color(
                "method:N",
                sort=order,
                title=None,
                scale=alt.Scale(range=["#1f7a6d", "#d1495b", "#e0a030", "#5b7db1", "#9aa8a4"]),
            ),
        )
    )
    files = []
    charts = {"bench-labels-fit.png": bars + lines, "bench-labels-recovery.png": second}
    for name, chart in charts.items():
        spec = chart.properties(width=460, height=220, background="white").to_dict()
        write_atomic(out / name, vl_convert.vegalite_to_png(spec, scale=1.4))
        files.append(out / name)
    return files
