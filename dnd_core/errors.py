"""The errors this project raises on purpose, as one tree.

Every message says what went wrong, where, and the way out, in one sentence a user can act on.
Command lines turn a :class:`DndError` into exit code 2 without a traceback.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BackendUnavailable",
    "ConfigError",
    "DndError",
    "LayerNotFound",
    "NetworkError",
    "ProbeError",
    "StoreError",
    "StoreLocked",
    "StoreMismatch",
]


class DndError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(DndError):
    """A configuration field is missing, unknown, or outside its range."""


class NetworkError(DndError):
    """A network cannot be loaded, does not fit its weights, or answers with NaN."""


class LayerNotFound(NetworkError):
    """A layer name or glob matches nothing; the message names the nearest layers."""


class ProbeError(DndError):
    """A probe set is empty, unreadable, too small, or unlike what the network expects."""


class BackendUnavailable(DndError):
    """A backend cannot run here: a package, its weights, or a key is missing."""


class BackendError(DndError):
    """A backend ran and failed: refused, timed out, or answered with garbage."""


class StoreError(DndError):
    """The run folder cannot be read or written."""


class StoreLocked(StoreError):
    """Another process is writing to this run folder."""


class StoreMismatch(StoreError):
    """The run folder holds the results of other inputs."""
