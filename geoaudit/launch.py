"""From an audit's configuration to its subject: the network, the probe, the pool, the backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dnd_core.backends.assembly import assemble
from dnd_core.captioning import Progress
from dnd_core.errors import ConfigError, ProbeError
from dnd_core.images import ImageSet
from dnd_core.networks import Network
from dnd_core.pipeline import Backends
from dnd_core.registry import build, takes
from dnd_core.verification import split
from geoaudit.audit import Audit, Subject, audit, split_subject
from geoaudit.labels import Labels, NoOverlap
from geoaudit.networks import load_network, with_channels
from geoaudit.probes import check_contract
from geoaudit.retrieval import keep_apart
from geoaudit.scenes import open_scene
from geoaudit.settings import AuditConfig
from geoaudit.sliding import scene_bands

__all__ = ["launch", "prepare"]


def prepare(config: AuditConfig) -> tuple[Subject, Backends]:
    """Load and check everything before anything long starts.

    Raises:
        DndError: the network, the probe, the pool or a backend cannot be used; one sentence says why.
    """
    network = load_network(config.model["checkpoint"], config.model.get("card"), **config.model.get("options", {}))
    _check_scenes(config, network)
    images = build(config.probe)
    if not isinstance(images, ImageSet):
        raise ConfigError(f"probe: {config.probe.get('class_path')} is no image set; see geoaudit.probes")
    notes = check_contract(network, images)
    serious = [note.message for note in notes if note.severity == "error"]
    if serious:
        raise ProbeError(f"the probe does not fit the network: {serious[0]}")
    if tuple(network.channels) != tuple(images.channels) or network.input_shape[1:] != images.shape[1:]:
        network = with_channels(network, images.channels, images.shape[1:])
    probe: ImageSet
    pool: ImageSet
    if config.pool is None:
        probe, pool, held_out = split_subject(images, config.settings, config.audit)
    else:
        probe, pool = images, build(config.pool)
        _, held_out = split(len(images), images.blocks, config.settings.verification.holdout, config.settings.seed)
    facts = [{"field": n.field, "severity": n.severity, "message": n.message} for n in notes]
    if takes(config.backends["concept_images"], "pool"):
        whole = len(pool)
        pool, lost = keep_apart(pool, probe)
        if lost:
            message = f"{lost} of {whole} tiles of the pool share ground with the probe and were left out"
            facts.append({"field": "pool", "severity": "warning", "message": message})
    backends = assemble(config.backends, pool=pool, probe=probe, size=network.input_shape[1:])
    subject = Subject(
        network=network,
        probe=probe,
        pool=pool,
        held_out=np.asarray(held_out),
        layers=config.layers,
        scenes=tuple(Path(scene) for scene in config.scenes),
        labels=config.labels,
        definitions=config.definitions,
        attributions=config.attributions,
        card=_facts(config),
        notes=tuple(facts),
    )
    return subject, backends


def _check_scenes(config: AuditConfig, network: Network) -> None:
    """Find out before the long job, not after it, whether it can be mapped.

    Raises:
        ProbeError: a scene or the labels cannot be used, or the labels lie on none of the scenes.
        DndError: a scene lacks a band of the network.
    """
    about = config.labels
    apart: NoOverlap | None = None
    placed = 0
    for path in config.scenes:
        scene = open_scene(path)
        scene_bands(network, scene)
        if about is not None:
            try:
                Labels.from_polygons(about["path"], scene, field=about["field"], classes=about.get("classes"))
                placed += 1
            except NoOverlap as error:
                apart = apart or error
    if apart is not None and not placed:
        raise apart


def _facts(config: AuditConfig) -> dict[str, Any]:
    return {name: str(value) for name, value in config.model.items() if name != "options"}


def launch(config: AuditConfig, out: Path, *, resume: bool = False, progress: Progress | None = None) -> Audit:
    """Audit as a configuration says; see :func:`geoaudit.audit.audit`."""
    subject, backends = prepare(config)
    return audit(subject, out, backends, config.settings, config.audit, resume=resume, progress=progress)
