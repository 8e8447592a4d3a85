"""Where units fire: maps of units over a whole scene, as Cloud-Optimized GeoTIFFs in the scene's CRS.

One pass serves every layer: activations are placed by the cells' true stride (:mod:`geoaudit.windows`), blended
where windows overlap, and flushed strip by strip, so memory grows with the width of the scene but not with its height.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnd_core.networks import Network
from dnd_core.types import UnitId
from geoaudit.canvas import Grid, LayerStatistics, Strip
from geoaudit.offsets import measure_offsets
from geoaudit.sliding import CLASSES, Features, SceneLike, SlidingPass, slide
from geoaudit.windows import SpatialError

if TYPE_CHECKING:
    from dnd_core.layers import LayerInfo
    from geoaudit.cogs import Encoding

__all__ = [
    "Grid",
    "LayerStatistics",
    "SceneLike",
    "SceneMaps",
    "SlidingPass",
    "SpatialError",
    "Strip",
    "map_units",
    "measure_offsets",
    "slide",
]


@dataclass(frozen=True, eq=False)
class SceneMaps:
    """What a sliding pass left on disk.

    Attributes:
        maps: unit -> Cloud-Optimized GeoTIFF of its activation.
        class_map: uint8 COG of the most probable class, nodata 255; None where not asked for.
        probability: float32 COG of that class's probability.
        statistics: layer -> statistics of all its units.
        windows: how many windows held data and went through the network.
        chip: rows and columns of a window in scene pixels.
        grids: layer -> grid of its maps.

    """

    maps: Mapping[UnitId, Path]
    class_map: Path | None
    probability: Path | None
    statistics: Mapping[str, LayerStatistics]
    windows: int
    chip: tuple[int, int]
    grids: Mapping[str, Grid]


def map_units(
    network: Network,
    scene: SceneLike,
    units: Sequence[UnitId],
    layers: Sequence[LayerInfo],
    out: str | Path,
    *,
    labels: Mapping[UnitId, str] | None = None,
    class_map: bool = True,
    chip: tuple[int, int] | None = None,
    overlap: float = 0.5,
    trim: int = 0,
    resolution: int | None = None,
    offsets: Mapping[str, tuple[float, float]] | None = None,
    batch_size: int = 64,
    encoding: Encoding = "float32",
    features: Features | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SceneMaps:
    """Map units over a scene and write each as a Cloud-Optimized GeoTIFF, ``out/LAYER/INDEX.tif``.

    Nothing but finished files appears under those names: each is written aside and renamed. Beside each lies a ``.qml``
    with its colours, which QGIS picks up by itself.

    Args:
        network: see :class:`SlidingPass`.
        scene: the scene, in any CRS.
        units: the units whose maps are written; every other unit of their layers is summarised in ``statistics``.
        layers: what is known about the layers, ``output`` among them for a class map.
        out: folder, made when missing.
        labels: unit -> words; the band's description becomes ``layer/unit: label``.
        class_map: also write ``out/classes.tif`` and ``out/probability.tif``.
        chip: see :class:`SlidingPass`.
        overlap: see :class:`SlidingPass`.
        trim: see :class:`SlidingPass`.
        resolution: see :class:`SlidingPass`.
        offsets: see :class:`SlidingPass`.
        batch_size: see :class:`SlidingPass`.
        encoding: ``float32`` with NaN as nodata, or ``int16`` with a scale (half the size, 1/32767 of the range exact).
        features: see :class:`SlidingPass`; its layer is run even where none of its units is mapped.
        progress: see :class:`SlidingPass`.

    Raises:
        SpatialError: see :class:`SlidingPass`; also when more than 255 classes ask for a class map, or the folder
            cannot be written.
        ProbeError: the scene lacks a band, or cannot be read.

    """
    from geoaudit.cogs import Scratch, describe, layer_folder, write_activation, write_classes
    from geoaudit.styles import class_sidecar, ramp_sidecar, write_sidecar

    labels = labels or {}
    out = Path(out)
    wanted: dict[str, list[int]] = {}
    for unit in dict.fromkeys(units):
        wanted.setdefault(unit.layer, []).append(unit.index)
    if features is not None:
        wanted.setdefault(features.layer, [])
    run = SlidingPass(
        network, scene, wanted, layers, classes=class_map, chip=chip, overlap=overlap, trim=trim,
        resolution=resolution, offsets=offsets, batch_size=batch_size, features=features, progress=progress,
    )  # fmt: skip
    if class_map and len(run.units[CLASSES]) > 255:
        raise SpatialError(f"a class map holds at most 255 classes, this network has {len(run.units[CLASSES])}")
    if class_map and len(network.class_names) not in (0, len(run.units[CLASSES])):
        raise SpatialError(f"{network.name} names {len(network.class_names)} classes and has {len(run.units[CLASSES])}")
    names = network.class_names or tuple(f"class {index}" for index in run.units.get(CLASSES, ()))
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as folder, ExitStack() as stack:
            scratch: dict[str, Scratch] = {}
            for name, indices in run.units.items():
                # Of the classes only the best and its probability are kept, whatever their number.
                count = 2 if name == CLASSES else len(indices)
                scratch[name] = stack.enter_context(
                    Scratch(Path(folder) / f"{len(scratch)}.raw", count, run.grids[name])
                )
            for strip in run:
                scratch[strip.name].write(strip.first, _best(strip.values) if strip.name == CLASSES else strip.values)
            maps: dict[UnitId, Path] = {}
            for name, written in wanted.items():
                for position, index in enumerate(written):
                    unit = UnitId(name, index)
                    path = out / layer_folder(name) / f"{index}.tif"
                    text = describe(unit, labels.get(unit, ""))
                    write_activation(path, scratch[name], position, scene.crs, text, encoding, Path(folder))
                    write_sidecar(path, ramp_sidecar(*scratch[name].range(position)))
                    maps[unit] = path
            best = out / "classes.tif" if class_map else None
            probability = out / "probability.tif" if class_map else None
            if best is not None and probability is not None:
                write_classes(best, scratch[CLASSES], scene.crs, names, Path(folder))
                write_sidecar(best, class_sidecar(names))
                write_sidecar(probability, ramp_sidecar(0.0, 1.0))
                write_activation(probability, scratch[CLASSES], 1, scene.crs, "probability", "float32", Path(folder))
    except OSError as error:
        raise SpatialError(f"the maps cannot be written under {out}: {error.strerror or error}") from error
    chip = (run.plan.rows.chip, run.plan.columns.chip)
    return SceneMaps(maps, best, probability, run.statistics, run.windows, chip, run.grids)


def _best(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, rows, width): index of the most probable class, and its probability; NaN where there is none."""
    known = ~np.isnan(probabilities[0])
    best = np.where(known, np.argmax(np.nan_to_num(probabilities), axis=0), np.nan)
    return np.stack([best, probabilities.max(axis=0)]).astype(np.float32)
