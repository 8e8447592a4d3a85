"""Frozen values that travel between the stages of a description run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Box", "Candidate", "ScoredLabel", "Status", "UnitDescription", "UnitId", "Verification"]

_UNIT = re.compile(r"(?P<layer>.+)/(?P<index>\d+)")


@dataclass(frozen=True, order=True, slots=True)
class UnitId:
    """One unit ("neuron"): a channel of a convolutional layer, a feature of a transformer
    layer, or an output of a linear layer. Written ``layer/index``.

    Raises:
        ValueError: the layer is empty or the index negative.

    """

    layer: str
    index: int

    def __post_init__(self) -> None:
        if not self.layer or self.index < 0:
            raise ValueError(f"a unit is a layer name and an index >= 0, got {self.layer!r}, {self.index}")

    def __str__(self) -> str:
        return f"{self.layer}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> UnitId:
        """The unit written as ``layer/index``."""
        match = _UNIT.fullmatch(text)
        if match is None:
            raise ValueError(f"a unit is written layer/index, got {text!r}")
        return cls(match["layer"], int(match["index"]))


@dataclass(frozen=True, order=True, slots=True)
class Box:
    """A rectangle of pixels, half open: columns ``left..right``, rows ``top..bottom``."""

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            raise ValueError(f"not a rectangle of pixels: {self}")

    @property
    def area(self) -> int:
        """Pixels inside."""
        return (self.right - self.left) * (self.bottom - self.top)

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.area + other.area - width * height)


class Status(StrEnum):
    """What may be said about a unit (method section 2, verified labels with abstention)."""

    LABELLED = "labelled"
    WEAK = "weak"
    ABSTAINED = "abstained"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A label proposed for a unit in Step 2 (paper section 3.2).

    Attributes:
        label: one to five words.
        support: how often it was proposed, in proposals.
        contrast: how much more the unit's captions speak of it than other images' do; higher is better.
        meaning: which of the unit's meanings (cluster of top images) it was proposed for.

    """

    label: str
    support: int = 1
    contrast: float = 0.0
    meaning: int = 0


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """A candidate with its Step-3 scores (paper section 3.3); keys are the names in ``scoring.SCORES``."""

    candidate: Candidate
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.candidate.label


@dataclass(frozen=True, slots=True)
class Verification:
    """Evidence for a label on images held out from Steps 1-3.

    Attributes:
        r: simulation, Pearson correlation of activation and concept presence, in [-1, 1].
        auprc: average precision of presence for the unit's top 5 % images, in [0, 1].
        activation_rate: share of concept images that fire the unit above its 99th percentile, in [0, 1].
        p: one-sided permutation p-value of ``r``, block-wise where images have blocks.
        q: ``p`` after false-discovery-rate control over all units.
        stability: share of bootstrap resamples of the probe that choose the same meaning, in [0, 1].

    """

    r: float
    auprc: float
    activation_rate: float
    p: float
    q: float
    stability: float


@dataclass(frozen=True, slots=True)
class UnitDescription:
    """What a run says about one unit, with the evidence and every rejected candidate."""

    unit: UnitId
    status: Status
    labels: tuple[str, ...]
    candidates: tuple[ScoredLabel, ...]
    verification: Verification | None
    reason: str

    @property
    def label(self) -> str:
        """The best label, or an empty string where none may be said."""
        return self.labels[0] if self.labels else ""
