"""Concept images by retrieval: real images of a pool that show a concept (Step 3a without a generator).

Text-to-image models paint RGB photographs; a network that eats thirteen bands needs real ones. The pool is searched
with a CLIP where one is given, else through the captions of its images: the same caption entailment
(:mod:`dnd_core.presence`) that verification uses. The pool must be kept apart from the probe by whoever makes it.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.images import ImageSet, ProbeImage
from dnd_core.presence import CaptionIndex, combine, concept_parts
from dnd_core.protocols import Captioner, ImageEncoder, TextEncoder
from dnd_core.registry import backend_fingerprint
from dnd_core.windows import Windows

__all__ = ["PoolImages"]


class PoolImages:
    """Images of a pool that show a concept, best first.

    Composite concepts ("haze and bare fields") need all their parts: the weakest part decides an image's place.
    Images that score the same are taken in an order shuffled by the concept's own seed, so that no concept is shown by
    the first images of the pool only.

    Args:
        pool: images to choose from, none of them in the probe.
        encoder: a CLIP (text and image tower), or a text encoder to search captions with.
        captions: one text an image of the pool; they are searched even when ``encoder`` has an image tower.
        captioner: makes the captions, once each and only when first needed, where ``captions`` are not given.
        floor: with captions, images that score less do not show the concept and are never returned, in [0, 1].
        batch_size: images captioned or embedded together.
        windows: search nine windows of every image too, each filled to full size (:class:`dnd_core.windows.Windows`), for
            concepts that cover no whole image. Makes ten images of one, with a caption each: made by ``captioner``, not given.

    Raises:
        ConfigError: a number out of range, a caption count that differs from the pool's, or nothing to search by.

    """

    def __init__(
        self,
        pool: ImageSet,
        encoder: TextEncoder,
        captions: Sequence[str] | None = None,
        captioner: Captioner | None = None,
        *,
        floor: float = 0.2,
        batch_size: int = 64,
        windows: bool = False,
    ) -> None:
        if not 0 <= floor <= 1 or batch_size < 1:
            raise ConfigError(f"pool: floor must be in [0, 1] and batch_size at least 1, got {floor} and {batch_size}")
        if captions is not None and len(captions) != len(pool):
            raise ConfigError(f"pool: {len(captions)} captions for {len(pool)} images; give one an image")
        if not isinstance(windows, bool):
            raise ConfigError(f"pool: windows must be true or false, got {windows!r}")
        if windows and captions is not None:
            raise ConfigError("pool: captions of whole images do not tell what is in their windows; give captioner=")
        self._by_sight = captions is None and isinstance(encoder, ImageEncoder)
        if captions is None and captioner is None and not self._by_sight:
            raise ConfigError("pool: an encoder without an image tower needs captions= or captioner= to search by")
        self.pool: ImageSet = Windows(pool) if windows else pool
        self.encoder, self.captioner = encoder, captioner
        self.floor, self.batch_size = floor, batch_size
        self._captions = None if captions is None else tuple(captions)
        self._scores: dict[str, NDArray[np.float32]] = {}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with the pool, its captions or captioner, the encoder and the floor."""
        words = repr(self._captions) if self._captions is not None else ""
        by = "" if self.captioner is None or self._by_sight else backend_fingerprint(self.captioner)
        parts = (self.pool.fingerprint, backend_fingerprint(self.encoder), words, by, repr(self.floor))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    def check(self) -> None:
        """Ask the encoder and the captioner whether they can run.

        Raises:
            BackendUnavailable: one of them cannot, or the pool is empty.

        """
        if not len(self.pool):
            raise BackendUnavailable("the pool of concept images is empty: hold out more of the images for it")
        for backend in (self.encoder, self.captioner):
            check = getattr(backend, "check", None)
            if check is not None:
                check()

    @property
    def captions(self) -> tuple[str, ...]:
        """One caption an image of the pool, in order; made when first asked for."""
        if self._captions is None:
            if self.captioner is None:
                raise ConfigError("pool: this pool is searched by sight and has no captions; pass captioner= for some")
            made: list[str] = []
            for batch in self._batches():
                made.extend(self.captioner.caption(batch))
            self._captions = tuple(made)
        return self._captions

    def prepare(self, concepts: Sequence[str]) -> None:
        """Score many concepts at once; :meth:`show` then only looks them up."""
        new = [concept for concept in dict.fromkeys(concepts) if concept not in self._scores]
        if new:
            table = self._seen(new) if self._by_sight else self._index.presence(new)
            self._scores.update(zip(new, np.round(table, 4), strict=True))

    def scores(self, concept: str) -> NDArray[np.float32]:
        """(N,) how well each image of the pool shows a concept: presence in [0, 1], or standard scores by sight."""
        self.prepare([concept])
        return self._scores[concept]

    def show(self, concept: str, n: int) -> list[ProbeImage]:
        """Up to ``n`` images of the pool, best first; fewer where fewer show the concept."""
        return [self.pool[index] for index in self.choose(concept, n)]

    def choose(self, concept: str, n: int) -> list[int]:
        """Indices into the pool of what :meth:`show` returns."""
        scores = self.scores(concept)
        shuffled = np.random.default_rng(zlib.crc32(concept.encode())).permutation(len(scores))
        order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
        if not self._by_sight:
            order = order[scores[order] >= max(self.floor, 1e-4)]
        return [int(index) for index in order[:n]]

    @functools.cached_property
    def _index(self) -> CaptionIndex:
        return CaptionIndex(self.captions, self.encoder, amounts=True)

    @functools.cached_property
    def _vectors(self) -> NDArray[np.float32]:
        """(N, D) image embeddings of the pool."""
        if not isinstance(self.encoder, ImageEncoder):
            raise ConfigError("pool: the encoder has no image tower")
        return np.concatenate([self.encoder.encode_images(batch) for batch in self._batches()])

    def _batches(self) -> Iterator[list[ProbeImage]]:
        count = len(self.pool)
        for start in range(0, count, self.batch_size):
            yield [self.pool[index] for index in range(start, min(start + self.batch_size, count))]

    def _seen(self, concepts: Sequence[str]) -> NDArray[np.float32]:
        parsed = [concept_parts(concept) for concept in concepts]
        texts = sorted({part.content for alternatives in parsed for parts in alternatives for part in parts})
        cosine = self.encoder.encode_texts(texts) @ self._vectors.T
        # Every text has its own level of cosine; only standard scores let two parts be compared.
        spread = np.maximum(cosine.std(axis=1, keepdims=True), 1e-6)
        standard = ((cosine - cosine.mean(axis=1, keepdims=True)) / spread).astype(np.float32)
        row_of = {text: row for row, text in enumerate(texts)}
        return np.stack([combine(alternatives, row_of, standard, -standard) for alternatives in parsed])
