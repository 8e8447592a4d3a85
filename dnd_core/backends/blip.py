"""Captions by BLIP, the captioner of the paper (Bai et al., TMLR 2025, section 3.2)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Unpack

from dnd_core.backends.answers import clean_sentence
from dnd_core.backends.huggingface import HuggingFaceModel, HuggingFaceOptions, pictures
from dnd_core.backends.weights import fixed_batches
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage

__all__ = ["Blip"]


class Blip(HuggingFaceModel):
    """A ``BlipForConditionalGeneration`` checkpoint.

    Args:
        model: a folder, or a hub id.
        prompt: the words a caption begins with; empty for none.
        num_beams: beams of the search; 1 is greedy.
        options: revision, batch_size (8), max_new_tokens (40), device and dtype: see :class:`HuggingFaceModel`.

    """

    _needs = ("config.json", "preprocessor_config.json|processor_config.json")

    def __init__(
        self,
        model: str = "Salesforce/blip-image-captioning-base",
        *,
        prompt: str = "",
        num_beams: int = 1,
        **options: Unpack[HuggingFaceOptions],
    ) -> None:
        super().__init__(model, **options)
        if num_beams < 1:
            raise ConfigError(f"num_beams must be at least 1, got {num_beams}")
        self.prompt, self.num_beams = prompt, num_beams

    def _settings(self) -> list[Any]:
        return [*super()._settings(), self.prompt, self.num_beams]

    def check(self) -> None:
        """See :meth:`HuggingFaceModel.check`; refuses other architectures too."""
        super().check()
        if self._configuration.model_type != "blip":
            raise BackendUnavailable(
                f"{self.model} is a {self._configuration.model_type} checkpoint, not BLIP: use VisionLanguageModel"
            )

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.check()
        return self._processor(BlipProcessor), self._load(BlipForConditionalGeneration)

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One caption an image, in order; empty where the model said nothing.

        Raises:
            BackendUnavailable: see :meth:`check`.

        """
        import torch

        if not images:
            return []
        processor, module = self._loaded
        captions: list[str] = []
        for batch, count in fixed_batches(images, self.batch_size):
            texts = {"text": [self.prompt] * len(batch)} if self.prompt else {}
            inputs = processor(images=pictures([image.rgb for image in batch]), return_tensors="pt", **texts)
            inputs = inputs.to(module.device, module.dtype)
            with torch.inference_mode():
                tokens = module.generate(
                    **inputs, max_new_tokens=self.max_new_tokens, num_beams=self.num_beams, do_sample=False
                )
            said = processor.batch_decode(tokens, skip_special_tokens=True)
            captions += [clean_sentence(text) for text in said[:count]]
        return captions
