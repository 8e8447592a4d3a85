"""The command ``geoaudit``."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dnd_core.cli import run
from dnd_core.errors import ConfigError

__all__ = [
    "audit",
    "checks",
    "dashboard",
    "demo",
    "diff",
    "doctor",
    "gate",
    "main",
    "mitigate",
    "prune",
    "report",
    "verify",
]

FailOn = Literal["minor", "major", "critical"]


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
    from geoaudit.terminal import summarise

    wanted = _formats(formats)
    with ProgressReport(quiet) as progress:
        done = run_demo(out, model, resume=resume, progress=progress, formats=wanted)
    summarise(done)
    # The demonstration shows a finding; that it found one is no failure of the command.
    return 0


def audit(
    config: Path,
    out: Path = Path("runs/audit"),
    fail_on: FailOn = "major",
    baseline: Path | None = None,
    suppressions: Path | None = None,
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
        suppressions: YAML file of findings that reviewers set aside; see ``docs/ci.md``.
        formats: reports to write, separated by commas.
        resume: go on with the run in ``out``; recompute only what changed.
        quiet: no progress.
    """
    from dataclasses import replace

    from dnd_core.progress import ProgressReport
    from geoaudit.gate import gate as judge
    from geoaudit.gate import load_baseline, settle_run
    from geoaudit.settings import load_config
    from geoaudit.suppressions import load_suppressions

    wanted = _formats(formats)
    known = load_baseline(baseline) if baseline else None
    aside = load_suppressions(suppressions) if suppressions else ()
    settings = load_config(config)

    # What is wrong with the files above is said before seconds go into importing torch.
    from geoaudit.launch import launch
    from geoaudit.report import write_reports
    from geoaudit.terminal import summarise

    with ProgressReport(quiet) as progress:
        done = launch(settings, out, resume=resume, progress=progress)
        settled = settle_run(out, aside, known, _today())
        write_reports(out, wanted, fail_on)
    summarise(replace(done, document=settled.document))
    for note in settled.notes():
        print(note)  # noqa: T201
    code, why = judge(settled.document, fail_on, settled.lapsed)
    print(why)  # noqa: T201
    return code


def gate(
    run_dir: Path, fail_on: FailOn = "major", baseline: Path | None = None, suppressions: Path | None = None
) -> int:
    """Judge a finished run as ``audit`` would, without running or changing it, and answer with an exit code.

    Exit codes: 0 clean, 1 a finding of at least ``fail_on``, 2 bad input, 3 a check could not decide or the run is
    not whole.

    Args:
        run_dir: the run folder.
        fail_on: least severity that fails the gate.
        baseline: audit.json of an earlier run; findings known there do not fail the gate.
        suppressions: YAML file of findings that reviewers set aside; see ``docs/ci.md``.
    """
    from geoaudit.gate import gate_run, load_baseline
    from geoaudit.suppressions import load_suppressions

    known = load_baseline(baseline) if baseline else None
    aside = load_suppressions(suppressions) if suppressions else ()
    code, said = gate_run(run_dir, fail_on, aside, known, _today())
    print("\n".join(said))  # noqa: T201
    return code


def report(
    run_dir: Path,
    formats: str = "html",
    sign_key: Path | None = None,
    fail_on: FailOn = "major",
    card: Path | None = None,
) -> None:
    """Write reports of a finished run.

    Args:
        run_dir: the run folder.
        formats: separated by commas: html, pdf, json, sarif, junit, gpkg, csv, geoparquet, modelcard, stac, crosswalk, zip.
        sign_key: private Ed25519 key (PEM) that signs the bundle of the format zip; it is not copied. A key with a
            password takes it from the environment variable GEOAUDIT_SIGN_PASSWORD.
        fail_on: least severity that fails a test case of junit.
        card: model card (Markdown) that modelcard is merged into; the file itself is not changed.
    """
    from geoaudit.report import write_reports
    from geoaudit.report.signing import private_key, sign

    wanted = _formats(formats)
    if sign_key is not None and "zip" not in wanted:
        raise ConfigError("--sign-key signs the bundle: add zip to --formats")
    if card is not None and "modelcard" not in wanted:
        raise ConfigError("--card is merged into the model card: add modelcard to --formats")
    key = private_key(sign_key) if sign_key is not None else None
    written = write_reports(run_dir, wanted, fail_on, card)
    if key is not None:
        written.append(sign(written[-1], key))
    for path in written:
        print(path)  # noqa: T201


def verify(bundle: Path, public_key: Path | None = None) -> int:
    """Check that a bundle is as it was made, and who signed it.

    Exit codes: 0 intact, 1 changed or not signed by the key, 2 no bundle.

    Args:
        bundle: audit.zip; its signature, if any, lies beside it as audit.zip.sig.
        public_key: public Ed25519 key (PEM) whose signature the bundle must carry.
    """
    from geoaudit.report import signing, verify_bundle

    key = signing.public_key(public_key) if public_key is not None else None
    verdict = verify_bundle(bundle)
    faults = list(verdict.faults)
    if key is not None and (fault := signing.check_signature(bundle, key)):
        faults.append(fault)
    for fault in faults:
        print(fault)  # noqa: T201
    signed = ", signed by this key" if key is not None else ""
    if key is None and signing.signature_path(bundle).is_file():
        signed = "; its signature was not checked, for that give --public-key"
    print(f"{bundle}: {'NOT ' if faults else ''}intact, {verdict.files} files{'' if faults else signed}")  # noqa: T201
    return 1 if faults else 0


