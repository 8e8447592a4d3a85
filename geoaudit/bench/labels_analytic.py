"""Labels against known truth: analytic Earth-observation units inside a real network on real tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import SanityResult, plant, sanity_tests
from dnd_core.probing import activate
from dnd_core.scoring import pearson
from dnd_core.testing.concepts import Concept
from dnd_core.types import UnitId
from geoaudit.bench.labels_methods import Case, Labels
from geoaudit.bench.labels_tiles import INDEX_MASKS, index_masks, painted_tiles, parts
from geoaudit.bench.labels_units import KINDS, EarthUnit, EarthUnits, earth_units, extension, told
from geoaudit.bench.labels_words import read

__all__ = ["LAYER", "SAME", "Recovery", "analytic_case", "judge_units", "rates", "sanity_of"]

SAME = 0.95
"""Correlation from which a label is another wording of the truth: "stripes without horizontal" of vertical stripes."""

_THERE = 0.05

LAYER, REAL = "layer2", 48
"""Where the units are planted in the bundled classifier: a layer of 48 real units with maps of 8 x 8."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What one method made of one unit.

    Attributes:
        method: key of the method.
        unit: which unit.
        kind: what kind it is.
        truth: what it computes, in words; empty for dead and random units.
        said: the labels, joined; empty where nothing was said.
        exact: the labels say the truth in words, no less and no more; for dead and random units, nothing was said.
        agreement: correlation over the evaluation's tiles between what the unit computes and what the labels say, both
            measured; NaN where the labels speak of things that no unit measures.
    """

    method: str
    unit: UnitId
    kind: str
    truth: str
    said: str
    exact: bool
    agreement: float

    @property
    def right(self) -> bool:
        """The labels say the truth in words, or something that is true of the same tiles (agreement of 0.95 or more)."""
        return self.exact or self.agreement >= SAME


def analytic_case(scene: str, seed: int, tiles: int = 0) -> tuple[Case, tuple[EarthUnit, ...]]:
    """The bundled clean classifier with analytic units in its second stage, on painted tiles of a bundled scene.

    Args:
        scene: a bundled Sentinel-2 scene.
        seed: decides thresholds, artefacts, splits and draws.
        tiles: at most so many tiles, drawn at random; all when 0.

    Returns:
        The case, and what each planted unit computes; planted unit ``i`` is unit ``48 + i`` of the case's layer.
    """
    from geoaudit import bundled
    from geoaudit.networks import load_network
    from geoaudit.probes import SceneProbe

    chosen = bundled.checkpoints()["clean"]
    network = load_network(chosen.checkpoint, chosen.load_card())
    probe = SceneProbe(bundled.scenes()[scene], chip_size=32, stride=16, block=96)
    if 0 < tiles < len(probe):
        rows = np.random.default_rng([seed, 34]).permutation(len(probe))[:tiles]
        probe = SceneProbe(probe.scene, chips=probe.chips.subset(np.sort(rows)))
    images = painted_tiles(probe, seed)
    units = earth_units(seed)
    planted, layer = plant(network, LAYER, REAL, EarthUnits(units, images.channels, seed), fingerprint=told(units))
    split = parts(images, seed)
    masks = index_masks(images.pixels(split.probed.tolist()), images.channels)
    return (
        Case(
            name=f"analytic-{scene}-{seed}",
            network=planted,
            layers=(layer,),
            probe=split.probe,
            held_out=split.held_out,
            pool=split.pool,
            evaluation=split.evaluation,
            masks=masks,
            known=np.ones_like(masks),
            mask_names=INDEX_MASKS,
            seed=seed,
            units=tuple(UnitId(layer, REAL + number) for number in range(len(units))),
        ),
        units,
    )


def judge_units(case: Case, labels: Labels, units: tuple[EarthUnit, ...]) -> list[Recovery]:
    """Whether each method's labels say what each planted unit computes."""
    pixels = case.evaluation.pixels(range(len(case.evaluation)))
    measured: dict[Concept, NDArray[np.float64] | None] = {}

    def true_of(concept: Concept) -> NDArray[np.float64] | None:
        if concept not in measured:
            measured[concept] = extension(concept, pixels, case.evaluation.channels)
        return measured[concept]

    found = []
    for method, said in labels.said.items():
        for unit, truth, words in zip(labels.units, units, said, strict=True):
            statement = read(" or ".join(word for word in words if word.strip()))
            agreement = float("nan")
            if truth.concept is not None and statement.alternatives:
                ours, theirs = true_of(truth.concept), true_of(statement)
                if ours is not None and theirs is not None:
                    agreement = float(pearson(ours, theirs))
            exact = statement == truth.concept if truth.concept is not None else not any(words)
            found.append(
                Recovery(method, unit, truth.kind, str(truth.concept or ""), "; ".join(words), exact, agreement)
            )
    return found


def sanity_of(case: Case, labels: Labels, units: tuple[EarthUnit, ...]) -> tuple[SanityResult, ...]:
    """The sanity tests of every measure on units whose concept is known: tiles a twentieth of which show it have it."""
    tiles = case.evaluation
    pixels = tiles.pixels(range(len(tiles)))
    (info,) = labels.run.layers
    fired = activate(case.network, [info], pixels)[info.name]
    columns, truths = [], []
    for unit, known in zip(labels.units, units, strict=True):
        there = extension(known.concept, pixels, tiles.channels) if known.concept is not None else None
        if there is not None:
            columns.append(fired[:, unit.index])
            truths.append(there > _THERE)
    return tuple(sanity_tests(np.stack(columns, axis=1), np.stack(truths, axis=1), seed=case.seed))


def rates(found: list[Recovery]) -> dict[str, float]:
    """Share of units recovered of each kind, and of dead and random units that were given a label.

    Returns:
        Kind -> share; ``false_label_rate`` over dead and random units.
    """
    by_kind = {kind: [row.right for row in found if row.kind == kind] for kind in KINDS}
    answer = {
        kind: float(np.mean(rights)) for kind, rights in by_kind.items() if rights and kind not in ("dead", "random")
    }
    idle = [not right for kind in ("dead", "random") for right in by_kind[kind]]
    return answer | {"false_label_rate": float(np.mean(idle)) if idle else 0.0}
