"""One audit from configuration to findings: describe, predict, test, map, report, each a resumable stage of one run folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.captioning import Progress
from dnd_core.config import DescribeConfig
from dnd_core.errors import NetworkError
from dnd_core.images import ImageSet, Subset
from dnd_core.networks import Network
from dnd_core.pipeline import Backends, Run, describe_into
from dnd_core.store import RunStore, Stage, write_table
from dnd_core.versions import package_version
from geoaudit.checking import check_stage, gate_facts
from geoaudit.checks import CHECKS, choose_checks
from geoaudit.checks.base import AuditContext
from geoaudit.checks.nulls import Calibration
from geoaudit.contexts import read_context
from geoaudit.document import audit_document
from geoaudit.findings import CheckResult, Finding
from geoaudit.retesting import retest_stage
from geoaudit.sampled import class_maps, sampled_accuracy
from geoaudit.settings import AuditSettings

__all__ = ["Audit", "Subject", "audit"]

# Raised whenever a stage's code changes what it writes for the same inputs.
VERSIONS = {"predictions": 1, "maps": 1, "thumbnails": 1, "findings": 7}
LIBRARIES = ("torch", "torchvision", "torchgeo", "numpy", "pandas", "rasterio", "transformers", "geoaudit")


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited.

    Attributes:
        network: the trained network.
        probe: images to describe and test on, with metadata.
        pool: images to retrieve concept images from; shares no block with the probe.
        held_out: indices of probe images kept for verification.
        layers: layers to describe.
        scenes: rasters to map units over.
        labels: polygons to compare hot spots with: path, field and classes; or None.
        definitions: what each class is, by class name.
        attributions: lines every report carries.
        card: facts about the model for the manifest.
    """

    network: Network
    probe: ImageSet
    pool: ImageSet
    held_out: NDArray[np.int64]
    layers: tuple[str, ...]
    scenes: tuple[Path, ...] = ()
    labels: Mapping[str, Any] | None = None
    definitions: Mapping[str, str] | None = None
    attributions: tuple[str, ...] = ()
    card: Mapping[str, Any] | None = None
    notes: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Audit:
    """A finished audit.

    Attributes:
        root: the run folder.
        run: the description.
        checks: what every check looked for and found.
        findings: most severe first.
        document: what ``audit.json`` holds.
    """

    root: Path
    run: Run
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    document: dict[str, Any]


def audit(
    subject: Subject,
    out: Path,
    backends: Backends,
    settings: DescribeConfig | None = None,
    options: AuditSettings | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Audit:
    """Audit a network.

    Args:
        subject: network, images and scenes.
        out: the run folder, see ``docs/run-folder.md``.
        backends: of the description.
        settings: of the description.
        options: of the audit.
        resume: go on with a run that is there.
        progress: called with (stage, done, total).

    Raises:
        DndError: bad input; one sentence.
    """
    from geoaudit.picturing import map_stage, thumbnail_stage

    settings, options = settings or DescribeConfig(), options or AuditSettings()
    checks = choose_checks(options.checks)
    header = {"tool": {"name": "geoaudit", "version": package_version("geoaudit")}, "versions": _versions()}
    with RunStore(out, resume=resume, header=header) as store:
        run = describe_into(
            store,
            subject.network,
            subject.probe,
            subject.layers,
            backends,
            settings,
            held_out=subject.held_out if settings.verification.enabled else None,
            progress=progress,
        )
        store.annotate(card=dict(subject.card or {}), attributions=list(subject.attributions))
        logits, predicted = _predictions(store, subject, run, progress)
        activations = {info.name: run.activations(info.name) for info in run.layers}
        context = read_context(
            store.root, subject, run.layers, activations, logits, backends, settings, options, progress
        )
        results, findings, calibration = check_stage(store, context, checks, options, predicted)
        findings = retest_stage(store, context, findings, progress)
        pictured = thumbnail_stage(store, subject, run, findings, progress)
        map_stage(store, subject, run, findings, options, pictured, progress, settings.probing.pooling)
        document = _findings(store, subject, run, context, results, findings, calibration, options)
    return Audit(out, run, results, findings, document)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: package_version(name) for name in LIBRARIES}}


def _predictions(
    store: RunStore, subject: Subject, run: Run, progress: Progress | None
) -> tuple[NDArray[np.float32], Stage]:
    """Logits of every probe image, and ``images.parquet``."""
    network, images = subject.network, subject.probe
    stage = store.stage(
        "predictions",
        ["predictions", VERSIONS["predictions"], network.fingerprint, images.fingerprint, run.held_out.tolist()],
    )
    if not stage.done:
        parts = []
        for start in range(0, len(images), 128):
            rows = range(start, min(start + 128, len(images)))
            parts.append(_answer(network, images.pixels(list(rows))))
            if progress is not None:
                progress("predictions", rows.stop, len(images))
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all():
            raise NetworkError(f"{network.name} answers with NaN or infinite values on the probe: check its weights")
        np.save(stage.path("predictions/logits.npy"), logits)
        write_table(stage.path("images.parquet"), _image_table(subject, run, logits))
        stage.commit()
    return np.load(store.root / "predictions" / "logits.npy"), stage


