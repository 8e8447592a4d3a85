"""The stages of an audit that make pictures: thumbnails of the images it speaks of, and maps of units over scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dnd_core.captioning import Progress
from dnd_core.config import Pooling
from dnd_core.pipeline import Run
from dnd_core.store import RunStore, Stage
from dnd_core.types import UnitId
from geoaudit.applicability import ApplicabilityMap
from geoaudit.findings import Finding
from geoaudit.settings import AuditSettings

if TYPE_CHECKING:
    from dnd_core.layers import LayerInfo
    from geoaudit.audit import Subject
    from geoaudit.labels import Labels
    from geoaudit.scenes import Scene

__all__ = ["chosen_units", "map_stage", "thumbnail_stage"]

VERSIONS = {"thumbnails": 1, "maps": 2}

# A finding may name hundreds of units; this many of them are mapped.
MAPPED_A_FINDING = 4


def thumbnail_stage(
    store: RunStore, subject: Subject, run: Run, findings: Sequence[Finding], progress: Progress | None
) -> Stage:
    """A PNG of every image that a unit or a finding refers to."""
    from PIL import Image

    wanted = set(pd.read_parquet(store.root / "top_images.parquet", columns=["image"])["image"].tolist())
    for finding in findings:
        wanted |= set(finding.hypothesis.examples) | set(finding.hypothesis.counterexamples)
    stage = store.stage("thumbnails", ["thumbnails", VERSIONS["thumbnails"], subject.probe.fingerprint, sorted(wanted)])
    if not stage.done:
        for number, index in enumerate(sorted(wanted), start=1):
            Image.fromarray(subject.probe[index].rgb).save(stage.path(f"thumbnails/{index:06d}.png"))
            if progress is not None and (number % 200 == 0 or number == len(wanted)):
                progress("thumbnails", number, len(wanted))
        stage.commit()
    return stage


def chosen_units(run: Run, groups: pd.DataFrame, findings: Sequence[Finding], each: int) -> list[UnitId]:
    """Units worth a map: those of findings, and the best-verified ones of each concept group."""
    known = {info.name for info in run.layers if info.kind != "vector"}
    scored = run.neurons.set_index(["layer", "unit"])["r"].astype(float).to_dict()

    def best(names: Sequence[str], most: int) -> list[UnitId]:
        units = [unit for unit in map(UnitId.parse, names) if unit.layer in known]
        return sorted(units, key=lambda u: (-np.nan_to_num(scored.get((u.layer, u.index), 0.0)), u))[:most]

    chosen: dict[UnitId, None] = {}
    for finding in findings:
        chosen.update(dict.fromkeys(best(finding.hypothesis.units, MAPPED_A_FINDING)))
    for names in groups["units"]:
        chosen.update(dict.fromkeys(best(json.loads(names), each)))
    return list(chosen)


def map_stage(
    store: RunStore,
    subject: Subject,
    run: Run,
    findings: Sequence[Finding],
    options: AuditSettings,
    before: Stage,
    progress: Progress | None,
    pooling: Pooling = "mean",
) -> None:
    """Over every scene: maps of the chosen units, hot spots, classes, labels, applicability; and the scene itself."""
    from geoaudit.applicability import reference_of
    from geoaudit.renderings import render_scene, unique_names
    from geoaudit.scenes import open_scene

    groups = pd.read_parquet(store.root / "groups.parquet")
    units = chosen_units(run, groups, findings, options.map_units)
    scenes = [open_scene(path) for path in subject.scenes]
    labels = {UnitId(str(r.layer), int(r.unit)): str(r.label) for r in run.neurons.itertuples(index=False)}
    stage = store.stage(
        "maps",
        [
            "maps",
            VERSIONS["maps"],
            subject.network.fingerprint,
            [scene.fingerprint for scene in scenes],
            [(str(unit), labels[unit]) for unit in units],
            asdict(options),
            dict(subject.labels or {}),
            before.key,
            [subject.probe.fingerprint, run.held_out.tolist(), pooling],
        ],
    )
    if stage.done:
        return
    layer = next((info for info in reversed(run.layers) if info.name != "output" and has_place(info)), None)
    reference = reference_of(run, subject.probe, layer.name) if layer is not None and scenes else None
    names = unique_names([scene.path for scene in scenes], [info.name for info in run.layers])
    for number, (name, scene) in enumerate(zip(names, scenes, strict=True)):
        render_scene(scene, stage.path(f"scene/{name}.tif"), stage.path(f"bands/{name}.tif"))
        # The first scene's maps lie directly under maps/; further scenes get a folder of their name.
        folder = stage.path(f"maps/{'' if number == 0 else f'{name}/'}index.gpkg").parent
        features = None
        if reference is not None and layer is not None:
            features = ApplicabilityMap(reference, layer.name, pooling)
        _map_scene(subject, run, scene, units, labels, options, folder, features, len(scenes) == 1, progress)
    stage.commit()


def _map_scene(
    subject: Subject,
    run: Run,
    scene: Scene,
    units: Sequence[UnitId],
    labels: Mapping[UnitId, str],
    options: AuditSettings,
    folder: Path,
    features: ApplicabilityMap | None,
    only: bool,
    progress: Progress | None,
) -> None:
    from geoaudit.geopackage import write_index
    from geoaudit.hotspots import unit_map
    from geoaudit.offsets import measure_offsets
    from geoaudit.spatial import map_units

    wanted = {"output", *(unit.layer for unit in units), *([features.layer] if features is not None else [])}
    layers = [info for info in run.layers if info.name in wanted]
    made = map_units(
        subject.network,
        scene,
        list(units),
        layers,
        folder,
        labels={unit: labels[unit] for unit in units},
        class_map=any(info.name == "output" for info in layers),
        resolution=options.map_stride,
        # Where a layer really looks is measured: deep layers of a residual network look up and to the left.
        offsets=measure_offsets(subject.network, layers),
        features=features,
        progress=None if progress is None else lambda done, total: progress(f"maps {scene.path.stem}", done, total),
    )
    if features is not None:
        grid = made.grids[features.layer]
        features.write(folder / "applicability.tif", grid, made.chip, scene.crs, made.probability)
    polygons = _polygons(subject, scene, only)
    cover: dict[str, Any] = {}
    if polygons is not None:
        _write_labels(folder / "labels.tif", polygons, scene)
        cover = {
            "labels": polygons.raster,
            "labels_transform": scene.transform,
            "class_names": polygons.class_names,
        }
    found = [
        unit_map(path, unit, labels[unit], min_area_ha=1.0, permutations=99, **cover)
        for unit, path in made.maps.items()
    ]
    if found:
        write_index(folder / "index.gpkg", found)


def _polygons(subject: Subject, scene: Scene, only: bool) -> Labels | None:
    """The labels on a scene's grid; None where there are none, or where they lie on another of several scenes."""
    from geoaudit.labels import Labels, NoOverlap

    if not subject.labels:
        return None
    about = subject.labels
    try:
        return Labels.from_polygons(about["path"], scene, field=about["field"], classes=about.get("classes"))
    except NoOverlap:
        if only:
            raise
        return None


def _write_labels(path: Path, labels: Labels, scene: Scene) -> None:
    """The labels as a class map of their own, which screens lay over the scene and beside what was decided."""
    from geoaudit.cogs import Scratch, write_classes
    from geoaudit.spatial import Grid
    from geoaudit.styles import class_sidecar, write_sidecar

    if len(labels.class_names) > 255:
        return
    grid = Grid(scene.height, scene.width, 1, scene.transform)
    with Scratch(path.with_suffix(".raw"), 1, grid) as scratch:
        scratch.write(0, np.where(labels.raster < 0, np.nan, labels.raster).astype(np.float32)[None])
        write_classes(path, scratch, scene.crs, labels.class_names, path.parent, "labelled class")
    write_sidecar(path, class_sidecar(labels.class_names))


def has_place(info: LayerInfo) -> bool:
    """Whether a layer's units can be laid over a scene: all but tokens on no known grid."""
    return info.kind != "tokens" or info.grid is not None
