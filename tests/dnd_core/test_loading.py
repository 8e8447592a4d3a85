"""Networks by name: real architectures, weight files good and bad, and code in weight files that never runs."""

import os
import pickle

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from dnd_core.checkpoints import read_checkpoint
from dnd_core.errors import ConfigError, NetworkError
from dnd_core.layers import list_layers
from dnd_core.loading import Standardise, load
from dnd_core.networks import Network

IMAGENET = Standardise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, 4)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def tiny():
    return Tiny()


def whole_network():
    return Network(Tiny(), lambda x: x * 0.5, (3, 8, 8), name="whole", class_names=("a", "b", "c", "d"))


def not_a_network():
    return 3


HERE = __name__


def broken():
    raise RuntimeError("no such\nplanet")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "networks_of_a_user", sys.modules[HERE])


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A trained-looking ResNet-18 of six classes, and its state dict on disk."""
    torch.manual_seed(5)
    module = torchvision.models.resnet18(num_classes=6).eval()
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(module.state_dict(), path)
    return module, path


def answers(network, side=32):
    return network(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))


def test_torchvision_weights_decide_the_classes_and_images_are_standardised(resnet):
    module, path = resnet
    network = load("torchvision:resnet18", path, class_names=list("abcdef"))
    assert network.input_shape == (3, 224, 224)
    assert network.channels == ("red", "green", "blue")
    assert network.class_names == tuple("abcdef")
    assert network.preprocess == IMAGENET
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    by_hand = torchvision.transforms.functional.normalize(pixels, list(IMAGENET.mean), list(IMAGENET.std))
    with torch.no_grad():
        assert torch.allclose(answers(network), module(by_hand), atol=1e-6)
    assert not network.module.training


def test_preprocessing_leaves_its_argument_alone():
    pixels = torch.rand(1, 3, 4, 4)
    copy = pixels.clone()
    IMAGENET(pixels)
    assert torch.equal(pixels, copy)


@pytest.mark.parametrize("wrapped", ["plain", "lightning", "data parallel"])
def test_pickles_of_tensors_are_read_with_a_wrappers_prefix(resnet, tmp_path, wrapped):
    module, _ = resnet
    prefix = {"plain": "", "lightning": "model.", "data parallel": "module."}[wrapped]
    state = {prefix + key: value for key, value in module.state_dict().items()}
    if wrapped == "lightning":
        state["criterion.weight"] = torch.ones(6)
        state = {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
    torch.save(state, tmp_path / "w.ckpt")
    network = load("torchvision:resnet18", tmp_path / "w.ckpt", input_size=64)
    assert network.input_shape == (3, 64, 64)
    assert torch.equal(network.module.fc.weight, module.fc.weight)


def test_timm_networks_bring_their_own_size_and_standardisation(tmp_path):
    torch.manual_seed(1)
    module = timm.create_model("resnet10t", num_classes=3)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    network = load("timm:resnet10t", tmp_path / "w.safetensors")
    assert network.input_shape == (3, 176, 176)
    assert list_layers(network)[-1].units == 3
    assert torch.equal(network.module.fc.weight, module.fc.weight)
    halves = load("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", random_weights=True)
    assert halves.preprocess == Standardise((0.5,) * 3, (0.5,) * 3)


def test_a_network_without_weights_is_refused_unless_asked_for():
    with pytest.raises(NetworkError, match="no weights"):
        load("torchvision:resnet18")
    state = torch.random.get_rng_state()
    one = load("torchvision:resnet18", random_weights=True, input_size=32)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    assert load("torchvision:resnet18", random_weights=True, input_size=32).fingerprint == one.fingerprint


def test_the_fingerprint_tells_weights_and_preprocessing(resnet):
    _, path = resnet
    made = [
        load("torchvision:resnet18", path, input_size=32),
        load("torchvision:resnet18", path, input_size=32, mean=[0.5] * 3, std=[0.5] * 3),
        load("torchvision:resnet18", path, input_size=64),
        load("torchvision:resnet18", random_weights=True, input_size=32),
    ]
    assert len({network.fingerprint for network in made}) == 4
    assert made[1].preprocess == Standardise((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"missing: layer1\.0\.conv1\.weight\)"),
        (lambda s: s.update(extra=torch.ones(1)), "unknown: extra"),
        (
            lambda s: s.update({"conv1.weight": torch.ones(64, 4, 7, 7)}),
            r"of another shape: conv1\.weight is \(64, 4, 7, 7\), not \(64, 3, 7, 7\)",
        ),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("layer1.0")], "and 9 more"),
    ],
)
def test_weights_that_do_not_fit_name_the_keys(resnet, tmp_path, change, words):
    state = dict(resnet[0].state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(NetworkError, match=words):
        load("torchvision:resnet18", tmp_path / "w.pt")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_weight_file_is_refused_and_never_runs(tmp_path, how):
    trap, path = tmp_path / "exploded", tmp_path / "w.pt"
    if how == "torch":
        torch.save({"state_dict": {"a": torch.ones(1)}, "x": Bomb(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trap), protocol=2))
    with pytest.raises(NetworkError, match=r"refused.*wants to run code.*mkdir"):
        read_checkpoint(path)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_broken_files_are_said_so(tmp_path, name):
    with pytest.raises(NetworkError, match="no such file"):
        read_checkpoint(tmp_path / name)
    for content in (b"", b"not a weight file, but long enough to look like one" * 10):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NetworkError, match=name):
            read_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(NetworkError, match="holds a list, not weights"):
        read_checkpoint(tmp_path / "list.pt")
    good = tmp_path / "cut.safetensors"
    save_file({"a": torch.ones(100)}, good)
    good.write_bytes(good.read_bytes()[:-50])
    with pytest.raises(NetworkError, match="no readable safetensors file"):
        read_checkpoint(good)


def test_a_factory_returns_a_module_or_a_whole_network(tmp_path):
    with pytest.raises(NetworkError, match="input_size"):
        load("networks_of_a_user:tiny")
    module = Tiny()
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    network = load("networks_of_a_user:tiny", tmp_path / "w.safetensors", input_size=8)
    pixels = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(pixels), module(pixels))
    whole = load("networks_of_a_user.whole_network", tmp_path / "w.safetensors")
    assert (whole.name, whole.class_names) == ("whole", ("a", "b", "c", "d"))
    with torch.no_grad():
        assert torch.equal(whole(pixels), module(pixels * 0.5))


def test_what_a_factory_of_somebody_else_raises_is_one_sentence():
    with pytest.raises(NetworkError, match=r"factory networks_of_a_user:broken failed: RuntimeError: no such planet"):
        load("networks_of_a_user:broken")


def test_odd_files_are_told_from_hostile_ones(tmp_path):
    """What is left of a state dict that also keeps other things; a folder; a file of facts."""
    torch.save({"state_dict": {"a": torch.ones(1), "_extra_state": {"epoch": 3}}}, tmp_path / "extra.pt")
    assert list(read_checkpoint(tmp_path / "extra.pt").state_dict) == ["a"]
    with pytest.raises(NetworkError, match="is a folder"):
        read_checkpoint(tmp_path)
    # Plain text happens to begin like a pickle that imports things.
    (tmp_path / "notes.pt").write_text("import numpy as np, torch\nfrom pathlib import Path\n")
    with pytest.raises(NetworkError, match="is damaged or no checkpoint"):
        read_checkpoint(tmp_path / "notes.pt")
    with pytest.raises(ConfigError, match="input_size must be at least 1 pixel, got -5"):
        load("networks_of_a_user:tiny", input_size=-5)
    torch.save({"a": torch.ones(1), **{f"fact{n}": n for n in range(9)}}, tmp_path / "facts.pt")
    with pytest.raises(NetworkError, match=r"holds a, fact0, .* and 4 more but no state_dict"):
        read_checkpoint(tmp_path / "facts.pt")


def test_torchscript_files_open_without_their_python(tmp_path):
    module = Tiny().eval()
    with pytest.warns(FutureWarning):
        torch.jit.script(module).save(tmp_path / "net.pt")
    path = tmp_path / "net.pt"
    network = load(f"torchscript:{path}", input_size=8, mean=[0.5], std=[0.25])
    pixels = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(pixels), module((pixels - 0.5) / 0.25), atol=1e-6)
    assert [info.name for info in list_layers(network)] == ["output"]
    with pytest.raises(ConfigError, match="own weights"):
        load(f"torchscript:{path}", path, input_size=8)
    with pytest.raises(NetworkError, match="input_size"):
        load(f"torchscript:{path}")
    with pytest.raises(NetworkError, match="no such file"):
        load(f"torchscript:{tmp_path / 'none.pt'}", input_size=8)
    other = tmp_path / "other.pt"
    twice = nn.Sequential(module, nn.Softmax(dim=1))
    with pytest.warns(FutureWarning):
        torch.jit.script(twice).save(other)
    assert (
        load(f"torchscript:{other}", input_size=8).fingerprint != load(f"torchscript:{path}", input_size=8).fingerprint
    )
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(NetworkError, match="no TorchScript archive"):
        load(f"torchscript:{tmp_path / 'bad.pt'}", input_size=8)


def test_torchscript_that_opens_files_is_refused(tmp_path):
    class Reading(nn.Module):
        def forward(self, x):
            return torch.from_file("secret", size=4) + x

    with pytest.warns(FutureWarning):
        torch.jit.script(Reading()).save(tmp_path / "net.pt")
    with pytest.raises(NetworkError, match="calls from_file, which reaches for files"):
        load(f"torchscript:{tmp_path / 'net.pt'}", input_size=8)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:resnet81", "nearest are resnet18"),
        ("torchvision:fcn_resnet50", "no classifier"),
        ("timm:resnet10x", "nearest are .*resnet10t"),
        ("networks_of_a_user:nothing", "cannot be imported"),
        ("no_such_package.module:f", "cannot be imported"),
        ("networks_of_a_user:not_a_network", "returned int"),
    ],
)
def test_unknown_networks_are_said_so(name, words):
    with pytest.raises(NetworkError, match=words):
        load(name, random_weights=True, input_size=8)


def test_settings_that_do_not_fit_are_refused(resnet):
    _, path = resnet
    with pytest.raises(ConfigError, match="is named torchvision:NAME"):
        load("resnet18", path)
    with pytest.raises(ConfigError, match="2 class names were given for the 6 outputs"):
        load("torchvision:resnet18", path, ["a", "b"], input_size=32)
    with pytest.raises(ConfigError, match="mean and std together"):
        load("torchvision:resnet18", path, input_size=32, mean=[0.5])
    with pytest.raises(ConfigError, match="4 numbers for 3 channels"):
        load("torchvision:resnet18", path, input_size=32, mean=np.zeros(4), std=np.ones(4))
    with pytest.raises(ConfigError, match="std above 0"):
        Standardise((0.5,), (0.0,))
