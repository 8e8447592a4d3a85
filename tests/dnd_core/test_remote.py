"""Cache, rate limit, retries and ledger, without any service."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dnd_core.errors import BackendError, ConfigError
from dnd_core.remote import (
    Answer,
    CostLedger,
    RateLimit,
    RemoteCaller,
    RemoteFailure,
    Request,
    ResponseCache,
    RetryPolicy,
)

KEY = "ab" * 32
WRITER = """
import sys
from dnd_core.remote import Answer, ResponseCache
cache = ResponseCache(sys.argv[1])
for number in range(10**6):
    cache.put(f"{number % 50:064x}", "m", Answer("word " * 20_000, number))
    print(flush=True)
"""


def test_a_killed_process_leaves_whole_entries_only(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(float(generator.uniform(0.01, 0.08)))
        writer.kill()
        writer.wait()
        writer.stdout.close()
        cache = ResponseCache(tmp_path)
        entries = sorted(tmp_path.glob("??/*.json"))
        assert entries
        for entry in entries:
            answer = cache.get(entry.stem)
            assert answer is not None
            assert len(answer.text) == 100_000
        assert cache.spent()["m"]["calls"] == len(entries)


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BackendError, match="cannot be written"):
        ResponseCache(blocked).put(KEY, "m", Answer("a"))


def test_entries_of_another_format_are_not_used(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    cache.put(KEY, "m", Answer("a", 1, 2, 0.5, "stop"))
    assert cache.get(KEY) == Answer("a", 1, 2, 0.5, "stop")
    (file,) = tmp_path.glob("??/*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 0}))
    assert cache.get(KEY) is None
    assert ResponseCache().get(KEY) is None


def test_waits_double_jitter_with_the_seed_and_respect_the_service() -> None:
    policy = RetryPolicy(first_wait_s=1, longest_wait_s=5)
    waits = [policy.wait(KEY, attempt, None) for attempt in range(1, 6)]
    for wait, most in zip(waits, (1, 2, 4, 5, 5), strict=True):
        assert most / 2 <= wait <= most
    assert waits == [policy.wait(KEY, attempt, None) for attempt in range(1, 6)]
    assert waits[0] != RetryPolicy(seed=1).wait(KEY, 1, None)
    assert waits[0] != policy.wait("cd" * 32, 1, None)
    assert policy.wait(KEY, 1, 7.5) == 7.5
    assert policy.wait(KEY, 1, 0.0) == waits[0]
    with pytest.raises(ConfigError):
        RetryPolicy(first_wait_s=2, longest_wait_s=1)


def test_calls_are_spaced_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def times(limit: RateLimit, busy: Sequence[float]) -> list[float]:
        found = []
        for seconds in busy:
            limit.wait()
            found.append(clock[0])
            clock[0] += seconds
        return [round(moment - found[0], 6) for moment in found]

    assert times(RateLimit(per_minute=1200), [0, 0, 0, 0]) == [0, 0.05, 0.10, 0.15]
    # Work between calls counts as waiting; a pause is not made up for by a rush.
    assert times(RateLimit(per_minute=1200), [0.02, 0.2, 0, 0]) == [0, 0.05, 0.25, 0.30]
    assert times(RateLimit(), [0] * 100) == [0] * 100


def caller(**options: int) -> RemoteCaller:
    policy = RetryPolicy(attempts=3, first_wait_s=0.01)
    return RemoteCaller("eye", "m", ResponseCache(), RateLimit(), policy, **options)


def test_equal_requests_are_sent_once_and_order_is_kept() -> None:
    sent: list[int] = []

    def send(number: int) -> Answer:
        sent.append(number)
        time.sleep(0.002 * (5 - number))
        return Answer(str(number), 1, 1)

    one = caller(concurrency=3)
    requests = [Request(["q", number], lambda number=number: send(number)) for number in (1, 2, 1, 3, 2)]
    assert [answer.text for answer in one.call(requests)] == ["1", "2", "1", "3", "2"]
    assert sorted(sent) == [1, 2, 3]
    assert one.ledger.as_dict()["cached_calls"] == 2
    assert one.call([]) == []


def test_a_failure_ends_the_batch_and_keeps_what_was_answered() -> None:
    sent: list[int] = []

    def send(number: int) -> Answer:
        sent.append(number)
        if number == 2:
            raise RemoteFailure("broken", retry=False)
        return Answer(str(number))

    one = caller(concurrency=1)
    requests = [Request(number, lambda number=number: send(number)) for number in range(50)]
    with pytest.raises(BackendError, match="eye: broken; failed 1 time"):
        one.call(requests)
    assert len(sent) < 50
    assert one.cache.get(requests[0].key) == Answer("0")
    assert one.ledger.as_dict()["failures"] == 1


def test_the_ledger_is_written_as_json(tmp_path: Path) -> None:
    ledger = CostLedger("eye")
    ledger.add(calls=2, tokens_in=10, seconds=0.5)
    ledger.write(tmp_path / "deep" / "costs.json")
    assert json.loads((tmp_path / "deep" / "costs.json").read_text()) == ledger.as_dict()
    assert ledger.as_dict()["tokens_in"] == 10
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["costs.json"]


def test_backends_are_made_without_their_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "from dnd_core.backends import blip, clip, local_llm, openai_compatible, sentences, text_to_image, vlm\n"
        "blip.Blip(), vlm.VisionLanguageModel(), local_llm.LocalLanguageModel(), text_to_image.TextToImage()\n"
        "clip.OpenClip(), sentences.SentenceEncoder(), openai_compatible.EndpointCaptioner()\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'open_clip', 'openai', 'sentence_transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
