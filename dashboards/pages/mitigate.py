"""What pruning neurons changes, beside pruning as many random ones: measured before, or now in the background."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboards import charts
from dashboards.components import badge, chance, clean, facts, figure, listed, markdown, number_of, opened, prose, title
from dashboards.following import follow
from dashboards.jobs import job_of, start
from dashboards.loading import CONFIG_VARIABLE
from dashboards.navigation import link
from dashboards.state import choices, words
from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.results import Results

MOST = 6
OUTPUT = "output"
WAY_OUT = (
    "Measuring needs the audited network and its images. A run of the demonstration brings them along; for your own, start "
    "the dashboard with --config and the audit's YAML file."
)


def show() -> None:
    """The page."""
    results = opened("Mitigate")
    if results.neurons.empty:
        prose("No neuron has been described yet, so there is none to prune.")
        return
    table = results.ablation
    prose(
        "Neurons are held at their means and every tile is decided anew; then as many random neurons of the same layers, "
        "many times. A class that loses more than with random neurons hangs on them."
    )
    names = {
        str(int(group)): f"{int(group)}: {clean(name, 60)}"
        for group, name in zip(results.groups["group"], results.groups["name"], strict=True)
    }
    stored = [str(int(group)) for group in dict.fromkeys(table["group"])]
    names |= {group: f"concept {group}" for group in stored if group not in names}
    first = _first(results, stored)
    example = next((str(unit) for unit in results.unit_ids if unit.layer != OUTPUT), "layer4/5")
    left, middle, right = st.columns([1.4, 1.4, 1])
    with left:
        chosen = choices("groups", "Concepts to prune", names, "Choose", [first] if first else []) if names else []
    with middle:
        units, unknown = _units(results, example)
    with right:
        known = dict.fromkeys([*map(str, table["class"]), *results.class_names])
        classes = choices("classes", "Classes", {name: clean(name, 60) for name in known})
    if unknown:
        prose(
            f"This run has no neuron {unknown} before the output: take names such as {example} from the page Neurons."
        )
    if not chosen and not units:
        prose("Choose a concept or name neurons to see what pruning them changes.")
    alone = len(chosen) == 1 and not units and chosen[0] in stored
    if (chosen or units) and not alone:
        _together(results, [int(group) for group in chosen], units, stored, classes)
    for group in [group for group in chosen if group in stored][:MOST]:
        title(names[group], 2)
        held = _deepest(results, int(group))
        layer = clean(next(iter(held)).layer, 60) if held else ""
        rows = results.ablation[results.ablation["group"] == int(group)]
        _shown(rows, len(held), classes, group, f"those of {layer}, its deepest layer" if layer else "")
        with st.container(horizontal=True):
            link("concepts", "Its neurons", ":material/category:", group=group)
            link("map", "Where it fires", ":material/map:", layer=f"group:{group}")
    if len(chosen) > MOST:
        prose(f"The first {MOST} are shown.", dim=True)
    if alone:
        _together(results, [int(chosen[0])], units, stored, classes)
    _earlier(results)


def _first(results: Results, stored: Sequence[str]) -> str:
    """The concept of the worst finding, else the one that the decisions hang on most; empty where none was measured."""
    concerned = (str(finding.get("group")) for finding in results.findings if finding.get("status") == "fail")
    table = results.ablation
    if not stored:
        return ""
    strongest = table["group"][table["gap"].astype("float64").abs().fillna(0).idxmax()]
    return next((group for group in concerned if group in stored), str(int(strongest)))


def _members(results: Results, group: int) -> set[UnitId]:
    """A concept's neurons before the output: without its logit a class is gone whatever the network looks at."""
    return {unit for unit in results.group_units(group) if unit.layer != OUTPUT}


def _deepest(results: Results, group: int) -> set[UnitId]:
    """Those of a concept's neurons that the audit switches off: the ones of the deepest layer that has any."""
    order = {layer.name: place for place, layer in enumerate(results.layers)}
    members = _members(results, group)
    last = max((order.get(unit.layer, -1) for unit in members), default=-1)
    return {unit for unit in members if order.get(unit.layer, -1) == last}


def _units(results: Results, example: str) -> tuple[list[UnitId], str]:
    """Neurons named by hand, and the first name that cannot be pruned."""
    text = words("units", "Neurons to prune", f"{example}, …", most=4000)
    found: list[UnitId] = []
    for name in (part.strip() for part in text.split(",")):
        if not name:
            continue
        try:
            unit = results.unit(name).id
        except StoreError:
            return found, clean(name, 60)
        if unit.layer == OUTPUT:
            return found, clean(name, 60)
        found.append(unit)
    return found, ""


