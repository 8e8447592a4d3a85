"""One model behind OpenAI's chat protocol, however it is served: calls, failures, keys and what they cost."""

from __future__ import annotations

import email.utils
import functools
import ipaddress
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit

from dnd_core.backends.answers import is_refusal
from dnd_core.backends.weights import require_package
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.remote import Answer, RateLimit, RemoteCaller, RemoteFailure, Request, ResponseCache, RetryPolicy

__all__ = ["ChatEndpoint", "EndpointBacked", "EndpointOptions"]


class EndpointOptions(TypedDict, total=False):
    """What every endpoint backend takes by name: see :class:`ChatEndpoint`."""

    base_url: str | None
    api_key_env: str
    temperature: float
    max_tokens: int
    options: Mapping[str, Any] | None
    timeout_s: float
    requests_per_minute: float
    concurrency: int
    cache_dir: str | None
    retries: int
    first_wait_s: float
    seed: int


_PUBLIC = "https://api.openai.com/v1"


class ChatEndpoint:
    """One model behind a chat-completions endpoint, through the ``openai`` SDK.

    The key is read from the environment when a call is made. It is in no attribute, cache entry, ledger or message.

    Args:
        model: its name at the endpoint.
        base_url: for instance ``http://localhost:8000/v1``; None reads ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key_env: environment variable that holds the key; a server on this machine or network needs none.
        temperature: 0 for the likeliest answer.
        max_tokens: the longest answer, in tokens.
        options: further fields of the request, as the endpoint names them; a field set to None is left out.
        timeout_s: seconds one call may take.
        requests_per_minute: rate limit; 0 for none.
        concurrency: calls under way at once.
        cache_dir: folder of stored answers; None keeps them in memory.
        retries: calls made before giving up, waiting ``first_wait_s`` and then ever longer in between.
        first_wait_s: longest wait before the second call, in seconds.
        seed: decides the jitter of waits and is sent with every request.

    Raises:
        ConfigError: a value is out of range, or the URL holds a user name or password.

    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        max_tokens: int = 64,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 60.0,
        requests_per_minute: float = 0.0,
        concurrency: int = 4,
        cache_dir: str | None = None,
        retries: int = 5,
        first_wait_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _PUBLIC
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("base_url must be an http(s) address such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ConfigError(f"base_url must not hold credentials: put the key into the variable {api_key_env}")
        if not model or temperature < 0 or max_tokens < 1 or timeout_s <= 0:
            raise ConfigError("an endpoint needs a model, temperature >= 0, max_tokens >= 1 and timeout_s > 0")
        self.model, self.base_url, self.api_key_env, self.timeout_s = model, url.rstrip("/"), api_key_env, timeout_s
        self._host = parts.hostname
        fields = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, **(options or {})}
        self.fields = {name: value for name, value in sorted(fields.items()) if value is not None}
        self.caller = RemoteCaller(
            f"endpoint {model}",
            model,
            ResponseCache(cache_dir),
            RateLimit(requests_per_minute),
            RetryPolicy(attempts=retries, first_wait_s=first_wait_s, longest_wait_s=max(60.0, first_wait_s), seed=seed),
            concurrency,
        )

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.model!r}, base_url={self.base_url!r})"

    def identity(self) -> list[Any]:
        """What decides the answers: where, which model, and every field sent along."""
        return [self.base_url, self.model, self.fields]

    def check(self) -> None:
        """Reach the endpoint with one free request (the list of its models).

        Raises:
            BackendUnavailable: the SDK or the key is missing, the endpoint does not answer, or it refuses the key.

        """
        require_package("openai", "openai")
        key = self._key()
        import openai

        try:
            self._client.with_options(timeout=min(self.timeout_s, 10.0)).models.list()
        except openai.APIConnectionError:
            raise BackendUnavailable(
                f"nothing answers at {self.base_url}: start the server, or correct base_url"
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise BackendUnavailable(
                f"{self.base_url} refused the key in {self.api_key_env}: set that variable to a valid key"
            ) from None
        except (openai.APIError, ValueError) as error:
            # Many servers offer no list of models; that they answer is all that is asked here.
            if isinstance(error, openai.InternalServerError):
                said = _without(str(error), key)
                raise BackendUnavailable(f"{self.base_url} is not working ({said}): try again later") from None

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not _is_near(self._host):
            raise BackendUnavailable(f"{self.base_url} needs a key: set the environment variable {self.api_key_env}")
        return key or "none"

    @functools.cached_property
    def _client(self) -> Any:
        import openai

        # A proxy for the wide world cannot reach a server on this machine.
        transport = openai.DefaultHttpxClient(trust_env=not _is_near(self._host))
        return openai.OpenAI(
            api_key=self._key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0, http_client=transport
        )

    def ask(self, chats: Sequence[tuple[list[dict[str, Any]], Any]], seeds: Sequence[int] | None = None) -> list[str]:
        """One answer a chat, in order; an empty text where the model refused through the protocol.

        Args:
            chats: the messages sent, and plain values that stand for them in the cache key.
            seeds: sent instead of the endpoint's own, one a chat.

        Raises:
            BackendError: a call failed for good; the message says why.
            BackendUnavailable: the key is missing.

        """
        require_package("openai", "openai")
        _ = self._client  # Made once, before threads would each make their own.
        requests = []
        for number, (messages, meaning) in enumerate(chats):
            fields = dict(self.fields)
            if seeds is not None and "seed" in fields:
                fields["seed"] = int(fields["seed"]) + seeds[number]
            identity = [self.base_url, self.model, fields, meaning]
            requests.append(Request(identity, functools.partial(self._send, messages, fields)))
        answers = self.caller.call(requests)
        self.caller.ledger.add(refusals=sum(not a.text.strip() or is_refusal(a.text) for a in answers))
        return [answer.text for answer in answers]

    def _send(self, messages: list[dict[str, Any]], fields: dict[str, Any]) -> Answer:
        import openai

        key = self._key()
        known = {name: fields[name] for name in ("temperature", "max_tokens", "seed") if name in fields}
        extra = {name: value for name, value in fields.items() if name not in known}
        started = time.monotonic()
        try:
            reply = self._client.chat.completions.create(
                model=self.model, messages=messages, extra_body=extra or None, **known
            )
        except openai.APITimeoutError:
            raise RemoteFailure(f"no answer within {self.timeout_s:g} s", retry=True) from None
        except openai.APIConnectionError:
            raise RemoteFailure(f"{self.base_url} cannot be reached", retry=True) from None
        except openai.APIStatusError as error:
            raise _failure(error, key, self.api_key_env) from None
        except (openai.OpenAIError, ValueError) as error:
            # ValueError: the SDK lets a body that is not JSON through as json.JSONDecodeError.
            raise RemoteFailure(
                f"{self.base_url} answered with something other than a chat completion ({_without(str(error), key)})",
                retry=True,
            ) from None
        return self._read(reply, time.monotonic() - started)

    def _read(self, reply: Any, seconds: float) -> Answer:
        choices = getattr(reply, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None)
        if message is None or not (text is None or isinstance(text, str)):
            raise RemoteFailure(f"{self.base_url} answered with something other than a chat completion", retry=True)
        finish = str(getattr(choice, "finish_reason", "") or "")
        refused = bool(getattr(message, "refusal", None)) or finish == "content_filter"
        used = getattr(reply, "usage", None)
        return Answer(
            text="" if refused or text is None else text,
            tokens_in=int(getattr(used, "prompt_tokens", 0) or 0),
            tokens_out=int(getattr(used, "completion_tokens", 0) or 0),
            seconds=seconds,
            finish="refusal" if refused else finish,
        )


def _failure(error: Any, key: str, variable: str) -> RemoteFailure:
    status = int(error.status_code)
    said = _without(" ".join(str(error.message).split())[:300], key)
    if status in (401, 403):
        return RemoteFailure(f"the key in {variable} was refused (HTTP {status})", retry=False)
    retry = status in (408, 409, 425, 429) or status >= 500
    asked = _retry_after(error.response.headers) if retry else None
    return RemoteFailure(f"HTTP {status}: {said}", retry=retry, wait_s=asked)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _without(text: str, key: str) -> str:
    return text.replace(key, "***") if len(key) > 4 else text


def _is_near(host: str) -> bool:
    """Whether a host is this machine or on its own network, where servers commonly ask for no key."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))


class EndpointBacked:
    """What every backend that asks a :class:`ChatEndpoint` offers."""

    def __init__(self, model: str, **endpoint: Unpack[EndpointOptions]) -> None:
        self.endpoint = ChatEndpoint(model, **endpoint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint.model!r}, base_url={self.endpoint.base_url!r})"

    def check(self) -> None:
        """See :meth:`ChatEndpoint.check`."""
        self.endpoint.check()

    def costs(self) -> dict[str, Any]:
        """What this object's calls have cost: calls, cached calls, retries, failures, refusals, tokens, seconds."""
        return self.endpoint.caller.ledger.as_dict()
