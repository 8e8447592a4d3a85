"""The linear head of a classifier as a value: found, pruned exactly, or trained anew on given features.

Where a linear layer reads the spatial means of a layer's units, holding a unit at its mean changes the logits by a
constant. So pruning needs no hook: the unit's weights become 0 and what they added at the mean goes into the bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnd_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LinearHead", "find_head", "train_head"]

Floats = NDArray[np.float64]

# Weights of the penalty tried, from strong to weak; a blocked cross-validation chooses.
PENALTIES = (0.001, 0.01, 0.1, 1.0)
FOLDS = 4


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Logits as a linear function of a layer's pooled units.

    Attributes:
        name: dotted path of the linear layer.
        weight: (classes, units).
        bias: (classes,).
        biased: whether the layer has a bias of its own to change.
    """

    name: str
    weight: Floats
    bias: Floats
    biased: bool = True

    def __call__(self, features: ArrayLike) -> Floats:
        """(n, classes) logits of (n, units) features."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)

    def pruned(self, units: Sequence[int], means: ArrayLike) -> LinearHead:
        """The head for which these units stand still at their means.

        Args:
            units: indices of the units.
            means: (units,) means of all units of the layer.

        Raises:
            ConfigError: the layer has no bias to take up what the units add at their means.
        """
        if not self.biased:
            raise ConfigError(
                f"the layer {self.name} has no bias, so units cannot be held at their means in its weights"
            )
        chosen = np.asarray(units, dtype=np.int64)
        weight = self.weight.copy()
        weight[:, chosen] = 0.0
        held = self.weight[:, chosen] @ np.asarray(means, dtype=np.float64)[chosen]
        return LinearHead(self.name, weight, self.bias + held)


def find_head(module: nn.Module, features: ArrayLike, logits: ArrayLike) -> LinearHead | None:
    """The linear layer that turns a layer's pooled activations into the logits, or None.

    It counts only if it reproduces the logits from the recorded activations.

    Args:
        module: the network.
        features: (n, units) pooled activations.
        logits: (n, classes) the network's answers on the same images.
    """
    from torch import nn

    values, answers = np.asarray(features, dtype=np.float64), np.asarray(logits, dtype=np.float64)
    for name, layer in reversed(list(module.named_modules())):
        if not isinstance(layer, nn.Linear):
            continue
        if (layer.out_features, layer.in_features) != (answers.shape[1], values.shape[1]):
            continue
        weight = layer.weight.detach().cpu().double().numpy()
        biased = layer.bias is not None
        bias = layer.bias.detach().cpu().double().numpy() if biased else np.zeros(len(weight))
        head = LinearHead(name, np.asarray(weight), np.asarray(bias), biased)
        if np.allclose(head(values), answers, rtol=1e-3, atol=1e-3 * float(np.abs(answers).max())):
            return head
    return None


def train_head(
    name: str,
    features: ArrayLike,
    labels: ArrayLike,
    classes: int,
    blocks: ArrayLike | None,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> tuple[LinearHead, float]:
    """A logistic regression on features, its penalty chosen by a spatially blocked cross-validation.

    Args:
        name: of the layer it stands for.
        features: (n, units) pooled activations of clean and painted images.
        labels: (n,) classes; every one of ``classes`` must occur.
        classes: how many.
        blocks: (n,) spatial blocks; copies of one image share its block. None: every row is its own.
        seed: of the folds.
        weights: (n,) how much each row counts; all alike when None.

    Returns:
        The head, and the inverse penalty chosen.

    Raises:
        ConfigError: a class has no image to train on.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    lacking = sorted(set(range(classes)) - set(y.tolist()))
    if lacking:
        raise ConfigError(f"class number {lacking[0]} has no labelled image to train a head on: give more images")
    place = np.arange(len(y)) if blocks is None else np.asarray(blocks)
    heavy = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    spread = x.std(axis=0)
    scale, mean = np.where(spread > 1e-9, spread, 1.0), x.mean(axis=0)
    scaled = (x - mean) / scale

    def fit(rows: NDArray[np.int64], penalty: float) -> LogisticRegression:
        with warnings.catch_warnings():
            # Which penalty wins does not hang on the last digits of the weights.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=penalty, max_iter=500).fit(scaled[rows], y[rows], heavy[rows])

    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    count = min(FOLDS, len(np.unique(place)), int(np.bincount(y).min()))
    if count >= 2:
        found = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(scaled, y, place)
        folds = [(train, test) for train, test in found if len(np.unique(y[train])) > 1]
    right = [sum(heavy[b] @ (fit(a, c).predict(scaled[b]) == y[b]) for a, b in folds) for c in PENALTIES]
    chosen = PENALTIES[int(np.argmax(right))]
    model = fit(np.arange(len(y)), chosen)
    weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if classes == 2:
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.r_[0.0, bias]
    weight = weight / scale
    return LinearHead(name, weight, bias - weight @ mean), chosen
