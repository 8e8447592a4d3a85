"""Labels of hidden units, scored by simulation on tiles that no method saw, and what no label could do better there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import CachedCaptioner, LabelScores, score_labels
from dnd_core.images import ImageSet, Subset
from dnd_core.types import UnitId
from geoaudit.bench.labels_limits import firing_statements, limits, phrase_extents, plain_measures, told
from geoaudit.bench.labels_methods import DND, OURS, Case, Labels
from geoaudit.bench.labels_shown import most_possible, rate_of_best, rates_of_exaggerated, rates_of_shown, show

if TYPE_CHECKING:
    from dnd_core.backends.sentences import SentenceEncoder

__all__ = ["OUTPUT", "HiddenUnits", "Rates", "Simulated"]

OUTPUT = "output"
"""Layer of the output units, which are no hidden ones."""

_AT_ONCE = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Simulated:
    """How well every method's labels follow the units.

    Attributes:
        scores: method -> scores.
        examples: method -> (unit, label, r) of every unit that has a label.
        ungraded: method -> scores, r alone, where presence asks whether a thing is there, not how much of it; of ours and DnD.
    """

    scores: Mapping[str, LabelScores]
    examples: Mapping[str, tuple[tuple[str, str, float], ...]]
    ungraded: Mapping[str, LabelScores]


@dataclass(frozen=True, eq=False)
class Rates:
    """Activation rates by what labels are shown on.

    Attributes:
        galleries: key of :data:`geoaudit.bench.labels_shown.GALLERIES` -> method -> activation rate on these images.
        ceiling: rate on the evaluation's tiles that each unit fires on most: no choice among them by any label can do better.
        ceilings: the keys of real images -> the same there.
        firing: ``tiles`` and ``windows`` -> rate of statements chosen on the explaining tiles for nothing but a high one.
    """

    galleries: Mapping[str, Mapping[str, LabelScores]]
    ceiling: float
    ceilings: Mapping[str, float]
    firing: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Images with what is said of them and how the units answer.

    Attributes:
        pixels: (N, C, H, W).
        captions: one an image.
        fired: (N, U).
    """

    pixels: Floats
    captions: list[str]
    fired: Floats


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """The hidden units of a case with every method's labels of them.

    Attributes:
        case: network and tiles.
        labels: what the methods say.
        captioner: says what is on tiles.
        encoder: compares labels with what it says.
        draws: bootstrap draws of every score.
    """

    case: Case
    labels: Labels
    captioner: CachedCaptioner
    encoder: SentenceEncoder
    draws: int

    @cached_property
    def units(self) -> tuple[UnitId, ...]:
        """The units, in the order of the columns of every table."""
        return tuple(unit for unit in self.labels.units if unit.layer != OUTPUT)

    @cached_property
    def said(self) -> dict[str, list[tuple[str, ...]]]:
        """Method -> labels of every unit."""
        hidden = [place for place, unit in enumerate(self.labels.units) if unit.layer != OUTPUT]
        return {method: [some[place] for place in hidden] for method, some in self.labels.said.items()}

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """(U,) activation that counts as firing: the 99th percentile over the probe."""
        run = self.labels.run
        bars = {info.name: np.percentile(run.activations(info.name), 99, axis=0) for info in run.layers}
        return np.array([bars[unit.layer][unit.index] for unit in self.units])

    @cached_property
    def evaluation(self) -> _Seen:
        """The tiles that no method saw."""
        return self._see(self.case.evaluation)

    @cached_property
    def explaining(self) -> _Seen:
        """The tiles that labels are chosen on."""
        rows = np.setdiff1d(np.arange(len(self.case.probe)), self.case.held_out)
        tiles = Subset(self.case.probe, rows.tolist())
        run = self.labels.run
        kept = {info.name: run.activations(info.name)[rows] for info in run.layers}
        fired = np.stack([kept[unit.layer][:, unit.index] for unit in self.units], axis=1)
        return _Seen(tiles.pixels(range(len(tiles))), self._captions(tiles), fired)

    def fire(self, pixels: Floats) -> Floats:
        """(N, U) activations of (N, C, H, W) images."""
        from dnd_core.probing import activate

        found = activate(self.case.network, self.labels.run.layers, pixels)
        return np.stack([found[unit.layer][:, unit.index] for unit in self.units], axis=1)

    def simulate(self) -> Simulated:
        """Score every method's labels on the evaluation's tiles."""
        from dnd_core.presence import CaptionIndex

        seen = self.evaluation
        distinct = sorted({label for said in self.said.values() for some in said for label in some})
        row = {label: number for number, label in enumerate(distinct)}
        graded = CaptionIndex(seen.captions, self.encoder, amounts=True).presence(distinct)
        whether = CaptionIndex(seen.captions, self.encoder).presence(distinct)
        best = show(list(self.said.values()), seen.captions, self.encoder)
        scores, examples, ungraded = {}, {}, {}
        for method, mine in self.said.items():
            there, plainly = np.zeros(seen.fired.shape), np.zeros(seen.fired.shape)
            for unit, some in enumerate(mine):
                if some:
                    rows = [row[label] for label in some]
                    there[:, unit], plainly[:, unit] = graded[rows].max(axis=0), whether[rows].max(axis=0)
            shown = [seen.fired[best[some], unit] for unit, some in enumerate(mine)]
            scores[method] = self._score(mine, there, shown)
            if method in (OURS, DND):
                ungraded[method] = self._score(mine, plainly).only("r")
            examples[method] = tuple(
                (str(unit), "; ".join(some), float(r))
                for unit, some, r in zip(self.units, mine, scores[method].units["r"], strict=True)
                if some
            )
        return Simulated(scores, examples, ungraded)

    def limits(self) -> dict[str, LabelScores]:
        """How well anything said in the captions' phrases, or in plain measures, can follow the units."""
        studied, seen = self.explaining, self.evaluation
        return limits(
            studied.fired,
            seen.fired,
            (studied.captions, seen.captions),
            self.encoder,
            plain_measures(studied.pixels, seen.pixels, self.case.probe.channels),
            blocks=self.case.evaluation.blocks,
            draws=self.draws,
            seed=self.case.seed,
        )

    def rates(self) -> Rates:
        """Activation rates on the evaluation's tiles and on other images, and what is possible there."""
        from dnd_core.windows import Windows

        seen, seed = self.evaluation, self.case.seed
        sources: dict[str, ImageSet] = {
            "wider": self.case.wider or self.case.evaluation,
            "windows": Windows(self.case.evaluation),
        }
        galleries, ceilings = {}, {}
        for key, images in sources.items():
            other = self._see(images)
            chosen = show(list(self.said.values()), other.captions, self.encoder)
            galleries[key] = rates_of_shown(
                self.said, other.fired, self.thresholds, chosen, draws=self.draws, seed=seed
            )
            ceilings[key] = most_possible(other.fired, self.thresholds)
        # Windows come last: what is exaggerated are the windows chosen there.
        galleries["exaggerated"] = rates_of_exaggerated(
            self.said, other.pixels, self.thresholds, chosen, seen.pixels, self.fire, draws=self.draws, seed=seed
        )
        firing = firing_statements(self.explaining.fired, self.thresholds, self._extents(self.explaining))
        reached = {
            key: rate_of_best(told(self._extents(images), firing), images.fired, self.thresholds)
            for key, images in (("tiles", seen), ("windows", other))
        }
        return Rates(galleries, most_possible(seen.fired, self.thresholds), ceilings, reached)

    def _see(self, images: ImageSet) -> _Seen:
        pixels = images.pixels(range(len(images)))
        return _Seen(pixels, self._captions(images), self.fire(pixels))

    def _captions(self, images: ImageSet) -> list[str]:
        said: list[str] = []
        for first in range(0, len(images), _AT_ONCE):
            rows = range(first, min(first + _AT_ONCE, len(images)))
            said += self.captioner.caption([images[row] for row in rows])
        return said

    def _extents(self, seen: _Seen) -> NDArray[np.float64]:
        """(N, P) of every phrase of the explaining tiles and every plain measure."""
        studied = self.explaining
        phrases = phrase_extents(studied.captions, seen.captions, self.encoder)[1]
        measures = plain_measures(studied.pixels, seen.pixels, self.case.probe.channels)[1]
        return np.concatenate([phrases, measures], axis=1)

    def _score(
        self, said: Sequence[tuple[str, ...]], presence: NDArray[np.float64], shown: Sequence[Floats] = ()
    ) -> LabelScores:
        return score_labels(
            self.evaluation.fired,
            presence,
            np.array([bool(some) for some in said]),
            shown=shown,
            thresholds=self.thresholds,
            blocks=self.case.evaluation.blocks,
            draws=self.draws,
            seed=self.case.seed,
        )
