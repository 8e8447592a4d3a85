"""Does the network know a class by the look of the place where its images were gathered?

Ground is seen differently from place to place: another orbit, another angle, another day. Where a class was gathered in
one part of the ground, a network may learn how that part looks. The ladder: *association* of class and place in the
sample; *counterfactual*, the look of that part put onto images of other classes from elsewhere; *ablation* of the units
that carry it. The look is measured, not assumed: by how many per cent each band is brighter or darker there than in
images from elsewhere that are alike otherwise. Looks measured on the same pairs with the two sides changed at random are
put on beside it, so that nothing is made of noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dnd_core.images import ImageSet, ProbeImage, Subset
from dnd_core.store import fingerprint
from geoaudit.checks.base import AuditContext
from geoaudit.checks.carrying import painted_shift, towards
from geoaudit.checks.causal import Effect, ablation_holds, ablations, effect_of, points
from geoaudit.checks.pairing import FEWEST_PAIRS, Pairs, match
from geoaudit.checks.wording import lowers
from geoaudit.findings import BRUSH, Evidence, Hypothesis
from geoaudit.statistics import block_permutation

__all__ = ["LookImages", "gathered_classes"]

# Cuts that are tried along each axis, in shares of the images.
CUTS = np.linspace(0.15, 0.85, 29)
# A class is gathered where belonging to it and lying there correlate by so much.
GATHERED = 0.3
# Looks of chance that are put on beside the measured one; it must do more than each of them.
CHANCE_LOOKS = 10
# A band that is darker than this over a whole image says nothing about a look.
DARK = 1e-4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class LookImages(Subset):
    """The images of another set as if seen under another look: every band times a factor.

    Args:
        images: the set.
        look: (C,) factors.
    """

    def __init__(self, images: ImageSet, look: Floats) -> None:
        super().__init__(images, range(len(images)))
        self.look = look.astype(np.float32)[:, None, None]
        self.fingerprint = fingerprint([images.fingerprint, look.tolist()])

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        return np.asarray(super().pixels(indices) * self.look, dtype=np.float32)

    def __getitem__(self, index: int) -> ProbeImage:
        return replace(super().__getitem__(index), pixels=self.pixels([index])[0], key="")


@dataclass(frozen=True, eq=False)
class _Part:
    """One side of a cut through the ground, and what is known of a class there.

    Attributes:
        name: "western", "eastern", "southern" or "northern".
        inside: (images,) bool; images without a place are in no part.
        outside: (images,) bool.
        value, p: correlation of lying there and being of the class, and how often blocks changed at random reach it.
        share, others: share of the class's images that lie there, and of all other images.
    """

    name: str
    inside: Mask
    outside: Mask
    value: float
    p: float
    share: float
    others: float


def gathered_classes(context: AuditContext, rows: Ints, centres: Floats, blocks: Ints) -> list[Hypothesis]:
    """One hypothesis a class that was gathered in one part of the ground; none for classes that lie everywhere.

    Args:
        context: the audit; without captions nothing can be compared, and nothing is said.
        rows: (n,) labelled images with a place.
        centres: (n, 2) metres.
        blocks: (n,) ids.
    """
    layers = [info for info in context.layers if info.name != "output"]
    if context.caption_space is None or not layers or len(rows) < 2 * FEWEST_PAIRS:
        return []
    found = []
    for target in np.unique(context.reference[rows]):
        part = _gathered(context, int(target), rows, centres, blocks)
        if part is not None:
            made = _test(context, int(target), part, rows)
            found += [made] if made is not None else []
    return found


def _gathered(context: AuditContext, target: int, rows: Ints, centres: Floats, blocks: Ints) -> _Part | None:
    """The side of a straight cut, north to south or west to east, that a class keeps to; None where it keeps to none.

    The cut is the one that tells the class from the others best, and chance is given the same choice.
    """
    mine = context.reference[rows] == target
    if mine.all() or not mine.any():
        return None
    names, sides = [], []
    for axis, (low, high) in enumerate((("western", "eastern"), ("southern", "northern"))):
        for cut in np.unique(np.quantile(centres[:, axis], CUTS)):
            below = centres[:, axis] < cut
            if below.any() and not below.all():
                names += [low, high]
                sides += [below, ~below]
    if not sides:
        return None
    every = np.stack(sides, axis=1).astype(float)
    drawn = block_permutation(
        np.repeat(mine[:, None], every.shape[1], axis=1), every, blocks, n=context.draws, seed=context.seed
    )
    best = int(np.argmax(drawn.value))
    if drawn.value[best] < GATHERED:
        return None
    chance, side = drawn.null.max(axis=1), sides[best]
    inside, outside = np.zeros(len(context.images), dtype=bool), np.zeros(len(context.images), dtype=bool)
    inside[rows[side]], outside[rows[~side]] = True, True
    p = float((1 + (chance >= drawn.value[best] - 1e-12).sum()) / (1 + len(chance)))
    return _Part(
        names[best], inside, outside, float(drawn.value[best]), p, float(side[mine].mean()), float(side[~mine].mean())
    )


def _look(context: AuditContext, part: _Part, rows: Ints) -> tuple[Pairs, Floats] | None:
    """Pairs of like images from the part and from elsewhere, and (n, C) logarithms of how much brighter the first is.

    Of one class where there are enough such pairs, else whatever the class: the network's makers may have left none.
    """
    space = context.caption_space
    if space is None or context.captions is None:
        return None
    said = rows[np.array([bool(context.captions[int(i)]) for i in rows])]
    vectors = space.whole()
    pairs = match(vectors, part.inside, context.reference, said, context.seed)
    if pairs is None or len(pairs.shown) < FEWEST_PAIRS:
        pairs = match(vectors, part.inside, np.zeros_like(context.reference), said, context.seed)
    if pairs is None or len(pairs.shown) < FEWEST_PAIRS:
        return None
    bright = [
        np.concatenate(
            [np.maximum(context.images.pixels(b.tolist()).mean(axis=(2, 3)), DARK) for b in context.batches(side)]
        )
        for side in (pairs.shown, pairs.other)
    ]
    return pairs, np.log(bright[0].astype(np.float64)) - np.log(bright[1].astype(np.float64))


def _test(context: AuditContext, target: int, part: _Part, rows: Ints) -> Hypothesis | None:
    measured = _look(context, part, rows)
    asked = context.evaluated[part.outside[context.evaluated] & (context.reference[context.evaluated] != target)]
    if measured is None or len(asked) < FEWEST_PAIRS:
        return None
    pairs, ratios = measured
    look = np.exp(ratios.mean(axis=0))
    images = LookImages(context.images, look)
    before = (context.predicted[asked] == target).astype(float)
    after = _called(context, images, asked, target)
    effect = effect_of(context, asked, after, before)
    chance = _chance(context, ratios, asked, target) - before.mean() if effect.holds else np.zeros(0)
    evidence = [_sampled(context, part, target), _put_on(context, part, target, pairs, look, effect, chance)]
    info = [info for info in context.layers if info.name != "output"][-1]
    units: Ints = np.zeros(0, dtype=np.int64)
    if evidence[1].holds:
        shift, seen = painted_shift(context, info, images, asked)
        units = towards(context, info, shift, images, seen, [target])[target]
        (held,) = ablations(context, [{info.name: units.tolist()}], asked, images, level=np.flatnonzero(part.outside))
        if held is not None:
            everything = np.ones(len(asked), dtype=bool)
            own, gap = held.drop(context, target, everything)
            evidence.append(_ablated(context, part, target, info.name, units, own, gap))
    return _hypothesis(context, part, target, tuple(evidence), effect, asked, after, info.name, units)


def _called(context: AuditContext, images: ImageSet, rows: Ints, target: int) -> Floats:
    parts = [context.answer(images.pixels(batch.tolist())).argmax(axis=1) == target for batch in context.batches(rows)]
    return np.concatenate(parts).astype(float)


def _chance(context: AuditContext, ratios: Floats, rows: Ints, target: int) -> Floats:
    """(:data:`CHANCE_LOOKS`,) share called the class under looks measured with each pair's sides changed at random."""
    signs = np.random.default_rng([context.seed, 29, target]).choice([-1.0, 1.0], size=(CHANCE_LOOKS, len(ratios), 1))
    looks = np.exp((signs * ratios[None]).mean(axis=1))
    return np.array([_called(context, LookImages(context.images, look), rows, target).mean() for look in looks])


