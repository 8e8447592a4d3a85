"""Loading networks: what is built is what was saved, and what the card says happens to the pixels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dnd_core.errors import NetworkError
from dnd_core.layers import list_layers
from geoaudit.networks import InputSpec, Preprocess, load_network, with_channels

BANDS = ("B02", "B03", "B04", "B08")
CLASSES = ("field", "forest", "water")


def spec(**changes: object) -> InputSpec:
    return InputSpec(**{"bands": BANDS, "class_names": CLASSES, "input_size": (32, 32), **changes})  # type: ignore[arg-type]


def lightning_file(path: Path, module: nn.Module, /, **hyper_parameters: object) -> Path:
    """What Lightning writes for a torchgeo task, without its seven seconds of imports."""
    state = {f"model.{name}": value.clone() for name, value in module.state_dict().items()}
    state["criterion.weight"] = torch.ones(3)
    common = {"loss": "ce", "task": "multiclass", "num_labels": None, "class_weights": None}
    content = {
        "pytorch-lightning_version": "2.6.6",
        "epoch": 3,
        "state_dict": state,
        "hyper_parameters": {**common, **hyper_parameters},
    }
    torch.save(content, path)
    return path


def classifier(seed: int = 0, bands: int = 4, classes: int = 3) -> nn.Module:
    import timm

    torch.manual_seed(seed)
    return timm.create_model("resnet10t", in_chans=bands, num_classes=classes).eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return classifier()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, model: nn.Module) -> Path:
    path = tmp_path_factory.mktemp("models with space é") / "class ifier.ckpt"
    return lightning_file(path, model, model="resnet10t", in_channels=4, num_classes=3)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_lightning_checkpoint_answers_as_the_model_that_was_saved(
    checkpoint: Path, model: nn.Module, pixels: torch.Tensor
) -> None:
    network = load_network(checkpoint, spec(mean=(0.1, 0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7, 0.8)))
    mean, std = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.5, 0.6, 0.7, 0.8])
    with torch.no_grad():
        expected = model((pixels - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(network(pixels), expected)
    assert network.class_names == CLASSES
    assert network.input_shape == (4, 32, 32)
    assert "layer4" in dict(network.module.named_modules())
    assert not network.module.training
    assert not any(p.requires_grad for p in network.module.parameters())


def test_a_model_card_beside_the_checkpoint_says_everything(checkpoint: Path, pixels: torch.Tensor) -> None:
    from dnd_core.store import file_sha256
    from geoaudit.cards import ModelCard, write_card

    def card(**changes: Any) -> ModelCard:
        facts: dict[str, Any] = {
            "name": "small one",
            "architecture": "timm:resnet10t",
            "bands": BANDS,
            "mean": (0.1, 0.2, 0.3, 0.4),
            "std": (0.5, 0.6, 0.7, 0.8),
            "input_size": 32,
            "chip_size": 16,
            "class_names": CLASSES,
            "checkpoint": checkpoint.name,
            "sha256": file_sha256(checkpoint),
        }
        return ModelCard(**{**facts, **changes})

    path = checkpoint.with_suffix(".json")
    write_card(card(), path)
    network = load_network(checkpoint, path)
    same = load_network(checkpoint, spec(mean=(0.1, 0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7, 0.8)))
    torch.testing.assert_close(network(pixels), same(pixels))
    assert network.name == "small one"
    # Chips of 16 pixels come in and are enlarged to the 32 the network was fed.
    assert network.input_shape == (4, 16, 16)
    assert network.preprocess(torch.rand(1, 4, 16, 16)).shape == (1, 4, 32, 32)
    for words in ("ResNet-10t", "a resnet10t of ours"):
        assert load_network(checkpoint, card(architecture=words)).fingerprint == network.fingerprint
    with pytest.raises(NetworkError, match="its card says ResNet-50"):
        load_network(checkpoint, card(architecture="ResNet-50"))


def test_a_real_torchgeo_task_loads(tmp_path: Path, pixels: torch.Tensor) -> None:
    from torchgeo.trainers import ClassificationTask

    torch.manual_seed(0)
    task = ClassificationTask(
        model="resnet10t", in_channels=4, num_classes=3, loss="ce", class_weights=torch.tensor([1.0, 2.0, 3.0])
    )
    content = {"pytorch-lightning_version": "2.6.6", "state_dict": task.state_dict(), "epoch": 0}
    torch.save({**content, "hyper_parameters": dict(task.hparams)}, tmp_path / "task.ckpt")
    network = load_network(tmp_path / "task.ckpt", spec())
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), task.model.eval()(pixels))


def test_half_precision_weights_are_computed_in_single_precision(tmp_path: Path, pixels: torch.Tensor) -> None:
    path = lightning_file(tmp_path / "h.ckpt", classifier().half(), model="resnet10t", in_channels=4, num_classes=3)
    network = load_network(path, spec())
    assert network(pixels).dtype == torch.float32


def test_pixels_in_another_order_reach_the_same_bands(checkpoint: Path, pixels: torch.Tensor) -> None:
    network = load_network(checkpoint, spec(std=(0.1, 0.2, 0.3, 0.4)))
    order = [3, 1, 0, 2]
    names = tuple(BANDS[i] for i in order)
    shuffled = load_network(checkpoint, spec(std=(0.1, 0.2, 0.3, 0.4)), channels=names)
    torch.testing.assert_close(shuffled(pixels[:, order]), network(pixels))
    assert shuffled.channels == names
    more = with_channels(network, ("B01", *BANDS))
    torch.testing.assert_close(more(torch.cat([torch.rand(2, 1, 32, 32), pixels], 1)), network(pixels))
    assert len({network.fingerprint, shuffled.fingerprint, more.fingerprint}) == 3
    with pytest.raises(NetworkError, match="B08"):
        with_channels(network, BANDS[:3])


def test_preprocessing_leaves_its_argument_alone_and_resizes(pixels: torch.Tensor) -> None:
    preprocess = Preprocess(BANDS, BANDS, (0.5,) * 4, (0.25,) * 4, size=(64, 48))
    before = pixels.clone()
    answer = preprocess(pixels)
    assert torch.equal(pixels, before)
    assert answer.shape == (2, 4, 64, 48)
    flat = preprocess(torch.full((1, 4, 8, 8), 0.75))
    torch.testing.assert_close(flat, torch.ones(1, 4, 64, 48))


def test_raw_digital_numbers_are_a_standard_deviation() -> None:
    raw = Preprocess(("B02",), ("B02",), (0.0,), (1e-4,))
    torch.testing.assert_close(raw(torch.full((1, 1, 2, 2), 0.25)), torch.full((1, 1, 2, 2), 2500.0))


def test_preprocessing_survives_pickling_and_its_fingerprint_holds_every_field() -> None:
    one = Preprocess(BANDS, BANDS, (0.0,) * 4, (1.0,) * 4, size=(8, 8))
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert again.fingerprint == one.fingerprint
    others = [
        Preprocess(BANDS[::-1], BANDS, (0.0,) * 4, (1.0,) * 4, size=(8, 8)),
        Preprocess(BANDS, BANDS[::-1], (0.0,) * 4, (1.0,) * 4, size=(8, 8)),
        Preprocess(BANDS, BANDS, (0.1,) * 4, (1.0,) * 4, size=(8, 8)),
        Preprocess(BANDS, BANDS, (0.0,) * 4, (2.0,) * 4, size=(8, 8)),
        Preprocess(BANDS, BANDS, (0.0,) * 4, (1.0,) * 4, size=None),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 6


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [((0.0,) * 3, (1.0,) * 4, "mean holds 3"), ((0.0,) * 4, (1.0, 1.0, 1.0, 0.0), "above 0")],
)
def test_preprocessing_refuses_numbers_that_do_not_fit(
    mean: tuple[float, ...], std: tuple[float, ...], words: str
) -> None:
    with pytest.raises(NetworkError, match=words):
        Preprocess(BANDS, BANDS, mean, std)


def test_the_fingerprint_follows_weights_and_preprocessing(tmp_path: Path, checkpoint: Path) -> None:
    same = load_network(checkpoint, spec()).fingerprint
    assert load_network(checkpoint, spec()).fingerprint == same
    other = lightning_file(tmp_path / "o.ckpt", classifier(seed=1), model="resnet10t", in_channels=4, num_classes=3)
    assert load_network(other, spec()).fingerprint != same
    assert load_network(checkpoint, spec(std=(2.0,) * 4)).fingerprint != same


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_plain_weights_need_a_name_and_tell_the_rest(
    tmp_path: Path, model: nn.Module, pixels: torch.Tensor, suffix: str
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / f"weights{suffix}"
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if suffix == ".pth":
        # DataParallel's prefix, as many published weights have it.
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        save_file(state, path)
    network = load_network(path, spec(), model="timm:resnet10t")
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), model(pixels))
    assert load_network(path, spec(model="resnet10t")).fingerprint == network.fingerprint
    with pytest.raises(NetworkError, match="does not name the network"):
        load_network(path, spec())


def test_torchvision_with_four_bands(tmp_path: Path, pixels: torch.Tensor) -> None:
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    model.conv1[0] = nn.Conv2d(4, 24, 3, 2, 1, bias=False)
    model.eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    network = load_network(tmp_path / "w.pt", spec(), model="torchvision:shufflenet_v2_x0_5")
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), model(pixels))


def test_a_unet_gives_pixel_classes_and_layers_of_both_halves(tmp_path: Path, pixels: torch.Tensor) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, in_channels=4, classes=3).eval()
    path = lightning_file(
        tmp_path / "unet.ckpt",
        model,
        model="unet",
        backbone="resnet18",
        in_channels=4,
        num_classes=3,
        num_filters=3,
        ignore_index=None,
    )
    network = load_network(path, spec(task="semantic-segmentation"))
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), model(pixels))
    assert network(pixels).shape == (2, 3, 32, 32)
    seen: dict[str, tuple[int, ...]] = {}
    for layer in ("encoder.layer4", "decoder.blocks.0"):
        module = network.module.get_submodule(layer)
        hook = module.register_forward_hook(lambda m, i, o, layer=layer: seen.__setitem__(layer, tuple(o.shape)))
        network(pixels)
        hook.remove()
    assert seen == {"encoder.layer4": (2, 512, 1, 1), "decoder.blocks.0": (2, 256, 2, 2)}
    plain = tmp_path / "plain.pt"
    torch.save(model.state_dict(), plain)
    named = load_network(plain, spec(), model="smp:unet:resnet18")
    assert named.fingerprint == network.fingerprint
    with pytest.raises(NetworkError, match="segments pixels, but its card says scene-classification"):
        load_network(path, spec(task="scene-classification"))


def test_torchgeos_plain_fcn_loads(tmp_path: Path, pixels: torch.Tensor) -> None:
    from torchgeo.models import FCN

    model = FCN(4, 3, num_filters=5).eval()
    names = {"model": "fcn", "backbone": "resnet50", "in_channels": 4, "num_classes": 3, "num_filters": 5}
    network = load_network(lightning_file(tmp_path / "fcn.ckpt", model, **names), spec())
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), model(pixels))


def test_one_binary_logit_becomes_two_with_the_same_probability(tmp_path: Path, pixels: torch.Tensor) -> None:
    model = classifier(classes=1)
    path = lightning_file(tmp_path / "b.ckpt", model, model="resnet10t", in_channels=4, num_classes=None, task="binary")
    network = load_network(path, spec(class_names=("water",)))
    assert network.class_names == ("not water", "water")
    with torch.no_grad():
        expected = model(pixels).sigmoid()[:, 0]
    torch.testing.assert_close(network(pixels).softmax(1)[:, 1], expected)


def test_torchscript_runs_and_shows_only_its_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()
    pixels = torch.rand(2, 4, 32, 32)
    with pytest.warns(FutureWarning):
        torch.jit.trace(model, pixels).save(str(tmp_path / "s.pt"))
    with caplog.at_level("WARNING"):
        network = load_network(tmp_path / "s.pt", spec())
    assert "only its outputs" in caplog.text
    assert "only its outputs are units" in network.name
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), model(pixels))
    assert [layer.name for layer in list_layers(network)] == ["output"]
    with torch.no_grad():
        model[3].bias.add_(1)
    with pytest.warns(FutureWarning):
        torch.jit.trace(model, pixels).save(str(tmp_path / "changed.pt"))
    assert load_network(tmp_path / "changed.pt", spec()).fingerprint != network.fingerprint
