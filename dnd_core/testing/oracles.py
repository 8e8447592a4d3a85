"""Backends that know the truth of drawn images: a captioner, concept images, and an image space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from dnd_core.errors import ConfigError, ProbeError
from dnd_core.images import ProbeImage
from dnd_core.testing.concepts import ATTRIBUTES, BACKGROUNDS, COLOURS, TEXTURES, parse
from dnd_core.testing.drawing import SHAPES, draw_scene, visible
from dnd_core.testing.network import Features

__all__ = ["DrawnSpace", "OracleCaptioner", "OracleConceptImages"]


class OracleCaptioner:
    """Says what is in a drawn image, or in a crop of one, with errors at an adjustable rate.

    Every attribute that can be seen is left out with probability ``noise``; and for every one that can be seen, one
    that cannot be seen is put in with probability ``noise``. Errors depend on the seed and the image alone.

    Args:
        noise: from 0 (the truth) to 1 (every attribute lost).
        seed: decides errors and wording.

    Raises:
        ConfigError: ``noise`` is outside [0, 1].

    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        if not 0 <= noise <= 1:
            raise ConfigError(f"the noise of a captioner must be between 0 and 1, got {noise}")
        self.noise, self.seed = noise, seed

    def __repr__(self) -> str:
        return f"OracleCaptioner(noise={self.noise}, seed={self.seed})"

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One sentence an image, for instance "a dark background with a red disc and vertical stripes".

        Raises:
            ProbeError: an image does not carry its content, so it was not drawn by this package.
        """
        return [self._caption(image) for image in images]

    def _caption(self, image: ProbeImage) -> str:
        if "items" not in image.metadata:
            raise ProbeError("the oracle captioner reads the content of drawn images: use images from draw_probe")
        rng = np.random.default_rng([self.seed, int(image.key[:12], 16)])
        height, width = image.pixels.shape[1:]
        shares = visible(image.metadata, (height, width))
        shapes = {name: shape for name, shape, _ in image.metadata["items"]}
        unseen = [name for name in (*COLOURS, *TEXTURES) if name not in shares]
        said: list[str] = []
        ground = "grey background"
        for name in shares:
            kept = rng.random() >= self.noise
            if kept and name in BACKGROUNDS:
                ground = name
            elif kept:
                said.append(self._say(name, shapes.get(name, ""), rng))
            if rng.random() < self.noise and unseen:
                said.append(self._say(unseen.pop(int(rng.integers(len(unseen)))), "", rng))
        if not said:
            return f"a {ground}"
        *first, last = said
        listed = f"{', '.join(first)} and {last}" if first else last
        return (f"a {ground} with {listed}", f"{listed} on a {ground}")[int(rng.integers(2))]

    @staticmethod
    def _say(name: str, shape: str, rng: np.random.Generator) -> str:
        if name in COLOURS:
            return f"a {name} {shape or rng.choice(SHAPES)}"
        return f"a {name}" if name == "checkerboard" else name


class OracleConceptImages:
    """Draws images that show a concept, as a perfect text-to-image model would.

    Args:
        size: side of the images in pixels.
        seed: decides the images, together with the concept's words.

    """

    def __init__(self, size: int = 48, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def __repr__(self) -> str:
        return f"OracleConceptImages(size={self.size}, seed={self.seed})"

    def show(self, concept: str, n: int) -> list[ProbeImage]:
        """``n`` drawn images; alternatives ("red or blue") take turns.

        Words that name nothing a drawn image can show are left out, and a concept of such words alone gets images of
        anything. No image comes back for a contradiction ("stripes without stripes").
        """
        said = parse(concept)
        known = [frozenset(part for part in literals if part[0] in ATTRIBUTES) for literals in said.alternatives]
        alternatives = sorted(set(known), key=sorted)
        digest = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:6], "big")
        images = []
        for number in range(n if alternatives else 0):
            literals = alternatives[number % len(alternatives)]
            present = [name for name in ATTRIBUTES if (name, True) in literals]
            absent = [name for name in ATTRIBUTES if (name, False) in literals]
            if len(set(present) & set(BACKGROUNDS)) > 1:
                return []
            rng = np.random.default_rng([self.seed, digest, number])
            pixels, content = draw_scene(rng, self.size, present, absent)
            rgb = (pixels.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
            images.append(ProbeImage(pixels, rgb, metadata=content))
        return images


class DrawnSpace:
    """Image vectors for drawn images: how much of each attribute the analytic detectors see (no metadata is read).

    It stands where a CLIP image encoder would (paper section 3.3, image products).
    """

    fingerprint = "drawn-space-1"

    @cached_property
    def _features(self) -> Features:
        return Features().eval()

    def encode_images(self, images: Sequence[ProbeImage]) -> NDArray[np.float32]:
        """(N, attributes) float32 rows of length one."""
        with torch.inference_mode():
            maps = self._features(torch.from_numpy(np.stack([image.pixels for image in images])))
        # The square root keeps a small item from drowning beside a large background; the floor is for empty images.
        seen = np.sqrt(maps.mean(dim=(2, 3)).numpy()) + 1e-3
        return np.asarray(seen / np.linalg.norm(seen, axis=1, keepdims=True), dtype=np.float32)
