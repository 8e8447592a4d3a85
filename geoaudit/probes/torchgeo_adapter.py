"""The one place that knows torchgeo's interface.

Written for torchgeo 0.8: samplers yield (x, y, t) slices in map coordinates, samples carry image, label and mask.
Later versions rename samplers and round coordinates to float32, so georeferencing is taken from the queries here, never
from samples.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.bands import canonical

__all__ = [
    "ModuleData",
    "Query",
    "RasterGrid",
    "Sample",
    "dataset_files",
    "is_geo",
    "make",
    "mask_of",
    "module_data",
    "normalise",
    "raster_dataset",
    "raster_facts",
    "sample_of",
    "unwrap",
]

_SCALES = {"Sentinel2": 1e-4, "NAIP": 1 / 255}
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Sample:
    """One torchgeo sample as arrays.

    Attributes:
        image: (C, H, W) float32 in the data set's own units.
        label: class index, or multi-hot (classes,), or None.
        mask: (H, W) int64 pixel labels, or None.
    """

    image: NDArray[np.float32]
    label: NDArray[np.int64] | None = None
    mask: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One cell of a sampler's grid.

    Attributes:
        bounds: (left, bottom, right, top) in the data set's CRS.
        slices: what the data set is indexed with.
    """

    bounds: Bounds
    slices: tuple[slice, slice, slice]

    @property
    def acquired(self) -> str | None:
        """ISO date of the file asked for; None where file names hold no date."""
        start, stop = self.slices[2].start, self.slices[2].stop
        # Without a date torchgeo spans all of time, 1677 to 2262.
        return None if stop.year - start.year > 1 else str(start.date().isoformat())


