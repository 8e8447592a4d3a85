"""One pass of a network over a scene, window by window, for all layers and units at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import NetworkError
from dnd_core.networks import Network
from geoaudit.canvas import Canvas, Grid, LayerStatistics, RunningStatistics, Strip
from geoaudit.windows import SpatialError, plan_windows

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.windows import Window
    from torch import Tensor

    from dnd_core.config import Pooling
    from dnd_core.layers import LayerInfo

__all__ = ["CLASSES", "Features", "SceneLike", "SlidingPass", "scene_bands", "slide"]

CLASSES = "classes"
"""Name under which the predicted probabilities travel beside the layers."""


class SceneLike(Protocol):
    """What a scene must offer; :class:`geoaudit.scenes.Scene` does."""

    @property
    def crs(self) -> str: ...
    @property
    def transform(self) -> Affine: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def bands(self) -> tuple[str, ...]: ...

    def read(
        self, window: Window | None = None, *, bands: Sequence[str] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance (C, h, w) and validity (h, w) of whole pixels."""
        ...


class Features(Protocol):
    """Someone who wants a layer's pooled activations of every window."""

    @property
    def layer(self) -> str: ...
    @property
    def pooling(self) -> Pooling: ...

    def add(self, top: int, lefts: Sequence[int], values: NDArray[np.float32]) -> None:
        """Take (windows, units) of the windows whose upper left pixels are (top, left)."""
        ...


