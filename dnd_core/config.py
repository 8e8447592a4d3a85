"""The settings of a description run: frozen, validated, with the paper's values as defaults.

Sections of Bai et al. (TMLR 2025) that set a default are cited beside the field. Every field changes
what a run does and enters the fingerprint of exactly the stages that use it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from dnd_core.errors import ConfigError

__all__ = ["CandidateConfig", "DescribeConfig", "ProbingConfig", "SelectionConfig", "VerificationConfig"]

Pooling = Literal["mean", "max", "cls", "token_mean"]
Score = Literal["simulation", "mean", "topk_squared", "image_products", "topk_squared_x_image_products"]


def _check(section: str, **conditions: tuple[bool, str]) -> None:
    for name, (holds, rule) in conditions.items():
        if not holds:
            raise ConfigError(f"{section}.{name} must be {rule}")


def _typed(section: str, settings: Any) -> None:
    """Every field has the type of its default; a whole number will do for a fraction.

    Raises:
        ConfigError: a field has not.
    """
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    for entry in fields(settings):
        kind, value = type(entry.default), getattr(settings, entry.name)
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{section}.{entry.name} must be {words[kind]}, got {value!r}")


@dataclass(frozen=True)
class ProbingConfig:
    """Step 1: which images a unit fires on (paper section 3.1).

    Attributes:
        pooling: a unit's activation on an image is its map pooled this way (paper: mean).
        top_k: K, how many highest-activating images describe a unit (paper: 10).
        crops: attention crops join the top images before the final ranking (paper: on).
        crops_per_image: at most this many crops of one image (paper: 4).
        crop_iou: crops overlapping a kept one more than this are dropped (paper: 0.5).
        crop_whole_iou: crops this close to the whole image are dropped (paper: 0.8).
        batch_size: images a forward pass.

    """

    pooling: Pooling = "mean"
    top_k: int = 10
    crops: bool = True
    crops_per_image: int = 4
    crop_iou: float = 0.5
    crop_whole_iou: float = 0.8
    batch_size: int = 64

    def __post_init__(self) -> None:
        _typed("probing", self)
        _check(
            "probing",
            pooling=(self.pooling in ("mean", "max", "cls", "token_mean"), "mean, max, cls or token_mean"),
            top_k=(self.top_k >= 1, "at least 1"),
            crops_per_image=(self.crops_per_image >= 1, "at least 1"),
            crop_iou=(0 <= self.crop_iou <= 1, "between 0 and 1"),
            crop_whole_iou=(0 <= self.crop_whole_iou <= 1, "between 0 and 1"),
            batch_size=(self.batch_size >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class CandidateConfig:
    """Step 2: candidate labels (paper section 3.2).

    Attributes:
        n: N, candidates asked for a unit (paper: 5).
        contrast: captions of other images are shown beside the unit's own (ours).
        contrast_images: how many of them, half random, half near misses (images ranked just below the unit's top
            share).
        max_meanings: top images are clustered into at most this many meanings (ours; 1 = the paper).

    """

    n: int = 5
    contrast: bool = True
    contrast_images: int = 40
    max_meanings: int = 3

    def __post_init__(self) -> None:
        _typed("candidates", self)
        _check(
            "candidates",
            n=(self.n >= 1, "at least 1"),
            contrast_images=(self.contrast_images >= 2, "at least 2"),
            max_meanings=(1 <= self.max_meanings <= 3, "1, 2 or 3"),
        )


@dataclass(frozen=True)
class SelectionConfig:
    """Step 3: the best concept (paper section 3.3).

    Attributes:
        images_per_concept: Q (paper: 10).
        beta: best-ranked images that count in the squared-rank and image-product scores (paper: 5).
        score: which score chooses. The paper's four look at concept images alone (its choice:
            ``topk_squared_x_image_products``) and cannot tell a concept from its special cases; ``simulation`` asks
            which concept's presence follows the activation over the explaining images (ours; ``benchmarks/recovery.py``
            decides the default).

    """

    images_per_concept: int = 10
    beta: int = 5
    score: Score = "simulation"

    def __post_init__(self) -> None:
        _typed("selection", self)
        scores = get_args(Score)
        _check(
            "selection",
            images_per_concept=(self.images_per_concept >= 1, "at least 1"),
            beta=(1 <= self.beta <= self.images_per_concept, "between 1 and images_per_concept"),
            score=(self.score in scores, f"one of {', '.join(scores)}"),
        )


@dataclass(frozen=True)
class VerificationConfig:
    """What a label must show on held-out images before it is published (method section 2).

    Attributes:
        enabled: off publishes every chosen label unverified, as the paper does.
        holdout: share of the probe kept away from Steps 1-3, whole blocks at a time.
        top_share: the share of held-out images that counts as "the unit fires" in AUPRC.
        alpha: false-discovery rate of published labels, and the quantile of the shuffled-label null that they must
            pass.
        permutations: draws of the permutation null.
        resamples: bootstrap draws for label stability.

    """

    enabled: bool = True
    holdout: float = 0.4
    top_share: float = 0.05
    alpha: float = 0.05
    permutations: int = 200
    resamples: int = 50

    def __post_init__(self) -> None:
        _typed("verification", self)
        _check(
            "verification",
            holdout=(0 < self.holdout < 1, "between 0 and 1"),
            top_share=(0 < self.top_share < 1, "between 0 and 1"),
            alpha=(0 < self.alpha < 1, "between 0 and 1"),
            permutations=(self.permutations >= 20, "at least 20"),
            resamples=(self.resamples >= 2, "at least 2"),
        )


@dataclass(frozen=True)
class DescribeConfig:
    """Everything that decides a description run besides the network, the images and the backends.

    Attributes:
        probing, candidates, selection, verification: the settings of each step.
        seed: decides every random draw: the split, the background, contrasts, nulls.

    """

    probing: ProbingConfig = field(default_factory=ProbingConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ConfigError(f"seed must be a whole number from 0 up, got {self.seed!r}")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, in field order."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DescribeConfig:
        """The settings written by :meth:`to_dict`; unknown names are refused.

        Raises:
            ConfigError: a name is unknown or a value out of range.

        """
        sections = {
            "probing": ProbingConfig,
            "candidates": CandidateConfig,
            "selection": SelectionConfig,
            "verification": VerificationConfig,
        }
        unknown = set(values) - set(sections) - {"seed"}
        if unknown:
            raise ConfigError(f"unknown settings {sorted(unknown)}; known are {sorted(sections)} and seed")
        built: dict[str, Any] = {"seed": values.get("seed", 0)}
        for name, section in sections.items():
            given = values.get(name) or {}
            if not isinstance(given, dict):
                raise ConfigError(f"{name} must hold settings by name, got {given!r}")
            known = {f.name for f in fields(section)}
            if not set(given) <= known:
                raise ConfigError(f"unknown settings {sorted(set(given) - known)} in {name}; known are {sorted(known)}")
            built[name] = section(**given)
        return cls(**built)
