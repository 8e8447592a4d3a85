"""Tile2Vec's network and its triplet loss (Jean et al., AAAI 2019, arXiv 1805.02855), of any width.

A ResNet-18 variant for small tiles: a 3 x 3 stem without pooling and five stages of two blocks instead of four; the
embedding is the spatial mean of the fifth. Published weights (four bands in [0, 1], 64 to 512 channels, 512 numbers a
tile) load by the names they were saved with; the narrower weights that ship with the project say their own bands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from dnd_core.errors import NetworkError
from dnd_core.networks import Network, weights_fingerprint
from geoaudit.networks import read_checkpoint
from geoaudit.networks.architectures import load_weights
from geoaudit.networks.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BANDS", "LAYERS", "TileInput", "TileNet", "load_tilenet", "tile_state", "triplet_loss"]

BANDS = ("B04", "B03", "B02", "B08")
"""Red, green, blue and near infrared, in the order of NAIP's files."""

LAYERS = ("layer1", "layer2", "layer3", "layer4", "layer5")
STEM, LAST = "conv1.weight", "layer5.0.conv1.weight"
_DEPTH = 2


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; names as in published weights."""

    def __init__(self, inputs: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(units)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != units:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, units, 1, stride, bias=False), nn.BatchNorm2d(units))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class TileNet(nn.Module):
    """Tile2Vec's embedding network.

    Args:
        in_channels: bands of a tile.
        width: units of the stem and of layer1; layers 2 to 4 have 2, 4 and 8 times as many.
        embedding: units of layer5, the length of a tile's embedding.

    Raises:
        NetworkError: a size below 1.
    """

    def __init__(self, in_channels: int = 4, width: int = 64, embedding: int = 512) -> None:
        super().__init__()
        if min(in_channels, width, embedding) < 1:
            raise NetworkError(
                f"a TileNet needs bands, width and embedding from 1 up, got {in_channels}, {width} and {embedding}"
            )
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        units = (width, width, 2 * width, 4 * width, 8 * width, embedding)
        for number, name in enumerate(LAYERS):
            blocks = [_Block(units[number], units[number + 1], 1 if number == 0 else 2)]
            blocks += [_Block(units[number + 1], units[number + 1], 1) for _ in range(_DEPTH - 1)]
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(B, embedding) of (B, bands, H, W).

        The mean runs over the whole map, which for tiles of 49 to 64 px is the published 4 x 4 pooling.
        """
        x = F.relu(self.bn1(self.conv1(x)))
        for name in LAYERS:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def triplet_loss(
    anchor: Tensor, neighbour: Tensor, distant: Tensor, margin: float = 0.1, penalty: float = 0.0
) -> Tensor:
    """Mean of ``max(0, |anchor - neighbour| - |anchor - distant| + margin)`` (Tile2Vec, equation 1).

    Args:
        anchor: (B, D) embeddings.
        neighbour: likewise, of tiles beside the anchors.
        distant: likewise, of tiles from elsewhere.
        margin: by how much the distant tile must lie farther away.
        penalty: weight of the embeddings' mean length, which keeps them from growing without bound.
    """
    # The square root has no slope at 0; identical tiles must not make the gradient NaN.
    near, far = (((anchor - other) ** 2).sum(dim=1).add(1e-12).sqrt() for other in (neighbour, distant))
    loss = F.relu(near - far + margin).mean()
    if penalty:
        loss = loss + penalty * torch.cat([anchor, neighbour, distant]).norm(dim=1).mean()
    return loss


@dataclass(frozen=True)
class TileInput:
    """What Tile2Vec weights are fed.

    Attributes:
        bands: in the network's order.
        mean, std: the network sees ``(pixels - mean) / std``; empty leaves pixels as they are, as published weights want
            NAIP's numbers divided by 255.
    """

    bands: tuple[str, ...] = BANDS
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def metadata(self) -> dict[str, str]:
        """As a safetensors header keeps it."""
        numbers = {name: " ".join(f"{value:g}" for value in getattr(self, name)) for name in ("mean", "std")}
        return {"bands": " ".join(self.bands), **numbers}

    @classmethod
    def of(cls, path: Path) -> TileInput:
        """What the header of a safetensors file says; the published input where it says nothing."""
        if path.suffix != ".safetensors" or not path.is_file():
            return cls()
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                told: Mapping[str, str] = file.metadata() or {}
            values = {name: tuple(float(n) for n in told.get(name, "").split()) for name in ("mean", "std")}
        except (SafetensorError, OSError, ValueError) as error:
            raise NetworkError(
                f"{path}: its header cannot be read ({error}); copy the file again, or give bands, mean and std"
            ) from error
        return cls(tuple(told.get("bands", "").split()) or BANDS, **values)


