"""A real HTTP server on this machine that speaks OpenAI's chat protocol, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789-secret"
Reply = tuple[int, dict[str, str], bytes]


def completion(text: str | None, **message: Any) -> Reply:
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}},
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return 200, {}, json.dumps(body).encode()


def failure(status: int, message: str = "not now", **headers: str) -> Reply:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


class Server:
    """Answers each chat request with what ``answer`` makes of its body; remembers requests and when they came."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Reply] = lambda body: completion("a red field")
        self.models: Reply = (200, {}, b'{"object": "list", "data": []}')
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(outer.models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.times.append(time.monotonic())
                outer.keys.add(self.headers["Authorization"])
                self.reply(outer.answer(body))

            def reply(self, reply: Reply) -> None:
                status, headers, data = reply
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # A caller that ran out of patience has hung up.

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def in_turn(self, *replies: Reply) -> None:
        """The given replies one after the other, then the last one for ever."""
        left = list(replies)
        self.answer = lambda body: left.pop(0) if len(left) > 1 else left[0]
