"""What all probe sets share: images read on demand, with their place on Earth, their class and their picture."""

from __future__ import annotations

import abc
import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from dnd_core.images import ProbeImage
from geoaudit.bands import Stretch, canonical, find_role, render_rgb, role

if TYPE_CHECKING:
    from geoaudit.probes.painted import Artefact, PaintedProbe

__all__ = ["Probe", "Skip", "canonical_names", "files_fingerprint", "ground_blocks", "skip_summary"]

Pixels = NDArray[np.float32]
Valid = NDArray[np.bool_]

_NUMBERED = re.compile(r"(b|band|l8|lc|sr)[ _.-]*b?\d", re.IGNORECASE)
_CACHE_BYTES = 64 << 20
_STRETCH_IMAGES = 64
_WHOLE_BYTES = 256 << 20
_END_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Skip:
    """One image that was left out, and why.

    Attributes:
        source: path or place of the image.
        reason: a few words that are the same for all images left out for the same reason.
    """

    source: str
    reason: str

    @classmethod
    def from_error(cls, source: str | Path, error: Exception) -> Skip:
        """The reason in an error's first words, without the file's name and what stands in brackets."""
        return cls(str(source), str(error).removeprefix(str(source)).lstrip(" :").partition(" (")[0])


def skip_summary(skipped: Sequence[Skip]) -> str:
    """``3 images left out: 2 unreadable, 1 all nodata``; empty when nothing was."""
    if not skipped:
        return ""
    counts = Counter(skip.reason for skip in skipped)
    return f"{len(skipped)} images left out: " + ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))


