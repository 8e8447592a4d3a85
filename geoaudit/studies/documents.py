"""The part of a study's page in the documentation that is the study's own: what ``--docs`` writes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from dnd_core.store import write_atomic
from geoaudit.marks import put_between

__all__ = ["write_document"]

_COLOURS = 64
# What others published is quoted on the page itself, beside what it means.
_QUOTED = "\n## What was published\n"


def write_document(
    run: Path,
    docs: Path,
    study: str,
    command: str,
    *,
    mark: str = "study",
    pictures: Sequence[str] = (),
    deeper: int = 1,
) -> list[Path]:
    """Put a finished study's tables and pictures into its page; the text outside the marks stays as it is.

    Args:
        run: folder of the study, with ``study.md``.
        docs: folder with the page ``STUDY.md``, which has the marks, and ``images``.
        study: name of the page, and what its pictures' names begin with.
        command: that anyone reruns this with.
        mark: name of the marks.
        pictures: PNGs of the run that the page shows, without their ending; links to others are left out.
        deeper: levels that headings go down by.

    Returns:
        What was written.

    Raises:
        StoreError: the page is not there or has no marks.
    """
    text = (run / "study.md").read_text(encoding="utf-8")
    # The page has a title of its own, and the study is a part of it.
    text = re.sub(r"\A# .*\n", "", text).partition(_QUOTED)[0]
    text = re.sub(r"^(?=#{2,} )", "#" * deeper, text, flags=re.MULTILINE)
    for shown in set(re.findall(r"!\[[^\]]*\]\(([a-z]+)\.png\)", text)):
        at = f"images/{study}-{shown}.png"
        text = re.sub(rf"(!\[[^\]]*\])\({shown}\.png\)\n*", rf"\1({at})\n\n" if shown in pictures else "", text)
    put_between(docs / f"{study}.md", mark, f"`{command}`\n\n{text.strip()}")
    written = [docs / f"{study}.md"]
    for name in pictures:
        written.append(docs / "images" / f"{study}-{name}.png")
        write_atomic(written[-1], _small(run / f"{name}.png"))
    return written


def _small(picture: Path) -> bytes:
    """The picture in a palette: bars and text lose nothing by it, and a repository keeps it for good."""
    from PIL import Image

    held = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(_COLOURS).save(held, "PNG", optimize=True)
    return held.getvalue()
