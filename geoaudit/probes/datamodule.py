"""The test data of a torchgeo training config, with the normalisation that its network was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.bands import Stretch
from geoaudit.networks.spec import InputSpec
from geoaudit.probes.base import Pixels, Probe, Valid
from geoaudit.probes.nongeo import NonGeoProbe
from geoaudit.probes.raster import RasterProbe
from geoaudit.probes.torchgeo_adapter import ModuleData, is_geo, make, module_data, normalise, unwrap

__all__ = ["DataModuleProbe", "Normalisation", "read_data_block"]

_IMAGES = 16


@dataclass(frozen=True)
class Normalisation:
    """What a data module does to pixels before its network sees them: ``(pixels - mean) / std``, then a resize.

    Attributes:
        mean, std: in the probe's units (reflectance, or [0, 1]), one a channel.
        size: (height, width) of the result.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]


def read_data_block(path: str | Path) -> dict[str, Any]:
    """The ``data:`` block of a Lightning config, also where it stands under a subcommand (``fit:``).

    Raises:
        ProbeError: the file is no YAML mapping or has no such block.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProbeError(f"{path} cannot be read as a training config ({' '.join(str(error).split())})") from error
    holders = [content, *(content.values() if isinstance(content, Mapping) else ())]
    for holder in holders:
        if isinstance(holder, Mapping) and isinstance(holder.get("data"), Mapping):
            return dict(holder["data"])
    raise ProbeError(f"{path} has no data: block with a class_path; is it a training config?")


class DataModuleProbe(Probe):
    """One split of a ``LightningDataModule``, in reflectance, beside the normalisation it applies.

    A torchgeo data module hands its network ``(DN - mean) / std``. The images here are not normalised: they are
    reflectance like every probe's, ``DN * scale``. What the module does is measured by sending two constant images
    through its own augmentation and is given in reflectance as :attr:`normalisation`: ``mean * scale`` and
    ``std * scale``. So :meth:`input_spec` makes :func:`geoaudit.networks.load_network` feed the network exactly what it
    was trained on. Where the module divides by 255 (torchgeo's default) though its numbers go beyond 255, or its
    augmentation is more than a normalisation and a resize, ``contract_notes`` says so.

    Args:
        datamodule: the module, its ``class_path``, a mapping with ``init_args``, or a training config's path (YAML).
        split: ``train``, ``val``, ``test`` or ``predict``; nothing is downloaded.
        options: further arguments of :class:`NonGeoProbe` or, for a module of raster data sets, :class:`RasterProbe`.

    Attributes:
        normalisation: what the module does to pixels, or None where that is not known.

    Raises:
        ProbeError: the module cannot be made or set up, or has no data for the split.
    """

    def __init__(
        self, datamodule: Any, split: Literal["train", "val", "test", "predict"] = "test", **options: Any
    ) -> None:
        if isinstance(datamodule, str | Path) and Path(datamodule).suffix.lower() in (".yaml", ".yml"):
            datamodule = read_data_block(datamodule)
        module = make(datamodule, "datamodules")
        found = module_data(module, split)
        self.inner = _inner(found, options)
        self.channels, self.shape, self.class_names = self.inner.channels, self.inner.shape, self.inner.class_names
        self.labels, self.blocks, self.photographs = self.inner.labels, self.inner.blocks, self.inner.photographs
        self.skipped = self.inner.skipped
        self.normalisation, notes = self._measure(module, split, type(module).__name__)
        self.contract_notes = (*self.inner.contract_notes, *notes)
        text = f"{self.inner.fingerprint}{split}{self.normalisation}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def _measure(self, module: Any, split: str, name: str) -> tuple[Normalisation | None, list[str]]:
        scale = np.asarray(self.inner._scale, dtype=np.float64).reshape(-1)
        # Two constants decide an affine map; one reflectance unit apart they lie well above rounding.
        answers = [normalise(module, split, level / scale, self.shape[1:]) for level in (0.0, 1.0, 0.5)]
        if any(answer is None for answer in answers):
            return None, [f"{name} has no augmentation that could be read, so its normalisation is not known"]
        zero, one, half = (answer for answer in answers if answer is not None)
        constant = all(np.allclose(a, a[:, :1, :1], atol=1e-4) for a in (zero, one, half))
        low, high, middle = (a.mean(axis=(1, 2)) for a in (zero, one, half))
        if not constant or len(low) != len(scale) or not np.allclose(middle, (low + high) / 2, rtol=1e-3, atol=1e-3):
            return None, [f"{name} does more to images than normalise and resize; give its network a card"]
        std = 1 / (high - low)
        mean = -low * std
        found = Normalisation(tuple(mean.tolist()), tuple(std.tolist()), (zero.shape[1], zero.shape[2]))
        return found, self._doubts(found, scale, name)

    def _doubts(self, found: Normalisation, scale: NDArray[np.float64], name: str) -> list[str]:
        chosen = np.unique(np.linspace(0, len(self) - 1, min(_IMAGES, len(self))).astype(int)).tolist()
        top = float((self.pixels(chosen) / scale[:, None, None]).max())
        divisor = np.asarray(found.std) / scale
        if np.allclose(divisor, 255, rtol=1e-3) and np.allclose(found.mean, 0, atol=1e-9) and top > 255:
            return [
                f"{name} divides by 255, torchgeo's default for 8-bit images, but its numbers reach {top:.0f}: "
                f"the network was fed values up to {top / 255:.1f} instead of 1"
            ]
        return []

    def input_spec(self, *, class_names: Sequence[str] | None = None, name: str = "") -> InputSpec:
        """What a network trained with this module expects, for :func:`geoaudit.networks.load_network`.

        Raises:
            ProbeError: the module's normalisation is not known.
        """
        if self.normalisation is None:
            raise ProbeError(
                f"the normalisation is not known ({'; '.join(self.contract_notes)}); give the network a card"
            )
        height, width = self.shape[1:]
        return InputSpec(
            bands=self.channels,
            mean=self.normalisation.mean,
            std=self.normalisation.std,
            input_size=self.normalisation.size,
            chip_size=(height, width),
            class_names=tuple(class_names or self.class_names),
            name=name,
        )

    @property
    def stretch(self) -> Stretch | None:
        return self.inner.stretch

    def __len__(self) -> int:
        return len(self.inner)

    def _load(self, indices: Sequence[int]) -> tuple[Pixels, Valid]:
        return self.inner._load(indices)

    def _about(self, index: int) -> Mapping[str, Any]:
        return self.inner._about(index)

    def mask(self, index: int) -> NDArray[np.int64] | None:
        return self.inner.mask(index)


def _inner(found: ModuleData, options: Mapping[str, Any]) -> NonGeoProbe | RasterProbe:
    dataset, _ = unwrap(found.dataset)
    if not is_geo(dataset):
        return NonGeoProbe(found.dataset, **options)
    sizes = {} if found.size is None else {"size": found.size}
    return RasterProbe(found.dataset, queries=found.queries, **{**sizes, **options})
