"""What was audited, how far its units are understood, what was found, and what could not be checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboards import charts
from dashboards.components import (
    SEVERITIES,
    badge,
    clean,
    facts,
    figure,
    interval,
    listed,
    note,
    number_of,
    opened,
    prose,
    title,
)
from dashboards.navigation import link
from geoaudit.results import Results


def show() -> None:
    """The page."""
    results = opened("Overview")
    if results.state == "empty":
        prose("Start an audit with `geoaudit audit CONFIG.yaml`; its pages fill as it runs.")
        return
    _verdict(results)
    _figures(results)
    left, right = st.columns(2, gap="large")
    with left:
        _findings(results)
    with right:
        _coverage(results)
    _checks(results)
    left, right = st.columns(2, gap="large")
    with left:
        _accuracy(results)
    with right:
        _about(results)


def _verdict(results: Results) -> None:
    summary = results.audit.get("summary", {})
    model = results.manifest.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    title(f"Network: {clean(name, 120) or 'not named'}", 2)
    if summary:
        note(badge(str(summary.get("status", ""))))
        prose(summary.get("sentence"))


def _figures(results: Results) -> None:
    neurons, images = results.neurons, results.images
    named = int((neurons["status"] == "labelled").sum())
    open_findings = [finding for finding in results.findings if finding.get("status") == "fail"]
    entries = [(figure(named, 0), "neurons with a verified label", f"of {figure(len(neurons), 0)}")]
    if results.audit:
        entries.append((figure(len(open_findings), 0), "open findings", f"{len(results.checks)} checks"))
    probe = results.manifest.get("probe")
    if isinstance(probe, dict) and number_of(probe.get("images")) is not None:
        kept = number_of(probe.get("held_out"))
        entries.append(
            (figure(probe["images"], 0), "tiles shown to the network", f"{figure(kept, 0)} kept back" if kept else "")
        )
    known = images[(images["label"].notna()) & (images["label"].astype("float64") >= 0)] if len(images) else images
    if len(known):
        right = float((known["label"].astype("int64") == known["predicted"].astype("int64")).mean())
        entries.append((f"{figure(100 * right, 1)} %", "of the tiles decided right", f"{figure(len(known), 0)} tiles"))
    areas = [finding["area_ha"]["estimate"] for finding in open_findings if isinstance(finding.get("area_ha"), dict)]
    largest = max((area for area in areas if number_of(area) is not None), default=None)
    if largest is not None:
        entries.append((figure(largest, 0), "hectares, largest finding", ""))
    facts(entries)


def _findings(results: Results) -> None:
    title("Findings by severity", 2)
    if not results.audit:
        prose("Findings are not known: the audit has not been finished.", dim=True)
        return
    counts = dict.fromkeys(SEVERITIES, 0)
    for finding in results.findings:
        if finding.get("status") == "fail" and finding.get("severity") in counts:
            counts[finding["severity"]] += 1
    listed(("Severity", "Open findings"), (((badge(name),), count) for name, count in counts.items()))
    for finding in [entry for entry in results.findings if entry.get("status") == "fail"][:3]:
        prose(f"{finding.get('id', '')} {clean(finding.get('title'), 200)}")
    link("findings", "See the findings", ":material/flag:")
    gate = results.audit.get("gate")
    rate = number_of(gate.get("false_alarm_rate")) if isinstance(gate, dict) else None
    if rate is not None and isinstance(gate, dict):
        bound = number_of(gate.get("upper_bound"))
        text = f"Measured false-alarm rate of the gate on this network: {figure(100 * rate, 1)} %"
        prose(text + (f", at most {figure(100 * bound, 1)} % (95 %)." if bound is not None else "."), dim=True)


def _coverage(results: Results) -> None:
    title("Neurons by layer and status", 2)
    if results.neurons.empty:
        prose("No neuron has been described yet.", dim=True)
        return
    st.altair_chart(charts.coverage(results.neurons), width="stretch", alt="Bars: neurons of each layer by status")
    link("neurons", "See the neurons", ":material/hub:")


def _checks(results: Results) -> None:
    title("What was checked", 2)
    if not results.checks:
        prose("No check has been recorded.", dim=True)
        return
    order = {"fail": 0, "inconclusive": 1, "not_run": 2, "pass": 3}
    rows = sorted(results.checks, key=lambda check: order.get(str(check.get("status")), 4))
    listed(
        ("Result", "Check", "What was seen"),
        (((badge(str(check.get("status", ""))),), check.get("title", ""), check.get("reason", "")) for check in rows),
        900,
    )
    doubts = results.audit.get("notes")
    if isinstance(doubts, list) and doubts:
        with st.expander(f"Doubts about the input ({len(doubts)})"):
            listed(
                ("Field", "Doubt"),
                ((entry.get("field"), entry.get("message")) for entry in doubts if isinstance(entry, dict)),
            )


def _rows(accuracy: Any) -> list[tuple[str, str, str]]:
    rows = []
    for name, entry in accuracy.items() if isinstance(accuracy, dict) else ():
        if isinstance(entry, dict) and number_of(entry.get("estimate", entry.get("value"))) is not None:
            value = entry.get("estimate", entry.get("value"))
            rows.append((str(name).replace("_", " "), figure(value, 3), interval(entry.get("ci"), 3)))
    return rows


def _accuracy(results: Results) -> None:
    title("Accuracy by class", 2)
    rows = _rows(results.audit.get("accuracy"))
    if rows:
        listed(("Measure", "Value", "95 % interval"), rows)
    images = results.images
    known = images[images["label"].notna() & images["predicted"].notna()] if len(images) else images
    truth = known["label"].astype("float64").to_numpy()
    said = known["predicted"].astype("float64").to_numpy()
    held = truth >= 0
    table = _by_class(results.audit.get("accuracy"))
    if table is None and not held.any():
        prose("The tiles carry no true class, so accuracy is not known.", dim=True)
        return
    blocked = table is not None
    if table is None:
        table = charts.class_accuracy(truth[held].astype(np.int64), said[held].astype(np.int64), results.class_names)
    st.altair_chart(
        charts.accuracy(table), width="stretch", alt="Share of each class's tiles found, with 95 % intervals"
    )
    how = "whole blocks of neighbouring tiles drawn anew" if blocked else "Wilson's, which take tiles as independent"
    prose(f"Bars are 95 % intervals: {how}.", dim=True)


def _by_class(accuracy: Any) -> pd.DataFrame | None:
    """The audit's own figures by class, as :func:`charts.accuracy` takes them; None where it has none."""
    rows = []
    for entry in accuracy.get("classes", ()) if isinstance(accuracy, dict) else ():
        ends = entry.get("ci") if isinstance(entry, dict) else None
        if not isinstance(ends, (list, tuple)) or len(ends) != 2:
            continue
        figures = [number_of(value) for value in (entry.get("n"), entry.get("value"), *ends)]
        if None not in figures:
            rows.append((clean(entry.get("class"), 38), *figures))
    return pd.DataFrame(rows, columns=["class", "tiles", "found", "low", "high"]) if rows else None


