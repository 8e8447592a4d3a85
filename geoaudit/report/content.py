"""What a report says, worked out once for the page and the document: plain values, ready to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dnd_core.store import file_sha256
from geoaudit.gate import is_unsuitable
from geoaudit.report.tables import accuracy_table, area_table, group_rows, layer_counts
from geoaudit.report.text import figure, hectares, interval, lines, percent, plain, probability, seconds
from geoaudit.report.wording import count, say
from geoaudit.results import Results

__all__ = ["ALARMING", "content", "verdict"]

ALARMING = ("critical", "major")
_ADVICE, _PROBLEMS = 5, 8
SEVERITIES = ("critical", "major", "minor", "info")


def content(results: Results) -> dict[str, Any]:
    """Everything but pictures, as nested plain values (str, bool, int, float, None, list, dict)."""
    model = _model(results)
    accuracy = accuracy_table(results)
    light = verdict(results)
    findings = [_finding(finding, results) for finding in _ordered(results)]
    return {
        "title": say("title" if results.is_audit else "title.describe", model=model),
        "model": model,
        "tool": _tool(results),
        "state": results.state,
        "problems": _problems(results),
        "verdict": light,
        "next": _next(results, findings),
        "facts": _facts(results, accuracy),
        "findings": [finding for finding in findings if finding["status"] != "suppressed"],
        "suppressed": [finding for finding in findings if finding["status"] == "suppressed"],
        "has_audit": bool(results.audit),
        "checks": [_check(check) for check in results.checks],
        "accuracy": accuracy,
        "areas": area_table(results),
        "notes": [lines(note["message"], 500) for note in results.audit.get("notes", ())],
        "gate": _gate(results.audit.get("gate")),
        "layers": layer_counts(results),
        "groups": group_rows(results),
        "stages": _stages(results),
        "versions": _pairs(results.manifest.get("versions")),
        "hashes": _hashes(results),
        "attributions": _attributions(results),
        "classes": [plain(name, 60) for name in results.class_names],
    }


def _model(results: Results) -> str:
    for holder in (results.manifest.get("model"), results.audit.get("model")):
        if isinstance(holder, Mapping) and holder.get("name"):
            return plain(holder["name"], 80)
    return plain(results.root.resolve().name, 80)


def _problems(results: Results) -> list[str]:
    """The first problems, worst kinds first, and how many more there are: page one has other things to say too."""
    worst = ("empty", "damaged", "other_version", "unfinished")
    found = sorted(results.problems, key=lambda problem: worst.index(problem.kind))
    said = [plain(problem.sentence) for problem in found[:_PROBLEMS]]
    return [*said, say("more.page", n=len(found) - _PROBLEMS)] if len(found) > _PROBLEMS else said


def _tool(results: Results) -> str:
    """Name and version of what made the run."""
    tool = results.manifest.get("tool") or results.audit.get("tool") or "geoaudit"
    parts = [tool.get("name"), tool.get("version")] if isinstance(tool, Mapping) else [tool]
    return plain(" ".join(str(part) for part in parts if part), 60)


def _ordered(results: Results) -> list[dict[str, Any]]:
    """Open findings first, worst first; otherwise the audit's own order."""
    return sorted(
        results.findings, key=lambda f: (f["status"] == "suppressed", SEVERITIES.index(f["severity"]))
    )  # fmt: skip


def verdict(results: Results) -> dict[str, Any]:
    """The traffic light with its word and sentence; grey whenever the run cannot answer."""
    open_ones = [f for f in results.findings if f["status"] == "fail"]
    severities = {f["severity"] for f in open_ones}
    unsure = [c for c in results.checks if c["status"] in ("inconclusive", "not_run")]
    unsure_findings = [f for f in results.findings if f["status"] in ("inconclusive", "not_run")]
    if results.state != "complete":
        light, sentence = "grey", say(f"verdict.grey.{results.state}")
    elif not results.audit:
        light, sentence = "grey", say("verdict.grey.describe")
    elif severities & set(ALARMING):
        light, sentence = "red", say("verdict.red.sentence")
    elif any(is_unsuitable(check) for check in results.checks):
        light, sentence = "grey", say("verdict.grey.unsuitable")
    elif "minor" in severities:
        light, sentence = "amber", say("verdict.amber.minor.sentence")
    elif unsure or unsure_findings:
        light, sentence = "amber", say("verdict.amber.open.sentence")
    else:
        light, sentence = "green", say("verdict.green.sentence")
    summary = results.audit.get("summary", {})
    return {
        "light": light,
        "word": say(f"verdict.{light}"),
        "sentence": sentence,
        "detail": lines(summary.get("sentence", ""), 600),
        "meaning": say(f"verdict.meaning.{light}"),
        "signable": light != "grey",
    }


