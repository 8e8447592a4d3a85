"""Versions of packages, our own also where it runs from a checkout that nobody installed."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["UNKNOWN", "package_version"]

UNKNOWN = "unknown"
_CHECKOUT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def package_version(name: str) -> str:
    """Version of a package as it runs, :data:`UNKNOWN` where it is not installed.

    The code of a checkout is what runs from it, whatever copy may be installed besides: its ``pyproject.toml`` counts first.
    """
    own, number = _checkout()
    if name == own and number:
        return number
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN


@lru_cache(maxsize=1)
def _checkout() -> tuple[str, str]:
    """Name and version in the ``pyproject.toml`` beside this package; empty where it is installed or the file is odd."""
    try:
        project = tomllib.loads(_CHECKOUT.read_text(encoding="utf-8"))["project"]
        return str(project["name"]), str(project["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