class Probe(abc.ABC):
    """An image set (:class:`dnd_core.images.ImageSet`) whose pixels are read when they are asked for.

    Pixels are reflectance, or [0, 1] for photographs; where there is no data they are 0 and ``valid`` is false.
    A small cache of the images last seen is kept, so memory does not grow with the set. Subclasses set the attributes
    below and implement :meth:`_load` and :meth:`_about`.

    Attributes:
        channels: canonical band names, in the order of the pixels.
        shape: (C, H, W) of every image.
        labels: (N,) int64 class index, or None.
        class_names: names of the classes.
        blocks: (N,) int64 spatial block, or None where nothing is known about neighbours.
        fingerprint: hash of everything that decides what the images are; each subclass says of what.
        photographs: pixels are RGB in [0, 1] and shown as they are, without a contrast stretch.
        skipped: images left out while the set was made, with reasons.
        contract_notes: doubts about bands, scaling or normalisation that an audit must report.
    """

    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    blocks: NDArray[np.int64] | None = None
    fingerprint: str = ""
    photographs: bool = False
    skipped: tuple[Skip, ...] = ()
    contract_notes: tuple[str, ...] = ()
    _stretch: Stretch | None = None
    _cache: OrderedDict[int, ProbeImage] | None = None

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        """(B, C, H, W) float32 pixels and (B, H, W) validity of several images."""

    @abc.abstractmethod
    def _about(self, index: int) -> Mapping[str, Any]:
        """What is known about an image: ``source``, ``crs``, ``bounds``, ``acquired``."""

    def mask(self, index: int) -> NDArray[np.int64] | None:
        """(H, W) class index of every pixel, -1 where there is none; None for sets without pixel labels."""
        self._check(index)
        return None

    @property
    def stretch(self) -> Stretch | None:
        """The contrast stretch of every picture in the set, from up to 64 of its images; None for photographs."""
        if self._stretch is None and not self.photographs:
            chosen = np.unique(np.linspace(0, len(self) - 1, min(_STRETCH_IMAGES, len(self))).astype(int))
            pixels, valid = self._load(chosen.tolist())
            colours, names = self._colours(pixels)
            if not valid.any():
                raise ProbeError(
                    "no pixel of the probe set holds data, so no picture can be made; check its nodata value"
                )
            self._stretch = Stretch.from_scene(colours, names, valid=valid)
        return self._stretch

    def render(self, pixels: Pixels, valid: Valid | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 picture of (C, H, W) pixels, with the stretch fixed for the set."""
        colours, names = self._colours(pixels)
        return render_rgb(colours, names, self.stretch, valid=valid)

    def _colours(self, pixels: Pixels) -> tuple[Pixels, tuple[str, ...]]:
        colours = ("red", "green", "blue")
        places = [find_role(self.channels, colour) for colour in colours]
        if None not in places:
            return pixels, self.channels
        # Radar or elevation has no colours: the first channels stand in, a single one as grey.
        chosen = [min(place, len(self.channels) - 1) for place in range(3)]
        return pixels[..., chosen, :, :], colours

    def __getitem__(self, index: int) -> ProbeImage:
        index = self._check(index)
        cache = self._cache = OrderedDict() if self._cache is None else self._cache
        if index not in cache:
            pixels, valid = self._load([index])
            everywhere = bool(valid[0].all())
            cache[index] = ProbeImage(
                pixels=pixels[0],
                rgb=self.render(pixels[0], valid[0]),
                channels=self.channels,
                valid=None if everywhere else valid[0],
                metadata={**self._about(index), **self._label(index), "index": index},
            )
            while len(cache) > max(8, _CACHE_BYTES // (4 * int(np.prod(self.shape)))):
                cache.popitem(last=False)
        cache.move_to_end(index)
        return cache[index]

    def pixels(self, indices: Sequence[int]) -> Pixels:
        """(B, C, H, W) float32 pixels of several images."""
        return self._load([self._check(int(index)) for index in indices])[0]

    def valid(self, indices: Sequence[int]) -> Valid:
        """(B, H, W) bool, false where several images hold no data."""
        return self._load([self._check(int(index)) for index in indices])[1]

    def painted(self, recipe: Mapping[int, Artefact]) -> PaintedProbe:
        """The same set with artefacts on chosen images; see :class:`geoaudit.probes.painted.PaintedProbe`."""
        from geoaudit.probes.painted import PaintedProbe

        return PaintedProbe(self, recipe)

    def _check(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            # IndexError, so that iterating over the set ends as over any sequence.
            raise IndexError(f"image {index} of {len(self)}")
        return index % len(self)

    def _label(self, index: int) -> dict[str, Any]:
        if self.labels is None:
            return {}
        label = int(self.labels[index])
        return {"label": label, "class_name": self.class_names[label] if self.class_names else str(label)}


def canonical_names(names: Sequence[str]) -> tuple[str, ...]:
    """Bands by the project's names where it has one (``B8a`` is ``B8A``), as they are where it has none."""
    return tuple(_canonical(name) for name in names)


def _canonical(name: str) -> str:
    # Words such as red or nir stay: in a photograph they are no Sentinel-2 band.
    return canonical(name) if _NUMBERED.match(name) and role(name) is not None else name


def files_fingerprint(paths: Iterable[str | Path], root: str | Path) -> str:
    """Sha256 of files: their names under ``root`` and their bytes.

    Of sets beyond 256 MB only each file's name, size, first and last 64 KiB are hashed, which finds every change a
    rewritten or truncated file makes, though not one byte altered in the middle of a file of equal size.
    """
    files = sorted((Path(path) for path in paths), key=str)
    whole = sum(path.stat().st_size for path in files) <= _WHOLE_BYTES
    digest = hashlib.sha256(b"whole" if whole else b"ends")
    for path in files:
        size = path.stat().st_size
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        digest.update(f"{name}|{size}|".encode())
        with path.open("rb") as file:
            if whole:
                while part := file.read(1 << 20):
                    digest.update(part)
            else:
                digest.update(file.read(_END_BYTES))
                file.seek(max(size - _END_BYTES, 0))
                digest.update(file.read(_END_BYTES))
    return digest.hexdigest()


def ground_blocks(
    places: Sequence[tuple[str, tuple[float, float, float, float]] | None], size: float
) -> NDArray[np.int64] | None:
    """Square blocks of ground that images lie in.

    Args:
        places: (crs, (left, bottom, right, top)) of each image, or None where it is unknown.
        size: side of a block in metres, on the equal-area grid EPSG:6933, so one block may hold images of several CRS.

    Returns:
        (N,) int64 block of each image's centre; images without a place are a block each. None if no image has a place.

    Raises:
        ProbeError: ``size`` is not above 0, or a CRS cannot be understood.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    if not size > 0:
        raise ProbeError(f"the side of a block must be above 0 metres, got {size}")
    if all(place is None for place in places):
        return None
    cells: list[tuple[str, int, int]] = [("image", index, 0) for index in range(len(places))]
    by_crs: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        if place is not None:
            by_crs.setdefault(place[0], []).append(index)
    for crs, members in by_crs.items():
        boxes = np.array([place[1] for place in (places[i] for i in members) if place is not None])
        try:
            source = CRS.from_user_input(crs)
        except CRSError as error:
            raise ProbeError(f"the coordinate reference system {crs!r} cannot be understood ({error})") from error
        xs, ys = transform(source, "EPSG:6933", boxes[:, [0, 2]].mean(1).tolist(), boxes[:, [1, 3]].mean(1).tolist())
        for index, x, y in zip(members, xs, ys, strict=True):
            cells[index] = ("ground", int(x // size), int(y // size))
    numbers = {cell: number for number, cell in enumerate(sorted(set(cells)))}
    return np.array([numbers[cell] for cell in cells], dtype=np.int64)
