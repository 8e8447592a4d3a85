"""Taking a shortcut out of a network, and measuring honestly what that did (method section 4, grade 4: re-test).

Two repairs, both exact and both in the last linear layer only: *prune* holds the finding's units at their means over
the images that explain and do not show the concept; *retrain-head* fits the head anew, on images with and without the
artefact painted on all classes alike, or, where the concept cannot be painted, on images weighed so that every class
shows it as often as not (last layer re-training on balanced groups, Kirichenko et al. 2023). Everything is measured on
images held out from the fit, in blocks of their own; the repaired weights are written beside a new card and loaded again
before anything is reported. The user's file is only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnd_core.ablation import matched_random_sets, unit_statistics
from dnd_core.errors import ConfigError
from dnd_core.probing import activate
from geoaudit.checks.base import AuditContext
from geoaudit.checks.causal import FEWEST, usual_strength
from geoaudit.checks.grouped import paintable
from geoaudit.checks.pairing import FEWEST_PAIRS, Pairs, retrieve_pairs
from geoaudit.findings import BRUSH, PAIRS
from geoaudit.heads import LinearHead, find_head, train_head
from geoaudit.outcomes import Answers, Line, outcomes
from geoaudit.perturb import Perturbation

__all__ = [
    "Line",
    "Mitigation",
    "Repair",
    "head_of",
    "held_out_pairs",
    "measured_rows",
    "painted_artefact",
    "repair",
    "resting_rows",
]

By = Literal["prune", "retrain-head"]
RANDOM_SETS = 20
# Fewer images of a class with or without the concept cannot carry half of its weight.
LEAST_CELL = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    reaudit: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; figures to six digits, NaN as null."""
        return dict(_plain(asdict(self)))

    def became(self) -> tuple[str, ...]:
        """What the audit of the repaired network says of the finding, in one sentence; empty without one."""
        if not self.reaudit:
            return ()
        before, after = self.reaudit["before"], self.reaudit["after"]

        def said(part: Mapping[str, Any]) -> str:
            value = "not measured" if part["reliance"] is None else f"{part['reliance']:+.2f}"
            others = ", ".join(f"{count} {name}" for name, count in part["counts"].items() if count) or "none"
            return f"{part['severity']}, reliance {value} (findings in all: {others})"

        return (f"Audited again: {said(before)} before; {said(after)} after.",)

    def table(self) -> str:
        """The measures as text, one a line."""
        rows: list[tuple[str, ...]] = [("measure", "n", "before", "after", "change", "random pruning")]
        for line in self.lines:
            rows.append((line.name, str(line.n), *line.figures()))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


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


def head_of(context: AuditContext) -> tuple[str, LinearHead] | None:
    """The described layer that a linear head reads, and the head; None where there is none."""
    if context.pooling == "mean":
        for info in reversed(context.layers):
            if info.name != "output":
                head = find_head(context.network.module, context.activations[info.name], context.logits)
                if head is not None:
                    return info.name, head
    return None


def measured_rows(context: AuditContext) -> tuple[Ints, Ints]:
    """Labelled images to fit on, and labelled images held out to measure on; no block is in both.

    Raises:
        ConfigError: the images have no labels, or none or all are held out.
    """
    held = np.zeros(len(context.images), dtype=bool)
    held[context.held_out] = True
    labels = context.images.labels
    known = np.zeros(len(held), dtype=bool) if labels is None else labels >= 0
    if not (held & known).any() or not (~held & known).any():
        raise ConfigError(
            "a repair is measured on labelled images held out from it: give labels, and a held-out share above 0"
        )
    return np.flatnonzero(~held & known), np.flatnonzero(held & known)


def held_out_pairs(context: AuditContext, concept: str, target: int, rows: Ints) -> Pairs | None:
    """Matched pairs among the held-out images, or None where too few tell anything about class c."""
    pairs = retrieve_pairs(context, concept, rows)
    if pairs is None or (context.reference[pairs.shown] != target).sum() < FEWEST_PAIRS:
        return None
    return pairs


def painted_artefact(context: AuditContext, concept: str, evidence: Sequence[str]) -> Perturbation | None:
    """What paints a finding's concept, or None where the finding itself rests on pairs of real images.

    Args:
        context: the audit.
        concept: in words.
        evidence: names of the finding's evidence that holds.
    """
    real = PAIRS in evidence and BRUSH not in evidence
    return None if real else paintable(concept, context)


def resting_rows(context: AuditContext, concept: str, fit: Ints) -> Ints:
    """Images over which held units take their means: those whose captions do not speak of the concept, else all of ``fit``.

    Where a third of the images show it, the mean over all of them is a third of the concept, and holding units there
    leaves it in.
    """
    said = context.shows(concept)
    if said is None or context.captions is None:
        return fit
    rows = fit[np.array([bool(context.captions[int(row)]) for row in fit]) & ~said[fit]]
    return rows if len(rows) >= FEWEST else fit


