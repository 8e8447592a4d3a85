"""The document: PDF/A set by typst from the same content as the page, with fonts of its own.

Values travel to typst as one JSON file and are set as text, so no label can act as markup. Equal runs give equal bytes.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw

from dnd_core.errors import DndError
from geoaudit.report import maps as cartography
from geoaudit.report.atlas import Atlas
from geoaudit.report.charts import charts
from geoaudit.report.content import content
from geoaudit.report.html import GLOSSARY
from geoaudit.report.pictures import encode, open_rgb
from geoaudit.report.text import areas, figure, percent, plain, share_interval, shares
from geoaudit.report.typefaces import FAMILIES, font_folder, printable, shown
from geoaudit.report.wording import say
from geoaudit.results import Results, TopImage

__all__ = ["ReportError", "document"]

STANDARD: Literal["a-2a"] = "a-2a"
_MOST_FINDINGS, _LEAST_FINDINGS, _MOST_ROWS = 8, 2, 60
_GALLERY, _MOST_GROUPS, _FEW_GROUPS, _MOST_CLASSES, _MOST_SCENES = 10, 12, 12, 40, 2
_HEADS, _GLANCE, _MOST_DECISIONS = 7, 12, 12
_CHART = 215
_CELL = 72


class ReportError(DndError):
    """A report cannot be made from this run."""


def document(results: Results) -> bytes:
    """The PDF of a run.

    Raises:
        ReportError: typst refuses the document; the message says why.

    """
    import typst

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = _Document(results, root).data()
        (root / "data.json").write_text(json.dumps(printable(data), ensure_ascii=False), encoding="utf-8")
        template = resources.files(__package__).joinpath("templates").joinpath("report.typ")
        (root / "report.typ").write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        try:
            made: bytes = typst.compile(
                str(root / "report.typ"),
                root=str(root),
                font_paths=[str(font_folder())],
                ignore_system_fonts=True,
                pdf_standards=[STANDARD],
                timestamp=_created(results),
            )
        except RuntimeError as error:
            raise ReportError(f"the PDF cannot be set: {plain(error, 400)}") from error
    return made


def _created(results: Results) -> datetime.datetime:
    """When the run started, as the manifest says; the epoch where it does not."""
    timings = results.manifest.get("timings")
    text = timings.get("created") if isinstance(timings, Mapping) else None
    try:
        when = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.datetime.fromtimestamp(0, datetime.UTC)
    return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)


class _Document:
    """Gathers what the template reads and writes its pictures beside it."""

    def __init__(self, results: Results, root: Path) -> None:
        self.results = results
        self.root = root
        self.atlas = Atlas(results)
        self.pictures = 0

    def data(self) -> dict[str, Any]:
        said = content(self.results)
        grave = sum(finding["grave"] for finding in said["findings"])
        full = min(_MOST_FINDINGS, max(grave, _LEAST_FINDINGS))
        findings = [self._finding(finding) for finding in said["findings"][:full]]
        others = said["findings"][full : full + _MOST_ROWS]
        hidden = len(said["findings"]) - full - len(others)
        anchors = [finding["anchor"] for finding in findings]
        maps = self._maps()
        lead = next((finding for finding in findings if finding["map"]), None)
        hero = lead["map"] if lead else maps[0] if maps else None
        return {
            **{key: said[key] for key in ("title", "model", "verdict", "problems", "facts", "next", "has_audit", "checks",
                                          "hashes", "versions", "gate", "notes")},
            "tool": "geoaudit", "fonts": list(FAMILIES), "footer": plain(f"geoaudit · {said['title']}", 110), "words": _words(said),
            "hero": hero, "maps": maps, "classes_map": self._classes(), "findings": findings,
            "suppressed": [self._finding(finding) for finding in said["suppressed"][:_MOST_FINDINGS]],
            "others": [[f["id"], f["severity_word"], f["title"], f["effect"], f["q"]] for f in others],
            "more": say("more.findings", n=hidden) if hidden > 0 else "",
            "accuracy": _accuracy(said["accuracy"]), "area": _areas(said["areas"]),
            "heads": [{"severity": f["severity"], "word": f["severity_word"], "title": f["title"],
                       "anchor": f["anchor"] if f["anchor"] in anchors else ""} for f in said["findings"][:_HEADS]],
            "more_heads": _more(len(said["findings"]) - _HEADS),
            "glance": [{"status": k["status"], "word": k["word"], "title": k["title"]} for k in said["checks"][:_GLANCE]],
            "more_glance": _more(len(said["checks"]) - _GLANCE),
            "layers": [[row["layer"], *(str(row[name]) for name in ("labelled", "weak", "abstained", "dead", "total"))]
                       for row in said["layers"]],
            "charts": self._charts(said), "gallery": self._gallery(),
            **_groups(said["groups"]),
            "attributions": [[row["name"], row["licence"], row["text"]] for row in said["attributions"]],
            "decisions": [*([f["id"], f["title"], _decision(f["decision"])] for f in said["findings"][:_MOST_DECISIONS]),
                          ["", say("sign.whole"), ""]],
            "more_decisions": _more(len(said["findings"]) - _MOST_DECISIONS),
        }  # fmt: skip

    def _save(self, image: Image.Image, alt: str, kind: str = "JPEG") -> dict[str, Any]:
        self.pictures += 1
        name = f"picture-{self.pictures:03d}.{'jpg' if kind == 'JPEG' else 'png'}"
        (self.root / name).write_bytes(encode(image, kind, quality=86))
        return {"file": name, "alt": plain(alt, 200), "aspect": image.height / image.width}

    def _finding(self, finding: Mapping[str, Any]) -> dict[str, Any]:
        raw = [step["raw"] for rung in finding["ladder"] for step in rung["steps"] if step["raw"]]
        values = [0.0, *(value for entry in raw for value in entry.values())]
        ladder = [
            {**rung, "steps": [{**step, "against": _against(step)} for step in rung["steps"]]}
            for rung in finding["ladder"]
        ]  # fmt: skip
        figures = [
            ("finding.class", finding["class"]), ("finding.concept", finding["concept"]), ("finding.why", finding["why"]),
            ("finding.effect", finding["effect"]), ("finding.n", "" if finding["n"] is None else str(finding["n"])),
            ("finding.q", finding["q"]), ("finding.confidence", finding["confidence"]),
            ("finding.prevalence", finding["prevalence"]), ("finding.area", finding["area"]),
            ("finding.false_alarm", finding["false_alarm"]),
            ("finding.units", ", ".join(plain(unit, 40) for unit in finding["units"][:8])),
        ]  # fmt: skip
        advice = [
            ("finding.recommendation", "recommendation"),
            ("finding.retest", "retest"),
            ("finding.limitations", "limitations"),
        ]
        return {
            **{key: finding[key] for key in ("id", "anchor", "title", "severity", "severity_word", "severity_means", "status",
                                             "status_word", "baseline", "suppression")},
            "ladder": ladder, "scale": [min(values), max(values)], "decision": _decision(finding["decision"]),
            "figures": [[say(key), value] for key, value in figures if value not in ("", "\u2013")],
            "advice": [[say(key), finding[name]] for key, name in advice if finding[name]],
            "map": self._map_of(finding["units"]),
            "examples_strip": self._strip(finding["examples"][:8], say("examples.title")),
            "counter_strip": self._strip(finding["counterexamples"][:8], say("counterexamples.title")),
        }  # fmt: skip

    def _map_of(self, units: Sequence[str]) -> dict[str, Any] | None:
        found = self.atlas.best_of(units)
        return None if found is None else self._map(*found, width=620)

    def _map(self, unit: Any, number: int, laid: cartography.Overlay, width: int) -> dict[str, Any]:
        scene = self.atlas.scenes[number]
        image = cartography.composite(scene, laid, min(width, scene.image.width))
        saved = self._save(image, say("map.alt", scene=plain(scene.name, 60), unit=plain(unit, 60)))
        caption = say("finding.map", unit=plain(unit, 60))
        return {**saved, "caption": caption, "label": self.atlas.label(unit)}

    def _maps(self) -> list[dict[str, Any]]:
        """A large map for each scene, of the unit that findings or labels put first there."""
        made = []
        for number in range(min(_MOST_SCENES, len(self.atlas.scenes))):
            found = next(
                (f for f in (self.atlas.over(unit, number) for unit in self.atlas.wanted()) if f is not None), None
            )
            if found is not None:
                made.append(self._map(found.unit, number, found, width=960))
        return made

    def _classes(self) -> dict[str, Any] | None:
        for scene in self.atlas.scenes:
            found = cartography.class_overlay(self.results, scene)
            if found is not None:
                layer = Image.alpha_composite(scene.image.convert("RGBA"), found[0].convert("RGBA"))
                legend = [
                    {"name": plain(one["name"], 40), "colour": one["colour"], "share": percent(one["share"])}
                    for one in found[1][:_MOST_CLASSES]
                ]
                return {**self._save(layer, say("map.classes")), "legend": legend}
        return None

    def _strip(self, images: Sequence[int], alt: str, columns: int = 4) -> dict[str, Any] | None:
        return self._tiles([TopImage(image, None, 0.0) for image in images], alt, columns)

    def _tiles(self, views: Sequence[TopImage], alt: str, columns: int) -> dict[str, Any] | None:
        cells = []
        for view in views:
            opened = open_rgb(self.results.thumbnail(view.image))
            if opened is None:
                continue
            scale = _CELL / opened.width, _CELL / opened.height
            cell = open_rgb(self.results.thumbnail(view.image), _CELL)
            if cell is not None:
                if view.box is not None:
                    b = view.box
                    edges = (b.left * scale[0], b.top * scale[1], b.right * scale[0] - 1, b.bottom * scale[1] - 1)
                    ImageDraw.Draw(cell).rectangle(edges, outline=(255, 225, 77), width=2)
                cells.append(cell)
        if not cells:
            return None
        rows = -(-len(cells) // columns)
        sheet = Image.new("RGB", (columns * (_CELL + 4) - 4, rows * (_CELL + 4) - 4), (255, 255, 255))
        for number, cell in enumerate(cells):
            sheet.paste(cell, (number % columns * (_CELL + 4), number // columns * (_CELL + 4)))
        return self._save(sheet, alt, "PNG")

    def _charts(self, said: Mapping[str, Any]) -> list[dict[str, str]]:
        made = []
        for chart in charts(self.results, said, width=_CHART):
            name = f"chart-{chart.name}.svg"
            (self.root / name).write_text(shown(chart.svg.replace("currentColor", "#26322f")), encoding="utf-8")
            made.append({"file": name, "alt": chart.title, "title": chart.title})
        return made

    def _gallery(self) -> list[dict[str, Any]]:
        """The best-supported neuron of each label, then more, verified ones first."""
        known = [self.results.unit(unit) for unit in self.results.unit_ids]
        known = [unit for unit in known if unit.status == "labelled" and unit.label]
        known.sort(key=lambda unit: (-(unit.figures["r"] or 0.0), str(unit.id)))
        firsts: dict[str, Any] = {}
        for unit in known:
            firsts.setdefault(unit.label, unit)
        order = [*firsts.values(), *(unit for unit in known if firsts[unit.label] is not unit)][:_GALLERY]
        made = []
        for unit in order:
            strip = self._tiles(unit.top_images[:6], say("neuron.tiles", unit=plain(unit.id, 60)), 6)
            if strip is not None:
                fit = say("neuron.fit.of", r=figure(unit.figures["r"]), threshold=figure(unit.figures["threshold"]))
                made.append({
                    **strip, "label": plain(unit.label, 60), "status": unit.status, "detail": f"{plain(unit.id, 50)} · {fit}",
                    "status_word": say(f"neuron.{unit.status}"),
                })  # fmt: skip
        return made


def _accuracy(table: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if table is None:
        return None
    rows = []
    for row in table["classes"][:_MOST_CLASSES]:
        cells = [row["name"], str(row["n"])]
        for key in ("producers", "users"):
            cells += [percent(row[key]["estimate"]), share_interval(row[key])]
        rows.append(cells)
    return {"lead": table["lead"], "rows": rows, "notes": [*table["notes"], *_more_rows(table["classes"])]}


def _areas(table: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [row["name"], areas(row["mapped"]), areas(row["area"]), shares(row["producers"]), shares(row["users"])]
        for row in table["rows"][:_MOST_CLASSES]
    ]
    return {**table, "rows": rows, "notes": [*table["notes"], *_more_rows(table["rows"])]}


def _more_rows(rows: Sequence[Any]) -> list[str]:
    return [_more(len(rows) - _MOST_CLASSES)] if len(rows) > _MOST_CLASSES else []


def _more(hidden: int) -> str:
    return say("more.page", n=hidden) if hidden > 0 else ""


def _groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Concepts that a class leans on, then the largest; a page of dashes would tell nobody anything."""
    leaning = [row for row in groups if row["reliance"] is not None]
    rest = sorted((row for row in groups if row["reliance"] is None), key=lambda row: (-len(row["units"]), row["name"]))
    shown_rows = leaning[:_MOST_GROUPS] + rest[: max(0, _FEW_GROUPS - len(leaning))]
    hidden = len(groups) - len(shown_rows)
    return {
        "groups": [[row["name"], str(len(row["units"])), row["leaning"] or "\u2013", figure(row["reliance"], signed=True),
                    row["reliance_ci"], figure(row["loss"], signed=True)] for row in shown_rows],
        "more_groups": say("more.concepts", n=hidden) if hidden > 0 else "",
    }  # fmt: skip


