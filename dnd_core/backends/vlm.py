"""Captions by any vision-language model that transformers loads as image-text-to-text with a chat template."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Unpack

from dnd_core import prompts
from dnd_core.backends.answers import clean_sentence
from dnd_core.backends.huggingface import HuggingFaceModel, HuggingFaceOptions, pictures
from dnd_core.backends.weights import fixed_batches
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage

__all__ = ["VisionLanguageModel"]


class VisionLanguageModel(HuggingFaceModel):
    """An ``AutoModelForImageTextToText`` checkpoint (SmolVLM, Qwen-VL, LLaVA, Gemma 3, ...).

    Args:
        model: a folder, or a hub id.
        prompt: what is asked about each image.
        options: revision, batch_size (4), max_new_tokens (64), device and dtype: see :class:`HuggingFaceModel`.

    """

    def __init__(
        self,
        model: str = "HuggingFaceTB/SmolVLM-500M-Instruct",
        *,
        prompt: str = prompts.CAPTION,
        **options: Unpack[HuggingFaceOptions],
    ) -> None:
        options.setdefault("batch_size", 4)
        options.setdefault("max_new_tokens", 64)
        super().__init__(model, **options)
        if not prompt.strip():
            raise ConfigError("prompt must say what is asked about an image")
        self.prompt = prompt

    def _settings(self) -> list[Any]:
        return [*super()._settings(), self.prompt]

    def check(self) -> None:
        """See :meth:`HuggingFaceModel.check`; needs a processor with a chat template too."""
        super().check()
        if getattr(self._prepared, "chat_template", None) is None:
            raise BackendUnavailable(
                f"{self.model} has no chat template, so it cannot be asked: choose an instruction-tuned model"
            )

    @functools.cached_property
    def _prepared(self) -> Any:
        from transformers import AutoProcessor

        processor = self._processor(AutoProcessor)
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise BackendUnavailable(f"{self.model} has a processor for images only: choose a vision-language model")
        # Answers follow the question only when padding stands before it.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        from transformers import AutoModelForImageTextToText

        self.check()
        module = self._load(AutoModelForImageTextToText)
        return self._prepared, module, self._generation(module, self._prepared.tokenizer)

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One caption an image, in order; empty where the model refused or said nothing.

        Raises:
            BackendUnavailable: see :meth:`check`.

        """
        import torch

        if not images:
            return []
        processor, module, generation = self._loaded
        captions: list[str] = []
        for batch, count in fixed_batches(images, self.batch_size):
            asked = self._asked(len(batch))
            inputs = processor(
                text=asked,
                images=[[picture] for picture in pictures([image.rgb for image in batch])],
                padding=True,
                return_tensors="pt",
                # Most templates write the token that begins a text themselves; a second one confuses the model.
                add_special_tokens=not asked[0].startswith(processor.tokenizer.bos_token or "\0"),
            ).to(module.device, module.dtype)
            with torch.inference_mode():
                tokens = module.generate(**inputs, generation_config=generation)
            said = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            captions += [clean_sentence(text) for text in said[:count]]
        return captions

    def _asked(self, count: int) -> list[str]:
        """The question about one image as the model's template words it, for each image of a batch."""
        content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
        chats = [[{"role": "user", "content": content}]] * count
        written: list[str] = self._prepared.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        return written
