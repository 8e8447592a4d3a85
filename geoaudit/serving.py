"""Start the dashboard over a run, in place of this process: one process, one port, and no torch in it."""

from __future__ import annotations

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from dnd_core.errors import ConfigError

__all__ = ["command", "serve"]

# Screens stand on this package and not the other way round, so they are started by name and never imported.
SCREENS = "dashboards"


def command(run_dir: Path, port: int, host: str, base_path: str, config: Path | None = None) -> list[str]:
    """The command line that serves a run.

    Raises:
        ConfigError: the folder, the port, the path or the configuration cannot be used, or the screens are not installed.

    """
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir} is not a folder: give the folder that an audit wrote")
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port must be 1 to 65535, not {port}")
    if any(part in ("", ".", "..") for part in base_path.strip("/").split("/")) and base_path.strip("/"):
        raise ConfigError(f"--base_path must be a plain path such as /audits/7, not {base_path!r}")
    if config is not None and not config.is_file():
        raise ConfigError(f"--config {config} is not a file: give the YAML file of the audit")
    if find_spec(SCREENS) is None or find_spec("streamlit") is None:
        raise ConfigError("the dashboard is not installed here: install geoaudit with its dependencies")
    given = ["--port", str(port), "--host", host]
    if base_path.strip("/"):
        given += ["--base-path", base_path]
    if config is not None:
        given += ["--config", str(config.resolve())]
    return [sys.executable, "-m", SCREENS, str(run_dir.resolve()), *given]


def serve(
    run_dir: Path, port: int = 8501, host: str = "127.0.0.1", base_path: str = "", config: Path | None = None
) -> None:
    """Serve a run until stopped; does not return.

    Raises:
        ConfigError: it cannot be served; see :func:`command`.

    """
    line = command(run_dir, port, host, base_path, config)
    _free(host, port)
    sys.stdout.flush()
    os.execv(line[0], line)  # noqa: S606 - no shell is wanted


def _free(host: str, port: int) -> None:
    """Refuse a port that is taken: Streamlit would take another one and a person would look at the wrong run."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # A port that a stopped server has just left is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port or --host"
            ) from error