def _next(results: Results, findings: Sequence[Mapping[str, Any]]) -> list[str]:
    if results.state != "complete":
        return [say("next.unfinished")]
    still = [finding for finding in findings if finding["status"] == "fail"]
    grave = [finding for finding in still if finding["severity"] in ALARMING]
    # Forty lesser findings must not bury what the grave one asks for.
    said = grave or still[:_ADVICE]
    advice = [f"{finding['id']}: {finding['recommendation']}" for finding in said if finding["recommendation"]]
    if len(still) > len(said):
        advice.append(say("next.rest", findings=count(len(still) - len(said), "finding")))
    unsure = [
        f"“{plain(check['title'])}”" for check in results.checks if check["status"] in ("inconclusive", "not_run")
    ]
    if any(is_unsuitable(check) for check in results.checks):
        advice.insert(0, say("next.unsuitable"))
    if unsure:
        advice.append(say("next.open", rules=", ".join(unsure)))
    return advice or [say("next.none")]


def _facts(results: Results, accuracy: Mapping[str, Any] | None) -> list[dict[str, str]]:
    facts = []
    statuses = results.neurons["status"]
    if len(statuses):
        labelled = int((statuses == "labelled").sum())
        facts.append(_fact(f"{labelled:,}", "neurons", say("fact.neurons.of", total=f"{len(statuses):,}")))
    if results.audit:
        number = sum(f["status"] == "fail" for f in results.findings)
        facts.append(_fact(str(number), "findings", say("fact.findings.of", checks=len(results.checks))))
    areas = [f["area_ha"] for f in _ordered(results) if f["status"] == "fail" and f.get("area_ha")]
    if areas:
        # Footprints of findings may overlap, so the gravest one's area is said, never the sum.
        worst = areas[0]
        low, high = (worst.get("ci") or (None, None))[:2]
        facts.append(
            _fact(
                hectares(worst.get("estimate")), "hectares",
                say("fact.hectares.of", low=hectares(low), high=hectares(high)) if low is not None else "",
            )
        )  # fmt: skip
    if accuracy is not None:
        overall = accuracy["overall"]
        said = say("fact.accuracy.of", low=percent(overall["low"]), high=percent(overall["high"]))
        facts.append(_fact(percent(overall["estimate"]), "accuracy", said if overall["low"] is not None else ""))
    probe = results.manifest.get("probe")
    probe = probe if isinstance(probe, Mapping) else {}
    images = probe.get("images") or len(results.images)
    if images:
        held = probe.get("held_out")
        held = len(held) if isinstance(held, list) else held
        facts.append(
            _fact(f"{images:,}", "images", say("fact.images.of", held_out=f"{held:,}") if isinstance(held, int) else "")
        )
    return facts


def _fact(value: str, key: str, detail: str) -> dict[str, str]:
    return {"value": value.replace(",", "\u202f"), "label": say(f"fact.{key}"), "detail": detail.replace(",", "\u202f")}