def tile_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under this network's names.

    A wrapper's prefix goes (``module.``, ``encoder.``, any other) and ``downsample``, torchvision's and timm's word, becomes
    ``shortcut``; what stands outside the network, such as a classifier's ``fc``, is left for :func:`load_tilenet` to refuse.
    """
    wrappers = [name.removesuffix(STEM) for name in state if name.endswith(f".{STEM}")]
    prefix = next((p for p in wrappers if f"{p}{LAST}" in state), "")
    named = {name.removeprefix(prefix): value for name, value in state.items()}
    return {name.replace(".downsample.", ".shortcut."): value for name, value in named.items()}


def load_tilenet(
    path: str | Path,
    *,
    bands: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: tuple[int, int] = (50, 50),
    channels: Sequence[str] | None = None,
) -> Network:
    """Tile2Vec weights as a network of the engine, whose output is the embedding.

    Width and embedding are read off the weights. Nothing in the file is run (safetensors, or a pickle of plain tensors).

    Args:
        path: state dict: published Tile2Vec or TileNet weights, or the project's own.
        bands: names of the network's bands in its order; None asks the file, and else red, green, blue, near infrared.
        mean: of its input in the pixels' units, subtracted; None asks the file, and else leaves pixels as they are.
        std: likewise, divided by.
        size: (height, width) of the tiles.
        channels: channels of the tiles given; None means the network's own.

    Raises:
        NetworkError: the file is no such network; one sentence says what is missing, too many or of another shape.
    """
    path = Path(path)
    state = tile_state(read_checkpoint(path).state_dict)
    first, last = state.get(STEM), state.get(LAST)
    if first is None or first.ndim != 4 or last is None:
        lacking = STEM if first is None or first.ndim != 4 else LAST
        raise NetworkError(
            f"{path}: holds no {lacking}, so it is no Tile2Vec network (a stem conv1 and layer1 to layer5); its names "
            f"begin with {', '.join(sorted(state)[:3])}"
        )
    told = TileInput.of(path)
    names = tuple(bands) if bands is not None else told.bands
    if len(names) != first.shape[1]:
        raise NetworkError(
            f"{path}: takes {first.shape[1]} bands, but {len(names)} are named ({', '.join(names)}); name its own"
        )
    module = TileNet(int(first.shape[1]), int(first.shape[0]), int(last.shape[0]))
    full = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    what = f"a TileNet of width {first.shape[0]} with {last.shape[0]} numbers a tile"
    load_weights(module, full, what, str(path))
    preprocess = Preprocess(
        channels=tuple(channels or names),
        bands=names,
        mean=tuple(mean if mean is not None else told.mean) or (0.0,) * len(names),
        std=tuple(std if std is not None else told.std) or (1.0,) * len(names),
    )
    return _network(module, preprocess, size, path.stem)


def _network(module: nn.Module, preprocess: Preprocess, size: tuple[int, int], name: str) -> Network:
    both = f"{weights_fingerprint(module)} {preprocess.fingerprint}"
    return Network(
        module=module,
        preprocess=preprocess,
        input_shape=(len(preprocess.channels), int(size[0]), int(size[1])),
        channels=preprocess.channels,
        name=name,
        fingerprint=hashlib.sha256(both.encode()).hexdigest(),
    )


def save_tilenet(path: Path, module: TileNet, told: TileInput, notes: Mapping[str, Any]) -> None:
    """Write weights in half precision with what they are fed in the header; equal weights give equal bytes.

    Args:
        path: a safetensors file to write, aside first.
        module: the network.
        told: its input.
        notes: more for the header, such as the training's settings.
    """
    from safetensors.torch import save

    from dnd_core.store import write_atomic

    # Counters of batches are read by nobody; half precision is exact enough for features and halves the file.
    state = {
        name: value.detach().half().contiguous()
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    header = {**told.metadata(), **{name: str(value) for name, value in sorted(notes.items())}}
    write_atomic(path, _sorted_header(save(state, metadata=header)))


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors bytes with the header's names in alphabetical order; the library's order is not fixed."""
    import json

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    return len(ordered).to_bytes(8, "little") + ordered + data[8 + length :]
