"""An image space made of words, for machines without a CLIP: an image is where its caption's clauses are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import ProbeImage
from dnd_core.presence import caption_vectors
from dnd_core.protocols import Captioner, TextEncoder
from dnd_core.registry import backend_fingerprint

__all__ = ["CaptionSpace"]


class CaptionSpace:
    """Images compared by the embeddings of what their captions say.

    It stands in for the CLIP image encoder of the image-product scores (paper section 3.3) where no CLIP
    weights are at hand. It sees only what the captioner says, and a run's manifest names it.

    Args:
        captioner: says what is in an image; its captions are kept by image content.
        text_encoder: embeds them.
    """

    def __init__(self, captioner: Captioner, text_encoder: TextEncoder) -> None:
        self.captioner, self.text_encoder = captioner, text_encoder
        self._captions: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """What the captioner's and the encoder's fingerprints say."""
        return f"{backend_fingerprint(self.captioner)}|{backend_fingerprint(self.text_encoder)}"

    def encode_images(self, images: Sequence[ProbeImage]) -> NDArray[np.float32]:
        """(N, D) float32 rows of length one."""
        new = {image.key: image for image in images if image.key not in self._captions}
        if new:
            self._captions.update(zip(new, self.captioner.caption(list(new.values())), strict=True))
        return caption_vectors([self._captions[image.key] for image in images], self.text_encoder)
