"""Pieces that pages are made of. Every text that comes from a run is cut, cleaned and escaped here before it is shown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dashboards.loading import address, current
from dashboards.meaning import Labels
from dashboards.tiles import version
from geoaudit.results import Results, TopImage, Unit

__all__ = [
    "SEVERITIES", "STATUSES", "badge", "chance", "clean", "concept_strip", "example_strip", "facts", "favicon", "figure",
    "interval", "listed", "markdown", "note", "number_of",
    "opened", "picture", "problems", "prose", "style", "tile_strip", "title", "unit_card", "unit_link_rows", "until_ready",
]  # fmt: skip

# Word, sign and colour: the sign says the same to who cannot tell the colours apart.
SEVERITIES: Mapping[str, tuple[str, str, str]] = {
    "critical": ("Critical", "▲", "#B3123F"),
    "major": ("Major", "◆", "#B55200"),
    "minor": ("Minor", "●", "#7A6A00"),
    "info": ("Note", "○", "#4B5F6E"),
}
STATUSES: Mapping[str, tuple[str, str, str]] = {
    "labelled": ("Verified", "✓", "#00694B"),
    "weak": ("Best guess", "≈", "#7A6A00"),
    "abstained": ("No label", "\u2013", "#4B5F6E"),
    "dead": ("Silent", "∅", "#4B5F6E"),
    "fail": ("Found something", "▲", "#B3123F"),
    "pass": ("Passed", "✓", "#00694B"),
    "inconclusive": ("Inconclusive", "?", "#7A6A00"),
    "not_run": ("Not run", "\u2013", "#4B5F6E"),
    "suppressed": ("Set aside", "○", "#4B5F6E"),
}
# Controls, lone surrogates, and marks that turn the direction of everything after them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
# No-break spaces stay: they hold figures together.
_SPACE = re.compile(r"[ \t\n\r]+")
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$<>:&])")


@st.cache_resource
def favicon() -> Any:
    """The page's icon, drawn here: Streamlit would fetch a named one from the internet."""
    from PIL import Image, ImageDraw

    icon = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(icon)
    draw.rounded_rectangle((2, 2, 61, 61), radius=14, fill="#0b6e99")
    for row, column, colour in ((0, 0, "#f0e442"), (0, 1, "#e69f00"), (1, 0, "#56b4e9"), (1, 1, "#ffffff")):
        draw.rectangle((14 + column * 19, 14 + row * 19, 30 + column * 19, 30 + row * 19), fill=colour)
    return icon


def style() -> None:
    """The page's own look; colours follow the light or dark theme."""
    st.html(Path(__file__).with_name("style.css"))


def clean(value: Any, most: int = 300) -> str:
    """A text from a run without what cannot be seen, cut to ``most`` characters; not yet escaped."""
    text = _SPACE.sub(" ", _UNSEEN.sub(" ", str("" if value is None else value)[: most * 4])).strip()
    return text if len(text) <= most else f"{text[: most - 1]}…"


def markdown(value: Any, most: int = 120) -> str:
    """A text from a run for places that read Markdown: every mark of it is taken literally."""
    return _MARKS.sub(r"\\\1", clean(value, most))


def _safe(value: Any, most: int = 300) -> str:
    return f"<bdi>{html.escape(clean(value, most))}</bdi>"


def title(text: Any, level: int = 1) -> None:
    """A heading with text from a run."""
    name = "ga-title" if level == 1 else "ga-sub"
    st.html(f'<h{level} class="{name}">{_safe(text, 240)}</h{level}>')


def prose(text: Any, *, dim: bool = False, most: int = 1500) -> None:
    """A paragraph with text from a run."""
    if clean(text):
        st.html(f'<p class="ga-p{" ga-dim" if dim else ""}">{_safe(text, most)}</p>')


def badge(kind: str) -> str:
    """A severity or status as a coloured word with its sign, as HTML."""
    word, sign, colour = {**SEVERITIES, **STATUSES}.get(kind, (clean(kind, 30) or "Unknown", "?", "#4B5F6E"))
    return f'<span class="ga-badge" style="background:{colour}">{sign} {html.escape(word)}</span>'


