"""The command ``geoaudit bench labels``."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["labels_bench"]


def labels_bench(
    out: Path = Path("runs/bench-labels"),
    quick: bool = False,
    labels: Path | None = None,
    docs: Path | None = None,
    quiet: bool = False,
) -> None:
    """Measure our labels beside others' on units of known truth and on the bundled classifiers.

    Started again with the same ``out`` it goes on where it stopped. The last line is one JSON object of the figures.

    Args:
        out: folder for tables, figures and what the bench has done so far.
        quick: a look in a few minutes, on fewer units and other seeds.
        labels: CSV of your own labels of the bundled classifiers' units (layer, unit, label), scored beside the others.
        docs: documentation folder of a checkout whose bench-labels.md gets the tables and figures.
        quiet: no progress.
    """
    import json

    from dnd_core.errors import ConfigError
    from dnd_core.progress import ProgressReport
    from geoaudit.bench.labels import FULL, QUICK, run_labels, summary
    from geoaudit.bench.labels_report import markdown, write_document, write_results
    from geoaudit.marks import parts_of

    if docs is not None and (quick or labels is not None):
        raise ConfigError("--docs is for the full bench alone: leave out --quick and --labels")
    if docs is not None:
        parts_of(docs / "bench-labels.md", "bench")
    with ProgressReport(quiet) as progress:
        bench = run_labels(out, QUICK if quick else FULL, labels, progress=progress)
    command = "geoaudit bench labels" + (" --quick" if quick else "") + (" --labels CSV" if labels else "")
    written = write_results(bench, out)
    if docs is not None:
        written += write_document(bench, out, docs, command)
    print(markdown(bench, command))  # noqa: T201
    for path in written:
        print(path, file=sys.stderr)  # noqa: T201
    print(json.dumps(summary(bench), sort_keys=False))  # noqa: T201