def diff(run_a: Path, run_b: Path, json: bool = False) -> int:
    """Say which findings and labels are new, gone or changed in a second run.

    Exit codes: 0 compared, 2 no run folder, 3 one of the runs is unfinished or damaged.

    Args:
        run_a: folder of the earlier run.
        run_b: folder of the later run: the same model on new data, or a retrained model.
        json: print one JSON object.
    """
    from json import dumps

    from geoaudit.report import diff_runs

    found = diff_runs(run_a, run_b)
    print(dumps(found.to_dict(), ensure_ascii=False, sort_keys=True) if json else found.to_text())  # noqa: T201
    return 3 if found.problems else 0


def dashboard(
    run_dir: Path, port: int = 8501, host: str = "127.0.0.1", base_path: str = "", config: Path | None = None
) -> None:
    """Show a run in the browser: pages and map tiles, one process on one port, until stopped.

    Args:
        run_dir: the run folder.
        port: to listen on.
        host: address to listen on; this machine only by default. The pages have no log-in.
        base_path: path below which a proxy shows it, such as /audits/7.
        config: the audit's configuration, with which new prunings are measured; a run of the demonstration does without.
    """
    from geoaudit.serving import serve

    serve(run_dir, port, host, base_path, config)


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
    skip_audit: bool = False,
    quiet: bool = False,
) -> None:
    """Repair a network against a finding: a new checkpoint and card, measured on held-out images and audited again.

    Nothing of the user's is overwritten. The last line printed is one JSON object of the figures.

    Args:
        run_dir: folder of the finished audit.
        finding: id or fingerprint of the finding.
        by: prune holds the finding's units at their means; retrain-head fits the last layer anew on painted images.
        config: the audit's configuration; a run of the demonstration does without.
        out: folder to write; below the run by default.
        skip_audit: do not audit the repaired network.
        quiet: no progress.
    """
    import json

    from dnd_core.progress import ProgressReport
    from geoaudit.repairing import mitigate as repair_network

    with ProgressReport(quiet) as progress:
        report = repair_network(run_dir, finding, by, config, out, again=not skip_audit, report=progress)
    print(f"{report.title}: {report.words}\n\n{report.table()}\n")  # noqa: T201
    print("\n".join([*report.limitations, *report.became()]))  # noqa: T201
    print(json.dumps(report.to_dict(), sort_keys=True, ensure_ascii=False))  # noqa: T201


def prune(run_dir: Path, units: str = "", groups: str = "", config: Path | None = None, quiet: bool = False) -> None:
    """Hold units of a finished run at their means and measure what each class loses, beside matched random units.

    Nothing is changed but a file of figures added to the run. The last line printed is one JSON object of them.

    Args:
        run_dir: folder of the finished audit.
        units: units as layer/index, separated by commas.
        groups: numbers of concept groups, separated by commas; their units are pruned together with ``units``.
        config: the audit's configuration; a run of the demonstration does without.
        quiet: no progress.
    """
    import json

    from dnd_core.progress import ProgressReport
    from geoaudit.pruning import prune as prune_units

    numbers = [part.strip() for part in groups.split(",") if part.strip()]
    if not all(part.isdigit() for part in numbers):
        raise ConfigError(f"--groups takes numbers separated by commas, not {groups[:80]!r}")
    names = [part.strip() for part in units.split(",") if part.strip()]
    with ProgressReport(quiet) as progress:
        found = prune_units(run_dir, names, [int(part) for part in numbers], config, progress)
    beside = f"{found.random_sets} matched random sets" if found.random_sets else "no random sets: too few other units"
    print(f"{len(found.units)} units pruned, {found.images} images, {beside}\n\n{found.table()}\n")  # noqa: T201
    print(json.dumps(found.to_dict(), sort_keys=True, ensure_ascii=False))  # noqa: T201


def doctor() -> int:
    """Say what is installed, which backends can run here, and which weights are present."""
    from geoaudit.doctor import examine

    lines, sound = examine()
    print("\n".join(lines))  # noqa: T201
    return 0 if sound else 3


def _today() -> datetime.date:
    """The day in UTC, so that a suppression ends everywhere at once."""
    return datetime.datetime.now(datetime.UTC).date()


def _formats(text: str) -> tuple[str, ...]:
    from geoaudit.report import check_formats

    wanted = tuple(name.strip() for name in text.split(",") if name.strip())
    check_formats(wanted)
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``geoaudit``."""
    from geoaudit.bench.labels_command import labels_bench
    from geoaudit.bench.shortcuts.command import shortcuts
    from geoaudit.studies.commands import eurosat, tile2vec

    commands: dict[str, Any] = {
        "demo": demo,
        "audit": audit,
        "gate": gate,
        "report": report,
        "dashboard": dashboard,
        "verify": verify,
        "diff": diff,
        "checks": checks,
        "mitigate": mitigate,
        "study": {
            "_help": "The paper's two land-cover studies, with controls.",
            "tile2vec": tile2vec,
            "eurosat": eurosat,
        },
        "bench": {
            "_help": "How good the labels and the findings are, with controls.",
            "labels": labels_bench,
            "shortcuts": shortcuts,
        },
        "prune": prune,
        "doctor": doctor,
    }
    return run(commands, argv, "geoaudit")


if __name__ == "__main__":
    sys.exit(main())
