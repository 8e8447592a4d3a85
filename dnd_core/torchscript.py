"""TorchScript networks: the file brings its own code, so only what it answers can be read."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from dnd_core.errors import NetworkError
from dnd_core.hooks import Opaque
from dnd_core.store import file_sha256

__all__ = ["ScriptedNetwork", "read_torchscript"]

# The TorchScript language cannot import Python, but these operators of it reach for files.
_REACHES_OUT = re.compile(r"\b(?:torch|aten|prim)\.(save|from_file|load|PythonOp)\s*\(")


class ScriptedNetwork(Opaque):
    """A TorchScript network with one layer that can be probed: ``output``.

    Hooks cannot be put on the layers inside a TorchScript archive, so its units are its outputs only.

    Args:
        script: the loaded archive; answers (B, classes) or (B, classes, H, W).
        sha256: of the file; as a buffer it enters the weights' fingerprint and stands there for the archive's code.
    """

    def __init__(self, script: Any, sha256: str) -> None:
        super().__init__(script)
        self.register_buffer("file_sha256", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))


def read_torchscript(path: str | Path) -> ScriptedNetwork:
    """The network in a TorchScript archive.

    Raises:
        NetworkError: there is no such archive, it is damaged, or its code reads or writes files.

    """
    path = Path(path)
    if not path.is_file():
        raise NetworkError(f"{path}: no such file; give the path of a TorchScript archive")
    try:
        with zipfile.ZipFile(path) as archive:
            code = [archive.read(name).decode(errors="replace") for name in archive.namelist() if name.endswith(".py")]
    except zipfile.BadZipFile as error:
        raise NetworkError(f"{path}: is no TorchScript archive; give a file that torch.jit.save wrote") from error
    for text in code:
        if match := _REACHES_OUT.search(text):
            raise NetworkError(
                f"{path}: refused, because its TorchScript code calls {match[1]}, which reaches for files; nothing was "
                "run: export the network again without it"
            )
    with warnings.catch_warnings():
        # The format is the user's; that torch calls it deprecated is nothing they can act on here.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated")
        try:
            script: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise NetworkError(f"{path}: is a damaged TorchScript archive; export it again") from error
    return ScriptedNetwork(script, file_sha256(path))
