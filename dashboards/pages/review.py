"""People's decisions on labels and findings, and blind comparisons of labels; kept in the run's own file."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboards.charts import wilson
from dashboards.components import (
    clean,
    figure,
    listed,
    markdown,
    number_of,
    opened,
    prose,
    tile_strip,
    title,
    unit_card,
)
from dashboards.reviews import Choice, Review, Reviews
from dashboards.state import choice, put
from dnd_core.errors import StoreError
from geoaudit.results import Results, Unit

ABOUT = {
    "labels": "Labels of neurons",
    "findings": "Findings",
    "compare": "Blind comparison",
    "history": "What was said",
}
DECIDED = {"accept": "Accept", "correct": "Correct", "reject": "Reject"}
METHODS = {
    "control": "the label of another neuron (control)",
    "second": "the second-best label",
    "image_products": "best by image products",
    "topk_squared": "best by top-k squared",
    "mean": "best by mean activation",
    "own": "a file of labels by another method",
}


def show() -> None:
    """The page."""
    results = opened("Review")
    if results.state == "empty":
        prose("There is nothing to review yet.")
        return
    left, right = st.columns([1, 1])
    with left:
        name = st.text_input(
            "Your name",
            key="reviewer",
            persist_state="session",
            max_chars=80,
            autocomplete="name",
            placeholder="needed to store anything",
        ).strip()
    with right:
        about = choice("about", "What to review", ABOUT)
    reviews = Reviews(results.root)
    try:
        {"labels": _labels, "findings": _findings, "compare": _compare, "history": _history}[about](
            results, reviews, name
        )
    except StoreError as error:
        st.error(clean(error))


def _form(reviews: Reviews, kind: Any, subject: str, label: str, name: str) -> None:
    """Decision, correction and note; stored when sent."""
    with st.form(f"review-{kind}-{subject[:60]}", clear_on_submit=True):
        decision = st.radio("Decision", list(DECIDED), format_func=DECIDED.__getitem__, horizontal=True)
        correction = st.text_input("What it should be", max_chars=300, help="Needed for a correction.")
        note = st.text_area("Note", max_chars=2000, height=80)
        if st.form_submit_button("Store", type="primary"):
            reviews.add(Review(kind, subject, label[:500], decision, name, correction, note))
            st.toast("Stored.", icon=":material/check:")
    said = reviews.latest(kind).get(subject, [])
    if said:
        listed(("Who", "Decision", "Correction", "Note", "When (UTC)"), [
            (entry.review.reviewer, DECIDED[entry.review.decision], entry.review.correction, entry.review.note,
             entry.written[:16].replace("T", " "))
            for entry in said
        ])  # fmt: skip


def _labels(results: Results, reviews: Reviews, name: str) -> None:
    neurons = results.neurons
    if neurons.empty:
        prose("No neuron has been described yet.")
        return
    latest = reviews.latest("label")
    done = {
        subject
        for subject, entries in latest.items()
        if not name or any(entry.review.reviewer == name for entry in entries)
    }
    order = {"labelled": 0, "weak": 1, "abstained": 2, "dead": 3}
    ranked = sorted(
        (order.get(str(status), 4), place, f"{layer}/{unit}")
        for place, (layer, unit, status) in enumerate(
            zip(neurons["layer"], neurons["unit"], neurons["status"], strict=True)
        )
    )
    waiting = [unit for _, _, unit in ranked if unit not in done]
    st.caption(f"{len(done)} of {len(neurons)} neurons reviewed{' by you' if name else ''}")
    wanted = st.query_params.get("subject", "") or (waiting[0] if waiting else ranked[0][2])
    unit = results.unit(wanted)
    left, right = st.columns([1.4, 1], gap="large")
    with left:
        unit_card(unit, 0)
        prose(unit.reason, dim=True)
        tile_strip(unit.top_images[:10], 118)
    with right:
        _form(reviews, "label", str(unit.id), unit.label, name)
        after = next((other for other in waiting if other != str(unit.id)), "")
        st.button("Next not yet reviewed", icon=":material/skip_next:", on_click=put, args=("subject", after))


def _findings(results: Results, reviews: Reviews, name: str) -> None:
    findings = {finding["fingerprint"]: finding for finding in results.findings}
    if not findings:
        prose("There is no finding to review.")
        return
    subject = choice(
        "subject",
        "Finding",
        {key: f"{clean(entry['id'], 20)} {clean(entry['title'], 120)}" for key, entry in findings.items()},
    )
    finding = findings[subject]
    title(finding["title"], 2)
    prose(finding.get("why_spurious"))
    prose(finding.get("recommendation"))
    prose(
        "Accept: the finding is right. Correct: it is right, but should say something else. Reject: it is a false alarm.",
        dim=True,
    )
    _form(reviews, "finding", subject, finding["title"], name)


def _rivals(results: Results, method: str, given: Mapping[str, str]) -> dict[str, str]:
    """Unit to the other method's label, where it differs from ours."""
    found: dict[str, str] = {}
    described = [results.unit(unit) for unit in results.unit_ids]
    described = [unit for unit in described if unit.label and unit.status in ("labelled", "weak")]
    labels = sorted({unit.label for unit in described})
    for unit in described:
        key = str(unit.id)
        if method == "own":
            rival = given.get(key, "")
        elif method == "control":
            others = [label for label in labels if label not in unit.labels]
            rival = random.Random(f"control {key}").choice(others) if others else ""  # noqa: S311 - no secret
        elif method == "second":
            rival = next(
                (str(entry.get("label", "")) for entry in unit.candidates if entry.get("label") != unit.label), ""
            )
        else:
            scored = [
                (value, str(entry.get("label", "")))
                for entry in unit.candidates
                if (value := number_of(entry.get(method))) is not None
            ]
            rival = max(scored)[1] if scored else ""
        if rival and rival.strip().casefold() != unit.label.strip().casefold():
            found[key] = rival
    return found


