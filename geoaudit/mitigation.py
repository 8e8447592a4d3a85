"""Taking a shortcut out of a network, and measuring honestly what that did (method section 4, grade 4: re-test).

Two repairs, both exact and both in the last linear layer only: *prune* holds the finding's units at their means over
the images that explain, *retrain-head* fits the head anew on images with and without the artefact painted on all
classes alike. Everything is measured on images held out from the fit, in blocks of their own; the repaired weights are
written beside a new card and loaded again before anything is reported. The user's file is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnd_core.ablation import matched_random_sets, unit_statistics
from dnd_core.errors import ConfigError
from dnd_core.probing import activate
from geoaudit.checks.base import AuditContext
from geoaudit.checks.concept_reliance import paintable
from geoaudit.heads import LinearHead, find_head, train_head
from geoaudit.perturb import Perturbation
from geoaudit.statistics import Estimate, block_bootstrap, bootstrap_interval

__all__ = ["Line", "Mitigation", "Repair", "repair"]

By = Literal["prune", "retrain-head"]
RANDOM_SETS = 20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """One measure before and after.

    Attributes:
        name: ``reliance``, ``accuracy``, ``accuracy of CLASS``, ``worst group``, ``accuracy with ARTEFACT``.
        n: images behind it.
        before, after: with 95 % block-bootstrap intervals.
        change: after less before, paired.
        random: mean and 95 % range over matched random prunings, or None where there are no units to match.
    """

    name: str
    n: int
    before: Estimate
    after: Estimate
    change: Estimate
    random: Estimate | None

    def figures(self) -> tuple[str, ...]:
        """Before, after, change and random pruning as text; shares without a sign, changes with one."""
        sign = "+" if self.name.startswith("reliance") else ""
        return _said(self.before, sign), _said(self.after, sign), _said(self.change, "+"), _said(self.random, sign)


@dataclass(frozen=True, eq=False)
class Repair:
    """A new head for the network.

    Attributes:
        head: the new weights.
        layer: whose units it reads.
        pruned: units of that layer held at their means.
        left: units of the finding in other layers, which were not touched.
        words: what was done, in one sentence.
    """

    head: LinearHead
    layer: str
    pruned: tuple[int, ...]
    left: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Mitigation:
    """What a repair did, as it stands in ``mitigation.json``."""

    finding: str
    title: str
    by: By
    words: str
    class_name: str
    artefact: str
    lines: tuple[Line, ...]
    limitations: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; figures to six digits, NaN as null."""
        return dict(_plain(asdict(self)))

    def table(self) -> str:
        """The measures as text, one a line."""
        rows: list[tuple[str, ...]] = [("measure", "n", "before", "after", "change", "random pruning")]
        for line in self.lines:
            rows.append((line.name, str(line.n), *line.figures()))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _said(estimate: Estimate | None, sign: str) -> str:
    if estimate is None:
        return "-"
    value, low, high = (format(number, f"{sign}.3f") for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value


@dataclass(frozen=True, eq=False)
class _Features:
    """Pooled units of the head's layer: as the images are, and by strength of the artefact."""

    plain: Floats
    painted: Mapping[float, Floats]


def _features(context: AuditContext, layer: str, artefact: str, strengths: Sequence[float]) -> _Features:
    infos = [info for info in context.layers if info.name == layer]
    rows = np.arange(len(context.images))
    painted: dict[float, Floats] = {}
    for number, strength in enumerate(strengths):
        images = context.painted_images(artefact, strength)
        parts = []
        for batch in context.batches(rows):
            found = activate(context.network, infos, images.pixels(batch.tolist()), context.pooling, context.batch_size)
            parts.append(found[layer])
        painted[strength] = np.concatenate(parts).astype(np.float64)
        context.report("painted features", number + 1, len(strengths))
    return _Features(np.asarray(context.activations[layer], dtype=np.float64), painted)


def _head_of(context: AuditContext) -> tuple[str, LinearHead]:
    """The described layer that a linear head reads, and the head.

    Raises:
        ConfigError: there is none; neither repair would be exact.
    """
    if context.pooling == "mean":
        for info in reversed(context.layers):
            if info.name != "output":
                head = find_head(context.network.module, context.activations[info.name], context.logits)
                if head is not None:
                    return info.name, head
    raise ConfigError(
        f"{context.network.name} has no linear layer that turns the means of a described layer into its logits, and only "
        "such a network can be repaired exactly: describe the last layer before the head with mean pooling, or retrain "
        "the network with the artefact painted on all classes alike"
    )


def repair(context: AuditContext, finding: Mapping[str, Any], by: By) -> tuple[Repair, Mitigation]:
    """Make a repaired head and measure it on the held-out images.

    Args:
        context: the audit, with the images held out in blocks of their own.
        finding: as it stands in ``audit.json``.
        by: ``prune`` or ``retrain-head``.

    Raises:
        ConfigError: the images have no labels, none or all are held out, the network has no linear head, the finding
            names no unit of its layer (prune), or nothing that can be painted (retrain-head).
    """
    held = np.zeros(len(context.images), dtype=bool)
    held[context.held_out] = True
    labels = context.images.labels
    known = np.zeros(len(held), dtype=bool) if labels is None else labels >= 0
    if not (held & known).any() or not (~held & known).any():
        raise ConfigError(
            "a repair is measured on labelled images held out from it: give labels, and a held-out share above 0"
        )
    layer, head = _head_of(context)
    artefact = paintable(str(finding["concept"]), context)
    pruned = tuple(sorted(_units_in(layer, finding["units"])))
    left = tuple(str(unit) for unit in finding["units"] if str(unit).rpartition("/")[0] != layer)
    strengths = artefact.strengths if artefact is not None else ()
    if by == "prune" and not pruned:
        raise ConfigError(
            f"finding {finding['id']} names no unit of {layer}, the layer that the linear head reads, so nothing can be "
            "pruned exactly: use --by retrain-head"
        )
    if by == "retrain-head" and artefact is None:
        raise ConfigError(
            f"'{finding['concept']}' cannot be painted onto images, so a head cannot be trained against it: "
            "use --by prune"
        )
    middle = strengths[len(strengths) // 2] if strengths else None
    if by == "prune":
        strengths = () if middle is None else (middle,)
    features = _features(context, layer, artefact.name if artefact is not None else "", strengths)
    fit = np.flatnonzero(~held & known)
    statistics = unit_statistics(context.activations[layer], fit)
    if by == "prune":
        made = head.pruned(pruned, statistics.means)
        words = f"{len(pruned)} of {len(statistics.means)} units of {layer} held at their means in {head.name}"
        done = Repair(made, layer, pruned, left, words)
    else:
        copies = [features.plain[fit], *(painted[fit] for painted in features.painted.values())]
        blocks = fit if context.blocks is None else context.blocks[fit]
        made, penalty = train_head(
            head.name,
            np.concatenate(copies),
            np.tile(context.reference[fit], len(copies)),
            len(head.bias),
            np.tile(blocks, len(copies)),
            context.seed,
        )
        label = artefact.label if artefact is not None else ""
        words = (
            f"{head.name} trained anew on {len(fit)} images as they are and with {label} of strength "
            f"{', '.join(f'{s:g}' for s in strengths)} painted on all classes alike (logistic regression, C {penalty:g} by "
            "blocked cross-validation)"
        )
        done = Repair(made, layer, (), left, words)
    chance = []
    if pruned and 2 * len(pruned) <= len(statistics.means):
        sets = matched_random_sets({layer: pruned}, {layer: statistics.norms}, RANDOM_SETS, seed=context.seed)
        chance = [head.pruned(drawn[layer], statistics.means) for drawn in sets]
    rows = np.flatnonzero(held & known)
    after = None if middle is None else features.painted[middle][rows]
    target = context.class_names.index(str(finding["class_pair"][0]))
    lines = _measure(context, rows, features.plain[rows], after, artefact, target, head, made, chance)
    report = Mitigation(
        str(finding["id"]),
        str(finding["title"]),
        by,
        done.words,
        context.class_names[target],
        "" if artefact is None else f"{artefact.label} of strength {middle:g}",
        lines,
        _limitations(artefact, left, chance),
    )
    return done, report


def _units_in(layer: str, units: Sequence[Any]) -> list[int]:
    named = (str(unit).rpartition("/") for unit in units)
    return [int(index) for name, _, index in named if name == layer]


def _limitations(artefact: Perturbation | None, left: Sequence[str], chance: Sequence[LinearHead]) -> tuple[str, ...]:
    said = ["Held-out images share no block with those the repair was fitted on; the network itself may know them."]
    if artefact is None:
        said.append("The concept cannot be painted, so no reliance was measured.")
    if left:
        said.append(f"{len(left)} units of the finding lie in other layers and were left as they are ({left[0]} ...).")
    if not chance:
        said.append("No matched random units to compare with: the finding names none of this layer, or most of it.")
    return tuple(said)


def _measure(
    context: AuditContext,
    rows: Ints,
    plain: Floats,
    painted: Floats | None,
    artefact: Perturbation | None,
    target: int,
    before: LinearHead,
    after: LinearHead,
    chance: Sequence[LinearHead],
) -> tuple[Line, ...]:
    """Every measure for the old head, the new one and the matched random ones, with whole blocks resampled together."""
    truth = context.reference[rows]
    blocks = context.blocks_of(rows)
    count = len(rows) if blocks is None else len(np.unique(blocks))

    def columns(head: LinearHead) -> Floats:
        """(n, 4): class, right as it is, right when painted, and change into the target class."""
        first = head(plain).argmax(axis=1)
        second = first if painted is None else head(painted).argmax(axis=1)
        moved = (second == target).astype(float) - (first == target)
        return np.column_stack([truth, first == truth, second == truth, moved])

    tables = [columns(head) for head in (before, after, *chance)]
    measures: list[tuple[str, int, Callable[[Floats], float]]] = []
    if painted is not None and artefact is not None:
        measures.append((f"reliance of {context.class_names[target]}", int((truth != target).sum()), _reliance(target)))
    measures.append(("accuracy", len(rows), lambda part: float(part[:, 1].mean())))
    if painted is not None and artefact is not None:
        measures.append((f"accuracy with {artefact.label}", len(rows), lambda part: float(part[:, 2].mean())))
    for number, name in enumerate(context.class_names):
        if (truth == number).any():
            measures.append((f"accuracy of {name}", int((truth == number).sum()), _of_class(number)))
    groups = [int(number) for number in np.unique(truth)]
    measures.append(("worst group", len(rows), _worst(groups, painted is not None)))

    both = np.column_stack([tables[0], tables[1]])
    lines = []
    for name, n, measure in measures:

        def pair(part: Floats, measure: Callable[[Floats], float] = measure) -> Floats:
            first, second = measure(part[:, :4]), measure(part[:, 4:])
            return np.array([first, second, second - first])

        value, draws = pair(both), block_bootstrap(both, blocks, pair, n=context.draws, seed=context.seed)
        # A resample may hold no image of a small class; it says nothing about that class.
        draws = draws[np.isfinite(draws).all(axis=1)]
        low, high = bootstrap_interval(draws, 0.95, count) if len(draws) > 1 else (np.full(3, np.nan),) * 2
        estimates = [Estimate(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]
        lines.append(Line(name, n, estimates[0], estimates[1], estimates[2], _range([measure(t) for t in tables[2:]])))
    return tuple(lines)


def _range(values: Sequence[float]) -> Estimate | None:
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high))


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _reliance(target: int) -> Callable[[Floats], float]:
    return lambda part: _mean(part[part[:, 0] != target, 3])


def _of_class(number: int) -> Callable[[Floats], float]:
    return lambda part: _mean(part[part[:, 0] == number, 1])


def _worst(classes: Sequence[int], painted: bool) -> Callable[[Floats], float]:
    """Accuracy of the worst class, as it is or with the artefact; classes without images are left out."""

    def worst(part: Floats) -> float:
        of_class = [part[part[:, 0] == number] for number in classes]
        shares = [mine[:, column].mean() for mine in of_class if len(mine) for column in ((1, 2) if painted else (1,))]
        return float(min(shares))

    return worst
