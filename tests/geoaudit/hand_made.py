"""Hand-made networks and scenes whose activation maps are known to the pixel."""

from __future__ import annotations

import numpy as np
import torch
from affine import Affine
from torch import nn

from dnd_core.layers import list_layers
from dnd_core.networks import Network
from geoaudit.spatial import slide

UTM = Affine(10, 0, 500_000, 0, -10, 6_000_000)


class ArrayScene:
    """A scene in memory."""

    def __init__(self, pixels, valid=None, crs="EPSG:32633", transform=UTM, bands=None):
        self.pixels = np.asarray(pixels, dtype=np.float32)
        self.valid = np.ones(self.pixels.shape[1:], bool) if valid is None else valid
        self.crs, self.transform = crs, transform
        self.height, self.width = self.valid.shape
        self.bands = bands or tuple(f"band{i}" for i in range(len(self.pixels)))

    def read(self, window=None, *, bands=None):
        order = [self.bands.index(name) for name in bands or self.bands]
        rows = slice(window.row_off, window.row_off + window.height)
        columns = slice(window.col_off, window.col_off + window.width)
        return self.pixels[order, rows, columns], self.valid[rows, columns]


class TwoPart(nn.Module):
    """A convolution to look at, and a classifier behind it."""

    def __init__(self, body, units, classes=2):
        super().__init__()
        self.body = body
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(units, classes)

    def forward(self, pixels):
        return self.head(self.pool(self.body(pixels)).flatten(1))


def conv(weights, **settings):
    weights = torch.as_tensor(np.asarray(weights), dtype=torch.float32)
    layer = nn.Conv2d(weights.shape[1], weights.shape[0], tuple(weights.shape[2:]), bias=False, **settings)
    layer.weight.data = weights
    return layer


def network(body, units, chip=8, bands=1, **settings):
    return Network(TwoPart(body, units), lambda pixels: pixels, (bands, chip, chip), **settings)


def maps_of(net, scene, units=(0,), **settings):
    return slide(net, scene, {"body": units}, list_layers(net), **settings)["body"]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