def _finding(finding: Mapping[str, Any], results: Results) -> dict[str, Any]:
    effect = finding.get("effect") or {}
    area = finding.get("area_ha") or {}
    pair = finding.get("class_pair") or []
    names = [plain(name, 60) for name in ([pair] if isinstance(pair, str) else pair) if name]
    grades = {int(step["grade"]) for step in finding.get("evidence", ())}
    suppression = finding.get("suppression") or {}
    by = say("findings.suppressed.by", name=plain(suppression["by"], 60)) if suppression.get("by") else ""
    alarm = finding.get("false_alarm_rate")
    return {
        "id": plain(finding["id"], 40),
        "anchor": "finding-" + "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in finding["id"][:40]),
        "title": plain(finding["title"], 200),
        "severity": finding["severity"],
        "grave": finding["severity"] in ALARMING,
        "severity_word": say(f"severity.{finding['severity']}"),
        "severity_means": say(f"severity.{finding['severity']}.means"),
        "status": finding["status"],
        "status_word": say(f"status.{finding['status']}"),
        "baseline": say(f"baseline.{finding['baseline']}") if finding.get("baseline") else "",
        "suppression": say("findings.suppressed.why", by=by, reason=lines(suppression["reason"], 400)) if suppression else "",
        "rule": plain(finding["rule"], 80),
        "classes": names,
        "class": say("finding.instead", first=names[0], second=names[1]) if len(names) > 1 else (names or [""])[0],
        "concept": plain(finding.get("concept"), 120),
        "units": _units(finding),
        "effect": _effect(effect),
        "n": finding.get("n"),
        "q": probability(effect.get("q")),
        "confidence": figure(finding.get("label_confidence")),
        "prevalence": percent(finding.get("prevalence")),
        "false_alarm": _alarm(alarm, results) if isinstance(alarm, (int, float)) else lines(alarm, 300) or "\u2013",
        "area": _area(area),
        "grade": finding.get("evidence_grade"),
        "ladder": [_rung(grade, finding, grades) for grade in (1, 2, 3, 4)],
        "examples": [int(image) for image in finding.get("examples", ())],
        "counterexamples": [int(image) for image in finding.get("counterexamples", ())],
        "why": lines(finding.get("why_spurious"), 500),
        "recommendation": lines(finding.get("recommendation"), 900),
        "retest": lines(finding.get("retest"), 900),
        "limitations": lines(finding.get("limitations"), 900),
        "decision": _decision(finding.get("decision")),
        "fingerprint": plain(finding["fingerprint"], 64),
    }  # fmt: skip


def _area(area: Mapping[str, Any]) -> str:
    """Hectares with their interval and which ground they are; empty where there is none."""
    if figure(area.get("estimate")) == "\u2013":
        return ""
    said = hectares(area["estimate"])
    ends: list[Any] = area.get("ci") or []
    known = len(ends) == 2 and None not in ends
    between = say("finding.area.between", area=said, low=hectares(ends[0]), high=hectares(ends[1])) if known else ""
    meaning = lines(area.get("meaning"), 300)
    return (between or say("finding.area.of", area=said)) + (f": {meaning}" if meaning else "")


def _units(finding: Mapping[str, Any]) -> list[str]:
    layer = finding.get("layer")
    return [str(unit) if isinstance(unit, str) else f"{layer}/{unit}" for unit in finding.get("units", ())]


def _effect(effect: Mapping[str, Any]) -> str:
    if not effect:
        return ""
    ci = interval(effect.get("ci"))
    said = f"{plain(effect['metric'], 60)} {figure(effect.get('value'))}"
    return said + (f" ({ci})" if ci else "")


def _rung(grade: int, finding: Mapping[str, Any], grades: set[int]) -> dict[str, Any]:
    steps = [step for step in finding.get("evidence", ()) if int(step["grade"]) == grade]
    reached = int(finding.get("evidence_grade") or 0)
    # An evidence list without verdicts of its own is read by the grade that the finding reached.
    holds = any(step.get("holds", grade <= reached) for step in steps)
    state = "missing" if grade not in grades else "holds" if holds else "fails"
    # A brush and real images may disagree; then each sentence says which of them holds.
    mixed = len({bool(step.get("holds", True)) for step in steps}) > 1
    return {
        "grade": grade,
        "name": say(f"ladder.{grade}"),
        "means": say(f"ladder.{grade}.means"),
        "state": state,
        "word": say(f"ladder.{state}"),
        "steps": [
            {
                "sentence": _verdict(step, mixed) + lines(step["sentence"], 700),
                "value": figure(step.get("value"), signed=True),
                "ci": interval(step.get("ci")),
                "p": probability(step.get("p")),
                "null": _null(step.get("null")),
                "raw": _raw(step),
            }
            for step in steps
        ],
    }


def _verdict(step: Mapping[str, Any], mixed: bool) -> str:
    if not mixed:
        return ""
    word = say(f"ladder.{'holds' if step.get('holds', True) else 'fails'}")
    return f"{word[:1].upper()}{word[1:]}: "


