"""The run that this server shows, opened once and again when its files change; addresses below the base path."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from dnd_core.errors import StoreError
from geoaudit.results import Results, open_run

__all__ = [
    "BASE_VARIABLE",
    "CONFIG_VARIABLE",
    "RUN_VARIABLE",
    "address",
    "base_path",
    "current",
    "origin",
    "run_folder",
    "stamp",
]

RUN_VARIABLE = "GEOAUDIT_RUN"
BASE_VARIABLE = "GEOAUDIT_BASE_PATH"
# The audit's YAML file, for work that needs the network again; set where the server is started, never by a visitor.
CONFIG_VARIABLE = "GEOAUDIT_CONFIG"
_WATCHED = ("manifest.json", "layers.json", "audit.json", "neurons.parquet", "groups.parquet", "images.parquet")

_lock = threading.Lock()
_opened: dict[tuple[object, ...], Results] = {}


def run_folder() -> Path:
    """The folder that this server was started with.

    Raises:
        StoreError: the server was started without one.

    """
    folder = os.environ.get(RUN_VARIABLE, "")
    if not folder:
        raise StoreError("the dashboard was started without a run: start it with `geoaudit dashboard RUN_DIR`")
    return Path(folder)


def stamp() -> tuple[object, ...]:
    """Changes whenever a file that pages are made from changes; used as a key of caches."""
    root = run_folder()
    found: list[object] = [str(root)]
    for name in _WATCHED:
        try:
            found.append((root / name).stat().st_mtime_ns)
        except OSError:
            found.append(None)
    return tuple(found)


def current() -> Results:
    """The run, shared by every visitor of this process.

    Raises:
        StoreError: there is no such folder.

    """
    key = stamp()
    with _lock:
        if key not in _opened:
            found = open_run(run_folder())
            # An unfinished run is opened anew as it grows; keeping older states would only hold memory.
            _opened.clear()
            _opened[key] = found
        return _opened[key]


def base_path() -> str:
    """Where the server is mounted: empty, or ``/some/path`` without a slash at the end."""
    text = os.environ.get(BASE_VARIABLE, "").strip("/")
    return f"/{text}" if text else ""


def address(path: str, **query: object) -> str:
    """An address on this server below its base path, ready for an attribute or a style; empty values are left out."""
    wanted = {key: value for key, value in query.items() if value is not None and value != ""}
    tail = f"?{urlencode(wanted, quote_via=quote)}" if wanted else ""
    return f"{base_path()}/{path.lstrip('/')}{tail}"


def origin(url: str | None) -> str:
    """Scheme and host of the address in the visitor's browser; empty where it is not known."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else ""
