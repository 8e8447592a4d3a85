"""Does the network lean on a concept that is no part of the class it predicts?

Groups of units that speak of one concept, times classes. The ladder: *association* of the group's activation with the
prediction beyond what the true class explains; *counterfactual* reliance, on painted copies where the concept can be
painted and on matched pairs of real images otherwise; *ablation* of the group's units against matched random ones, on
the very images that show the concept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    usual_strength,
)
from geoaudit.checks.grouped import Group, concept_groups, group_score, paintable
from geoaudit.checks.nulls import null_test
from geoaudit.checks.pairing import FEWEST_PAIRS, Pairs, pair_reliance, retrieve_pairs
from geoaudit.checks.wording import advice, headline, lowers
from geoaudit.definitions import Relation, relate, stated
from geoaudit.findings import BRUSH, PAIRS, CheckResult, Evidence, Hypothesis
from geoaudit.perturb import Perturbation
from geoaudit.statistics import PermutationTest, block_permutation

__all__ = ["ConceptReliance", "paintable"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Case:
    """Everything measured about one concept group, before it is asked class by class.

    ``unlike`` holds the classes that go with the group's activation while painting its artefact does not raise them: the
    brush may be unlike the real thing, and ``real`` is the case made with real images instead.
    """

    group: Group
    score: Floats
    association: PermutationTest
    artefact: Perturbation | None
    pairs: Pairs | None
    clean: Ablation
    held: Ablation
    relations: dict[str, Relation]
    unlike: frozenset[int] = frozenset()
    real: _Case | None = None

    def of(self, target: int) -> _Case:
        """What a class is judged by: real images where the painted artefact seems unlike what the network leans on."""
        return self.real if self.real is not None and target in self.unlike else self


def _goes_with(association: PermutationTest, target: int) -> bool:
    return float(association.p[target]) <= 0.05 and float(association.value[target]) > 0


class ConceptReliance:
    """Concept groups times classes, grades 1 to 3."""

    rule = "concept-reliance"
    title = "Leaning on a concept that is no part of the class"
    needs: tuple[str, ...] = ("classes", "groups")
    cost = "one pass over the evaluated images for each artefact, one tail pass a group and random set, one matching a group"
    null = "block permutation within classes; pairs shuffled by block; matched random units"

    def run(self, context: AuditContext) -> CheckResult:
        """Test every group against every class."""
        groups = concept_groups(context)
        if not groups:
            return self._result("not_run", "no published labels form a concept group", 0, ())
        hypotheses: list[Hypothesis] = []
        artefacts = [paintable(group.name, context) for group in groups]
        clean = ablations(context, [group.units for group in groups], context.evaluated)
        painted = self._painted(context, groups, artefacts)
        paired = 0
        for number, group in enumerate(groups):
            held = clean[number]
            if held is not None:
                case = self._case(context, group, artefacts[number], held, painted.get(number))
                paired += case.pairs is not None
                hypotheses += self._test(context, case)
            context.report("concept reliance", number + 1, len(groups))
        leaning = [h for h in hypotheses if h.spurious and any(e.holds and e.grade >= 2 for e in h.evidence)]
        drawn = sum(artefact is not None for artefact in artefacts)
        reason = (
            f"{len(hypotheses)} pairs of concept group and class tested ({drawn} of {len(groups)} concepts painted onto "
            f"images, {paired} compared on matched real images), {len(leaning)} with causal evidence"
        )
        return self._result("fail" if leaning else "pass", reason, len(hypotheses), tuple(hypotheses))

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

    def _painted(
        self, context: AuditContext, groups: list[Group], artefacts: list[Perturbation | None]
    ) -> dict[int, Ablation]:
        """Ablations of the paintable groups on painted copies, one pass an artefact."""
        found: dict[int, Ablation] = {}
        for artefact in {a.name: a for a in artefacts if a is not None}.values():
            places = [n for n, other in enumerate(artefacts) if other is not None and other.name == artefact.name]
            strength = usual_strength(context, artefact)
            images = context.painted_images(artefact.name, strength)
            sets = [groups[n].units for n in places]
            made = ablations(context, sets, context.evaluated, images, artefact.label)
            found |= {n: one for n, one in zip(places, made, strict=True) if one is not None}
        return found

    def _case(
        self,
        context: AuditContext,
        group: Group,
        artefact: Perturbation | None,
        clean: Ablation,
        painted: Ablation | None,
    ) -> _Case:
        score = group_score(context, group)
        association = block_permutation(
            context.probabilities,
            np.repeat(score[:, None], context.probabilities.shape[1], axis=1),
            context.blocks_of(np.arange(len(score))),
            n=context.draws,
            seed=context.seed,
            given=context.reference,
        )
        relations = relate(stated(group.name) or group.name, context.class_names, context.encoder, context.definitions)
        self._remember(context, group, clean)
        if artefact is None or painted is None:
            held = self._shown(score, clean)
            return _Case(group, score, association, artefact, self._pairs(context, group), clean, held, relations)
        case = _Case(group, score, association, artefact, None, clean, painted, relations)
        unlike = frozenset(
            target
            for target in range(len(context.class_names))
            if _goes_with(association, target)
            and not reliance(context, context.evaluated, clean.plain, painted.plain, target).holds
        )
        pairs = self._pairs(context, group) if unlike else None
        if pairs is None:
            return case
        (level,) = ablations(context, [group.units], context.evaluated, absent=artefact.label)
        real = replace(case, artefact=None, pairs=pairs, held=self._shown(score, level or clean))
        return replace(case, unlike=unlike, real=real)

    def _pairs(self, context: AuditContext, group: Group) -> Pairs | None:
        pairs = retrieve_pairs(context, group.name)
        return pairs if pairs is not None and len(pairs.shown) >= FEWEST_PAIRS else None

    def _shown(self, score: Floats, clean: Ablation) -> Ablation:
        """Without a painter: the ablation on the fifth of the images on which the group fires most."""
        order = np.argsort(-score[clean.rows], kind="stable")[: max(20, len(clean.rows) // 5)]
        part = np.sort(order)
        return Ablation(clean.plain[part], clean.held[part], clean.random[:, part], clean.rows[part])

    def _test(self, context: AuditContext, whole: _Case) -> list[Hypothesis]:
        hypotheses = []
        for target, name in enumerate(context.class_names):
            case, association = whole.of(target), whole.association
            evidence = [self._associated(case, name, float(association.value[target]), float(association.p[target]))]
            effect, compared = self._counterfactual(context, case, target)
            if effect is not None:
                evidence.append(self._put_in(case, name, effect))
            outside = context.reference[case.held.rows] != target
            own, gap = case.held.drop(context, target, outside)
            evidence.append(self._ablated(case, name, own, gap))
            made = self._hypothesis(context, case, target, tuple(evidence), effect, gap)
            context.chance_gaps += case.held.chance_gaps(target, outside).tolist()
            context.null_tests.append(
                null_test(
                    context,
                    made,
                    target,
                    association=association.null[:, target],
                    pairs=compared,
                    effect=effect,
                    ablation=(case.held, outside),
                )
            )
            self._row(context, case, name, target, effect, gap, evidence)
            hypotheses.append(made)
        return hypotheses

    def _counterfactual(
        self, context: AuditContext, case: _Case, target: int
    ) -> tuple[Effect | None, tuple[NDArray[np.int64], Floats, Floats] | None]:
        """The reliance on painted copies or matched pairs, and what it was measured on: rows, with and without."""
        if case.artefact is not None:
            rows = context.evaluated
            effect = reliance(context, rows, case.clean.plain, case.held.plain, target)
            outside = context.reference[rows] != target
            called = [
                (logits[outside].argmax(axis=1) == target).astype(float)
                for logits in (case.held.plain, case.clean.plain)
            ]
            return effect, (rows[outside], called[0], called[1])
        if case.pairs is None:
            return None, None
        outside = context.reference[case.pairs.shown] != target
        effect = pair_reliance(context, case.pairs, context.logits, target)
        shown, other = case.pairs.shown[outside], case.pairs.other[outside]
        called = [(context.predicted[rows] == target).astype(float) for rows in (shown, other)]
        return effect, (shown, called[0], called[1])

    def _row(
        self,
        context: AuditContext,
        case: _Case,
        name: str,
        target: int,
        effect: Effect | None,
        gap: Effect,
        evidence: list[Evidence],
    ) -> None:
        context.tables.setdefault("reliance", []).append(
            {
                "group": case.group.number,
                "concept": case.group.name,
                "class": name,
                "association": float(case.association.value[target]),
                "association_p": float(case.association.p[target]),
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

    def _remember(self, context: AuditContext, group: Group, clean: Ablation) -> None:
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

    def _associated(self, case: _Case, name: str, value: float, p: float) -> Evidence:
        holds = p <= 0.05 and value > 0
        word = "rises" if value > 0 else "does not rise"
        return Evidence(
            1,
            "association",
            f"Among images of one class, the probability of {name} {word} with '{case.group.name}' "
            f"(r {value:.2f}, p {p:.3f}).",
            value,
            (float("nan"), float("nan")),
            p,
            "block permutation within classes",
            holds,
        )

    def _put_in(self, case: _Case, name: str, effect: Effect) -> Evidence:
        interval = f"(95 % interval {points(effect.ci[0])} to {points(effect.ci[1])})"
        if case.artefact is not None:
            said = (
                f"Painting {case.artefact.label} onto {effect.n} images that are not {name} raises the share called {name} by "
                f"{points(effect.value)} {interval}."
            )
            null = "the same images unpainted; block sign flips"
            return Evidence(2, BRUSH, said, effect.value, effect.ci, effect.p, null, effect.holds)
        alike, chance = (case.pairs.alike, case.pairs.chance) if case.pairs is not None else (0.0, 0.0)
        said = (
            f"In {effect.n} pairs of real images of one class other than {name}, alike but for '{case.group.name}' (captions "
            f"agree by {alike:.2f} beside it, {chance:.2f} between random images of a class), the one that shows it is "
            f"called {name} {points(effect.value)} more often {interval}."
        )
        null = "the matched image without the concept; block sign flips"
        return Evidence(2, PAIRS, said, effect.value, effect.ci, effect.p, null, effect.holds)

    def _ablated(self, case: _Case, name: str, own: Effect, gap: Effect) -> Evidence:
        where = f"with {case.artefact.label} painted on" if case.artefact else "on which the units fire most"
        return Evidence(
            3,
            "ablation",
            f"Holding the {case.group.size} units of '{case.group.name}' in {case.group.layer} at their mean {lowers(own.value)} "
            f"the share called {name} among {gap.n} images of other classes {where} by {points(abs(own.value))}; the share is "
            f"{points(gap.value)} lower than where matched random units are held (95 % interval {points(gap.ci[0])} to "
            f"{points(gap.ci[1])}).",
            gap.value,
            gap.ci,
            gap.p,
            "random units matched in number and activation norm",
            ablation_holds(own, gap),
        )

    def _hypothesis(
        self,
        context: AuditContext,
        case: _Case,
        target: int,
        evidence: tuple[Evidence, ...],
        effect: Effect | None,
        gap: Effect,
    ) -> Hypothesis:
        name, group, relation = context.class_names[target], case.group, case.relations[context.class_names[target]]
        main = effect or gap
        examples, counter = self._pictures(context, case, target)
        held = evidence[-1].holds
        area, meaning = context.area_in_sight(group.name, target) if held else (None, "")
        said = context.shows(group.name)
        return Hypothesis(
            rule=self.rule,
            concept=group.name,
            class_name=name,
            layer=group.layer,
            units=group.every_unit,
            n=main.n,
            p=effect.p if effect else evidence[0].p or 1.0,
            evidence=evidence,
            metric="reliance" if effect else "ablation gap",
            value=main.value,
            ci=main.ci,
            prevalence=context.prevalence(group.name),
            spurious=relation.spurious,
            why=relation.why,
            label_confidence=group.confidence,
            examples=examples,
            counterexamples=counter,
            group=group.number,
            area_ha=area,
            area_meaning=meaning,
            # Where the class is predicted and the concept is there: the ground whose map should not be trusted.
            footprint=context.footprint(said & (context.predicted == target)) if held and said is not None else None,
            recommendation=advice(name, group.name, relation.kind, case.artefact, area, held),
            title=headline(name, group.name, relation.kind, effect.value if effect else None),
            limitations=self._limits(case, effect),
        )

    def _pictures(self, context: AuditContext, case: _Case, target: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Images on which the units fire most: wrongly called the class, else called it; and called it without them."""
        order = np.argsort(-case.score, kind="stable")
        called = context.predicted == target
        fooled = [int(i) for i in order if called[i] and context.reference[i] != target][:6]
        examples = fooled or [int(i) for i in order if called[i]][:6]
        return tuple(examples), tuple(int(i) for i in order[::-1] if called[i])[:6]

    def _limits(self, case: _Case, effect: Effect | None) -> str:
        said = f"Effects below {MIN_EFFECT:.0%} are not reported. "
        if case.artefact is not None:
            return said + "Painted artefacts stand in for real ones."
        if effect is not None and case.pairs is not None:
            return said + (
                "The concept cannot be painted, so pairs of different places were compared: what captions do not say may "
                f"differ too. {case.pairs.unmatched} images with the concept found no partner alike enough."
            )
        return said + (
            f"The concept cannot be painted and fewer than {FEWEST_PAIRS} pairs of images differ in it alone, so no "
            "counterfactual was made and the severity stays minor."
        )
