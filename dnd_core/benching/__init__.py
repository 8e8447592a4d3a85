"""A bench of labels for any network: measures with intervals, their sanity tests, comparators, and planted units.

    scores = score_labels(activations, presence, labelled)      # simulation r, AUPRC, F1, IoU with intervals
    sanity_tests(activations, truth)                            # does each measure notice wrong labels?
    network, layer = plant(network, "layer2", 48, units)        # units of known truth inside a real network

What is particular to satellites stands in ``geoaudit.bench``.
"""

from dnd_core.benching.caching import CachedCaptioner
from dnd_core.benching.comparators import (
    clip_dissect,
    constant_labels,
    dissection_iou,
    random_labels,
    shuffled_labels,
)
from dnd_core.benching.metrics import (
    PRIMARY,
    SECONDARY,
    Estimate,
    LabelScores,
    estimate,
    primary,
    score_labels,
    secondary,
)
from dnd_core.benching.planting import plant
from dnd_core.benching.sanity import TESTS, SanityResult, sanity_tests

__all__ = [
    "PRIMARY",
    "SECONDARY",
    "TESTS",
    "CachedCaptioner",
    "Estimate",
    "LabelScores",
    "SanityResult",
    "clip_dissect",
    "constant_labels",
    "dissection_iou",
    "estimate",
    "plant",
    "primary",
    "random_labels",
    "sanity_tests",
    "score_labels",
    "secondary",
    "shuffled_labels",
]
