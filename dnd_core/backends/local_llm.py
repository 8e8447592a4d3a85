"""Candidate labels by a causal language model on this machine, also from a GGUF file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from dnd_core.backends.huggingface import HuggingFaceModel, HuggingFaceOptions
from dnd_core.backends.prompted import PromptedOptions, PromptedSummarizer
from dnd_core.backends.weights import content_hash, require_package
from dnd_core.errors import BackendError, BackendUnavailable, ConfigError
from dnd_core.prompts import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["LocalLanguageModel"]


class LocalOptions(HuggingFaceOptions, PromptedOptions, total=False):
    """What :class:`LocalLanguageModel` hands on."""


class LocalLanguageModel(PromptedSummarizer, HuggingFaceModel):
    """An ``AutoModelForCausalLM`` checkpoint.

    A tokenizer with a chat template is asked in turns; any other model completes running text with worked examples.

    Args:
        model: a folder, a hub id, or the path of a GGUF file.
        gguf_file: name of a GGUF file inside the folder or hub repository.
        temperature: 0 always takes the likeliest token; above, tokens are drawn with the evidence's seed.
        options: revision, batch_size (8; prompts a forward pass where nothing is drawn), max_new_tokens (24), device and
            dtype: see :class:`HuggingFaceModel`; domain, simplify, contrast_shown, encoder and same_meaning: see
            :class:`PromptedSummarizer`.

    """

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-1.5B-Instruct",
        *,
        gguf_file: str | None = None,
        temperature: float = 0.0,
        **options: Unpack[LocalOptions],
    ) -> None:
        file = Path(model).expanduser()
        if gguf_file is None and file.suffix == ".gguf":
            model, gguf_file = str(file.parent), file.name
        options.setdefault("max_new_tokens", 24)
        super().__init__(model, **options)
        if temperature < 0:
            raise ConfigError(f"temperature must be 0 or more, got {temperature}")
        self.gguf_file, self.temperature = gguf_file, temperature
        if gguf_file is not None:
            self._needs, self._extra = (gguf_file,), (gguf_file,)

    def __repr__(self) -> str:
        return f"LocalLanguageModel({str(Path(self.model, self.gguf_file)) if self.gguf_file else self.model!r})"

    def _weights_hash(self) -> str:
        # A folder may hold several quantisations; only the one that is loaded decides the answers.
        return content_hash(self.path / self.gguf_file) if self.gguf_file else super()._weights_hash()

    def _settings(self) -> list[Any]:
        return [*HuggingFaceModel._settings(self), *self._identity(), self.temperature]

    def check(self) -> None:
        """See :meth:`HuggingFaceModel.check`; a GGUF file needs the packages ``gguf`` and ``accelerate`` too."""
        if self.gguf_file is None:
            super().check()
            _ = self._tokenizer
            return
        require_package("gguf", "gguf")
        require_package("accelerate", "gguf")
        with (self.path / self.gguf_file).open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise BackendUnavailable(f"{self.path / self.gguf_file} is not a GGUF file: fetch it again")

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = self._processor(AutoTokenizer, **self._gguf_options())
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _gguf_options(self) -> dict[str, str]:
        return {"gguf_file": self.gguf_file} if self.gguf_file else {}

    @functools.cached_property
    def _module(self) -> Any:
        from transformers import AutoModelForCausalLM

        self.check()
        return self._load(AutoModelForCausalLM, **self._gguf_options())

    def _written(self, question: Prompt) -> str:
        if self._tokenizer.chat_template is None:
            return question.text()
        return str(
            self._tokenizer.apply_chat_template(
                question.messages(), add_generation_prompt=True, tokenize=False, enable_thinking=False
            )
        )

    def _answers(self, questions: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        if not questions:
            return []
        texts = [self._written(question) for question in questions]
        if self.temperature > 0:
            return [self._complete([text], seed)[0] for text, seed in zip(texts, seeds, strict=True)]
        # Prompts of like length share a batch, so that little is padded; answers go back to their places.
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        answers = [""] * len(texts)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            for place, answer in zip(places, self._complete([texts[i] for i in places], 0), strict=True):
                answers[place] = answer
        return answers

    def _complete(self, texts: Sequence[str], seed: int) -> list[str]:
        import torch

        module, tokenizer = self._module, self._tokenizer
        chat = tokenizer.chat_template is not None
        inputs = tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=not chat)
        inputs = {name: inputs[name].to(module.device) for name in ("input_ids", "attention_mask")}
        length = int(inputs["input_ids"].shape[1])
        room = getattr(module.config.get_text_config(), "max_position_embeddings", None)
        if room is not None and length + self.max_new_tokens > room:
            raise BackendError(
                f"{self!r}: a prompt of {length} tokens and an answer of {self.max_new_tokens} do not fit the model's "
                f"{room}: lower contrast_shown, or use a model with a longer context"
            )
        generation = self._generation(module, tokenizer, temperature=self.temperature)
        # Running text goes on with the next example; the answer ends with its line.
        stop = {} if chat else {"stopping_criteria": [_line_ends(tokenizer, length)]}
        devices = [module.device] if module.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            tokens = module.generate(**inputs, generation_config=generation, **stop)
        said: list[str] = tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
        return said if chat else [text.strip().split("\n")[0] for text in said]


def _line_ends(tokenizer: Any, start: int) -> Callable[..., torch.Tensor]:
    """Stops each row of a batch once its answer, which begins at token ``start``, has reached the end of a line."""
    import torch

    def ended(tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        said = tokenizer.batch_decode(tokens[:, start:], skip_special_tokens=True)
        return torch.tensor(["\n" in text.lstrip() for text in said], device=tokens.device)

    return ended
