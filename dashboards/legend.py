"""What the colours of a layer mean, above its map."""

from __future__ import annotations

import html

import streamlit as st

from dashboards import painting
from dashboards.components import clean, figure, prose
from dashboards.layers import activation_range, class_names_of, find_layer, names_in, renumbered, tags_of, threshold_of
from dnd_core.errors import StoreError
from geoaudit.results import Results

__all__ = ["legend"]

MOST = 24


def legend(results: Results, scene: str, layer: str, colours: str, before: str = "") -> None:
    """Say what a layer shows.

    Args:
        results: the run.
        scene: whose layer it is.
        layer: its id.
        colours: colour map of activations.
        before: words in front of its title.

    """
    try:
        found = find_layer(results, scene, layer)
    except StoreError as error:
        prose(error)
        return
    title = f"<b>{html.escape(before + clean(found.title, 100))}</b>"
    if found.kind == "activation":
        table = painting.colour_table(colours)
        stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in table[::51].tolist())
        low, high = activation_range(found.paths[0])
        ends = (figure(low), figure(high)) if len(found.paths) == 1 else ("weak", "strong")
        limit = threshold_of(found.paths[0]) if layer == "dissimilarity" else None
        about = f"<span>nothing alike was audited above {figure(limit)}</span>" if limit is not None else ""
        _key(
            f"{title}<span>{ends[0]}</span>"
            f'<span class="ga-scale" style="flex:1;background:linear-gradient(90deg,{stops});align-self:center"></span>'
            f"<span>{ends[1]}</span>{about}"
        )
    elif found.kind in ("classes", "tiles", "disagreement"):
        about = " coloured by the class that was decided" if layer in ("errors", "disagreement") else ""
        names = dict(enumerate(class_names_of(results, scene)))
        if layer == "labels":
            path = found.paths[0]
            names = dict(zip(renumbered(results, scene, path), names_in(path), strict=True))
        entries = "".join(
            f'<span><span class="ga-swatch" style="background:{painting.class_colour(number)}"></span>'
            f"<bdi>{html.escape(clean(name, 40))}</bdi></span>"
            for number, name in list(names.items())[:MOST]
        )
        _key(f"{title}{about} {entries}")
    elif found.kind == "applicability":
        _key(f"{title}{_beyond(results, scene)}")
    else:
        _key(f"<b>{before}The scene</b>")


def _beyond(results: Results, scene: str) -> str:
    path = results.applicability_map(scene)
    tags = tags_of(path) if path is not None else {}
    try:
        share, images, limit = float(tags["OUTSIDE"]), int(tags["IMAGES"]), float(tags["THRESHOLD"])
    except (KeyError, ValueError):
        return ""
    swatch = f"background:repeating-linear-gradient(135deg,{painting.BEYOND} 0 3px,#333 3px 6px)"
    return (
        f'<span><span class="ga-swatch" style="{swatch}"></span>{figure(100 * share, 1)} % of this map: nothing alike '
        f"(dissimilarity above {figure(limit)}) is among the {figure(images, 0)} tiles compared with, so the audit's figures do "
        "not speak of it</span>"
    )


def _key(markup: str) -> None:
    st.html(f'<div class="ga-key">{markup}</div>')
