"""Does the ground around the labelled region decide the class more than the labelled region itself?

The surroundings of pairs of images change places. What the swap moves the class by is shared out between centre and
surroundings as Shapley's value of a game of two players does it (Shapley 1953): exact, and adding up to the whole. A
network that looks at every pixel alike gives the surroundings their share of the area, so only what goes beyond that
counts as leaning on them. Counterfactual compositing as in the background challenge of Xiao et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import ImageSet, Subset
from geoaudit.checks.base import AuditContext
from geoaudit.checks.causal import MIN_EFFECT, Effect, points, reliance
from geoaudit.checks.wording import area_words
from geoaudit.findings import CheckResult, CheckStatus, Evidence, Hypothesis
from geoaudit.paired import paired_difference
from geoaudit.statistics import block_bootstrap, bootstrap_interval

__all__ = ["Context", "Surroundings", "swap_surroundings"]

FEWEST_PAIRS = 20
# A region that leaves less than this of the image on either side cannot be told from its surroundings.
LEAST_PART = 0.05

Bools = NDArray[np.bool_]


def _mask(images: ImageSet, index: int) -> NDArray[np.int64] | None:
    """Pixel labels of an image, asked of the set below any number of subsets."""
    below: Any = images
    while isinstance(below, Subset):
        below, index = below.images, int(below.indices[index])
    ask = getattr(below, "mask", None)
    return ask(index) if callable(ask) else None


def labelled_regions(context: AuditContext, rows: NDArray[np.int64]) -> tuple[Bools, str]:
    """Which pixels the label of each image speaks of, and how that is known, in words.

    Args:
        context: the audit.
        rows: (n,) image indices.

    Returns:
        (n, H, W) bool; the central half of every image where no set says more.
    """
    height, width = context.images.shape[1:]
    centre = np.zeros((height, width), dtype=bool)
    centre[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    regions = np.broadcast_to(centre, (len(rows), height, width)).copy()
    known = 0
    for place, index in enumerate(rows.tolist()):
        mask = _mask(context.images, index)
        if mask is not None:
            own = mask == context.reference[index]
            if LEAST_PART <= own.mean() <= 1 - LEAST_PART:
                regions[place], known = own, known + 1
    if known == len(rows):
        return regions, "pixel labels say where the class lies"
    if known:
        return regions, f"pixel labels say where the class lies in {known} of {len(rows)} images, else the central half"
    return regions, "no pixel labels say where the class lies, so the central half of each side was taken"


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Pairs of images whose surroundings changed places.

    Attributes:
        hosts, donors: (n,) image indices; a donor's predicted class is another than its host's.
        moved: (n, classes) logits of the host's centre in the donor's surroundings.
        centred: (n, classes) logits of the donor's centre in the host's surroundings.
        plain: (n, classes) logits of the host's centre in the mean surroundings of all images.
        area: (n,) share of the image that is surroundings, in (0, 1).
        source: how the labelled region is known.
    """

    hosts: NDArray[np.int64]
    donors: NDArray[np.int64]
    moved: NDArray[np.float32]
    centred: NDArray[np.float32]
    plain: NDArray[np.float32]
    area: NDArray[np.float64]
    source: str

    def parts(self, context: AuditContext) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the surroundings add to the donor's class over the host's, and what the whole swap adds; (n,) logits."""
        own, other = context.predicted[self.hosts], context.predicted[self.donors]

        def margin(logits: NDArray[np.float32]) -> NDArray[np.float64]:
            rows = np.arange(len(own))
            return np.asarray(logits[rows, other].astype(np.float64) - logits[rows, own])

        before, after = margin(context.logits[self.hosts]), margin(context.logits[self.donors])
        around = ((margin(self.moved) - before) + (after - margin(self.centred))) / 2
        return np.asarray(around), np.asarray(after - before)


def _donors(context: AuditContext) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A donor for each evaluated image: of another predicted and true class, of another block where there is one."""
    rng = np.random.default_rng([context.seed, 11])
    rows, pairs = context.evaluated, []
    kinds = np.unique(context.predicted[rows])
    for host in rows.tolist():
        others = kinds[kinds != context.predicted[host]]
        if not len(others):
            break
        target = int(rng.choice(others))
        possible = rows[(context.predicted[rows] == target) & (context.reference[rows] != context.reference[host])]
        if context.blocks is not None and len(far := possible[context.blocks[possible] != context.blocks[host]]):
            possible = far
        if len(possible):
            pairs.append((host, int(rng.choice(possible))))
    found = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def swap_surroundings(context: AuditContext) -> Surroundings | None:
    """Run the pairs through the network; None where there are too few."""
    hosts, donors = _donors(context)
    if len(hosts) < FEWEST_PAIRS:
        return None
    regions, source = labelled_regions(context, hosts)
    average = np.mean(
        [context.images.pixels(rows.tolist()).mean(axis=0) for rows in context.batches(context.evaluated)], axis=0
    ).astype(np.float32)
    moved, centred, plain = [], [], []
    places = np.arange(len(hosts))
    for batch in context.batches(places):
        host, donor = context.images.pixels(hosts[batch].tolist()), context.images.pixels(donors[batch].tolist())
        inside = regions[batch][:, None]
        moved.append(context.answer(np.where(inside, host, donor)))
        centred.append(context.answer(np.where(inside, donor, host)))
        plain.append(context.answer(np.where(inside, host, average)))
        context.report("context", int(batch[-1]) + 1, len(hosts))
    return Surroundings(
        hosts,
        donors,
        np.concatenate(moved),
        np.concatenate(centred),
        np.concatenate(plain),
        1 - regions.mean(axis=(1, 2)),
        source,
    )


