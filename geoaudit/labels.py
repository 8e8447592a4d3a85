"""Land-cover labels on a scene's grid, and the chips cut where a label is pure.

Neighbouring pixels are not independent, so chips carry the spatial block they lie in; a split by blocks keeps
training and held-out chips from sharing a single pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError

if TYPE_CHECKING:
    from rasterio.windows import Window

    from geoaudit.scenes import Scene

__all__ = ["UNLABELLED", "Chips", "Labels", "NoOverlap", "chips", "split_blocks"]

UNLABELLED = -1
"""Value of pixels that no polygon covers."""


class NoOverlap(ProbeError):
    """No labelled polygon touches the scene."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Classes on a pixel grid.

    Attributes:
        raster: (H, W) int16 class index, :data:`UNLABELLED` where there is no label.
        class_names: names of the classes, by index.
        skipped: how many polygons were left out, by reason.

    """

    raster: NDArray[np.int16]
    class_names: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_polygons(
        cls,
        path: str | Path,
        scene: Scene,
        *,
        field: str,
        classes: Sequence[str] | None = None,
        layer: str | None = None,
    ) -> Labels:
        """Rasterise labelled polygons onto a scene's grid; pixel centres decide, small polygons lie on top of large.

        Args:
            path: any vector file GDAL reads, in any CRS: it is reprojected to the scene's.
            scene: whose grid is meant.
            field: the column that holds the class.
            classes: the classes wanted, by index; polygons of other classes are skipped and counted.
                None takes all, in alphabetical order.
            layer: layer of the file; None for the first.

        Raises:
            ProbeError: the file cannot be read, has no CRS, lacks the column or a wanted class.
            NoOverlap: no polygon touches the scene.

        """
        frame = _read_vector(Path(path), layer)
        if frame.crs is None:
            raise ProbeError(f"{path} has no coordinate reference system; assign one before using it as labels")
        if field not in frame.columns:
            columns = ", ".join(str(name) for name in frame.columns if name != "geometry")
            raise ProbeError(f"{path} has no column {field!r} for the class; it has {columns}")
        skipped: dict[str, int] = {}
        frame = _keep(frame, ~(frame.geometry.isna() | frame.geometry.is_empty), "empty geometry", skipped)
        frame = _keep(frame, frame.geom_type.isin(["Polygon", "MultiPolygon"]), "not a polygon", skipped)
        frame = _keep(frame, frame[field].notna(), "no class", skipped)
        present = sorted(frame[field].astype(str).unique())
        names = tuple(classes) if classes is not None else tuple(present)
        unknown = [name for name in names if name not in present]
        if unknown or not names:
            raise ProbeError(
                f"{path} holds no {' and no '.join(unknown) or 'labelled'} polygon in column {field!r}; "
                f"its classes are {', '.join(present) or 'none'}"
            )
        frame = _keep(frame, frame[field].astype(str).isin(names), "other class", skipped)
        frame = frame.to_crs(scene.crs)
        extent = tuple(float(value) for value in frame.total_bounds)
        from shapely.geometry import box

        frame = _keep(frame, frame.intersects(box(*scene.bounds)), "outside the scene", skipped)
        if not len(frame):
            raise NoOverlap(
                f"no polygon of {path} touches the scene {scene.path}: the labels lie in {_rounded(extent)}, "
                f"the scene in {_rounded(scene.bounds)} ({scene.crs})"
            )
        return cls(_rasterise(frame, field, names, scene), names, skipped)


def _read_vector(path: Path, layer: str | None) -> Any:
    import geopandas

    if not path.is_file():
        raise ProbeError(f"{path}: no such file; check the path of the labels")
    try:
        frame = geopandas.read_file(path, layer=layer) if layer else geopandas.read_file(path)
    except (RuntimeError, ValueError) as error:  # pyogrio's own errors derive from these
        raise ProbeError(f"{path} cannot be read as vector data ({' '.join(str(error).split())})") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise ProbeError(f"{path} holds a table without geometry; labels must be polygons")
    return frame


def _keep(frame: Any, mask: Any, reason: str, skipped: dict[str, int]) -> Any:
    left_out = int((~mask).sum())
    if left_out:
        skipped[reason] = left_out
    return frame[mask]


def _rasterise(frame: Any, column: str, names: tuple[str, ...], scene: Scene) -> NDArray[np.int16]:
    from rasterio.features import rasterize

    # Later shapes overwrite earlier ones, so a pond drawn after the forest around it survives.
    ordered = frame.iloc[np.argsort(-frame.area.to_numpy(), kind="stable")]
    shapes = [(shape, names.index(str(name))) for shape, name in zip(ordered.geometry, ordered[column], strict=True)]
    burned = rasterize(
        shapes, out_shape=(scene.height, scene.width), transform=scene.transform, fill=UNLABELLED, dtype="int16"
    )
    return np.asarray(burned, dtype=np.int16)


def _rounded(bounds: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in bounds) + ")"


@dataclass(frozen=True, eq=False)
class Chips:
    """Square windows of one scene, each with a class and a spatial block, ordered by row, then column.

    Attributes:
        size: side in pixels.
        rows: (N,) int64 top row.
        columns: (N,) int64 left column.
        labels: (N,) int64 class index.
        blocks: (N,) int64 spatial block of the chip's centre.
        class_names: names of the classes, by index.

    """

    size: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    labels: NDArray[np.int64]
    blocks: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def windows(self) -> list[Window]:
        """One pixel window a chip, ready for :meth:`geoaudit.scenes.Scene.read_many`."""
        from rasterio.windows import Window

        return [
            Window(int(column), int(row), self.size, self.size)
            for row, column in zip(self.rows, self.columns, strict=True)
        ]

    def subset(self, indices: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> Chips:
        """The chips at these indices, or where a mask of length N is true."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        return Chips(
            self.size,
            self.rows[chosen],
            self.columns[chosen],
            self.labels[chosen],
            self.blocks[chosen],
            self.class_names,
        )


