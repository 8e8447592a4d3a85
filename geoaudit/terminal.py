"""What a terminal is told of an audit: a dozen lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoaudit.audit import Audit

__all__ = ["summarise"]


def summarise(done: Audit) -> None:
    """Print the audit in a dozen lines."""
    document = done.document
    print(f"\n{document['summary']['sentence']}\n")  # noqa: T201
    for layer, counts in document["units"].items():
        print(  # noqa: T201
            f"{layer}: {counts['total']} units, {counts['described']} described, {counts['weak']} weak, "
            f"{counts['abstained']} abstained, {counts['dead']} dead"
        )
    groups = done.run.neurons.loc[done.run.neurons["group"] >= 0, "group"].nunique()
    print(f"{groups} concept groups")  # noqa: T201
    for check in document["checks"]:
        print(f"{check['rule']}: {check['status']} ({check['reason']})")  # noqa: T201
    for finding in document["findings"][:8]:
        said = finding["suppression"]["reason"] if finding["status"] == "suppressed" else finding.get("baseline", "")
        aside = f" (set aside: {said})" if finding["status"] == "suppressed" else f" ({said})" if said else ""
        effect = finding["effect"]
        low, high = effect["ci"]
        interval = f" [{low:+.2f}, {high:+.2f}]" if low is not None and high is not None else ""
        print(  # noqa: T201
            f"{finding['id']} {finding['severity']:<8} {finding['title']}{aside}: "
            f"{effect['metric']} {effect['value']:+.2f}{interval}, grade {finding['evidence_grade']}"
        )
    _times(done.root)
    files = sum(1 for path in done.root.rglob("*") if path.is_file())
    page = done.root / "report.html"
    print(f"{files} files in {done.root}{f'; open {page}' if page.is_file() else ''}")  # noqa: T201


def _times(root: Path) -> None:
    from dnd_core.store import read_manifest

    stages = read_manifest(root)["timings"].get("stages", {})
    print("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items()))  # noqa: T201
