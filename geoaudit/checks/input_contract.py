"""Does the network get the input it was trained on?

Bands, units, classes and size are compared by :func:`geoaudit.probes.contract.check_contract`, and the card's band order
with the one that pretrained weights list of themselves. Then the network itself is asked: the first batch normalisations
remember mean and variance of what they were trained on (Ioffe and Szegedy 2015), and data scaled otherwise, with bands
swapped or with zeros for missing data shift them. Status ``fail`` for a mismatch that makes results wrong,
``inconclusive`` where one is likely: no other check can be believed before that is settled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ProbeError
from geoaudit.checks.base import AuditContext
from geoaudit.findings import CheckResult, CheckStatus

__all__ = ["InputContract", "NormShift", "nodata_share", "norm_shifts"]

# A layer is far from its training data when half its channels lie beyond these.
FAR_MEAN = 1.0
FAR_RATIO = 4.0
FIRST = 3
IMAGES = 256
# Zeros in every band over more than this share of the pixels, not marked as invalid, pass for dark ground.
ZEROS = 0.01


@dataclass(frozen=True)
class NormShift:
    """How far the data lie from what a batch normalisation remembers.

    Attributes:
        layer: its dotted path.
        mean: median over channels of the distance of means, in remembered standard deviations.
        ratio: median over channels of the data's variance over the remembered one. Below 1 is no fault: training with
            painted artefacts remembers more than clean data show.
    """

    layer: str
    mean: float
    ratio: float

    @property
    def far(self) -> bool:
        """Whether half the channels are beyond what training can have shown."""
        return self.mean > FAR_MEAN or self.ratio > FAR_RATIO


def norm_shifts(context: AuditContext, rows: NDArray[np.int64], first: int = FIRST) -> list[NormShift]:
    """Distance of the data from the memory of the first batch normalisations, in the order they run.

    Args:
        context: the audit.
        rows: image indices to run.
        first: how many of them.

    Returns:
        Empty where the network has none that keeps running statistics.
    """
    import torch
    from torch import nn

    sums: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}
    named = {
        name: module
        for name, module in context.network.module.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    }

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if name not in sums and len(sums) >= first:
                return
            values = inputs[0].double()
            total, squared, count = sums.get(name, (0.0, 0.0, 0))
            size = values.shape[0] * values.shape[2] * values.shape[3]
            sums[name] = (total + values.sum((0, 2, 3)), squared + (values**2).sum((0, 2, 3)), count + size)

        return named[name].register_forward_pre_hook(hook)

    handles = [watch(name) for name in named]
    try:
        for batch in context.batches(rows):
            context.answer(context.images.pixels(batch.tolist()))
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for name, (total, squared, count) in sums.items():
        mean = total / count
        variance = (squared / count - mean**2).clamp_min(0).numpy()
        kept, kept_variance = named[name].running_mean, named[name].running_var
        if kept is None or kept_variance is None:
            continue
        remembered = kept_variance.double().numpy() + named[name].eps
        apart = np.abs(mean.numpy() - kept.double().numpy()) / np.sqrt(remembered)
        here = variance + named[name].eps
        found.append(
            NormShift(
                name,
                float(np.median(apart)),
                float(np.median(here / remembered)),
            )
        )
    return found


def nodata_share(context: AuditContext, rows: NDArray[np.int64]) -> float:
    """Share of pixels that are 0 in every band and not marked as invalid, in [0, 1]."""
    zeros = total = 0
    for index in rows.tolist():
        image = context.images[index]
        empty = (image.pixels == 0).all(axis=0)
        valid = np.ones_like(empty) if image.valid is None else image.valid
        zeros += int((empty & valid).sum())
        total += empty.size
    return zeros / max(1, total)


class InputContract:
    """Bands, scaling, missing data and remembered statistics."""

    rule = "input-contract"
    title = "Input unlike what the network was trained on"
    needs: tuple[str, ...] = ("bands",)
    cost = f"one pass over at most {IMAGES} images"
    null = "statistics remembered by the network's first batch normalisations"

    def run(self, context: AuditContext) -> CheckResult:
        """Compare what is given with what is expected and remembered."""
        from geoaudit.probes.contract import check_contract

        rows = np.unique(np.linspace(0, len(context.images) - 1, min(IMAGES, len(context.images))).astype(np.int64))
        wrong: list[str] = []
        doubtful: list[str] = []
        try:
            notes = check_contract(context.network, context.images)
        except ProbeError as error:
            doubtful.append(str(error))
        else:
            wrong += [note.message for note in notes if note.severity == "error"]
            doubtful += [note.message for note in notes if note.severity == "warning"]
        if doubt := self._weights_doubt(context):
            doubtful.append(doubt)
        shifts = norm_shifts(context, rows)
        for shift in shifts:
            if shift.far:
                doubtful.append(
                    f"{shift.layer} remembers other data: its inputs lie {shift.mean:.1f} standard deviations off and "
                    f"their variance is {shift.ratio:.1f}-fold; check scaling, band order and offset"
                )
        zeros = nodata_share(context, rows)
        if zeros > ZEROS:
            doubtful.append(f"{zeros:.0%} of the pixels are 0 in every band and pass for ground; mark them as nodata")
        said = wrong + doubtful
        worst = max(shifts, key=lambda shift: (shift.mean, shift.ratio), default=None)
        facts = (
            f"the first {len(shifts)} batch normalisations get inputs at most {worst.mean:.2f} standard deviations from what "
            f"they remember, with at most {max(shift.ratio for shift in shifts):.2f} of its variance (medians over channels)"
            if worst is not None
            else "the network keeps no batch statistics to compare with"
        )
        status: CheckStatus = "fail" if wrong else "inconclusive" if doubtful else "pass"
        reason = (
            "; ".join(said) if said else f"bands, units, size and classes agree; {facts}; {zeros:.1%} unmarked zeros"
        )
        tested = 3 + len(shifts)
        return CheckResult(self.rule, self.title, status, reason, tested, self.null, self.cost)

    def _weights_doubt(self, context: AuditContext) -> str:
        """Whether the pretrained weights list their bands in another order than the card."""
        from geoaudit.checks.pretraining import band_doubt
        from geoaudit.networks import Preprocess

        preprocess = context.network.preprocess
        return band_doubt(context.card, preprocess.bands) if isinstance(preprocess, Preprocess) else ""
