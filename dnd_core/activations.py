"""Pooled activations on disk: plain ``.npy`` files written block by block, readable as memory maps.

Blocks are written with ordinary file writes, not through a memory map: on a full disk a write fails with an error that
can be reported, where a memory map would end the process with a bus error.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnd_core.store import writing

__all__ = ["ActivationFile"]


class ActivationFile:
    """A float32 (images, units) matrix that grows by blocks of rows and survives a kill between them.

    Args:
        path: the ``.npy`` file; an unfinished one is gone on with.
        images, units: shape of the whole matrix.
        block: rows of a block; what a kill left of an unfinished block is dropped.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, images: int, units: int, block: int) -> None:
        self.path, self.shape = path, (images, units)
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, description)
        self._start, self._row = len(header.getvalue()), units * 4
        with writing(path):
            intact = path.is_file() and _head(path, self._start) == header.getvalue()
            self._stream = path.open("r+b" if intact else "w+b")
            if not intact:
                self._stream.write(header.getvalue())
            self._stream.seek(0, io.SEEK_END)
            written = max(0, self._stream.tell() - self._start) // self._row if self._row else images
            self.rows = images if written >= images else written // block * block
            self._stream.truncate(self._start + self.rows * self._row)

    def __setitem__(self, rows: slice, values: NDArray[np.float32]) -> None:
        """Write a block of rows and flush it.

        Raises:
            StoreError: the disk is full.
        """
        with writing(self.path):
            self._stream.seek(self._start + rows.start * self._row)
            self._stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())
            self._stream.flush()
        self.rows = rows.start + len(values)

    def close(self) -> None:
        """Close the file; rows written stay."""
        with writing(self.path):
            self._stream.close()


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(size)
