"""A network as the engine sees it: a frozen module, its preprocessing, and a fingerprint of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Network", "weights_fingerprint"]


def weights_fingerprint(module: nn.Module) -> str:
    """Sha256 of the names, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256(type(module).__qualname__.encode())
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.flatten().view(dtype=_byte_view()).numpy().tobytes())
    return digest.hexdigest()


def _byte_view() -> object:
    import torch

    return torch.uint8


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, in evaluation mode, with the preprocessing it was trained with.

    Attributes:
        module: answers (B, classes) logits, or (B, classes, H, W) for segmentation.
        preprocess: turns (B, C, H, W) pixels in the image set's units into the module's input; must not change its
            argument.
        input_shape: (C, H, W) of the pixels it expects, before ``preprocess``.
        channels: names of the C channels it expects, in order; empty when unknown.
        class_names: names of the outputs; empty when unknown.
        name: shown to people.
        fingerprint: hash of the weights and of the preprocessing.

    """

    module: nn.Module
    preprocess: Callable[[Tensor], Tensor]
    input_shape: tuple[int, int, int]
    channels: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    name: str = "network"
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.module.eval()
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", weights_fingerprint(self.module))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits of (B, C, H, W) pixels in the image set's units, without gradients."""
        import torch

        with torch.inference_mode():
            answer: Tensor = self.module(self.preprocess(pixels))
        return answer
