"""What the transformers backends share: finding, hashing and loading a checkpoint, and decoding with it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.weights import (
    content_hash,
    quiet_loading,
    resolve_device,
    resolve_dtype,
    resolve_weights,
    stable_hash,
    weight_files,
)
from dnd_core.errors import BackendUnavailable, ConfigError

__all__ = ["HuggingFaceModel", "HuggingFaceOptions", "pictures"]


class HuggingFaceOptions(TypedDict, total=False):
    """What every transformers backend takes by name: see :class:`HuggingFaceModel`."""

    revision: str | None
    batch_size: int
    max_new_tokens: int
    device: str
    dtype: str


class HuggingFaceModel:
    """A checkpoint that transformers loads, found at check time and loaded at first use.

    Args:
        model: a folder, or a hub id.
        revision: branch, tag or commit on the hub.
        batch_size: inputs a forward pass.
        max_new_tokens: the longest answer, in tokens.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto`` (float32 on a CPU, else bfloat16), ``float32``, ``float16`` or ``bfloat16``.

    """

    _needs: tuple[str, ...] = ("config.json",)
    _extra: tuple[str, ...] = ()

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        batch_size: int = 8,
        max_new_tokens: int = 40,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        if batch_size < 1 or max_new_tokens < 1:
            raise ConfigError(f"batch_size and max_new_tokens must be at least 1, got {batch_size}, {max_new_tokens}")
        self.model, self.revision = model, revision
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.device, self.dtype = device, dtype

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    @functools.cached_property
    def path(self) -> Path:
        """The checkpoint's folder.

        Raises:
            BackendUnavailable: it is missing and cannot be fetched, or it is not whole.

        """
        return resolve_weights(self.model, needs=self._needs, revision=self.revision, extra=self._extra)

    def _weights_hash(self) -> str:
        return content_hash(self.path)

    def _settings(self) -> list[Any]:
        """What decides the answers besides the weights."""
        return [self.max_new_tokens, self.dtype]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights' content and of every setting that decides the answers; the device is not among them."""
        return stable_hash(type(self).__name__, self._weights_hash(), self._settings())

    def check(self) -> None:
        """Look for everything that is needed, without loading the weights.

        Raises:
            BackendUnavailable: a package, the weights or the device is missing, the weights are cut off, or
                this version of transformers does not know the architecture.

        """
        resolve_dtype(self.dtype, resolve_device(self.device))
        _ = self._configuration

    @functools.cached_property
    def _configuration(self) -> Any:
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
        except (ValueError, OSError) as error:
            raise BackendUnavailable(
                f"{self.model} is of no architecture that the installed transformers knows, and code from checkpoints "
                f"is never run: choose another model or a newer transformers"
            ) from error

    def _load(self, loader: Any, **options: Any) -> Any:
        """A model in evaluation mode on its device.

        Raises:
            BackendUnavailable: the weights do not fit the class.

        """
        device = resolve_device(self.device)
        safe = any(file.suffix == ".safetensors" for file in weight_files(self.path))
        if safe:
            options["use_safetensors"] = True
        try:
            with quiet_loading():
                module = loader.from_pretrained(
                    self.path,
                    local_files_only=True,
                    trust_remote_code=False,
                    dtype=resolve_dtype(self.dtype, device),
                    **options,
                )
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BackendUnavailable(f"{self.model} cannot be loaded as {loader.__name__}: {reason}") from error
        return module.to(device).eval()

    def _processor(self, loader: Any, **options: Any) -> Any:
        """A tokenizer or processor from the checkpoint's folder.

        Raises:
            BackendUnavailable: its files are missing or damaged.

        """
        try:
            return loader.from_pretrained(self.path, local_files_only=True, trust_remote_code=False, **options)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise BackendUnavailable(f"{self.model} has no usable {loader.__name__} files: fetch it again") from error

    def _generation(self, module: Any, tokenizer: Any, *, temperature: float = 0.0) -> Any:
        """Decoding settings that do not depend on what the checkpoint's own settings happen to be."""
        from transformers import GenerationConfig

        own = module.generation_config
        end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        first_end = end[0] if isinstance(end, (list, tuple)) else end
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else first_end
        sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature > 0 else {}
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self.max_new_tokens,
            do_sample=temperature > 0,
            num_beams=1,
            bos_token_id=own.bos_token_id,
            eos_token_id=end,
            pad_token_id=padding,
            decoder_start_token_id=own.decoder_start_token_id,
            **sampling,
        )


def pictures(rgb: Sequence[NDArray[np.uint8]]) -> list[Any]:
    """PIL images of (H, W, 3) uint8 renderings."""
    from PIL import Image

    return [Image.fromarray(np.ascontiguousarray(image)) for image in rgb]
