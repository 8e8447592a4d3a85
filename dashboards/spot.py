"""What is known about a picked place: its coordinates, the classes there, the chip, and the neurons that fire."""

from __future__ import annotations

import html

import streamlit as st

from dashboards.components import clean, example_strip, figure, listed, prose, title, unit_link_rows
from dashboards.layers import class_names_of, names_in, renumbered
from dashboards.loading import address
from dashboards.places import Place, look
from dashboards.tiles import version
from geoaudit.results import Results

__all__ = ["spot"]


def spot(results: Results, scene: str, bounds: tuple[float, float, float, float], place: tuple[float, float]) -> None:
    """Tell what lies at (longitude, latitude) of a scene with these bounds (west, south, east, north)."""
    west, south, east, north = bounds
    if not (west <= place[0] <= east and south <= place[1] <= north):
        prose(f"The place {figure(place[0], 5)}, {figure(place[1], 5)} lies outside the scene: pick one on it.")
        return
    found = look(results, scene, *place)
    ways = ("north" if found.latitude >= 0 else "south", "east" if found.longitude >= 0 else "west")
    title(f"At {figure(abs(found.latitude), 5)}° {ways[0]}, {figure(abs(found.longitude), 5)}° {ways[1]}", 2)
    left, right = st.columns([1, 2.4], gap="medium")
    with left:
        listed(("Here", ""), _facts(results, scene, found))
        chip = address("layers/chip.png", scene=scene, at=f"{place[0]:.6f},{place[1]:.6f}", v=version())
        st.html(
            f'<div class="ga-strip" style="--ga-size:160px"><figure><img src="{html.escape(chip)}" alt="the scene around this '
            'place" width="160" height="160"><figcaption>the scene around it</figcaption></figure></div>'
        )
        if found.image is not None:
            example_strip(results, [found.image], 160)
        else:
            prose("No tile of the probe covers this place; figures are read from the maps.", dim=True)
    with right:
        if found.firing:
            unit_link_rows(
                [(entry.unit, entry.label, entry.status, entry.value, entry.share) for entry in found.firing]
            )
        else:
            prose("No neuron has a value here.", dim=True)


def _facts(results: Results, scene: str, found: Place) -> list[tuple[str, str]]:
    names = dict(enumerate(class_names_of(results, scene)))
    labels = results.label_map(scene)
    if labels is not None:
        names |= dict(zip(renumbered(results, scene, labels), names_in(labels), strict=True))

    def called(number: int) -> str:
        return clean(names.get(number, f"class {number}"), 80)

    rows = []
    if found.predicted is not None:
        sure = f" ({figure(100 * found.probability, 0)} % sure)" if found.probability is not None else ""
        rows.append(("Predicted class", called(found.predicted) + sure))
    if found.labelled is not None:
        rows.append(("Label", called(found.labelled)))
    if found.unlike is not None:
        value, limit = found.unlike
        words = "beyond the area of applicability" if value > limit else "within the area of applicability"
        rows.append(("Audited tiles", f"{words} (dissimilarity {figure(value)}, limit {figure(limit)})"))
    return rows or [("Nothing is mapped here", "")]
