"""One network of the bench through the real audit, and what its findings say of the plant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.config import CandidateConfig, DescribeConfig, ProbingConfig
from dnd_core.images import ImageSet, ProbeImage, Subset
from dnd_core.networks import Network
from dnd_core.protocols import TextEncoder
from geoaudit.audit import Audit, Subject, audit, split_subject
from geoaudit.bench.shortcuts.chips import BenchChips, Imagery, PlantedProbe
from geoaudit.bench.shortcuts.models import LAYERS
from geoaudit.bench.shortcuts.plants import Family
from geoaudit.captions import SatelliteCaptioner
from geoaudit.settings import AuditSettings

__all__ = ["Reading", "SharedBackends", "audit_case", "read_findings", "run_score"]

OPTIONS = AuditSettings(evaluated=220, draws=300, map_units=0)
WEIGHT = {"critical": 3.0, "major": 2.0, "minor": 1.0, "info": 0.0}


class _Remembering:
    """The satellite captioner, asked once for every distinct picture of the whole bench."""

    def __init__(self) -> None:
        self._captioner = SatelliteCaptioner()
        self._said: dict[tuple[str, bool], str] = {}
        self.fingerprint = self._captioner.fingerprint

    def caption(self, images: Sequence[ProbeImage]) -> list[str]:
        # An enlarged crop is said to be without its blur, so it never shares a sentence with an equal whole tile.
        keys = [(image.key, "crop" in image.metadata) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._said}
        if new:
            self._said.update(zip(new, self._captioner.caption(list(new.values())), strict=True))
        return [self._said[key] for key in keys]


@dataclass(eq=False)
class SharedBackends:
    """The embedded backends with what all audits of a bench can share: the encoder and the captions."""

    captioner: _Remembering
    encoder: TextEncoder

    @classmethod
    def make(cls) -> SharedBackends:
        """Load the encoder once."""
        from dnd_core.registry import build

        encoder: TextEncoder = build("sentences")
        return cls(_Remembering(), encoder)


def subject_of(
    network: Network, imagery: Imagery, chips: BenchChips, settings: DescribeConfig
) -> tuple[Subject, PlantedProbe, Subset]:
    """What the auditor is handed: the network and all of its makers' chips."""
    probe = PlantedProbe(chips, imagery.ids, imagery.planted, imagery.family)
    shown, pool, held = split_subject(probe, settings, OPTIONS)
    return Subject(network, shown, pool, np.asarray(held), LAYERS), probe, shown


def audit_case(
    network: Network, imagery: Imagery, chips: BenchChips, shared: SharedBackends, seed: int, out: Path
) -> tuple[Audit, ImageSet, NDArray[np.bool_]]:
    """Audit a network of the bench as its makers would.

    Returns:
        The audit, its probe images, and which of them carry the plant.
    """
    from dnd_core.backends.assembly import assemble

    settings = DescribeConfig(seed=seed, probing=ProbingConfig(crops=False), candidates=CandidateConfig())
    subject, probe, shown = subject_of(network, imagery, chips, settings)
    specs = {
        "captioner": shared.captioner,
        "text_encoder": shared.encoder,
        "summarizer": "keyphrases",
        "concept_images": "geoaudit.retrieval.TilePool",
        "image_encoder": "caption-space",
    }
    backends = assemble(specs, pool=subject.pool, probe=subject.probe, size=network.input_shape[1:])
    done = audit(subject, out, backends, settings, OPTIONS)
    return done, shown, probe.is_planted[shown.indices]


def run_score(findings: Sequence[Mapping[str, Any]]) -> float:
    """How loudly a run warns: its highest finding's severity, and within one severity the size of its effect.

    0 without findings; 1 to 2 for a minor one, 2 to 3 for a major one, 3 to 4 for a critical one.
    """
    scores = [
        WEIGHT[f["severity"]] + min(1.0, abs(f["effect"]["value"] or 0.0)) if WEIGHT[f["severity"]] else 0.0
        for f in findings
    ]
    return max(scores, default=0.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run's findings say of the plant.

    Attributes:
        score: :func:`run_score`.
        rank: place of the first finding that names the family, from 1; 0 where none does.
        class_rank: the same where the finding must also name the class.
        precision: share of that finding's first ten example images that carry the plant; NaN without.
        tripped: whether the gate fails at ``major``.
    """

    score: float
    rank: int
    class_rank: int
    precision: float
    tripped: bool


def read_findings(
    findings: Sequence[Mapping[str, Any]], family: Family | None, target: str, planted: NDArray[np.bool_]
) -> Reading:
    """Read ``audit.json``'s findings against the truth.

    Args:
        findings: most severe first.
        family: what was planted; None for nothing.
        target: the class that the plant points to.
        planted: (N,) which of the probe's images carry the plant.
    """
    rank = class_rank = 0
    precision = float("nan")
    for place, finding in enumerate(findings, start=1):
        if family is None or not family.named(str(finding["concept"]), str(finding["rule"])):
            continue
        if not rank:
            rank = place
            shown = [int(i) for i in finding["examples"]][:10]
            precision = float(planted[shown].mean()) if shown and planted.any() else float("nan")
        if not class_rank and target in finding["class_pair"]:
            class_rank = place
    tripped = any(finding["severity"] in ("major", "critical") for finding in findings)
    return Reading(run_score(findings), rank, class_rank, precision, tripped)
