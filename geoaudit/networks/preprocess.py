"""What happens to pixels before a network sees them, as a value that can be compared, hashed and pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dnd_core.errors import NetworkError, ProbeError
from geoaudit.bands import reorder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """Pixels in, the network's input out: ``resize((pixels[bands] - mean) / std)``.

    Every affine scaling a network may have been trained with is a mean and a standard deviation on
    reflectance: DN / 10000 is ``mean 0, std 1``, raw Sentinel-2 DN is ``mean 0, std 1e-4``, z-scores are their own.

    Attributes:
        channels: names of the channels of the pixels given, in their order.
        bands: names of the channels the network takes, in its order.
        mean: subtracted, one number a band, in the pixels' units (reflectance).
        std: divided by, one number a band, same units; above 0.
        size: (height, width) of the network's input, or None to leave the size alone.

    Raises:
        NetworkError: a band is missing from ``channels``, or the numbers do not fit the bands.

    """

    channels: tuple[str, ...]
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != len(self.bands):
                raise NetworkError(f"{name} holds {len(values)} numbers for {len(self.bands)} bands; give one a band")
        if not all(value > 0 for value in self.std):
            raise NetworkError(f"std must be above 0 in every band, got {self.std}")
        if self.size is not None and min(self.size) < 1:
            raise NetworkError(f"the input size must be at least 1 x 1 pixel, got {self.size}")
        self.indices()

    def indices(self) -> tuple[int, ...]:
        """Where each band of the network stands among the channels given; raises NetworkError if one is missing."""
        try:
            return reorder(self.channels, self.bands)
        except ProbeError as error:
            raise NetworkError(str(error)) from error

    @property
    def fingerprint(self) -> str:
        """Sha256 of every number and name that decides what the network sees."""
        text = repr((self.channels, self.bands, self.mean, self.std, self.size))
        return hashlib.sha256(text.encode()).hexdigest()

    def given(self, channels: Sequence[str]) -> Preprocess:
        """The same scaling for pixels whose channels stand in another order, or that have channels to spare."""
        return replace(self, channels=tuple(channels))

    def __call__(self, pixels: Tensor) -> Tensor:
        """The network's input.

        Args:
            pixels: (B, C, H, W) with C as ``channels``; it is not changed.

        Returns:
            (B, bands, *size) float tensor on the same device.

        Raises:
            NetworkError: the number of channels is another.

        """
        import torch
        from torch.nn import functional as F

        if pixels.ndim != 4 or pixels.shape[1] != len(self.channels):
            raise NetworkError(f"pixels {tuple(pixels.shape)} are not (B, {len(self.channels)}, H, W)")
        indices = list(self.indices())
        # Selecting by a list copies, so the in-place arithmetic below never reaches the caller's pixels.
        chosen = pixels[:, indices].to(torch.float32)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device)[:, None, None]
        chosen = chosen.sub_(mean).div_(std)
        if self.size is None or tuple(chosen.shape[-2:]) == self.size:
            return chosen
        return F.interpolate(chosen, size=self.size, mode="bilinear", antialias=True, align_corners=False)
