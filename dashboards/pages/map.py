"""The scene with a neuron, a concept, classes, labels, errors or applicability over it; a place tells what fires there."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboards.components import clean, opened, prose
from dashboards.layers import SINGLE, Grid, find_layer, grid_of, maps_of
from dashboards.legend import legend
from dashboards.maps import deck, marker, outline
from dashboards.painting import COLOUR_MAPS
from dashboards.places import tiles_of
from dashboards.spot import spot
from dashboards.state import choice, degrees, share, switch
from dashboards.tiles import STRETCHES
from dnd_core.errors import StoreError
from geoaudit.results import Results

# Triples by the parts of the spectrum shown as red, green and blue; the first of each that the scene has.
TRIPLES: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "false": ("False colour: vegetation red", (("nir", "nir08"), ("red",), ("green",))),
    "swir": ("Short-wave infrared: moisture, burns", (("swir22", "swir16"), ("nir08", "nir"), ("red",))),
    "farm": ("Crops and bare soil", (("swir16", "swir22"), ("nir", "nir08"), ("blue",))),
}
SHOWN = {"": "Nothing", "split": "Divided by a line", "side": "Side by side"}


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
        options = _choices(results, scene, grid)
        layer = choice(
            "layer", "Layer", options, _first(options), "What lies over the scene. Neurons are named layer/number."
        )
        shared: dict[str, Any] = {"scene": scene, "opacity": share("opacity", "Opacity", 0.7)}
        how = choice("compare", "Compare with another layer", SHOWN)
        other, split = "", None
        if how:
            other = choice("other", "The other layer", options, "scene")
            if how == "split":
                west, _, east, _ = grid.bounds
                split = west + (east - west) * share("at", "Where the line is", 0.5, "From the west end to the east.")
        if any(name.startswith(("unit:", "group:")) or name in RAMPS for name in (layer, other)):
            shared["least"] = share("least", "Hide what is weaker than", 0.0, "Share of the colour scale.")
            shared["colours"] = choice("colours", "Colours", {name: name for name in COLOUR_MAPS})
        if layer.startswith(("unit:", "group:")):
            shared["spots"] = switch("spots", "Outline hot spots", True)
        shared["bands"], shared["stretch"] = _picture(results, scene, grid)
    with main:
        place = _place()
        shape = _footprint(results)
        ring = (shape, marker(*place)) if place else (shape,)
        colours = shared.get("colours", "viridis")
        if how == "side":
            # The keys in a row of their own, so that the maps begin at one height.
            for part, key in zip(st.columns(2), (layer, other), strict=True):
                with part:
                    legend(results, scene, key, colours)
            left, right = st.columns(2)
            shared |= {"height": 460, "fit": 320}
            with left:
                deck(grid, layer=layer, key="map", over=ring, clicks=True, alt=options[layer], **shared)
            with right:
                deck(grid, layer=other, key="map-other", over=ring, alt=options[other], **shared)
        else:
            if how == "split":
                left, right = st.columns(2)
                with left:
                    legend(results, scene, layer, colours, "West: ")
                with right:
                    legend(results, scene, other, colours, "East: ")
            else:
                legend(results, scene, layer, colours)
            about = options[layer] + (f", and east of the line {options[other]}" if how else "")
            shared |= {"other": other, "split": split}
            deck(grid, layer=layer, key="map", over=ring, clicks=True, alt=about, height=620, **shared)
        _pick(grid, place)
        if place:
            spot(results, scene, grid.bounds, place)
        else:
            prose("Click a place, or give its coordinates, to see which neurons fire there.", dim=True)


def _footprint(results: Results) -> Any:
    """The outline of the finding that a link came from, said in words too; None without one."""
    wanted = st.query_params.get("finding", "")
    finding = next((found for found in results.findings if wanted and found["id"] == wanted), None)
    shape = outline(finding.get("footprint")) if finding is not None else None
    if finding is not None and shape is not None:
        prose(f"Orange: where finding {finding['id']} applies. {finding['title']}", dim=True)
    return shape


RAMPS = tuple(name for name, (_, kind, _) in SINGLE.items() if kind == "activation")


def _first(options: dict[str, str]) -> str:
    """What is most worth seeing: classes, else the first concept or neuron."""
    return "classes" if "classes" in options else list(options)[min(1, len(options) - 1)]


def _choices(results: Results, scene: str, grid: Grid) -> dict[str, str]:
    found = {"scene": "Only the scene"}
    tiles = tiles_of(results)
    here = tiles.over(grid.bounds)
    if results.class_map(scene) is not None or (tiles.predicted[here] >= 0).any():
        found["classes"] = "Predicted classes"
    for name, (title, _, _) in SINGLE.items():
        try:
            find_layer(results, scene, name)
        except StoreError:
            continue
        found[name] = title
    if (tiles.truth[here] >= 0).any():
        found["truth"] = "True classes of the tiles"
        found["errors"] = "Tiles decided wrongly"
    maps = maps_of(results, scene)
    for group, name in zip(results.groups["group"], results.groups["name"], strict=True):
        if any(unit in maps for unit in results.group_units(int(group))):
            found[f"group:{int(group)}"] = f"Concept {int(group)}: {clean(name, 60)}"
    for unit in maps:
        try:
            label = results.unit(unit).label
        except StoreError:
            label = ""
        found[f"unit:{unit}"] = f"{clean(unit, 60)}: {clean(label, 60) or 'no label'}"
    return found


def _picture(results: Results, scene: str, grid: Grid) -> tuple[str, str]:
    """Bands and stretch of the scene itself."""
    roles = results.band_roles(scene)
    # A run of an earlier version keeps no bands apart; its scene may hold more than three itself.
    names = list(roles) or [f"band {number}" for number in range(1, grid.bands + 1)]
    triples = {key: numbers for key in TRIPLES if (numbers := _triple(TRIPLES[key][1], list(roles.values())))}
    views = {"": "Natural colours", **{key: TRIPLES[key][0] for key in triples}}
    if len(names) > 3:
        views["own"] = "Any three bands"
    view = choice("view", "Colours of the scene", views)
    bands = triples.get(view, "")
    if view == "own":
        known = {str(number): clean(name, 40) for number, name in enumerate(names, start=1)}
        with st.container(horizontal=True):
            bands = ",".join(
                choice(name.lower(), name, known, str(place))
                for place, name in enumerate(("Red", "Green", "Blue"), start=1)
            )
    words = {step: f"without the outer {step} %" if step else "as it is" for step in STRETCHES}
    # Two values in the address: bands need a stretch to be read, the picture comes with its own.
    return bands, choice("contrast", "Contrast", words, "2") if bands else choice("stretch", "Contrast", words)


def _triple(wanted: tuple[tuple[str, ...], ...], roles: list[str | None]) -> str:
    """Numbers of three bands from 1, with commas; nothing where the scene lacks one."""
    found = [next((roles.index(role) + 1 for role in any_of if role in roles), 0) for any_of in wanted]
    return ",".join(map(str, found)) if all(found) else ""


def _place() -> tuple[float, float] | None:
    parts = st.query_params.get("place", "").split(",")
    try:
        longitude, latitude = (float(part) for part in parts)
    except ValueError:
        return None
    return (longitude, latitude) if abs(longitude) <= 180 and abs(latitude) <= 90 else None


def _pick(grid: Grid, place: tuple[float, float] | None) -> None:
    """A place without a mouse: coordinates, moved by the arrow keys in steps of a fiftieth of the scene."""
    west, south, east, north = grid.bounds
    with st.expander("Pick a place with the keyboard", icon=":material/keyboard:"):
        left, right = st.columns(2)
        with left:
            degrees("place", "Longitude", 0, (west + east) / 2, west, east, round((east - west) / 50, 5) or 1e-5)
        with right:
            degrees("place", "Latitude", 1, (south + north) / 2, south, north, round((north - south) / 50, 5) or 1e-5)
        prose("Arrow up and down move the place by a fiftieth of the scene.", dim=True)
