"""Tile2Vec's network: the published shape and names, its loss, and what is said of weights that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dnd_core.errors import NetworkError
from dnd_core.layers import resolve
from geoaudit import bundled
from geoaudit.studies.tilenet import (
    BANDS,
    LAYERS,
    TileInput,
    TileNet,
    load_tilenet,
    save_tilenet,
    tile_state,
    triplet_loss,
)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict of the published width, with the names Tile2Vec's authors saved."""
    torch.manual_seed(0)
    return TileNet().state_dict()


def published_names() -> set[str]:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", *(f"bn1.{part}" for part in norm)}
    for stage in range(1, 6):
        for block in range(2):
            for number in (1, 2):
                names.add(f"layer{stage}.{block}.conv{number}.weight")
                names |= {f"layer{stage}.{block}.bn{number}.{part}" for part in norm}
        if stage in (2, 3, 4):
            names.add(f"layer{stage}.0.shortcut.0.weight")
            names |= {f"layer{stage}.0.shortcut.1.{part}" for part in norm}
    # 512 channels go in and out of the fifth stage, but its stride asks for a shortcut with weights.
    names.add("layer5.0.shortcut.0.weight")
    return names | {f"layer5.0.shortcut.1.{part}" for part in norm}


def test_the_published_network(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert set(published) == published_names()
    torch.save(published, tmp_path / "naip_trained.ckpt")
    network = load_tilenet(tmp_path / "naip_trained.ckpt")
    assert network.channels == BANDS
    assert network.input_shape == (4, 50, 50)
    assert [info.units for info in resolve(network, LAYERS)] == [64, 128, 256, 512, 512]
    tiles = torch.rand(2, 4, 50, 50)
    embedded = network(tiles)
    assert embedded.shape == (2, 512)
    # Published: 4 x 4 mean pooling of the fifth stage's map, which 50 px tiles make 4 x 4 large.
    reference = TileNet().eval()
    reference.load_state_dict(published)
    maps = torch.relu(reference.bn1(reference.conv1(tiles)))
    for name in LAYERS:
        maps = reference.get_submodule(name)(maps)
    pooled = torch.nn.functional.avg_pool2d(maps, 4).flatten(1)
    assert maps.shape[2:] == (4, 4)
    assert torch.allclose(embedded, pooled, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "model.", "encoder.", "module.tilenet."])
def test_wrappers_prefixes_and_other_words_are_mapped(prefix: str) -> None:
    state = TileNet(4, 4, 8).state_dict()
    renamed = {f"{prefix}{name}".replace(".shortcut.", ".downsample."): value for name, value in state.items()}
    assert list(tile_state(renamed)) == list(state)


def test_old_files_without_counters_and_half_precision_load(tmp_path: Path) -> None:
    state = TileNet(4, 4, 8).state_dict()
    old = {name: value.half() for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": old}, tmp_path / "old.pt")
    network = load_tilenet(tmp_path / "old.pt", size=(32, 32))
    assert network(torch.rand(1, 4, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("conv1.weight"), "holds no conv1.weight, so it is no Tile2Vec network"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("layer5")], "holds no layer5.0.conv1.weight"),
        (lambda s: s.pop("layer3.1.bn2.bias"), "lacks layer3.1.bn2.bias"),
        (lambda s: s.update({"fc.weight": torch.zeros(2, 8)}), "has fc.weight too many"),
        (lambda s: s.update({"bn1.bias": torch.full((4,), float("nan"))}), "NaN or infinity"),
        (
            lambda s: s.update({"layer2.0.conv1.weight": torch.zeros(9, 4, 3, 3)}),
            r"layer2.0.conv1.weight of shape \(9, 4, 3, 3\) where \(8, 4, 3, 3\) is needed",
        ),
        (lambda s: s.update({"conv1.weight": torch.zeros(4, 3, 3, 3)}), "takes 3 bands, but 4 are named"),
    ],
)
def test_a_mismatch_is_one_sentence(tmp_path: Path, change, words: str) -> None:
    state = dict(TileNet(4, 4, 8).state_dict())
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match=words) as caught:
        load_tilenet(tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)
    assert "weights.pt" in str(caught.value)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"conv1.weight": Code()}, tmp_path / "evil.pt")
    with pytest.raises(NetworkError, match="nothing was run"):
        load_tilenet(tmp_path / "evil.pt")


def test_saved_weights_say_their_input_and_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = TileNet(4, 4, 8)
    told = TileInput(mean=(0.1, 0.2, 0.3, 0.4), std=(1.0, 2.0, 3.0, 4.0))
    for name in ("a", "b"):
        save_tilenet(tmp_path / f"{name}.safetensors", module, told, {"steps": 3, "seed": 0})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert TileInput.of(tmp_path / "a.safetensors") == told
    network = load_tilenet(tmp_path / "a.safetensors", size=(16, 16))
    tiles = torch.rand(2, 4, 16, 16)
    shift, scale = (torch.tensor(values)[:, None, None] for values in (told.mean, told.std))
    assert torch.allclose(network(tiles), module.half().float().eval()((tiles - shift) / scale), atol=1e-4)


def test_bands_in_another_order_reach_the_same_filters(tmp_path: Path) -> None:
    save_tilenet(tmp_path / "a.safetensors", TileNet(4, 4, 8), TileInput(), {})
    tiles = torch.rand(2, 4, 16, 16)
    plain = load_tilenet(tmp_path / "a.safetensors", size=(16, 16))
    turned = load_tilenet(tmp_path / "a.safetensors", size=(16, 16), channels=BANDS[::-1])
    assert torch.allclose(plain(tiles), turned(tiles.flip(1)))


def test_triplet_loss_by_hand() -> None:
    anchor, near, far = (
        torch.zeros(2, 2),
        torch.tensor([[3.0, 4.0], [0.0, 1.0]]),
        torch.tensor([[0.0, 2.0], [6.0, 8.0]]),
    )
    # 5 - 2 + 1 = 4, and 1 - 10 + 1 below 0.
    assert float(triplet_loss(anchor, near, far, margin=1.0)) == pytest.approx(2.0)
    lengths = (0 + 0 + 5 + 1 + 2 + 10) / 6
    assert float(triplet_loss(anchor, near, far, margin=1.0, penalty=0.5)) == pytest.approx(2.0 + 0.5 * lengths)


def test_identical_tiles_have_a_gradient() -> None:
    anchor = torch.ones(1, 3, requires_grad=True)
    triplet_loss(anchor, anchor.detach(), torch.zeros(1, 3), margin=9.0).backward()
    assert torch.isfinite(anchor.grad).all()


def test_the_bundled_weights() -> None:
    path = bundled.data_path("models/tile2vec.safetensors")
    assert path.stat().st_size < 4_000_000
    network = load_tilenet(path, size=(32, 32))
    assert network.channels == BANDS
    assert [info.units for info in resolve(network, LAYERS)] == [16, 32, 64, 128, 128]
    # Reflectance of a dim and of a bright tile: an embedding that fell together could not tell them apart.
    answers = network(torch.stack([torch.full((4, 32, 32), 0.05), torch.full((4, 32, 32), 0.3)]))
    assert torch.isfinite(answers).all()
    assert float((answers[0] - answers[1]).norm()) > 0.1


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(NetworkError, match="from 1 up"):
        TileNet(4, 0, 8)
