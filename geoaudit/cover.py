"""What covers each pixel, and how much haze lies over a tile, from spectral rules.

Reflectance is first cleared, roughly, of what is not the ground's: a constant offset (read from the cirrus band, which
sees no ground), the blue light of clear air (top-of-atmosphere products), and haze. Haze shows in the
haze-optimised transform, blue minus half of red (after Zhang, Guindon and Cihlar 2002), along which
clear land hardly varies. Then indices of the ``spyndex`` catalogue and plain limits decide, first rule first.
The limits are typical values, set on the training blocks of the bundled winter scene; every one was kept
loose enough for surface reflectance as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError, ProbeError
from geoaudit.bands import find_role, spyndex_indices

__all__ = ["COVERS", "LEVELS", "Ground", "classify", "clear", "green_and_dry", "known_pixels", "level_of", "luminance"]

Array = NDArray[np.float32]
Level = Literal["auto", "toa", "surface", "photograph"]
LEVELS: tuple[str, ...] = ("auto", "toa", "surface", "photograph")

COVERS: tuple[str, ...] = (
    "nodata",
    "cloud",
    "snow",
    "water",
    "shadow",
    "dense vegetation",
    "forest",
    "green vegetation",
    "built-up",
    "sand",
    "dry grassland",
    "bare soil",
    "sparse vegetation",
)
"""Cover classes, by index."""

# Mean reflectance of clear air over dark ground in each band of the spyndex catalogue.
_AIR = {"B": 0.075, "G": 0.04, "R": 0.02, "N": 0.005, "S1": 0.0, "S2": 0.0}
# Opacity of haze in each band, relative to blue: aerosols scatter with about the -1.3rd power of wavelength.
_HAZE = {"B": 1.0, "G": 0.84, "R": 0.67, "N": 0.5, "S1": 0.21, "S2": 0.14}
_LUMINANCE = {"R": 0.2126, "G": 0.7152, "B": 0.0722}
# What a veil of full opacity would reflect, and the excess it would show over land of usual brightness.
_VEIL = 0.45
_EXCESS_OF_VEIL = {"toa": 0.19, "surface": 0.27}
_CLEAR_LAND = {"toa": 0.089, "surface": 0.02, "photograph": np.inf}
_MARGIN = {"toa": 0.0135, "surface": 0.03, "photograph": np.inf}
# Display values of a photograph are roughly reflectance of bright ground scaled to fill the range.
_PHOTOGRAPH = 0.4


@dataclass(frozen=True, eq=False)
class Ground:
    """Reflectance of N tiles with offset, clear air and haze taken out, by spyndex band name.

    Attributes:
        bands: (N, H, W) each; at least ``R``, ``G``, ``B``.
        valid: (N, H, W), false without data.
        offset: (N,) constant that was on every band, 0 where there is no telling.
        haze: (N,) median excess of the haze measure over clear land, in reflectance; thin haze is about 0.02.
        hazy: (N, H, W), true where the excess is beyond the spread of clear land.
        level: ``toa``, ``surface`` or ``photograph``.
        raw: (N, H, W) each, the red, green and blue bands before clearing, offset taken out.

    """

    bands: dict[str, Array]
    valid: NDArray[np.bool_]
    offset: Array
    haze: Array
    hazy: NDArray[np.bool_]
    level: str
    raw: dict[str, Array]


def level_of(channels: Sequence[str]) -> str:
    """What pixels of these channels are taken for: reflectance with a cirrus band comes from top of atmosphere,
    without one from the surface; channels named by colour (``red``, ``green`` ...) are photographs.
    """
    if find_role(channels, "cirrus") is not None:
        return "toa"
    named = all(channel.lower() in ("red", "green", "blue", "nir", "r", "g", "b") for channel in channels)
    return "photograph" if named else "surface"


def known_pixels(pixels: Array, channels: Sequence[str], valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """(N, H, W) true where (N, C, H, W) pixels hold data: finite, and not 0 in every band.

    Raises:
        ProbeError: shapes and channels disagree.

    """
    if pixels.ndim != 4 or pixels.shape[1] != len(channels):
        raise ProbeError(
            f"pixels must be (N, {len(channels)}, H, W) for the {len(channels)} channels, got {pixels.shape}"
        )
    known = np.asarray(np.isfinite(pixels).all(axis=1)) & np.asarray((pixels != 0).any(axis=1))
    return known if valid is None else np.asarray(known & valid)


def clear(
    pixels: Array, channels: Sequence[str], valid: NDArray[np.bool_] | None = None, level: str = "auto"
) -> Ground:
    """Take offset, clear air and haze out of (N, C, H, W) reflectance.

    Raises:
        ConfigError: the level is unknown.
        ProbeError: no red, green or blue among the channels, or shapes disagree.

    """
    if level not in LEVELS:
        raise ConfigError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    known = known_pixels(pixels, channels, valid)
    found = spyndex_indices(channels)
    lacking = [name for name in ("R", "G", "B") if name not in found]
    if lacking:
        raise ProbeError(f"captions need red, green and blue; none of {', '.join(channels)} is {', '.join(lacking)}")
    level = level_of(channels) if level == "auto" else level
    pixels = np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0)
    cirrus = find_role(channels, "cirrus")
    offset = _offset(pixels, known, cirrus)
    scale = np.float32(_PHOTOGRAPH if level == "photograph" else 1)
    bands = {name: pixels[:, index] * scale - offset[:, None, None] for name, index in found.items() if name in _AIR}
    raw = {name: bands[name] for name in ("R", "G", "B")}
    excess = bands["B"] - 0.5 * bands["R"] - np.float32(_CLEAR_LAND[level])
    haze, hazy, thick = _haze(bands, excess, known, level)
    for name in bands:
        if level in _EXCESS_OF_VEIL:
            opacity = np.clip((thick - 0.006) / _EXCESS_OF_VEIL[level], 0, 0.6) * np.float32(_HAZE[name])
            bands[name] = (bands[name] - _VEIL * opacity) / (1 - opacity)
        air = np.float32(_AIR[name] if level == "toa" else 0.0)
        bands[name] = _filled(np.maximum(bands[name] - air, 1e-4), known)
    raw = {name: _filled(band, known) for name, band in raw.items()}
    return Ground(bands, known, offset, haze, hazy, level, raw)


def luminance(pixels: Array, channels: Sequence[str], known: NDArray[np.bool_], level: str) -> Array:
    """(N, H, W) luminance of (N, C, H, W) tiles as they are seen, haze and stripes included, less what clear air adds.

    Weights are those of Rec. 709. Pixels that are not known take their tile's mean.
    """
    found = spyndex_indices(channels)
    seen = np.zeros((len(pixels), *pixels.shape[2:]), dtype=np.float32)
    for name, weight in _LUMINANCE.items():
        air = _AIR[name] if level == "toa" else 0.0
        seen += np.float32(weight) * (np.nan_to_num(pixels[:, found[name]]) - np.float32(air))
    return _filled(seen, known)


def _filled(band: Array, known: NDArray[np.bool_]) -> Array:
    """Missing pixels take their tile's mean: a gap's rim is no texture."""
    if known.all():
        return band.astype(np.float32)
    mean = (band * known).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    return np.where(known, band, mean[:, None, None]).astype(np.float32)


def _offset(pixels: Array, known: NDArray[np.bool_], cirrus: int | None) -> Array:
    """(N,) offset: no ground is seen in the cirrus band, so what is there all over the tile was added."""
    if cirrus is None:
        return np.zeros(len(pixels), dtype=np.float32)
    floor = np.where(known, pixels[:, cirrus], np.inf).reshape(len(pixels), -1)
    least = np.where(np.isfinite(floor.min(axis=1)), floor.min(axis=1), 0)
    # High cirrus reaches 0.03; a processing offset is 0.1 and lies under every band alike.
    darkest = np.where(known[:, None], pixels, np.inf).min(axis=(1, 2, 3))
    return np.where((least > 0.035) & (darkest > 0.03), least - 0.001, 0).astype(np.float32)


def _haze(
    bands: dict[str, Array], excess: Array, known: NDArray[np.bool_], level: str
) -> tuple[Array, NDArray[np.bool_], Array]:
    """(N,) haze of each tile, (N, H, W) where it is, and (N, H, W) how much there is, smoothed."""
    from scipy.ndimage import uniform_filter

    if level == "photograph":
        return _haze_of_photograph(bands, known)
    if "N" in bands:
        water = bands["N"] < bands["G"] - 0.01
    else:
        water = (bands["R"] < 0.06) & (bands["B"] > 1.5 * bands["R"])
    # Water reflects blue; bright ground (sand, snow, roofs) lies off the line of clear land, to either side.
    usable = known & (bands["R"] < 0.3)
    excess = np.where(water, excess - np.float32(0.007), excess)
    haze = np.zeros(len(excess), dtype=np.float32)
    rows = usable.any(axis=(1, 2))
    values = np.where(usable, excess, np.nan)[rows].reshape(int(rows.sum()), excess[0].size)
    # Without blue air light, bluish ground differs more than thin haze does: only what lies under nearly every pixel
    # of a surface product is haze.
    haze[rows] = np.nanpercentile(values, 10 if level == "surface" else 50, axis=1)
    weight = np.maximum(uniform_filter(known.astype(np.float32), size=(0, 9, 9), mode="nearest"), 1e-3)
    filled = np.where(usable, excess, np.minimum(excess, haze[:, None, None]))
    thick = uniform_filter(np.where(known, filled, 0).astype(np.float32), size=(0, 9, 9), mode="nearest") / weight
    if level == "surface":
        thick = np.minimum(thick, np.where(haze > _MARGIN[level], haze + np.float32(0.01), 0)[:, None, None])
    return haze, np.asarray((thick > _MARGIN[level]) & known), thick.astype(np.float32)


def _haze_of_photograph(bands: dict[str, Array], known: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_], Array]:
    """The dark channel prior (He, Sun and Tang 2009): without haze, some colour is dark somewhere near every pixel."""
    from scipy.ndimage import minimum_filter, uniform_filter

    darkest = np.minimum(np.minimum(bands["R"], bands["G"]), bands["B"])
    dark = minimum_filter(np.where(known, darkest, np.inf), size=(0, 5, 5), mode="nearest")
    dark = np.where(np.isfinite(dark), dark, 0)
    flat = uniform_filter(dark, size=(0, 5, 5), mode="nearest")
    brightest = np.maximum(np.maximum(bands["R"], bands["G"]), bands["B"])
    pale = (brightest - darkest) < 0.3 * np.maximum(brightest, 1e-6)
    hazy = (flat > 0.14) & (flat < 0.32) & pale & known
    share = hazy.mean(axis=(1, 2))
    haze = np.where(share > 0.5, 0.03, 0.0).astype(np.float32)
    return haze, np.asarray(hazy), np.zeros_like(flat, dtype=np.float32)


def classify(ground: Ground) -> NDArray[np.uint8]:
    """(N, H, W) index into :data:`COVERS` of every pixel."""
    import spyndex

    b = ground.bands
    near, short = "N" in b, "S1" in b and "S2" in b
    names = ["NDVI"] * near + ["NDWI"] * near + ["MNDWI"] * short
    index = {}
    if names:
        with np.errstate(all="ignore"):
            tables = spyndex.computeIndex(names, params=b)
        index = dict(zip(names, np.nan_to_num(tables if len(names) > 1 else tables[None]), strict=True))
    red, green, blue = b["R"], b["G"], b["B"]
    visible = np.asarray((red + green + blue) / 3, dtype=np.float32)
    raw = np.asarray((ground.raw["R"] + ground.raw["G"] + ground.raw["B"]) / 3, dtype=np.float32)
    rules = {"nodata": ~ground.valid}
    if near:
        rules |= _with_infrared(ground, index, visible, raw, short)
    else:
        rules |= _colours_only(red, green, blue, visible, raw)
    conditions = [rules[name] for name in COVERS if name in rules]
    choices = [COVERS.index(name) for name in COVERS if name in rules]
    return np.asarray(np.select(conditions, choices, default=COVERS.index("sparse vegetation")), dtype=np.uint8)


_GREEN = ("dense vegetation", "forest", "green vegetation")
_DRY = ("built-up", "sand", "dry grassland", "bare soil")
_NO_LAND = ("nodata", "cloud", "snow", "water", "shadow")


def green_and_dry(ground: Ground, covers: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N, H, W) all that is green and all that is dry, whatever cover it is.

    Green is what has an NDVI above 0.4. Dry is land that is brighter in the shortwave than in the near infrared (NDBI above
    0: bare soil, dry grass, roofs). Without these bands both are sums of covers.
    """
    b = ground.bands
    green, dry = (np.isin(covers, [COVERS.index(kind) for kind in kinds]) for kinds in (_GREEN, _DRY))
    land = ~np.isin(covers, [COVERS.index(kind) for kind in _NO_LAND])
    if "N" in b:
        green = (b["N"] - b["R"] > 0.4 * (b["N"] + b["R"])) & land
    if "N" in b and "S1" in b:
        dry = (b["S1"] > b["N"]) & land
    return np.asarray(green), np.asarray(dry)


