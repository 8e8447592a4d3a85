"""The command ``geoaudit``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dnd_core.cli import run

if TYPE_CHECKING:
    from geoaudit.audit import Audit

__all__ = ["audit", "checks", "dashboard", "demo", "doctor", "main", "mitigate", "report"]

FailOn = Literal["minor", "major", "critical"]
SEVERITIES = ("info", "minor", "major", "critical")


def demo(
    out: Path = Path("runs/demo"),
    model: Literal["haze", "clean"] = "haze",
    formats: str = "html",
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Audit a bundled land-cover classifier on a real Sentinel-2 scene.

    Args:
        out: run folder to write.
        model: haze, the classifier with a planted shortcut, or clean.
        formats: reports to write, separated by commas.
        resume: go on with the run in ``out``; recompute only what changed.
        quiet: no progress.
    """
    from dnd_core.progress import ProgressReport
    from geoaudit.demo import run_demo

    with ProgressReport(quiet) as progress:
        done = run_demo(out, model, resume=resume, progress=progress, formats=_formats(formats))
    summarise(done)
    # The demonstration shows a finding; that it found one is no failure of the command.
    return 0


def audit(
    config: Path,
    out: Path = Path("runs/audit"),
    fail_on: FailOn = "major",
    baseline: Path | None = None,
    formats: str = "html",
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Audit a network as a configuration file says, and answer with an exit code.

    Exit codes: 0 clean, 1 a finding of at least ``fail_on``, 2 bad input, 3 a check could not decide.

    Args:
        config: YAML file; see ``configs/``.
        out: run folder to write.
        fail_on: least severity that fails the gate.
        baseline: audit.json of an earlier run; findings known there do not fail the gate.
        formats: reports to write, separated by commas.
        resume: go on with the run in ``out``; recompute only what changed.
        quiet: no progress.
    """
    from dnd_core.progress import ProgressReport
    from geoaudit.gate import gate, known_fingerprints
    from geoaudit.launch import launch
    from geoaudit.report import write_reports
    from geoaudit.settings import load_config

    known = known_fingerprints(baseline) if baseline else frozenset()
    wanted = _formats(formats)
    with ProgressReport(quiet) as progress:
        done = launch(load_config(config), out, resume=resume, progress=progress)
        write_reports(out, wanted)
    summarise(done)
    code, why = gate(done.document, fail_on, known)
    print(why)  # noqa: T201
    return code


def report(run_dir: Path, formats: str = "html") -> None:
    """Write reports of a finished run.

    Args:
        run_dir: the run folder.
        formats: separated by commas.
    """
    from geoaudit.report import write_reports

    for path in write_reports(run_dir, _formats(formats)):
        print(path)  # noqa: T201


def dashboard(run_dir: Path, port: int = 8501, host: str = "127.0.0.1", base_path: str = "") -> None:
    """Show a run in the browser: pages and map tiles, one process on one port, until stopped.

    Args:
        run_dir: the run folder.
        port: to listen on.
        host: address to listen on; this machine only by default. The pages have no log-in.
        base_path: path below which a proxy shows it, such as /audits/7.
    """
    from geoaudit.serving import serve

    serve(run_dir, port, host, base_path)


def checks() -> None:
    """List the checks of an audit: rule, what it looks for, what it needs, what chance looks like."""
    from geoaudit.checks import CHECKS

    for check in CHECKS:
        print(f"{check.rule}\n  {check.title}")  # noqa: T201
        print(f"  needs: {', '.join(check.needs)}\n  cost: {check.cost}\n  null: {check.null}")  # noqa: T201


def mitigate(
    run_dir: Path,
    finding: str,
    by: Literal["prune", "retrain-head"],
    config: Path | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> None:
    """Repair a network against a finding of its audit: a new checkpoint and card, measured on held-out images.

    Nothing of the user's is overwritten. The last line printed is one JSON object of the figures.

    Args:
        run_dir: folder of the finished audit.
        finding: id or fingerprint of the finding.
        by: prune holds the finding's units at their means; retrain-head fits the last layer anew on painted images.
        config: the audit's configuration; a run of the demonstration does without.
        out: folder to write; below the run by default.
        quiet: no progress.
    """
    import json

    from dnd_core.progress import ProgressReport
    from geoaudit.repairing import mitigate as repair_network

    with ProgressReport(quiet) as progress:
        report = repair_network(run_dir, finding, by, config, out, report=progress)
    print(f"{report.title}: {report.words}\n\n{report.table()}\n")  # noqa: T201
    print("\n".join(report.limitations))  # noqa: T201
    print(json.dumps(report.to_dict(), sort_keys=True, ensure_ascii=False))  # noqa: T201


def doctor() -> int:
    """Say what is installed, which backends can run here, and which weights are present."""
    from geoaudit.doctor import examine

    lines, sound = examine()
    print("\n".join(lines))  # noqa: T201
    return 0 if sound else 3


def _formats(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


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
        effect = finding["effect"]
        low, high = effect["ci"]
        interval = f" [{low:+.2f}, {high:+.2f}]" if low is not None and high is not None else ""
        print(  # noqa: T201
            f"{finding['id']} {finding['severity']:<8} {finding['title']}: "
            f"{effect['metric']} {effect['value']:+.2f}{interval}, grade {finding['evidence_grade']}"
        )
    _times(done.root)
    files = sum(1 for path in done.root.rglob("*") if path.is_file())
    print(f"{files} files in {done.root}; open {done.root / 'report.html'}")  # noqa: T201


def _times(root: Path) -> None:
    from dnd_core.store import read_manifest

    stages = read_manifest(root)["timings"].get("stages", {})
    print("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items()))  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``geoaudit``."""
    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "audit": audit,
        "report": report,
        "dashboard": dashboard,
        "checks": checks,
        "mitigate": mitigate,
        "doctor": doctor,
    }
    return run(commands, argv, "geoaudit")


if __name__ == "__main__":
    sys.exit(main())
