"""The bundle that leaves the house: one ZIP with a list of SHA-256 sums, and the check that nothing in it was changed."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnd_core.errors import StoreError
from dnd_core.store import write_atomic
from geoaudit.report.signing import signature_path

__all__ = ["BUNDLED", "MANIFEST", "Verdict", "verify_bundle", "write_bundle"]

MANIFEST = "sha256.json"
BUNDLED = (
    "audit.json", "manifest.json", "config.yaml", "report.html", "report.pdf", "audit.sarif", "junit.xml", "audit.gpkg",
    "model_card.md", "neurons.csv", "neurons.geoparquet", "stac_item.json", "crosswalk.json", "neurons.parquet",
    "groups.parquet", "images.parquet", "ablation.parquet", "reliance.parquet",
)  # fmt: skip
_STAMP = (1980, 1, 1, 0, 0, 0)
# A bundle of reports is some megabytes; whatever unpacks to more than this was not made by us.
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a bundle is as it was made.

    Attributes:
        intact: every file is there, unchanged, and nothing was added.
        faults: one sentence for each file that is not.
        files: how many files were checked.

    """

    intact: bool
    faults: tuple[str, ...]
    files: int


def write_bundle(root: Path, target: Path | None = None) -> Path:
    """Put the reports and tables of a run into ``audit.zip``; equal files give equal bytes.

    Raises:
        StoreError: the run holds none of them, or the folder cannot be written.

    """
    found = [name for name in BUNDLED if (root / name).is_file()]
    if not found:
        raise StoreError(f"{root} holds nothing to bundle: make the reports first")
    contents = {name: (root / name).read_bytes() for name in found}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    listing = json.dumps({"algorithm": "sha256", "files": sums}, indent=1, sort_keys=True) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [(MANIFEST, listing.encode()), *contents.items()]:
            entry = zipfile.ZipInfo(name, _STAMP)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            archive.writestr(entry, data)
    path = target or root / "audit.zip"
    if not path.is_file() or path.read_bytes() != buffer.getvalue():
        # A signature of what the bundle was before would only raise a false alarm.
        signature_path(path).unlink(missing_ok=True)
        write_atomic(path, buffer.getvalue())
    return path


def verify_bundle(path: Path | str) -> Verdict:
    """Check every file of a bundle against its list of sums.

    Raises:
        StoreError: the file is no ZIP, has no list of sums, or the list is damaged.

    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _verify(path, archive)
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise StoreError(f"{path} cannot be read as a bundle ({error}): ask for it again") from error


def _verify(path: Path, archive: zipfile.ZipFile) -> Verdict:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise StoreError(f"{path} unpacks to more than {_MOST_BYTES >> 30} GiB: it is no bundle of an audit")
    if MANIFEST not in names:
        raise StoreError(f"{path} holds no {MANIFEST}: it is no bundle of an audit")
    try:
        listing: Any = json.loads(archive.read(MANIFEST))
        sums = {str(name): str(total) for name, total in listing["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path}: its {MANIFEST} is damaged: ask for the bundle again") from error
    faults = [f"{name} stands in the bundle twice" for name in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"{name} was added" for name in sorted(set(names) - set(sums) - {MANIFEST})]
    for name, total in sorted(sums.items()):
        if name not in names:
            faults.append(f"{name} is missing")
            continue
        try:
            data = archive.read(name)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            faults.append(f"{name} cannot be unpacked ({type(error).__name__})")
            continue
        if hashlib.sha256(data).hexdigest() != total:
            faults.append(f"{name} was changed")
    return Verdict(not faults, tuple(faults), len(sums))
