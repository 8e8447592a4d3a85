"""The contract of a check, and what every check may ask of an audit: predictions, painted copies, ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from dnd_core.protocols import TextEncoder
from geoaudit.findings import CheckResult
from geoaudit.perturb import paint

__all__ = ["AuditContext", "Check"]

Floats = NDArray[np.float64]


class Check(Protocol):
    """One hypothesis about a network, tested.

    Attributes:
        rule: its id, in kebab case.
        title: what it looks for, in plain words.
        needs: any of ``labels``, ``georeference``, ``bands``, ``classes``, ``groups``; without them it reports
            ``not_run``.
        cost: how its time grows.
        null: what chance looks like.
    """

    rule: str
    title: str
    needs: tuple[str, ...]
    cost: str
    null: str

    def run(self, context: AuditContext) -> CheckResult:
        """Test the hypothesis on this audit."""
        ...


@dataclass(eq=False)
class AuditContext:
    """A described network on its probe set, with what checks share so that nothing is computed twice.

    Attributes:
        network: the audited network.
        images: the probe set.
        layers: the layers described.
        neurons, groups: tables of the run.
        activations: layer name to (images, units) pooled activations.
        logits: (images, classes).
        encoder: sentence encoder.
        definitions: the user's class definitions, by class name.
        evaluated: image indices on which causal tests run.
        seed: of every draw.
        draws: bootstrap and permutation draws.
        report: progress callback (stage, done, total).
    """

    network: Network
    images: ImageSet
    layers: tuple[LayerInfo, ...]
    neurons: pd.DataFrame
    groups: pd.DataFrame
    activations: Mapping[str, NDArray[np.float32]]
    logits: NDArray[np.float32]
    encoder: TextEncoder
    definitions: Mapping[str, str]
    evaluated: NDArray[np.int64]
    captions: Sequence[str] | None = None
    seed: int = 0
    draws: int = 1000
    batch_size: int = 128
    report: Callable[[str, int, int], None] = lambda stage, done, total: None
    _painted: dict[tuple[str, float], NDArray[np.float32]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's classes."""
        return self.network.class_names or tuple(f"class {i}" for i in range(self.logits.shape[1]))

    @cached_property
    def probabilities(self) -> Floats:
        """(images, classes) softmax of the logits."""
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        scores = np.exp(shifted)
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(images,) class of highest logit."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @cached_property
    def reference(self) -> NDArray[np.int64]:
        """(images,) true classes where known, else the clean predictions: which images are not of class c."""
        labels = self.images.labels
        return self.predicted if labels is None else np.where(labels >= 0, labels, self.predicted)

    @cached_property
    def blocks(self) -> NDArray[np.int64] | None:
        """(images,) spatial blocks."""
        return self.images.blocks

    def blocks_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Blocks of some images, or None where there is only one (independent rows are then assumed)."""
        if self.blocks is None:
            return None
        part = self.blocks[indices]
        return part if len(np.unique(part)) > 1 else None

    def batches(self, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The indices in batches."""
        return [indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size)]

    def answer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, classes) logits of (B, C, H, W) pixels."""
        import torch

        logits = self.network(torch.from_numpy(np.ascontiguousarray(pixels)))
        if logits.ndim == 4:
            logits = logits.mean(dim=(2, 3))
        return np.asarray(logits.float().numpy(), dtype=np.float32)

    def painted(self, name: str, strength: float) -> NDArray[np.float32]:
        """(evaluated, classes) logits of the evaluated images with an artefact painted on them; computed once."""
        key = (name, strength)
        if key not in self._painted:
            parts = []
            for rows in self.batches(self.evaluated):
                parts.append(self.answer(self.painted_pixels(name, strength, rows)))
            self._painted[key] = np.concatenate(parts)
        return self._painted[key]

    def painted_pixels(self, name: str, strength: float, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The pixels that :meth:`painted` answers about."""
        seeds = [self.seed * 1_000_003 + int(i) for i in rows]
        return paint(name, self.images.pixels(rows.tolist()), self.images.channels, strength, seeds)
