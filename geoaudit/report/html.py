"""The page: one HTML file that asks for nothing from outside, works from a disk, prints, and can be searched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

from dnd_core.types import UnitId
from geoaudit.report.atlas import MAP_THUMB, Atlas, anchor
from geoaudit.report.charts import Chart, charts, library
from geoaudit.report.content import content
from geoaudit.report.pictures import ContactSheet, Place, open_rgb
from geoaudit.report.text import areas, figure, percent, plain, share_interval, shares
from geoaudit.report.wording import say
from geoaudit.results import Results, Unit

__all__ = ["GLOSSARY", "page"]

GLOSSARY = ("neuron", "activation", "fit", "interval", "q", "reliance", "hot", "producers", "users")
TILE = 64
_CANDIDATES, _CAPTIONS, _OPEN = 6, 3, 2


def page(results: Results) -> str:
    """The whole page of a run; it says so at the top when the run is not finished or damaged."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("geoaudit.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    said = content(results)
    tiles = ContactSheet("s", TILE)
    thumbs = ContactSheet("m", MAP_THUMB, quality=72)
    atlas = Atlas(results)
    mapped = atlas.thumbnails(thumbs)
    for number, finding in enumerate(said["findings"] + said["suppressed"]):
        finding["open"] = finding["status"] != "suppressed" and (finding["grave"] or number < _OPEN)
        finding["figure"] = atlas.figure(finding["units"], 640 if finding["open"] else 320)
        for image in finding["examples"][:8] + finding["counterexamples"][:8]:
            _add(tiles, results, image)
    neurons = [_neuron(results, unit, tiles, mapped) for unit in results.unit_ids]
    first = next((finding for finding in said["findings"] if finding["figure"]), None)
    hero = first["figure"] | {"label": first["concept"] or first["title"]} if first else atlas.first()
    drawn = charts(results, said)
    names = results.class_names
    return environment.get_template("report.html.j2").render(
        c=said,
        w=say,
        css=Markup(_text("report.css")),  # noqa: S704 - a file of this package
        sheet_css=Markup(tiles.css() + "\n" + thumbs.css()),  # noqa: S704 - numbers and base64 only
        script=Markup(_text("report.js")),  # noqa: S704
        library=Markup(library().replace("</script", "<\\/script")) if drawn else "",  # noqa: S704
        charts=[_chart(chart) for chart in drawn],
        hero=hero,
        maps=atlas.figures(),
        map_shape="1",
        neurons=neurons,
        layer_names=list(dict.fromkeys(neuron["layer"] for neuron in neurons)),
        glossary=GLOSSARY,
        longest=max([stage["seconds"] for stage in said["stages"]] or [1.0]) or 1.0,
        footer=f"{said['tool']} · {say('method.source')}",
        tile=_Tiles(results, tiles, names),
        said=lambda image: _said(results, image, names),
        scale_of=_scale,
        unit_anchor=anchor,
        known_units=frozenset(map(str, results.unit_ids)),
        short=lambda unit: plain(unit, 40),
        signed=lambda value: figure(value, signed=True),
        pct=percent,
        areas=areas,
        shares=shares,
        share_interval=share_interval,
        number=lambda value: "" if value is None else value,
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _chart(chart: Chart) -> dict[str, Any]:
    # Inside a script element only "<" can end it, so it is written as an escape of JSON.
    spec = json.dumps(chart.spec, sort_keys=True, ensure_ascii=True).replace("<", "\\u003c")
    return {"name": chart.name, "title": chart.title, "svg": Markup(chart.svg), "json": Markup(spec)}  # noqa: S704


def _add(sheet: ContactSheet, results: Results, image: int) -> None:
    if image not in sheet:
        picture = open_rgb(results.thumbnail(image), TILE)
        if picture is not None:
            sheet.add(image, picture)


class _Tiles:
    """A tile as HTML. A large run shows thirty thousand of a thousand images, so what hangs on the image is made once."""

    def __init__(self, results: Results, sheet: ContactSheet, names: tuple[str, ...]) -> None:
        self.results, self.sheet, self.names = results, sheet, names
        self.head = cache(self._head)

    def __call__(self, image: int, box: list[float] | None = None, extra: str = "") -> Markup:
        """The tile, the part that excites the unit outlined where ``box`` gives left, top, width and height in percent."""
        frame = "" if box is None else '<i style="--l:{};--t:{};--w:{};--h:{}"></i>'.format(*map(float, box))
        return Markup(f"{self.head(image, extra)}{frame}</span>")  # noqa: S704 - numbers; the rest is escaped in _head

    def _head(self, image: int, extra: str) -> str:
        place = self.sheet.place(image)
        label = escape(say("tile.alt", image=image))
        if place is None:
            return f'<span class="t lost {escape(extra)}" role="img" aria-label="{label}">'
        title = escape(_tile_title(self.results, image, self.names))
        return (
            f'<span class="t {self.sheet.name}{place.sheet} {escape(extra)}" style="--x:{place.column};--y:{place.row}"'
            f' role="img" aria-label="{label}" title="{title}">'
        )


def _class(names: tuple[str, ...], number: Any) -> str:
    try:
        index = int(number)
    except (TypeError, ValueError):
        return ""
    return plain(names[index], 40) if 0 <= index < len(names) else ""


def _said(results: Results, image: int, names: tuple[str, ...]) -> str:
    return _class(names, results.image(image).get("predicted"))


def _tile_title(results: Results, image: int, names: tuple[str, ...]) -> str:
    known = results.image(image)
    parts = [f"#{image}", plain(known.get("source"), 60)]
    predicted, label = _class(names, known.get("predicted")), _class(names, known.get("label"))
    parts += [say("tile.said", predicted=predicted)] if predicted else []
    parts += [say("tile.truth", label=label)] if label else []
    return " · ".join(part for part in parts if part)


def _scale(finding: Mapping[str, Any]) -> Callable[[float], float]:
    """Figures of a finding's ladder to 0..300, all rungs on one scale that holds zero."""
    raw = [step["raw"] for rung in finding["ladder"] for step in rung["steps"] if step["raw"]]
    low = min([0.0, *(value for entry in raw for value in entry.values())])
    high = max([0.0, *(value for entry in raw for value in entry.values())])
    span = (high - low) or 1.0
    return lambda value: round(8 + 284 * (value - low) / span, 1)


def _neuron(results: Results, unit: UnitId, tiles: ContactSheet, mapped: Mapping[UnitId, Place]) -> dict[str, Any]:
    known = results.unit(unit)
    height, width = _tile_shape(results)
    top = []
    for view in known.top_images[:10]:
        _add(tiles, results, view.image)
        box = None
        if view.box is not None:
            b = view.box
            edges = (b.left / width, b.top / height, (b.right - b.left) / width, (b.bottom - b.top) / height)
            box = [round(100 * min(1.0, edge), 1) for edge in edges]
        top.append({"image": view.image, "box": box})
    candidates = [
        {
            "label": plain(entry.get("label"), 60),
            "support": plain(entry.get("support", "\u2013"), 8),
            "contrast": figure(entry.get("contrast")),
            "score": figure(entry.get("topk_squared_x_image_products", entry.get("image_products"))),
        }
        for entry in known.candidates[:_CANDIDATES]
    ]
    captions = [plain(text, 160) for view in known.top_images[:_CAPTIONS] for text in _caption(results, view)]
    status = known.status if known.status in ("labelled", "weak", "abstained", "dead") else "abstained"
    label = plain(known.label, 70)
    # A neuron can be found by what it is called, by what it might have been called, and by its number.
    words = " ".join([str(unit), label, *(plain(text, 60) for text in known.labels)]).lower()
    return {
        "name": plain(unit, 60), "anchor": anchor(unit), "layer": plain(unit.layer, 60), "status": status,
        "status_word": say(f"neuron.{status}"), "means": say(f"neuron.{status}.means"), "label": label,
        "also": say("neuron.also", labels="; ".join(plain(text, 50) for text in known.labels[1:3])) if known.labels[1:] else "",
        "words": plain(words, 300), "top": top, "map": mapped.get(unit), "fit": _fit(known),
        "rate": percent(known.figures["activation_rate"]), "reason": plain(known.reason, 300),
        "captions": list(dict.fromkeys(captions))[:_CAPTIONS], "candidates": candidates,
    }  # fmt: skip


def _caption(results: Results, view: Any) -> tuple[str, ...]:
    return results.captions_of(view.image, view.box) or results.captions_of(view.image)


def _tile_shape(results: Results) -> tuple[int, int]:
    probe = results.manifest.get("probe")
    shape = probe.get("shape") if isinstance(probe, Mapping) else None
    if isinstance(shape, list) and len(shape) == 3 and all(isinstance(edge, int) and edge > 0 for edge in shape):
        return shape[1], shape[2]
    return TILE, TILE


def _fit(unit: Unit) -> dict[str, Any] | None:
    r, bar = unit.figures["r"], unit.figures["threshold"]
    if r is None:
        return None
    place = None if bar is None else round(100 * min(1.0, max(0.0, bar)), 1)
    return {
        "r": figure(r), "width": round(100 * min(1.0, max(0.0, r)), 1), "null": place,
        "text": say("neuron.fit.of", r=figure(r), threshold=figure(bar)),
    }  # fmt: skip
