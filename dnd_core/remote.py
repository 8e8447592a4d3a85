"""Calls to a paid or flaky service: rate limit, retries, a response cache keyed by content, and a cost ledger.

Nothing here knows an API key: a caller hands over a function that sends one request, and the
plain values that decide its answer. What is cached, logged and counted is made of those values only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnd_core.errors import BackendError, ConfigError

__all__ = ["Answer", "CostLedger", "RateLimit", "RemoteCaller", "RemoteFailure", "ResponseCache", "RetryPolicy"]

log = logging.getLogger(__name__)
CACHE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call brought: the text, tokens read and written, and how long it took in seconds."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    finish: str = ""


class RemoteFailure(Exception):
    """One call failed.

    Args:
        message: free of secrets.
        retry: whether asking again may help.
        wait_s: how long the service asked to be left alone, in seconds.

    """

    def __init__(self, message: str, *, retry: bool, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.retry, self.wait_s = retry, wait_s


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with seeded jitter.

    Attributes:
        attempts: calls made before giving up, at least 1.
        first_wait_s: longest wait before the second call; doubles from call to call.
        longest_wait_s: no own wait is longer.
        patience_s: a service that asks for a longer pause than this is given up.
        seed: decides the jitter, which lies between half and the whole of a wait.

    """

    attempts: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    patience_s: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait_s < 0 or self.longest_wait_s < self.first_wait_s:
            raise ConfigError(f"retries need attempts >= 1 and 0 <= first_wait_s <= longest_wait_s, got {self}")

    def wait(self, key: str, attempt: int, asked_s: float | None) -> float:
        """Seconds before call number ``attempt + 1`` (from 1) of the request ``key``; never less than was asked for."""
        own = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        generator = np.random.default_rng([self.seed, attempt, int(key[:15], 16)])
        return max(own * (0.5 + 0.5 * float(generator.random())), asked_s or 0.0)


