"""Captions and candidate labels from an endpoint that speaks OpenAI's chat protocol: vLLM, Ollama, a hosted service."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from collections.abc import Sequence
from typing import Any, Unpack

from dnd_core import prompts
from dnd_core.backends.answers import clean_sentence
from dnd_core.backends.endpoint import EndpointBacked, EndpointOptions
from dnd_core.backends.huggingface import pictures
from dnd_core.backends.prompted import PromptedOptions, PromptedSummarizer
from dnd_core.backends.weights import stable_hash
from dnd_core.errors import ConfigError
from dnd_core.images import ProbeImage
from dnd_core.prompts import Prompt

__all__ = ["EndpointCaptioner", "EndpointSummarizer"]


class EndpointCaptioner(EndpointBacked):
    """Captions by a vision model behind a chat endpoint; each image is sent as a PNG.

    Args:
        model: its name at the endpoint.
        prompt: what is asked about each image.
        endpoint: max_tokens (120) and the other options of :class:`ChatEndpoint`.

    """

    def __init__(
        self,
        model: str = "gpt-4o-mini",
        *,
        prompt: str = prompts.CAPTION,
        **endpoint: Unpack[EndpointOptions],
    ) -> None:
        if not prompt.strip():
            raise ConfigError("prompt must say what is asked about an image")
        endpoint.setdefault("max_tokens", 120)
        super().__init__(model, **endpoint)
        self.prompt = prompt

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the endpoint, the model, the prompt and every field sent."""
        return stable_hash("EndpointCaptioner", self.endpoint.identity(), self.prompt)

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One caption an image, in order; empty where the model refused or said nothing.

        Raises:
            BackendError: a call failed for good.
            BackendUnavailable: the key is missing.

        """
        chats: list[tuple[list[dict[str, Any]], Any]] = []
        for image, picture in zip(images, pictures([image.rgb for image in images]), strict=True):
            stream = io.BytesIO()
            picture.save(stream, format="PNG")
            url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
            content = [{"type": "text", "text": self.prompt}, {"type": "image_url", "image_url": {"url": url}}]
            # Pixels stand in the cache key, not the PNG, whose bytes change with the compression library.
            seen = hashlib.sha256(repr(image.rgb.shape).encode() + image.rgb.tobytes()).hexdigest()
            chats.append(([{"role": "user", "content": content}], ["caption", self.prompt, seen]))
        return [clean_sentence(text) for text in self.endpoint.ask(chats)]


class SummarizerOptions(EndpointOptions, PromptedOptions, total=False):
    """What :class:`EndpointSummarizer` hands on."""


class EndpointSummarizer(PromptedSummarizer, EndpointBacked):
    """Candidate labels by a language model behind a chat endpoint.

    Args:
        model: its name at the endpoint.
        options: those of :class:`PromptedSummarizer`, max_tokens (32) and the other options of :class:`ChatEndpoint`.

    """

    def __init__(self, model: str = "gpt-4o-mini", **options: Unpack[SummarizerOptions]) -> None:
        options.setdefault("max_tokens", 32)
        super().__init__(model, **options)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the endpoint, the model, the prompts' version and every setting and field sent."""
        return stable_hash("EndpointSummarizer", self.endpoint.identity(), self._identity())

    def _answers(self, questions: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        return self.endpoint.ask([(m, m) for m in (question.messages() for question in questions)], seeds)
