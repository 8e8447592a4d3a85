"""Trained land-cover networks: loaded without running foreign code, checked against their card."""

from geoaudit.networks.checkpoints import Checkpoint, is_torchscript, read_checkpoint
from geoaudit.networks.loading import InputSpec, load_network, with_channels
from geoaudit.networks.preprocess import Preprocess

__all__ = [
    "Checkpoint",
    "InputSpec",
    "Preprocess",
    "is_torchscript",
    "load_network",
    "read_checkpoint",
    "with_channels",
]
