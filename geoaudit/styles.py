"""QGIS styles (QML) for the layers of a run, built as XML trees so that no label can break out of its attribute."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as Xml

from geoaudit.cogs import class_colors

__all__ = ["VIRIDIS", "categorised", "class_sidecar", "graduated", "ramp_sidecar", "write_sidecar"]

Color = tuple[int, int, int]
VIRIDIS: tuple[Color, ...] = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Five stops of the perceptually uniform viridis ramp (van der Walt and Smith 2015)."""
# XML 1.0 knows no way to write these characters, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def categorised(field: str, names: Mapping[str, str], label: str | None = None, colors: Sequence[Color] = ()) -> str:
    """A vector style with one fill a value of ``field``.

    Args:
        field: the column that decides.
        names: value -> what the legend says.
        label: column written on the map; None for no labels.
        colors: one a value, in order; distinct ones are chosen when left out.

    Returns:
        QML.

    """
    colors = colors or class_colors(len(names))
    root, renderer = _vector(label)
    renderer.attrib.update(type="categorizedSymbol", attr=field)
    categories, symbols = Xml.SubElement(renderer, "categories"), Xml.SubElement(renderer, "symbols")
    for index, ((value, text), color) in enumerate(zip(names.items(), colors, strict=True)):
        Xml.SubElement(
            categories, "category",
            {"value": _text(value), "label": _text(text), "symbol": str(index), "render": "true", "type": "string"},
        )  # fmt: skip
        _symbol(symbols, str(index), color)
    return _finish(root)


def graduated(field: str, values: Sequence[float], label: str | None = None) -> str:
    """A vector style with five viridis fills over the range of a number column.

    Args:
        field: the column.
        values: what stands in it; decides the breaks, equal counts a class.
        label: column written on the map; None for no labels.

    Returns:
        QML.

    """
    import numpy as np

    root, renderer = _vector(label)
    renderer.attrib.update(type="graduatedSymbol", attr=field, graduatedMethod="GraduatedColor")
    ranges, symbols = Xml.SubElement(renderer, "ranges"), Xml.SubElement(renderer, "symbols")
    breaks = (
        np.unique(np.quantile(np.asarray(values, dtype=float), np.linspace(0, 1, 6))) if len(values) else np.zeros(1)
    )
    if len(breaks) == 1:
        breaks = np.repeat(breaks, 2)
    for index, (low, high) in enumerate(pairwise(breaks.tolist())):
        Xml.SubElement(
            ranges, "range",
            {"lower": repr(float(low)), "upper": repr(float(high)), "label": f"{low:.4g} - {high:.4g}",
             "symbol": str(index), "render": "true"},
        )  # fmt: skip
        _symbol(symbols, str(index), VIRIDIS[round(index * 4 / max(1, len(breaks) - 2))])
    return _finish(root)


def ramp_sidecar(low: float, high: float) -> str:
    """A raster style: band 1 in viridis from ``low`` to ``high``."""
    root = Xml.Element("qgis", {"version": "3.34.0", "styleCategories": "Symbology"})
    renderer = _raster(root, "singlebandpseudocolor")
    renderer.attrib.update(classificationMin=repr(low), classificationMax=repr(high))
    shader = Xml.SubElement(Xml.SubElement(renderer, "rastershader"), "colorrampshader")
    shader.attrib.update(
        colorRampType="INTERPOLATED", classificationMode="1", clip="0", minimumValue=repr(low), maximumValue=repr(high)
    )
    for index, color in enumerate(VIRIDIS):
        value = low + (high - low) * index / (len(VIRIDIS) - 1)
        Xml.SubElement(
            shader, "item", {"value": repr(value), "label": f"{value:.4g}", "color": _hex(color), "alpha": "255"}
        )
    return _finish(root)


def class_sidecar(names: Sequence[str]) -> str:
    """A raster style: class indices in the same colours as the map's own palette, with names."""
    root = Xml.Element("qgis", {"version": "3.34.0", "styleCategories": "Symbology"})
    palette = Xml.SubElement(_raster(root, "paletted"), "colorPalette")
    for index, (name, color) in enumerate(zip(names, class_colors(len(names)), strict=True)):
        Xml.SubElement(
            palette, "paletteEntry", {"value": str(index), "label": _text(name), "color": _hex(color), "alpha": "255"}
        )
    return _finish(root)


def write_sidecar(raster: Path, qml: str) -> Path:
    """Put a style beside a raster under the name that QGIS looks for; written aside, then renamed."""
    path = raster.with_suffix(".qml")
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(qml, encoding="utf-8")
    return aside.replace(path)


def _vector(label: str | None) -> tuple[Xml.Element, Xml.Element]:
    root = Xml.Element("qgis", {"version": "3.34.0", "styleCategories": "Symbology|Labeling"})
    root.set("labelsEnabled", "0" if label is None else "1")
    renderer = Xml.SubElement(root, "renderer-v2", {"symbollevels": "0", "enableorderby": "0", "forceraster": "0"})
    if label is not None:
        settings = Xml.SubElement(Xml.SubElement(root, "labeling", {"type": "simple"}), "settings")
        # A field and no expression, and no HTML: whatever a label says is shown, never evaluated.
        style = {
            "fieldName": label, "isExpression": "0", "allowHtml": "0", "fontSize": "9", "fontSizeUnit": "Point",
            "textColor": "30,30,30,255", "textOpacity": "1",
        }  # fmt: skip
        text = Xml.SubElement(settings, "text-style", style)
        buffer = {"bufferDraw": "1", "bufferSize": "0.8", "bufferSizeUnits": "MM", "bufferColor": "255,255,255,255"}
        Xml.SubElement(text, "text-buffer", buffer)
        Xml.SubElement(settings, "text-format", {"wrapChar": "", "autoWrapLength": "24", "multilineAlign": "1"})
        Xml.SubElement(settings, "placement", {"placement": "1", "polygonPlacementFlags": "2"})
        Xml.SubElement(settings, "rendering", {"drawLabels": "1", "obstacle": "1", "scaleVisibility": "0"})
    return root, renderer


def _symbol(parent: Xml.Element, name: str, color: Color) -> None:
    symbol = Xml.SubElement(
        parent, "symbol", {"type": "fill", "name": name, "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"}
    )
    layer = Xml.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    red, green, blue = color
    properties = {
        "color": f"{red},{green},{blue},140", "style": "solid", "outline_color": f"{red},{green},{blue},255",
        "outline_style": "solid", "outline_width": "0.4", "outline_width_unit": "MM", "joinstyle": "bevel",
    }  # fmt: skip
    options = Xml.SubElement(layer, "Option", {"type": "Map"})
    for key, value in properties.items():
        Xml.SubElement(options, "Option", {"type": "QString", "name": key, "value": value})


def _raster(root: Xml.Element, kind: str) -> Xml.Element:
    pipe = Xml.SubElement(root, "pipe")
    return Xml.SubElement(pipe, "rasterrenderer", {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1"})


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _text(value: str) -> str:
    return _ILLEGAL.sub(" ", value)


def _finish(root: Xml.Element) -> str:
    Xml.indent(root)
    return _DOCTYPE + Xml.tostring(root, encoding="unicode") + "\n"
