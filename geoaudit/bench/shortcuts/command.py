"""``geoaudit bench shortcuts``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["shortcuts"]


def shortcuts(
    out: Path = Path("runs/bench-shortcuts"),
    seeds: int = 5,
    half: Literal["evaluation", "tuning"] = "evaluation",
    quick: bool = False,
    jobs: int = 2,
    docs: Path | None = None,
    quiet: bool = False,
) -> None:
    """Plant shortcuts in networks, audit them, and count how often the audit is right; see ``docs/bench-shortcuts.md``.

    Finished networks in ``out`` are not made again, so a bench that was stopped goes on. The last line printed is one
    JSON object of the figures.

    Args:
        out: folder for networks, rows and the table.
        seeds: seeds of the half; each makes some forty networks.
        half: evaluation, or the networks that thresholds were chosen on.
        quick: one seed of one strength; minutes instead of hours.
        jobs: networks at a time, each in a process and on a core of its own; the figures are the same whatever their number.
        docs: documentation folder of a checkout whose bench-shortcuts.md gets the tables, with the rows beside it.
        quiet: no progress.
    """
    import json

    from dnd_core.errors import ConfigError
    from dnd_core.progress import ProgressReport
    from geoaudit.bench.shortcuts.running import run_bench
    from geoaudit.bench.shortcuts.summary import summarise
    from geoaudit.bench.shortcuts.tables import MARKS, PAGE, markdown, write_csv, write_docs
    from geoaudit.marks import parts_of

    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {jobs}")
    if docs is not None:
        parts_of(docs / f"{PAGE}.md", MARKS)
    seeds = 1 if quick else seeds
    with ProgressReport(quiet) as progress:
        rows = run_bench(out, seeds, half, quick, progress, jobs)
    found = summarise(rows)
    write_csv(out / "shortcuts.csv", rows)
    if docs is not None:
        extent = " --quick" if quick else f" --seeds {seeds}"
        command = f"geoaudit bench shortcuts{extent}{' --half tuning' if half == 'tuning' else ''}"
        for path in write_docs(docs, rows, found, command):
            print(path)  # noqa: T201
    print(markdown(found))  # noqa: T201
    print(json.dumps(found.to_dict(), sort_keys=True))  # noqa: T201
