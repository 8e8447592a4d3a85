"""Reports people sign and files machines read, made from a run that :mod:`geoaudit.results` opened.

Each format is one function from :class:`~geoaudit.results.Results` to bytes; :data:`FORMATS` lists them all. A run that is
unfinished or damaged still gives every format, and each says so in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnd_core.errors import ConfigError
from dnd_core.store import write_atomic
from geoaudit.report.bundle import Verdict, verify_bundle, write_bundle
from geoaudit.report.difference import Difference, diff_runs
from geoaudit.results import Results, open_run

__all__ = [
    "DEFAULT_FORMATS", "FORMATS", "Difference", "Format", "Verdict", "check_formats", "diff_runs", "verify_bundle",
    "write_bundle", "write_reports",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of report.

    Attributes:
        file: its name in the run folder.
        make: results to bytes; heavy libraries are imported inside.
        about: what it is for, in a few words.

    """

    file: str
    make: Callable[[Results], bytes]
    about: str


def _html(results: Results) -> bytes:
    from geoaudit.report.html import page

    return page(results).encode("utf-8", "replace")


def _pdf(results: Results) -> bytes:
    from geoaudit.report.pdf import document

    return document(results)


def _sarif(results: Results) -> bytes:
    from geoaudit.report.machine import sarif

    return sarif(results)


def _junit(results: Results, fail_on: str = "major") -> bytes:
    from geoaudit.report.machine import junit

    return junit(results, fail_on)


def _csv(results: Results) -> bytes:
    from geoaudit.report.machine import neurons_csv

    return neurons_csv(results)


def _crosswalk(results: Results) -> bytes:
    from geoaudit.report.machine import crosswalk

    return crosswalk(results)


def _gpkg(results: Results) -> bytes:
    from geoaudit.report.geodata import geopackage

    return geopackage(results)


def _geoparquet(results: Results) -> bytes:
    from geoaudit.report.geodata import neurons_geoparquet

    return neurons_geoparquet(results)


def _stac(results: Results) -> bytes:
    from geoaudit.report.geodata import stac_item

    return stac_item(results)


def _card(results: Results, existing: Path | None = None) -> bytes:
    from geoaudit.report.modelcard import model_card

    try:
        text = None if existing is None else existing.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the model card {existing} cannot be read ({error}): give a Markdown file") from error
    return model_card(results, text).encode("utf-8", "replace")


def _json(results: Results) -> bytes:
    from geoaudit.report.machine import audit_json

    return audit_json(results)


FORMATS: Mapping[str, Format] = {
    "html": Format("report.html", _html, "the page: one self-contained file for people"),
    "pdf": Format("report.pdf", _pdf, "the document to sign, PDF/A"),
    "json": Format("audit.json", _json, "findings and checks against the published schema"),
    "sarif": Format("audit.sarif", _sarif, "findings for code-scanning tools, SARIF 2.1.0"),
    "junit": Format("junit.xml", _junit, "checks as test cases for CI"),
    "gpkg": Format("audit.gpkg", _gpkg, "units, findings and hot spots for QGIS"),
    "csv": Format("neurons.csv", _csv, "neurons for a spreadsheet"),
    "geoparquet": Format("neurons.geoparquet", _geoparquet, "neurons with the footprint of their top images"),
    "modelcard": Format("model_card.md", _card, "model card in the form of the Hugging Face hub"),
    "stac": Format("stac_item.json", _stac, "STAC item with the MLM extension"),
    "crosswalk": Format("crosswalk.json", _crosswalk, "where evidence for published standards stands"),
}
DEFAULT_FORMATS = ("html", "pdf", "json", "sarif", "junit", "gpkg", "modelcard")


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what :func:`write_reports` cannot write, before anything long starts.

    Raises:
        ConfigError: a format is not known.

    """
    unknown = [name for name in formats if name not in FORMATS and name != "zip"]
    if unknown:
        known = ", ".join([*FORMATS, "zip"])
        raise ConfigError(f"there is no report format {', '.join(map(repr, unknown))}; choose from {known}")


def write_reports(
    run_dir: Path | str, formats: Sequence[str] = DEFAULT_FORMATS, fail_on: str = "major", card: Path | None = None
) -> list[Path]:
    """Write reports into a run folder, each aside and then renamed into place.

    Args:
        run_dir: the run.
        formats: names in :data:`FORMATS`, and ``zip`` for the bundle, which is always made last.
        fail_on: least severity that fails a test case of ``junit``, as it trips the gate.
        card: a model card whose words and metadata ``modelcard`` keeps; the file itself is not changed.

    Returns:
        The files written, in the order asked for. ``audit.json`` is the run's own and never rewritten.

    Raises:
        ConfigError: a format is not known.
        StoreError: there is no such folder, or it cannot be written.

    """
    check_formats(formats)
    results = open_run(run_dir)
    # What was changed after the run wrote it must not be signed as if the run had said it.
    results.look_closely()
    written = []
    # STAC and crosswalk name the files that are there, so the others come first; the bundle takes them all.
    late = [name for name in dict.fromkeys(formats) if name in ("stac", "crosswalk")]
    for name in [*(name for name in dict.fromkeys(formats) if name not in ("stac", "crosswalk", "zip")), *late]:
        path = results.root / FORMATS[name].file
        if name == "json" and results.audit:
            written.append(path)
            continue
        if name == "json":
            # A placeholder named audit.json would be taken for the audit itself.
            path = results.root / "audit.unfinished.json"
        if name == "junit":
            data = _junit(results, fail_on)
        elif name == "modelcard":
            data = _card(results, card)
        else:
            data = FORMATS[name].make(results)
        write_atomic(path, data)
        written.append(path)
    if "zip" in formats:
        written.append(write_bundle(results.root))
    return written
