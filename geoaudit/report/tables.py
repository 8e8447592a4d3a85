"""Tables of a report: accuracy by class, units by layer, concept groups with the class that leans on each."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoaudit.evidence import designed_accuracy
from geoaudit.report.text import interval, lines, plain, shares
from geoaudit.report.wording import count, say
from geoaudit.results import Results

__all__ = ["accuracy_table", "area_table", "group_rows", "layer_counts"]

STATUSES = ("labelled", "weak", "abstained", "dead")


def accuracy_table(results: Results) -> dict[str, Any] | None:
    """Accuracy over the probe's labelled images, block by block where blocks are known; None without true classes."""
    from geoaudit import accuracy

    images = results.images
    names = results.class_names
    if images.empty or not names:
        return None
    label = images["label"].fillna(-1).to_numpy(dtype=np.int64)
    predicted = images["predicted"].fillna(-1).to_numpy(dtype=np.int64)
    known = (label >= 0) & (predicted >= 0) & (label < len(names)) & (predicted < len(names))
    known &= ~images["painted"].fillna(False).astype(bool).to_numpy()
    if not known.any():
        return None
    shown = [plain(name, 60) for name in names]
    # Two long names may look alike once shortened, and the notes speak of classes by name.
    keys = [name if shown.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(shown)]
    block = images["block"].to_numpy()[known]
    ids = set(block.tolist())
    clustered = len(ids) > 1 and not any(number is None or number != number for number in ids)
    report = (
        accuracy.cluster_accuracy(predicted[known], label[known], block, keys)
        if clustered
        else accuracy.simple_accuracy(predicted[known], label[known], keys)
    )
    table = report.to_dict()
    draws = block if clustered else np.arange(len(block))
    points = [table["overall"], *(row[key] for row in table["classes"] for key in ("producers", "users"))]
    exact = any(entry["low"] == entry["high"] is not None for entry in points)
    table["overall"] = _widened(table["overall"], draws)
    for number, row in enumerate(table["classes"]):
        row["name"] = shown[number]
        for key, mine in (("producers", label[known] == number), ("users", predicted[known] == number)):
            row[key] = _widened(row[key], draws[mine])
        row["n"] = int(sum(table["counts"][r][number] for r in range(len(names))))
    table["clustered"] = clustered
    table["lead"] = say("accuracy.lead" if clustered else "accuracy.lead.simple")
    table["lead"] += f" {say('accuracy.overall')}: {shares(table['overall'])}."
    table["notes"] = [lines(note, 400) for note in table["notes"]]
    if exact:
        table["notes"].append(say("accuracy.exact"))
    return table


def _widened(entry: dict[str, Any], draws: Any) -> dict[str, Any]:
    """A share whose interval is a point, all right or all wrong, with the exact interval of as many trials as blocks.

    Without a single error every block agrees and the interval between blocks shrinks to nothing, which says too much.
    """
    if entry["low"] is None or entry["low"] != entry["high"]:
        return entry
    trials = len(set(draws.tolist()))
    if trials == 0 or entry["estimate"] not in (0.0, 1.0):
        return {**entry, "low": None, "high": None}
    # Clopper and Pearson (1934) with no failure, or no success, in so many trials.
    edge = 0.025 ** (1 / trials)
    return {**entry, "low": edge if entry["estimate"] else 0.0, "high": 1.0 if entry["estimate"] else 1.0 - edge}


def area_table(results: Results) -> dict[str, Any]:
    """Accuracy of the map and true area of each class, by the design of a labelled sample.

    Returns:
        ``lead, rows, notes, reason``: rows ``{name, area, mapped, users, producers}`` of estimates with their intervals, areas in
        hectares; without rows ``reason`` says why there are none.
    """
    told = designed_accuracy(results.audit)
    if told is None or not told["classes"]:
        reason = lines(told["reason"], 400).rstrip(".") if told is not None else ""
        if not reason:
            labels = results.images["label"].fillna(-1)
            reason = say("area.none.sample" if (labels >= 0).any() else "area.none.labels")
        return {"lead": "", "rows": [], "notes": [], "reason": say("area.none", reason=reason)}
    design = f"design.{told['design']}"
    words = say(design) if design in DESIGNS else lines(told["design"], 120)
    lead = say("area.lead", n=count(int(told["n"] or 0), "sample"), design=words)
    overall = told["overall"]
    if overall["estimate"] is not None:
        lead += f" {say('area.overall')}: {shares(overall)}."
    rows = [{**row, "name": plain(row["name"], 60)} for row in told["classes"]]
    return {"lead": lead, "rows": rows, "notes": [lines(note, 400) for note in told["notes"]], "reason": ""}


DESIGNS = ("design.stratified", "design.poststratified", "design.simple", "design.cluster")


def layer_counts(results: Results) -> list[dict[str, Any]]:
    """How many units of each layer have which status."""
    neurons = results.neurons
    rows = []
    for layer, part in neurons.groupby("layer", sort=False):
        found = part["status"].value_counts()
        row: dict[str, Any] = {status: int(found.get(status, 0)) for status in STATUSES}
        rows.append({"layer": plain(layer, 60), **row, "total": len(part)})
    return rows


def group_rows(results: Results) -> list[dict[str, Any]]:
    """Concept groups with the class that leans on each most; largest reliance first."""
    import pandas as pd

    reliance, ablation = results.reliance, results.ablation
    rows = []
    for record in results.groups.itertuples(index=False):
        number = int(record.group)
        units = results.group_units(number)
        row: dict[str, Any] = {
            "group": number, "name": plain(record.name, 80), "units": [str(unit) for unit in units],
            "layers": ", ".join(dict.fromkeys(plain(unit.layer, 40) for unit in units)),
            "leaning": "", "reliance": None, "reliance_ci": "", "loss": None, "loss_ci": "",
        }  # fmt: skip
        part = reliance[reliance["group"] == number]
        strengths = pd.to_numeric(part["reliance"], errors="coerce").dropna()
        if len(strengths):
            best = part.loc[strengths.idxmax()]
            row |= {"leaning": plain(best["class"], 60), "reliance": float(best["reliance"])}
            row["reliance_ci"] = interval([_float(best["reliance_low"]), _float(best["reliance_high"])])
            lost = ablation[(ablation["group"] == number) & (ablation["class"] == best["class"])]
            if len(lost):
                change = _float(lost["change"].iloc[0])
                row["loss"] = -change if change is not None else None
                ends = [_float(lost["high"].iloc[0]), _float(lost["low"].iloc[0])]
                row["loss_ci"] = interval([None if end is None else -end for end in ends])
        rows.append(row)
    return sorted(rows, key=lambda row: (-(row["reliance"] if row["reliance"] is not None else -9.0), row["name"]))


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
