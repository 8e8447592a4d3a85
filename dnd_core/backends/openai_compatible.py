"""Captions and candidate labels from an endpoint that speaks OpenAI's chat protocol: vLLM, Ollama, a hosted service."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from dnd_core import prompts
from dnd_core.backends.answers import clean_sentence
from dnd_core.backends.endpoint import ChatEndpoint, EndpointBacked
from dnd_core.backends.huggingface import pictures
from dnd_core.backends.prompted import PromptedSummarizer
from dnd_core.backends.weights import stable_hash
from dnd_core.errors import ConfigError
from dnd_core.images import ProbeImage
from dnd_core.prompts import Prompt
from dnd_core.protocols import TextEncoder

__all__ = ["EndpointCaptioner", "EndpointSummarizer"]


class EndpointCaptioner(EndpointBacked):
    """Captions by a vision model behind a chat endpoint; each image is sent as a PNG.

    Args:
        model: its name at the endpoint.
        prompt: what is asked about each image.
        base_url, api_key_env, temperature, max_tokens, options, timeout_s, requests_per_minute, concurrency, cache_dir,
            retries, first_wait_s, seed: see :class:`ChatEndpoint`.

    """

    def __init__(
        self,
        model: str = "gpt-4o-mini",
        *,
        prompt: str = prompts.CAPTION,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        max_tokens: int = 120,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 60.0,
        requests_per_minute: float = 0.0,
        concurrency: int = 4,
        cache_dir: str | None = None,
        retries: int = 5,
        first_wait_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not prompt.strip():
            raise ConfigError("prompt must say what is asked about an image")
        self.prompt = prompt
        self.endpoint = ChatEndpoint(
            model,
            base_url=base_url,
            api_key_env=api_key_env,
            temperature=temperature,
            max_tokens=max_tokens,
            options=options,
            timeout_s=timeout_s,
            requests_per_minute=requests_per_minute,
            concurrency=concurrency,
            cache_dir=cache_dir,
            retries=retries,
            first_wait_s=first_wait_s,
            seed=seed,
        )

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


class EndpointSummarizer(EndpointBacked, PromptedSummarizer):
    """Candidate labels by a language model behind a chat endpoint.

    Args:
        model: its name at the endpoint.
        domain, simplify, contrast_shown, encoder, same_meaning: see :class:`PromptedSummarizer`.
        base_url, api_key_env, temperature, max_tokens, options, timeout_s, requests_per_minute, concurrency, cache_dir,
            retries, first_wait_s, seed: see :class:`ChatEndpoint`.

    """

    def __init__(
        self,
        model: str = "gpt-4o-mini",
        *,
        domain: str = "",
        simplify: bool = True,
        contrast_shown: int = 10,
        encoder: TextEncoder | None = None,
        same_meaning: float = 0.85,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        max_tokens: int = 32,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 60.0,
        requests_per_minute: float = 0.0,
        concurrency: int = 4,
        cache_dir: str | None = None,
        retries: int = 5,
        first_wait_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            domain=domain,
            simplify=simplify,
            contrast_shown=contrast_shown,
            encoder=encoder,
            same_meaning=same_meaning,
        )
        self.endpoint = ChatEndpoint(
            model,
            base_url=base_url,
            api_key_env=api_key_env,
            temperature=temperature,
            max_tokens=max_tokens,
            options=options,
            timeout_s=timeout_s,
            requests_per_minute=requests_per_minute,
            concurrency=concurrency,
            cache_dir=cache_dir,
            retries=retries,
            first_wait_s=first_wait_s,
            seed=seed,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the endpoint, the model, the prompts' version and every setting and field sent."""
        return stable_hash("EndpointSummarizer", self.endpoint.identity(), self._identity())

    def _answers(self, questions: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        return self.endpoint.ask([(m, m) for m in (question.messages() for question in questions)], seeds)