def _sampled(context: AuditContext, part: _Part, target: int) -> Evidence:
    name = context.class_names[target]
    return Evidence(
        1,
        "sampling",
        f"{part.share:.0%} of the images of {name} lie in the {part.name} part of the ground, against {part.others:.0%} of all "
        f"others (r {part.value:.2f}, p {part.p:.3f}).",
        part.value,
        (float("nan"), float("nan")),
        part.p,
        "classes changed between blocks",
        part.p <= 0.05,
    )


def _put_on(
    context: AuditContext, part: _Part, target: int, pairs: Pairs, look: Floats, effect: Effect, chance: Floats
) -> Evidence:
    name, channels = context.class_names[target], context.images.channels
    order = np.argsort(-np.abs(np.log(look)), kind="stable")[:3]
    bands = ", ".join(f"{channels[i]} {look[i] - 1:+.0%}" for i in order)
    beside = f"; looks of chance by at most {points(float(chance.max()))}" if len(chance) else ""
    return Evidence(
        2,
        BRUSH,
        f"Giving {effect.n} images from elsewhere that are not {name} the look of the {part.name} part ({bands}; measured on "
        f"{len(pairs.shown)} pairs of images with like captions) raises the share called {name} by {points(effect.value)} "
        f"(95 % interval {points(effect.ci[0])} to {points(effect.ci[1])}{beside}).",
        effect.value,
        effect.ci,
        effect.p,
        "the same images as they are; block sign flips; looks of chance",
        effect.holds and bool(effect.value > chance.max(initial=-1.0)),
    )


