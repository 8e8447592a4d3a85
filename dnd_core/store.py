"""The run folder: stages that are written aside, committed whole, and found again after a kill.

A stage is keyed by a fingerprint of everything that went into it. Its files are made in a scratch folder
``.work/STAGE-KEY/`` and moved into place by :meth:`Stage.commit`, which first writes down what it is about to move: a
process killed in the middle finds a half-moved stage and completes it. Scratch outlives a kill as well, so a stage
that keeps a journal there goes on where it stopped. Timestamps exist only under ``timings`` in ``manifest.json``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dnd_core.errors import DndError, StoreError, StoreLocked, StoreMismatch

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunStore", "Stage", "file_sha256", "fingerprint", "read_manifest", "write_atomic", "write_table"]

SCHEMA_VERSION = 1
_FULL = {errno.ENOSPC, errno.EDQUOT}


def fingerprint(value: Any) -> str:
    """Sha256 of a plain nested value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"the disk is full while writing {path}: free some space and start again with --resume"
            ) from error
        raise StoreError(f"{path} cannot be written ({error.strerror}): choose another --out folder") from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file aside, flush it to disk, and rename it into place."""
    aside = path.with_name(f".{path.name}.part")
    payload = data.encode() if isinstance(data, str) else data
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    import io

    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False, compression="zstd")
    write_atomic(path, buffer.getvalue())


def read_manifest(root: Path) -> dict[str, Any]:
    """The run's manifest.

    Raises:
        StoreError: the folder is no run, or its manifest is damaged or of another schema.
    """
    path = root / "manifest.json"
    if not path.is_file():
        raise StoreError(
            f"{root} is not a run folder (it has no manifest.json): give the folder a describe or audit wrote"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}): remove the folder and run again") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise StoreMismatch(f"{path} is not of schema {SCHEMA_VERSION}: it was written by another version; run again")
    return manifest


@dataclass(frozen=True)
class Stage:
    """One step of a run. ``done`` says its files are in place and came from the same inputs."""

    store: RunStore
    name: str
    key: str
    done: bool
    scratch: Path
    started: float

    def path(self, relative: str) -> Path:
        """Where to write a file of this stage (in scratch); it moves to ``ROOT/relative`` on commit."""
        target = self.scratch / "files" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def commit(self) -> None:
        """Move every file under ``files/`` into the run folder and enter the stage in the manifest."""
        made = self.scratch / "files"
        files = {p.relative_to(made).as_posix(): file_sha256(p) for p in sorted(made.rglob("*")) if p.is_file()}
        write_atomic(self.scratch / "commit.json", json.dumps({"key": self.key, "files": files}, sort_keys=True))
        self.store._move(self.name, self.scratch, self.key, files, time.monotonic() - self.started)


class RunStore:
    """A run folder opened for writing by this process alone.

    Use as a context manager. A second process is refused with :class:`StoreLocked`. Without ``resume``
    a folder that already holds a run is refused, so that nothing is overwritten by accident.

    Args:
        root: the run folder; made when missing.
        resume: reuse the stages whose inputs are unchanged and recompute the others.
        header: values for the manifest (tool, versions, model, probe ...), replaced on every opening.
    """

    def __init__(self, root: Path, *, resume: bool = False, header: Mapping[str, Any] | None = None) -> None:
        self.root = Path(root)
        self.resume = resume
        self._header = dict(header or {})
        self._lock: Any = None
        self._fresh = False
        self.manifest: dict[str, Any] = {}

    def __enter__(self) -> RunStore:
        from filelock import FileLock, Timeout

        with writing(self.root):
            if self.root.exists() and not self.root.is_dir():
                raise StoreError(f"{self.root} is a file: choose another --out folder")
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.root / ".lock", timeout=0)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise StoreLocked(
                    f"another run is writing to {self.root}: wait for it or choose another --out folder"
                ) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _open(self) -> None:
        if (self.root / "manifest.json").exists():
            if not self.resume:
                raise StoreMismatch(
                    f"{self.root} already holds a run: add --resume to go on, or choose another --out folder"
                )
            self.manifest = read_manifest(self.root)
        else:
            strangers = [p.name for p in self.root.iterdir() if p.name not in (".lock", ".work")]
            if strangers:
                raise StoreMismatch(
                    f"{self.root} is not empty and holds no run ({strangers[0]} is there): choose another --out folder"
                )
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.manifest = {"schema_version": SCHEMA_VERSION, "stages": {}, "timings": {"created": created}}
            self._fresh = True
        self.manifest.update(self._header)
        self._write_manifest()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        work = self.root / ".work"
        refused = isinstance(error, DndError) and not isinstance(error, StoreError)
        if kind is not None and self._fresh and not self.manifest["stages"] and (refused or not work.exists()):
            # Refused before anything was done: the corrected command must not meet a run that is none. What a full disk
            # or a kill interrupted stays, and is gone on with.
            shutil.rmtree(work, ignore_errors=True)
            for name in ("manifest.json", "config.yaml"):
                (self.root / name).unlink(missing_ok=True)
        self._lock.release()

    def annotate(self, **values: Any) -> None:
        """Enter facts about the run (model, probe, skips ...) in the manifest."""
        self.manifest.update(values)
        self._write_manifest()

    def stage(self, name: str, inputs: Any) -> Stage:
        """The stage ``name`` for these inputs; ``done`` when an earlier run finished it with the same ones."""
        key = fingerprint(inputs)
        work = self.root / ".work"
        scratch = work / f"{name}-{key[:16]}"
        if work.is_dir():
            for stale in work.glob(f"{name}-*"):
                if stale != scratch:
                    shutil.rmtree(stale)
        if (scratch / "commit.json").is_file():
            self._complete(name, key, scratch)
        known = self.manifest["stages"].get(name)
        done = known is not None and known["key"] == key and self._intact(known["files"])
        if not done:
            with writing(scratch):
                scratch.mkdir(parents=True, exist_ok=True)
        return Stage(self, name, key, done, scratch, time.monotonic())

    def _intact(self, files: Mapping[str, str]) -> bool:
        return all((self.root / name).is_file() and file_sha256(self.root / name) == sha for name, sha in files.items())

    def _complete(self, name: str, key: str, scratch: Path) -> None:
        """Finish a commit that a kill interrupted; scratch that does not fit is dropped."""
        plan = json.loads((scratch / "commit.json").read_text(encoding="utf-8"))
        for file, sha in plan["files"].items():
            made, placed = scratch / "files" / file, self.root / file
            found = made if made.is_file() else placed
            if not found.is_file() or file_sha256(found) != sha:
                shutil.rmtree(scratch)
                return
        if plan["key"] == key:
            self._move(name, scratch, key, plan["files"], 0.0)

    def _move(self, name: str, scratch: Path, key: str, files: Mapping[str, str], seconds: float) -> None:
        previous = self.manifest["stages"].pop(name, None)
        if previous is not None:
            # The manifest must never vouch for files that are being replaced.
            self._write_manifest()
            for file in previous["files"]:
                if file not in files:
                    (self.root / file).unlink(missing_ok=True)
        for file in files:
            made, placed = scratch / "files" / file, self.root / file
            if made.is_file():
                with writing(placed):
                    placed.parent.mkdir(parents=True, exist_ok=True)
                    made.replace(placed)
        self.manifest["stages"][name] = {"key": key, "files": dict(files)}
        timings = self.manifest["timings"].setdefault("stages", {})
        timings[name] = round(timings.get(name, 0.0) + seconds, 3) if seconds == 0.0 else round(seconds, 3)
        self._write_manifest()
        shutil.rmtree(scratch, ignore_errors=True)
        work = self.root / ".work"
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()

    def _write_manifest(self) -> None:
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomic(self.root / "manifest.json", text + "\n")
