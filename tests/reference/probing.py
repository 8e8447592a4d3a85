"""Step 1 unit by unit and image by image, without batches, streams or shared work."""

import numpy as np
import torch

from dnd_core.types import Box
from tests.reference.crops import boxes


def maps_of(network, layer, pixels):
    """Maps (units, h, w) of one image, with a hook of our own."""
    held = []
    handle = network.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: held.append(out.clone()))
    try:
        network(torch.from_numpy(pixels[None].copy()))
    finally:
        handle.remove()
    return held[0][0].numpy()


def best_views(network, images, layer, unit, k, per_image, most, whole_most):
    """(image, box or None, activation) of the K best images and crops of one unit, best first."""
    fired = [float(maps_of(network, layer, images[i].pixels)[unit].mean()) for i in range(len(images))]
    top = sorted(range(len(images)), key=lambda i: (-fired[i], i))[:k]
    views = [(i, None, fired[i]) for i in top]
    for i in top:
        activation = maps_of(network, layer, images[i].pixels)[unit]
        if activation.max() == activation.min():
            continue
        for edges in boxes(activation, images.shape[1:], per_image, most, whole_most):
            crop = images[i].crop(Box(*edges))
            views.append((i, edges, float(maps_of(network, layer, crop.pixels)[unit].mean())))
    return sorted(views, key=lambda view: -np.float32(view[2]))[:k]
