"""Captions made once for many runs of a bench, kept on disk so that a killed bench does not make them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dnd_core.captioning import Journal
from dnd_core.images import ProbeImage
from dnd_core.protocols import Captioner
from dnd_core.registry import backend_fingerprint
from dnd_core.store import fingerprint

__all__ = ["CachedCaptioner"]


class CachedCaptioner:
    """Another captioner whose captions are remembered by image content.

    Args:
        captioner: who captions.
        folder: where captions are kept, one journal for each fingerprint of the captioner.
    """

    def __init__(self, captioner: Captioner, folder: Path) -> None:
        self.captioner = captioner
        self.fingerprint = backend_fingerprint(captioner)
        self._journal = Journal(Path(folder) / f"captions-{fingerprint(self.fingerprint)[:16]}.jsonl")

    def check(self) -> None:
        """Ask the captioner whether it can run."""
        check = getattr(self.captioner, "check", None)
        if check is not None:
            check()

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        """One caption an image, as the captioner gives it."""
        known = self._journal.entries
        # A crop is captioned in the knowledge that it is one, so the same pixels may have two captions.
        names = [f"{image.key}{'c' if 'crop' in image.metadata else ''}" for image in images]
        new = {name: image for name, image in zip(names, images, strict=True) if name not in known}
        if new:
            self._journal.extend(zip(new, self.captioner.caption(list(new.values())), strict=True))
        return [str(known[name]) for name in names]
