"""Spectral bands: one canonical name each, what part of the spectrum they see, and how they become a picture.

Band names are the first thing that goes wrong between a data set and a network: EuroSAT writes ``B8A`` last,
torchgeo's MOCO weights expect it ninth and call it ``B8a``; Landsat's ``B5`` is near infrared while Sentinel-2's
is red edge. Everything in the project therefore compares bands by :func:`canonical` name and finds them by
:func:`role`, never by position.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError

__all__ = [
    "LANDSAT8",
    "SENTINEL2",
    "Band",
    "Stretch",
    "band",
    "canonical",
    "find_role",
    "render_rgb",
    "reorder",
    "role",
    "spyndex_indices",
]


@dataclass(frozen=True, slots=True)
class Band:
    """One spectral band of one sensor.

    Attributes:
        name: canonical name.
        role: part of the spectrum, STAC ``eo:common_name`` wording (``blue``, ``nir08``, ``swir16`` ...).
        spyndex: name in the spyndex index catalogue; empty where the catalogue has none.
        wavelength: centre in nanometres.
        gsd: native ground sampling distance in metres.

    """

    name: str
    role: str
    spyndex: str
    wavelength: int
    gsd: int


_SENTINEL2 = (
    Band("B01", "coastal", "A", 443, 60),
    Band("B02", "blue", "B", 490, 10),
    Band("B03", "green", "G", 560, 10),
    Band("B04", "red", "R", 665, 10),
    Band("B05", "rededge071", "RE1", 705, 20),
    Band("B06", "rededge075", "RE2", 740, 20),
    Band("B07", "rededge078", "RE3", 783, 20),
    Band("B08", "nir", "N", 842, 10),
    Band("B8A", "nir08", "N2", 865, 20),
    Band("B09", "nir09", "WV", 945, 60),
    Band("B10", "cirrus", "", 1375, 60),
    Band("B11", "swir16", "S1", 1610, 20),
    Band("B12", "swir22", "S2", 2190, 20),
)
# Landsat 8's broad near-infrared band stands in for both spyndex "N" and Sentinel-2's narrow B8A.
_LANDSAT8 = (
    Band("L8_B1", "coastal", "A", 443, 30),
    Band("L8_B2", "blue", "B", 482, 30),
    Band("L8_B3", "green", "G", 561, 30),
    Band("L8_B4", "red", "R", 655, 30),
    Band("L8_B5", "nir08", "N", 865, 30),
    Band("L8_B6", "swir16", "S1", 1609, 30),
    Band("L8_B7", "swir22", "S2", 2201, 30),
    Band("L8_B8", "pan", "", 590, 15),
    Band("L8_B9", "cirrus", "", 1373, 30),
    Band("L8_B10", "lwir11", "T1", 10895, 30),
    Band("L8_B11", "lwir12", "T2", 12005, 30),
)

SENTINEL2: tuple[str, ...] = tuple(band.name for band in _SENTINEL2)
"""The 13 bands of Sentinel-2, in the order this project uses."""
LANDSAT8: tuple[str, ...] = tuple(band.name for band in _LANDSAT8)
"""The 11 bands of Landsat 8."""

_BANDS = {band.name: band for band in (*_SENTINEL2, *_LANDSAT8)}
_SENSORS = {"sentinel-2": _SENTINEL2, "landsat-8": _LANDSAT8}
_SYNONYMS = {
    "r": "red",
    "g": "green",
    "b": "blue",
    "aerosol": "coastal",
    "coastal aerosol": "coastal",
    "rededge1": "rededge071",
    "rededge2": "rededge075",
    "rededge3": "rededge078",
    "red edge 1": "rededge071",
    "red edge 2": "rededge075",
    "red edge 3": "rededge078",
    "near infrared": "nir",
    "nir narrow": "nir08",
    "water vapour": "nir09",
    "water vapor": "nir09",
    "swir1": "swir16",
    "swir2": "swir22",
}
_NUMBERED = re.compile(r"(?:band\s*|b)0*(?P<number>\d{1,2})(?P<letter>a?)", re.IGNORECASE)
_LANDSAT = re.compile(r"(?:l8|lc0?8|sr|landsat[ -]?8)[_ .-]?b0*(?P<number>\d{1,2})", re.IGNORECASE)


def canonical(name: str, sensor: str = "sentinel-2") -> str:
    """The project's name of a band.

    Args:
        name: ``B1``, ``B01``, ``b8a``, ``red``, ``nir``, ``swir16``, ``L8_B5``, ``SR_B5`` ...
        sensor: whose numbering a bare ``B5`` follows and whose band a role such as ``red`` means,
            ``sentinel-2`` or ``landsat-8``.

    Raises:
        ProbeError: the sensor or the band is unknown.

    """
    if sensor not in _SENSORS:
        raise ProbeError(f"unknown sensor {sensor!r}; known are {', '.join(_SENSORS)}")
    text = name.strip()
    if match := _LANDSAT.fullmatch(text):
        found = f"L8_B{int(match['number'])}"
    elif match := _NUMBERED.fullmatch(text):
        number, letter = int(match["number"]), match["letter"].upper()
        if sensor == "landsat-8":
            found = f"L8_B{number}{letter}"
        else:
            found = f"B{number}{letter}" if letter else f"B{number:02d}"
    else:
        wanted = _SYNONYMS.get(text.lower(), text.lower())
        roles = {band.role: band.name for band in _SENSORS[sensor]}
        if sensor == "landsat-8":
            roles["nir"] = roles["nir08"]
        found = roles.get(wanted, "")
    if found not in _BANDS:
        raise ProbeError(
            f"unknown band {name!r} for {sensor}: use one of {', '.join(b.name for b in _SENSORS[sensor])} "
            f"or a role such as red, nir, swir16"
        )
    return found


def band(name: str, sensor: str = "sentinel-2") -> Band:
    """What is known about a band, by any of its names; raises ProbeError like :func:`canonical`."""
    return _BANDS[canonical(name, sensor)]


def role(name: str) -> str | None:
    """Part of the spectrum a channel sees, or None for a channel that is no known band (elevation, radar ...)."""
    try:
        return band(name).role
    except ProbeError:
        return None


def find_role(channels: Sequence[str], *roles: str) -> int | None:
    """Index of the first channel whose role is the first of ``roles`` present, or None."""
    present = [role(channel) for channel in channels]
    for wanted in roles:
        if wanted in present:
            return present.index(wanted)
    return None


def reorder(have: Sequence[str], want: Sequence[str]) -> tuple[int, ...]:
    """Where each wanted band stands among those at hand.

    Names are compared canonically, so ``B8a`` is ``B8A`` and ``red`` is ``B04``; a name that is no known band
    matches itself only.

    Returns:
        ``indices`` with ``pixels[list(indices)]`` in the order of ``want``.

    Raises:
        ProbeError: a wanted band is missing, or a band stands twice among those at hand.

    """
    places: dict[str, int] = {}
    for index, name in enumerate(have):
        key = _key(name)
        if key in places:
            raise ProbeError(f"band {name!r} stands twice in the data's bands {list(have)}; name each band once")
        places[key] = index
    missing = [name for name in want if _key(name) not in places]
    if missing:
        raise ProbeError(
            f"the data lack {'band' if len(missing) == 1 else 'bands'} {', '.join(missing)}: they have "
            f"{', '.join(have) or 'none'}, the network expects {', '.join(want)}"
        )
    return tuple(places[_key(name)] for name in want)


def _key(name: str) -> str:
    try:
        return canonical(name)
    except ProbeError:
        return name


def spyndex_indices(channels: Sequence[str]) -> dict[str, int]:
    """Channel index for each band name of the spyndex catalogue (``B``, ``G``, ``R``, ``N``, ``S1`` ...) at hand."""
    found: dict[str, int] = {}
    for index, name in enumerate(channels):
        try:
            key = band(name).spyndex
        except ProbeError:
            continue
        if key:
            found.setdefault(key, index)
    # Narrow near infrared serves where the broad band was left out; the catalogue's indices ask for "N".
    if "N" not in found and "N2" in found:
        found["N"] = found["N2"]
    return found


@dataclass(frozen=True, slots=True)
class Stretch:
    """The contrast stretch of a picture, fixed for a whole scene so that its tiles stay comparable.

    Attributes:
        low: value shown black, for red, green, blue.
        high: value shown white, for red, green, blue.
        gamma: exponent applied between them; below 1 brightens dark land.

    """

    low: tuple[float, float, float] = (0.0, 0.0, 0.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0

    def __post_init__(self) -> None:
        ordered = all(
            np.isfinite((low, high)).all() and low < high for low, high in zip(self.low, self.high, strict=True)
        )
        if not ordered or not self.gamma > 0:
            raise ProbeError(f"a stretch needs low < high in each colour and gamma > 0, got {self}")

    @classmethod
    def from_scene(
        cls,
        pixels: NDArray[np.float32],
        channels: Sequence[str],
        *,
        valid: NDArray[np.bool_] | None = None,
        percentiles: tuple[float, float] = (1.0, 99.0),
        gamma: float = 0.7,
    ) -> Stretch:
        """Percentile stretch of a scene.

        Args:
            pixels: (C, H, W) reflectance, or (N, C, H, W) tiles of one scene.
            channels: C band names.
            valid: (H, W) or (N, H, W), false where there is no data.
            percentiles: of the values shown black and white, in [0, 100].
            gamma: see :class:`Stretch`.

        Raises:
            ProbeError: no red, green or blue band, or nothing valid.

        """
        colours = _colours(channels)
        stack = pixels[..., colours, :, :]
        flat = np.moveaxis(stack, -3, 0).reshape(3, -1)
        if valid is not None:
            flat = flat[:, np.asarray(valid, dtype=bool).reshape(-1)]
        flat = flat[:, np.isfinite(flat).all(axis=0)]
        if not flat.shape[1]:
            raise ProbeError("cannot stretch a scene without one valid pixel")
        low, high = np.percentile(flat.astype(np.float64), percentiles, axis=1)
        # A flat band (a drawn tile, open water) still needs a range; one DN of a Sentinel-2 product is enough.
        high = np.maximum(high, low + 1e-4)
        return cls(_triple(low), _triple(high), gamma)


def render_rgb(
    pixels: NDArray[np.float32],
    channels: Sequence[str],
    stretch: Stretch | None = None,
    *,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """The picture that captioners and people see: true colour from whatever bands there are.

    Args:
        pixels: (..., C, H, W) reflectance, or RGB in [0, 1].
        channels: C band names; must hold red, green and blue under any name (3, 4 or 13 bands ...).
        stretch: fixed for the scene; None shows [0, 1] as it is, which suits RGB photographs.
        valid: (..., H, W); pixels without data are drawn black.

    Returns:
        (..., H, W, 3) uint8.

    Raises:
        ProbeError: a colour is missing, or the channel count is wrong.

    """
    if pixels.ndim < 3 or pixels.shape[-3] != len(channels):
        raise ProbeError(f"pixels {pixels.shape} do not match the {len(channels)} channels named")
    stretch = stretch or Stretch()
    low = np.asarray(stretch.low, dtype=np.float32)[:, None, None]
    high = np.asarray(stretch.high, dtype=np.float32)[:, None, None]
    colours = pixels[..., _colours(channels), :, :].astype(np.float32, copy=False)
    scaled = np.clip(np.nan_to_num((colours - low) / (high - low)), 0, 1) ** np.float32(stretch.gamma)
    picture: NDArray[np.uint8] = (np.moveaxis(scaled, -3, -1) * 255 + 0.5).astype(np.uint8)
    if valid is not None:
        picture[~np.asarray(valid, dtype=bool)] = 0
    return picture


def _colours(channels: Sequence[str]) -> list[int]:
    places = {colour: find_role(channels, colour) for colour in ("red", "green", "blue")}
    missing = [colour for colour, place in places.items() if place is None]
    if missing:
        raise ProbeError(
            f"no {' and no '.join(missing)} band among {', '.join(channels) or 'none'}: "
            "a picture needs red, green and blue"
        )
    return [place for place in places.values() if place is not None]


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