def note(*parts: str) -> None:
    """Pieces of HTML made by the functions of this module, in a row."""
    st.html(f"<div>{''.join(parts)}</div>")


def number_of(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(float(value)) < float("inf") else None


def figure(value: Any, digits: int = 2, *, sign: bool = False) -> str:
    """A number as people write it, or a dash."""
    number = number_of(value)
    if number is None:
        return "\u2013"
    text = f"{number:{'+' if sign else ''},.{digits}f}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def chance(value: Any) -> str:
    """A probability; what is smaller than a thousandth is not spelled out."""
    number = number_of(value)
    return "< 0.001" if number is not None and 0 <= number < 0.001 else figure(number, 3)


def interval(pair: Any, digits: int = 2, *, sign: bool = False) -> str:
    """``low to high``, or nothing where it is not known."""
    if (
        not isinstance(pair, (list, tuple))
        or len(pair) != 2
        or number_of(pair[0]) is None
        or number_of(pair[1]) is None
    ):
        return ""
    return f"{figure(pair[0], digits, sign=sign)} to {figure(pair[1], digits, sign=sign)}"


def facts(entries: Iterable[tuple[str, str, str]]) -> None:
    """Figures in a row: (figure, what it counts, of what)."""
    cells = "".join(
        f'<div class="ga-fact"><b>{_safe(value, 40)}</b>{_safe(what, 80)}<div class="ga-dim">{_safe(of, 120)}</div></div>'
        for value, what, of in entries
    )
    st.html(f'<div class="ga-facts">{cells}</div>')


def listed(columns: Sequence[str], rows: Iterable[Sequence[Any]], most: int = 300) -> None:
    """A small table of texts; a cell that :func:`badge` made is passed as a tuple of one."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell[0] if isinstance(cell, tuple) else _safe(cell, most)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    table = f'<table class="ga-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    st.html(f'<div class="ga-wrap" tabindex="0" role="region" aria-label="table">{table}</div>')


def picture(image: int, box: Any = None) -> str:
    """Address of a probe image's picture."""
    edges = f"{box.left},{box.top},{box.right},{box.bottom}" if box is not None else ""
    return address(f"layers/image/{int(image)}.png", box=edges, v=version())


def _strip(entries: Iterable[tuple[str, str, str, str]], size: int) -> None:
    """Pictures in rows: (address, text for who cannot see it, caption, outline made by :func:`_outline`)."""
    cells = "".join(
        f'<figure><span class="ga-tile"><img src="{html.escape(source)}" alt="{html.escape(alt)}" loading="lazy" '
        f'width="{size}" height="{size}">{outline}</span><figcaption>{_safe(caption, 90)}</figcaption></figure>'
        for source, alt, caption, outline in entries
    )
    st.html(f'<div class="ga-strip" style="--ga-size:{size}px">{cells}</div>')


def _outline(box: Any) -> str:
    """A frame around a part of a tile, in shares of the tile's rows and columns; nothing where these are not known."""
    probe = current().manifest.get("probe")
    shape = probe.get("shape") if isinstance(probe, dict) else None
    sides = [side for side in shape[-2:] if isinstance(side, int) and side > 0] if isinstance(shape, list) else []
    if box is None or len(sides) != 2:
        return ""
    rows, columns = sides
    place = {
        "left": box.left / columns, "top": box.top / rows, "width": (box.right - box.left) / columns,
        "height": (box.bottom - box.top) / rows,
    }  # fmt: skip
    return f'<span class="ga-box" style="{";".join(f"{name}:{100 * share:.2f}%" for name, share in place.items())}"></span>'


def tile_strip(views: Sequence[TopImage], size: int = 104, *, captions: bool = True) -> None:
    """The tiles a unit fires on most, the part that excites it outlined."""
    entries = []
    for view in views:
        frame = _outline(view.box)
        # Where the tile's size is not known the server draws the outline into the picture.
        source = picture(view.image, None if frame else view.box)
        said = f"{figure(view.activation)} · {view.image}" if captions else ""
        entries.append((source, f"tile {view.image}", said, frame))
    _strip(entries, size)


def example_strip(results: Results, images: Sequence[int], size: int = 112) -> None:
    """Tiles with what was decided and what is true."""
    names = results.class_names

    def called(number: Any) -> str:
        place = number_of(number)
        if place is None or place < 0:
            return "unknown"
        return clean(names[int(place)], 40) if int(place) < len(names) else f"class {int(place)}"

    entries = []
    for image in images:
        known = results.image(image)
        said, truth = called(_plain(known.get("predicted"))), called(_plain(known.get("label")))
        entries.append(
            (picture(image), f"tile {image}", f"decided {said} · true {truth}" if known else f"tile {image}", "")
        )
    _strip(entries, size)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def concept_strip(concept: str, count: int, size: int = 96) -> None:
    """The pictures that stood for a concept."""
    _strip(
        (
            (address(f"layers/concept/{slot}.png", concept=concept, v=version()), f"picture {slot + 1}", "", "")
            for slot in range(count)
        ),
        size,
    )


def unit_card(unit: Unit, tiles: int = 6) -> None:
    """A unit in short: name, status, label, how well it fits, its first tiles."""
    fit, chance = unit.figures.get("r"), unit.figures.get("threshold")
    group = f"concept {unit.group}" if unit.group is not None else ""
    said = f"fit {figure(fit)} (chance {figure(chance)})" if fit is not None else ""
    name = f'<span class="ga-dim">{_safe(unit.id, 80)}</span>'
    st.html(
        f'<div>{badge(unit.status)}{name}</div><div class="ga-sub">{_safe(unit.label or "no label", 160)}</div>'
        f'<div class="ga-dim">{_safe(" · ".join(part for part in (said, group) if part))}</div>'
    )
    if tiles and unit.top_images:
        tile_strip(unit.top_images[:tiles], 76, captions=False)


def problems(results: Results) -> None:
    """What is wrong with the run and what it means, where anything is."""
    found = results.problems
    if not found:
        return
    words = {
        "unfinished": "This run is not finished. What is there is shown.",
        "damaged": "Parts of this run are damaged. What can be read is shown.",
        "other_version": "This run was written by another version. What can be read is shown.",
        "empty": "This folder holds no run yet.",
    }
    show = st.warning if results.state in ("unfinished", "other_version") else st.error
    show(words.get(results.state, "Something is wrong with this run."), icon=":material/warning:")
    with st.expander(f"What is wrong ({len(found)})", expanded=results.state == "empty"):
        listed(("Where", "What"), ((problem.where, problem.sentence) for problem in found), 600)


def opened(name: str) -> Results:
    """The run, after the page's heading and what is wrong with the run."""
    results = current()
    st.html(f'<h1 class="ga-title">{html.escape(name)}</h1>')
    problems(results)
    return results


def unit_link_rows(rows: Sequence[tuple[Any, str, str, float, float]]) -> None:
    """Units with a value each and a bar for its share of the unit's own strong activation, as a table."""
    body = "".join(
        f"<tr><td class='ga-name'>{_safe(unit, 60)}</td><td>{_safe(label or 'no label', 90)}</td>"
        f"<td>{badge(status)}</td><td>{figure(value)}</td>"
        f'<td class="ga-name"><span class="ga-bar" style="width:{min(max(share, 0.0), 1.5) * 4:.2f}rem"></span> '
        f"{figure(100 * share, 0)} %</td></tr>"
        for unit, label, status, value, share in rows
    )
    head = "<tr><th>Neuron</th><th>Label</th><th>Status</th><th>Activation</th><th>of its strong activation</th></tr>"
    st.html(
        f'<div class="ga-wrap"><table class="ga-table ga-units"><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    )


@st.fragment(run_every=0.7)
def until_ready(labels: Labels) -> None:
    """Say that meanings are being learnt, and make the page anew once they are known."""
    if labels.ready:
        st.rerun(scope="app")
    prose("So far by words alone: the meanings of the labels are being learnt, which takes a few seconds.", dim=True)
