"""Pooling a unit's map into one activation an image (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dnd_core.config import Pooling
from dnd_core.errors import ConfigError, NetworkError
from dnd_core.layers import LayerInfo

__all__ = ["check_pooling", "pool", "unit_maps"]


def check_pooling(info: LayerInfo, how: Pooling) -> None:
    """Refuse a pooling that has no meaning for a layer; a vector has nothing to pool, so every one fits it.

    Raises:
        ConfigError: the mode is unknown, or needs tokens or a class token that the layer lacks.

    """
    if how not in ("mean", "max", "cls", "token_mean"):
        raise ConfigError(f"pooling must be mean, max, cls or token_mean, got {how!r}")
    if info.kind == "vector" or how in ("mean", "max"):
        return
    if info.kind != "tokens":
        raise ConfigError(f"pooling {how!r} needs tokens, but layer {info.name!r} holds maps; use mean or max")
    if how == "cls" and info.prefix_tokens == 0:
        raise ConfigError(f"pooling 'cls' needs a class token, and layer {info.name!r} has none; use token_mean")


def pool(activation: Tensor, info: LayerInfo, how: Pooling, images: Sequence[int] | None = None) -> Tensor:
    """One activation a unit and image.

    Args:
        activation: a batch's output of the layer, (B, *info.shape).
        info: the layer.
        how: ``mean`` or ``max`` over space (patch tokens where units live in tokens), ``cls`` the class token,
            ``token_mean`` the mean over patch tokens, refused where there are none.
        images: indices of the batch's images, for messages; positions in the batch when None.

    Returns:
        (B, units) float32.

    Raises:
        ConfigError: the pooling has no meaning for the layer.
        NetworkError: an activation is NaN or infinite; names the layer and the images.

    """
    check_pooling(info, how)
    if info.kind == "vector":
        pooled = activation.float()
    elif how == "cls":
        pooled = activation[:, 0].float()
    else:
        space = activation[:, info.prefix_tokens :] if info.kind == "tokens" else activation
        axes = {"map": (2, 3), "map_last": (1, 2), "tokens": (1,)}[info.kind]
        if how == "max":
            pooled = space.amax(axes).float()
            _require_finite(space.amin(axes), info, images)
        else:
            pooled = space.mean(axes, dtype=torch.float32)
    _require_finite(pooled, info, images)
    return pooled


def _require_finite(values: Tensor, info: LayerInfo, images: Sequence[int] | None) -> None:
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    rows = torch.nonzero(~finite.all(dim=1)).flatten().tolist()
    named = [int(images[row]) if images is not None else row for row in rows]
    shown = ", ".join(map(str, named[:5])) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    raise NetworkError(
        f"layer {info.name!r} answers with NaN or infinity on image {shown}: "
        "check these images for missing data and the network's preprocessing"
    )


def unit_maps(activation: Tensor, info: LayerInfo) -> Tensor | None:
    """Activations with units first and space last, (B, units, h, w), or None where the layer has no space.

    Tokens are laid out on their grid, class and register tokens left out.
    """
    if info.kind == "map":
        return activation
    if info.kind == "map_last":
        return activation.movedim(-1, 1)
    if info.kind == "tokens" and info.grid is not None:
        return activation[:, info.prefix_tokens :].movedim(-1, 1).reshape(len(activation), info.units, *info.grid)
    return None
