"""The published JSON Schema of ``audit.json`` and the check against it.

The schema is a file of this package, ``audit.schema.json`` (draft 2020-12), so that other tools can validate a run
without this software. Its version is ``MAJOR.MINOR``: a minor step only adds optional fields, so every 1.x file stays
readable.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from dnd_core.errors import StoreError, StoreMismatch

__all__ = ["SCHEMA_VERSION", "audit_schema", "faults", "validate"]

SCHEMA_VERSION = "1.1"
_MOST = 12


@lru_cache(maxsize=1)
def _text() -> str:
    return resources.files(__package__).joinpath("audit.schema.json").read_text(encoding="utf-8")


def audit_schema() -> dict[str, Any]:
    """The JSON Schema of ``audit.json`` as a plain value."""
    schema: dict[str, Any] = json.loads(_text())
    return schema


def faults(audit: Any) -> list[str]:
    """Everything in which ``audit`` departs from the schema, one sentence each, the first dozen; empty when valid."""
    from jsonschema import Draft202012Validator

    found = sorted(
        Draft202012Validator(audit_schema()).iter_errors(audit), key=lambda error: list(map(str, error.path))
    )
    sentences = []
    for error in found[:_MOST]:
        where = "/".join(map(str, error.absolute_path)) or "the top level"
        # A hostile value may be a hundred kilobytes long; the place and the rule are what helps.
        message = error.message if len(error.message) <= 200 else f"{error.message[:160]} ... ({error.validator})"
        sentences.append(f"{where}: {message}")
    return sentences


def validate(audit: Any) -> None:
    """Check an audit against the schema.

    Raises:
        StoreMismatch: it is of another major schema version.
        StoreError: it does not follow the schema; the message names the first fields at fault.

    """
    version = audit.get("schema_version") if isinstance(audit, dict) else None
    if isinstance(version, str) and version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise StoreMismatch(
            f"audit.json is of schema {version[:40]}, this version reads {SCHEMA_VERSION}: use the one that wrote it"
        )
    found = faults(audit)
    if found:
        raise StoreError(f"audit.json does not follow its schema ({'; '.join(found[:3])}): run the audit again")
