"""Titles and advice in plain language, with the figures behind them."""

from __future__ import annotations

from geoaudit.perturb import Perturbation

__all__ = ["advice", "area_words", "headline", "lowers", "plural", "sensor_advice"]

# From this share on "wherever" is no exaggeration.
MOSTLY = 0.5

Area = tuple[float, float, float]


def _hectares(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def area_words(area: Area | None) -> str:
    """Hectares with their interval, "312 ha (250 to 380)"; empty where unknown."""
    if area is None:
        return ""
    value, low, high = (_hectares(part) for part in area)
    return f"{value} ha ({low} to {high})"


def plural(concept: str) -> bool:
    """Whether a concept's words take a verb in the plural: "vertical stripes", but "dense grass"."""
    last = concept.split()[-1] if concept.split() else ""
    return last.endswith("s") and not last.endswith("ss")


def headline(name: str, concept: str, kind: str, share: float | None = None) -> str:
    """What a finding says, in one sentence: "Meadow is predicted wherever haze lies".

    Args:
        name: the class.
        concept: in words.
        kind: of :class:`geoaudit.definitions.Relation`.
        share: of images of other classes that the concept turns into the class; None where it was not put into any.
    """
    if kind != "artefact":
        return f"{name} is predicted where there is {concept}"
    if share is not None and share < MOSTLY:
        return f"{concept} {'turn' if plural(concept) else 'turns'} {share:.0%} of other ground into {name}"
    return f"{name} is predicted wherever {concept} {'lie' if plural(concept) else 'lies'}"


def lowers(value: float) -> str:
    """A change of a share in words that hold for either sign: "lowers" or "raises"."""
    return "lowers" if value >= 0 else "raises"


def advice(name: str, concept: str, kind: str, artefact: Perturbation | None, area: Area | None, held: bool) -> str:
    """What to do about a concept that a class leans on.

    Args:
        name: the class.
        concept: in words.
        kind: of :class:`geoaudit.definitions.Relation`.
        artefact: what paints it, or None.
        area: hectares called the class in sight of the concept, or None.
        held: whether the ablation holds, so that the units carry the reliance.
    """
    if artefact is not None:
        cure = f"Retrain with {artefact.label} painted on all classes alike (augmentation)"
    elif kind == "artefact":
        cure = f"Retrain with images of every class that show {concept}"
    else:
        cure = f"Add images of {name} without {concept}, and of other classes with {concept}, and retrain"
    steps = ["prune the units or refit the head (geoaudit mitigate)"] if held else []
    if area is not None and area[0] > 0:
        steps.append(f"hold back the {area_words(area)} called {name} in sight of {concept}")
    else:
        steps.append(f"hold back {name} where there is {concept}")
    return _advice(cure, steps)


def sensor_advice(name: str, artefact: Perturbation, area: Area | None, seen: bool) -> str:
    """What to do about an artefact that pulls images into a class.

    Args:
        name: the class.
        artefact: what was painted.
        area: hectares concerned, or None.
        seen: the artefact lies on the audited images, so that the area is ground to hold back today.
    """
    cure = f"Retrain with {artefact.label} painted on all classes alike (augmentation)"
    if seen and area is not None and area[0] > 0:
        step = f"hold back the {area_words(area)} called {name} in sight of {artefact.label}"
    elif area is not None and area[0] > 0:
        step = f"screen new scenes for {artefact.label}: on all of this ground it would turn {area_words(area)} into {name}"
    else:
        step = f"screen new scenes for {artefact.label} and hold back {name} there"
    return _advice(cure, [step])


def _advice(cure: str, steps: list[str]) -> str:
    return f"{cure}. Until then {' and '.join(steps)}. Run this audit again afterwards."