def chips(
    labels: Labels,
    *,
    size: int = 32,
    centre: int = 16,
    step: int = 8,
    share: float = 0.6,
    block: int = 96,
    within_blocks: bool = True,
    valid: NDArray[np.bool_] | None = None,
) -> Chips:
    """Chips whose central part is mostly one class.

    Args:
        labels: classes on the scene's grid.
        size: side of a chip in pixels.
        centre: side of the central square that decides the class; at most ``size``.
        step: distance between chips' corners in pixels.
        share: more than this part of the central square must be of one class, in [0.5, 1).
        block: side of the spatial blocks in pixels, counted from the scene's upper left corner.
        within_blocks: leave out chips that cross a block border, so that no two blocks' chips share a pixel.
        valid: (H, W); chips with any invalid pixel are left out.

    Raises:
        ProbeError: the sizes contradict each other, or no chip is left.

    """
    if not (0 < centre <= size <= block and step > 0 and 0.5 <= share < 1):
        raise ProbeError(
            "chips need 0 < centre <= size <= block, step > 0 and share in [0.5, 1), "
            f"got size {size}, centre {centre}, step {step}, share {share}, block {block}"
        )
    height, width = labels.raster.shape
    tops, lefts = np.arange(0, height - size + 1, step), np.arange(0, width - size + 1, step)
    rows, columns = np.repeat(tops, len(lefts)), np.tile(lefts, len(tops))
    keep = np.ones(len(rows), dtype=bool)
    if within_blocks:
        keep &= (rows // block == (rows + size - 1) // block) & (columns // block == (columns + size - 1) // block)
    if valid is not None:
        keep &= _sums(valid, rows, columns, size) == size * size
    rows, columns = rows[keep], columns[keep]
    margin = (size - centre) // 2
    counts = np.stack(
        [
            _sums(labels.raster == index, rows + margin, columns + margin, centre)
            for index in range(len(labels.class_names))
        ]
    )
    pure = counts.max(axis=0, initial=0) > share * centre * centre
    if not pure.any():
        raise ProbeError(
            f"no {size}-pixel chip has one class on more than {share:.0%} of its central {centre} pixels: "
            "use smaller chips, a lower share or other labels"
        )
    rows, columns, winners = rows[pure], columns[pure], counts[:, pure].argmax(axis=0)
    across = -(-width // block)
    blocks = ((rows + size // 2) // block) * across + (columns + size // 2) // block
    return Chips(
        size,
        rows.astype(np.int64),
        columns.astype(np.int64),
        winners.astype(np.int64),
        blocks.astype(np.int64),
        labels.class_names,
    )


def _sums(mask: NDArray[np.bool_], rows: NDArray[Any], columns: NDArray[Any], size: int) -> NDArray[np.int64]:
    """How many true pixels each square holds, by summed-area table."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
    table[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    ends, rights = rows + size, columns + size
    counts = table[ends, rights] - table[rows, rights] - table[ends, columns] + table[rows, columns]
    return np.asarray(counts, dtype=np.int64)


def split_blocks(
    blocks: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    held_out: float = 0.3,
    least: int = 1,
    seed: int = 0,
    draws: int = 500,
) -> NDArray[np.bool_]:
    """Hold out whole spatial blocks so that every class loses about the same part of its chips.

    A class must lie in at least ``least`` blocks on either side. Blocks are drawn at random ``draws`` times; the
    draw whose worst class is nearest to ``held_out`` is taken.
    Nothing about a network enters, so the choice cannot flatter one.

    Args:
        blocks: (N,) spatial block of each chip.
        labels: (N,) class index of each chip.
        held_out: part of the blocks held out, in (0, 1).
        least: blocks of every class on either side; two or more allow an interval of its accuracy.
        seed: of the draws.
        draws: how many are tried.

    Returns:
        (N,) bool, true where held out.

    Raises:
        ProbeError: fewer than two blocks, or some class cannot be on both sides.

    """
    distinct, place = np.unique(blocks, return_inverse=True)
    if len(distinct) < 2 or not 0 < held_out < 1:
        raise ProbeError(f"holding out {held_out} of the blocks needs at least two blocks, got {len(distinct)}")
    classes, label = np.unique(labels, return_inverse=True)
    table = np.zeros((len(distinct), len(classes)))
    np.add.at(table, (place, label), 1)
    share, spread = table / table.sum(axis=0), (table > 0).sum(axis=0)
    count = min(max(round(held_out * len(distinct)), 1), len(distinct) - 1)
    generator = np.random.default_rng(seed)
    best, chosen = np.inf, np.zeros(0, dtype=np.int64)
    for _ in range(draws):
        drawn = np.sort(generator.permutation(len(distinct))[:count])
        part = share[drawn].sum(axis=0)
        there = (table[drawn] > 0).sum(axis=0)
        enough = ((there >= least) & (spread - there >= least)).all()
        worst = float(np.abs(part - held_out).max()) if enough else np.inf
        if worst < best:
            best, chosen = worst, drawn
    if not len(chosen):
        raise ProbeError(
            f"some class lies in too few blocks to be in {least} on both sides of a split; use smaller blocks or more labels"
        )
    return np.asarray(np.isin(place, chosen))
