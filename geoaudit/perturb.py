"""Artefacts painted onto tiles: one place for checks, planted shortcuts, captions' tests and the bench.

Every painter takes reflectance (or an RGB photograph in [0, 1]) and gives a new array; nothing is changed in
place. A strength of 0 is the identity, 1 the strongest that is still seen in practice. What is random about an
artefact (where a cloud lies, the phase of stripes) hangs on the image's own seed alone, so neither the order of
images nor the batch size matters. Pixels that hold no data (0 in every band) stay without data, as in real products.

Used for the counterfactual pairs x and x + g of method section 4 and the planted shortcuts of section 5.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError, ProbeError
from geoaudit import painters

__all__ = ["PERTURBATIONS", "Perturbation", "image_seeds", "paint"]

Pixels = NDArray[np.float32]
Painter = Callable[[Pixels, tuple[str, ...], float, np.random.Generator], Pixels]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One artefact that can be painted.

    Attributes:
        name: key in :data:`PERTURBATIONS`.
        label: what people call it, one to three words.
        words: what it is and where it comes from, in plain words.
        synonyms: other words that name the same artefact.
        family: the shortcut family it belongs to (method section 5).
        strengths: typical strengths from faint to strong, each in (0, 1].
        painter: one image (C, H, W), band names, strength and a generator into a new image.

    """

    name: str
    label: str
    words: str
    synonyms: tuple[str, ...]
    family: str
    strengths: tuple[float, ...]
    painter: Painter

    @property
    def kin(self) -> tuple[str, ...]:
        """Its label, then those of the artefacts that share a synonym with it."""
        others = (a for a in PERTURBATIONS.values() if a.name != self.name)
        return (self.label, *(a.label for a in others if set(a.synonyms) & set(self.synonyms)))

    @property
    def sight(self) -> str:
        """What to look for in imagery: it and its kin.

        A network that leans on stripes leans on those along and across the track alike, and images of both are few enough.
        """
        return " or ".join(self.kin)


def image_seeds(pixels: Pixels, seed: int) -> list[int]:
    """One seed an image of (B, C, H, W), from ``seed`` and the image's own content only."""
    return [zlib.crc32(np.ascontiguousarray(image, dtype=np.float32).tobytes(), seed & 0xFFFFFFFF) for image in pixels]


def paint(
    name: str, pixels: Pixels, channels: Sequence[str], strength: float, seeds: int | Sequence[int] = 0
) -> Pixels:
    """The same images with an artefact on them.

    Args:
        name: a key of :data:`PERTURBATIONS`.
        pixels: (B, C, H, W) float32 reflectance; not changed.
        channels: C band names (``B01`` .. ``B12``, or ``red``, ``green``, ``blue``, ``nir`` ...).
        strength: 0 (identity) to 1.
        seeds: one seed an image, or one number from which each image's seed is derived by its content.

    Returns:
        (B, C, H, W) float32.

    Raises:
        ConfigError: unknown artefact, or a strength outside [0, 1].
        ProbeError: shapes, channels or seeds disagree.

    """
    if name not in PERTURBATIONS:
        raise ConfigError(f"no perturbation is called {name!r}; choose one of {', '.join(PERTURBATIONS)}")
    if not 0 <= strength <= 1:
        raise ConfigError(f"the strength of {name} must be between 0 and 1, got {strength}")
    if pixels.ndim != 4 or pixels.shape[1] != len(channels):
        raise ProbeError(
            f"pixels must be (B, {len(channels)}, H, W) for the {len(channels)} channels, got {pixels.shape}"
        )
    each = image_seeds(pixels, seeds) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if len(each) != len(pixels):
        raise ProbeError(f"{len(each)} seeds for {len(pixels)} images: give one seed an image, or a single number")
    painted = np.array(pixels, dtype=np.float32)
    if strength == 0:
        return painted
    painter, salt = PERTURBATIONS[name].painter, zlib.crc32(name.encode())
    for index, seed in enumerate(each):
        image = painted[index].copy()
        result = painter(image, tuple(channels), strength, np.random.default_rng([seed & 0xFFFFFFFF, salt]))
        nodata = (image == 0).all(axis=0)
        painted[index] = np.where(nodata, np.float32(0), result)
    return painted


