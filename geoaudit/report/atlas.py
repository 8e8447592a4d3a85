"""The maps of a report: which units are shown large, their thumbnails, and the chooser of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.report import maps as cartography
from geoaudit.report.pictures import ContactSheet, Place, data_uri, encode
from geoaudit.report.text import hectares, percent, plain
from geoaudit.report.wording import count, say
from geoaudit.results import Results

__all__ = ["MAP_THUMB", "Atlas", "anchor"]

MAP_THUMB = 96
_LARGE_MAPS = 14


def anchor(unit: UnitId | str) -> str:
    """The place of a unit's card on the page."""
    return "unit-" + "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in str(unit)[:80])


class Atlas:
    """The maps of a page: a thumbnail for every mapped unit, large ones for those that findings and groups lead to."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.scenes = cartography.backdrops(results)
        self.small = cartography.backdrops(results, 192) if results.maps() else []
        self._laid: dict[tuple[UnitId, int], cartography.Overlay | None] = {}

    def large(self, unit: UnitId) -> tuple[int, cartography.Overlay] | None:
        """Number of the first scene that a unit's map reaches, and the overlay."""
        for number in range(len(self.scenes)):
            laid = self.over(unit, number)
            if laid is not None:
                return number, laid
        return None

    def over(self, unit: UnitId, number: int) -> cartography.Overlay | None:
        """A unit over the scene of this number, laid once."""
        key = (unit, number)
        if key not in self._laid:
            self._laid[key] = cartography.overlay(self.results, unit, self.scenes[number])
        return self._laid[key]

    def thumbnails(self, sheet: ContactSheet) -> dict[UnitId, Place]:
        """Small maps of all mapped units, put on a contact sheet."""
        found = {}
        for unit in self.results.maps():
            for scene in self.small:
                laid = cartography.overlay(self.results, unit, scene)
                if laid is not None:
                    picture = cartography.composite(scene, laid)
                    edge = max(picture.size)
                    square = (
                        picture.resize((MAP_THUMB, MAP_THUMB))
                        if picture.width == picture.height
                        else _pad(picture, edge)
                    )
                    found[unit] = sheet.add(unit, square)
                    break
        return found

    def best_of(self, units: Sequence[str]) -> tuple[UnitId, int, cartography.Overlay] | None:
        """The best verified of these units that has a map, the number of its scene, and the overlay."""
        for unit in self._mapped(units):
            laid = self.large(unit)
            if laid is not None:
                return unit, *laid
        return None

    def _mapped(self, units: Sequence[str]) -> list[UnitId]:
        """Those of these units that have a map, best verified first."""
        known = {str(unit): unit for unit in self.results.maps()}
        found = [known[text] for text in dict.fromkeys(units) if text in known]
        return sorted(found, key=lambda unit: (-self._known(unit)[1], unit))

    def figure(self, units: Sequence[str], width: int = 640) -> dict[str, Any] | None:
        """A still map of the first of these units that has one."""
        found = self.best_of(units)
        return None if found is None else self._still(*found, width)

    def label(self, unit: UnitId) -> str:
        """What a unit is called, in a line."""
        return self._known(unit)[0]

    def _still(self, unit: UnitId, number: int, laid: cartography.Overlay, width: int = 640) -> dict[str, Any]:
        scene = self.scenes[number]
        return {
            "uri": data_uri(encode(cartography.composite(scene, laid, min(width, scene.image.width)), quality=80)),
            "scene": plain(scene.name, 60), "unit": plain(unit, 60), "anchor": anchor(unit), "spots": _spots(laid),
        }  # fmt: skip

    def first(self) -> dict[str, Any] | None:
        """A map for the head of a page without findings: the best verified unit that has one."""
        best = sorted(self.results.maps(), key=lambda unit: -(self._known(unit)[1]))
        for unit in best:
            laid = self.large(unit)
            if laid is not None:
                return self._still(unit, *laid) | {"label": self._known(unit)[0]}
        return None

    def _known(self, unit: UnitId) -> tuple[str, float]:
        try:
            known = self.results.unit(unit)
        except StoreError:
            return "", -1.0
        verified = known.status == "labelled"
        return plain(known.label, 60) or say("neuron.unlabelled"), (known.figures["r"] or 0.0) if verified else -1.0

    def wanted(self) -> list[UnitId]:
        """Units to show large: those of findings first, then the best of each group, each once."""
        maps = self.results.maps()
        wanted: dict[UnitId, None] = {}
        for finding in self.results.findings[:_LARGE_MAPS]:
            units = [u if isinstance(u, str) else f"{finding.get('layer')}/{u}" for u in finding.get("units", ())]
            # One neuron a finding, so that the chooser shows many concepts and not one many times.
            wanted |= dict.fromkeys(self._mapped(units)[:1])
        best = sorted(maps, key=lambda unit: -self._known(unit)[1])
        seen = {self._known(unit)[0] for unit in wanted}
        for unit in best:
            label, score = self._known(unit)
            if label not in seen and score >= 0:
                seen.add(label)
                wanted[unit] = None
        for unit in best:
            wanted.setdefault(unit, None)
        return list(wanted)[:_LARGE_MAPS]

    def figures(self) -> list[dict[str, Any]]:
        """One chooser a scene: the scene, its overlays and the predicted classes."""
        wanted = self.wanted()
        made = []
        for number, scene in enumerate(self.scenes):
            layers = []
            for position, unit in enumerate(wanted):
                mine = self.over(unit, number)
                if mine is None:
                    continue
                layers.append({
                    "key": f"u{position}", "name": plain(unit, 60), "label": self._known(unit)[0], "heat": True,
                    "uri": data_uri(encode(cartography.heat(mine.strength), "PNG"), "png"),
                    "path": cartography.path_of(mine.outlines), "detail": _spots(mine),
                })  # fmt: skip
            classes = cartography.class_overlay(self.results, scene)
            legend = []
            if classes is not None:
                layers.append({
                    "key": "classes", "name": "", "label": say("map.classes"), "heat": False, "path": "", "detail": "",
                    "uri": data_uri(encode(classes[0], "PNG"), "png"),
                })  # fmt: skip
                legend = [
                    {"name": plain(one["name"], 40), "colour": one["colour"], "share": percent(one["share"])}
                    for one in classes[1]
                ]
            if layers:
                made.append({
                    "scene": plain(scene.name, 60), "uri": data_uri(encode(scene.image)), "width": scene.image.width,
                    "height": scene.image.height, "layers": layers, "legend": legend, "ruler": _ruler(scene),
                })  # fmt: skip
        return made


def _pad(picture: Any, edge: int) -> Any:
    """A picture that is not square, in the middle of a square one."""
    from PIL import Image

    square = Image.new("RGB", (edge, edge), (24, 34, 31))
    square.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
    return square.resize((MAP_THUMB, MAP_THUMB))


def _spots(laid: cartography.Overlay) -> str:
    return say("map.spots", spots=count(laid.spots, "spot"), area=hectares(laid.area_ha)) if laid.spots else ""


def _ruler(scene: cartography.Backdrop) -> dict[str, Any] | None:
    """A round length near a fifth of the picture's width."""
    if scene.metres is None:
        return None
    whole = scene.metres * scene.image.width / 1000
    fitting = [km for km in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if km <= whole * 0.3]
    return {"km": f"{fitting[-1]:g}", "share": round(100 * fitting[-1] / whole, 2)} if fitting else None
