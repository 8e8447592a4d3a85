"""Pictures inside a report: tiles gathered on contact sheets, each once, and encoded as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

__all__ = ["ContactSheet", "Place", "data_uri", "encode", "open_rgb"]

_COLUMNS = 24
_ROWS = 24


def open_rgb(path: Path | None, size: int | None = None) -> Image.Image | None:
    """An image file as RGB, optionally squeezed to ``size`` x ``size``; None where it is missing or no image."""
    if path is None:
        return None
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if size is not None and image.size != (size, size):
        # Enlarged tiles keep their pixels: smoothing would show detail that the network never had.
        grows = image.width < size and size % image.width == 0
        image = image.resize((size, size), Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)
    return image


def encode(image: Image.Image, kind: str = "JPEG", quality: int = 82) -> bytes:
    """The bytes of a picture; equal pictures give equal bytes."""
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, subsampling=1)
    else:
        # The last tenth of the bytes would cost most of the time.
        image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "jpeg") -> str:
    """Bytes as a ``data:`` address, so that the page asks for nothing from outside."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture stands: the sheet's number and the cell in it."""

    sheet: int
    column: int
    row: int


@dataclass
class ContactSheet:
    """Equal square pictures on few large ones, so that a tile shown by fifty neurons is stored once.

    Attributes:
        name: prefix of the CSS classes.
        size: edge of a cell in pixels.
        quality: of the JPEG, 1 to 95.

    """

    name: str
    size: int
    quality: int = 78
    _places: dict[Hashable, Place] = field(default_factory=dict)
    _images: list[Image.Image] = field(default_factory=list)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places

    def place(self, key: Hashable) -> Place | None:
        """Where a picture stands, or None where it was never added."""
        return self._places.get(key)

    def add(self, key: Hashable, image: Image.Image) -> Place:
        """Put a picture on a sheet, once a key; returns where it stands."""
        if key not in self._places:
            number = len(self._images)
            sheet, cell = divmod(number, _COLUMNS * _ROWS)
            self._places[key] = Place(sheet, cell % _COLUMNS, cell // _COLUMNS)
            self._images.append(image.resize((self.size, self.size)) if image.size != (self.size,) * 2 else image)
        return self._places[key]

    def sheets(self) -> list[tuple[str, int, int]]:
        """Data address, columns and rows of every sheet."""
        made = []
        for start in range(0, len(self._images), _COLUMNS * _ROWS):
            part = self._images[start : start + _COLUMNS * _ROWS]
            columns, rows = min(_COLUMNS, len(part)), -(-len(part) // _COLUMNS)
            sheet = Image.new("RGB", (columns * self.size, rows * self.size), (128, 128, 128))
            for cell, image in enumerate(part):
                sheet.paste(image, (cell % _COLUMNS * self.size, cell // _COLUMNS * self.size))
            made.append((data_uri(encode(sheet, quality=self.quality)), columns, rows))
        return made

    def css(self) -> str:
        """Rules that show a sheet as background of ``.NAMEn``; a cell is chosen by the variables --x and --y."""
        rules = []
        for number, (address, columns, rows) in enumerate(self.sheets()):
            # Background positions in percent count from the first to the last cell, so the divisor is one less.
            rules.append(
                f".{self.name}{number}{{background-image:url({address});"
                f"background-size:{columns * 100}% {rows * 100}%;"
                f"background-position:calc(var(--x)*100%/{max(1, columns - 1)}) calc(var(--y)*100%/{max(1, rows - 1)})}}"
            )
        return "\n".join(rules)