_TABLE = (
    Perturbation(
        "haze",
        "haze",
        "a thin bluish veil of haze over the whole tile that lowers contrast",
        ("hazy", "veil", "mist", "fog", "smoke", "aerosol"),
        "haze",
        (0.3, 0.6, 1.0),
        painters.haze,
    ),
    Perturbation(
        "cloud",
        "cloud",
        "bright clouds with their shadows beside them",
        ("clouds", "cloud shadow", "overcast"),
        "haze",
        (0.3, 0.6, 1.0),
        painters.cloud,
    ),
    Perturbation(
        "stripes_vertical",
        "vertical stripes",
        "thin bright vertical lines at equal distance, as from uneven detectors",
        ("striping", "stripes", "sensor striping", "vertical lines"),
        "stripe",
        (0.2, 0.5, 1.0),
        painters.stripes_vertical,
    ),
    Perturbation(
        "stripes_horizontal",
        "horizontal stripes",
        "thin bright horizontal lines at equal distance, as from uneven scan lines",
        ("striping", "stripes", "sensor striping", "horizontal lines"),
        "stripe",
        (0.2, 0.5, 1.0),
        painters.stripes_horizontal,
    ),
    Perturbation(
        "wedge",
        "nodata wedge",
        "a black wedge without data, as at the edge of a swath",
        ("missing data", "no data", "black wedge", "swath edge"),
        "nodata wedge",
        (0.2, 0.5, 1.0),
        painters.wedge,
    ),
    Perturbation(
        "border",
        "tile border",
        "a dark frame around the tile",
        ("frame", "black border", "dark frame"),
        "nodata wedge",
        (0.5, 1.0),
        painters.border,
    ),
    Perturbation(
        "watermark",
        "watermark",
        "a pale logo in the lower right corner",
        ("logo", "stamp", "symbol"),
        "watermark",
        (0.4, 1.0),
        painters.watermark,
    ),
    Perturbation(
        "offset",
        "brightness offset",
        "the same value added to every band; strength 1 is the +1000 DN of Sentinel-2 baseline 04.00",
        ("processing offset", "raised black level", "washed out"),
        "+1000 DN offset",
        (0.5, 1.0),
        painters.offset,
    ),
    Perturbation(
        "gain",
        "brighter gain",
        "every band multiplied by the same factor, up to 1.3",
        ("brighter", "overexposed"),
        "gain",
        (0.3, 1.0),
        painters.gain,
    ),
    Perturbation(
        "colour_cast",
        "reddish colour cast",
        "a red tint: more red, less blue",
        ("colour cast", "red tint", "reddish"),
        "colour cast",
        (0.3, 0.6, 1.0),
        painters.colour_cast,
    ),
    Perturbation(
        "quantise",
        "coarse quantisation",
        "few grey levels, as from too few bits",
        ("posterised", "banding", "few grey levels"),
        "blur/JPEG",
        (0.3, 0.6, 1.0),
        painters.quantise,
    ),
    Perturbation(
        "jpeg",
        "JPEG blocks",
        "blocks of 8 x 8 pixels, as from strong lossy compression",
        ("compression blocks", "blocky", "JPEG artefacts"),
        "blur/JPEG",
        (0.3, 0.6, 1.0),
        painters.jpeg,
    ),
    Perturbation(
        "blur",
        "blur",
        "detail smoothed away, as from resampling or defocus",
        ("blurred", "unsharp", "smooth"),
        "blur/JPEG",
        (0.3, 0.6, 1.0),
        painters.blur,
    ),
    Perturbation(
        "band_dropout",
        "missing band",
        "one band, chosen by the seed, fades to zero",
        ("band dropout", "dead band"),
        "input contract",
        (1.0,),
        painters.band_dropout,
    ),
    Perturbation(
        "band_swap",
        "swapped bands",
        "the red and the blue band change places",
        ("band order", "red and blue swapped"),
        "input contract",
        (1.0,),
        painters.band_swap,
    ),
)

PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every artefact by name, in a fixed order."""
