"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["ProgressReport"]


class ProgressReport:
    """A callable ``(stage, done, total)`` that shows where a run is; use as a context manager.

    On a terminal each stage has a bar. Elsewhere each stage prints a line when it starts, at most one every ten
    seconds while it runs, and one when it ends.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> ProgressReport:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total)
            self._bars.update(self._tasks[stage], completed=done, total=total)
        elif not self._quiet:
            now = time.monotonic()
            first = stage not in self._started
            self._started.setdefault(stage, now)
            if done >= total or (not first and now - self._told.get(stage, now) >= 10) or first:
                self._told[stage] = now
                seconds = now - self._started[stage]
                print(f"{stage}: {done}/{total} ({seconds:.0f} s)", file=sys.stderr, flush=True)  # noqa: T201
