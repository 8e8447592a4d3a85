"""The offline captioner for RGB images: it measures and says what it measured, so it cannot make things up.

Three steps, each open to others: :func:`measure` takes a batch of pictures to frozen measures,
:func:`phrases` takes the measures of one picture to phrases with a salience, :func:`sentence` puts the most
salient ones first. A captioner for a domain (satellite images, say) adds measures and phrases of its own.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends import colours, textures
from dnd_core.backends.colours import COLOURS, colour_shares, lab_pixels, name_pixels
from dnd_core.backends.textures import Blobs, Texture, blobs, direction_word, texture
from dnd_core.errors import ConfigError
from dnd_core.images import ProbeImage

__all__ = ["MeasuredCaptioner", "Phrase", "RgbMeasures", "by_size", "measure", "phrases", "sentence", "source_hash"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Something to say about an image.

    Attributes:
        text: a clause without commas.
        salience: how much it strikes the eye, 0 to about 1; the sentence starts with the highest.

    """

    text: str
    salience: float


@dataclass(frozen=True, eq=False)
class RgbMeasures:
    """What was measured on N pictures.

    Attributes:
        colours: (N, len(COLOURS)) share of each colour name.
        chroma: (N,) mean CIELAB chroma, 0 grey to about 130.
        texture: of CIELAB lightness, in its units (0 to 100).
        blobs: parts unlike the colour along the picture's edges.
        blob_colour: (N,) index into COLOURS of the largest such part's commonest colour.
        valid: (N,) share of pixels that hold data.

    """

    colours: NDArray[np.float32]
    chroma: NDArray[np.float32]
    texture: Texture
    blobs: Blobs
    blob_colour: NDArray[np.int64]
    valid: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.colours)


STANDS_OUT = 22.0
"""CIELAB distance from the edge's colour beyond which a pixel belongs to something else."""


