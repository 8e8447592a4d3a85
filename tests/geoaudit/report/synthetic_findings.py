"""Findings of the drawn run, and a run whose evidence disagrees."""

# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def haze_finding(names: tuple[str, ...], examples: list[int], counter: list[int], concept: str) -> dict[str, Any]:
    return {
        "id": "F001", "fingerprint": "f" * 40, "rule": "concept-reliance",
        "title": f"Leans on {concept} when it decides {names[3]}", "severity": "critical", "status": "fail",
        "class_pair": [names[3]], "concept": concept, "group": 5, "prevalence": 0.21, "why_spurious": "haze is weather, it is no part of what residential is", "label_confidence": 0.74, "layer": "layer4",
        "units": ["layer4/5", "layer3/5", "layer3/12"], "n": 140,
        "effect": {"metric": "reliance", "value": 0.42, "ci": [0.35, 0.49], "p": 0.002, "q": 0.01, "null": [-0.03, 0.03]},
        "evidence_grade": 3,
        "evidence": [
            {"grade": 1, "name": "association", "sentence": "Units of haze fire with residential beyond its label.",
             "value": 0.4, "ci": [0.31, 0.48], "p": 0.001, "null": "label-shuffled units", "holds": True},
            {"grade": 2, "name": "counterfactual", "sentence": "Painting haze on other tiles raises residential.",
             "value": 0.42, "ci": [0.35, 0.49], "p": 0.002, "null": "a grey veil of equal mean", "holds": True},
            {"grade": 3, "name": "ablation", "sentence": "Without these units residential loses more than without others.",
             "value": 0.31, "ci": [0.25, 0.37], "p": 0.002, "null": "matched random units", "holds": True},
        ],
        "examples": examples, "counterexamples": counter,
        "footprint": {"type": "Polygon", "coordinates": [[[15.0, 48.7], [15.04, 48.7], [15.04, 48.73], [15.0, 48.7]]]},
        "area_ha": {"estimate": 1240.0, "ci": [980.0, 1510.0]},
        "recommendation": "Train with haze painted on every class, then audit again.",
        "retest": "After pruning the three units the reliance falls to 0.20 and 1.5 points of accuracy are lost.",
        "limitations": "Painted haze is smoother than real haze.", "false_alarm_rate": 0.02,
    }  # fmt: skip


def minor_finding(names: tuple[str, ...], examples: list[int], *, suppressed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "F002", "fingerprint": "e" * 40, "rule": "concept-reliance",
        "title": f"Sharp field edges go with {names[2]}", "severity": "info" if suppressed else "minor",
        "status": "suppressed" if suppressed else "fail", "class_pair": [names[2], names[1]], "concept": "sharp field edges", "group": 6, "prevalence": None, "why_spurious": None,
        "label_confidence": 0.6, "layer": "layer3", "units": ["layer3/6"], "n": 60,
        "effect": {"metric": "association", "value": 0.12, "ci": [0.02, 0.22], "p": 0.01, "q": 0.04, "null": [-0.1, 0.1]},
        "evidence_grade": 1,
        "evidence": [{"grade": 1, "name": "association", "sentence": "Edges go with farmland.", "value": 0.12,
                      "ci": [0.02, 0.22], "p": 0.01, "null": "label-shuffled units", "holds": False}],
        "examples": examples[:4], "counterexamples": examples[4:], "footprint": None, "area_ha": None,
        "recommendation": "Nothing to do; field edges are part of farmland.", "retest": None, "limitations": None,
        "false_alarm_rate": 0.02,
    }  # fmt: skip
    if suppressed:
        found["suppression"] = {"reason": "field edges are part of farmland", "by": "A. Reviewer", "until": None}
    return found


def disagreeing(source: Path, target: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the run in which pairs of real images speak against what was painted, and the painted step."""
    run = Path(shutil.copytree(source, target))
    document = json.loads((run / "audit.json").read_text())
    finding = next(f for f in document["findings"] if f["id"] == "F001")
    step: dict[str, Any] = next(e for e in finding["evidence"] if e["grade"] == 2)
    against = {**step, "name": "retrieved pairs", "sentence": "Pairs of real images do not differ.", "holds": False}
    finding["evidence"].insert(finding["evidence"].index(step) + 1, against)
    (run / "audit.json").write_text(json.dumps(document))
    return run, step
