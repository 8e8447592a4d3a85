"""Long work in a process of its own, so that no page waits and no heavy library is loaded here."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Literal

__all__ = ["Job", "State", "job_of", "start"]

State = Literal["running", "done", "failed", "cancelled"]
_STEP = re.compile(r"^(?P<stage>[^:\n]{1,80}): (?P<done>\d+)/(?P<total>\d+) \(\d+ s\)$", re.MULTILINE)


@dataclass
class Job:
    """Something that is being made.

    Attributes:
        about: what is made, in the words of who started it.
        started: seconds of the monotonic clock.

    """

    about: tuple[str, ...]
    started: float
    process: subprocess.Popen[bytes]
    output: IO[bytes] = field(repr=False)
    _stopped: bool = False
    _ended: float | None = None

    @property
    def state(self) -> State:
        code = self.process.poll()
        if code is None:
            return "running"
        if self._ended is None:
            self._ended = monotonic()
        if code == 0:
            return "done"
        return "cancelled" if self._stopped else "failed"

    @property
    def seconds(self) -> float:
        """Since the start, or what it took."""
        return (self._ended or monotonic()) - self.started

    def cancel(self) -> None:
        """Stop it; what it writes is renamed into place at its very end, so nothing half made stays behind."""
        if self.state == "running":
            self._stopped = True
            self.process.terminate()

    def close(self) -> None:
        """Stop it and forget what it said."""
        self.cancel()
        self.output.close()

    def _text(self) -> str:
        # Read without moving the place at which the process goes on writing.
        size = os.fstat(self.output.fileno()).st_size
        start = max(0, size - 4000)
        return os.pread(self.output.fileno(), size - start, start).decode("utf-8", "replace")

    def said(self) -> str:
        """The end of what the process printed, without its progress."""
        return _STEP.sub("", self._text())[-2000:].strip()

    def step(self) -> tuple[str, int, int] | None:
        """Stage, what is done of it and how much there is, as the process last said; None before it said anything."""
        found = _STEP.findall(self._text())
        return (found[-1][0], int(found[-1][1]), int(found[-1][2])) if found else None


_jobs: dict[tuple[Path, str], Job] = {}
_lock = threading.Lock()


def job_of(root: Path, kind: str) -> Job | None:
    """The last job of a kind for a run; every visitor sees the same."""
    return _jobs.get((root, kind))


def start(root: Path, kind: str, about: Sequence[str], arguments: Sequence[str]) -> Job:
    """Run ``geoaudit ARGUMENTS`` in the background; a job of this kind that still runs goes on and is returned instead."""
    with _lock:
        known = _jobs.get((root, kind))
        if known is not None and known.state == "running":
            return known
        if known is not None:
            known.close()
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read later, gone with this process
        command = [sys.executable, "-m", "geoaudit.cli", *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _jobs[(root, kind)] = Job(tuple(about), monotonic(), process, output)
        return _jobs[(root, kind)]


@atexit.register
def _stop_all() -> None:
    for job in _jobs.values():
        job.close()