def _read_labels(data: bytes) -> dict[str, str]:
    """Columns ``layer, unit, label`` of a CSV file.

    Raises:
        StoreError: it is no such file.

    """
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
        return {f"{row['layer']}/{int(row['unit'])}": str(row["label"]) for row in rows}
    except (UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise StoreError("the file must be CSV in UTF-8 with the columns layer, unit, label") from error


def _compare(results: Results, reviews: Reviews, name: str) -> None:
    prose(
        "Two labels for the same neuron, in an order that does not tell which is whose. "
        "Choose the one that describes the tiles best."
    )
    method = choice("method", "Compare ours with", METHODS)
    given: dict[str, str] = {}
    if method == "own":
        file = st.file_uploader("Labels (CSV: layer, unit, label)", type="csv")
        given = _read_labels(file.getvalue()) if file is not None else {}
    if not name:
        prose("Give your name above to begin.")
    else:
        rivals = _rivals(results, method, given)
        done = reviews.compared(name, method)
        waiting = [unit for unit in rivals if unit not in done]
        # Everyone sees the neurons in an order of their own, the same after a reload.
        random.Random(f"{name} {method}").shuffle(waiting)  # noqa: S311 - no secret
        st.caption(f"{len(rivals) - len(waiting)} of {len(rivals)} compared")
        if waiting:
            _pair(results.unit(waiting[0]), rivals[waiting[0]], method, name, reviews)
        else:
            prose(
                "Nothing is left to compare with this method."
                if rivals
                else "This method has no label that differs from ours."
            )
    _rates(reviews)


def _pair(unit: Unit, rival: str, method: str, name: str, reviews: Reviews) -> None:
    tile_strip(unit.top_images[:10], 118, captions=False)
    ours_first = random.Random(f"{name} {method} {unit.id}").random() < 0.5  # noqa: S311 - no secret
    first, second = (unit.label, rival) if ours_first else (rival, unit.label)
    buttons = {
        f"**A** · {markdown(first, 80)}": "ours" if ours_first else "theirs",
        f"**B** · {markdown(second, 80)}": "theirs" if ours_first else "ours",
    }
    columns = st.columns([1.5, 1.5, 1, 1])
    entries = [*buttons.items(), ("Both alike", "both"), ("Neither", "neither")]
    for place, (column, (label, winner)) in enumerate(zip(columns, entries, strict=True)):
        if column.button(label, key=f"choose-{place}", width="stretch"):
            reviews.add(Choice(str(unit.id), method, unit.label, rival, winner, name))
            st.rerun()


def _rates(reviews: Reviews) -> None:
    tallies = reviews.tallies()
    if not tallies:
        return
    title("How often ours wins", 2)
    rows = []
    for method, tally in tallies.items():
        low, high = wilson(tally.ours, tally.decided)
        share = f"{figure(100 * tally.ours / tally.decided, 0)} %" if tally.decided else "\u2013"
        rows.append(
            (
                METHODS.get(method, method),
                tally.ours,
                tally.theirs,
                tally.both,
                tally.neither,
                share,
                f"{figure(100 * low, 0)} to {figure(100 * high, 0)} %",
            )
        )
    listed(("Against", "Ours", "Theirs", "Both", "Neither", "Ours wins", "95 % (Wilson)"), rows)


def _history(results: Results, reviews: Reviews, name: str) -> None:
    entries = reviews.entries()
    if not entries:
        prose("Nothing has been said yet.")
        return
    columns = ("number", "kind", "subject", "label", "decision", "correction", "reviewer", "note", "written")
    rows = [
        (entry.number, *(getattr(entry.review, column) for column in columns[1:-1]), entry.written) for entry in entries
    ]
    listed(
        ("No.", "About", "Subject", "Label", "Decision", "Correction", "Who", "Note", "When (UTC)"),
        reversed(rows[-200:]),
        120,
    )
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    # A cell that begins like a formula would be run by a spreadsheet.
    writer.writerows([f"'{cell}" if str(cell)[:1] in ("=", "+", "-", "@") else cell for cell in row] for row in rows)
    st.download_button(
        "Download as CSV",
        stream.getvalue().encode("utf-8", "replace"),
        "reviews.csv",
        "text/csv",
        icon=":material/download:",
    )