def _about(results: Results) -> None:
    title("Where this comes from", 2)
    manifest = results.manifest
    model, probe, timings = (manifest.get(name) or {} for name in ("model", "probe", "timings"))
    rows: list[tuple[str, Any]] = [("Run folder", results.root.name), ("State", results.state.replace("_", " "))]
    if isinstance(model, dict):
        rows += [
            ("Network", model.get("name")),
            ("Classes", ", ".join(clean(name, 40) for name in results.class_names[:24])),
        ]
        rows.append(("Fingerprint of the weights", str(model.get("fingerprint", ""))[:16]))
    if isinstance(probe, dict):
        rows += [
            ("Bands", ", ".join(map(str, probe.get("channels") or ()))),
            ("Tile (bands, rows, columns)", probe.get("shape")),
        ]
    if isinstance(timings, dict):
        rows.append(("Started", timings.get("created")))
        stages = timings.get("stages")
        if isinstance(stages, dict):
            spent = sum(value for value in stages.values() if number_of(value) is not None)
            rows.append(("Time taken", f"{figure(spent, 0)} s in {len(stages)} stages"))
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        rows.append(("Versions", ", ".join(f"{name} {number}" for name, number in list(versions.items())[:8])))
    listed(("What", "Value"), rows, 400)
    card = manifest.get("card")
    if isinstance(card, dict) and card:
        with st.expander("Model card", expanded=True):
            listed(("What", "As its makers say"), _card(card), 600)
    if results.config_text:
        with st.expander("Settings (config.yaml)"):
            st.code(results.config_text[:20_000], language="yaml")


def _card(card: dict[str, Any]) -> list[tuple[str, str]]:
    """What the run keeps of the network's card: a line each, known issues one by one."""
    rows = []
    for name, value in list(card.items())[:20]:
        parts = value if isinstance(value, list) else [value]
        for number, part in enumerate(parts[:20]):
            text = part if isinstance(part, str) else str(part)
            rows.append((str(name).replace("_", " ") if not number else "", text))
    return rows