class RateLimit:
    """At most so many calls a minute, evenly spaced, over all threads that share it.

    Args:
        per_minute: calls a minute; 0 for no limit.

    """

    def __init__(self, per_minute: float = 0.0) -> None:
        if per_minute < 0:
            raise ConfigError(f"requests a minute must be 0 (no limit) or more, got {per_minute}")
        self._spacing = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Block until the next call is due."""
        with self._lock:
            now = time.monotonic()
            due = max(now, self._next)
            self._next = due + self._spacing
        if due > now:
            time.sleep(due - now)


class ResponseCache:
    """Answers by the content of their requests, one file each, written aside and renamed.

    A process killed at any moment leaves whole entries only. Several processes may share a folder.

    Args:
        folder: where entries live; None keeps them in memory for the life of this object.

    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._memory: dict[str, Answer] = {}

    def _file(self, folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Answer | None:
        """The answer stored under ``key``, or None; an unreadable entry is reported and asked for again."""
        if self.folder is None:
            return self._memory.get(key)
        file = self._file(self.folder, key)
        try:
            entry = json.loads(file.read_bytes())
            return Answer(**entry["answer"]) if entry["format"] == CACHE_FORMAT else None
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("response cache entry %s is damaged (%s) and is asked for again", file.name, error)
            return None

    def put(self, key: str, model: str, answer: Answer) -> None:
        """Store an answer.

        Raises:
            BackendError: the folder cannot be written.

        """
        if self.folder is None:
            self._memory[key] = answer
            return
        file = self._file(self.folder, key)
        entry = {"format": CACHE_FORMAT, "model": model, "answer": asdict(answer)}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_aside(file, json.dumps(entry, sort_keys=True).encode())
        except OSError as error:
            raise BackendError(
                f"the response cache {self.folder} cannot be written ({error.strerror}): free space or choose another"
            ) from error

    def spent(self) -> dict[str, dict[str, float]]:
        """What all stored answers have cost, by model: calls, tokens and seconds. It outlives every process."""
        totals: dict[str, dict[str, float]] = {}
        for file in sorted(self.folder.glob("??/*.json")) if self.folder is not None else []:
            entry = json.loads(file.read_bytes())
            total = totals.setdefault(entry["model"], {"calls": 0, "tokens_in": 0, "tokens_out": 0, "seconds": 0.0})
            total["calls"] += 1
            for name in ("tokens_in", "tokens_out", "seconds"):
                total[name] += entry["answer"][name]
        return totals


def _write_aside(file: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


class CostLedger:
    """What a backend's calls have cost since it was made.

    Counts ``calls`` that were answered, ``cached_calls``, ``retries``, ``failures`` (requests given up), ``refusals``,
    ``tokens_in``, ``tokens_out`` and ``seconds`` spent waiting for answers.
    """

    _NAMES = ("calls", "cached_calls", "retries", "failures", "refusals", "tokens_in", "tokens_out", "seconds")

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._values: dict[str, float] = dict.fromkeys(self._NAMES, 0)
        self._lock = threading.Lock()

    def add(self, **amounts: float) -> None:
        """Add to the named counts."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[name] += amount

    def as_dict(self) -> dict[str, Any]:
        """The counts under their names, and the backend's."""
        with self._lock:
            return {"backend": self.backend, **self._values}

    def write(self, file: str | Path) -> None:
        """Write :meth:`as_dict` as JSON, aside and then renamed."""
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_aside(file, (json.dumps(self.as_dict(), indent=2) + "\n").encode())


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        identity: plain values that decide the answer; their hash is the cache key.
        send: sends it, once.

    """

    identity: Any
    send: Callable[[], Answer]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()


class RemoteCaller:
    """Sends requests through cache, rate limit and retries, several at a time, and keeps the ledger.

    Args:
        name: of the backend, in the ledger and in messages.
        model: under which answers are stored and summed up.
        cache: where answers are kept.
        rate: shared by all threads.
        retries: when and how often to ask again.
        concurrency: requests under way at once.

    """

    def __init__(
        self, name: str, model: str, cache: ResponseCache, rate: RateLimit, retries: RetryPolicy, concurrency: int = 4
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency must be at least 1, got {concurrency}")
        self.name, self.model, self.cache, self.rate, self.retries = name, model, cache, rate, retries
        self.concurrency = concurrency
        self.ledger = CostLedger(name)

    def call(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order. Equal requests are sent once.

        Raises:
            BackendError: a request failed for good; answers that came before it are in the cache.

        """
        distinct = {request.key: request for request in requests}
        stop = threading.Event()
        with ThreadPoolExecutor(min(self.concurrency, max(len(distinct), 1))) as pool:
            futures = {key: pool.submit(self._work, key, request, stop) for key, request in distinct.items()}
            try:
                done = {key: future.result() for key, future in futures.items()}
            except BaseException:
                # Whatever ends the batch, also Ctrl-C, must not wait for requests that were never begun.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        answers = {key: answer for key, answer in done.items() if answer is not None}
        self.ledger.add(cached_calls=len(requests) - len(distinct))
        return [answers[request.key] for request in requests]

    def _work(self, key: str, request: Request, stop: threading.Event) -> Answer | None:
        """One answer; None once another request of the batch has failed, whose error then ends the batch."""
        if stop.is_set():
            return None
        try:
            return self._one(key, request, stop)
        except BaseException:
            stop.set()
            raise

    def _one(self, key: str, request: Request, stop: threading.Event) -> Answer:
        answer = self.cache.get(key)
        if answer is not None:
            self.ledger.add(cached_calls=1)
            return answer
        attempt = 0
        while answer is None:
            attempt += 1
            self.rate.wait()
            started = time.monotonic()
            try:
                answer = request.send()
            except RemoteFailure as failure:
                self.ledger.add(seconds=time.monotonic() - started)
                if stop.wait(self._pause(key, attempt, failure)):
                    raise BackendError(f"{self.name}: {failure}; the batch had ended already") from None
        self.ledger.add(seconds=time.monotonic() - started)
        self.ledger.add(calls=1, tokens_in=answer.tokens_in, tokens_out=answer.tokens_out)
        self.cache.put(key, self.model, answer)
        return answer

    def _pause(self, key: str, attempt: int, failure: RemoteFailure) -> float:
        """Seconds until the request is sent again.

        Raises:
            BackendError: it is not: asking again cannot help, or was tried often enough.

        """
        impatient = failure.wait_s is not None and failure.wait_s > self.retries.patience_s
        if not failure.retry or attempt >= self.retries.attempts or impatient:
            self.ledger.add(failures=1)
            reason = f"asked for a pause of {failure.wait_s:.0f} s" if impatient else f"failed {attempt} time(s)"
            raise BackendError(f"{self.name}: {failure}; {reason}, so it was given up") from None
        pause = self.retries.wait(key, attempt, failure.wait_s)
        self.ledger.add(retries=1)
        log.info("%s: %s; asking again in %.1f s", self.name, failure, pause)
        return pause