def make(spec: Any, kind: str, **extra: Any) -> Any:
    """An object of torchgeo's or a user's from ``class_path`` and ``init_args``; an object is passed through.

    Args:
        spec: ``"torchgeo.datasets.EuroSAT"``, a bare name of ``torchgeo.<kind>``, a mapping with ``class_path``,
            ``init_args`` and ``dict_kwargs`` as in a Lightning config, or the object itself.
        kind: ``datasets`` or ``datamodules``.
        extra: arguments on top. Nothing is ever downloaded: ``download`` is set to false.

    Raises:
        ProbeError: no such class, wrong arguments, or its data are not there.
    """
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if not isinstance(spec, Mapping):
        return spec
    unknown = set(spec) - {"class_path", "init_args", "dict_kwargs"}
    if unknown or "class_path" not in spec:
        raise ProbeError(f"a {kind[:-1]} is given by class_path and init_args, got {', '.join(map(str, spec))}")
    path = str(spec["class_path"])
    module_name, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name or f"torchgeo.{kind}"), name, None)
    except ImportError as error:
        raise ProbeError(f"class_path {path}: its module cannot be imported ({error})") from error
    if cls is None:
        raise ProbeError(f"class_path {path}: there is no such class; torchgeo's are listed at torchgeo.{kind}")
    arguments = {**dict(spec.get("init_args") or {}), **dict(spec.get("dict_kwargs") or {}), **extra}
    if "download" in arguments:
        arguments["download"] = False
    from torchgeo.datasets.errors import DependencyNotFoundError

    try:
        inspect.signature(cls).bind(**arguments)
        return cls(**arguments)
    except (TypeError, ValueError, AssertionError, OSError, RuntimeError, DependencyNotFoundError) as error:
        raise ProbeError(f"{name} cannot be made from {arguments}: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def is_geo(dataset: Any) -> bool:
    """Whether a data set is indexed by place rather than by number."""
    from torchgeo.datasets import GeoDataset

    return isinstance(dataset, GeoDataset)


def unwrap(dataset: Any) -> tuple[Any, list[int] | None]:
    """The data set under random splits, and the numbers they chose from it."""
    from torch.utils.data import Subset

    indices: list[int] | None = None
    while isinstance(dataset, Subset):
        chosen = [int(i) for i in dataset.indices]
        indices = chosen if indices is None else [chosen[i] for i in indices]
        dataset = dataset.dataset
    return dataset, indices


def sample_of(dataset: Any, key: Any, where: str) -> Sample:
    """One sample as arrays.

    Raises:
        ProbeError: the file cannot be read, or the sample has no image.
    """
    try:
        sample = dataset[key]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ProbeError(f"{where} cannot be read, it may be truncated or missing ({_sentence(error)})") from error
    parts = [sample[name] for name in ("image", "image_s1", "image_s2") if name in sample]
    if not parts:
        raise ProbeError(f"{where} has no image, only {', '.join(map(str, sample))}; use a data set of single images")
    image = np.concatenate([part.numpy() for part in parts]).astype(np.float32, copy=False)
    if image.ndim != 3:
        raise ProbeError(f"{where} is of shape {image.shape}, not (bands, height, width); time series cannot be probed")
    label = sample.get("label")
    mask = sample.get("mask")
    return Sample(
        image=image,
        label=None if label is None else np.asarray(label, dtype=np.int64),
        mask=None if mask is None else np.asarray(mask, dtype=np.int64).reshape(image.shape[1:]),
    )


class RasterGrid:
    """A torchgeo raster data set, cut along a grid.

    Args:
        dataset: a ``RasterDataset`` or a combination of them.
        size: (height, width) of a cell in pixels.
        stride: distance between cells in pixels.
        queries: cells already chosen by a sampler, instead of a grid.

    Attributes:
        crs: of the data set, ``EPSG:...`` where there is a code.
        queries: the cells.
        too_small: files smaller than a cell, which a grid sampler passes over silently.
    """

    def __init__(
        self, dataset: Any, size: tuple[int, int], stride: tuple[int, int], queries: Sequence[Any] | None = None
    ) -> None:
        from shapely import STRtree

        self.dataset, self.size = dataset, size
        code = dataset.crs.to_epsg()
        self.crs = f"EPSG:{code}" if code else str(dataset.crs.to_wkt())
        index = dataset.index
        self._files = [str(path) for path in index["filepath" if "filepath" in index.columns else "filepath_1"]]
        self._geometries = list(index.geometry)
        self._tree = STRtree(self._geometries)
        self.too_small: list[str] = []
        if queries is None:
            from torchgeo.samplers import GridGeoSampler

            queries = list(GridGeoSampler(dataset, size, stride))
            step = dataset.res
            for file, geometry in zip(self._files, self._geometries, strict=True):
                left, bottom, right, top = geometry.bounds
                if right - left < size[1] * step[0] or top - bottom < size[0] * step[1]:
                    self.too_small.append(file)
        self.queries = [_query(slices) for slices in queries]

    def _file(self, position: int) -> str:
        index = self.dataset.index
        column = "filepath" if "filepath" in index.columns else "filepath_1"
        return str(index[column].iloc[position])

    def source(self, query: Query) -> str:
        """The file that covers most of a cell; empty where there is none."""
        from shapely.geometry import box

        hits = self._hits(query)
        # Files that only touch the cell's border are hits too, so the shared area decides.
        covered = [self._geometries[hit].intersection(box(*query.bounds)).area for hit in hits]
        return self._files[hits[int(np.argmax(covered))]] if hits else ""

    def _hits(self, query: Query) -> list[int]:
        from shapely.geometry import box

        return sorted(int(hit) for hit in self._tree.query(box(*query.bounds)))

    def paths(self) -> list[Path]:
        """Every file of the data set."""
        return dataset_files(self.dataset)

    def read(self, query: Query) -> Sample | None:
        """A cell's sample, or None where a data set in another CRS finds nothing there (it raises IndexError)."""
        try:
            return sample_of(self.dataset, query.slices, f"{self.source(query)} at {_place(query)}")
        except IndexError:
            return None

    def footprint(self, query: Query) -> NDArray[np.bool_]:
        """(H, W), true where some file lies; a grid's last cells reach beyond the data and are padded with zeros."""
        from rasterio.features import geometry_mask
        from rasterio.transform import from_bounds

        shapes = [self._geometries[hit] for hit in self._hits(query)]
        if not shapes:
            return np.zeros(self.size, dtype=bool)
        transform = from_bounds(*query.bounds, self.size[1], self.size[0])
        return np.asarray(geometry_mask(shapes, self.size, transform, invert=True), dtype=bool)

    def nodata(self) -> float:
        """The value that means no data: the first file's, or 0, with which torchgeo pads."""
        import rasterio

        with rasterio.open(self.paths()[0]) as file:
            return 0.0 if file.nodata is None else float(file.nodata)

    def align(self, other: Any) -> None:
        """Put another data set (labels) onto this one's CRS and resolution."""
        # torchgeo prints what it converts; a library does not write to the user's terminal.
        with contextlib.redirect_stdout(io.StringIO()):
            other.crs = self.dataset.crs
            other.res = self.dataset.res

    def __iter__(self) -> Iterator[Query]:
        return iter(self.queries)


def mask_of(dataset: Any, query: Query) -> NDArray[np.int64] | None:
    """(H, W) mask values of a label data set under a cell, whatever their date; None where it has none."""
    try:
        sample = dataset[query.slices[:2]]
    except IndexError:
        return None
    if "mask" not in sample:
        raise ProbeError(f"{type(dataset).__name__} gives no mask; a label raster is made with is_image = False")
    return np.asarray(sample["mask"], dtype=np.int64)


def dataset_files(dataset: Any) -> list[Path]:
    """Every file of a data set indexed by place."""
    index = dataset.index
    columns = [name for name in index.columns if str(name).startswith("filepath")]
    return [Path(path) for path in sorted({str(path) for name in columns for path in index[name]})]


def raster_dataset(paths: Sequence[str | Path]) -> Any:
    """A plain torchgeo data set of rasters that hold all bands in one file."""
    from torchgeo.datasets import RasterDataset

    return RasterDataset(paths=[str(path) for path in paths])


def raster_facts(dataset: Any) -> tuple[tuple[str, ...], float | None]:
    """Bands and scale of a raster data set, as far as its class says: no bands, and no scale, where it does not."""
    names = tuple(str(name) for name in getattr(dataset, "bands", None) or ())
    lineage = {cls.__name__ for cls in type(dataset).__mro__}
    if lineage & {"Landsat8", "Landsat9"}:
        # Landsat's B5 is near infrared, Sentinel-2's is red edge: the sensor must go into the name.
        names = tuple(canonical(name.removeprefix("SR_"), "landsat-8") for name in names)
    return names, next((scale for name, scale in _SCALES.items() if name in lineage), None)


@dataclass(frozen=True, eq=False)
class ModuleData:
    """What a data module holds for one split.

    Attributes:
        dataset: of the split.
        queries: cells of its grid sampler, for data sets indexed by place; None lets a grid be laid.
        size: side of a cell in pixels, or None.
    """

    dataset: Any
    queries: list[Any] | None = None
    size: int | None = None


def module_data(module: Any, split: str) -> ModuleData:
    """The data of one split, after the module set itself up; nothing is downloaded.

    Raises:
        ProbeError: no such split, or its files are not there.
    """
    from torchgeo.datasets.errors import DependencyNotFoundError
    from torchgeo.samplers import GridGeoSampler

    name = type(module).__name__
    stages = {"train": "fit", "val": "validate", "test": "test", "predict": "predict"}
    if split not in stages:
        raise ProbeError(f"unknown split {split!r}; use one of {', '.join(stages)}")
    try:
        module.setup(stages[split])
        dataset = getattr(module, f"{split}_dataset", None)
        if dataset is None:
            dataset = getattr(module, "dataset", None)
        if dataset is None:
            dataset = getattr(module, f"{split}_dataloader")().dataset
    except (OSError, ValueError, AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise ProbeError(f"{name} cannot set up its {split} data: {_sentence(error)}") from error
    except (DependencyNotFoundError, _misconfiguration()) as error:
        raise ProbeError(f"{name} has no {split} data: {_sentence(error)}") from error
    sampler = getattr(module, f"{split}_sampler", None)
    patch = getattr(module, "patch_size", None)
    size = int(patch[0]) if isinstance(patch, Sequence) else patch
    return ModuleData(dataset, list(sampler) if isinstance(sampler, GridGeoSampler) else None, size)


def _misconfiguration() -> type[Exception]:
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    found: type[Exception] = MisconfigurationException
    return found


def normalise(
    module: Any, split: str, levels: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64] | None:
    """What a module makes of an image with a constant in each channel, or None where it has no augmentation.

    Args:
        module: a torchgeo data module.
        split: whose augmentation is meant.
        levels: (C,) constants in the data set's units.
        size: (height, width) of the image.

    Returns:
        (C, h, w) of the augmented image.
    """
    import torch

    augment = getattr(module, f"{split}_aug", None) or getattr(module, "aug", None)
    if augment is None:
        return None
    image = torch.from_numpy(np.asarray(levels, dtype=np.float32))[None, :, None, None].expand(1, -1, *size)
    answer = augment({"image": image.clone()})["image"]
    return np.asarray(answer.reshape(answer.shape[-3:]).numpy(), dtype=np.float64)


def _query(slices: Any) -> Query:
    x, y, t = slices
    return Query((float(x.start), float(y.start), float(x.stop), float(y.stop)), (x, y, t))


def _place(query: Query) -> str:
    left, bottom, right, top = query.bounds
    return f"({left:.6g}, {bottom:.6g}, {right:.6g}, {top:.6g})"
