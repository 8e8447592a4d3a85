"""Every neuron: search by words or meaning, filters, cards; and the page of one neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboards import charts
from dashboards.components import (
    STATUSES,
    badge,
    chance,
    clean,
    concept_strip,
    facts,
    figure,
    listed,
    note,
    number_of,
    opened,
    prose,
    tile_strip,
    title,
    unit_card,
    until_ready,
)
from dashboards.layers import grid_of, maps_of
from dashboards.loading import stamp
from dashboards.maps import still
from dashboards.meaning import labels_of
from dashboards.navigation import link
from dashboards.reviews import Reviews
from dashboards.state import choice, choices, page_number, put, words
from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.results import Results, Unit

EACH = 12
SCORES = (
    "support",
    "contrast",
    "mean",
    "topk_squared",
    "image_products",
    "topk_squared_x_image_products",
    "simulation",
)


def show() -> None:
    """The page."""
    results = opened("Neurons")
    if results.neurons.empty:
        prose("No neuron has been described yet.")
        return
    wanted = st.query_params.get("unit", "")
    if wanted:
        try:
            _unit(results, results.unit(wanted))
        except StoreError as error:
            prose(error)
            link("neurons", "All neurons", ":material/arrow_back:")
        return
    _all(results)


@st.cache_data(max_entries=2, show_spinner=False)
def _classes(changed: tuple[object, ...], _results: Results) -> pd.Series:
    """Class number that most of a unit's top tiles carry (decided, where the truth is not known), by ``layer/unit``."""
    tops, images = _results.table("top_images"), _results.images
    if tops.empty or images.empty:
        return pd.Series(dtype="int64")
    truth = images["label"].astype("float64")
    number = truth.where(truth >= 0, images["predicted"].astype("float64"))
    classes = tops["image"].map(dict(zip(images["image"], number, strict=True)))
    frame = pd.DataFrame({"unit": tops["layer"].astype(str) + "/" + tops["unit"].astype(str), "class": classes})
    frame = frame[frame["class"] >= 0]
    counts = frame.groupby(["unit", "class"]).size().reset_index(name="tiles").sort_values("tiles", kind="stable")
    return counts.drop_duplicates("unit", keep="last").set_index("unit")["class"].astype("int64")


@st.cache_data(max_entries=2, show_spinner=False)
def _labels(changed: tuple[object, ...], _results: Results) -> list[str]:
    """Every neuron's label as it is shown; a large run has thousands, and they are the same every time."""
    return [clean(label, 200) for label in _results.neurons["label"]]


def _all(results: Results) -> None:
    neurons = results.neurons
    columns = st.columns([2.2, 1, 1.2, 1.2, 1.2])
    with columns[0]:
        query = words("q", "Search by words or meaning", "thin cloud")
    with columns[1]:
        layers = choices("layers", "Layer", {layer.name: clean(layer.name, 60) for layer in results.layers})
    with columns[2]:
        states = choices(
            "status", "Status", {name: STATUSES[name][0] for name in ("labelled", "weak", "abstained", "dead")}
        )
    with columns[3]:
        names = {str(number): clean(name, 60) for number, name in enumerate(results.class_names)}
        classes = choices("class", "Class of its tiles", names) if names else []
    with columns[4]:
        groups = {
            str(int(row.group)): f"{int(row.group)}: {clean(row.name, 60)}"
            for row in results.groups.itertuples(index=False)
        }
        group = choice("group", "Concept", {"": "All", **groups})
    keep = pd.Series(True, index=neurons.index)
    if layers:
        keep &= neurons["layer"].isin(layers)
    if states:
        keep &= neurons["status"].isin(states)
    if group:
        keep &= neurons["group"] == int(group)
    if classes:
        mine = (neurons["layer"].astype(str) + "/" + neurons["unit"].astype(str)).map(_classes(stamp(), results))
        keep &= mine.isin([int(number) for number in classes])
    score = neurons["r"].astype("float64").fillna(-1.0)
    # Begun before anything is typed: a large run is searched by words until its labels are encoded.
    labels = _labels(stamp(), results)
    near = labels_of(labels)
    if query:
        near.wait(0.15)
        scores = near.nearness(query)
        score = pd.Series([scores.get(label, 0.0) for label in labels], index=neurons.index)
        keep &= (score > 0) | (neurons["layer"].astype(str) + "/" + neurons["unit"].astype(str) == query)
    ranked = pd.DataFrame({"score": score, "fit": neurons["r"].astype("float64").fillna(-1.0)})[keep]
    order = ranked.sort_values(["score", "fit"], ascending=False, kind="stable").index
    st.caption(f"{len(order)} of {len(neurons)} neurons, {'the nearest in meaning' if query else 'the best fit'} first")
    if query and not near.ready:
        until_ready(near)
    elif not len(order):
        prose("No neuron fits. Clear the search and the filters to see all.")
        return
    shown = page_number("page", len(order), EACH)
    cells = [cell for _ in range(0, len(shown), 3) for cell in st.columns(3)]
    for place, cell in zip(shown, cells, strict=False):
        row = neurons.loc[order[place]]
        unit = results.unit(UnitId(str(row["layer"]), int(row["unit"])))
        with cell, st.container(border=True):
            unit_card(unit, 6)
            st.button(
                "Open", key=f"open-{place}", icon=":material/arrow_forward:", help=clean(unit.id, 60),
                on_click=put, args=("unit", str(unit.id)),
            )  # fmt: skip


