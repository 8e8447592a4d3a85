"""A description run that takes a second: ten units whose truth is known, ninety drawn images, backends without weights."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dnd_core.config import CandidateConfig, DescribeConfig, ProbingConfig, SelectionConfig, VerificationConfig
from dnd_core.images import ArrayImages
from dnd_core.networks import Network
from dnd_core.pipeline import Backends, Run, describe
from dnd_core.protocols import Evidence
from dnd_core.testing import ATTRIBUTES, DrawnSpace, OracleCaptioner, OracleConceptImages, WordVectors, draw_probe
from dnd_core.testing.drawing import SHAPES
from dnd_core.testing.network import Features
from dnd_core.types import Candidate

SIDE = 48


class CommonPhrases:
    """Proposes the phrases that most captions of a unit share and other captions lack: enough for drawn images."""

    fingerprint = "common-phrases"

    def propose(self, evidence: Sequence[Evidence], n: int) -> list[list[Candidate]]:
        return [self._of(one, n) for one in evidence]

    def _of(self, evidence: Evidence, n: int) -> list[Candidate]:
        def shares(captions: Sequence[str]) -> dict[str, float]:
            counts = Counter(phrase for caption in captions for phrase in set(self.phrases(caption)))
            return {phrase: count / len(captions) for phrase, count in counts.items()}

        own, other = shares(evidence.captions), shares(evidence.contrast)
        gain = {phrase: share - other.get(phrase, 0.0) for phrase, share in own.items()}
        best = sorted(gain, key=lambda phrase: (-gain[phrase], phrase))[:n]
        return [Candidate(p, round(own[p] * len(evidence.captions)), gain[p], evidence.meaning) for p in best]

    @staticmethod
    def phrases(caption: str) -> list[str]:
        pieces = re.split(r", | and | with | on ", caption.lower())
        return [" ".join(w for w in re.findall(r"[a-z]+", piece) if w not in ("a", *SHAPES)) for piece in pieces]


SEEN = (("red",), ("green",), ("blue",), ("yellow",), ("vertical stripes",), ("red", "vertical stripes"), ())
"""What makes each unit of ``maps`` fire; nothing does the last."""


class Tiny(nn.Module):
    """Layers ``maps``, see :data:`SEEN`, and ``mix``: red, green and blue once more as a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features()
        self.maps = nn.Conv2d(len(ATTRIBUTES), 7, 1, bias=False)
        self.mix = nn.Linear(7, 3)
        with torch.no_grad():
            self.maps.weight.zero_()
            for unit, names in enumerate(SEEN):
                for name in names:
                    self.maps.weight[unit, ATTRIBUTES.index(name)] = 1.0
            self.mix.weight.copy_(torch.eye(3, 7))
            self.mix.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.mix(self.maps(self.features(images)).mean((2, 3)))
        return answer


def tiny_network(module: nn.Module | None = None, **changes: Any) -> Network:
    given: dict[str, Any] = {
        "input_shape": (3, SIDE, SIDE),
        "channels": ("red", "green", "blue"),
        "class_names": ("red", "green", "blue"),
        "name": "tiny",
    }
    return Network(module or Tiny(), lambda pixels: pixels, **{**given, **changes})


def tiny_backends(**changes: Any) -> Backends:
    plain = Backends(OracleCaptioner(0.1, 0), CommonPhrases(), OracleConceptImages(seed=9), DrawnSpace(), WordVectors())
    return dataclasses.replace(plain, **changes)


QUICK = DescribeConfig(
    probing=ProbingConfig(top_k=8, batch_size=32, crop_iou=0.5),
    candidates=CandidateConfig(n=3, contrast_images=12),
    selection=SelectionConfig(images_per_concept=4, beta=2),
    verification=VerificationConfig(permutations=50, resamples=20),
)


@pytest.fixture(scope="session")
def probe() -> ArrayImages:
    return draw_probe(120, size=SIDE, seed=3)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Run]:
    """Describe the tiny network; keyword arguments change one thing or another."""
    drawn = draw_probe(120, size=SIDE, seed=3)

    def run(
        root: Path,
        config: DescribeConfig = QUICK,
        *,
        images: Any = None,
        network: Network | None = None,
        layers: Sequence[str] = ("maps", "mix"),
        resume: bool = False,
        progress: Any = None,
        **backends: Any,
    ) -> Run:
        return describe(
            network or tiny_network(),
            drawn if images is None else images,
            layers,
            root,
            tiny_backends(**backends),
            config,
            resume=resume,
            progress=progress,
        )

    run.config = QUICK  # type: ignore[attr-defined]
    run.network = tiny_network  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="session")
def finished(tiny: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An undisturbed run of the tiny network, not to be written to."""
    return tiny(tmp_path_factory.mktemp("finished") / "run")