def measure(rgb: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> RgbMeasures:
    """Measure pictures.

    Args:
        rgb: (N, H, W, 3) uint8.
        valid: (N, H, W), false where there is no data; None when all is valid.

    """
    names, lab = name_pixels(rgb), lab_pixels(rgb)
    edge = np.concatenate([lab[:, 0], lab[:, -1], lab[:, :, 0], lab[:, :, -1]], axis=1)
    apart = np.linalg.norm(lab - np.median(edge, axis=1)[:, None, None], axis=-1) > STANDS_OUT
    light = lab[..., 0].copy()
    share = np.ones(len(rgb), dtype=np.float32)
    if valid is not None:
        # Missing pixels take the mean of the others, so that a data gap is not read as an edge or a shape.
        share = valid.mean(axis=(1, 2)).astype(np.float32)
        mean = (light * valid).sum(axis=(1, 2)) / np.maximum(valid.sum(axis=(1, 2)), 1)
        light = np.where(valid, light, mean[:, None, None])
        apart &= valid
    parts = blobs(apart)
    inside = colour_shares(names, parts.mask)
    return RgbMeasures(
        colours=colour_shares(names, valid),
        chroma=np.hypot(lab[..., 1], lab[..., 2]).mean(axis=(1, 2)),
        texture=texture(light),
        blobs=parts,
        blob_colour=inside.argmax(axis=1).astype(np.int64),
        valid=share,
    )


def phrases(measures: RgbMeasures, index: int) -> list[Phrase]:
    """Everything worth saying about one of the pictures, in no particular order."""
    if measures.valid[index] == 0:
        return [Phrase("nodata all over", 1.0)]
    said = [
        *_colour_phrases(measures.colours[index]),
        *pattern_phrases(measures.texture, index),
        *_shape_phrases(measures, index),
        *_light_phrases(measures, index),
    ]
    if measures.valid[index] < 1:
        said.append(Phrase("a nodata area", 0.3 + 0.6 * float(1 - measures.valid[index])))
    return said


def sentence(said: Iterable[Phrase], limit: int) -> str:
    """The ``limit`` most salient phrases as one sentence; equal salience keeps the order given."""
    ranked = sorted(said, key=lambda phrase: -phrase.salience)
    return ", ".join(dict.fromkeys(phrase.text for phrase in ranked[:limit]))


def _colour_phrases(shares: NDArray[np.float32]) -> list[Phrase]:
    said = []
    for place in np.argsort(-shares, kind="stable")[:4]:
        share, name = float(shares[place]), COLOURS[place]
        if share < 0.03:
            break
        words = (
            "{} all over"
            if share > 0.9
            else "mostly {}"
            if share > 0.5
            else "some {}"
            if share > 0.12
            else "a little {}"
        )
        plain = name.split()[-1] in ("grey", "black", "white", "brown")
        said.append(Phrase(words.format(name), share**0.5 * (0.85 if plain else 1.0)))
    return said


def pattern_phrases(measured: Texture, index: int) -> list[Phrase]:
    """Stripes, grids, a common direction of edges and gradients of one image; lightness in 0 to 100."""
    contrast = float(measured.contrast[index])
    if contrast < 1.5:
        return []
    repetition, crossed = float(measured.repetition[index]), float(measured.crossed[index])
    coherence, slope = float(measured.coherence[index]), float(measured.slope[index])
    along = direction_word(float(measured.stripe_direction[index]))
    said = []
    if repetition > 0.2 and crossed > 0.15:
        pattern = "a checkerboard pattern" if along == "diagonal" else "a grid of lines"
        said.append(Phrase(pattern, 0.7 + 0.3 * (repetition + crossed)))
    elif repetition > 0.4:
        width = "fine" if measured.period[index] < 6 else "broad" if measured.period[index] > 14 else ""
        said.append(Phrase(f"{width} {along} stripes".strip(), 0.6 + 0.4 * repetition))
    elif slope > 0.6 and contrast > 4:
        side = ("right", "top", "left", "bottom")[round(float(measured.slope_direction[index]) / 90) % 4]
        said.append(Phrase(f"a smooth gradient brighter towards the {side}", 0.4 + 0.5 * slope))
    elif coherence > 0.35:
        along = direction_word(float(measured.direction[index]))
        said.append(Phrase(f"{along} edges", 0.2 + 0.6 * coherence))
    return said


def _shape_phrases(measures: RgbMeasures, index: int) -> list[Phrase]:
    parts = measures.blobs
    count, share = int(parts.count[index]), float(parts.share[index])
    if not count or not 0.004 <= share <= 0.6 or measures.texture.slope[index] > 0.6:
        return []
    colour = COLOURS[int(measures.blob_colour[index])]
    shape = _shape(parts, index)
    named = f"round {colour} blob" if shape == "round blob" else f"{colour} {shape}"
    if count > 12:
        return [Phrase(f"many small {colour} spots", 0.45)] if share < 0.03 else []
    if count > 1:
        return [Phrase(f"several {named}s", 0.5 if shape == "shape" else 0.75)]
    article = "an" if named[0] in "aeiou" else "a"
    return [Phrase(f"{article} {named} {_place(parts, index)}", 0.5 if shape == "shape" else 0.95)]


def _shape(parts: Blobs, index: int) -> str:
    """What the largest part is called; limits stand midway between the values of the pure shapes."""
    roundness, boxiness = float(parts.roundness[index]), float(parts.boxiness[index])
    if float(parts.elongation[index]) > 3.5 and boxiness > 0.75:
        return f"{direction_word(float(parts.direction[index]))} bar"
    if roundness > 0.78 and boxiness > 0.9:
        return "round blob"
    if roundness > 0.5 and boxiness > 0.95:
        return "square"
    if boxiness > 0.95:
        return "rectangle"
    if boxiness < 0.55 and roundness > 0.3:
        return "ring"
    if roundness > 0.25 and 0.8 < boxiness < 0.9:
        return "triangle"
    return "shape"


def _place(parts: Blobs, index: int) -> str:
    vertical = ("top", "", "bottom")[int(np.digitize(parts.row[index], (0.36, 0.64)))]
    horizontal = ("left", "", "right")[int(np.digitize(parts.column[index], (0.36, 0.64)))]
    words = f"{vertical} {horizontal}".strip()
    return f"at the {words}" if words else "in the centre"


def _light_phrases(measures: RgbMeasures, index: int) -> list[Phrase]:
    measured = measures.texture
    mean, contrast, roughness = (float(a[index]) for a in (measured.mean, measured.contrast, measured.roughness))
    said = []
    if mean < 30 or mean > 72:
        word = "very dark" if mean < 15 else "dark" if mean < 30 else "bright" if mean < 88 else "very bright"
        said.append(Phrase(f"{word} overall", 0.3 + abs(mean - 50) / 100))
    if contrast > 25:
        said.append(Phrase("high contrast", 0.25 + contrast / 120))
    elif contrast < 5:
        said.append(Phrase("low contrast", 0.4))
    if roughness < 0.8:
        said.append(Phrase("smooth texture", 0.35))
    elif roughness > 0.75 * contrast and roughness > 2.5:
        said.append(Phrase("fine grained noisy texture", 0.3 + min(roughness, 20) / 40))
    elif roughness > 5:
        said.append(Phrase("rough texture", 0.25 + min(roughness, 20) / 50))
    elif contrast > 6 and not 0.004 <= measures.blobs.share[index] <= 0.6:
        said.append(Phrase("coarse mottled texture", 0.25))
    if measures.chroma[index] > 45:
        said.append(Phrase("vivid colours", 0.3))
    return said


def by_size(images: Sequence[ProbeImage], batch_size: int, say: Callable[[list[ProbeImage]], list[str]]) -> list[str]:
    """Captions of images of any sizes: ``say`` gets batches of images alike in shape and channels."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((image.pixels.shape, image.channels), []).append(index)
    captions = [""] * len(images)
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            chosen = members[start : start + batch_size]
            for index, caption in zip(chosen, say([images[i] for i in chosen]), strict=True):
                captions[index] = caption
    return captions


def stack_valid(images: Sequence[ProbeImage]) -> NDArray[np.bool_] | None:
    """(N, H, W) validity of images of one size, None where every pixel of every one is valid."""
    if all(image.valid is None for image in images):
        return None
    shape = images[0].rgb.shape[:2]
    return np.stack([np.ones(shape, dtype=bool) if image.valid is None else image.valid for image in images])


def source_hash(*files: str) -> str:
    """Sha256 of source files: what decides the answers of a captioner that has no weights."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


class MeasuredCaptioner:
    """Says colours, brightness, contrast, texture, direction and shapes of RGB pictures (Step 2a, offline).

    Args:
        limit: phrases a caption has at most.
        batch_size: pictures measured together.

    Raises:
        ConfigError: a number below 1.

    """

    def __init__(self, limit: int = 6, batch_size: int = 64) -> None:
        if limit < 1 or batch_size < 1:
            raise ConfigError(f"limit and batch_size must be at least 1, got {limit} and {batch_size}")
        self.limit, self.batch_size = limit, batch_size

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with the rules that measure and name, and with ``limit``."""
        return f"{self.limit}:{source_hash(__file__, colours.__file__, textures.__file__)}"

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One sentence an image, most salient first."""
        return by_size(images, self.batch_size, self._say)

    def _say(self, images: list[ProbeImage]) -> list[str]:
        measures = measure(np.stack([image.rgb for image in images]), stack_valid(images))
        return [sentence(phrases(measures, index), self.limit) for index in range(len(images))]
