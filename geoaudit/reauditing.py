"""Auditing a repaired network as the first one was, and saying what became of the finding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dnd_core.config import DescribeConfig
from geoaudit.findings import Hypothesis
from geoaudit.settings import AuditSettings

if TYPE_CHECKING:
    from dnd_core.captioning import Progress
    from dnd_core.pipeline import Backends
    from geoaudit.audit import Subject

__all__ = ["audit_again", "compared"]


def audit_again(
    run_dir: Path,
    out: Path,
    finding: Mapping[str, Any],
    subject: Subject,
    backends: Backends,
    checkpoint: Path,
    options: AuditSettings,
    progress: Progress | None,
) -> dict[str, Any]:
    """Audit a repaired checkpoint on the same images with the same settings.

    Args:
        run_dir: the finished audit of the network as it was.
        out: folder of the new audit; one that was interrupted goes on.
        finding: as it stands in the first ``audit.json``.
        subject: what the first audit audited.
        backends: of the description.
        checkpoint: the repaired one, with its card beside it.
        options: of the first audit.
        progress: called with (stage, done, total).

    Returns:
        ``folder`` and what :func:`compared` says.
    """
    from geoaudit.audit import audit
    from geoaudit.cards import load_card
    from geoaudit.networks import load_network, with_channels

    card = load_card(checkpoint.with_suffix(".json"))
    network, images = load_network(checkpoint, card), subject.probe
    if tuple(network.channels) != tuple(images.channels) or network.input_shape[1:] != images.shape[1:]:
        network = with_channels(network, images.channels, images.shape[1:])
    settings = dict(yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8")))
    settings.pop("layers", None)
    repaired = replace(subject, network=network, card={"name": card.name, "issues": list(card.issues)})
    done = audit(repaired, out, backends, DescribeConfig.from_dict(settings), options, resume=True, progress=progress)
    tested = [hypothesis for result in done.checks for hypothesis in result.hypotheses]
    return {"folder": out.name, **compared(run_dir, finding, done.document, tested)}


def compared(
    run_dir: Path, finding: Mapping[str, Any], document: Mapping[str, Any], tested: list[Hypothesis]
) -> dict[str, Any]:
    """One finding before and after a repair, and how many findings the two audits have.

    Args:
        run_dir: the first audit.
        finding: as it stands in the first ``audit.json``.
        document: the second ``audit.json``.
        tested: every hypothesis of the second audit.

    Returns:
        ``before`` and ``after``, each ``severity`` (``none`` where it is no finding any more), ``reliance``, ``ci`` and
        ``counts`` (open findings by severity); the reliance after is None where the second audit did not test it.
    """
    first = json.loads((run_dir / "audit.json").read_text(encoding="utf-8"))
    name, concept = str(finding["class_pair"][0]), str(finding["concept"])
    still = [
        other
        for other in document["findings"]
        if other["class_pair"] == [name] and (concept in other["concept"] or other["concept"] in concept)
    ]
    again = _same(finding, tested)
    effect = finding.get("effect") or {}
    return {
        "before": {
            "severity": finding["severity"],
            "reliance": effect.get("value"),
            "ci": effect.get("ci"),
            "counts": first.get("summary", {}).get("counts", {}),
        },
        "after": {
            "severity": still[0]["severity"] if still else "none",
            "reliance": None if again is None else round(again.value, 6),
            "ci": None if again is None else [round(float(end), 6) for end in again.ci],
            "counts": document["summary"]["counts"],
        },
    }


def _same(finding: Mapping[str, Any], tested: list[Hypothesis]) -> Hypothesis | None:
    """The hypothesis that measures the same: of the same rule if it is there, else of a probe for the same artefact."""
    name, concept = str(finding["class_pair"][0]), str(finding["concept"])
    metric = (finding.get("effect") or {}).get("metric")
    alike = [h for h in tested if h.class_name == name and h.metric == metric]
    for same in (
        [h for h in alike if h.rule == finding["rule"] and h.concept == concept],
        [h for h in alike if h.rule == "sensor-probe" and h.concept in concept],
        [h for h in alike if h.rule == finding["rule"] and (concept in h.concept or h.concept in concept)],
    ):
        if same:
            return same[0]
    return None
