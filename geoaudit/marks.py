"""Pages of the documentation that are partly written by commands: what they put stands between marks."""

from __future__ import annotations

from pathlib import Path

from dnd_core.errors import StoreError
from dnd_core.store import write_atomic

__all__ = ["parts_of", "put_between"]


def parts_of(page: Path, name: str) -> tuple[str, str]:
    """What stands before and after the part between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``, marks included.

    Args:
        page: a Markdown file that has both marks once.
        name: of the marks.

    Raises:
        StoreError: the page is not there or lacks a mark. A command asks before a long job, not after it.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if not page.is_file():
        raise StoreError(f"{page} is not there: --docs wants the documentation's folder of a checkout")
    found = page.read_text(encoding="utf-8")
    if found.count(begin) != 1 or found.count(end) != 1 or found.index(begin) > found.index(end):
        raise StoreError(f"{page} has no part between {begin} and {end} that tables could be put into")
    return found[: found.index(begin) + len(begin)], found[found.index(end) :]


def put_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between a page's marks; all else stays as it is.

    Args:
        page: a Markdown file that has both marks once.
        name: of the marks.
        text: to put there.

    Raises:
        StoreError: as in :func:`parts_of`; nothing is written then.
    """
    head, tail = parts_of(page, name)
    write_atomic(page, f"{head}\n{text}\n{tail}")
