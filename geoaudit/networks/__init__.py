"""Trained land-cover networks: loaded without running foreign code, checked against their card."""

from dnd_core.checkpoints import Checkpoint, is_torchscript, read_checkpoint
from geoaudit.networks.loading import load_network, with_channels
from geoaudit.networks.preprocess import Preprocess
from geoaudit.networks.pretrained import pretrained_spec
from geoaudit.networks.spec import InputSpec

__all__ = [
    "Checkpoint",
    "InputSpec",
    "Preprocess",
    "is_torchscript",
    "load_network",
    "pretrained_spec",
    "read_checkpoint",
    "with_channels",
]
