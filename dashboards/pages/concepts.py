"""Concepts that several neurons share, and how much each class hangs on them."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import streamlit as st

from dashboards import charts
from dashboards.components import chance, clean, figure, listed, opened, prose, title, unit_card, until_ready
from dashboards.meaning import labels_of
from dashboards.navigation import link
from dashboards.state import choice
from dnd_core.errors import StoreError
from geoaudit.results import Results

FIGURES = {"reliance": "Painted in", "association": "Seen together", "gap": "Switched off, beyond chance"}
MOST_ROWS = 40
MOST_MEMBERS = 24


def show() -> None:
    """The page."""
    results = opened("Concepts")
    groups = results.groups
    if groups.empty:
        prose("No two neurons share a concept, or concepts have not been formed yet.")
    else:
        _matrix(results)
        _groups(results)
        _members(results)
    if not results.neurons.empty:
        _nearness(results)
        _alone(results)


def _names(results: Results) -> dict[int, str]:
    return {
        int(group): f"{int(group)}: {clean(name, 60)}"
        for group, name in zip(results.groups["group"], results.groups["name"], strict=True)
    }


def _matrix(results: Results) -> None:
    title("How much each class leans on each concept", 2)
    table = results.reliance
    if table.empty:
        prose("Reliance has not been measured in this run.", dim=True)
        return
    left, right, _ = st.columns([1.3, 1.3, 2])
    with left:
        value = choice(
            "value", "Figure",
            FIGURES,
        )  # fmt: skip
    with right:
        order = choice(
            "order", "Sort", {"strength": "Strongest first", "size": "Most neurons first", "name": "By name"}
        )
    names = _names(results)
    frame = pd.DataFrame({
        "group": table["group"].astype("int64"), "class": [clean(name, 40) for name in table["class"]],
        value: table[value].astype("float64"),
    })  # fmt: skip
    frame = frame[frame[value].notna()]
    if frame.empty:
        prose("This figure has not been measured in this run.", dim=True)
        return
    strength = frame[value].abs().groupby(frame["group"]).max()
    if order == "size":
        ranked = sorted(strength.index, key=lambda group: -len(results.group_units(int(group))))
    elif order == "name":
        ranked = sorted(strength.index, key=lambda group: names.get(int(group), "").partition(": ")[2].casefold())
    else:
        ranked = list(strength.sort_values(ascending=False, kind="stable").index)
    kept = [int(group) for group in ranked[:MOST_ROWS]]
    frame = frame[frame["group"].isin(kept)].copy()
    frame["concept"] = [names.get(int(group), f"{group}") for group in frame["group"]]
    classes = list(dict.fromkeys(frame["class"]))
    st.altair_chart(
        charts.reliance_matrix(frame, value, [names.get(group, str(group)) for group in kept], classes),
        width="stretch", alt="Heat map of concepts by classes",
    )  # fmt: skip
    prose(
        "Orange: the class gains where the concept is. Purple: it loses. Only the tested pairs are coloured.", dim=True
    )
    if len(ranked) > MOST_ROWS:
        prose(f"The first {MOST_ROWS} of {len(ranked)} concepts are shown.", dim=True)


def _groups(results: Results) -> None:
    title(f"Concepts ({len(results.groups)})", 2)
    table = results.reliance
    best: dict[int, tuple[str, float]] = {}
    if len(table):
        strong = table[table["reliance"].notna()]
        for group, name, value in zip(
            strong["group"], strong["class"], strong["reliance"].astype("float64"), strict=True
        ):
            if int(group) not in best or value > best[int(group)][1]:
                best[int(group)] = (clean(name, 60), float(value))
    rows = []
    for group, name in _names(results).items():
        units = results.group_units(group)
        leaning = best.get(group)
        rows.append({
            "concept": name, "neurons": len(units), "layers": ", ".join(dict.fromkeys(clean(unit.layer, 30) for unit in units)),
            "class that leans on it most": leaning[0] if leaning else "", "reliance": leaning[1] if leaning else np.nan,
        })  # fmt: skip
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, width="stretch", height=min(35 * len(rows) + 38, 420),
        column_config={"reliance": st.column_config.NumberColumn(format="%+.2f")},
        alt="Concepts with their size and strongest class",
    )  # fmt: skip


def _members(results: Results) -> None:
    names = _names(results)
    group = int(choice("group", "Members of concept", {str(number): name for number, name in names.items()}))
    units = results.group_units(group)
    rows = results.reliance[results.reliance["group"] == group] if len(results.reliance) else results.reliance
    if len(rows):
        with st.expander("Figures for each class"):
            listed(
                ("Class", "Seen together", "Painted in", "95 %", "Switched off, beyond chance", "q", "Evidence grade"),
                (
                    (
                        row["class"], figure(row["association"], sign=True), figure(row["reliance"], sign=True),
                        f"{figure(row['reliance_low'], sign=True)} to {figure(row['reliance_high'], sign=True)}",
                        figure(row["gap"], sign=True), chance(row["q"]), figure(row["grade"], 0),
                    )
                    for row in rows.to_dict("records")
                ),
            )  # fmt: skip
    with st.container(horizontal=True):
        link("map", "Show on the map", ":material/map:", layer=f"group:{group}")
        link("mitigate", "What pruning would change", ":material/content_cut:", groups=str(group))
        link("neurons", "All its neurons", ":material/hub:", group=str(group))
    cells = [cell for _ in range(0, min(len(units), MOST_MEMBERS), 3) for cell in st.columns(3)]
    for unit, cell in zip(units[:MOST_MEMBERS], cells, strict=False):
        with cell, st.container(border=True):
            try:
                unit_card(results.unit(unit), 4)
            except StoreError as error:
                prose(error, dim=True)
                continue
            link("neurons", "Open", ":material/arrow_forward:", unit=str(unit))


def _nearness(results: Results) -> None:
    title("Labels by nearness of meaning", 2)
    neurons = results.neurons[results.neurons["label"].astype(bool)]
    labels = [clean(label, 200) for label in neurons["label"]]
    known = labels_of([clean(label, 200) for label in results.neurons["label"]])
    if not known.wait(0.15):
        until_ready(known)
        return
    if len(known.vectors) < 3:
        prose("There are too few labels to compare, or the sentence encoder is not installed.", dim=True)
        return
    centred = known.vectors - known.vectors.mean(axis=0)
    # Two directions that keep most of the spread (principal components); signs fixed so that the picture stays the same.
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T
    flat = flat * np.sign(flat[np.abs(flat).argmax(axis=0), [0, 1]])
    counts = pd.Series(labels).value_counts()
    grouped = {label for label, group in zip(labels, neurons["group"], strict=True) if group == group and group >= 0}
    table = pd.DataFrame({
        "x": flat[:, 0], "y": flat[:, 1], "label": [text[:60] for text in known.texts],
        "neurons": [int(counts.get(text, 0)) for text in known.texts],
        "kind": ["in a concept" if text in grouped else "on its own" for text in known.texts],
    })  # fmt: skip
    st.altair_chart(charts.words_map(table), width="stretch", alt="Labels as dots; near dots mean similar things")
    prose("Near dots mean similar things; larger dots are labels of more neurons.", dim=True)


def _alone(results: Results) -> None:
    neurons = results.neurons
    alone = neurons[(neurons["status"] == "labelled") & ~(neurons["group"].astype("float64") >= 0)]
    title(f"Verified neurons in no concept ({len(alone)})", 2)
    if len(alone):
        names = ", ".join(
            f"{layer}/{unit} {clean(label, 50)}"
            for layer, unit, label in zip(alone["layer"][:60], alone["unit"][:60], alone["label"][:60], strict=True)
        )
        st.html(f'<p class="ga-p ga-dim">{html.escape(names)}</p>')
