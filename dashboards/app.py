"""The application: Streamlit's pages and our own routes in one process on one port."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from dashboards.loading import BASE_VARIABLE, CONFIG_VARIABLE, RUN_VARIABLE, base_path
from dashboards.tiles import routes

__all__ = ["SETTINGS", "build", "serve"]

# Nothing may leave this machine, and no file of the run is watched or served by path.
SETTINGS: dict[str, object] = {
    "browser.gatherUsageStats": False,
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.enableStaticServing": False,
    "server.showEmailPrompt": False,
    "server.maxUploadSize": 20,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    # Both given, so that the page follows the visitor's own choice of light or dark.
    "theme.light.primaryColor": "#0b6e99",
    "theme.dark.primaryColor": "#1a76a5",
}  # fmt: skip


def build(run_dir: Path, base: str = "", config: Path | None = None) -> st.App:
    """The application over one run.

    Args:
        run_dir: the run folder.
        base: path below which a proxy shows it, such as ``/audits/7``; empty for the root.
        config: the audit's YAML file, for prunings that are measured from the dashboard.

    """
    os.environ[CONFIG_VARIABLE] = "" if config is None else str(config.resolve())
    os.environ[RUN_VARIABLE] = str(run_dir.resolve())
    os.environ[BASE_VARIABLE] = base
    return st.App(Path(__file__).parent / "shell" / "main.py", routes=routes(base_path()))


def serve(
    run_dir: Path, *, port: int = 8501, host: str = "127.0.0.1", base: str = "", config: Path | None = None
) -> None:
    """Serve until stopped. Listens on this machine only unless ``host`` says otherwise."""
    app = build(run_dir, base, config)
    place = {"server.port": port, "server.address": host, "server.baseUrlPath": base_path().strip("/")}
    app.run(config={**SETTINGS, **place, "browser.serverAddress": host})
