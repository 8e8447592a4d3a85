"""``python -m dashboards RUN_DIR``: what ``geoaudit dashboard`` starts, in a process of its own without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from dashboards.app import serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description="Show a run.")
    parser.add_argument("run_dir", type=Path, help="the run folder")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; this machine only by default")
    parser.add_argument("--base-path", default="", help="path below which a proxy shows it")
    parser.add_argument("--config", type=Path, help="the audit's configuration, to measure prunings with")
    given = parser.parse_args()
    serve(given.run_dir, port=given.port, host=given.host, base=given.base_path, config=given.config)


if __name__ == "__main__":
    main()
