"""The map: our own style with our own tiles in Streamlit's deck, so that nothing is fetched from elsewhere."""

from __future__ import annotations

import html
from functools import partial
from typing import Any

import numpy as np
import pydeck as pdk
import streamlit as st

from dashboards.layers import Grid
from dashboards.loading import address, origin
from dashboards.state import put
from dashboards.survey import shapes
from dashboards.tiles import version

__all__ = ["cells", "deck", "marker", "outline", "still"]


def _view(grid: Grid, pixels: int) -> pdk.ViewState:
    west, south, east, north = grid.bounds
    # Web-Mercator zoom at which the scene fills this many pixels (512 pixels show the world at zoom 0).
    middle = np.radians((south + north) / 2)
    spans = (east - west) / 360, (north - south) / 360 / max(float(np.cos(middle)), 0.05)
    zoom = float(np.log2(pixels / 512 / max(*spans, 1e-9)))
    return pdk.ViewState(longitude=(west + east) / 2, latitude=(south + north) / 2, zoom=min(max(zoom, 0), 20))


def cells(scene: str) -> pdk.Layer:
    """An unseen net over the scene: a click anywhere answers with the middle of its cell.

    The browser fetches the net once from its own address; inside the chart it would be sent anew with every change.
    """
    place = address("layers/cells.json", scene=scene, v=version())
    return pdk.Layer(
        "SolidPolygonLayer", origin(st.context.url) + place, id="cells", get_polygon="p", get_fill_color=[0, 0, 0, 1],
        pickable=True, auto_highlight=True, highlight_color=[255, 255, 255, 90],
    )  # fmt: skip


def marker(longitude: float, latitude: float) -> pdk.Layer:
    """A ring around a place."""
    return pdk.Layer(
        "ScatterplotLayer", [{"at": [longitude, latitude]}], id="marker", get_position="at", get_radius=9,
        radius_units="'pixels'", stroked=True, filled=False, get_line_color=[255, 255, 255], line_width_min_pixels=3,
    )  # fmt: skip


def outline(shape: Any) -> pdk.Layer | None:
    """The outline of a finding's footprint; None for what is no GeoJSON."""
    parts = shapes(shape)
    if not parts:
        return None
    # Only the shapes: whatever else stands in the file is not sent to the browser.
    data = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": part} for part in parts],
    }
    return pdk.Layer(
        "GeoJsonLayer", data, id="outline", stroked=True, filled=True, get_fill_color=[230, 159, 0, 60],
        get_line_color=[230, 159, 0, 255], line_width_min_pixels=2,
    )  # fmt: skip


def deck(
    grid: Grid, *, scene: str, layer: str, key: str, opacity: float = 0.7, least: float = 0.0, colours: str = "viridis",
    spots: bool = False, bands: str = "", stretch: str = "", other: str = "",
    split: float | None = None, over: tuple[pdk.Layer | None, ...] = (), height: int = 520,
    fit: int = 0, clicks: bool = False, alt: str = "map",
) -> None:  # fmt: skip
    """Show a map.

    Args:
        grid: where the scene lies.
        scene: its name.
        layer: id of what lies over it, see :mod:`dashboards.layers`.
        key: of the widget; the same for one place on a page, so that the browser keeps its map when the layer changes.
        opacity: of the layer, in [0, 1].
        least: share of the colour scale below which nothing is drawn.
        colours: colour map of activations.
        spots: draw the outlines of hot spots.
        bands: three bands of the scene, 1-based, with commas.
        stretch: percent left out at both ends of each band of the scene; nothing for as it is.
        other: id of a layer drawn east of ``split``; ``layer`` is then drawn west of it only.
        split: a meridian, in degrees.
        over: more to draw, on top.
        height: pixels.
        fit: pixels that the scene fills; the height where it is 0.
        clicks: write the place that is clicked into the address, as ``place``.
        alt: what it shows, for who cannot see it.

    """
    dark = getattr(st.context.theme, "type", None) == "dark"
    place = address(
        "layers/style.json", scene=scene, layer=layer, opacity=f"{opacity:.2f}", least=f"{least:.2f}" if least else "",
        colours=colours, spots="1" if spots else "", bands=bands, stretch=stretch, dark="1" if dark else "",
        other=other, split="" if split is None else f"{split:.6f}", v=version(),
    )  # fmt: skip
    layers = [cells(scene)] if clicks else []
    layers += [part for part in over if part is not None]
    chart = pdk.Deck(
        layers=layers, initial_view_state=_view(grid, fit or height), map_provider="carto", map_style=origin(st.context.url) + place
    )  # fmt: skip
    if not clicks:
        st.pydeck_chart(chart, height=height, key=key, alt=alt)
        return
    st.pydeck_chart(
        chart, height=height, key=key, alt=alt, on_select=partial(_clicked, key), selection_mode="single-object"
    )


def still(scene: str, layer: str, alt: str, finding: str = "") -> None:
    """A picture of the whole scene with a layer, for pages on which the map is not the matter."""
    place = address("layers/survey.png", scene=scene, layer=layer, finding=finding, v=version())
    st.html(
        f'<img class="ga-survey" src="{html.escape(place)}" alt="{html.escape(alt[:300])}" loading="lazy" width="720">'
    )


def _clicked(key: str) -> None:
    """Write the clicked place into the address before the page is made anew, so that once is enough."""
    state: Any = st.session_state.get(key)
    picked = state.get("selection", {}).get("objects", {}).get("cells") if state else None
    at = picked[0].get("at") if picked else None
    # A second click on a place lets go of it for the chart; the visitor still wants to know about it.
    if at:
        put("place", f"{at[0]:.6f},{at[1]:.6f}")
