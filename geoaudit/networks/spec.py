"""What a model file leaves unsaid: the bands, scaling, size and classes of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dnd_core.errors import NetworkError
from geoaudit.networks.preprocess import Preprocess

if TYPE_CHECKING:
    from geoaudit.cards import ModelCard

__all__ = ["InputSpec", "spec_of"]

Task = Literal["scene-classification", "semantic-segmentation"]


@dataclass(frozen=True)
class InputSpec:
    """What a checkpoint does not say of itself: what its network eats and what its answers are called.

    Attributes:
        bands: names of the bands it takes, in its order.
        mean, std: of the training data on reflectance, one a band: it was trained on ``(reflectance - mean) / std``.
            A network trained on raw Sentinel-2 DN has mean 0 and std 1e-4.
        input_size: (height, width) it is fed.
        chip_size: (height, width) of the pixels given, before they are resized to ``input_size``; None means the same.
        class_names: of its outputs, in order.
        task: a class for the image, or for every pixel; None takes the checkpoint's word.
        name: shown to people.
        model: the architecture, ``timm:resnet18``; needed for plain weights.
        sha256: of the checkpoint file; empty leaves it unchecked.

    Raises:
        NetworkError: no bands, bands named twice, or a size below one pixel.

    """

    bands: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_size: tuple[int, int] = (64, 64)
    chip_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    task: Task | None = None
    name: str = ""
    model: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise NetworkError(f"name each band of the network once, got {list(self.bands)}")
        if min(self.input_size) < 1 or min(self.chip_size or self.input_size) < 1:
            raise NetworkError(f"sizes must be at least 1 x 1 pixel, got {self.input_size} and {self.chip_size}")

    def preprocess(self, channels: Sequence[str] | None = None) -> Preprocess:
        """The preprocessing of pixels whose channels are ``channels`` (default: the network's own bands)."""
        count = len(self.bands)
        return Preprocess(
            channels=tuple(channels or self.bands),
            bands=self.bands,
            mean=self.mean or (0.0,) * count,
            std=self.std or (1.0,) * count,
            size=self.input_size,
        )


def spec_of(card: ModelCard | InputSpec | str | Path) -> InputSpec:
    """The input a card tells of; a path is read as a model card."""
    if isinstance(card, InputSpec):
        return card
    if isinstance(card, str | Path):
        from geoaudit.cards import load_card

        card = load_card(card)
    return InputSpec(
        bands=tuple(card.bands),
        mean=tuple(card.mean),
        std=tuple(card.std),
        input_size=(card.input_size, card.input_size),
        chip_size=(card.chip_size, card.chip_size),
        class_names=tuple(card.class_names),
        task=card.task,
        name=card.name,
        model=card.architecture,
        sha256=card.sha256,
    )
