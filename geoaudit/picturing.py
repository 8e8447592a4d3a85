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
from dnd_core.pipeline import Run
from dnd_core.store import RunStore, Stage
from dnd_core.types import UnitId
from geoaudit.findings import Finding
from geoaudit.settings import AuditSettings

if TYPE_CHECKING:
    from geoaudit.audit import Subject
    from geoaudit.scenes import Scene

__all__ = ["chosen_units", "map_stage", "thumbnail_stage"]

VERSIONS = {"thumbnails": 1, "maps": 1}

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
) -> None:
    """Activation maps of the chosen units over every scene, hot spots, and the true-colour rendering."""
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
        ],
    )
    if stage.done:
        return
    for number, scene in enumerate(scenes):
        # The first scene's maps lie directly under maps/; further scenes get a folder of their name.
        prefix = "" if number == 0 else f"{scene.path.stem}/"
        _render(scene, stage.path(f"scene/{scene.path.stem}.tif"))
        _map_scene(stage, subject, run, scene, units, labels, options, prefix, progress)
    stage.commit()


def _map_scene(
    stage: Stage,
    subject: Subject,
    run: Run,
    scene: Scene,
    units: Sequence[UnitId],
    labels: Mapping[UnitId, str],
    options: AuditSettings,
    prefix: str,
    progress: Progress | None,
) -> None:
    from geoaudit.geopackage import write_index
    from geoaudit.hotspots import unit_map
    from geoaudit.labels import Labels
    from geoaudit.offsets import measure_offsets
    from geoaudit.spatial import map_units

    folder = stage.path(f"maps/{prefix}index.gpkg").parent
    layers = [info for info in run.layers if info.name == "output" or any(u.layer == info.name for u in units)]
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
        progress=None if progress is None else lambda done, total: progress(f"maps {scene.path.stem}", done, total),
    )
    cover: dict[str, Any] = {}
    if subject.labels:
        polygons = Labels.from_polygons(
            subject.labels["path"], scene, field=subject.labels["field"], classes=subject.labels.get("classes")
        )
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


def _render(scene: Scene, path: Path) -> None:
    """A true-colour COG of the scene, one stretch for the whole of it."""
    import rasterio
    import rasterio.shutil
    from rasterio.windows import Window

    from geoaudit.bands import Stretch, render_rgb

    side = 256
    profile = {
        "driver": "GTiff",
        "width": scene.width,
        "height": scene.height,
        "count": 3,
        "dtype": "uint8",
        "crs": scene.crs,
        "transform": scene.transform,
        "tiled": True,
        "blockxsize": side,
        "blockysize": side,
        "photometric": "RGB",
    }
    step = max(1, max(scene.width, scene.height) // (4 * side))
    samples = [
        Window(column, row, min(side, scene.width - column), min(side, scene.height - row))
        for row in range(0, scene.height, side * step)
        for column in range(0, scene.width, side * step)
    ]
    parts = [scene.read(window) for window in samples]
    pixels = np.concatenate([p.reshape(p.shape[0], -1) for p, _ in parts], axis=1)[:, None, :]
    valid = np.concatenate([v.ravel() for _, v in parts])[None, :]
    stretch = Stretch.from_scene(pixels, scene.bands, valid=valid)
    aside = path.with_suffix(".part.tif")
    with rasterio.open(aside, "w", **profile) as target:
        for row in range(0, scene.height, side):
            for column in range(0, scene.width, side):
                window = Window(column, row, min(side, scene.width - column), min(side, scene.height - row))
                read, _ = scene.read(window)
                target.write(render_rgb(read, scene.bands, stretch).transpose(2, 0, 1), window=window)
    rasterio.shutil.copy(aside, path, driver="COG", compress="DEFLATE")
    aside.unlink()