class SlidingPass:
    """One pass of a network over a scene; iterate to run it.

    Args:
        network: its ``channels`` choose and order the scene's bands.
        scene: any :class:`SceneLike`.
        units: layer -> unit indices whose maps are wanted; a layer with none is only summarised.
        layers: what is known about those layers.
        classes: whether the predicted probabilities are wanted too, as a strip named ``classes``.
        chip: rows and columns of a window in scene pixels; the network's own when None. Another size is resampled.
        overlap: see :func:`geoaudit.windows.plan_windows`.
        trim: likewise.
        resolution: scene pixels an output cell; None takes each layer's own stride.
        offsets: layer -> rows and columns, in pixels of the network's own chip, that its cells really lie further on
            (:func:`geoaudit.offsets.measure_offsets`); a layer that is left out has cells of equal rectangles.
        batch_size: windows a forward pass.
        features: takes the pooled activations of a layer of ``units``, window by window.
        progress: called with (windows done, windows in all).

    Raises:
        SpatialError: a layer has no place in the image, a unit or layer is unknown, or a setting is out of range.
        ProbeError: the scene lacks a band that the network needs.

    """

    def __init__(
        self,
        network: Network,
        scene: SceneLike,
        units: Mapping[str, Sequence[int]],
        layers: Sequence[LayerInfo],
        *,
        classes: bool = False,
        chip: tuple[int, int] | None = None,
        overlap: float = 0.5,
        trim: int = 0,
        resolution: int | None = None,
        offsets: Mapping[str, tuple[float, float]] | None = None,
        batch_size: int = 64,
        features: Features | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise SpatialError(f"batch_size must be at least 1, got {batch_size}")
        if resolution is not None and resolution < 1:
            raise SpatialError(f"resolution is whole scene pixels a map cell, at least 1, got {resolution}")
        self.network, self.scene, self.progress, self.batch_size = network, scene, progress, batch_size
        self.features = features
        self._pooled: NDArray[np.float32] | None = None
        if features is not None and features.layer not in units:
            raise SpatialError(f"features are wanted of layer {features.layer!r}, which is not among those passed")
        self.bands = scene_bands(network, scene)
        self.plan = plan_windows(scene.height, scene.width, chip or network.input_shape[1:], overlap, trim)
        infos = {info.name: info for info in layers}
        self.infos: dict[str, LayerInfo] = {}
        self.units: dict[str, NDArray[np.int64]] = {}
        self.cells: dict[str, tuple[int, int]] = {}
        for name, wanted in units.items():
            if name not in infos:
                raise SpatialError(f"layer {name!r} is not among the layers given: {', '.join(infos) or 'none'}")
            info = infos[name]
            wrong = [index for index in wanted if not 0 <= index < info.units]
            if wrong:
                raise SpatialError(f"layer {name!r} has units 0 to {info.units - 1}, not {wrong[0]}")
            self.infos[name], self.units[name] = info, np.asarray(wanted, dtype=np.int64)
            self.cells[name] = _cells(info)
        if classes:
            output = infos.get("output")
            if output is None:
                raise SpatialError("a class map needs the layer 'output' among the layers given")
            self.cells[CLASSES] = _cells(output)
            self.units[CLASSES] = np.arange(max(2, output.units))
            self.infos["output"] = output
        offsets = offsets or {}
        self.offsets = {name: self._displaced(name, offsets[name]) for name in self.units if name in offsets}
        self.grids = {name: self._grid(resolution or self.plan.resolution(self.cells[name])) for name in self.units}
        self.statistics: dict[str, LayerStatistics] = {}
        self.windows = 0

    def _displaced(self, name: str, offset: tuple[float, float]) -> tuple[float, float]:
        """An offset in scene pixels."""
        axes = (self.plan.rows, self.plan.columns)
        scaled = [o * axis.chip / n for o, axis, n in zip(offset, axes, self.network.input_shape[1:], strict=True)]
        for value, axis, cells in zip(scaled, axes, self.cells[name], strict=True):
            if not abs(value) < axis.chip / cells:
                raise SpatialError(f"the offset of layer {name!r} must be less than one of its cells, got {offset}")
        return scaled[0], scaled[1]

    def _grid(self, resolution: int) -> Grid:
        from affine import Affine

        height, width = -(-self.scene.height // resolution), -(-self.scene.width // resolution)
        t, g = self.scene.transform, resolution
        # Spelt out: affine 2 knows no @ and affine 3 warns at *.
        return Grid(height, width, g, Affine(t.a * g, t.b * g, t.c, t.d * g, t.e * g, t.f))

    def __iter__(self) -> Iterator[Strip]:
        """Run the pass; strips of the several layers come interleaved, each layer's from north to south."""
        from dnd_core.hooks import record

        canvases = {
            name: Canvas(
                name, self.plan, self.grids[name], len(units), self.cells[name], self.offsets.get(name, (0, 0))
            )
            for name, units in self.units.items()
            if len(units)
        }
        running = {name: RunningStatistics(info.units) for name, info in self.infos.items()}
        self.windows = done = 0
        axis = self.plan.rows
        read = 0
        strip, valid = (
            np.empty((len(self.bands), 0, self.scene.width), np.float32),
            np.empty((0, self.scene.width), bool),
        )
        with record(self.network.module, list(self.infos), self._collect(running)) as held:
            for number, top in enumerate(axis.starts):
                bottom = min(top + axis.chip, self.scene.height)
                fresh, fresh_valid = self._read(read, bottom)
                kept = read - top
                strip = np.concatenate([strip[:, strip.shape[1] - kept :], fresh], axis=1)
                valid = np.concatenate([valid[len(valid) - kept :], fresh_valid])
                for canvas in canvases.values():
                    canvas.mark_valid(read, fresh_valid)
                read = bottom
                self._row(top, strip, valid, canvases, held)
                done += len(self.plan.columns.starts)
                if self.progress is not None:
                    self.progress(done, len(self.plan))
                final = number + 1 == len(axis.starts)
                for canvas in canvases.values():
                    g = canvas.grid
                    ready = canvas.flush(g.height if final else axis.starts[number + 1] // g.resolution)
                    if ready is not None:
                        yield ready
        self.statistics = {name: summary.result() for name, summary in running.items()}

    def _read(self, top: int, bottom: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        from rasterio.windows import Window

        pixels, valid = self.scene.read(Window(0, top, self.scene.width, bottom - top), bands=self.bands)
        if pixels.shape != (len(self.bands), bottom - top, self.scene.width):
            raise SpatialError(f"the scene answered {pixels.shape} for {bottom - top} rows of {len(self.bands)} bands")
        return pixels, valid

    def _row(
        self,
        top: int,
        strip: NDArray[np.float32],
        valid: NDArray[np.bool_],
        canvases: Mapping[str, Canvas],
        held: dict[str, Tensor],
    ) -> None:
        """Run one row of windows and blend their activations in."""
        width = self.plan.columns.chip
        lefts = [left for left in self.plan.columns.starts if valid[:, left : left + width].any()]
        places = {name: canvas.rows(top) for name, canvas in canvases.items()}
        for start in range(0, len(lefts), self.batch_size):
            part = lefts[start : start + self.batch_size]
            chips = np.stack([self._chip(strip[..., x : x + width], valid[:, x : x + width]) for x in part])
            self._forward(chips)
            self.windows += len(part)
            if self.features is not None and self._pooled is not None:
                self.features.add(top, part, self._pooled)
            for name, canvas in canvases.items():
                maps = _probabilities(held["output"]) if name == CLASSES else held[name]
                chosen = maps[:, self.units[name]].float().cpu().numpy()
                for left, window in zip(part, chosen, strict=True):
                    canvas.add(places[name], left, window)

    def _chip(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """A whole chip: pixels without data take the mean of the others, and scenes smaller than a chip are mirrored.

        Zeros would be a dark edge, and edges are exactly what many units fire on.
        """
        if not valid.all():
            pixels = np.where(valid, pixels, pixels[:, valid].mean(axis=1)[:, None, None])
        missing = [(0, axis.chip - n) for axis, n in zip((self.plan.rows, self.plan.columns), valid.shape, strict=True)]
        return np.pad(pixels, [(0, 0), *missing], mode="symmetric") if any(after for _, after in missing) else pixels

    def _forward(self, chips: NDArray[np.float32]) -> None:
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(chips, dtype=np.float32))
        device = next((parameter.device for parameter in self.network.module.parameters()), batch.device)
        batch = batch.to(device)
        size = self.network.input_shape[1:]
        if tuple(batch.shape[-2:]) != tuple(size):
            batch = torch.nn.functional.interpolate(
                batch, size=size, mode="bilinear", antialias=True, align_corners=False
            )
        self.network(batch)

    def _collect(self, running: Mapping[str, RunningStatistics]) -> Callable[[str, Tensor], Tensor]:
        """At the moment a layer has run: lay its units out in space, summarise all of them, keep a copy."""

        def collect(name: str, activation: Tensor) -> Tensor:
            import torch

            from dnd_core.pooling import pool, unit_maps

            info = self.infos[name]
            if self.features is not None and name == self.features.layer:
                self._pooled = pool(activation, info, self.features.pooling).cpu().numpy()
            maps = activation[..., None, None] if info.kind == "vector" else unit_maps(activation, info)
            if maps is None or tuple(maps.shape[1:]) != (info.units, *_cells(info)):
                raise SpatialError(
                    f"layer {name!r} answered {tuple(activation.shape)}, unlike the {info.shape} it promised"
                )
            if not bool(torch.isfinite(maps).all()):
                raise NetworkError(f"layer {name!r} answers with NaN or infinity on this scene: check its scale")
            running[name].add(maps)
            return maps.clone()

        return collect


def slide(
    network: Network,
    scene: SceneLike,
    units: Mapping[str, Sequence[int]],
    layers: Sequence[LayerInfo],
    **settings: object,
) -> dict[str, NDArray[np.float32]]:
    """The maps of a sliding pass in memory, layer -> (units, rows, columns) float32; for scenes that are small enough.

    Args:
        network: see :class:`SlidingPass`, as for the rest.
        scene: any scene.
        units: layer -> unit indices.
        layers: what is known about those layers.
        settings: keyword arguments of :class:`SlidingPass`.

    """
    run = SlidingPass(network, scene, units, layers, **settings)  # type: ignore[arg-type]
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for strip in run:
        parts.setdefault(strip.name, []).append(strip.values)
    return {name: np.concatenate(values, axis=1) for name, values in parts.items()}


def _cells(info: LayerInfo) -> tuple[int, int]:
    """Rows and columns of a layer's maps; a vector is one cell that covers the whole chip."""
    if info.kind == "vector":
        return 1, 1
    if info.kind == "map":
        return info.shape[1], info.shape[2]
    if info.kind == "map_last":
        return info.shape[0], info.shape[1]
    if info.grid is None:
        raise SpatialError(
            f"the tokens of layer {info.name!r} lie on no known grid, so its units have no place on a map"
        )
    return info.grid


def scene_bands(network: Network, scene: SceneLike) -> tuple[str, ...]:
    """The scene's bands in the network's order, by the scene's own names."""
    from geoaudit.bands import reorder

    needed = network.input_shape[0]
    if network.channels:
        return tuple(scene.bands[index] for index in reorder(scene.bands, network.channels))
    if len(scene.bands) != needed:
        raise SpatialError(
            f"the scene has {len(scene.bands)} bands and the network takes {needed} without naming them: "
            "name the network's channels"
        )
    return tuple(scene.bands)


def _probabilities(logits: Tensor) -> Tensor:
    """Class probabilities of (B, K, h, w) logits; one logit is the second of two classes."""
    import torch

    if logits.shape[1] == 1:
        return torch.cat([1 - logits.sigmoid(), logits.sigmoid()], dim=1)
    return logits.softmax(dim=1)
