"""Titles and advice are sentences with figures."""

from __future__ import annotations

import pytest

from geoaudit.checks.wording import advice, area_words, headline, plural, sensor_advice
from geoaudit.perturb import PERTURBATIONS

HAZE, STRIPES = PERTURBATIONS["haze"], PERTURBATIONS["stripes_vertical"]


@pytest.mark.parametrize(
    ("concept", "kind", "share", "title"),
    [
        ("haze", "artefact", 0.72, "meadow is predicted wherever haze lies"),
        ("vertical stripes", "artefact", 0.5, "meadow is predicted wherever vertical stripes lie"),
        ("vertical stripes", "artefact", 0.12, "vertical stripes turn 12% of other ground into meadow"),
        ("blur", "artefact", 0.3, "blur turns 30% of other ground into meadow"),
        ("haze", "artefact", None, "meadow is predicted wherever haze lies"),
        ("pale roofs", "context", 0.9, "meadow is predicted where there is pale roofs"),
    ],
)
def test_titles(concept: str, kind: str, share: float | None, title: str) -> None:
    assert headline("meadow", concept, kind, share) == title


def test_plural_by_the_last_word() -> None:
    assert plural("swapped bands")
    assert not plural("dense grass")
    assert not plural("")


def test_areas_are_rounded_to_what_they_are_worth() -> None:
    assert area_words((312.4, 250.2, 1380.0)) == "312 ha (250 to 1,380)"
    assert area_words((3.21, 0.0, 9.94)) == "3.2 ha (0.0 to 9.9)"
    assert area_words(None) == ""


def test_advice_says_cure_interim_and_hectares() -> None:
    assert advice("Pasture", "haze", "artefact", HAZE, (312.0, 250.0, 380.0), held=True) == (
        "Retrain with haze painted on all classes alike (augmentation). Until then prune the units or refit the head "
        "(geoaudit mitigate) and hold back the 312 ha (250 to 380) called Pasture in sight of haze. Run this audit again "
        "afterwards."
    )
    plain = advice("Pasture", "pale roofs", "context", None, None, held=False)
    assert plain.startswith(
        "Add images of Pasture without pale roofs, and of other classes with pale roofs, and retrain."
    )
    assert "hold back Pasture where pale roofs occurs" not in plain
    assert "hold back Pasture where there is pale roofs" in plain
    assert "images of every class that show glare" in advice("Pasture", "glare", "artefact", None, None, held=False)


def test_sensor_advice_tells_ground_today_from_ground_at_risk() -> None:
    today = sensor_advice("farm", STRIPES, (40.0, 10.0, 90.0), seen=True)
    assert "hold back the 40 ha (10 to 90) called farm in sight of vertical stripes" in today
    risk = sensor_advice("farm", STRIPES, (40.0, 10.0, 90.0), seen=False)
    assert (
        "screen new scenes for vertical stripes: on all of this ground it would turn 40 ha (10 to 90) into farm" in risk
    )
    assert "hold back farm there" in sensor_advice("farm", STRIPES, None, seen=False)
