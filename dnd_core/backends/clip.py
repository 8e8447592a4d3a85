"""Image and text embeddings in one space by any open_clip model (RemoteCLIP, GeoRSCLIP, OpenAI's and LAION's ...)."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.huggingface import pictures
from dnd_core.backends.weights import (
    check_tensors,
    content_hash,
    fixed_batches,
    require_package,
    resolve_device,
    resolve_weights,
    stable_hash,
)
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage

__all__ = ["OpenClip"]

_HUB, _LOCAL = "hf-hub:", "local-dir:"


class OpenClip:
    """An open_clip model.

    Args:
        model: an architecture that open_clip knows (``ViT-B-32``), ``hf-hub:organisation/model``, or a folder with an
            ``open_clip_config.json``.
        pretrained: for an architecture, a weights file or one of open_clip's tags; else empty.
        config: JSON file of an architecture that open_clip does not bring; its name without suffix is ``model``.
        batch_size: images or texts a forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Weights are safetensors or plain-tensor files; a pickle that wants to run code is refused. An embedding does
    not depend on what is embedded beside it.

    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str = "laion2b_s34b_b79k",
        *,
        config: str | None = None,
        batch_size: int = 16,
        device: str = "auto",
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.pretrained, self.config = model, pretrained, config
        self.batch_size, self.device = batch_size, device
        self._texts: dict[str, NDArray[np.float32]] = {}

    def __repr__(self) -> str:
        return f"OpenClip({self.model!r}, {self.pretrained!r})"

    @functools.cached_property
    def path(self) -> Path:
        """The weights file, or the folder that holds configuration and weights.

        Raises:
            BackendUnavailable: it is missing and cannot be fetched, or not safe to load.
            ConfigError: open_clip knows neither the architecture nor the tag.

        """
        require_package("open_clip", "clip")
        if self.config is not None:
            self._register(Path(self.config))
        for prefix in (_HUB, _LOCAL):
            if self.model.startswith(prefix):
                return resolve_weights(self.model.removeprefix(prefix), needs=("open_clip_config.json",))
        if Path(self.model, "open_clip_config.json").is_file():
            return resolve_weights(self.model, needs=("open_clip_config.json",))
        import open_clip

        if self.model not in open_clip.list_models():
            raise ConfigError(f"open_clip has no architecture {self.model!r}: see its list_models(), or set config")
        file = Path(self.pretrained).expanduser()
        if not file.is_file():
            file = self._tagged()
        check_tensors(file)
        return file

    def _tagged(self) -> Path:
        """The file behind one of open_clip's tags, fetched when it is not in the local cache."""
        from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

        known = get_pretrained_cfg(self.model, self.pretrained)
        if not known:
            tags = ", ".join(list_pretrained_tags_by_model(self.model)) or "none"
            raise ConfigError(
                f"{self.pretrained!r} is neither a weights file nor a tag of {self.model} (tags: {tags}): give a path"
            )
        try:
            return Path(download_pretrained(known))
        except (OSError, RuntimeError) as error:
            raise BackendUnavailable(
                f"weights {self.pretrained} of {self.model} are not in the local cache and cannot be fetched: "
                f"fetch them where there is a network, or give the path of a weights file"
            ) from error

    @staticmethod
    def _register(config: Path) -> None:
        import open_clip

        if not config.is_file():
            raise ConfigError(f"no architecture file at {config}")
        if config.stem not in open_clip.list_models():
            open_clip.add_model_config(config)
        if open_clip.get_model_config(config.stem) != json.loads(config.read_text()):
            raise ConfigError(f"open_clip knows another architecture as {config.stem}: rename {config.name}")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights' content and of the architecture's name and configuration."""
        import open_clip

        weights = content_hash(self.path)
        architecture = None if self.path.is_dir() else open_clip.get_model_config(self.model)
        tag = None if self.path.is_dir() or Path(self.pretrained).expanduser().is_file() else self.pretrained
        return stable_hash("OpenClip", weights, architecture, tag)

    def check(self) -> None:
        """Look for everything that is needed, the tokenizer included, without loading the weights.

        Raises:
            BackendUnavailable: the package, the weights, the tokenizer or the device is missing, or the weights hold
                code.
            ConfigError: open_clip knows neither the architecture nor the tag.

        """
        resolve_device(self.device)
        _ = self._tokenizer

    @property
    def _name(self) -> str:
        return f"{_LOCAL}{self.path}" if self.path.is_dir() else self.model

    @functools.cached_property
    def _tokenizer(self) -> Any:
        name = self._name
        import open_clip

        try:
            return open_clip.get_tokenizer(name)
        except (OSError, ValueError) as error:
            raise BackendUnavailable(f"the tokenizer of {self.model} is not in the local cache: fetch it") from error

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        self.check()
        import open_clip

        # A tag brings its own preprocessing, so it is passed on rather than the file behind it.
        pretrained = None if self.path.is_dir() else self.pretrained
        try:
            module, _, preprocess = open_clip.create_model_and_transforms(
                self._name, pretrained=pretrained, device=resolve_device(self.device), weights_only=True
            )
        except (RuntimeError, ValueError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BackendUnavailable(f"{self!r} cannot be loaded: {reason}") from error
        return module.eval(), preprocess

    def encode_images(self, images: Sequence[ProbeImage]) -> NDArray[np.float32]:
        """(N, D) float32 rows of length one, from the images' RGB renderings.

        Raises:
            BackendUnavailable: see :meth:`check`.

        """
        import torch

        module, preprocess = self._loaded
        device = resolve_device(self.device)
        rows: list[NDArray[np.float32]] = []
        for batch, count in fixed_batches(images, self.batch_size):
            stack = torch.stack([preprocess(picture) for picture in pictures([image.rgb for image in batch])])
            with torch.inference_mode():
                features = module.encode_image(stack.to(device), normalize=True)
            rows.append(features[:count].float().cpu().numpy())
        return np.concatenate(rows) if rows else self._no_rows()

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) float32 rows of length one, in the images' space; kept in memory per distinct text.

        Raises:
            BackendUnavailable: see :meth:`check`.

        """
        import torch

        module, _ = self._loaded
        device = resolve_device(self.device)
        missing = sorted({text for text in texts if text not in self._texts})
        for batch, count in fixed_batches(missing, self.batch_size):
            with torch.inference_mode():
                features = module.encode_text(self._tokenizer(batch).to(device), normalize=True)
            self._texts.update(zip(batch[:count], features[:count].float().cpu().numpy(), strict=True))
        return np.stack([self._texts[text] for text in texts]) if texts else self._no_rows()

    def _no_rows(self) -> NDArray[np.float32]:
        width = self.encode_texts(["nothing"]).shape[1]
        return np.zeros((0, width), dtype=np.float32)
