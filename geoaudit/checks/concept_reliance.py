"""Does the network lean on a concept that is no part of the class it predicts?

Groups of units that speak of one concept, times classes. The ladder: *association* of the group's activation with the
prediction beyond what the true class explains; *counterfactual* reliance where the concept can be painted;
*ablation* of the group's units against matched random ones, on the very images that show the concept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoaudit.checks.base import AuditContext
from geoaudit.checks.causal import (
    MIN_EFFECT,
    Ablation,
    Effect,
    ablation_holds,
    ablations,
    accuracy_change,
    points,
    reliance,
)
from geoaudit.definitions import Relation, relate, stated
from geoaudit.findings import CheckResult, Evidence, Hypothesis
from geoaudit.perturb import PERTURBATIONS, Perturbation
from geoaudit.statistics import block_permutation

__all__ = ["ConceptReliance", "paintable"]

# A paired copy shows the artefact at the middle of its usual strengths.
ALIKE = 0.6
LEAST_UNITS = 3


def paintable(concept: str, context: AuditContext) -> Perturbation | None:
    """The artefact that a concept's words name, or None: by word, else by meaning. What is denied is not named."""
    said = stated(concept)
    if not said:
        return None
    words = said.casefold()
    for artefact in PERTURBATIONS.values():
        if artefact.label in words or any(synonym in words for synonym in artefact.synonyms):
            return artefact
    names = [(artefact, name) for artefact in PERTURBATIONS.values() for name in (artefact.label, *artefact.synonyms)]
    vectors = context.encoder.encode_texts([said, *(name for _, name in names)])
    likeness = vectors[1:] @ vectors[0]
    best = int(np.argmax(likeness))
    return names[best][0] if likeness[best] >= ALIKE else None


@dataclass(frozen=True)
class _Group:
    number: int
    name: str
    units: dict[str, list[int]]
    every_unit: tuple[str, ...]
    confidence: float

    @property
    def layer(self) -> str:
        """The layers its units are in, in words."""
        return ", ".join(self.units)

    @property
    def size(self) -> int:
        """How many units are held when it is ablated."""
        return sum(len(units) for units in self.units.values())


def _score(context: AuditContext, group: _Group) -> NDArray[np.float64]:
    """(images,) mean activation of the group's units, each in its own standard deviations."""
    parts = []
    for layer, units in group.units.items():
        values = np.asarray(context.activations[layer][:, units], dtype=np.float64)
        spread = values.std(axis=0)
        parts.append((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1))
    return np.asarray(np.concatenate(parts, axis=1).mean(axis=1))


