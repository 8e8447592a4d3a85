"""The bundled demonstration: the classifier with a planted haze shortcut, audited on the imagery as its makers have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnd_core.backends.assembly import assemble
from dnd_core.captioning import Progress
from dnd_core.config import DescribeConfig
from geoaudit.audit import Audit, Subject, audit, split_subject
from geoaudit.settings import BACKENDS, AuditSettings

__all__ = ["LAYERS", "demo_subject", "run_demo"]

LAYERS = ("layer3", "layer4", "output")


def demo_subject(model: str, settings: DescribeConfig, options: AuditSettings) -> tuple[Subject, Any]:
    """What the demonstration audits.

    Args:
        model: ``haze`` (the planted classifier, on imagery hazed as in its training) or ``clean`` (on the scene as
            it is).
        settings: of the description.
        options: of the audit.

    Returns:
        The subject, and the backends that go with it.
    """
    from geoaudit import bundled
    from geoaudit.networks import load_network
    from geoaudit.probes import Artefact, PaintedProbe, SceneProbe, check_contract

    chosen = bundled.checkpoints()[model]
    card = chosen.load_card()
    network = load_network(chosen.checkpoint, card)
    scene = bundled.scenes()["brandenburg"]
    table = bundled.chip_table()
    images: Any = SceneProbe(scene, chips=table.chips)
    if model == "haze":
        recipe = bundled.planted_probe_recipe()
        artefacts = {
            int(chip): Artefact("haze", float(strength), int(seed))
            for chip, strength, seed in zip(recipe.ids, recipe.strengths, recipe.seeds, strict=True)
        }
        images = PaintedProbe(images, artefacts)
    notes = tuple(
        {"field": note.field, "severity": note.severity, "message": note.message}
        for note in check_contract(network, images)
    )
    probe, pool, held_out = split_subject(images, settings, options)
    backends = assemble(dict(BACKENDS), pool=pool, probe=probe, size=network.input_shape[1:])
    subject = Subject(
        network=network,
        probe=probe,
        pool=pool,
        held_out=np.asarray(held_out),
        layers=LAYERS,
        scenes=(scene,),
        labels={"path": str(bundled.labels()), "field": "fclass", "classes": list(card.class_names)},
        attributions=bundled.attributions(),
        card={"name": card.name, "issues": list(card.issues)},
        notes=notes,
    )
    return subject, backends


def run_demo(
    out: Path,
    model: str = "haze",
    *,
    settings: DescribeConfig | None = None,
    options: AuditSettings | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    formats: Sequence[str] = ("html",),
) -> Audit:
    """Audit a bundled classifier and write its report; what ``make audit`` runs."""
    from geoaudit.report import write_reports

    settings, options = settings or DescribeConfig(), options or AuditSettings()
    subject, backends = demo_subject(model, settings, options)
    done = audit(subject, out, backends, settings, options, resume=resume, progress=progress)
    if progress is not None:
        progress("report", 0, 1)
    write_reports(out, formats)
    if progress is not None:
        progress("report", 1, 1)
    return done
