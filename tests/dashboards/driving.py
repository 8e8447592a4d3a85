"""A server as a user starts it and a real browser on it, for tests and the benchmark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader",
)  # fmt: skip
SETTLED = '[data-testid="stApp"][data-test-script-state="notRunning"]'


def chromium() -> str | None:
    """Where a Chromium is installed, or None."""
    named = (os.environ.get("CHROMIUM"), "/usr/bin/chromium")
    found = [path for path in named if path and Path(path).is_file()]
    return (
        found[0]
        if found
        else shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(run: Path, base: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``geoaudit dashboard RUN`` on a free port; its address and process."""
    port = _free_port()
    command = [sys.executable, "-m", "geoaudit.cli", "dashboard", str(run), "--port", str(port)]
    if base:
        command += ["--base_path", base]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}{base}"
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as answer:
                    if answer.status == 200:
                        break
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
            if process.poll() is not None:
                raise RuntimeError(f"the dashboard stopped with {process.returncode}")
        else:
            raise RuntimeError("the dashboard did not start within a minute")
        yield address, process
    finally:
        process.terminate()
        process.wait(20)


class Visit:
    """A visitor with a browser: opens pages, does things, and notes how long they take and where requests go."""

    def __init__(self, context, address: str) -> None:
        self.address = address
        self.page = context.new_page()
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.times: dict[str, float] = {}
        own = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:", "chrome-error:")
        context.on(
            "request", lambda request: self.outside.append(request.url) if not request.url.startswith(own) else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path: str, name: str | None = None) -> float:
        """Load a page anew, as from a link; seconds until it is settled."""
        begun = time.perf_counter()
        self.page.goto(f"{self.address}/{path}", wait_until="commit")
        self.page.wait_for_selector(".ga-title", timeout=60_000)
        self.page.wait_for_selector(SETTLED, timeout=60_000)
        return self._note(name or f"open {path or 'overview'}", begun)

    def do(self, name: str, act: Callable[[], object], until: str) -> float:
        """Do something; seconds until ``until`` (a JavaScript condition) holds and the page is settled."""
        begun = time.perf_counter()
        act()
        self.page.wait_for_function(until, timeout=60_000)
        self.page.wait_for_selector(SETTLED, timeout=60_000)
        return self._note(name, begun)

    def _note(self, name: str, begun: float) -> float:
        self.times[name] = time.perf_counter() - begun
        return self.times[name]

    def text(self) -> str:
        """What the page's main part says."""
        return str(self.page.inner_text('[data-testid="stMain"]'))


@contextmanager
def visiting(address: str, width: int = 1366, height: int = 900, scheme: str = "light") -> Iterator[Visit]:
    """A visit with a fresh browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        yield Visit(context, address)
        browser.close()