class ConceptReliance:
    """Concept groups times classes, grades 1 to 3."""

    rule = "concept-reliance"
    title = "Leaning on a concept that is no part of the class"
    needs: tuple[str, ...] = ("classes", "groups")
    cost = "one pass over the evaluated images for each artefact, and one tail pass a group and random set"
    null = "block permutation within classes; matched random units"

    def run(self, context: AuditContext) -> CheckResult:
        """Test every group against every class."""
        groups = self._groups(context)
        if not groups:
            return self._result("not_run", "no published labels form a concept group", 0, ())
        hypotheses: list[Hypothesis] = []
        artefacts = [paintable(group.name, context) for group in groups]
        clean = ablations(context, [group.units for group in groups], context.evaluated)
        painted = self._painted(context, groups, artefacts)
        for number, group in enumerate(groups):
            held = clean[number]
            if held is not None:
                hypotheses += self._test(context, group, artefacts[number], held, painted.get(number))
            context.report("concept reliance", number + 1, len(groups))
        leaning = [h for h in hypotheses if h.spurious and any(e.holds and e.grade >= 2 for e in h.evidence)]
        tested = len(hypotheses)
        reason = f"{tested} pairs of concept group and class tested, {len(leaning)} with causal evidence"
        return self._result("fail" if leaning else "pass", reason, tested, tuple(hypotheses))

    def _result(self, status: str, reason: str, tested: int, hypotheses: tuple[Hypothesis, ...]) -> CheckResult:
        return CheckResult(
            self.rule,
            self.title,
            status,  # type: ignore[arg-type]
            reason,
            tested,
            self.null,
            self.cost,
            hypotheses,
        )

    def _groups(self, context: AuditContext) -> list[_Group]:
        infos = [info.name for info in context.layers]
        found = []
        for row in context.groups.itertuples(index=False):
            units = [str(u) for u in json.loads(row.units)]
            by_layer: dict[str, list[int]] = {}
            for unit in units:
                layer, _, index = unit.rpartition("/")
                if layer != "output":
                    by_layer.setdefault(layer, []).append(int(index))
            # One or two units are a coincidence, not a group that a finding should rest on.
            if sum(map(len, by_layer.values())) < LEAST_UNITS:
                continue
            # The deepest layer is where the concept acts on the class most directly, and cheapest to edit.
            deepest = max(by_layer, key=infos.index)
            named = context.neurons[context.neurons["group"] == row.group]
            found.append(
                _Group(
                    int(row.group),
                    str(row.name),
                    {name: sorted(by_layer[name]) for name in infos if name in by_layer and name == deepest},
                    tuple(units),
                    float(named["r"].mean()),
                )
            )
        return found

    def _painted(
        self, context: AuditContext, groups: list[_Group], artefacts: list[Perturbation | None]
    ) -> dict[int, Ablation]:
        """Ablations of the paintable groups on painted copies, one pass an artefact."""
        found: dict[int, Ablation] = {}
        for artefact in {a.name: a for a in artefacts if a is not None}.values():
            places = [n for n, other in enumerate(artefacts) if other is not None and other.name == artefact.name]
            strength = artefact.strengths[len(artefact.strengths) // 2]
            images = context.painted_images(artefact.name, strength)
            made = ablations(context, [groups[n].units for n in places], context.evaluated, images)
            found |= {n: one for n, one in zip(places, made, strict=True) if one is not None}
        return found

    def _test(
        self,
        context: AuditContext,
        group: _Group,
        artefact: Perturbation | None,
        clean: Ablation,
        painted: Ablation | None,
    ) -> list[Hypothesis]:
        relations = relate(stated(group.name) or group.name, context.class_names, context.encoder, context.definitions)
        score = _score(context, group)
        association = block_permutation(
            context.probabilities,
            np.repeat(score[:, None], context.probabilities.shape[1], axis=1),
            context.blocks_of(np.arange(len(score))),
            n=context.draws,
            seed=context.seed,
            given=context.reference,
        )
        rows = context.evaluated
        self._remember(context, group, clean)
        held = painted or self._shown(score, clean)
        shown, rows_shown = held.plain, held.rows
        hypotheses = []
        for target, name in enumerate(context.class_names):
            evidence = [
                self._associated(group, name, float(association.value[target]), float(association.p[target])),
            ]
            effect: Effect | None = None
            if artefact is not None:
                effect = reliance(context, rows, clean.plain, shown, target)
                evidence.append(self._counterfactual(artefact, name, effect))
            outside = context.reference[rows_shown] != target
            own, gap = held.drop(context, target, outside)
            holds = ablation_holds(own, gap)
            evidence.append(self._ablated(group, name, own, gap, holds, artefact))
            hypotheses.append(
                self._hypothesis(
                    context, group, name, target, relations[name], evidence, effect, gap, score, held, clean
                )
            )
            context.tables.setdefault("reliance", []).append(
                {
                    "group": group.number,
                    "concept": group.name,
                    "class": name,
                    "association": float(association.value[target]),
                    "association_p": float(association.p[target]),
                    "q": float("nan"),
                    "reliance": effect.value if effect else float("nan"),
                    "reliance_low": effect.ci[0] if effect else float("nan"),
                    "reliance_high": effect.ci[1] if effect else float("nan"),
                    "reliance_p": effect.p if effect else float("nan"),
                    "gap": gap.value,
                    "gap_low": gap.ci[0],
                    "gap_high": gap.ci[1],
                    "n": gap.n,
                    "grade": max((e.grade for e in evidence if e.holds), default=0),
                }
            )
        return hypotheses

    def _remember(self, context: AuditContext, group: _Group, clean: Ablation) -> None:
        for target, name in enumerate(context.class_names):
            n, before, after, change, chance, gap = accuracy_change(context, clean, target)
            context.tables.setdefault("ablation", []).append(
                {
                    "group": group.number,
                    "class": name,
                    "n": n,
                    "accuracy_before": before,
                    "accuracy_after": after,
                    "change": change.value,
                    "low": change.ci[0],
                    "high": change.ci[1],
                    "random_mean": chance[0],
                    "random_low": chance[1],
                    "random_high": chance[2],
                    "gap": gap.value,
                    "gap_low": gap.ci[0],
                    "gap_high": gap.ci[1],
                    "p": gap.p,
                }
            )

    def _shown(self, score: NDArray[np.float64], clean: Ablation) -> Ablation:
        """Without a painter: the ablation on the fifth of the images on which the group fires most."""
        order = np.argsort(-score[clean.rows], kind="stable")[: max(20, len(clean.rows) // 5)]
        part = np.sort(order)
        return Ablation(clean.plain[part], clean.held[part], clean.random[:, part], clean.rows[part])

    def _associated(self, group: _Group, name: str, value: float, p: float) -> Evidence:
        holds = p <= 0.05 and value > 0
        word = "rises" if value > 0 else "does not rise"
        return Evidence(
            1,
            "association",
            f"Among images of one class, the probability of {name} {word} with '{group.name}' (r {value:.2f}, p {p:.3f}).",
            value,
            (float("nan"), float("nan")),
            p,
            "block permutation within classes",
            holds,
        )

    def _counterfactual(self, artefact: Perturbation, name: str, effect: Effect) -> Evidence:
        return Evidence(
            2,
            "counterfactual reliance",
            f"Painting {artefact.label} onto {effect.n} images that are not {name} raises the share called {name} by "
            f"{points(effect.value)} (95 % interval {points(effect.ci[0])} to {points(effect.ci[1])}).",
            effect.value,
            effect.ci,
            effect.p,
            "the same images unpainted; block sign flips",
            effect.holds,
        )

    def _ablated(
        self, group: _Group, name: str, own: Effect, gap: Effect, holds: bool, artefact: Perturbation | None
    ) -> Evidence:
        where = f"with {artefact.label} painted on" if artefact else "on which the units fire most"
        return Evidence(
            3,
            "ablation",
            f"Holding the {group.size} units of '{group.name}' in {group.layer} at their mean lowers the share called {name} "
            f"among {gap.n} images of other classes {where} by {points(own.value)}; that is {points(gap.value)} more than "
            f"matched random units do (95 % interval {points(gap.ci[0])} to {points(gap.ci[1])}).",
            gap.value,
            gap.ci,
            gap.p,
            "random units matched in number and activation norm",
            holds,
        )

    def _ground(self, context: AuditContext, group: _Group, target: int) -> dict[str, Any] | None:
        """Where the class is predicted and the concept is there: the ground whose map should not be trusted."""
        said = context.shows(group.name)
        return None if said is None else context.footprint(said & (context.predicted == target))

    def _hypothesis(
        self,
        context: AuditContext,
        group: _Group,
        name: str,
        target: int,
        relation: Relation,
        evidence: list[Evidence],
        effect: Effect | None,
        gap: Effect,
        score: NDArray[np.float64],
        held: Ablation,
        clean: Ablation,
    ) -> Hypothesis:
        main = effect or gap
        wrong = (context.predicted == target) & (context.reference != target)
        order = np.argsort(-score, kind="stable")
        fooled = [int(i) for i in order if wrong[i]][:6]
        examples = fooled or [int(i) for i in order if context.predicted[i] == target][:6]
        counter = [int(i) for i in order[::-1] if context.predicted[i] == target][:6]
        prevalence = context.prevalence(group.name)
        advice = (
            f"Do not deploy where {group.name} occurs. Retrain with {group.name} painted on all classes alike, or gather "
            f"{name} without it, then run this audit again."
            if relation.kind == "artefact"
            else f"Check whether {name} is predicted for what surrounds it; add {name} in other surroundings."
        )
        flipped = (clean.plain.argmax(axis=1) == target) & (clean.held.argmax(axis=1) != target)
        rates = held.chance_gaps(target, context.reference[held.rows] != target)
        context.chance_gaps += rates.tolist()
        return Hypothesis(
            rule=self.rule,
            concept=group.name,
            class_name=name,
            layer=group.layer,
            units=group.every_unit,
            n=main.n,
            p=effect.p if effect else evidence[0].p or 1.0,
            evidence=tuple(evidence),
            metric="reliance" if effect else "ablation gap",
            value=main.value,
            ci=main.ci,
            prevalence=prevalence,
            spurious=relation.spurious,
            why=relation.why,
            label_confidence=group.confidence,
            examples=tuple(examples),
            counterexamples=tuple(counter),
            group=group.number,
            area_ha=context.area_of(clean.rows, flipped),
            footprint=self._ground(context, group, target) if evidence[-1].holds else None,
            recommendation=advice,
            limitations=(
                f"Effects below {MIN_EFFECT:.0%} are not reported. "
                + (
                    "Painted artefacts stand in for real ones."
                    if effect
                    else "The concept cannot be painted, so no counterfactual was made and the severity stays minor."
                )
            ),
        )