def _rough(band: Array) -> Array:
    """Standard deviation in 5 x 5 pixels."""
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(band, size=(0, 5, 5), mode="nearest")
    square = uniform_filter(band * band, size=(0, 5, 5), mode="nearest")
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)), dtype=np.float32)


def _mostly(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True where the mask holds in most of 7 x 7 pixels."""
    from scipy.ndimage import uniform_filter

    return np.asarray(mask & (uniform_filter(mask.astype(np.float32), size=(0, 7, 7), mode="nearest") > 0.6))


def _with_infrared(
    ground: Ground, index: dict[str, Array], visible: Array, raw: Array, short: bool
) -> dict[str, NDArray[np.bool_]]:
    b, ndvi, ndwi = ground.bands, index["NDVI"], index["NDWI"]
    red, green, blue, near = b["R"], b["G"], b["B"], b["N"]
    brown = red - blue
    mndwi = index["MNDWI"] if short else ndwi
    swir = b["S1"] if short else near
    ratio = b["S2"] / np.maximum(b["S1"], 1e-3) if short else np.full_like(red, 0.64)
    tint = (ground.raw["B"] - ground.raw["R"]) / np.maximum(raw, 1e-3)
    # Sand is redder than cloud; haze is bluer, for it scatters and does not cover.
    white = (tint > -0.07) & (tint < 0.1)
    # Every border between two covers is rough along a line; a settlement is rough all over.
    rough = _mostly((_rough(near) > 0.0135) & (_rough(red) > 0.006))
    dark_canopy = (ndvi > 0.55) & (near < 0.24) & (swir < 0.15 if short else green < 0.06)
    return {
        "cloud": (raw > 0.19)
        & (visible > 0.13)
        & (near > 0.22)
        & white
        & (tint > -0.07)
        & (swir > 0.14)
        & (ndvi < 0.4)
        # Water in clouds absorbs in the shortwave infrared; bright dry ground is brighter there than in the near infrared.
        & (swir <= near),
        "snow": (visible > 0.13) & (mndwi > 0.35) & (swir < 0.12) if short else (visible > 0.35) & (ndvi < 0.1) & white,
        "water": (ndvi < 0.12) & (near < 0.14) & (mndwi > -0.2 if short else ndwi > -0.05),
        "shadow": (near < 0.075) & (swir < 0.085) & (visible < 0.055),
        "dense vegetation": (ndvi > 0.62) & ~dark_canopy,
        "forest": dark_canopy
        | (ndvi > 0.2)
        & (red < 0.078)
        & (brown < (0.024 if short else 0.016))
        & (ratio < 0.645)
        & (near < 0.22)
        & (swir < 0.2),
        "green vegetation": ndvi > 0.37,
        "built-up": (rough & (ratio > 0.63) & (brown < 0.035) & (red < 0.2))
        | ((visible > 0.22) & (brown < 0.03) & rough),
        "sand": (red > 0.24) & (ndvi < 0.2),
        "dry grassland": (ndvi > 0.17) & (mndwi < -0.49 if short else (ndvi > 0.25) & (brown > 0.02)) & (ratio < 0.7),
        "bare soil": (ndvi < 0.3) | (brown > 0.02),
    }


def _colours_only(red: Array, green: Array, blue: Array, visible: Array, raw: Array) -> dict[str, NDArray[np.bool_]]:
    """Rules for red, green and blue alone: fewer covers, and only what colours can tell."""
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = spread < 0.25 * np.maximum(visible, 1e-3)
    greenness = (2 * green - red - blue) / np.maximum(red + green + blue, 1e-3)
    blueish = (green - blue < 0.0005) & (red - blue < 0.009) | (blue > red * 1.15) & (greenness < 0.12)
    return {
        "cloud": (raw > 0.28) & grey,
        "water": blueish & (visible < 0.12) & (visible > 0.008) & (_rough(green) < 0.008),
        "shadow": visible < 0.012,
        "forest": (visible < 0.05) & (greenness > 0.03)
        | (visible < 0.072) & (red - blue < 0.018) & (_rough(red) < 0.007),
        "green vegetation": greenness > 0.07,
        "built-up": _mostly((_rough(red) > 0.007) & (red - blue < 0.022)) | (_rough(red) > 0.03) & (red - blue < 0.06),
        "sand": (red > 0.24) & (red > blue * 1.1),
        "bare soil": red - blue > 0.012,
    }
