"""Whether a run folder is whole: what is missing or unreadable, and what was changed after it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoaudit.evidence import Problem

__all__ = ["changed", "missing"]


def missing(root: Path, tables: Mapping[str, Sequence[str]], audited: bool) -> list[Problem]:
    """Tables that are not there, cannot be read, or lack a column; an audit that is not there; stages left open.

    Only the footers of the tables are read, so that opening a large run stays quick.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for name, columns in tables.items():
        file = f"{name}.parquet"
        if not (root / file).is_file():
            says = f"{file} is not there yet: the stage that writes it has not finished"
            found.append(Problem("unfinished", file, says))
            continue
        try:
            known = set(pq.read_schema(root / file).names)
        except (pa.ArrowException, OSError, ValueError):
            found.append(Problem("damaged", file, f"{file} cannot be read: what it holds is not shown"))
            continue
        lost = sorted(set(columns) - known)
        if lost:
            found.append(Problem("damaged", file, f"{file} lacks the columns {', '.join(lost)}: shown as unknown"))
    if audited and not (root / "audit.json").is_file():
        says = "audit.json is not there yet: findings and checks are not known"
        found.append(Problem("unfinished", "audit.json", says))
    if (root / ".work").is_dir():
        says = "a stage was still being written or was interrupted: resume the run"
        found.append(Problem("unfinished", ".work", says))
    return found


def changed(root: Path, manifest: Mapping[str, Any], skip: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    """Every file that the manifest vouches for and that is gone, outside the run, or of another hash.

    Args:
        root: of the run.
        manifest: of the run.
        skip: beginnings of names that are not looked at.
    """
    from dnd_core.store import file_sha256

    found = []
    stages = manifest.get("stages", {})
    for stage in stages.values() if isinstance(stages, dict) else ():
        files = stage.get("files") if isinstance(stage, dict) else None
        for name, sha in sorted(files.items()) if isinstance(files, dict) else ():
            if name.startswith(skip):
                continue
            path = root / name
            if not path.resolve().is_relative_to(root.resolve()):
                found.append(Problem("damaged", name, f"the manifest names {name!r}, which is outside the run"))
            elif not path.is_file():
                found.append(Problem("damaged", name, f"{name} is missing although the manifest lists it"))
            elif file_sha256(path) != sha:
                found.append(Problem("damaged", name, f"{name} was changed after the run wrote it"))
    return tuple(found)