def repair(context: AuditContext, finding: Mapping[str, Any], by: By) -> tuple[Repair, Mitigation]:
    """Make a repaired head and measure it on the held-out images.

    Args:
        context: the audit, with the images held out in blocks of their own.
        finding: as it stands in ``audit.json``.
        by: ``prune`` or ``retrain-head``.

    Raises:
        ConfigError: the images have no labels, none or all are held out, the network has no linear head, the finding
            names no unit of its layer (prune), or nothing that can be painted or is seen in every class (retrain-head).
    """
    fit, rows = measured_rows(context)
    found = head_of(context)
    if found is None:
        raise ConfigError(
            f"{context.network.name} has no linear layer that turns the means of a described layer into its logits, and only "
            "such a network can be repaired exactly: describe the last layer before the head with mean pooling, or retrain "
            "the network with the artefact painted on all classes alike"
        )
    layer, head = found
    concept, target = str(finding["concept"]), context.class_names.index(str(finding["class_pair"][0]))
    names = [str(step.get("name", "")) for step in finding.get("evidence", ()) if step.get("holds", True)]
    artefact = painted_artefact(context, concept, names)
    pairs = held_out_pairs(context, concept, target, rows) if artefact is None else None
    pruned = tuple(sorted(_units_in(layer, finding["units"])))
    left = tuple(str(unit) for unit in finding["units"] if str(unit).rpartition("/")[0] != layer)
    if by == "prune" and not pruned:
        raise ConfigError(
            f"finding {finding['id']} names no unit of {layer}, the layer that the linear head reads, so nothing can be "
            "pruned exactly: use --by retrain-head"
        )
    strengths = artefact.strengths if artefact is not None else ()
    usual = None if artefact is None else usual_strength(context, artefact)
    if by == "prune":
        strengths = () if usual is None else (usual,)
    features = _features(context, layer, artefact.name if artefact is not None else "", strengths)
    statistics = unit_statistics(context.activations[layer], resting_rows(context, concept, fit))
    if by == "prune":
        made = head.pruned(pruned, statistics.means)
        words = f"{len(pruned)} of {len(statistics.means)} units of {layer} held at their means in {head.name}"
        done = Repair(made, layer, pruned, left, words)
    elif artefact is not None:
        done = _painted_anew(context, head, layer, features, fit, artefact, left)
    else:
        done = _balanced_anew(context, head, layer, features, fit, concept, left)
    chance: list[LinearHead] = []
    if pruned and 2 * len(pruned) <= len(statistics.means):
        sets = matched_random_sets({layer: pruned}, {layer: statistics.norms}, RANDOM_SETS, seed=context.seed)
        chance = [head.pruned(drawn[layer], statistics.means) for drawn in sets]
    painted = None if usual is None else features.painted[usual][rows]

    def answers(which: LinearHead) -> Answers:
        return Answers(which(features.plain[rows]), None if painted is None else which(painted))

    label = "" if artefact is None else artefact.label
    lines = outcomes(
        context, rows, target, answers(head), answers(done.head), [answers(one) for one in chance], label, pairs
    )
    report = Mitigation(
        str(finding["id"]),
        str(finding["title"]),
        by,
        done.words,
        context.class_names[target],
        "" if artefact is None else f"{artefact.label} of strength {usual:g}",
        lines,
        _limitations(artefact, pairs, left, chance),
    )
    return done, report


def _painted_anew(
    context: AuditContext,
    head: LinearHead,
    layer: str,
    features: _Features,
    fit: Ints,
    artefact: Perturbation,
    left: tuple[str, ...],
) -> Repair:
    """A head trained on the images as they are and with the artefact in every strength, all classes alike."""
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
    words = (
        f"{head.name} trained anew on {len(fit)} images as they are and with {artefact.label} of strength "
        f"{', '.join(f'{s:g}' for s in features.painted)} painted on all classes alike (logistic regression, C {penalty:g} by "
        "blocked cross-validation)"
    )
    return Repair(made, layer, (), left, words)


def _balanced_anew(
    context: AuditContext,
    head: LinearHead,
    layer: str,
    features: _Features,
    fit: Ints,
    concept: str,
    left: tuple[str, ...],
) -> Repair:
    """A head trained on images weighed so that each class shows the concept in half of its weight.

    Raises:
        ConfigError: no caption tells which images show it, or fewer than two classes have images with and without it.
    """
    said = context.shows(concept)
    known = np.array([bool(caption) for caption in context.captions or ()], dtype=bool)
    rows = fit[known[fit]] if said is not None else fit[:0]
    shown = said[rows] if said is not None else np.zeros(0, dtype=bool)
    truth = context.reference[rows]
    weights, mixed = np.ones(len(rows)), 0
    for kind in np.unique(truth):
        cells = [(truth == kind) & part for part in (shown, ~shown)]
        if min(cell.sum() for cell in cells) >= LEAST_CELL:
            mixed += 1
            for cell in cells:
                weights[cell] = (truth == kind).sum() / (2 * cell.sum())
    if mixed < 2:
        raise ConfigError(
            f"'{concept}' cannot be painted as it really looks, and fewer than two classes have {LEAST_CELL} captioned images with "
            "it and without it, so a head cannot be trained against it: use --by prune"
        )
    blocks = rows if context.blocks is None else context.blocks[rows]
    made, penalty = train_head(
        head.name, features.plain[rows], truth, len(head.bias), blocks, context.seed, weights=weights
    )
    words = (
        f"{head.name} trained anew on {len(rows)} images, weighed so that {mixed} classes show '{concept}' in half of their "
        f"weight (logistic regression, C {penalty:g} by blocked cross-validation)"
    )
    return Repair(made, layer, (), left, words)


def _units_in(layer: str, units: Sequence[Any]) -> list[int]:
    named = (str(unit).rpartition("/") for unit in units)
    return [int(index) for name, _, index in named if name == layer]


def _limitations(
    artefact: Perturbation | None, pairs: Pairs | None, left: Sequence[str], chance: Sequence[LinearHead]
) -> tuple[str, ...]:
    said = ["Held-out images share no block with those the repair was fitted on; the network itself may know them."]
    if artefact is None and pairs is None:
        said.append("The concept cannot be painted and too few held-out pairs show it, so no reliance was measured.")
    elif artefact is None:
        said.append("The concept cannot be painted: reliance is that of matched pairs of real images.")
    if left:
        said.append(f"{len(left)} units of the finding lie in other layers and were left as they are ({left[0]} ...).")
    if not chance:
        said.append("No matched random units to compare with: the finding names none of this layer, or most of it.")
    return tuple(said)
