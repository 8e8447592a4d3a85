"""What a network expects, held against what a probe set gives: no mismatch passes silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dnd_core.errors import ProbeError
from geoaudit.bands import reorder
from geoaudit.networks.spec import InputSpec, spec_of
from geoaudit.probes.base import Probe, skip_summary

if TYPE_CHECKING:
    from dnd_core.images import ImageSet
    from dnd_core.networks import Network
    from geoaudit.cards import ModelCard

__all__ = ["ContractNote", "check_contract"]

_IMAGES = 64
_FAR = 6.0

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class ContractNote:
    """One thing to know about how data and network fit together.

    Attributes:
        field: ``bands``, ``units``, ``classes``, ``size``, ``normalisation`` or ``images``.
        severity: ``error`` makes results wrong, ``warning`` may, ``info`` is only said.
        message: one sentence.
    """

    field: str
    severity: Severity
    message: str


def check_contract(network: Network | ModelCard | InputSpec, probe: ImageSet) -> list[ContractNote]:
    """Compare bands, units, classes, size and normalisation.

    Up to 64 images spread over the set are read.

    Args:
        network: loaded by :func:`geoaudit.networks.load_network`, or its card.
        probe: any image set.

    Returns:
        Notes, errors first. An audit shows them all, and stops at errors.

    Raises:
        ProbeError: a band that the network needs is missing.
    """
    spec = _spec(network)
    notes = _bands(spec, probe) + _size(spec, probe) + _classes(spec, probe)
    chosen = np.unique(np.linspace(0, len(probe) - 1, min(_IMAGES, len(probe))).astype(int)).tolist()
    pixels = probe.pixels(chosen)
    valid = probe.valid(chosen) if isinstance(probe, Probe) else np.ones((len(chosen), *pixels.shape[2:]), dtype=bool)
    notes += _units(spec, probe, np.moveaxis(pixels, 1, 0)[:, valid])
    notes += [ContractNote("normalisation", "warning", note) for note in getattr(probe, "contract_notes", ())]
    notes += _normalisation(spec, probe)
    if skipped := skip_summary(getattr(probe, "skipped", ())):
        notes.append(ContractNote("images", "info", skipped))
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(notes, key=lambda note: order[note.severity])


def _spec(network: Any) -> InputSpec:
    from dnd_core.networks import Network
    from geoaudit.networks.preprocess import Preprocess

    if not isinstance(network, Network):
        return spec_of(network)
    if not isinstance(network.preprocess, Preprocess):
        raise ProbeError(f"{network.name} was loaded without a card, so its bands are unknown; use load_network")
    scaling = network.preprocess
    size = (network.input_shape[1], network.input_shape[2])
    return InputSpec(
        bands=scaling.bands,
        mean=scaling.mean,
        std=scaling.std,
        input_size=scaling.size or size,
        chip_size=size,
        class_names=network.class_names,
    )


def _bands(spec: InputSpec, probe: ImageSet) -> list[ContractNote]:
    indices = reorder(probe.channels, spec.bands)
    have, want = ", ".join(probe.channels), ", ".join(spec.bands)
    if list(indices) == list(range(len(probe.channels))):
        return []
    spare = [name for i, name in enumerate(probe.channels) if i not in indices]
    text = f"the data's bands ({have}) are brought into the network's order ({want}) by name"
    return [ContractNote("bands", "info", text + (f"; {', '.join(spare)} are not used" if spare else ""))]


def _size(spec: InputSpec, probe: ImageSet) -> list[ContractNote]:
    given, trained = probe.shape[1:], spec.chip_size or spec.input_size
    if given == trained:
        return []
    factor = max(given[0] / trained[0], trained[0] / given[0], given[1] / trained[1], trained[1] / given[1])
    text = f"images are {given[1]} x {given[0]} pixels, the network was trained on {trained[1]} x {trained[0]}"
    text += ": what it sees is at another scale" if factor > 1.5 else ""
    return [ContractNote("size", "warning" if factor > 1.5 else "info", text)]


def _classes(spec: InputSpec, probe: ImageSet) -> list[ContractNote]:
    have, want = probe.class_names, spec.class_names
    if not have or not want or have == want:
        return []
    if set(have) == set(want):
        text = (
            f"the data number their classes {', '.join(have)}, the network {', '.join(want)}: labels would be mixed up"
        )
        return [ContractNote("classes", "error", text)]
    missing, extra = [n for n in have if n not in want], [n for n in want if n not in have]
    text = f"the data's classes are not the network's: only in the data {', '.join(missing) or 'none'}, only in the "
    return [ContractNote("classes", "warning", text + f"network {', '.join(extra) or 'none'}")]


def _units(spec: InputSpec, probe: ImageSet, values: Any) -> list[ContractNote]:
    """Values (C, n) of valid pixels."""
    notes: list[ContractNote] = []
    if not values.shape[1]:
        return [ContractNote("units", "error", "no pixel of the images looked at holds data; check the nodata value")]
    photographs = bool(getattr(probe, "photographs", False))
    median = np.median(values, axis=1)
    top = float(np.percentile(values, 99))
    limit = 1.0 if photographs else 2.0
    if float(np.median(median)) > limit or (photographs and top > 1.001):
        text = f"the images' median is {float(np.median(median)):.4g}, which looks like digital numbers, not "
        text += "[0, 1]" if photographs else "reflectance"
        notes.append(ContractNote("units", "error", text + ": give the scale of the data (scale=)"))
    elif not photographs and top < 0.01:
        text = f"99 % of the pixels are below {top:.2g}, too dark for reflectance: the data may have been scaled twice"
        notes.append(ContractNote("units", "warning", text))
    elif not photographs:
        notes += _offset(probe.channels, values)
    if any(spec.mean) and not any(note.severity == "error" for note in notes):
        notes += _far(spec, probe, median)
    return notes


def _offset(channels: Sequence[str], values: Any) -> list[ContractNote]:
    visible = [i for i, name in enumerate(channels) if name in ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")]
    if len(visible) < 3:
        return []
    low = float(np.percentile(values[visible], 1, axis=1).min())
    if low < 0.09:
        return []
    text = (
        f"not one band falls below {low:.3f} anywhere: the +1000 DN offset of newer Sentinel-2 products may be left in"
    )
    return [ContractNote("units", "warning", text)]


def _far(spec: InputSpec, probe: ImageSet, median: Any) -> list[ContractNote]:
    indices = list(reorder(probe.channels, spec.bands))
    distance = np.abs(median[indices] - np.asarray(spec.mean)) / np.asarray(spec.std)
    far = [f"{name} ({d:.0f})" for name, d in zip(spec.bands, distance, strict=True) if d > _FAR]
    if not far:
        return []
    text = f"the data lie over {_FAR:.0f} standard deviations from the network's training data in {', '.join(far)}"
    return [ContractNote("units", "warning", text + ": check band order and scaling")]


def _normalisation(spec: InputSpec, probe: ImageSet) -> list[ContractNote]:
    given = getattr(probe, "normalisation", None)
    if given is None:
        return []
    indices = list(reorder(probe.channels, spec.bands))
    mean = spec.mean or (0.0,) * len(spec.bands)
    std = spec.std or (1.0,) * len(spec.bands)
    same = np.allclose(np.asarray(given.mean)[indices], mean, rtol=1e-3, atol=1e-6)
    same = same and np.allclose(np.asarray(given.std)[indices], std, rtol=1e-3)
    if same:
        return []
    text = "the data module normalises with another mean and standard deviation than the network's card says"
    return [ContractNote("normalisation", "warning", text + "; the card's are used")]
