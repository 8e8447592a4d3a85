"""From rows to figures: pools of negatives, pooled and per-family tables, comparators on the same networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoaudit.bench.shortcuts.comparators import COMPARATORS
from geoaudit.bench.shortcuts.metrics import Figure, auroc, hit, interval, reciprocal_rank, tpr_at_far
from geoaudit.bench.shortcuts.plants import FAMILIES
from geoaudit.rates import exact_upper_bound

__all__ = ["GATE", "Method", "Summary", "summarise"]

Row = Mapping[str, Any]
GATE = 2.0
"""Run score from which the gate fails: a finding of at least ``major``."""

POOLS = ("clean", "planted, not learned", "balanced decoy", "shuffled unit labels")


@dataclass(frozen=True, slots=True)
class Method:
    """How one method ranks the networks and names the plant, each with its interval over networks."""

    auroc: Figure
    tpr_at_far5: Figure
    hit1: Figure
    hit3: Figure
    mrr: Figure


@dataclass(frozen=True, slots=True)
class FamilyFigures:
    """One family's positives: how many were planted and learned, and what the auditor said of them.

    ``gained``, ``random_gained`` and ``lost`` are the repair's figures in shares, ``repaired`` the networks behind them.
    """

    name: str
    planted: int
    learned: int
    auroc: Figure
    tripped: Figure
    hit1: float
    hit3: float
    mrr: float
    precision: float
    repaired: int
    gained: float
    random_gained: float
    lost: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything the bench's tables hold.

    Attributes:
        networks, seeds: how many were made.
        positives: networks that learned their plant.
        pools: (negatives, false alarms at the gate) of each pool.
        leaning: networks of no plant that lean on some family all the same, and how many of them are warned of. They are
            neither positives nor negatives: a warning about them is true, but it was not planted.
        far, far_upper: false-alarm rate at the gate over all negatives, and its 95 % upper bound.
        tripped: share of the positives at which the gate fails.
        ours: the auditor; ``named`` counts the class too.
        class_hit3: share of positives whose first three findings name plant and class.
        p10: precision of example images.
        comparators: by name. They know no shuffled unit labels, so their negatives are the other three pools.
        families: by family.
        gained, random_gained, lost: repair over all families.
    """

    networks: int
    seeds: int
    positives: int
    pools: Mapping[str, tuple[int, int]]
    leaning: tuple[int, int]
    far: float
    far_upper: float
    tripped: Figure
    ours: Method
    class_hit3: Figure
    p10: Figure
    comparators: Mapping[str, Method]
    families: tuple[FamilyFigures, ...]
    gained: Figure
    random_gained: Figure
    lost: Figure

    @property
    def negatives(self) -> int:
        """Networks, or relabelled networks, that nothing should be said about."""
        return sum(count for count, _ in self.pools.values())

    def to_dict(self) -> dict[str, Any]:
        """The figures as the command's last line has them."""
        return {
            "auroc": _round(self.ours.auroc.value),
            "tpr_at_far5": _round(self.ours.tpr_at_far5.value),
            "far": _round(self.far),
            "n_negatives": self.negatives,
            "hit1": _round(self.ours.hit1.value),
            "hit3": _round(self.ours.hit3.value),
            "mrr": _round(self.ours.mrr.value),
            "p10": _round(self.p10.value),
            "comparators": {
                name: {
                    key: _round(getattr(method, key).value) for key in ("auroc", "tpr_at_far5", "hit1", "hit3", "mrr")
                }
                for name, method in self.comparators.items()
            },
        }


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _known(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _mean(values: np.ndarray[Any, Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def negatives(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Run scores of each pool: networks that lean on nothing, and concept findings under shuffled unit labels."""
    found: dict[str, list[float]] = {pool: [] for pool in POOLS}
    for row in rows:
        if row["pool"] == "planted" and row["learned"]:
            found["shuffled unit labels"].append(row["shuffled"])
        elif row["quiet"]:
            pool = {"clean": "clean", "decoy": "balanced decoy"}.get(row["pool"], "planted, not learned")
            found[pool].append(row["score"])
    return found


def summarise(rows: Sequence[Row]) -> Summary:
    """Figures of the rows of :func:`geoaudit.bench.shortcuts.running.run_bench`."""
    positive = [row for row in rows if row["pool"] == "planted" and row["learned"]]
    pools = negatives(rows)
    everything = [score for scores in pools.values() for score in scores]
    quiet = [row for row in rows if row["quiet"] and not (row["pool"] == "planted" and row["learned"])]
    leaning = [row for row in rows if not row["quiet"] and not (row["pool"] == "planted" and row["learned"])]
    alarms = sum(score >= GATE for score in everything)
    comparators = {
        name: _method(
            [row[f"{name} score"] for row in positive],
            [row[f"{name} score"] for row in quiet],
            [row[f"{name} rank"] for row in positive],
        )
        for name in COMPARATORS
    }
    mended = [row["repair"] for row in positive if row.get("repair")]
    precisions = [row["precision"] for row in positive if row["rank"] and _known(row["precision"])]
    return Summary(
        networks=len(rows),
        seeds=len({row["seed"] for row in rows if row["pool"] == "planted"}),
        positives=len(positive),
        pools={pool: (len(scores), sum(score >= GATE for score in scores)) for pool, scores in pools.items()},
        leaning=(len(leaning), sum(row["tripped"] for row in leaning)),
        far=alarms / len(everything) if everything else float("nan"),
        far_upper=exact_upper_bound(alarms, len(everything)) if everything else 1.0,
        tripped=interval(_mean, [row["score"] >= GATE for row in positive]),
        ours=_method([row["score"] for row in positive], everything, [row["rank"] for row in positive]),
        class_hit3=interval(lambda ranks: hit(ranks, 3), [row["class_rank"] for row in positive]),
        p10=interval(_mean, precisions),
        comparators=comparators,
        families=tuple(_family(name, rows, everything) for name in FAMILIES),
        gained=interval(_mean, [one["gain"] for one in mended]),
        random_gained=interval(_mean, [one["random_gain"] for one in mended]),
        lost=interval(_mean, [one["lost"] for one in mended]),
    )


def _method(positive: Sequence[float], negative: Sequence[float], ranks: Sequence[int]) -> Method:
    return Method(
        interval(auroc, positive, negative),
        interval(tpr_at_far, positive, negative),
        interval(lambda found: hit(found, 1), ranks),
        interval(lambda found: hit(found, 3), ranks),
        interval(reciprocal_rank, ranks),
    )


def _family(name: str, rows: Sequence[Row], negative: Sequence[float]) -> FamilyFigures:
    planted = [row for row in rows if row["pool"] == "planted" and row["family"] == name]
    learned = [row for row in planted if row["learned"]]
    ranks = [row["rank"] for row in learned]
    mended = [row["repair"] for row in learned if row.get("repair")]
    shown = np.array([row["precision"] for row in learned if row["rank"] and _known(row["precision"])])
    return FamilyFigures(
        name,
        len(planted),
        len(learned),
        interval(auroc, [row["score"] for row in learned], negative),
        interval(_mean, [row["score"] >= GATE for row in learned]),
        hit(ranks, 1),
        hit(ranks, 3),
        reciprocal_rank(ranks),
        _mean(shown),
        len(mended),
        _mean(np.array([one["gain"] for one in mended])),
        _mean(np.array([one["random_gain"] for one in mended])),
        _mean(np.array([one["lost"] for one in mended])),
    )