def _unit(results: Results, unit: Unit) -> None:
    st.button("All neurons", icon=":material/arrow_back:", on_click=put, args=("unit", ""))
    title(f"{unit.id}: {unit.label or 'no label'}", 2)
    note(badge(unit.status))
    prose(unit.reason)
    others = [label for label in unit.labels if label != unit.label]
    if others:
        prose(f"also: {', '.join(clean(label, 80) for label in others)}", dim=True)
    _verified(unit)
    _said(results, unit)
    title("Tiles it fires on most", 3)
    tile_strip(unit.top_images[:20], 118)
    left, right = st.columns(2, gap="large")
    with left:
        _activation(results, unit)
    with right:
        _map(results, unit)
    _candidates(unit)
    _evidence(results, unit)
    with st.container(horizontal=True):
        if unit.id.layer != "output":
            link(
                "mitigate", "What pruning it would change", ":material/content_cut:", groups="none", units=str(unit.id)
            )
        link("review", "Review this label", ":material/rate_review:", about="labels", subject=str(unit.id))
        if unit.group is not None:
            link("concepts", f"Concept {unit.group}", ":material/category:", group=str(unit.group))


def _verified(unit: Unit) -> None:
    figures = unit.figures
    null, rate = figures.get("threshold"), figures.get("activation_rate")
    fires = f"{figure(100 * rate, 0)} %" if rate is not None else "\u2013"
    facts([
        (figure(figures.get("r")), "fit (r) on held-out tiles", f"chance reaches {figure(null)}" if null is not None else ""),
        (figure(figures.get("auprc")), "average precision", "for its strongest 5 % of tiles"),
        (fires, "fires on concept images", "as on its strongest 1 % of tiles"),
        (chance(figures.get("q")), "chance of a false label (q)", f"p {chance(figures.get('p'))}"),
        (figure(figures.get("stability")), "stability", "share of resamples that agree"),
    ])  # fmt: skip


def _said(results: Results, unit: Unit) -> None:
    try:
        said = Reviews(results.root).latest("label").get(str(unit.id), [])
    except StoreError as error:
        prose(error, dim=True)
        return
    for entry in said[:3]:
        review = entry.review
        words_ = f" to “{review.correction}”" if review.decision == "correct" else ""
        prose(
            f"Reviewed: {review.decision}{words_} by {review.reviewer}, {entry.written[:10]}. {review.note}", dim=True
        )


def _activation(results: Results, unit: Unit) -> None:
    title("Activation over the probe", 3)
    activations = results.activations(unit.id.layer)
    if activations is None or unit.id.index >= activations.shape[1]:
        prose("Its activations were not kept or cannot be read.", dim=True)
        return
    values = np.array(activations[:, unit.id.index], dtype=np.float32)
    st.altair_chart(
        charts.histogram(values, unit.figures.get("p99")),
        width="stretch",
        alt="Histogram of the activation; dashed line at its 99th percentile",
    )
    table = charts.of_unit(results, values)
    if len(table):
        title("By class", 3)
        st.altair_chart(
            charts.distribution(table), width="stretch", alt="Middle half and median of the activation for each class"
        )


def _map(results: Results, unit: Unit) -> None:
    title("Where it fires", 3)
    scenes = [name for name in results.scenes() if unit.id in maps_of(results, name)]
    if not scenes:
        prose("This neuron has no map over a scene.", dim=True)
        return
    if grid_of(results.scenes()[scenes[0]]) is None:
        prose("The scene has no place on Earth.", dim=True)
        return
    still(scenes[0], f"unit:{unit.id}", f"Where {unit.id} fires over the scene")
    prose("Bright: it fires. White outlines: hot spots.", dim=True)
    link("map", "Open on the map", ":material/map:", scene=scenes[0], layer=f"unit:{unit.id}")


def _candidates(unit: Unit) -> None:
    if not unit.candidates:
        return
    title("Labels considered, best first", 3)
    known = [name for name in SCORES if any(number_of(entry.get(name)) is not None for entry in unit.candidates)]
    rows: list[list[Any]] = [
        [clean(entry.get("label"), 160), *(figure(entry.get(name), 0 if name == "support" else 3) for name in known)]
        for entry in unit.candidates[:20]
    ]
    listed(["Label", *(name.replace("_x_", " by ").replace("_", " ") for name in known)], rows)


def _evidence(results: Results, unit: Unit) -> None:
    pictures = results.concept_images(unit.label) if unit.label else ()
    if pictures:
        title("Concept images it was tested on", 3)
        concept_strip(unit.label, min(len(pictures), 12))
    said = [caption for view in unit.top_images[:8] for caption in results.captions_of(view.image, view.box)[:1]]
    if said:
        with st.expander("What the captioner said of its first tiles"):
            for caption in said:
                prose(caption, most=400)
