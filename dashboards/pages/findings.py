"""The ranked findings with filters; one finding with its evidence, examples, neurons, place and remedy."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboards.components import (
    SEVERITIES,
    STATUSES,
    badge,
    chance,
    clean,
    example_strip,
    facts,
    figure,
    interval,
    listed,
    markdown,
    note,
    number_of,
    opened,
    prose,
    title,
    unit_card,
)
from dashboards.layers import grid_of, group_maps, maps_of
from dashboards.maps import outline, still
from dashboards.meaning import overlap
from dashboards.navigation import link
from dashboards.reviews import Reviews
from dashboards.state import choices, page_number, put, words
from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.results import Results

LADDER = {1: "Seen together", 2: "Painted in", 3: "Switched off", 4: "Tested again"}
MEANS = {
    1: "The neurons fire with the decision beyond what the true class explains.",
    2: "The same tiles, with the concept painted in, are decided otherwise.",
    3: "Switching the neurons off changes this class more than switching off others.",
    4: "After a repair the effect was measured again.",
}
EACH = 20


def show() -> None:
    """The page."""
    results = opened("Findings")
    findings = results.findings
    if not results.audit:
        prose("Findings are not known: the audit has not been finished.")
        return
    if not findings:
        prose("There is no finding. What was looked for stands on the page Overview.")
        return
    found = _filtered(findings)
    side, main = st.columns([1, 2.3], gap="large")
    chosen = _chosen(findings, found)
    with side:
        st.caption(f"{len(found)} of {len(findings)} findings, the worst first")
        for place in page_number("page", len(found), EACH):
            entry = found[place]
            word, sign, _ = SEVERITIES[entry["severity"]]
            label = f"{sign} {word} · {markdown(entry['id'], 20)} {markdown(entry['title'], 110)}"
            here = chosen is not None and entry["fingerprint"] == chosen["fingerprint"]
            st.button(
                label, key=f"f-{place}", width="stretch", wrap=True, type="primary" if here else "secondary",
                on_click=put, args=("finding", entry["id"]),
            )  # fmt: skip
    with main:
        if chosen is None:
            prose("No finding fits. Clear the filters to see all.")
        else:
            _finding(results, chosen)


def _filtered(findings: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    columns = st.columns([1.2, 1.2, 1.4, 1.6])
    with columns[0]:
        severities = choices("severity", "Severity", {name: word for name, (word, _, _) in SEVERITIES.items()})
    with columns[1]:
        present = dict.fromkeys(finding["status"] for finding in findings)
        status = choices(
            "status", "Status", {name: "Open" if name == "fail" else STATUSES[name][0] for name in present}
        )
    with columns[2]:
        rules = choices("rule", "Check", {finding["rule"]: clean(finding["rule"], 60) for finding in findings})
    with columns[3]:
        query = words("q", "Words", "haze, residential, …")

    def text(finding: Mapping[str, Any]) -> str:
        pair = finding.get("class_pair") or ()
        return " ".join(str(part) for part in (finding["title"], finding.get("concept") or "", pair, finding["id"]))[
            :5000
        ]

    return [
        finding
        for finding in findings
        if (not severities or finding["severity"] in severities)
        and (not status or finding["status"] in status)
        and (not rules or finding["rule"] in rules)
        and (not query or overlap(query, text(finding)) >= 1)
    ]


def _chosen(findings: tuple[dict[str, Any], ...], found: list[dict[str, Any]]) -> dict[str, Any] | None:
    wanted = st.query_params.get("finding", "")
    named = next(
        (finding for finding in findings if wanted and wanted in (finding["id"], finding["fingerprint"])), None
    )
    if named is not None and named in found:
        return named
    return found[0] if found else None


def _finding(results: Results, finding: dict[str, Any]) -> None:
    title(finding["title"], 2)
    state = finding["status"]
    open_badge = '<span class="ga-badge" style="background:#0b6e99">Open</span>' if state == "fail" else badge(state)
    note(
        badge(finding["severity"]),
        open_badge,
        f'<span class="ga-dim"><bdi>{html.escape(clean(finding["id"], 40))}</bdi></span>',
    )
    prose(finding.get("why_spurious"))
    _figures(finding)
    _said(results, finding)
    _ladder(finding)
    left, right = st.columns(2)
    with left:
        title("It happens here", 3)
        example_strip(results, finding.get("examples", [])[:12], 84)
    with right:
        title("It does not happen here", 3)
        example_strip(results, finding.get("counterexamples", [])[:12], 84)
    _where(results, finding)
    _neurons(results, finding)
    title("What to do", 3)
    prose(finding.get("recommendation") or "Nothing is recommended.")
    for name, text in (("Re-test", finding.get("retest")), ("What this does not say", finding.get("limitations"))):
        if text:
            title(name, 3)
            for part in text if isinstance(text, list) else [text]:
                prose(_sentence(part))
    with st.container(horizontal=True):
        link(
            "review", "Review this finding", ":material/rate_review:", about="findings", subject=finding["fingerprint"]
        )
        if isinstance(finding.get("group"), int) and finding["group"] >= 0:
            link("mitigate", "What pruning would change", ":material/content_cut:", groups=str(finding["group"]))


def _sentence(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{name}: {figure(part) if number_of(part) is not None else part}" for name, part in value.items()
        )
    return str(value)


def _figures(finding: dict[str, Any]) -> None:
    effect, area = finding.get("effect"), finding.get("area_ha")
    entries = []
    if isinstance(effect, dict):
        of = interval(effect.get("ci"), sign=True)
        entries.append(
            (figure(effect.get("value"), sign=True), str(effect.get("metric", "effect")), f"95 %: {of}" if of else "")
        )
        if number_of(effect.get("q")) is not None:
            entries.append((chance(effect["q"]), "chance of a false discovery (q)", ""))
    if isinstance(area, dict):
        of = interval(area.get("ci"), 0)
        entries.append((f"{figure(area.get('estimate'), 0)} ha", "area concerned", f"95 %: {of}" if of else ""))
    if number_of(finding.get("prevalence")) is not None:
        entries.append((f"{figure(100 * finding['prevalence'], 0)} %", "of the area shows it", ""))
    if number_of(finding.get("label_confidence")) is not None:
        entries.append((figure(finding["label_confidence"]), "how well the label fits", "1 is perfect"))
    if finding.get("n"):
        entries.append((figure(finding["n"], 0), "tiles tested", ""))
    if number_of(finding.get("false_alarm_rate")) is not None:
        entries.append((f"{figure(100 * finding['false_alarm_rate'], 1)} %", "false alarms of this rule", "measured"))
    facts(entries)


def _said(results: Results, finding: dict[str, Any]) -> None:
    try:
        said = Reviews(results.root).latest("finding").get(finding["fingerprint"], [])
    except StoreError as error:
        prose(error, dim=True)
        return
    for entry in said[:3]:
        prose(
            f"Reviewed: {entry.review.decision} by {entry.review.reviewer}, {entry.written[:10]}. {entry.review.note}",
            dim=True,
        )


def _ladder(finding: dict[str, Any]) -> None:
    title("How we know", 3)
    rows = []
    for grade, name in LADDER.items():
        given = [entry for entry in finding.get("evidence", []) if entry["grade"] == grade]
        if not given:
            rows.append((("not measured",), name, MEANS[grade], "\u2013", "\u2013"))
        for entry in given:
            holds = entry.get("holds")
            if holds is None:
                holds = grade <= (finding.get("evidence_grade") or 0)
            mark = (
                badge("pass").replace("Passed", "holds")
                if holds
                else badge("not_run").replace("Not run", "does not hold")
            )
            value = f"{figure(entry.get('value'), sign=True)} ({interval(entry.get('ci'), sign=True) or 'no interval'})"
            rows.append(((mark,), name, entry["sentence"], value, _null(entry.get("null"))))
    listed(("", "Step", "What was seen", "Figure (95 %)", "Compared with"), rows)


def _null(value: Any) -> str:
    if isinstance(value, list):
        return interval(value, sign=True)
    return figure(value) if number_of(value) is not None else _sentence(value) if value else "\u2013"


def _units(results: Results, finding: dict[str, Any]) -> list[UnitId]:
    found = []
    for name in finding.get("units", []):
        text = f"{finding.get('layer')}/{name}" if isinstance(name, int) else str(name)
        try:
            found.append(results.unit(text).id)
        except StoreError:
            continue
    return found


def _where(results: Results, finding: dict[str, Any]) -> None:
    scenes = results.scenes()
    shape = outline(finding.get("footprint"))
    if not scenes:
        return
    title("Where", 3)
    scene = next(iter(scenes))
    grid = grid_of(scenes[scene])
    group = finding.get("group")
    units = [unit for unit in _units(results, finding) if unit in maps_of(results, scene)]
    layer = "scene"
    if isinstance(group, int) and group >= 0 and group_maps(results, scene, group):
        layer = f"group:{group}"
    elif units:
        layer = f"unit:{units[0]}"
    if grid is None or (layer == "scene" and shape is None):
        prose("No map shows where this happens.", dim=True)
        return
    still(scene, layer, "Where the finding's neurons fire over the scene", str(finding["id"]))
    prose("Bright colours: the neurons fire. White outlines: hot spots. Orange: the finding's footprint.", dim=True)
    link("map", "Open on the map", ":material/map:", scene=scene, layer=layer, finding=str(finding["id"]))


def _neurons(results: Results, finding: dict[str, Any]) -> None:
    units = _units(results, finding)
    if not units:
        return
    title(f"Neurons involved ({len(units)})", 3)
    columns = st.columns(2)
    for place, unit in enumerate(units[:6]):
        with columns[place % 2], st.container(border=True):
            unit_card(results.unit(unit), 4)
            link("neurons", "Open", ":material/arrow_forward:", unit=str(unit))
    if len(units) > 6:
        prose(f"and {len(units) - 6} more: {', '.join(map(str, units[6:60]))}", dim=True)
