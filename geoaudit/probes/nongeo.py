"""Any torchgeo data set of single images (``NonGeoDataset``) as a probe set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from dnd_core.images import content_key, resize_pixels
from geoaudit.probes.base import Pixels, Probe, Skip, Valid, canonical_names, files_fingerprint, ground_blocks
from geoaudit.probes.known import Known, find_known
from geoaudit.probes.torchgeo_adapter import Sample, is_geo, make, sample_of, unwrap

__all__ = ["NonGeoProbe"]

_SAMPLED = 256


class NonGeoProbe(Probe):
    """Images of a torchgeo data set, in reflectance (or [0, 1] for photographs), channels by canonical name.

    Known are EuroSAT (and EuroSAT100, EuroSATSpatial), UCMerced, RESISC45, BigEarthNet, BigEarthNetV2 and So2Sat; of
    another data set ``bands`` and ``scale`` must be given. Pixels that are 0 in every band hold no data. The
    fingerprint is that of the files (:func:`geoaudit.probes.base.files_fingerprint`); of a data set whose files are not
    known, that of its length and of the pixels of up to 256 images spread over it.

    Multi-label sets have no single label: ``labels`` is None and ``multilabels`` holds the classes, unless
    ``single_label`` keeps the images that have exactly one.

    Args:
        dataset: the data set, its ``class_path``, or a mapping with ``init_args`` too; nothing is downloaded.
        bands: names of the bands of a sample, in order; None asks the table of known data sets.
        scale: reflectance per number, one for all bands or one a band; None asks the table.
        class_names: None takes the data set's.
        size: (height, width) to resize to; None takes the first image's and refuses others.
        single_label: keep only images with exactly one class.
        block_size: side in metres of the blocks of ground that georeferenced images are grouped by.
        verify: read every image once and leave out those that cannot be read; off, such an image is an error later.

    Attributes:
        dataset: the torchgeo data set.
        multilabels: (N, classes) bool, or None.

    Raises:
        ProbeError: the data set cannot be made, is empty, or its bands or units are unknown.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        bands: Sequence[str] | None = None,
        scale: float | Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        single_label: bool = False,
        block_size: float = 5000.0,
        verify: bool = False,
    ) -> None:
        self.dataset, chosen = unwrap(make(dataset, "datasets"))
        self._title = type(self.dataset).__name__
        if is_geo(self.dataset):
            raise ProbeError(f"{self._title} is indexed by place; use RasterProbe for it")
        self._indices = list(range(len(self.dataset))) if chosen is None else chosen
        if not self._indices:
            raise ProbeError(f"{self._title} holds no image; check its root and split")
        self._known = find_known(self.dataset)
        told = self._told(bands, scale)
        self.channels = canonical_names(told)
        self._scale = _scales(self._known, told, scale)
        self.photographs = self._known is not None and self._known.photographs
        if getattr(self.dataset, "transforms", None) is not None:
            self.contract_notes = (
                f"{self._title} has transforms of its own: its images may not be in the units of its files",
            )
        self._resize = size
        self._single = single_label
        if verify:
            self._verify()
        first = self._sample(0)
        if first.image.shape[0] != len(self.channels):
            raise ProbeError(
                f"{self._title} has images of {first.image.shape[0]} bands, but {len(self.channels)} were named "
                f"({', '.join(self.channels)})"
            )
        height, width = size or first.image.shape[1:]
        self.shape = (len(self.channels), int(height), int(width))
        self.class_names = tuple(class_names or (self._known.classes(self.dataset) if self._known else ()))
        self.multilabels: NDArray[np.bool_] | None = None
        self._read_labels(first)
        self._places = [self._place(index) for index in range(len(self))]
        self.blocks = ground_blocks(self._places, block_size)
        self.fingerprint = self._hash(bands, scale, size, block_size)

    def _told(self, bands: Sequence[str] | None, scale: Any) -> tuple[str, ...]:
        known = self._known
        if bands is None and known is not None:
            return known.bands(self.dataset)
        if bands is None or (scale is None and known is None):
            raise ProbeError(
                f"{self._title} is not a data set whose bands and units are known: pass bands= (their names in order) "
                "and scale= (0.0001 for Sentinel-2 DN, 1/255 for photographs)"
            )
        return tuple(bands)

    def _verify(self) -> None:
        kept, skipped = [], []
        for index in self._indices:
            try:
                sample_of(self.dataset, index, "image")
            except ProbeError:
                skipped.append(Skip(self._where(index), "cannot be read"))
            else:
                kept.append(index)
        if not kept:
            raise ProbeError(f"{self._title} holds no image that can be read; the first is {skipped[0].source}")
        self._indices, self.skipped = kept, tuple(skipped)

    def _read_labels(self, first: Sample) -> None:
        if first.label is None:
            return
        quick = self._known.labels(self.dataset) if self._known is not None else None
        every = (
            quick[self._indices]
            if quick is not None
            else np.stack([np.asarray(self._sample(index).label, dtype=np.int64) for index in range(len(self))])
        )
        if every.ndim == 1:
            self.labels = every
            return
        if self._single:
            once = every.sum(axis=1) == 1
            left_out = [i for i, keep in zip(self._indices, once, strict=True) if not keep]
            self.skipped += tuple(Skip(self._where(index), "does not have exactly one class") for index in left_out)
            self._indices = [i for i, keep in zip(self._indices, once, strict=True) if keep]
            if not self._indices:
                raise ProbeError(f"{self._title} has no image with exactly one class; use it with single_label=False")
            self.labels = every[once].argmax(axis=1)
            return
        self.multilabels = every.astype(bool)

    def _place(self, index: int) -> tuple[str, tuple[float, float, float, float]] | None:
        """CRS and bounds in the header of an image's file, where it is a georeferenced raster."""
        import warnings

        import rasterio

        paths = self._known.files(self.dataset, self._indices[index]) if self._known else []
        if self.photographs or not paths or paths[0].suffix.lower() not in (".tif", ".tiff"):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(paths[0]) as file:
                    if file.crs is None:
                        return None
                    code = file.crs.to_epsg()
                    left, bottom, right, top = map(float, file.bounds)
                    return f"EPSG:{code}" if code else file.crs.to_wkt(), (left, bottom, right, top)
        except rasterio.errors.RasterioError as error:
            raise ProbeError(
                f"{paths[0]} cannot be read ({error}); pass verify=True to leave such images out"
            ) from error

    def _where(self, position: int) -> str:
        paths = self._known.files(self.dataset, position) if self._known else []
        return str(paths[0]) if paths else f"{self._title} image {position}"

    def _hash(self, *told: Any) -> str:
        text = repr((self._title, self.channels, self._scale.tolist(), self.class_names, self._single, told))
        digest = hashlib.sha256(text.encode())
        digest.update(np.asarray(self._indices, dtype=np.int64).tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        if self._known is not None:
            files = {path for index in self._indices for path in self._known.files(self.dataset, index)}
            digest.update(files_fingerprint(files, Path(self.dataset.root)).encode())
        else:
            for index in np.unique(np.linspace(0, len(self) - 1, min(_SAMPLED, len(self))).astype(int)):
                digest.update(content_key(self._sample(int(index)).image).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def _sample(self, index: int) -> Sample:
        position = self._indices[index]
        return sample_of(self.dataset, position, self._where(position))

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        pixels = np.zeros((len(indices), *self.shape), dtype=np.float32)
        valid = np.zeros((len(indices), *self.shape[1:]), dtype=bool)
        for place, index in enumerate(indices):
            image = self._sample(index).image
            holds = np.isfinite(image).all(axis=0) & (image != 0).any(axis=0)
            image = np.nan_to_num(image * self._scale[:, None, None], nan=0.0, posinf=0.0, neginf=0.0)
            if self._resize is not None:
                image = resize_pixels(image, self._resize)
                holds = resize_pixels(holds[None].astype(np.float32), self._resize)[0] > 0.5
            if image.shape != self.shape:
                raise ProbeError(
                    f"{self._where(self._indices[index])} is of shape {image.shape}, the others {self.shape}; "
                    "pass size= to resize all"
                )
            pixels[place], valid[place] = image, holds
        return pixels, valid

    def _about(self, index: int) -> Mapping[str, Any]:
        position = self._indices[index]
        place = self._places[index]
        about: dict[str, Any] = {
            "source": self._where(position),
            "crs": None if place is None else place[0],
            "bounds": None if place is None else place[1],
            "acquired": self._known.acquired(self.dataset, position) if self._known else None,
        }
        if self.multilabels is not None:
            about["labels"] = tuple(int(i) for i in np.flatnonzero(self.multilabels[index]))
        return about

    def mask(self, index: int) -> NDArray[np.int64] | None:
        return self._sample(self._check(index)).mask


def _scales(known: Known | None, bands: Sequence[str], scale: Any) -> NDArray[np.float32]:
    if scale is None and known is not None:
        scale = [known.scale(band) for band in bands]
    values = np.broadcast_to(np.asarray(scale, dtype=np.float32), (len(bands),))
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ProbeError(f"scale must be above 0 for every band, got {scale}")
    return values
