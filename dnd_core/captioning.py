"""Step 2a: captions, once per distinct image, journaled so that a kill loses none (paper section 3.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from dnd_core.errors import BackendError
from dnd_core.images import ImageSet, ProbeImage
from dnd_core.protocols import Captioner
from dnd_core.types import Box

__all__ = ["Journal", "View", "caption_views", "view_image"]

Progress = Callable[[str, int, int], None]
View = tuple[int, int, int, int, int]
"""An image of the probe and the crop of it: (image, left, top, right, bottom), -1s for the whole image."""

WHOLE = (-1, -1, -1, -1)
T = TypeVar("T")


class Journal:
    """Finished pieces of a stage, one JSON line each; a line torn by a kill is dropped on reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, object] = {}
        if path.is_file():
            whole = path.read_bytes()
            kept = whole[: whole.rfind(b"\n") + 1]
            for line in kept.splitlines():
                key, value = json.loads(line)
                self.entries[key] = value
            if len(kept) < len(whole):
                with path.open("r+b") as stream:
                    stream.truncate(len(kept))

    def extend(self, entries: Iterable[tuple[str, object]]) -> None:
        """Append finished pieces and flush them."""
        from dnd_core.store import writing

        new = dict(entries)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps([key, value], ensure_ascii=True) + "\n" for key, value in new.items())
        self.entries.update(new)


def view_image(images: ImageSet, view: View) -> ProbeImage:
    """The image, or the crop of it, that a view names."""
    image = images[view[0]]
    return image if view[1:] == WHOLE else image.crop(Box(*view[1:]))


def caption_views(
    captioner: Captioner,
    images: ImageSet,
    views: Sequence[View],
    journal: Path,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Caption every distinct view once.

    Returns:
        One row a view, sorted: ``image, left, top, right, bottom, caption``. Views with equal pixels share a caption.

    Raises:
        BackendError: the captioner answered with another number of captions than it was given images.
    """
    done = Journal(journal)
    ordered = sorted(set(views))
    captions: dict[View, str] = {}
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        waiting: dict[str, ProbeImage] = {}
        keys: dict[View, str] = {}
        for view in batch:
            name = ",".join(map(str, view))
            known = done.entries.get(name)
            if isinstance(known, str):
                captions[view] = known
                continue
            image = view_image(images, view)
            keys[view] = image.key
            if f"#{image.key}" not in done.entries:
                waiting.setdefault(image.key, image)
        if waiting:
            answers = captioner.caption(list(waiting.values()))
            if len(answers) != len(waiting):
                raise BackendError(
                    f"{type(captioner).__name__} gave {len(answers)} captions for {len(waiting)} images: "
                    "it must give one each"
                )
            done.entries.update((f"#{key}", answer.strip()) for key, answer in zip(waiting, answers, strict=True))
        fresh = {view: str(done.entries[f"#{key}"]) for view, key in keys.items()}
        done.extend((",".join(map(str, view)), caption) for view, caption in fresh.items())
        captions.update(fresh)
        if progress is not None:
            progress("captions", min(start + batch_size, len(ordered)), len(ordered))
    frame = pd.DataFrame(ordered, columns=["image", "left", "top", "right", "bottom"])
    frame["caption"] = [captions[view] for view in ordered]
    return frame