def _ablated(
    context: AuditContext, part: _Part, target: int, layer: str, units: Ints, own: Effect, gap: Effect
) -> Evidence:
    name = context.class_names[target]
    return Evidence(
        3,
        "ablation",
        f"Holding the {len(units)} units of {layer} that carry most of that look to {name} at their mean elsewhere "
        f"{lowers(own.value)} the share called {name} among these images by {points(abs(own.value))}; the share is "
        f"{points(gap.value)} lower than where matched random units are held (95 % interval {points(gap.ci[0])} to "
        f"{points(gap.ci[1])}).",
        gap.value,
        gap.ci,
        gap.p,
        "random units matched in number and activation norm",
        ablation_holds(own, gap),
    )


def _hypothesis(
    context: AuditContext,
    part: _Part,
    target: int,
    evidence: tuple[Evidence, ...],
    effect: Effect,
    asked: Ints,
    after: Floats,
    layer: str,
    units: Ints,
) -> Hypothesis:
    name = context.class_names[target]
    # Ground of that part that is called the class, wrongly first.
    inside = np.flatnonzero(part.inside & (context.predicted == target))
    examples = inside[np.argsort(context.reference[inside] == target, kind="stable")]
    placed = np.flatnonzero(part.inside | part.outside)
    called = part.inside[placed] & (context.predicted[placed] == target)
    area = context.area_of(placed, called, np.ones(len(placed)))
    meaning = f"ground called {name} in the {part.name} part" if area is not None else ""
    return Hypothesis(
        rule="geography",
        concept=f"the look of the {part.name} part",
        class_name=name,
        layer=layer if len(units) else "",
        units=tuple(f"{layer}/{int(unit)}" for unit in units),
        n=effect.n,
        p=effect.p,
        evidence=evidence,
        metric="reliance",
        value=effect.value,
        ci=effect.ci,
        prevalence=float(part.inside.sum() / max(1, len(placed))),
        spurious=True,
        why="a class is what covers the ground, wherever it lies",
        examples=tuple(examples[:6].tolist()),
        counterexamples=tuple(int(i) for i in asked[after == 0][:6]),
        area_ha=area,
        area_meaning=meaning,
        recommendation=(
            f"Gather {name} outside the {part.name} part too, or bring all scenes to one look before training, and retrain. Until "
            f"then check {name} there against the ground. Run this audit again afterwards."
        ),
        title=f"{name} is predicted wherever the ground looks as in the {part.name} part",
        limitations=(
            "The look is one factor a band, measured on pairs of images that captions say to be alike; what captions do not say "
            "may differ in them too. Only straight cuts from north to south and from west to east were tried."
        ),
    )