def _raw(step: Mapping[str, Any]) -> dict[str, float] | None:
    """Value and interval as numbers for a drawing, where both are there."""
    ci, value = step.get("ci"), step.get("value")
    if not isinstance(value, (int, float)) or not isinstance(ci, list) or len(ci) != 2 or None in ci:
        return None
    return {"value": float(value), "low": float(ci[0]), "high": float(ci[1])}


def _null(null: Any) -> str:
    if null is None or null == "":
        return ""
    if isinstance(null, (int, float)):
        return figure(null)
    return interval(null) if isinstance(null, list) else lines(null, 200)


def _decision(decision: Any) -> dict[str, str] | None:
    if not isinstance(decision, Mapping):
        return None
    return {name: lines(decision.get(name), 400) for name in ("verdict", "by", "on", "note")}


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    tested = check.get("tested")
    return {
        "rule": plain(check["rule"], 80),
        "title": plain(check["title"], 200),
        "status": check["status"],
        "word": say(f"check.{check['status']}"),
        "reason": lines(check.get("reason"), 700),
        "tested": f"{tested:,}".replace(",", "\u202f") if isinstance(tested, int) else plain(tested, 80) or "\u2013",
        "null": _null(check.get("null")) or "\u2013",
    }


def _alarm(rate: float, results: Results) -> str:
    """The measured rate with its upper bound: none in a few tries is not never."""
    gate = results.audit.get("gate")
    bound = gate.get("upper_bound") if isinstance(gate, Mapping) else None
    if bound is None:
        return percent(rate, 1)
    return say("finding.false_alarm.of", rate=percent(rate, 1), bound=percent(bound, 1))


def _gate(gate: Any) -> str:
    if not isinstance(gate, Mapping) or gate.get("false_alarm_rate") is None:
        return ""
    rate, bound = percent(gate["false_alarm_rate"], 1), percent(gate.get("upper_bound"), 1)
    return say("checks.gate", rate=rate, bound=bound, null=_null(gate.get("null")))


def _stages(results: Results) -> list[dict[str, Any]]:
    timings = results.manifest.get("timings")
    stages = timings.get("stages") if isinstance(timings, Mapping) else None
    if not isinstance(stages, Mapping):
        return []
    return [
        {"name": plain(name, 60), "seconds": float(value), "text": seconds(value)}
        for name, value in stages.items()
        if isinstance(value, (int, float))
    ]


def _pairs(values: Any) -> list[list[str]]:
    return [[plain(key, 60), plain(value, 100)] for key, value in values.items()] if isinstance(values, Mapping) else []


def _hashes(results: Results) -> list[list[str]]:
    manifest = results.manifest
    rows = []
    for key in ("model", "probe"):
        holder = manifest.get(key)
        if isinstance(holder, Mapping) and holder.get("fingerprint"):
            rows.append([say(f"provenance.{key}"), plain(holder["fingerprint"], 80)])
    backends = manifest.get("backends")
    if isinstance(backends, Mapping):
        for name, value in backends.items():
            said = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else value
            rows.append([say("provenance.backend", name=plain(name, 40)), plain(said, 160)])
    for name in ("audit", "config"):
        path = results.root / say(f"provenance.{name}")
        if path.is_file():
            rows.append([say(f"provenance.{name}"), file_sha256(path)])
    timings = manifest.get("timings")
    if isinstance(timings, Mapping) and timings.get("created"):
        rows.append([say("provenance.created"), plain(timings["created"], 40)])
    if "seed" in manifest:
        rows.append([say("provenance.seed"), plain(manifest["seed"], 40)])
    return rows


def _attributions(results: Results) -> list[dict[str, str]]:
    found: list[Any] = []
    for holder in (results.audit.get("probe"), results.manifest.get("probe"), results.manifest, results.audit):
        if isinstance(holder, Mapping) and isinstance(holder.get("attributions"), list):
            found = found or holder["attributions"]
    rows = []
    for entry in found:
        if isinstance(entry, Mapping):
            rows.append({key: lines(entry.get(key), 300) for key in ("name", "licence", "text", "url")})
        else:
            rows.append({"name": lines(entry, 300), "licence": "", "text": "", "url": ""})
    return rows
