"""What the checks may ask of an audit, put together from the files of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.captioning import WHOLE, Progress
from dnd_core.config import DescribeConfig
from dnd_core.layers import LayerInfo
from dnd_core.pipeline import Backends
from geoaudit.checks.base import AuditContext, choose_evaluated
from geoaudit.settings import AuditSettings

if TYPE_CHECKING:
    from geoaudit.audit import Subject

__all__ = ["read_context"]


def read_context(
    root: Path,
    subject: Subject,
    layers: tuple[LayerInfo, ...],
    activations: Mapping[str, NDArray[np.float32]],
    logits: NDArray[np.float32],
    backends: Backends,
    settings: DescribeConfig,
    options: AuditSettings,
    progress: Progress | None,
) -> AuditContext:
    """The context of an audit whose description is finished.

    Args:
        root: the run folder; its tables of neurons, groups and captions are read where they are there.
        subject: what is audited.
        layers: those described.
        activations: layer name to (images, units).
        logits: (images, classes).
        backends: of the description.
        settings: of the description.
        options: of the audit.
        progress: called with (stage, done, total).
    """
    captions = _table(root, "captions")
    said = {}
    if len(captions):
        whole = captions[captions["left"] == WHOLE[0]]
        said = dict(zip(whole["image"].tolist(), whole["caption"].tolist(), strict=True))
    labels = subject.probe.labels
    predicted = logits.argmax(axis=1)
    reference = predicted if labels is None else np.where(labels >= 0, labels, predicted)
    return AuditContext(
        network=subject.network,
        images=subject.probe,
        layers=layers,
        neurons=_table(root, "neurons"),
        groups=_table(root, "groups"),
        activations=activations,
        logits=logits,
        encoder=backends.text_encoder,
        definitions=dict(subject.definitions or {}),
        evaluated=choose_evaluated(reference, options.evaluated, settings.seed),
        captions=[str(said.get(index, "")) for index in range(len(subject.probe))] if said else None,
        held_out=subject.held_out,
        seed=settings.seed,
        draws=options.draws,
        pooling=settings.probing.pooling,
        batch_size=max(settings.probing.batch_size, 128),
        card=dict(subject.card or {}),
        report=progress or (lambda stage, done, total: None),
    )


def _table(root: Path, name: str) -> pd.DataFrame:
    path = root / f"{name}.parquet"
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame()
