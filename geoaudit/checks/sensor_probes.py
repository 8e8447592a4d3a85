"""Does painting a sensor's or the sky's artefact onto an image change the class, and which units carry the change?

These probes need no words: every artefact of :mod:`geoaudit.perturb` is painted on clean images in rising strength. The
units that react most are then held at their clean mean; where that takes the effect away and matched random units do
not, the network has units for the artefact and the finding has grade 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnd_core.probing import activate
from geoaudit.checks.base import AuditContext
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
from geoaudit.checks.wording import headline, lowers, sensor_advice
from geoaudit.findings import PREVALENT, CheckResult, Evidence, Hypothesis
from geoaudit.perturb import PERTURBATIONS, Perturbation
from geoaudit.statistics import block_permutation

__all__ = ["SensorProbes"]

# So much of a layer, those units that react most, is held: few where the imagery never shows the artefact, for then only
# units made for something like it can carry it; many where it does, for what was learned from it spreads.
REACTING, SPREAD = 0.05, 0.2
# Of an artefact that the imagery never shows, the units must carry this share of the effect themselves.
CARRIED = 0.5
REACTION_IMAGES = 256


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
        leaning = [h for h in hypotheses if {2, 3} <= {e.grade for e in h.evidence if e.holds}]
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
        carried = None
        if any(effects[usual].holds for effects in sweep):
            carried = self._reacting(context, artefact, usual)
        return [
            self._hypothesis(context, artefact, target, effects, usual, carried) for target, effects in enumerate(sweep)
        ]

    def _reacting(
        self, context: AuditContext, artefact: Perturbation, strength: float
    ) -> tuple[str, NDArray[np.int64], Ablation] | None:
        """The layer and units whose activation the artefact changes most, in their own standard deviations."""
        infos = [info for info in context.layers if info.name != "output"]
        if not infos:
            return None
        rows = context.evaluated[:: max(1, len(context.evaluated) // REACTION_IMAGES)]
        images = context.painted_images(artefact.name, strength)
        painted = activate(context.network, infos, images.pixels(rows.tolist()), context.pooling)
        # The last layer before the output is where a concept acts on the class most directly.
        info = infos[-1]
        before = np.asarray(context.activations[info.name])
        spread = before.std(axis=0)
        shift = (painted[info.name] - before[rows]).mean(axis=0) / np.where(spread > 1e-9, spread, np.inf)
        seen = (context.prevalence(artefact.label) or 0.0) >= PREVALENT
        count = max(1, round((SPREAD if seen else REACTING) * info.units))
        units = np.sort(np.argsort(-np.abs(shift), kind="stable")[:count])
        (found,) = ablations(context, [{info.name: units.tolist()}], context.evaluated, images, artefact.label)
        return None if found is None else (info.name, units, found)

    def _associated(self, context: AuditContext, artefact: Perturbation, target: int) -> Evidence:
        """Whether the imagery's own images with the artefact are called the class more often than others of their class."""
        name, said = context.class_names[target], context.shows(artefact.label)
        found = block_permutation(
            context.probabilities[:, target],
            np.zeros(len(context.images)) if said is None else said.astype(float),
            context.blocks_of(np.arange(len(context.images))),
            n=context.draws,
            seed=context.seed,
            given=context.reference,
        )
        value, p = float(found.value[0]), float(found.p[0])
        holds = p <= 0.05 and value > 0
        return Evidence(
            1,
            "association",
            f"Among the images of one class, the probability of {name} {'rises' if holds else 'does not rise'} where their "
            f"captions speak of {artefact.label} (r {value:.2f}, p {p:.3f}).",
            value,
            (float("nan"), float("nan")),
            p,
            "block permutation within classes",
            holds,
        )

    def _hypothesis(
        self,
        context: AuditContext,
        artefact: Perturbation,
        target: int,
        effects: dict[float, Effect],
        usual: float,
        carried: tuple[str, NDArray[np.int64], Ablation] | None,
    ) -> Hypothesis:
        name, effect = context.class_names[target], effects[usual]
        strengths = ", ".join(f"{strength:g}: {points(e.value)}" for strength, e in effects.items())
        evidence = [
            Evidence(
                2,
                "counterfactual reliance",
                f"Painting {artefact.label} ({artefact.words}) onto {effect.n} images that are not {name} raises the share called "
                f"{name} by {points(effect.value)} (95 % interval {points(effect.ci[0])} to {points(effect.ci[1])}); by strength "
                f"{strengths}.",
                effect.value,
                effect.ci,
                effect.p,
                "the same images unpainted; block sign flips",
                effect.holds,
            )
        ]
        in_imagery = (context.prevalence(artefact.label) or 0.0) >= PREVALENT
        if effect.holds and in_imagery:
            evidence.insert(0, self._associated(context, artefact, target))
        layer = ""
        units: tuple[str, ...] = ()
        drawn: tuple[Ablation, NDArray[np.bool_]] | None = None
        if carried is not None and effect.holds:
            layer, reacting, found = carried
            spoken = spoken_of(context, layer, reacting.tolist())
            among = f" ({spoken})" if spoken else ""
            outside = context.reference[context.evaluated] != target
            own, gap = found.drop(context, target, outside)
            units = tuple(f"{layer}/{int(u)}" for u in reacting)
            context.chance_gaps += found.chance_gaps(target, outside).tolist()
            drawn = (found, outside)
            evidence.append(
                Evidence(
                    3,
                    "ablation",
                    f"Holding the {len(reacting)} units of {layer} that react most{among} at their mean {lowers(own.value)} "
                    f"the share called {name} among the painted images by {points(abs(own.value))}; the share is "
                    f"{points(gap.value)} lower than where matched random units are held (95 % interval "
                    f"{points(gap.ci[0])} to {points(gap.ci[1])}).",
                    gap.value,
                    gap.ci,
                    gap.p,
                    "random units matched in number and activation norm",
                    ablation_holds(own, gap) and (in_imagery or own.value >= CARRIED * effect.value),
                )
            )
        rows = context.evaluated
        other = context.reference[rows] != target
        after = context.painted(artefact.name, usual)
        turned, before = after.argmax(axis=1) == target, context.predicted[rows] == target
        fooled, steady = rows[turned & ~before & other], rows[~turned & other]
        area, meaning = context.area_in_sight(artefact.label, target)
        seen = area is not None and area[0] > 0
        if not seen:
            area = context.area_of(rows, turned & ~before)
            meaning = f"ground that would be called {name} if {artefact.label} lay on it" if area is not None else ""
        made = Hypothesis(
            rule=self.rule,
            concept=artefact.label,
            class_name=name,
            layer=layer,
            units=units,
            n=effect.n,
            p=effect.p,
            evidence=tuple(evidence),
            metric="reliance",
            value=effect.value,
            ci=effect.ci,
            prevalence=context.prevalence(artefact.label),
            spurious=True,
            why="an artefact of the sensor, the sky or the processing is no part of any class",
            examples=tuple(int(i) for i in fooled[:6]),
            counterexamples=tuple(int(i) for i in steady[:6]),
            area_ha=area,
            area_meaning=meaning,
            recommendation=sensor_advice(name, artefact, area, seen),
            title=headline(name, artefact.label, "artefact", effect.value),
            limitations=(
                f"Effects below {MIN_EFFECT:.0%} are not reported. A painted artefact stands in for a real one; at the "
                f"strengths {', '.join(f'{s:g}' for s in artefact.strengths)} it is as strong as is usual in practice."
            ),
        )
        called = [(logits[other].argmax(axis=1) == target).astype(float) for logits in (after, context.logits[rows])]
        context.null_tests.append(
            null_test(context, made, target, pairs=(rows[other], called[0], called[1]), effect=effect, ablation=drawn)
        )
        return made
