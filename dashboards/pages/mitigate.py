"""What pruning a concept's neurons was measured to change, beside pruning as many random ones."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboards import charts
from dashboards.components import badge, chance, clean, facts, figure, listed, opened, prose, title
from dashboards.navigation import link
from dashboards.state import choices
from geoaudit.results import Results

MOST = 6


def show() -> None:
    """The page."""
    results = opened("Mitigate")
    table = results.ablation
    if table.empty:
        prose(
            "Nothing was switched off in this run, so nothing is known about pruning: finish the audit to measure it."
        )
        return
    prose(
        "Each concept's neurons were held at their means and every class was decided anew; then as many random neurons of "
        "the same layers, many times. A class that loses more than with random neurons hangs on the concept."
    )
    names = {
        str(int(group)): f"{int(group)}: {clean(name, 60)}"
        for group, name in zip(results.groups["group"], results.groups["name"], strict=True)
    }
    measured = {
        str(int(group)): names.get(str(int(group)), f"concept {int(group)}") for group in dict.fromkeys(table["group"])
    }
    strongest = table.assign(size=table["gap"].astype("float64").abs()).sort_values(
        "size", ascending=False, kind="stable"
    )
    left, right = st.columns(2)
    with left:
        chosen = choices(
            "groups",
            "Concepts to prune",
            measured,
            "Choose",
            [_first(results, list(measured), str(int(strongest["group"].iloc[0])))],
        )
    with right:
        classes = choices("classes", "Classes", {str(name): clean(name, 60) for name in dict.fromkeys(table["class"])})
    if not chosen:
        prose("Choose a concept to see what pruning it was measured to change.")
        return
    if len(chosen) > 1:
        prose(
            "Each concept was switched off by itself; what happens without all of them at once was not measured and is no sum.",
            dim=True,
        )
    for group in chosen[:MOST]:
        _group(results, int(group), measured[group], classes)
    if len(chosen) > MOST:
        prose(f"The first {MOST} are shown.", dim=True)


def _first(results: Results, measured: list[str], strongest: str) -> str:
    """The concept of the worst finding, else the one that the decisions hang on most."""
    concerned = (str(finding.get("group")) for finding in results.findings if finding.get("status") == "fail")
    return next((group for group in concerned if group in measured), strongest)


def _group(results: Results, group: int, name: str, classes: list[str]) -> None:
    title(name, 2)
    rows = results.ablation[results.ablation["group"] == group]
    if classes:
        rows = rows[rows["class"].astype(str).isin(classes)]
    rows = rows.sort_values("gap", key=lambda gaps: -gaps.astype("float64").abs(), kind="stable")
    if rows.empty:
        prose("No such class was measured.", dim=True)
        return
    n, change = rows["n"].astype("float64"), rows["change"].astype("float64")
    worst = rows.iloc[0]
    proven = rows[(rows["p"].astype("float64") < 0.05)]
    facts([
        (figure(len(results.group_units(group)), 0), "neurons would be pruned", ""),
        (f"{figure(100 * float((change * n).sum() / n.sum()), 1, sign=True)} points" if n.sum() > 0 else "",
         "accuracy over these classes", "weighted by tiles"),
        (f"{figure(100 * float(worst['change']), 1, sign=True)} points", f"most affected: {clean(worst['class'], 40)}", ""),
        (figure(len(proven), 0), "classes that change more than by chance", "p < 0.05"),
    ])  # fmt: skip
    shown = rows.head(24)
    called = [clean(name, 38) for name in shown["class"]]
    parts = []
    for what, columns in (
        ("without the concept", ("change", "low", "high")),
        ("without as many random neurons", ("random_mean", "random_low", "random_high")),
    ):
        values = {
            kind: shown[column].astype("float64").to_numpy()
            for kind, column in zip(("change", "low", "high"), columns, strict=True)
        }
        parts.append(pd.DataFrame({"class": called, "what": what, **values}))
    st.altair_chart(
        charts.ablation(pd.concat(parts)),
        width="stretch",
        key=f"prune-{group}",
        alt="Change of each class's accuracy, with and without chance",
    )
    with st.expander("Figures"):
        listed(
            ("Class", "Tiles", "Before", "After", "Change (95 %)", "Random neurons (95 %)", "Beyond chance (95 %)", "p", ""),
            (
                (
                    row["class"], figure(row["n"], 0), figure(row["accuracy_before"]), figure(row["accuracy_after"]),
                    _with(row, "change", "low", "high"), _with(row, "random_mean", "random_low", "random_high"),
                    _with(row, "gap", "gap_low", "gap_high"), chance(row["p"]),
                    (badge("fail").replace("Found something", "hangs on it") if row["p"] is not None and row["p"] < 0.05 else "",),
                )
                for row in rows.to_dict("records")
            ),
        )  # fmt: skip
    with st.container(horizontal=True):
        link("concepts", "Its neurons", ":material/category:", group=str(group))
        link("map", "Where it fires", ":material/map:", layer=f"group:{group}")


def _with(row: dict[str, object], value: str, low: str, high: str) -> str:
    return f"{figure(row[value], sign=True)} ({figure(row[low], sign=True)} to {figure(row[high], sign=True)})"
