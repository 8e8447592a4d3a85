"""What Study A looks at: a Tile2Vec network, tiles to describe it on, and labelled tiles of other places to classify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.backends.assembly import assemble
from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, ProbeError
from dnd_core.images import ImageSet, Subset
from dnd_core.networks import Network
from dnd_core.pipeline import Backends
from geoaudit.settings import BACKENDS, AuditConfig, AuditSettings
from geoaudit.studies.tilenet import BANDS, LAYERS, load_tilenet

__all__ = ["Embedder", "bundled_embedder", "configured_embedder", "embedder_of"]

WEIGHTS = "models/tile2vec.safetensors"
DESCRIBED = 0.5
"""Share of the tiles' blocks that units are described on; the forest works on the others, so that no tile decides both which
units are pruned and what that costs."""

LEAST_TILES = 50


@dataclass(frozen=True, eq=False)
class Embedder:
    """An embedding network with tiles.

    Attributes:
        network: answers (B, D) embeddings.
        layers: stages to describe and prune.
        probe: labelled tiles to describe units on.
        held_out: which of them are kept to verify labels on.
        tiles: labelled tiles for the classifier, in blocks of their own.
        backends: of the description.
        name: shown to people.
    """

    network: Network
    layers: tuple[str, ...]
    probe: ImageSet
    held_out: NDArray[np.int64]
    tiles: ImageSet
    backends: Backends
    name: str


def bundled_embedder(settings: DescribeConfig, weights: Path | None = None) -> Embedder:
    """The network trained on the bundled scenes without labels, on the bundled labelled tiles.

    Args:
        settings: of the description.
        weights: other Tile2Vec weights for the same four bands.
    """
    from geoaudit import bundled
    from geoaudit.probes import SceneProbe

    table = bundled.chip_table()
    images = SceneProbe(bundled.scenes()["brandenburg"], chips=table.chips, bands=BANDS)
    path = weights if weights is not None else bundled.data_path(WEIGHTS)
    size = (table.chips.size, table.chips.size)
    network = load_tilenet(path, size=size, channels=images.channels)
    return embedder_of(network, LAYERS, images, settings, dict(BACKENDS))


def configured_embedder(config: AuditConfig) -> Embedder:
    """Weights and labelled tiles of the user's, as an audit's YAML file names them.

    ``model.checkpoint`` is the state dict; ``model.options`` may hold ``bands``, ``mean`` and ``std``; a ``card`` and a
    ``pool`` have no place here.

    Raises:
        DndError: the weights are no Tile2Vec network, or the tiles have no labels or not its bands.
    """
    from dnd_core.registry import build

    unused = [f"model.{name}" for name in config.model if name not in ("checkpoint", "options")]
    unused += ["pool"] if config.pool is not None else []
    if unused:
        raise ConfigError(
            f"the Tile2Vec study takes no {unused[0]}: leave it out (bands, mean, std go to model.options)"
        )
    options = dict(config.model.get("options") or {})
    if set(options) - {"bands", "mean", "std"}:
        raise ConfigError(f"model.options of the Tile2Vec study are bands, mean and std, got {sorted(options)}")
    images = build(config.probe)
    if not isinstance(images, ImageSet):
        raise ConfigError(f"probe: {config.probe.get('class_path')} is no image set; see geoaudit.probes")
    network = load_tilenet(
        config.model["checkpoint"], size=(images.shape[1], images.shape[2]), channels=images.channels, **options
    )
    return embedder_of(network, config.layers, images, config.settings, config.backends)


def embedder_of(
    network: Network, layers: tuple[str, ...], images: ImageSet, settings: DescribeConfig, backends: dict[str, Any]
) -> Embedder:
    """Divide labelled tiles, whole blocks at a time, into those that describe and those to classify.

    Raises:
        ProbeError: no labels, fewer than two classes, or too few tiles or blocks.
    """
    from geoaudit.audit import split_subject
    from geoaudit.probes.splitting import split

    if images.labels is None or len(np.unique(images.labels[images.labels >= 0])) < 2:
        raise ProbeError("the study classifies tiles by their embedding: give tiles with labels of two classes or more")
    known = Subset(images, np.flatnonzero(images.labels >= 0).tolist())
    parts = split(known, {"explain": DESCRIBED, "pool": 0.0, "holdout": 1 - DESCRIBED}, seed=settings.seed)
    if min(len(parts.explain), len(parts.holdout)) < LEAST_TILES:
        raise ProbeError(
            f"{len(known)} labelled tiles leave {len(parts.explain)} to describe units on and {len(parts.holdout)} to "
            f"classify; at least {LEAST_TILES} of each are needed: give more tiles, in more blocks"
        )
    described = Subset(known, parts.explain.tolist())
    probe, pool, held_out = split_subject(described, settings, AuditSettings())
    made = assemble(backends, pool=pool, probe=probe, size=network.input_shape[1:])
    tiles = Subset(known, parts.holdout.tolist())
    return Embedder(network, tuple(layers), probe, held_out, tiles, made, network.name)
