"""Files that must be refused, each with one sentence, and none of them run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from dnd_core.errors import NetworkError
from geoaudit.networks import InputSpec, load_network, read_checkpoint

BANDS = ("B02", "B03", "B04", "B08")
CLASSES = ("field", "forest", "water")
HYPER = {"model": "resnet10t", "in_channels": 4, "num_classes": 3, "loss": "ce", "task": "multiclass"}


class Malicious:
    """Runs a command when unpickled, as a hostile checkpoint would."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return exec, (f"import pathlib; pathlib.Path({str(self.target)!r}).write_text('owned')",)


def spec(**changes: object) -> InputSpec:
    return InputSpec(**{"bands": BANDS, "class_names": CLASSES, "input_size": (32, 32), **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    import timm

    return dict(timm.create_model("resnet10t", in_chans=4, num_classes=3).state_dict())


def save(path: Path, weights: dict[str, torch.Tensor], **hyper: object) -> Path:
    state = {f"model.{name}": value for name, value in weights.items()}
    torch.save(
        {"pytorch-lightning_version": "2.6.6", "state_dict": state, "hyper_parameters": {**HYPER, **hyper}}, path
    )
    return path


@pytest.mark.parametrize("kind", ["zip", "lightning", "protocol 2", "protocol 5"])
def test_a_hostile_pickle_is_refused_by_name_and_never_run(tmp_path: Path, kind: str) -> None:
    target, path = tmp_path / "owned.txt", tmp_path / "hostile.ckpt"
    evil = Malicious(target)
    if kind == "zip":
        torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": evil}, path)
    elif kind == "lightning":
        torch.save({"state_dict": {"w": torch.zeros(1)}, "hyper_parameters": {**HYPER, "lr": evil}}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": evil}, protocol=int(kind[-1])))
    with pytest.raises(NetworkError, match=r"hostile\.ckpt: refused.*wants to run code.*exec") as caught:
        load_network(path, spec())
    assert not target.exists()
    assert "\n" not in str(caught.value)
    # The file is truly hostile: the unsafe door would have run it.
    if kind.startswith("protocol"):
        pickle.loads(path.read_bytes())
        assert target.exists()


def test_a_pickled_module_is_refused_too(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(NetworkError, match=r"torch\.nn\.modules\.linear\.Linear.*safetensors"):
        read_checkpoint(tmp_path / "module.pt")


def test_torchscript_that_writes_files_is_refused_before_it_runs(tmp_path: Path) -> None:
    target = tmp_path / "written.pt"

    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "TARGET")
            return x.mean((2, 3))

    with pytest.warns(FutureWarning):
        torch.jit.script(Writes()).save(str(tmp_path / "w.pt"))
    with pytest.raises(NetworkError, match="calls save"):
        load_network(tmp_path / "w.pt", spec())
    assert not target.exists()


@pytest.mark.parametrize("name", ["empty.pt", "text.ckpt", "cut.ckpt", "cut.safetensors", "text.safetensors"])
def test_damaged_files(tmp_path: Path, weights: dict[str, torch.Tensor], name: str) -> None:
    from safetensors.torch import save_file

    path = tmp_path / name
    if name.startswith("empty"):
        path.touch()
    elif name.startswith("text"):
        path.write_text("hello, this is no checkpoint")
    else:
        if path.suffix == ".ckpt":
            save(path, weights)
        else:
            save_file(weights, path)
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(NetworkError, match=name) as caught:
        load_network(path, spec(), model="resnet10t")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no such file"):
        load_network(tmp_path / "nowhere.ckpt", spec())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": CLASSES[:2]}, "answers 3 classes, but its card names 2"),
        ({"bands": (*BANDS, "B11")}, "takes 4 bands, but its card names 5"),
        ({"model": "timm:resnet18"}, "holds timm:resnet10t, but its card says timm:resnet18"),
        ({"task": "semantic-segmentation"}, "classifies whole images"),
        ({"sha256": "0" * 64}, "sha256 differs"),
    ],
)
def test_a_card_that_contradicts_its_checkpoint(
    tmp_path: Path, weights: dict[str, torch.Tensor], changes: dict[str, object], words: str
) -> None:
    path = save(tmp_path / "model.ckpt", weights)
    load_network(path, spec())
    with pytest.raises(NetworkError, match=words):
        load_network(path, spec(**changes))


def test_hyper_parameters_that_contradict_the_weights(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(NetworkError, match=r"fc\.weight of shape \(3, 512\) where \(4, 512\) is needed"):
        load_network(save(tmp_path / "m.ckpt", weights, num_classes=4), spec(class_names=(*CLASSES, "town")))
    lost = {name: value for name, value in weights.items() if not name.startswith("layer4")}
    with pytest.raises(NetworkError, match=r"lacks layer4.* and \d+ more"):
        load_network(save(tmp_path / "m.ckpt", lost), spec())
    extra = {**weights, "surplus.weight": torch.zeros(1)}
    with pytest.raises(NetworkError, match=r"has surplus\.weight too many"):
        load_network(save(tmp_path / "m.ckpt", extra), spec())
    sick = {**weights, "fc.bias": torch.tensor([0.0, float("nan"), 0.0])}
    with pytest.raises(NetworkError, match=r"fc\.bias hold NaN"):
        load_network(save(tmp_path / "m.ckpt", sick), spec())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("resnet19", "did you mean"),
        ("hf-hub:someone/model", "unknown architecture"),
        ("smp:unet", "smp:NAME:ENCODER"),
        ("smp:unet:resnet9000", "did you mean"),
        ("torchvision:resnet19", "did you mean"),
        ("resnet50", "not a timm:resnet50|does not fit"),
    ],
)
def test_architectures_that_do_not_exist_or_do_not_fit(
    tmp_path: Path, weights: dict[str, torch.Tensor], model: str, words: str
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(NetworkError, match=words):
        load_network(tmp_path / "w.pt", spec(), model=model)


def test_a_hub_name_in_hyper_parameters_fetches_nothing(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(NetworkError, match="has no model"):
        load_network(save(tmp_path / "m.ckpt", weights, model="hf-hub:someone/model"), spec())


def test_the_checkpoint_of_another_task(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(NetworkError, match="not those of torchgeo's ClassificationTask"):
        load_network(save(tmp_path / "m.ckpt", weights, num_outputs=1), spec())


def test_an_input_size_the_network_cannot_take(tmp_path: Path) -> None:
    import timm

    path = save(
        tmp_path / "v.ckpt",
        dict(timm.create_model("vit_tiny_patch16_224", in_chans=4, num_classes=3).state_dict()),
        model="vit_tiny_patch16_224",
    )
    assert load_network(path, spec(input_size=(224, 224))).input_shape == (4, 224, 224)
    with pytest.raises(NetworkError, match=r"cannot take an input of \(4, 32, 32\)"):
        load_network(path, spec())


def test_input_specs_say_what_is_wrong() -> None:
    with pytest.raises(NetworkError, match="each band"):
        InputSpec(bands=())
    with pytest.raises(NetworkError, match="each band"):
        InputSpec(bands=("B02", "B02"))
    with pytest.raises(NetworkError, match="at least 1 x 1"):
        InputSpec(bands=BANDS, input_size=(0, 4))
