"""The reports that can be made, and making them in the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards import jobs
from dashboards.jobs import Job

__all__ = ["REPORTS", "Report", "job_of", "start"]


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


def job_of(root: Path) -> Job | None:
    """The last job for a run; every visitor sees the same."""
    return jobs.job_of(root, "reports")


def start(root: Path, formats: Sequence[str]) -> Job:
    """Make reports in the background; a job already running for this run goes on and is returned instead."""
    wanted = [name for name in formats if name in REPORTS]
    return jobs.start(root, "reports", wanted, ["report", str(root), "--formats", ",".join(wanted)])
