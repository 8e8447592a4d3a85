"""Reports made in a process of their own, so that no page waits and no heavy library is loaded here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO

__all__ = ["REPORTS", "Job", "Report", "job_of", "start"]


@dataclass(frozen=True, slots=True)
class Report:
    """A kind of report: its file in the run folder and what it is for."""

    file: str
    about: str


REPORTS: dict[str, Report] = {
    "html": Report("report.html", "Web page for people, one self-contained file"),
    "pdf": Report("report.pdf", "Document to sign, PDF/A"),
    "json": Report("audit.json", "Findings and checks against the published schema"),
    "sarif": Report("audit.sarif", "Findings for code-scanning tools, SARIF 2.1.0"),
    "junit": Report("junit.xml", "Checks as test cases for CI"),
    "gpkg": Report("audit.gpkg", "Units, findings and hot spots for QGIS"),
    "csv": Report("neurons.csv", "Neurons for a spreadsheet"),
    "geoparquet": Report("neurons.geoparquet", "Neurons with the footprint of their top images"),
    "modelcard": Report("model_card.md", "Model card in the form of the Hugging Face hub"),
    "stac": Report("stac_item.json", "STAC item with the machine-learning-model extension"),
    "crosswalk": Report("crosswalk.json", "Where evidence for published standards stands"),
}


@dataclass
class Job:
    """A report being made.

    Attributes:
        formats: what is made.
        started: seconds of the monotonic clock.

    """

    formats: tuple[str, ...]
    started: float
    process: subprocess.Popen[bytes]
    output: IO[bytes] = field(repr=False)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return monotonic() - self.started

    def said(self) -> str:
        """The end of what the process printed."""
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")[-2000:].strip()


_jobs: dict[Path, Job] = {}
_lock = threading.Lock()


def job_of(root: Path) -> Job | None:
    """The last job for a run; every visitor sees the same."""
    return _jobs.get(root)


def start(root: Path, formats: Sequence[str]) -> Job:
    """Make reports in the background; a job already running for this run goes on and is returned instead."""
    wanted = tuple(name for name in formats if name in REPORTS)
    with _lock:
        known = _jobs.get(root)
        if known is not None and known.running:
            return known
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read later, gone with the process
        command = [sys.executable, "-m", "geoaudit.cli", "report", str(root), "--formats", ",".join(wanted)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _jobs[root] = Job(wanted, monotonic(), process, output)
        return _jobs[root]