class Context:
    """Every class against its surroundings, grade 2."""

    rule = "context"
    title = "Class decided by what lies around the labelled ground"
    needs: tuple[str, ...] = ("classes",)
    cost = "three passes over the evaluated images"
    null = "surroundings decide in proportion to their share of the area"

    def run(self, context: AuditContext) -> CheckResult:
        """Swap surroundings and weigh them, class by class."""
        found = swap_surroundings(context)
        if found is None:
            reason = f"fewer than {FEWEST_PAIRS} pairs of images of different predicted classes"
            return CheckResult(self.rule, self.title, "inconclusive", reason, 0, self.null, self.cost)
        around, whole = found.parts(context)
        hypotheses = tuple(
            hypothesis
            for target in range(len(context.class_names))
            if (hypothesis := self._test(context, found, around, whole, target)) is not None
        )
        leaning = [h.class_name for h in hypotheses if h.evidence[0].holds]
        total, low, high = self._share(context, found, around, whole, np.ones(len(around), dtype=bool))
        reason = (
            f"surroundings carry {total:.0%} of the evidence (95 % interval {low:.0%} to {high:.0%}) on "
            f"{found.area.mean():.0%} of the area; {self._accuracy(context, found)}; "
            f"{', '.join(leaning) or 'no class'} leans on them beyond their area; {found.source}"
        )
        status: CheckStatus = "fail" if leaning else "pass"
        return CheckResult(
            self.rule, self.title, status, reason, len(hypotheses), self.null, self.cost, tuple(hypotheses)
        )  # fmt: skip

    def _share(
        self,
        context: AuditContext,
        found: Surroundings,
        around: NDArray[np.float64],
        whole: NDArray[np.float64],
        mask: Bools,
    ) -> tuple[float, float, float]:
        """Share of the evidence that lies in the surroundings, of sums over pairs, and its 95 % interval."""
        draws, count = self._draws(context, found, np.column_stack([around, whole]), mask)
        low, high = bootstrap_interval(draws[:, 0] / draws[:, 1], 0.95, count)
        return float(around[mask].sum() / whole[mask].sum()), float(low), float(high)

    def _draws(
        self, context: AuditContext, found: Surroundings, values: NDArray[np.float64], mask: Bools
    ) -> tuple[NDArray[np.float64], int]:
        # A class's donors come from few blocks, often fewer than the hosts do: theirs is the scarcer evidence.
        blocks = context.blocks_of(found.donors[mask])
        draws = block_bootstrap(values[mask], blocks, n=context.draws, seed=context.seed)
        return draws, int(mask.sum()) if blocks is None else len(np.unique(blocks))

    def _accuracy(self, context: AuditContext, found: Surroundings) -> str:
        truth = context.reference[found.hosts]
        before = (context.predicted[found.hosts] == truth).astype(float)
        said = []
        for logits, words in ((found.moved, "another image's"), (found.plain, "the mean")):
            after = (logits.argmax(axis=1) == truth).astype(float)
            change = paired_difference(
                after, before, context.blocks_of(found.hosts), n=context.draws, seed=context.seed
            ).estimate
            said.append(
                f"{after.mean():.0%} in {words} surroundings (by {points(change.low)} to {points(change.high)})"
            )
        return f"accuracy {before.mean():.0%}, " + ", ".join(said)

    def _test(
        self,
        context: AuditContext,
        found: Surroundings,
        around: NDArray[np.float64],
        whole: NDArray[np.float64],
        target: int,
    ) -> Hypothesis | None:
        mask = (context.predicted[found.donors] == target) & (context.reference[found.hosts] != target)
        if mask.sum() < FEWEST_PAIRS:
            return None
        name = context.class_names[target]
        share, low, high = self._share(context, found, around, whole, mask)
        around_it = float(found.area[mask].mean())
        hosts = found.hosts[mask]
        effect = reliance(context, hosts, context.logits[hosts], found.moved[mask], target)
        excess = around - (found.area + MIN_EFFECT) * whole
        draws, _ = self._draws(context, found, excess[:, None], mask)
        p = max(effect.p, float((1 + (draws[:, 0] <= 0).sum()) / (1 + len(draws))))
        holds = effect.holds and low > around_it + MIN_EFFECT
        turned = (found.moved[mask].argmax(axis=1) == target) & (context.predicted[hosts] != target)
        hanging = (context.predicted[found.hosts] == target) & (found.moved.argmax(axis=1) != target)
        area = context.area_of(found.hosts, hanging)
        return Hypothesis(
            rule=self.rule,
            concept=f"the surroundings of {name}",
            class_name=name,
            layer="",
            units=(),
            n=effect.n,
            p=p,
            evidence=(self._evidence(name, effect, share, (low, high), around_it, holds),),
            metric="reliance",
            value=effect.value,
            ci=effect.ci,
            prevalence=None,
            spurious=True,
            why=f"the label of an image speaks of the region inside, not of what lies around it; {found.source}",
            examples=tuple(int(i) for i in hosts[turned][:6]),
            counterexamples=tuple(int(i) for i in hosts[~turned][:6]),
            area_ha=area,
            area_meaning=f"ground called {name} that is called otherwise in other surroundings" if area else "",
            recommendation=(
                f"Train {name} in other surroundings (crop tighter, swap surroundings between images), or label what "
                f"the whole image shows{f'; check the {area_words(area)} that hang on them' if area else ''}. Run this audit "
                "again afterwards."
            ),
            title=f"{name} is decided by what lies around the labelled ground",
            limitations="Composites have an edge that real images lack; both halves of each pair have the same one.",
        )

    def _evidence(
        self, name: str, effect: Effect, share: float, ci: tuple[float, float], area: float, holds: bool
    ) -> Evidence:
        return Evidence(
            2,
            "swapped surroundings",
            f"Putting {effect.n} images that are not {name} into the surroundings of {name} raises the share called {name} by "
            f"{points(effect.value)} (95 % interval {points(effect.ci[0])} to {points(effect.ci[1])}). "
            f"{share:.0%} of the evidence for {name} lies outside the labelled region ({ci[0]:.0%} to {ci[1]:.0%}), "
            f"which is {area:.0%} of the image.",
            effect.value,
            effect.ci,
            effect.p,
            self.null,
            holds,
        )
