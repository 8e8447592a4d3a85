"""The units of the analytic network, and what each of them computes."""

from __future__ import annotations

from dataclasses import dataclass, field

from dnd_core.errors import ConfigError
from dnd_core.testing.concepts import ATTRIBUTES, Concept

__all__ = ["CONCEPT_UNITS", "KINDS", "MAP_UNITS", "AnalyticUnit"]

KINDS = ("single", "and", "or", "not", "two_meanings", "dead", "random")


@dataclass(frozen=True)
class AnalyticUnit:
    """The truth about one unit.

    Attributes:
        kind: ``single``, ``and``, ``or``, ``not``, ``two_meanings``, ``dead`` or ``random``.
        concept: what it computes; None for dead and random units, which compute nothing that has a name.
        weights, bias: its row of the linear mix over :data:`~dnd_core.testing.concepts.ATTRIBUTES`.

    """

    kind: str
    concept: Concept | None
    weights: dict[str, float] = field(default_factory=dict)
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not set(self.weights) <= set(ATTRIBUTES):
            raise ConfigError(f"an analytic unit is one of {', '.join(KINDS)} over known attributes, got {self}")


def _single(name: str, gain: float = 1.0) -> AnalyticUnit:
    return AnalyticUnit("single", Concept.of(name), {name: gain})


def _both(a: str, b: str) -> AnalyticUnit:
    return AnalyticUnit("and", Concept.of(a, b), {a: 1.0, b: 1.0}, -1.0)


def _either(a: str, b: str, kind: str = "or") -> AnalyticUnit:
    return AnalyticUnit(kind, Concept.any_of([Concept.of(a), Concept.of(b)]), {a: 1.0, b: 1.0})


def _not(a: str) -> AnalyticUnit:
    return AnalyticUnit("not", Concept.of(without=[a]), {a: -2.5}, 1.0)


def _without(a: str, b: str) -> AnalyticUnit:
    return AnalyticUnit("not", Concept.of(a, without=[b]), {a: 1.0, b: -2.5})


_DEAD = AnalyticUnit("dead", None)
_SILENCED = AnalyticUnit("dead", None, {"red": 1.0, "stripes": 1.0}, -9.0)
_RANDOM = AnalyticUnit("random", None)

MAP_UNITS: tuple[AnalyticUnit, ...] = (
    *(_single(name) for name in ATTRIBUTES),
    _either("red", "vertical stripes", "two_meanings"),
    _either("blue", "checkerboard", "two_meanings"),
    _either("yellow", "dots", "two_meanings"),
    *[_DEAD] * 3,
    *[_SILENCED] * 2,
    *[_RANDOM] * 5,
)
CONCEPT_UNITS: tuple[AnalyticUnit, ...] = (
    *(_single(name) for name in ("red", "green", "blue", "stripes", "checkerboard", "bright background")),
    _both("red", "vertical stripes"),
    _both("blue", "checkerboard"),
    _both("green", "dots"),
    _both("yellow", "horizontal stripes"),
    _both("magenta", "grain"),
    _both("red", "blue"),
    _both("white", "black"),
    _both("cyan", "bright background"),
    _both("stripes", "dark background"),
    _both("dots", "diagonal stripes"),
    _either("red", "blue"),
    _either("green", "yellow"),
    _either("cyan", "magenta"),
    _either("white", "black"),
    _either("vertical stripes", "horizontal stripes"),
    _either("checkerboard", "dots"),
    _either("grain", "diagonal stripes"),
    _either("red", "dots"),
    _either("black", "checkerboard"),
    _either("green", "grain"),
    _not("stripes"),
    _not("bright background"),
    _not("dark background"),
    _not("red"),
    _not("dots"),
    _without("red", "stripes"),
    _without("blue", "dark background"),
    _without("stripes", "red"),
    _without("checkerboard", "bright background"),
    _without("yellow", "stripes"),
    _either("green", "horizontal stripes", "two_meanings"),
    _either("magenta", "dark background", "two_meanings"),
    _either("cyan", "grain", "two_meanings"),
    *[_DEAD] * 3,
    *[_SILENCED] * 2,
    *[_RANDOM] * 5,
)