def _together(results: Results, groups: list[int], units: list[UnitId], stored: list[str], classes: list[str]) -> None:
    """All that was chosen, pruned at once: shown where it was measured, else offered to be."""
    wanted = {unit for group in groups for unit in _members(results, group)} | set(units)
    if len(groups) == 1 and str(groups[0]) in stored and wanted == _deepest(results, groups[0]):
        return
    layers = dict.fromkeys(sorted(clean(unit.layer, 40) for unit in wanted))
    title(f"All of it at once: {len(wanted)} neurons of {', '.join(layers) or 'no layer'}", 2)
    names = sorted(str(unit) for unit in wanted)
    measured = next((entry for entry in results.prunings() if sorted(entry["units"]) == names), None)
    if measured is not None:
        _measured(measured, classes)
        return
    if len(groups) > 1:
        prose(
            "What happens without all of them is no sum of what happens without each, so it has to be measured.",
            dim=True,
        )
    job = job_of(results.root, "prune")
    running = job is not None and job.state == "running"
    if st.button("Measure this pruning", type="primary", icon=":material/play_arrow:", disabled=running or not wanted):
        arguments = ["prune", str(results.root)]
        if units:
            arguments.append(f"--units={','.join(map(str, units))}")
        if groups:
            arguments.append(f"--groups={','.join(map(str, groups))}")
        config = os.environ.get(CONFIG_VARIABLE, "")
        start(results.root, "prune", names, [*arguments, *([f"--config={config}"] if config else [])])
        st.rerun()
    about = f"the measure of pruning {len(job.about)} neurons" if job is not None else ""
    follow(results.root, "prune", about, WAY_OUT)
    if running and job is not None and list(job.about) != names:
        prose("Another pruning is being measured; this one can be started after it.", dim=True)


def _measured(entry: dict[str, Any], classes: list[str]) -> None:
    rows = pd.DataFrame(entry["classes"]).rename(columns={"name": "class"})
    every = entry["overall"]
    if entry.get("random_sets"):
        prose(
            f"Over {figure(every.get('n'), 0)} tiles accuracy goes from {figure(every.get('accuracy_before'), 3)} to "
            f"{figure(every.get('accuracy_after'), 3)} ({_with(every, 'change', 'low', 'high')}); with "
            f"{figure(entry['random_sets'], 0)} random sets of as many neurons it changes by "
            f"{_with(every, 'random_mean', 'random_low', 'random_high')}."
        )
    else:
        prose("These are more than half of a layer, so there are no random neurons to compare with.", dim=True)
    _shown(rows, len(entry["units"]), classes, entry["key"])


def _shown(rows: pd.DataFrame, count: int, classes: list[str], key: str, which: str = "") -> None:
    for column in ("n", *charts.CHANGE_COLUMNS, "p"):
        rows = rows.assign(**{column: pd.to_numeric(rows.get(column), errors="coerce")})
    if classes:
        rows = rows[rows["class"].astype(str).isin(classes)]
    rows = rows[rows["change"].notna()]
    rows = rows.loc[rows["gap"].fillna(rows["change"]).abs().sort_values(ascending=False, kind="stable").index]
    if rows.empty:
        prose("No such class was measured.", dim=True)
        return
    # A gap alone does not do: it also opens where random neurons push the class up and these leave it as it is.
    worst, proven = rows.iloc[0], rows[(rows["p"] < 0.05) & (rows["change"] < 0)]
    total = float(rows["n"].sum())
    every = float((rows["change"] * rows["n"]).sum() / total) if total > 0 else float("nan")
    facts([
        (figure(count, 0), "neurons switched off", which),
        (f"{figure(100 * every, 1, sign=True)} points", "accuracy over these classes", "weighted by tiles"),
        (f"{figure(100 * float(worst['change']), 1, sign=True)} points", f"most affected: {clean(worst['class'], 40)}", ""),
        (figure(len(proven), 0), "classes that lose more than by chance", "p < 0.05"),
    ])  # fmt: skip
    shown = rows.head(24)
    called = [clean(name, 38) for name in shown["class"]]
    parts = []
    for what, columns in zip(
        charts.TONES, (("change", "low", "high"), ("random_mean", "random_low", "random_high")), strict=True
    ):
        values = {
            kind: shown[column].to_numpy() for kind, column in zip(("change", "low", "high"), columns, strict=True)
        }
        parts.append(pd.DataFrame({"class": called, "what": what, **values}))
    st.altair_chart(
        charts.ablation(pd.concat(parts).dropna()),
        width="stretch",
        key=f"prune-{key}",
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
                    (badge("fail").replace("Found something", "hangs on it") if row["p"] < 0.05 and row["change"] < 0 else "",),
                )
                for row in rows.to_dict("records")
            ),
        )  # fmt: skip


def _with(row: Any, value: str, low: str, high: str) -> str:
    if number_of(row.get(value)) is None or row[value] != row[value]:
        return "\u2013"
    return f"{figure(row[value], sign=True)} ({figure(row.get(low), sign=True)} to {figure(row.get(high), sign=True)})"


def _earlier(results: Results) -> None:
    """Prunings that were measured since the audit, with links back to them."""
    found = results.prunings()
    if not found:
        return
    title("Measured since the audit", 2)
    for entry in found[:40]:
        units = entry["units"]
        change = _with(entry["overall"], "change", "low", "high")
        rest = f" and {len(units) - 3} more" if len(units) > 3 else ""
        link(
            "mitigate", f"{markdown(', '.join(units[:3]))}{rest}: accuracy {change}", ":material/arrow_forward:",
            **_address(results, entry),
        )  # fmt: skip


def _address(results: Results, entry: dict[str, Any]) -> dict[str, str]:
    groups = [number for number in entry.get("groups", []) if isinstance(number, int)]
    inside = {str(unit) for number in groups for unit in _members(results, number)}
    rest = [unit for unit in entry["units"] if unit not in inside]
    found = {"groups": "|".join(map(str, groups)) or "none", "units": ", ".join(rest)}
    return {name: value for name, value in found.items() if value}