def _decision(decision: Mapping[str, str] | None) -> str:
    return "" if decision is None else ", ".join(part for part in decision.values() if part)


def _against(step: Mapping[str, Any]) -> str:
    return say("ladder.null", null=step["null"]) if step["null"] else ""


def _words(said: Mapping[str, Any]) -> dict[str, Any]:
    """The catalogue's part that the template sets."""
    plain_keys = {
        "language": "language", "kicker": "kicker", "problems": "problems.title", "findings": "findings.title",
        "findings_lead": "findings.lead", "findings_none": "findings.none", "findings_unknown": "findings.unknown",
        "next": "next.title", "map": "map.title", "classes_map": "map.classes", "ladder": "ladder.title",
        "examples": "examples.title", "counterexamples": "counterexamples.title", "checks": "checks.title",
        "checks_lead": "checks.lead", "checks_none": "checks.none", "notes": "checks.notes", "accuracy": "accuracy.title",
        "accuracy_none": "accuracy.none", "area": "accuracy.area", "decision": "sign.decision", "numbers": "numbers.title",
        "neurons_empty": "neurons.empty", "gallery": "gallery.title", "groups": "groups.title", "method": "method.title",
        "method_source": "method.source", "limits": "limits.title", "glossary": "glossary.title",
        "provenance": "provenance.title", "attributions": "provenance.attributions", "hashes": "provenance.hashes",
        "versions": "provenance.versions", "unknown": "provenance.unknown", "sign": "sign.title", "sign_lead": "sign.lead",
        "sign_options": "sign.options", "others": "more.title",
    }  # fmt: skip
    heads = {
        "checks_head": ("column.check", "column.result", "column.reason", "column.tested", "column.null"),
        "accuracy_head": ("column.class", "column.n", "column.producers", "column.ci", "column.users", "column.ci"),
        "others_head": ("column.id", "column.severity", "finding", "column.effect", "column.q"),
        "area_head": ("column.class", "column.mapped", "column.area", "column.producers", "column.users"),
        "layers_head": ("column.layer", "neuron.labelled", "neuron.weak", "neuron.abstained", "neuron.dead", "column.total"),
        "groups_head": ("column.concept", "column.units", "column.leaning", "column.reliance", "column.ci", "column.loss"),
        "sign_head": ("column.id", "finding", "sign.decision"), "sign_lines": ("sign.name", "sign.date", "sign.signature"),
    }  # fmt: skip
    return {
        **{name: say(key) for name, key in plain_keys.items()},
        **{name: [say(key) for key in keys] for name, keys in heads.items()},
        "method_steps": [say(f"method.{n}") for n in range(1, 7)],
        "limits_list": [say(f"limits.{n}") for n in range(1, 6)],
        "glossary_list": [[say(f"glossary.{key}"), say(f"glossary.{key}.is")] for key in GLOSSARY],
        "sign_blocked": say("sign.blocked", sentence=said["verdict"]["sentence"]),
    }
