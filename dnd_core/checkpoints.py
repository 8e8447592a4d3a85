"""Reading a model file without running what is inside it.

A PyTorch checkpoint is a pickle, and a pickle is a program. Only two doors are open here: safetensors, and
``torch.load(weights_only=True)``, which rebuilds tensors and plain values and refuses everything else.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnd_core.errors import NetworkError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "is_torchscript", "read_checkpoint"]

_NESTED = ("state_dict", "model_state_dict", "model")
# What tensors and plain values need; everything else that a pickle asks for is code.
_HARMLESS = re.compile(
    r"torch\._utils\._rebuild\w+|torch\._tensor\._rebuild\w+|torch\.\w*Storage|torch\.storage\.\w+|torch\.[a-z]+\d+\w*"
    r"|torch\.(Size|device|Tensor|nn\.parameter\.Parameter)|collections\.OrderedDict|(__builtin__|builtins)\.set"
)
_RESAVE = "re-save its weights with safetensors.torch.save_file(model.state_dict(), ...), or as a state_dict of tensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors and plain values of a model file.

    Attributes:
        path: the file.
        state_dict: name to tensor, on the CPU.
        hyper_parameters: what a Lightning checkpoint says of the task that made it; empty for other files.
        lightning: the file is a Lightning checkpoint.

    """

    path: Path
    state_dict: dict[str, Tensor]
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    lightning: bool = False


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive: a zip that holds code beside its constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The weights in a Lightning checkpoint, a state dict or a safetensors file.

    Raises:
        NetworkError: no such file, not a checkpoint, truncated, or its pickle wants to run code; nothing of it is run.

    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise NetworkError(f"{path}: {what}; give the path of a checkpoint")
    if path.suffix == ".safetensors":
        return Checkpoint(path, _read_safetensors(path))
    content = _read_pickle(path)
    if not isinstance(content, Mapping):
        raise NetworkError(f"{path}: holds a {type(content).__name__}, not weights; {_RESAVE}")
    # Lightning writes its version into every checkpoint; a hand-saved {"state_dict": ...} has none.
    lightning = "pytorch-lightning_version" in content or "hyper_parameters" in content
    state = _tensors(content)
    if state is None:
        names = [str(name) for name in content]
        held = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        raise NetworkError(f"{path}: holds {held or 'nothing'} but no state_dict; {_RESAVE}")
    hyper_parameters = content.get("hyper_parameters", {})
    return Checkpoint(path, state, hyper_parameters if isinstance(hyper_parameters, Mapping) else {}, lightning)


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    from torch import Tensor

    nested = next((content[name] for name in _NESTED if isinstance(content.get(name), Mapping)), None)
    found = {str(name): value for name, value in (nested or content).items() if isinstance(value, Tensor)}
    # A module may keep other things in its state dict; at the top of a file they say that it is no state dict.
    return found if found and (nested is not None or len(found) == len(content)) else None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path}: is no readable safetensors file ({error}); copy or save it again") from error


def _read_pickle(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # What the file wants is said below by name; torch's remark on its pickle protocol adds nothing.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = [name for name in _globals(path) if not _HARMLESS.fullmatch(name)]
        if wanted:
            raise NetworkError(
                f"{path}: refused, because its pickle wants to run code that is no weight ({', '.join(wanted[:4])}); "
                f"nothing was run: {_RESAVE}"
            ) from error
        raise NetworkError(f"{path}: is damaged or no checkpoint; copy or save it again") from error
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError, OSError) as error:
        raise NetworkError(f"{path}: is damaged or no checkpoint; copy or save it again") from error


def _globals(path: Path) -> list[str]:
    """Names a pickle would import, read off its opcodes without executing any."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            streams = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    else:
        streams = [path.read_bytes()]
    names: dict[str, None] = {}
    for stream in streams:
        strings: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names[str(argument).replace(" ", ".")] = None
                elif opcode.name == "STACK_GLOBAL":
                    names[".".join(strings[-2:])] = None
                elif isinstance(argument, str):
                    strings.append(argument)
        except ValueError:
            # A stream broken half way still names what it asked for up to there.
            continue
    # Any text is a pickle of sorts; what is no dotted name was never one.
    return [name for name in names if all(part.isidentifier() for part in name.split("."))]