def _answer(network: Network, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    logits = network(torch.from_numpy(np.ascontiguousarray(pixels)))
    # A segmentation network decides pixels; a tile's answer is their mean.
    return np.asarray((logits.mean(dim=(2, 3)) if logits.ndim == 4 else logits).float().numpy())


def _image_table(subject: Subject, run: Run, logits: NDArray[np.float32]) -> pd.DataFrame:
    images = subject.probe
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    held = set(run.held_out.tolist())
    rows = []
    for index in range(len(images)):
        about = images[index].metadata
        left, bottom, right, top = about.get("bounds") or (np.nan,) * 4
        painted = about.get("painted")
        rows.append(
            {
                "image": index,
                "source": str(about.get("source", "")),
                "split": "held_out" if index in held else "explain",
                "block": -1 if images.blocks is None else int(images.blocks[index]),
                "label": -1 if images.labels is None else int(images.labels[index]),
                "predicted": int(logits[index].argmax()),
                "probability": float(shifted[index].max() / shifted[index].sum()),
                "crs": str(about.get("crs") or ""),
                "left": float(left),
                "bottom": float(bottom),
                "right": float(right),
                "top": float(top),
                "acquired": str(about.get("acquired") or ""),
                "painted": json.dumps(painted, sort_keys=True) if painted else "",
            }
        )
    return pd.DataFrame(rows)


def _findings(
    store: RunStore,
    subject: Subject,
    run: Run,
    context: AuditContext,
    results: tuple[CheckResult, ...],
    findings: tuple[Finding, ...],
    calibration: Calibration,
    options: AuditSettings,
) -> dict[str, Any]:
    before = [store.manifest["stages"][name]["key"] for name in ("checks", "retest", "maps")]
    stage = store.stage("findings", ["findings", VERSIONS["findings"], before, asdict(options), list(subject.notes)])
    if not stage.done:
        worst = calibration.worst
        rate = (float("nan") if worst.rate is None else worst.rate, worst.upper_bound)
        sampled = sampled_accuracy(context, options.sample, class_maps(store.root))
        document = audit_document(store.manifest, run, context, results, findings, rate, subject.notes)
        document["gate"] |= gate_facts(calibration)
        document["accuracy"] = {**(document["accuracy"] or {}), **sampled}
        _say_where_it_applies(document, store.root)
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        stage.path("audit.json").write_text(text + "\n", encoding="utf-8")
        stage.commit()
    found: dict[str, Any] = json.loads((store.root / "audit.json").read_text(encoding="utf-8"))
    return found


def _say_where_it_applies(document: dict[str, Any], root: Path) -> None:
    """Put the share of each map outside the area of applicability into the document, and into what geography says."""
    import rasterio

    found = []
    for path in (root / "maps" / "applicability.tif", *sorted((root / "maps").glob("*/applicability.tif"))):
        if path.is_file():
            with rasterio.open(path) as dataset:
                tags = dataset.tags(1)
            share, threshold = float(tags["OUTSIDE"]), float(tags["THRESHOLD"])
            where = path.relative_to(root).as_posix()
            if np.isfinite(share):
                found.append({"map": where, "outside": share, "threshold": threshold, "layer": tags["LAYER"]})
    document["applicability"] = found
    said = ", ".join(f"{part['outside']:.0%} of the map ({part['map']})" for part in found)
    for check in document["checks"]:
        if said and check["rule"] == "geography" and check["status"] in ("pass", "fail"):
            check["reason"] += f"; outside the area of applicability: {said}"


def split_subject(
    probe: ImageSet, settings: DescribeConfig, options: AuditSettings
) -> tuple[Subset, Subset, NDArray[np.int64]]:
    """Probe, pool and held-out indices from one image set, no spatial block in two of them.

    Returns:
        The probe (explaining and held-out images), the pool, and which of the probe's images are held out.
    """
    from geoaudit.probes.splitting import split

    rest = 1 - options.pool_share
    share = {
        "explain": rest * (1 - settings.verification.holdout),
        "pool": options.pool_share,
        "holdout": rest * settings.verification.holdout,
    }
    parts = split(probe, share, seed=settings.seed)
    ours = np.sort(np.concatenate([parts.explain, parts.holdout]))
    held = np.flatnonzero(np.isin(ours, parts.holdout)).astype(np.int64)
    return Subset(probe, ours.tolist()), Subset(probe, parts.pool.tolist()), held


def rules() -> list[str]:
    """Rule ids of every check, in the order they run."""
    return [check.rule for check in CHECKS]
