"""What people say about a run: an append-only table in ``reviews.sqlite`` of the run folder.

Nothing is ever changed or deleted: a later entry of the same person on the same subject takes the place of an earlier one
when read. With SQLite's write-ahead log several people can write at once and lose nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dnd_core.errors import StoreError
from dnd_core.store import write_atomic

__all__ = ["DECISIONS", "FILE", "Choice", "Entry", "Review", "Reviews", "Tally"]

FILE = "reviews.sqlite"
SUMMARY = "reviews.json"
DECISIONS = ("accept", "correct", "reject")
Kind = Literal["label", "finding"]
_MOST = 4000

_TABLES = """
CREATE TABLE IF NOT EXISTS reviews (
  number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject TEXT NOT NULL, label TEXT NOT NULL,
  decision TEXT NOT NULL, correction TEXT NOT NULL, reviewer TEXT NOT NULL, note TEXT NOT NULL, written TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS choices (
  number INTEGER PRIMARY KEY AUTOINCREMENT, unit TEXT NOT NULL, method TEXT NOT NULL, ours TEXT NOT NULL,
  theirs TEXT NOT NULL, winner TEXT NOT NULL, reviewer TEXT NOT NULL, written TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Review:
    """A decision on a label or a finding.

    Attributes:
        kind: ``label`` or ``finding``.
        subject: ``layer/index``, or the fingerprint of a finding.
        label: what was shown when it was decided.
        decision: one of :data:`DECISIONS`.
        reviewer: who decides; must not be empty.
        correction: what it should be, for ``correct``.
        note: why.

    Raises:
        StoreError: a field is missing or not one of its values.

    """

    kind: Kind
    subject: str
    label: str
    decision: str
    reviewer: str
    correction: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("label", "finding") or not self.subject:
            raise StoreError("a review is of a label or a finding, and names it")
        if self.decision not in DECISIONS:
            raise StoreError(f"a decision is one of {', '.join(DECISIONS)}")
        if not self.reviewer.strip():
            raise StoreError("give your name: a review without one cannot be signed")
        if self.decision == "correct" and not self.correction.strip():
            raise StoreError("write what is right: a correction needs its words")


@dataclass(frozen=True, slots=True)
class Choice:
    """One blind comparison: ``winner`` is ``ours``, ``theirs``, ``both`` or ``neither``."""

    unit: str
    method: str
    ours: str
    theirs: str
    winner: str
    reviewer: str

    def __post_init__(self) -> None:
        if self.winner not in ("ours", "theirs", "both", "neither"):
            raise StoreError("a comparison is won by ours, theirs, both or neither")
        if not self.reviewer.strip():
            raise StoreError("give your name first: comparisons are counted by reviewer")


@dataclass(frozen=True, slots=True)
class Entry:
    """A review as stored: with its number and the time it was written (UTC, ISO 8601)."""

    number: int
    review: Review
    written: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How comparisons with a method ended."""

    ours: int = 0
    theirs: int = 0
    both: int = 0
    neither: int = 0

    @property
    def decided(self) -> int:
        """Comparisons that one side won."""
        return self.ours + self.theirs


class Reviews:
    """The reviews of one run."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE

    @contextmanager
    def _open(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=20, isolation_level=None)) as base:
                if write:
                    _to_wal(base)
                    base.execute("PRAGMA synchronous=FULL")
                    base.executescript(_TABLES)
                yield base
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path.name} cannot be {'written' if write else 'read'} ({error}): "
                "check the run folder's rights and free space, or move the file away to begin anew"
            ) from error

    def add(self, entry: Review | Choice) -> int:
        """Store one entry and return its number.

        Raises:
            StoreError: the run folder cannot be written.

        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if isinstance(entry, Review):
            table = "reviews (kind, subject, label, decision, correction, reviewer, note, written)"
            values: Sequence[str] = (
                entry.kind, entry.subject, entry.label, entry.decision, entry.correction, entry.reviewer, entry.note,
            )  # fmt: skip
        else:
            table = "choices (unit, method, ours, theirs, winner, reviewer, written)"
            values = (entry.unit, entry.method, entry.ours, entry.theirs, entry.winner, entry.reviewer)
        row = [_stored(value) for value in values] + [now]
        with self._open(write=True) as base:
            found = base.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            return int(found.lastrowid or 0)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if not self.path.is_file():
            return []
        with self._open(write=False) as base:
            known = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return list(base.execute(query, values)) if {"reviews", "choices"} <= known else []

    def entries(self) -> list[Entry]:
        """Every review, the oldest first."""
        rows = self._rows(
            "SELECT number, kind, subject, label, decision, reviewer, correction, note, written FROM reviews ORDER BY number"
        )
        return [Entry(int(row[0]), Review(*row[1:8]), row[8]) for row in rows]

    def latest(self, kind: Kind) -> dict[str, list[Entry]]:
        """Subject to the last entry of each person, the newest first."""
        last: dict[tuple[str, str], Entry] = {}
        for entry in self.entries():
            if entry.review.kind == kind:
                last[(entry.review.subject, entry.review.reviewer)] = entry
        found: dict[str, list[Entry]] = {}
        for entry in sorted(last.values(), key=lambda kept: -kept.number):
            found.setdefault(entry.review.subject, []).append(entry)
        return found

    def compared(self, reviewer: str, method: str) -> set[str]:
        """Units that a person has compared with a method."""
        rows = self._rows("SELECT DISTINCT unit FROM choices WHERE reviewer = ? AND method = ?", (reviewer, method))
        return {str(unit) for (unit,) in rows}

    def tallies(self) -> dict[str, Tally]:
        """Method to how its comparisons ended; a person's last choice for a unit counts."""
        rows = self._rows(
            "SELECT method, winner, COUNT(*) FROM choices WHERE number IN "
            "(SELECT MAX(number) FROM choices GROUP BY unit, method, reviewer) GROUP BY method, winner ORDER BY method"
        )
        found: dict[str, dict[str, int]] = {}
        for method, winner, count in rows:
            found.setdefault(str(method), {})[str(winner)] = int(count)
        return {method: Tally(**counts) for method, counts in found.items()}

    def summary(self) -> dict[str, Any]:
        """Everything said, for reports: the last decision of each person, findings by fingerprint and labels by unit."""

        def said(kind: Kind) -> dict[str, list[Mapping[str, str]]]:
            return {
                subject: [
                    {"verdict": entry.review.decision, "by": entry.review.reviewer, "on": entry.written, "note": entry.review.note,
                     "correction": entry.review.correction}
                    for entry in entries
                ]
                for subject, entries in sorted(self.latest(kind).items())
            }  # fmt: skip

        tallies = {
            method: {"ours": tally.ours, "theirs": tally.theirs, "both": tally.both, "neither": tally.neither}
            for method, tally in self.tallies().items()
        }
        return {"findings": said("finding"), "labels": said("label"), "comparisons": tallies}

    def write_summary(self) -> Path:
        """Write :meth:`summary` as ``reviews.json`` beside the other files of the run, for reports and other tools."""
        text = json.dumps(self.summary(), indent=1, ensure_ascii=False, sort_keys=True)
        path = self.path.with_name(SUMMARY)
        write_atomic(path, text.encode("utf-8"))
        return path


def _stored(value: str) -> str:
    # SQLite refuses lone surrogates, and nobody needs a note of a hundred kilobytes.
    return value[:_MOST].encode("utf-8", "replace").decode("utf-8")


def _to_wal(base: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. SQLite does not wait here when another process is switching too, so we do."""
    for attempt in range(WAL_ATTEMPTS):
        try:
            base.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == WAL_ATTEMPTS - 1:
                raise
            time.sleep(0.05)


WAL_ATTEMPTS = 200
