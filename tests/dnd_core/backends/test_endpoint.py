"""The endpoint backends against a real HTTP server that answers, is slow, fails, refuses and talks garbage."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dnd_core.backends.openai_compatible import EndpointCaptioner, EndpointSummarizer
from dnd_core.backends.sentences import SentenceEncoder
from dnd_core.errors import BackendError, BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage
from dnd_core.protocols import Captioner, Evidence, Summarizer
from tests.dnd_core.backends.chat_server import KEY, Reply, Server, completion, failure


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = Server()
    yield server
    server.stop()


def captioner(server: Server, **options: Any) -> EndpointCaptioner:
    return EndpointCaptioner("eye", base_url=server.url, first_wait_s=0.02, **options)


def summarizer(server: Server, **options: Any) -> EndpointSummarizer:
    return EndpointSummarizer("mouth", base_url=server.url, first_wait_s=0.02, **options)


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def test_each_image_is_sent_whole_and_answers_keep_their_places(server: Server, images: list[ProbeImage]) -> None:
    def describe(body: dict[str, Any]) -> Reply:
        text, picture = body["messages"][0]["content"]
        assert text["type"] == "text"
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
        red, green, blue = np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist()
        time.sleep(0.002 * (red % 5))
        return completion(f"pixel {red} {green} {blue}")

    server.answer = describe
    eye = captioner(server)
    assert isinstance(eye, Captioner)
    eye.check()
    expected = [f"pixel {' '.join(map(str, image.rgb[0, 0].tolist()))}" for image in images]
    assert eye.caption(images) == expected
    costs = eye.costs()
    assert (costs["calls"], costs["cached_calls"], costs["tokens_in"], costs["tokens_out"]) == (5, 0, 35, 15)
    assert costs["seconds"] > 0
    assert eye.caption(images[:2]) == expected[:2]
    assert eye.costs()["cached_calls"] == 2
    assert len(server.bodies) == 5
    assert server.keys == {f"Bearer {KEY}"}


def test_overload_and_errors_are_waited_out(server: Server, images: list[ProbeImage]) -> None:
    server.in_turn(failure(429, Retry_After="0.4"), failure(500), failure(503), completion("at last"))
    eye = captioner(server)
    assert eye.caption(images[:1]) == ["at last"]
    assert server.times[1] - server.times[0] >= 0.4
    assert eye.costs()["retries"] == 3
    assert eye.costs()["calls"] == 1


def test_a_service_that_stays_down_is_given_up_in_words(server: Server, images: list[ProbeImage]) -> None:
    server.in_turn(failure(500, "the model crashed"))
    eye = captioner(server, retries=3)
    with pytest.raises(BackendError, match=r"endpoint eye: HTTP 500: .*the model crashed.*failed 3 time"):
        eye.caption(images[:1])
    assert len(server.bodies) == 3
    assert eye.costs()["failures"] == 1


def test_an_hour_long_pause_is_not_waited_for(server: Server, images: list[ProbeImage]) -> None:
    server.in_turn(failure(429, Retry_After="3600"))
    with pytest.raises(BackendError, match="asked for a pause of 3600 s"):
        captioner(server).caption(images[:1])
    assert len(server.bodies) == 1


def test_slow_answers_time_out_and_are_asked_for_again(server: Server, images: list[ProbeImage]) -> None:
    over, first = threading.Event(), threading.Lock()

    def slow_once(body: dict[str, Any]) -> Reply:
        if first.acquire(blocking=False):
            over.wait()
        return completion("a field")

    server.answer = slow_once
    # On a busy machine a prompt answer may come late too: many tries, and at least one of them in vain.
    eye = captioner(server, timeout_s=0.5, retries=50)
    assert eye.caption(images[:1]) == ["a field"]
    assert eye.costs()["retries"] >= 1
    server.answer = lambda body: (over.wait(), completion("late"))[1]
    with pytest.raises(BackendError, match=r"no answer within 0\.2 s; failed 2 time"):
        captioner(server, timeout_s=0.2, retries=2).caption(images[:1])
    over.set()


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"Content_Type": "text/html"}, b"<html>proxy error</html>"),
        (200, {}, b"{not json"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": null}]}'),
        (200, {}, b'{"choices": [{"message": {"content": 3}}]}'),
        (200, {}, b"[1, 2]"),
        (200, {}, b""),
    ],
)
def test_garbage_is_an_error_and_is_never_stored(
    server: Server, images: list[ProbeImage], tmp_path: Path, reply: Reply
) -> None:
    server.in_turn(reply, reply, completion("a field"))
    with pytest.raises(BackendError, match="something other than a chat completion"):
        captioner(server, retries=2, cache_dir=str(tmp_path)).caption(images[:1])
    assert list(tmp_path.rglob("*.json")) == []
    assert captioner(server, retries=2, cache_dir=str(tmp_path)).caption(images[:1]) == ["a field"]


def test_a_wrong_request_is_not_repeated(server: Server, images: list[ProbeImage]) -> None:
    server.in_turn(failure(404, "the model eye does not exist"))
    with pytest.raises(BackendError, match=r"HTTP 404: .*does not exist"):
        captioner(server).caption(images[:1])
    assert len(server.bodies) == 1


def test_refusals_and_empty_answers_are_empty_captions(server: Server, images: list[ProbeImage]) -> None:
    server.in_turn(
        completion("I'm sorry, but I can't help with that."),
        completion(None, refusal="no"),
        completion(""),
        completion("As an AI, I cannot see images."),
        completion("a field"),
    )
    eye = captioner(server, concurrency=1)
    assert eye.caption(images) == ["", "", "", "", "a field"]
    assert eye.costs()["refusals"] == 4


def test_the_cache_is_keyed_by_content_and_outlives_the_process(
    server: Server, images: list[ProbeImage], tmp_path: Path
) -> None:
    first = captioner(server, cache_dir=str(tmp_path))
    first.caption(images)
    again = captioner(server, cache_dir=str(tmp_path))
    again.caption(images[::-1])
    assert len(server.bodies) == 5
    assert again.costs()["cached_calls"] == 5
    captioner(server, cache_dir=str(tmp_path), prompt="What is this?").caption(images[:1])
    captioner(server, cache_dir=str(tmp_path), temperature=0.5).caption(images[:1])
    captioner(server, cache_dir=str(tmp_path), options={"detail": "low"}).caption(images[:1])
    EndpointCaptioner("other", base_url=server.url, cache_dir=str(tmp_path)).caption(images[:1])
    assert len(server.bodies) == 9
    spent = first.endpoint.caller.cache.spent()
    assert spent["eye"]["calls"] == 8
    assert spent["eye"]["tokens_in"] == 56
    assert spent["other"]["tokens_out"] == 3


def test_a_damaged_entry_is_reported_and_asked_for_again(
    server: Server, images: list[ProbeImage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captioner(server, cache_dir=str(tmp_path)).caption(images[:1])
    (entry,) = tmp_path.rglob("*.json")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    assert captioner(server, cache_dir=str(tmp_path)).caption(images[:1]) == ["a red field"]
    assert "is damaged" in caplog.text
    assert json.loads(entry.read_bytes())["answer"]["text"] == "a red field"


def test_the_key_is_nowhere_but_in_the_header(
    server: Server, images: list[ProbeImage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.in_turn(failure(429), completion("a field"))
    eye = captioner(server, cache_dir=str(tmp_path / "cache"))
    eye.caption(images[:1])
    eye.endpoint.caller.ledger.write(tmp_path / "costs.json")
    server.in_turn(failure(400, f"bad request with key {KEY}"))
    with pytest.raises(BackendError) as raised:
        eye.caption(images[1:2])
    assert raised.value.__cause__ is None
    written = "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    told = [repr(eye), repr(eye.endpoint), eye.fingerprint, str(eye.costs()), str(raised.value), caplog.text, written]
    assert json.loads((tmp_path / "costs.json").read_text())["retries"] == 1
    assert server.keys == {f"Bearer {KEY}"}
    assert [KEY in text for text in told] == [False] * len(told)


def test_a_refused_or_missing_key_is_found_before_the_job(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.models = failure(401, f"Incorrect API key provided: {KEY}")
    with pytest.raises(BackendUnavailable, match="refused the key in OPENAI_API_KEY") as raised:
        captioner(server).check()
    assert KEY not in str(raised.value)
    server.models = failure(404)
    captioner(server).check()
    monkeypatch.delenv("OPENAI_API_KEY")
    captioner(server).check()
    with pytest.raises(BackendUnavailable, match="set the environment variable MY_KEY"):
        EndpointCaptioner("eye", base_url="https://vision.example.com/v1", api_key_env="MY_KEY").check()


def test_a_server_that_is_not_there_is_found_before_the_job(server: Server, images: list[ProbeImage]) -> None:
    eye = captioner(server, retries=2)
    server.stop()
    with pytest.raises(BackendUnavailable, match="nothing answers at http://127"):
        eye.check()
    with pytest.raises(BackendError, match="cannot be reached"):
        eye.caption(images[:1])


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "http://user:word@localhost/v1"},
        {"base_url": "localhost:8000"},
        {"timeout_s": 0},
        {"retries": 0},
        {"concurrency": 0},
        {"requests_per_minute": -1},
        {"max_tokens": 0},
        {"prompt": " "},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EndpointCaptioner("eye", **options)


def test_calls_keep_to_the_rate_limit(server: Server, images: list[ProbeImage]) -> None:
    eye = captioner(server, requests_per_minute=600, concurrency=4)
    eye.caption(images[:1])
    server.times.clear()
    started = time.monotonic()
    eye.caption(images)
    # Four calls, the first due at once: the last may not leave before three spacings have passed.
    assert len(server.times) == 4
    assert max(server.times) - started >= 0.3


def test_captions_are_shortened_then_named_in_several_orders(server: Server) -> None:
    def speak(body: dict[str, Any]) -> Reply:
        asked = question(body)
        if asked.startswith("Caption:"):
            return completion(asked.removeprefix("Caption: a photo of ").upper())
        lines = [line for line in asked.splitlines() if line.startswith("- ")]
        return completion(f"Label: {lines[0][2:]}")

    server.answer = speak
    mouth = summarizer(server, domain="satellite images")
    assert isinstance(mouth, Summarizer)
    captions = tuple(f"a photo of {thing}" for thing in ("water", "sand", "grass", "snow"))
    evidence = Evidence(captions, contrast=("a photo of roads",), seed=4, meaning=1)
    (candidates,) = mouth.propose([evidence], 5)
    shortened = [body for body in server.bodies if question(body).startswith("Caption:")]
    named = [body for body in server.bodies if "Group:" in question(body)]
    assert len(shortened) == 5
    assert len(named) == 5
    assert len({question(body) for body in named}) == 5
    assert all(question(body).endswith("Other images:\n- ROADS") for body in named)
    assert all("satellite images" in body["messages"][0]["content"] for body in server.bodies)
    assert all(sorted(question(body).split("\n")[1:5]) == ["- GRASS", "- SAND", "- SNOW", "- WATER"] for body in named)
    assert sum(candidate.support for candidate in candidates) == 5
    assert {candidate.label for candidate in candidates} <= {"water", "sand", "grass", "snow"}
    assert [c.support for c in candidates] == sorted((c.support for c in candidates), reverse=True)
    assert all(candidate.meaning == 1 and candidate.contrast > 0 for candidate in candidates)
    assert summarizer(server, domain="satellite images").propose([evidence], 5) == [candidates]


def test_refusals_are_never_candidates_and_a_silent_unit_has_none(server: Server) -> None:
    said = iter(
        [
            "I'm sorry, I can't determine that.",
            "",
            "It is impossible to tell what these images have in common from the short captions.",
            "There is no clear common theme.",
            "bright water",
        ]
    )
    server.answer = lambda body: completion(next(said))
    mouth = summarizer(server, simplify=False, concurrency=1)
    evidence = Evidence(("blue water", "green water", "dark water"))
    (candidates,) = mouth.propose([evidence], 5)
    assert [(c.label, c.support) for c in candidates] == [("bright water", 1)]
    assert mouth.refused == 4
    server.answer = lambda body: completion("As an AI language model, I cannot see images.")
    assert summarizer(server).propose([evidence, Evidence(("",))], 3) == [[], []]


def test_labels_of_one_meaning_are_merged_by_an_encoder(server: Server) -> None:
    said = ["Dense forest.", "dense FOREST", '"a dense forest"', "dense forests", "parking lot"]
    answers = iter(said * 2)
    server.answer = lambda body: completion(next(answers))
    evidence = Evidence(("trees", "wood", "pines"), contrast=("cars",))
    (plain,) = summarizer(server, simplify=False, concurrency=1).propose([evidence], 5)
    assert {c.label: c.support for c in plain} == {"dense forest": 3, "dense forests": 1, "parking lot": 1}
    encoder = SentenceEncoder(device="cpu")
    (merged,) = summarizer(server, simplify=False, concurrency=1, encoder=encoder, seed=1).propose([evidence], 5)
    assert {c.label: c.support for c in merged} == {"dense forest": 4, "parking lot": 1}
    assert merged[0].contrast > 0 > merged[1].contrast


def test_every_setting_is_part_of_the_fingerprint(server: Server) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"domain": "maps"},
        {"simplify": False},
        {"contrast_shown": 3},
        {"same_meaning": 0.5},
        {"encoder": SentenceEncoder()},
        {"temperature": 1.0},
        {"max_tokens": 9},
        {"options": {"top_p": 0.5}},
        {"seed": 7},
    ]
    prints = {summarizer(server, **options).fingerprint for options in settings}
    assert len(prints) == len(settings)
    assert summarizer(server, timeout_s=5, concurrency=1, api_key_env="X").fingerprint in prints
