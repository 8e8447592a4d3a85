"""Does painting a sensor's or the sky's artefact onto an image change the class, and which units carry the change?

These probes need no words: every artefact of :mod:`geoaudit.perturb` is painted on clean images in rising strength. The
units that carry the change are then held at their clean mean; where that takes the effect away and matched random units
do not, the network has units for the artefact and the finding has grade 3.

Where the imagery itself shows the artefact, a brush is not the only witness. The images that have it must be called the
class more often than others of their class, and pairs of real images that differ in it must differ in their answer too;
where they do not, the network may break under the brush, but it did not learn the shortcut. And where the brush is
unlike the real thing, the pairs speak in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geoaudit.checks.base import AuditContext
from geoaudit.checks.carrying import between, painted_shift, reacting, towards
from geoaudit.checks.causal import (
    MIN_EFFECT,
    Ablation,
    Effect,
    ablation_holds,
    ablations,
    points,
    reliance,
    usual_strength,
)
from geoaudit.checks.grouped import spoken_of
from geoaudit.checks.nulls import null_test
from geoaudit.checks.pairing import ENOUGH_PAIRS, Pairs, pair_reliance, retrieve_pairs
from geoaudit.checks.wording import headline, lowers, sensor_advice
from geoaudit.findings import BRUSH, MOSTLY, PAIRS, PREVALENT, CheckResult, Evidence, Hypothesis, refuted
from geoaudit.perturb import PERTURBATIONS, Perturbation
from geoaudit.statistics import PermutationTest, block_permutation

__all__ = ["SensorProbes"]

# Of an artefact that the imagery never shows, the units must carry this share of the effect themselves.
CARRIED = 0.5


@dataclass(frozen=True, eq=False)
class _Sight:
    """What the imagery's own images say of an artefact that it shows: association by class, and pairs of images.

    ``leads`` says whether, of artefacts that are looked for together, this one is seen most: pairs speak for it alone.
    """

    association: PermutationTest
    pairs: Pairs | None
    leads: bool

    def goes_with(self, target: int) -> bool:
        """Whether the class is answered more readily where the artefact is seen, among images of one class."""
        return float(self.association.p[target]) <= 0.05 and float(self.association.value[target]) > 0


@dataclass(frozen=True, eq=False)
class _Held:
    """Units of one layer that carry an artefact to a class, held at their means; and the images that was judged on."""

    layer: str
    units: NDArray[np.int64]
    found: Ablation
    outside: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Case:
    """One artefact and one class: what was done to images, and with what effect.

    Attributes:
        sweep: effect of painting by strength.
        usual: the strength that counts.
        effect: what the hypothesis is judged by: painted copies, or pairs where the brush is unlike the real thing.
        rows: (n,) images behind ``effect``; ``after`` and ``before`` whether each is called the class with and without.
        paired: effect between pairs of real images, or None where there are too few, or too few to decide.
        real: whether ``effect`` is that of the pairs.
    """

    sweep: dict[float, Effect]
    usual: float
    effect: Effect
    rows: NDArray[np.int64]
    after: NDArray[np.float64]
    before: NDArray[np.float64]
    paired: Effect | None = None
    real: bool = False


class SensorProbes:
    """Every artefact times every class, grades 2 and 3, and 1 where the imagery shows the artefact.

    Args:
        artefacts: names in :data:`geoaudit.perturb.PERTURBATIONS`; all by default.
    """

    rule = "sensor-probe"
    title = "Class changes when a sensor or sky artefact is painted on"
    needs: tuple[str, ...] = ("classes",)
    cost = (
        "one pass over the evaluated images an artefact and strength, one tail pass a reacting artefact and random set"
    )
    null = "the same images unpainted, shuffled by block; matched random units"

    def __init__(self, artefacts: tuple[str, ...] = tuple(PERTURBATIONS)) -> None:
        self.artefacts = artefacts

    def run(self, context: AuditContext) -> CheckResult:
        """Sweep every artefact."""
        hypotheses: list[Hypothesis] = []
        for number, name in enumerate(self.artefacts, start=1):
            hypotheses += self._sweep(context, PERTURBATIONS[name])
            context.report("sensor probes", number, len(self.artefacts))
        leaning = [
            h for h in hypotheses if {2, 3} <= {e.grade for e in h.evidence if e.holds} and not refuted(h.evidence)
        ]
        return CheckResult(
            self.rule,
            self.title,
            "fail" if leaning else "pass",
            f"{len(self.artefacts)} artefacts painted in rising strength on {len(context.evaluated)} images; "
            f"{len(leaning)} pull images into a class through units of their own",
            len(hypotheses),
            self.null,
            self.cost,
            tuple(hypotheses),
        )

    def _sweep(self, context: AuditContext, artefact: Perturbation) -> list[Hypothesis]:
        rows = context.evaluated
        before = context.logits[rows]
        usual = usual_strength(context, artefact)
        classes = range(len(context.class_names))
        at: dict[float, list[Effect]] = {}
        for strength in (usual, *artefact.strengths):
            # An artefact that moves nothing at its usual strength is not swept.
            if strength not in at and (not at or any(e.value >= MIN_EFFECT for e in next(iter(at.values())))):
                after = context.painted(artefact.name, strength)
                at[strength] = [reliance(context, rows, before, after, c) for c in classes]
        sweep = [{strength: effects[c] for strength, effects in sorted(at.items())} for c in classes]
        sight = self._sight(context, artefact)
        cases = [self._case(context, artefact, c, sweep[c], usual, sight) for c in classes]
        carried = self._carried(context, artefact, cases, sight)
        return [self._hypothesis(context, artefact, c, case, carried.get(c), sight) for c, case in enumerate(cases)]

    def _case(
        self,
        context: AuditContext,
        artefact: Perturbation,
        target: int,
        sweep: dict[float, Effect],
        usual: float,
        sight: _Sight | None,
    ) -> _Case:
        rows = context.evaluated
        other = context.reference[rows] != target
        called = [
            (logits[other].argmax(axis=1) == target).astype(float)
            for logits in (context.painted(artefact.name, usual), context.logits[rows])
        ]
        case = _Case(sweep, usual, sweep[usual], rows[other], *called)
        if sight is None or sight.pairs is None:
            return case
        paired = pair_reliance(context, sight.pairs, context.logits, target, everywhere=True)
        # Few pairs that agree with the brush confirm it; few that do not say nothing.
        if paired.holds or (paired.n >= ENOUGH_PAIRS and paired.value < MIN_EFFECT):
            case = replace(case, paired=paired)
        if not paired.holds or case.effect.holds or not sight.goes_with(target) or not sight.leads:
            return case
        after, before = (
            (context.predicted[of] == target).astype(float) for of in (sight.pairs.shown, sight.pairs.other)
        )
        return replace(case, effect=paired, rows=sight.pairs.shown, after=after, before=before, real=True)

    def _sight(self, context: AuditContext, artefact: Perturbation) -> _Sight | None:
        """What the images that show the artefact say; None where fewer than one in twenty of them do."""
        said = context.shows(artefact.sight)
        if said is None or (context.prevalence(artefact.sight) or 0.0) < PREVALENT:
            return None
        association = block_permutation(
            context.probabilities,
            np.repeat(said.astype(float)[:, None], context.probabilities.shape[1], axis=1),
            context.blocks_of(np.arange(len(said))),
            n=context.draws,
            seed=context.seed,
            given=context.reference,
        )
        shown = {label: context.shows(label) for label in sorted(artefact.kin)}
        leader = max(shown, key=lambda label: 0 if (seen := shown[label]) is None else int(seen.sum()))
        return _Sight(association, retrieve_pairs(context, artefact.sight), leader == artefact.label)

    def _carried(
        self, context: AuditContext, artefact: Perturbation, cases: Sequence[_Case], sight: _Sight | None
    ) -> dict[int, _Held]:
        """By class that the artefact moves images into: the units that carry it, held on the images that show it."""
        infos = [info for info in context.layers if info.name != "output"]
        moved = [c for c, case in enumerate(cases) if case.effect.holds and not case.real]
        held: dict[int, _Held] = {}
        if not infos:
            return held
        # The last layer before the output is where a concept acts on the class most directly.
        info = infos[-1]
        if moved:
            images = context.painted_images(artefact.name, cases[moved[0]].usual)
            shift, rows = painted_shift(context, info, images, context.evaluated)
            if sight is None:
                chosen = dict.fromkeys(moved, reacting(context, info, shift))
            else:
                chosen = towards(context, info, shift, images, rows, moved)
            sets = [{info.name: chosen[target].tolist()} for target in moved]
            made = ablations(context, sets, context.evaluated, images, artefact.sight)
            held |= {
                target: _Held(info.name, chosen[target], found, context.reference[found.rows] != target)
                for target, found in zip(moved, made, strict=True)
                if found is not None
            }
        for target, case in enumerate(cases):
            if case.real and sight is not None and sight.pairs is not None:
                shift = between(context, info, sight.pairs.shown, sight.pairs.other)
                units = towards(context, info, shift, context.images, case.rows, [target])[target]
                (found,) = ablations(context, [{info.name: units.tolist()}], case.rows, absent=artefact.sight)
                if found is not None:
                    held[target] = _Held(info.name, units, found, np.ones(len(case.rows), dtype=bool))
        return held

    def _associated(self, context: AuditContext, artefact: Perturbation, target: int, sight: _Sight) -> Evidence:
        """Whether the imagery's own images with the artefact are called the class more often than others of their class."""
        value, p = float(sight.association.value[target]), float(sight.association.p[target])
        holds = sight.goes_with(target)
        return Evidence(
            1,
            "association",
            f"Among the images of one class, the probability of {context.class_names[target]} "
            f"{'rises' if holds else 'does not rise'} where their captions speak of {artefact.sight} "
            f"(r {value:.2f}, p {p:.3f}).",
            value,
            (float("nan"), float("nan")),
            p,
            "block permutation within classes",
            holds,
        )

    def _painted(self, context: AuditContext, artefact: Perturbation, name: str, case: _Case) -> Evidence:
        effect = case.sweep[case.usual]
        strengths = ", ".join(f"{strength:g}: {points(e.value)}" for strength, e in case.sweep.items())
        return Evidence(
            2,
            BRUSH,
            f"Painting {artefact.label} ({artefact.words}) onto {effect.n} images that are not {name} raises the share called "
            f"{name} by {points(effect.value)} (95 % interval {points(effect.ci[0])} to {points(effect.ci[1])}); by strength "
            f"{strengths}.",
            effect.value,
            effect.ci,
            effect.p,
            "the same images unpainted; block sign flips",
            effect.holds,
        )

    def _pairs(
        self, context: AuditContext, artefact: Perturbation, target: int, pairs: Pairs, effect: Effect
    ) -> Evidence:
        name = context.class_names[target]
        others = pair_reliance(context, pairs, context.logits, target)
        among = f"; {points(others.value)} in the {others.n} pairs of other classes" if 0 < others.n < effect.n else ""
        return Evidence(
            2,
            PAIRS,
            f"In {effect.n} pairs of real images of one class, alike but for {artefact.sight} (captions agree by {pairs.alike:.2f} "
            f"beside it, {pairs.chance:.2f} between random images of a class), the one that shows it is called {name} "
            f"{points(effect.value)} more often (95 % interval {points(effect.ci[0])} to {points(effect.ci[1])}{among}).",
            effect.value,
            effect.ci,
            effect.p,
            "the matched image without the artefact; block sign flips",
            effect.holds,
        )

    def _ablated(
        self, context: AuditContext, artefact: Perturbation, target: int, case: _Case, held: _Held, seen: bool
    ) -> Evidence:
        name = context.class_names[target]
        spoken = spoken_of(context, held.layer, held.units.tolist())
        among = f" ({spoken})" if spoken else ""
        react = f"carry most of it to {name}" if seen else "react most"
        where = f"real images that show {artefact.sight}" if case.real else "painted images"
        own, gap = held.found.drop(context, target, held.outside)
        return Evidence(
            3,
            "ablation",
            f"Holding the {len(held.units)} units of {held.layer} that {react}{among} at their mean {lowers(own.value)} the share "
            f"called {name} among the {where} by {points(abs(own.value))}; the share is {points(gap.value)} lower than where "
            f"matched random units are held (95 % interval {points(gap.ci[0])} to {points(gap.ci[1])}).",
            gap.value,
            gap.ci,
            gap.p,
            "random units matched in number and activation norm",
            ablation_holds(own, gap) and (seen or own.value >= CARRIED * case.effect.value),
        )

    def _hypothesis(
        self,
        context: AuditContext,
        artefact: Perturbation,
        target: int,
        case: _Case,
        held: _Held | None,
        sight: _Sight | None,
    ) -> Hypothesis:
        name, effect, share = context.class_names[target], case.effect, case.effect.value
        evidence = [self._painted(context, artefact, name, case)]
        if case.real and sight is not None and sight.pairs is not None:
            # Pairs of the class itself tell whether it needs the artefact, not what becomes of other ground.
            share = pair_reliance(context, sight.pairs, context.logits, target).value
        if effect.holds and sight is not None:
            evidence.insert(0, self._associated(context, artefact, target, sight))
            if case.paired is not None and sight.pairs is not None:
                evidence.append(self._pairs(context, artefact, target, sight.pairs, case.paired))
        if held is not None:
            context.chance_gaps += held.found.chance_gaps(target, held.outside).tolist()
            evidence.append(self._ablated(context, artefact, target, case, held, sight is not None))
        examples, counterexamples = self._pictures(context, artefact, target, case, sight is not None)
        area, meaning = context.area_in_sight(artefact.sight, target)
        seen = area is not None and area[0] > 0
        if not seen:
            rows = context.evaluated
            after = context.painted(artefact.name, case.usual).argmax(axis=1) == target
            area = context.area_of(rows, after & (context.predicted[rows] != target))
            meaning = f"ground that would be called {name} if {artefact.label} lay on it" if area is not None else ""
        made = Hypothesis(
            rule=self.rule,
            concept=artefact.label,
            class_name=name,
            layer="" if held is None else held.layer,
            units=() if held is None else tuple(f"{held.layer}/{int(unit)}" for unit in held.units),
            n=effect.n,
            p=effect.p,
            evidence=tuple(evidence),
            metric="reliance",
            value=effect.value,
            ci=effect.ci,
            prevalence=context.prevalence(artefact.sight),
            spurious=True,
            why="an artefact of the sensor, the sky or the processing is no part of any class",
            examples=examples,
            counterexamples=counterexamples,
            area_ha=area,
            area_meaning=meaning,
            recommendation=sensor_advice(name, artefact, area, seen),
            title=headline(name, artefact.label, "artefact", share),
            limitations=self._limits(artefact, case, evidence, sight is not None),
        )
        context.null_tests.append(
            null_test(
                context,
                made,
                target,
                association=None if sight is None else sight.association.null[:, target],
                pairs=(case.rows, case.after, case.before),
                effect=effect,
                ablation=None if held is None else (held.found, held.outside),
            )
        )
        return made

    def _pictures(
        self, context: AuditContext, artefact: Perturbation, target: int, case: _Case, seen: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Images that show the artefact and are called the class, wrongly first; without any, those that painting turns."""
        shown = context.shows(artefact.sight) if seen else None
        if shown is not None and (shown & (context.predicted == target)).any():
            called, wrong = context.predicted == target, context.reference != target
            order = np.concatenate([np.flatnonzero(shown & called & wrong), np.flatnonzero(shown & called & ~wrong)])
            return tuple(order[:6].tolist()), tuple(np.flatnonzero(shown & ~called)[:6].tolist())
        turned = (case.after == 1) & (case.before == 0) & (context.reference[case.rows] != target)
        return tuple(case.rows[turned][:6].tolist()), tuple(case.rows[case.after == 0][:6].tolist())

    def _limits(self, artefact: Perturbation, case: _Case, evidence: Sequence[Evidence], seen: bool) -> str:
        said = f"Effects below {MIN_EFFECT:.0%} are not reported. "
        if case.real:
            return said + (
                "The painted artefact hardly moves the answer, so pairs of real images were compared: what captions do not say "
                "may differ in them too."
            )
        said += (
            f"A painted artefact stands in for a real one; at the strengths "
            f"{', '.join(f'{s:g}' for s in artefact.strengths)} it is as strong as is usual in practice."
        )
        if refuted(evidence):
            return (
                said + f" The imagery's own images with {artefact.sight} speak against it, so the severity stays minor."
            )
        if not seen and case.effect.value < MOSTLY:
            return said + " The imagery shows no such artefact, so below half of other ground the severity stays minor."
        return said
