"""Labels to compare with: CLIP-Dissect, Network Dissection, and labels that know nothing.

Both methods choose from given concepts. They are written from their papers; nothing of their code is here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError
from dnd_core.forward import Recorder, blocks_of, order_channels
from dnd_core.images import ImageSet
from dnd_core.layers import LayerInfo
from dnd_core.networks import Network

__all__ = ["clip_dissect", "constant_labels", "dissection_iou", "random_labels", "shuffled_labels"]

DETECTOR = 0.04
"""Least IoU at which Network Dissection calls a unit a detector (Bau et al. 2017)."""


def clip_dissect(
    activations: NDArray[np.float32],
    images: NDArray[np.float32],
    concepts: NDArray[np.float32],
    *,
    top: int = 100,
    scale: float = 10.0,
    prior: float = 1.0,
) -> NDArray[np.float64]:
    """Soft WPMI of every unit with every concept (Oikarinen and Weng, CLIP-Dissect, ICLR 2023, section 3.2).

    The pointwise mutual information of a concept and a unit's most activating images, each image weighed by how surely it
    belongs to them (from .998 for the first to .97 for the last of ``top``, the published setting).

    Args:
        activations: (N, U) of the units on the probing images.
        images: (N, D) the images in a space shared with texts, rows of length one.
        concepts: (C, D) the concepts there.
        top: how many of a unit's images count; at most a fifth of the probe, since more would be images at large.
        scale: of similarities before the softmax over concepts.
        prior: weight of the concept's own log probability.

    Returns:
        (U, C), higher is better.

    Raises:
        ConfigError: there are no images or no concepts.
    """
    if not len(images) or not len(concepts):
        raise ConfigError("CLIP-Dissect needs at least one probing image and one concept")
    count = max(1, min(top, len(images) // 5 or 1))
    logits = scale * (images.astype(np.float64) @ concepts.T.astype(np.float64))
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    belongs = np.linspace(0.998, 0.97, count)[:, None]
    order = np.argsort(-activations, axis=0, kind="stable")[:count]
    given = np.stack([np.log(1 + belongs * (likely[rows] - 1) + 1e-7).sum(axis=0) for rows in order.T])
    largest = given.max(axis=0)
    common = largest + np.log(np.exp(given - largest).mean(axis=0))
    return np.asarray(given - prior * common)


def dissection_iou(
    network: Network,
    images: ImageSet,
    layers: Sequence[LayerInfo],
    masks: NDArray[np.bool_],
    known: NDArray[np.bool_] | None = None,
    *,
    quantile: float = 0.005,
    batch_size: int = 64,
) -> dict[str, NDArray[np.float64]]:
    """IoU of every unit's activated area with every label mask over all pixels (Network Dissection, Bau et al. 2017).

    A unit's threshold is the activation that the top ``quantile`` of its map's cells over the probe exceed; maps are
    enlarged bilinearly to the images' size and compared, ``|M n L| / |M u L|``, added up over all images.

    Args:
        network: the network.
        images: N probing images of H x W pixels.
        layers: layers with maps; a layer without any has no spatial extent to compare and gets zeros.
        masks: (N, C, H, W) where each concept is.
        known: (N, C, H, W) where it is known whether the concept is there; everywhere when None. Elsewhere nothing counts.
        quantile: 0.005 is the published setting.
        batch_size: images a forward pass.

    Returns:
        Layer name -> (units, C) in [0, 1].
    """
    import torch
    from torch.nn import functional as F

    spatial = [info for info in layers if info.spatial]
    found = {info.name: np.zeros((info.units, masks.shape[1])) for info in layers}
    if not spatial:
        return found
    held: dict[str, list[torch.Tensor]] = {info.name: [] for info in spatial}
    order = order_channels(network, images)
    with Recorder(network, spatial, "mean", maps=True) as forward:
        for block in blocks_of(len(images), batch_size):
            forward(order(images.pixels(list(block))), block)
            for info in spatial:
                held[info.name].append((forward.maps or {})[info.name].float().cpu())
    size = masks.shape[-2:]
    count = masks.shape[1]
    for info in spatial:
        maps = torch.cat(held.pop(info.name))
        cells = maps.movedim(1, 0).reshape(info.units, -1)
        least = torch.from_numpy(np.quantile(cells.numpy(), 1 - quantile, axis=1).astype(np.float32))
        both, either = np.zeros((info.units, count)), np.zeros((info.units, count))
        for block in blocks_of(len(images), batch_size):
            large = F.interpolate(maps[block.start : block.stop], size=size, mode="bilinear", align_corners=False)
            hot = (large > least[:, None, None]).movedim(1, 0).reshape(info.units, -1).float()
            part = masks[block.start : block.stop]
            counted = np.ones_like(part) if known is None else known[block.start : block.stop]
            there = torch.from_numpy((part & counted).swapaxes(0, 1).reshape(count, -1).astype(np.float32))
            counts = torch.from_numpy(counted.swapaxes(0, 1).reshape(count, -1).astype(np.float32))
            shared = (hot @ there.T).numpy()
            both += shared
            either += (hot @ counts.T).numpy() + there.sum(dim=1).numpy()[None] - shared
        found[info.name] = np.where(either > 0, both / np.maximum(either, 1), 0.0)
    return found


def constant_labels(labels: Sequence[str]) -> list[str]:
    """The commonest label for every unit; of equally common ones the first in the alphabet."""
    said = sorted(label for label in labels if label)
    if not said:
        return [""] * len(labels)
    return [max(dict.fromkeys(said), key=said.count)] * len(labels)


def random_labels(labels: Sequence[str], seed: int = 0) -> list[str]:
    """A label for every unit, drawn from the distinct ones there are."""
    pool = sorted({label for label in labels if label})
    rng = np.random.default_rng([seed, 23])
    return [pool[i] for i in rng.integers(len(pool), size=len(labels))] if pool else [""] * len(labels)


def shuffled_labels(labels: Sequence[str], seed: int = 0) -> list[str]:
    """The labels there are, permuted among the units that have one."""
    places = [place for place, label in enumerate(labels) if label]
    order = np.random.default_rng([seed, 24]).permutation(len(places))
    shuffled = list(labels)
    for place, source in zip(places, order, strict=True):
        shuffled[place] = labels[places[source]]
    return shuffled
