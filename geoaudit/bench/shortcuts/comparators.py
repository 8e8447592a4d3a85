"""What else people use to find shortcuts, in our own words behind one interface, on the same images and networks.

Each looks at one network on its makers' imagery and answers with suspicions: words, a class and a score, most suspicious
first. None of them is tuned here; the first suspicion's score is the run's score, as our highest finding is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network
from geoaudit.definitions import NUISANCES

__all__ = ["COMPARATORS", "Material", "Suspicion"]

Floats = NDArray[np.float64]
LEAST_SUPPORT = 5
SLICES = 10


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One thing a method would warn of: words, the class concerned, and how strongly."""

    words: str
    class_name: str
    score: float


@dataclass(frozen=True, eq=False)
class Material:
    """What every method gets to see.

    Attributes:
        network: the network.
        images: N probe images.
        layers: the layers described.
        captions: N captions.
        labels: (N,) true classes.
        logits: (N, classes).
        features: (N, units) activations of the last layer before the output.
        neurons: the described units: ``layer``, ``unit``, ``label``, ``status``.
        class_names: names of the classes.
        seed: of every draw.
    """

    network: Network
    images: ImageSet
    layers: tuple[LayerInfo, ...]
    captions: Sequence[str]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    neurons: pd.DataFrame
    class_names: tuple[str, ...]
    seed: int
    clauses: list[set[str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", [_clauses(caption) for caption in self.captions])

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) class of highest logit."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)


def _clauses(caption: str) -> set[str]:
    """The statements of a caption without their extents: "thin haze over all of the tile" is "thin haze"."""
    return {part.partition(" over ")[0].strip() for part in caption.split(",") if part.strip()}


def _sorted(found: list[Suspicion]) -> list[Suspicion]:
    return sorted(found, key=lambda s: (-s.score, s.words, s.class_name))


def image_properties(material: Material) -> list[Suspicion]:
    """How well one number of an image tells one class from the rest, as data-quality checkers do (cleanlab's Datalab).

    Score: 2 |AUC - 1/2| of the property for the label.
    """
    from scipy.stats import rankdata

    found = []
    for words, values in _properties(material.images).items():
        ranks = rankdata(values)
        for target, name in enumerate(material.class_names):
            mine = material.labels == target
            if min(mine.sum(), (~mine).sum()) < LEAST_SUPPORT:
                continue
            wins = ranks[mine].sum() - mine.sum() * (mine.sum() + 1) / 2
            auc = float(wins / (mine.sum() * (~mine).sum()))
            found.append(Suspicion(words, name, 2 * abs(auc - 0.5)))
    return _sorted(found)


def _properties(images: ImageSet) -> Mapping[str, Floats]:
    rows: dict[str, list[float]] = {
        "brightness offset": [], "low contrast haze": [], "blur": [], "colour cast": [], "nodata": [], "low information": [],
    }  # fmt: skip
    for index in range(len(images)):
        picture = images[index].rgb.astype(np.float64) / 255
        grey = picture.mean(axis=2)
        channels = picture.mean(axis=(0, 1))
        counts = np.bincount((grey * 31).astype(int).ravel(), minlength=32) / grey.size
        laplace = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
        rows["brightness offset"].append(float(np.quantile(grey, 0.05)))
        rows["low contrast haze"].append(float(grey.std()))
        rows["blur"].append(float(laplace.std() / max(grey.std(), 1e-6)))
        rows["colour cast"].append(float(channels[0] / max(channels.sum(), 1e-6)))
        rows["nodata"].append(float((picture == 0).all(axis=2).mean()))
        rows["low information"].append(float(-(counts[counts > 0] * np.log(counts[counts > 0])).sum()))
    return {name: np.array(values) for name, values in rows.items()}


def error_keywords(material: Material) -> list[Suspicion]:
    """Caption statements of images wrongly called a class against those rightly classified (Bias-to-Text, Kim et al. 2024).

    Score: share among the wrong less share among the right.
    """
    found, predicted = [], material.predicted
    right = predicted == material.labels
    for target, name in enumerate(material.class_names):
        wrong = (predicted == target) & ~right
        # Few images are wrong on imagery that the network was trained with; fewer than this say nothing.
        if wrong.sum() < LEAST_SUPPORT or not right.any():
            continue
        for words in sorted(set().union(*(material.clauses[i] for i in np.flatnonzero(wrong)))):
            holds = np.array([words in clauses for clauses in material.clauses])
            found.append(Suspicion(words, name, float(holds[wrong].mean() - holds[right].mean())))
    return _sorted(found)


def error_slices(material: Material) -> list[Suspicion]:
    """Slices of the feature space on which the network errs, named by their captions (Domino, Eyuboglu et al. 2022).

    A mixture over features, label and answer; a slice's score is its error above the whole's, and its words are the
    statement most over-represented in it.
    """
    import warnings

    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    n, classes = len(material.labels), len(material.class_names)
    shifted = np.exp(material.logits.astype(np.float64) - material.logits.max(axis=1, keepdims=True))
    answers = shifted / shifted.sum(axis=1, keepdims=True)
    truth = np.eye(classes)[np.clip(material.labels, 0, classes - 1)]
    spread = material.features.std(axis=0)
    flat = (material.features - material.features.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    components = PCA(min(16, n - 1, flat.shape[1]), random_state=material.seed).fit_transform(flat)
    space = np.concatenate([components / components.std(), 3 * truth, 3 * answers], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = GaussianMixture(SLICES, covariance_type="diag", reg_covar=1e-3, random_state=material.seed)
        members = mixture.fit_predict(space)
    wrong = material.predicted != material.labels
    found = []
    for number in range(SLICES):
        inside = members == number
        if inside.sum() < LEAST_SUPPORT or inside.all():
            continue
        said = sorted(set().union(*(material.clauses[i] for i in np.flatnonzero(inside))))
        holds = {words: np.array([words in clauses for clauses in material.clauses]) for words in said}
        if not holds:
            continue
        best = max(said, key=lambda words: (holds[words][inside].mean() - holds[words][~inside].mean(), words))
        answer = int(np.bincount(material.predicted[inside], minlength=classes).argmax())
        found.append(Suspicion(best, material.class_names[answer], float(wrong[inside].mean() - wrong.mean())))
    return _sorted(found)


def prune_by_keyword(material: Material) -> list[Suspicion]:
    """Units whose label holds a nuisance word are pruned together and the answers compared (Bai et al., land-cover study B).

    No random units are pruned beside them, as in the paper. Score: how much rarer the class most concerned becomes.
    """
    from dnd_core.ablation import Ablation, unit_statistics

    layer = material.layers[-1] if material.layers[-1].name != "output" else material.layers[-2]
    named = material.neurons[(material.neurons["layer"] == layer.name) & (material.neurons["label"] != "")]
    sets: dict[str, list[int]] = {}
    for word in NUISANCES:
        units = [int(row.unit) for row in named.itertuples() if word in str(row.label)]
        if units and units not in sets.values():
            sets[word] = units
    if not sets:
        return []
    means = unit_statistics(np.asarray(material.features)).means
    whole, each = Ablation(material.network, [layer], {layer.name: means}).logits_with(
        material.images, [{layer.name: units} for units in sets.values()], batch_size=128
    )
    before = np.bincount(whole.argmax(axis=1), minlength=len(material.class_names)) / len(whole)
    found = []
    for word, logits in zip(sets, each, strict=True):
        drop = before - np.bincount(logits.argmax(axis=1), minlength=len(material.class_names)) / len(whole)
        target = int(drop.argmax())
        found.append(Suspicion(word, material.class_names[target], float(drop[target])))
    return _sorted(found)


COMPARATORS: Mapping[str, Callable[[Material], list[Suspicion]]] = MappingProxyType(
    {
        "image properties": image_properties,
        "error keywords": error_keywords,
        "error slices": error_slices,
        "prune by keyword": prune_by_keyword,
    }
)
"""Every comparator by name, in a fixed order."""
