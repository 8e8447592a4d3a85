"""The checks of an audit, one hypothesis a file; :class:`geoaudit.checks.base.Check` is their contract."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from dnd_core.errors import ConfigError
from geoaudit.checks.base import AuditContext, Check
from geoaudit.checks.concept_reliance import ConceptReliance
from geoaudit.checks.context import Context
from geoaudit.checks.geography import Geography
from geoaudit.checks.input_contract import InputContract
from geoaudit.checks.sensor_probes import SensorProbes
from geoaudit.checks.unit_health import UnitHealth

__all__ = ["CHECKS", "AuditContext", "Check", "choose_checks"]

CHECKS: tuple[Check, ...] = (
    InputContract(),
    ConceptReliance(),
    SensorProbes(),
    Context(),
    Geography(),
    UnitHealth(),
)


def choose_checks(rules: Sequence[str]) -> tuple[Check, ...]:
    """The checks of these rules; all of them where none is named.

    Raises:
        ConfigError: a rule is unknown.
    """
    known = {check.rule: check for check in CHECKS}
    for rule in rules:
        if rule not in known:
            near = get_close_matches(rule, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"audit.checks names no check {rule!r}: {hint}")
    return tuple(known[rule] for rule in rules) or CHECKS
