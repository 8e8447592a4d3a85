"""Where a backend's weights are, whether they are whole, and what they hash to.

A name is a local file or folder when such a path exists, else a Hugging Face hub id looked up in
the local cache and, unless ``HF_HUB_OFFLINE`` is set, on the hub. Only safetensors, GGUF and plain-tensor ``.bin``
files are fetched: code that ships with a repository is never run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dnd_core.errors import BackendUnavailable, ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "check_tensors",
    "content_hash",
    "file_hash",
    "fixed_batches",
    "quiet_loading",
    "require_package",
    "resolve_device",
    "resolve_dtype",
    "resolve_weights",
    "stable_hash",
    "weight_files",
]

T = TypeVar("T")
CONFIGURATION = ("*.json", "*.txt", "*.model", "*.jinja")
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
SAFE = (".safetensors", ".gguf")
_HASHED = (".json", ".txt", ".model", ".jinja")


def require_package(module: str, extra: str) -> None:
    """Make sure a package can be imported.

    Raises:
        BackendUnavailable: it is not installed; the message names the extra that brings it.

    """
    if importlib.util.find_spec(module) is None:
        raise BackendUnavailable(f"package {module} is not installed: pip install 'geoaudit[{extra}]'")


def resolve_device(device: str) -> str:
    """A torch device name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        BackendUnavailable: the device asked for is not on this machine.
        ConfigError: the name is not a device.

    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}")
    index = int(device.split(":")[1]) if device[len(kind) + 1 :].isdigit() else 0
    there = {"cpu": True, "cuda": torch.cuda.device_count() > index, "mps": torch.backends.mps.is_available()}
    if not there[kind]:
        raise BackendUnavailable(f"device {device} is not on this machine: use device=auto or cpu")
    return device


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """The number format to compute in; ``auto`` is float32 on a CPU and bfloat16 elsewhere.

    Raises:
        ConfigError: not one of auto, float32, float16, bfloat16.

    """
    import torch

    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    if dtype not in known:
        raise ConfigError(f"dtype must be auto or one of {', '.join(known)}, got {dtype!r}")
    return known[dtype]


def resolve_weights(
    name: str, *, needs: Sequence[str], revision: str | None = None, nested: bool = False, extra: Sequence[str] = ()
) -> Path:
    """The local path of a checkpoint whose weights are whole and hold tensors only.

    Args:
        name: a file, a folder, or a hub id such as ``organisation/model``.
        needs: file names that a folder must hold besides its weights; ``a|b`` is satisfied by either.
        revision: branch, tag or commit on the hub.
        nested: weights lie in sub-folders too.
        extra: further file names to fetch from the hub.

    Raises:
        BackendUnavailable: not there and not to be had, or not whole; the message says what to do.

    """
    path = Path(name).expanduser()
    if path.is_file():
        check_tensors(path)
        return path
    if not path.is_dir():
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise BackendUnavailable(f"no weights at {name}: give a folder that exists, or a hub id")
        path = _from_hub(name, revision, nested, extra)
    missing = [file for file in needs if not any((path / name).is_file() for name in file.split("|"))]
    if missing:
        raise BackendUnavailable(
            f"{name} is not a whole checkpoint, it lacks {', '.join(missing).replace('|', ' or ')}: fetch it again"
        )
    weights = weight_files(path, nested=nested)
    if not weights:
        raise BackendUnavailable(f"{name} holds no weights ({', '.join(WEIGHTS)}): fetch it again")
    for file in weights:
        check_tensors(file)
    return path


def weight_files(path: Path, *, nested: bool = False) -> list[Path]:
    """A checkpoint's weight files; pickled ones only where there is no safer format."""
    if path.is_file():
        return [path]
    files = [file for file in _files(path) if file.suffix in WEIGHTS and (nested or file.parent == path)]
    return [file for file in files if file.suffix in SAFE] or files


def _from_hub(name: str, revision: str | None, nested: bool, extra: Sequence[str]) -> Path:
    """A hub repository's snapshot: from the cache when offline, fetched when not."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    ignored = None if nested else ["*/*"]
    way_out = f"fetch it once with `hf download {name}` where there is a network, or give the path of a local folder"
    try:
        for formats in (("*.safetensors",), ("*.bin",)):
            patterns = [*CONFIGURATION, *(extra or formats)]
            found = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=ignored))
            if extra or weight_files(found, nested=nested):
                break
    except HFValidationError as error:
        raise BackendUnavailable(f"{name!r} is neither a path that exists nor a hub id") from error
    except LocalEntryNotFoundError as error:
        where = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise BackendUnavailable(f"{name} is not in the local hub cache and {where}: {way_out}") from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendUnavailable(f"{name} cannot be fetched from the hub ({reason}): {way_out}") from error
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))


def check_tensors(file: Path) -> None:
    """Find cut-off downloads, and pickles that want to run code, without reading the tensors.

    Raises:
        BackendUnavailable: a safetensors file is shorter or longer than its header promises, or a pickled
            checkpoint holds anything but tensors and plain containers.

    """
    if file.suffix == ".safetensors":
        _check_safetensors(file)
    elif file.suffix in WEIGHTS and file.suffix not in SAFE:
        _check_pickle(file)


def _check_safetensors(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        body = stream.read(length) if length <= size - 8 else b""
    try:
        header = json.loads(body)
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackendUnavailable(f"{file} is not a whole safetensors file: fetch it again") from None
    if size != 8 + length + end:
        raise BackendUnavailable(
            f"{file} has {size} bytes where its header promises {8 + length + end}: fetch it again"
        )


def _check_pickle(file: Path) -> None:
    import pickle
    import zipfile

    import torch

    try:
        torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise BackendUnavailable(
            f"{file} cannot be loaded as plain tensors (it is cut off, or holds code): use a safetensors file"
        ) from error


def content_hash(path: Path) -> str:
    """Sha256 over the names and bytes of a checkpoint's weights, configuration and tokenizer files."""
    files = [path]
    if path.is_dir():
        files = sorted([*(f for f in _files(path) if f.suffix in _HASHED), *weight_files(path, nested=True)])
    digest = hashlib.sha256()
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        state = file.stat()
        digest.update(f"{name}={file_hash(file, state.st_size, state.st_mtime_ns)};".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def file_hash(file: Path, size: int, modified: int) -> str:
    """Sha256 of one file; size and time of change are part of the memo's key, so an edited file is read again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stable_hash(*parts: object) -> str:
    """Sha256 of plain values, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def fixed_batches(items: Sequence[T], size: int) -> Iterator[tuple[list[T], int]]:
    """Batches of exactly ``size`` items and how many of them count; the last is filled up with its last item.

    One shape for every batch makes a row's value independent, to the bit, of what else was asked for
    at the same time: a resumed run must write what an undisturbed run writes.
    """
    for start in range(0, len(items), size):
        batch = list(items[start : start + size])
        yield batch + [batch[-1]] * (size - len(batch)), len(batch)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load transformers models without its progress bars, which would break plain log output."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
