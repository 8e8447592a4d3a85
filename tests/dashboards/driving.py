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
PATIENCE = 180
"""Seconds after which something does not happen at all, however busy the machine."""
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
    for attempt in range(5):
        # Another process may take the port between our asking and the server's listening: then ask again.
        port = _free_port()
        command = [sys.executable, "-m", "geoaudit.cli", "dashboard", str(run), "--port", str(port)]
        if base:
            command += ["--base_path", base]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}{base}"
        try:
            if _answers(process, address):
                yield address, process
                return
        finally:
            process.terminate()
            process.wait(PATIENCE)
        if attempt == 4:
            raise RuntimeError(f"the dashboard stopped with {process.returncode}")


def _answers(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait for the server; False where its process ended instead."""
    begun = time.monotonic()
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as answer:
                if answer.status == 200:
                    return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
        if time.monotonic() - begun > PATIENCE:
            raise RuntimeError(f"the dashboard did not start within {PATIENCE} s")
    return False


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
        self.page.wait_for_selector(".ga-title")
        self.page.wait_for_selector(SETTLED)
        return self._note(name or f"open {path or 'overview'}", begun)

    def do(self, name: str, act: Callable[[], object], until: str) -> float:
        """Do something; seconds until ``until`` (a JavaScript condition) holds and the page is settled."""
        begun = time.perf_counter()
        act()
        self.page.wait_for_function(until)
        self.page.wait_for_selector(SETTLED)
        return self._note(name, begun)

    def insist(self, name: str, act: Callable[[], object], until: str) -> float:
        """:meth:`do` for what a page may overlook while it is still drawing, such as a click on a map: do it again."""
        from playwright.sync_api import TimeoutError as NotYet

        begun = time.perf_counter()
        while True:
            act()
            try:
                self.page.wait_for_function(until, timeout=5_000)
                break
            except NotYet:
                if time.perf_counter() - begun > PATIENCE:
                    raise
        self.page.wait_for_selector(SETTLED)
        return self._note(name, begun)

    def says(self, words: str) -> bool:
        """Wait until the page shows these words."""
        self.page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)
        return True

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
        context.set_default_timeout(PATIENCE * 1000)
        yield Visit(context, address)
        browser.close()
