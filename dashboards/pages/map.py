"""The scene with a neuron, a concept, classes or errors over it; a click tells what fires there."""

from __future__ import annotations

import html
from typing import Any

import streamlit as st

from dashboards import painting
from dashboards.components import clean, example_strip, figure, opened, prose, title, unit_link_rows
from dashboards.layers import Grid, activation_range, class_names_of, find_layer, grid_of, group_maps, maps_of
from dashboards.maps import deck, marker
from dashboards.places import look, tiles_of
from dashboards.state import choice, share, switch
from dnd_core.errors import StoreError
from geoaudit.results import Results


def show() -> None:
    """The page."""
    results = opened("Map")
    scenes = results.scenes()
    if not scenes:
        prose("This run has no scene to show: audit a scene, or tiles cut from one, to get a map.")
        return
    side, main = st.columns([1, 2.6], gap="medium")
    with side:
        scene = choice("scene", "Scene", {name: clean(name, 80) for name in scenes})
        grid = grid_of(scenes[scene])
        if grid is None:
            prose("This scene cannot be read or has no place on Earth, so it cannot be laid on a map.")
            return
        options = _choices(results, scene)
        layer = choice(
            "layer", "Layer", options, _first(options), "What lies over the scene. Neurons are named layer/number."
        )
        opacity = share("opacity", "Opacity", 0.7)
        least, colours, spots = 0.0, "viridis", False
        if layer.startswith(("unit:", "group:")):
            least = share("least", "Hide what is weaker than", 0.0, "Share of the colour scale.")
            colours = choice("colours", "Colours", {name: name for name in painting.COLOUR_MAPS})
            spots = switch("spots", "Outline hot spots", True)
        bands, stretch = _picture(grid)
        other = choice("other", "Compare with", {"": "nothing", **options})
    with main:
        shared: dict[str, Any] = {
            "scene": scene,
            "opacity": opacity,
            "least": least,
            "colours": colours,
            "spots": spots,
            "bands": bands,
            "stretch": stretch,
        }
        place = _place()
        ring = (marker(*place),) if place else ()
        if other:
            left, right = st.columns(2)
            with left:
                _legend(results, scene, layer, colours)
                deck(grid, layer=layer, key="map", over=ring, clicks=True, alt=options[layer], height=460, **shared)
            with right:
                _legend(results, scene, other, colours)
                deck(grid, layer=other, key="map-other", over=ring, alt=options[other], height=460, **shared)
        else:
            _legend(results, scene, layer, colours)
            deck(grid, layer=layer, key="map", over=ring, clicks=True, alt=options[layer], height=620, **shared)
        if place:
            _here(results, scene, place)
        else:
            prose("Click a place to see which neurons fire there.", dim=True)


def _first(options: dict[str, str]) -> str:
    """What is most worth seeing: classes, else the first concept or neuron."""
    return "classes" if "classes" in options else list(options)[min(1, len(options) - 1)]


def _choices(results: Results, scene: str) -> dict[str, str]:
    found = {"scene": "Only the scene"}
    try:
        predicted = find_layer(results, scene, "classes")
    except StoreError:
        predicted = None
    tiles = tiles_of(results)
    if predicted is not None and (predicted.paths or (tiles.predicted >= 0).any()):
        found["classes"] = "Predicted classes"
    if (tiles.truth >= 0).any():
        found["truth"] = "True classes of the tiles"
        found["errors"] = "Tiles decided wrongly"
    for group, name in zip(results.groups["group"], results.groups["name"], strict=True):
        if group_maps(results, scene, int(group)):
            found[f"group:{int(group)}"] = f"Concept {int(group)}: {clean(name, 60)}"
    for unit in maps_of(results, scene):
        try:
            label = results.unit(unit).label
        except StoreError:
            label = ""
        found[f"unit:{unit}"] = f"{clean(unit, 60)}: {clean(label, 60) or 'no label'}"
    return found


def _picture(grid: Grid) -> tuple[str, bool]:
    """Bands and stretch of the scene itself."""
    bands = ""
    if grid.bands > 3:
        numbers = {str(number): f"band {number}" for number in range(1, grid.bands + 1)}
        with st.expander("Bands of the scene"):
            chosen = [
                choice(name.lower(), name, numbers, str(place))
                for place, name in enumerate(("Red", "Green", "Blue"), 1)
            ]
        bands = ",".join(chosen)
    return bands, switch("stretch", "Stretch the scene's contrast")


def _place() -> tuple[float, float] | None:
    parts = st.query_params.get("place", "").split(",")
    try:
        longitude, latitude = (float(part) for part in parts)
    except ValueError:
        return None
    return (longitude, latitude) if abs(longitude) <= 180 and abs(latitude) <= 90 else None


def _legend(results: Results, scene: str, layer: str, colours: str) -> None:
    try:
        found = find_layer(results, scene, layer)
    except StoreError as error:
        prose(error)
        return
    if found.kind == "activation":
        table = painting.colour_table(colours)
        stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in table[::51].tolist())
        low, high = activation_range(found.paths[0])
        ends = (figure(low), figure(high)) if len(found.paths) == 1 else ("weak", "strong")
        st.html(
            f'<div class="ga-key"><b>{html.escape(clean(found.title, 100))}</b><span>{ends[0]}</span>'
            f'<span class="ga-scale" style="flex:1;background:linear-gradient(90deg,{stops});align-self:center"></span>'
            f"<span>{ends[1]}</span></div>"
        )
    elif found.kind in ("classes", "tiles"):
        names = class_names_of(results, scene)
        about = "coloured by the class that was decided" if layer == "errors" else ""
        entries = "".join(
            f'<span><span class="ga-swatch" style="background:{painting.class_colour(number)}"></span>'
            f"<bdi>{html.escape(clean(name, 40))}</bdi></span>"
            for number, name in enumerate(names[:24])
        )
        st.html(f'<div class="ga-key"><b>{html.escape(found.title)}</b> {about} {entries}</div>')
    else:
        st.html('<div class="ga-key"><b>The scene</b></div>')


def _here(results: Results, scene: str, place: tuple[float, float]) -> None:
    found = look(results, scene, *place)
    names = class_names_of(results, scene)
    title(f"At {figure(found.latitude, 5)}° north, {figure(found.longitude, 5)}° east", 2)
    left, right = st.columns([1, 3])
    with left:
        if found.predicted is not None:
            name = names[found.predicted] if 0 <= found.predicted < len(names) else f"class {found.predicted}"
            prose(f"Predicted class: {clean(name, 80)}")
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
