"""How much more a unit's captions say something than other captions do, for many statements at once.

A statement is true or false of a caption, so a few numbers are all that is needed of it: how many of a unit's captions
it is true of and with what weight, how many other captions, and, over captions of the probe at large, how many and with
what sum of the unit's activations. Each is additive over captions: the numbers of "A and B", "A or B", "A without B"
and "no A" follow from those of A, of B and of both, which is one matrix product for all pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tally", "Weighing"]

Floats = NDArray[np.float64]

# One nat for a third of a correlation: on a few hundred captions a correlation is sharper evidence than ten
# captions are, but it says nothing of what is too rare to be among them.
_CORRELATION = 3.0
# Fewer captions than this make no correlation.
_FEWEST = 3


@dataclass(frozen=True)
class Tally:
    """The additive numbers of some statements, all arrays of one shape.

    Attributes:
        share: weight of the unit's captions it is true of, in [0, 1].
        count: number of the unit's captions it is true of.
        others: number of other captions it is true of.
        sampled: number of background captions it is true of.
        fired: sum of the standardised activation over those.

    """

    share: Floats
    count: Floats
    others: Floats
    sampled: Floats
    fired: Floats

    @property
    def parts(self) -> tuple[Floats, ...]:
        return self.share, self.count, self.others, self.sampled, self.fired

    def __sub__(self, other: Tally) -> Tally:
        return Tally(*(mine - theirs for mine, theirs in zip(self.parts, other.parts, strict=True)))

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(mine + theirs for mine, theirs in zip(self.parts, other.parts, strict=True)))

    def map(self, change: Callable[[Floats], Floats]) -> Tally:
        """The same change made to each array, such as taking a diagonal."""
        return Tally(*(change(part) for part in self.parts))


class Weighing:
    """The captions of one evidence, ready to weigh statements.

    Args:
        weights: (K,) of the unit's captions, adding up to 1.
        others: number of other captions.
        activations: (B,) of the unit on the background captions' images, or empty.

    """

    def __init__(self, weights: Floats, others: int, activations: Floats) -> None:
        self.weights, self.others = weights, others
        centred = activations - activations.mean() if len(activations) else activations
        spread = float(np.sqrt((centred**2).mean())) if len(centred) else 0.0
        # A unit that answers the same to every sampled image cannot be told from them; its top captions speak alone.
        self.standard = centred / spread if spread > 1e-9 else centred[:0]

    @property
    def everything(self) -> Tally:
        """The statement that is true of every caption."""
        totals = (1.0, len(self.weights), self.others, len(self.standard), 0.0)
        return Tally(*(np.asarray(total, dtype=np.float64) for total in totals))

    def pairs(self, own: NDArray[np.bool_], others: NDArray[np.bool_], sampled: NDArray[np.bool_]) -> Tally:
        """Numbers of "A and B" for all pairs of P phrases, as (P, P) arrays; A alone is on the diagonal.

        Args:
            own: (K, P) which of the unit's captions hold which phrase.
            others: (M, P) the same for other captions.
            sampled: (B, P) the same for background captions.
        """
        mine, theirs = own.astype(np.float64), others.astype(np.float64)
        seen = sampled[: len(self.standard)].astype(np.float64)
        return Tally(
            share=mine.T @ (self.weights[:, None] * mine),
            count=mine.T @ mine,
            others=theirs.T @ theirs,
            sampled=seen.T @ seen,
            fired=seen.T @ (self.standard[:, None] * seen),
        )

    def gain(self, tally: Tally) -> Floats:
        """Nats for the divergence of a statement's share from its share elsewhere, and for its correlation.

        Negative where the statement is rarer among the unit's captions than elsewhere.
        """
        # Half a caption of each answer: what was never seen elsewhere is rare, not impossible.
        elsewhere = (tally.others + 0.5) / (self.others + 1.0)
        share = np.clip(tally.share, 1e-12, 1 - 1e-12)
        divergence = share * np.log(share / elsewhere) + (1 - share) * np.log((1 - share) / (1 - elsewhere))
        return np.asarray(np.where(share >= elsewhere, divergence, -divergence) + _CORRELATION * self.r(tally))

    def r(self, tally: Tally) -> Floats:
        """Pearson correlation of a statement's truth with the activation over background captions; 0 where unknown."""
        n = max(len(self.standard), 1)
        rate = tally.sampled / n
        known = (tally.sampled >= _FEWEST) & (tally.sampled <= n - _FEWEST)
        spread = np.sqrt(np.where(known, rate * (1 - rate), 1.0))
        return np.asarray(np.where(known, tally.fired / n / spread, 0.0))
