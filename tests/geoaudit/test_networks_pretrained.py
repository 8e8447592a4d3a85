"""torchgeo's backbones with a head: bands, scaling and classes come out of the weights' own description."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dnd_core.errors import NetworkError
from geoaudit.bands import SENTINEL2
from geoaudit.networks import InputSpec, load_network, pretrained_spec

MOCO = "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    import timm

    torch.manual_seed(0)
    return dict(timm.create_model("resnet18", in_chans=13, num_classes=2).state_dict())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    backbone = folder / "resnet18_sentinel2_all_moco-59bfdff9.pth"
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, backbone)
    head = folder / "head.pt"
    torch.save({"head.weight": state["fc.weight"], "head.bias": state["fc.bias"]}, head)
    return backbone, head


def test_bands_and_scaling_come_from_the_weights() -> None:
    spec = pretrained_spec(MOCO, class_names=("field", "water"))
    # torchgeo writes B8a ninth; by canonical name that is this project's own order.
    assert spec.bands == SENTINEL2
    assert spec.mean == (0.0,) * 13
    assert spec.std == pytest.approx((1.0,) * 13)
    assert spec.input_size == (224, 224)


def test_normalisations_in_a_row_are_one(files: tuple[Path, Path]) -> None:
    """SeCo: ((x - m1)/s1 - 0)/s2 then ImageNet's; the reference applies the transforms themselves."""
    from torchgeo.models import ResNet18_Weights

    spec = pretrained_spec("torchgeo:ResNet18_Weights.SENTINEL2_RGB_SECO", scale=1e-4)
    pixels = torch.rand(1, 3, 224, 224) * 0.3
    expected = pixels.clone() / 1e-4
    for step in ResNet18_Weights.SENTINEL2_RGB_SECO.transforms:
        if "Normalize" in type(step).__name__:
            expected = step(expected.clone())
    assert spec.bands == ("B04", "B03", "B02")
    torch.testing.assert_close(spec.preprocess()(pixels), expected, rtol=1e-4, atol=1e-2)


def test_backbone_and_head_make_one_network(state: dict[str, torch.Tensor], files: tuple[Path, Path]) -> None:
    import timm

    network = load_network(files[0], model=MOCO, head=files[1])
    reference = timm.create_model("resnet18", in_chans=13, num_classes=2).eval()
    reference.load_state_dict(state)
    pixels = torch.rand(2, 13, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), reference(pixels))
    # EuroSAT writes B8A last; the network must still get it ninth.
    order = [*range(8), 9, 10, 11, 12, 8]
    eurosat = load_network(files[0], model=MOCO, head=files[1], channels=tuple(SENTINEL2[i] for i in order))
    torch.testing.assert_close(eurosat(pixels[:, order]), network(pixels))


def test_weights_in_the_hub_cache_need_no_file(monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path]) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(files[0].parent.parent))
    spec = pretrained_spec(MOCO, class_names=("field", "water"))
    network = load_network(MOCO, spec, head=files[1])
    assert network.fingerprint == load_network(files[0], spec, model=MOCO, head=files[1]).fingerprint
    assert network.class_names == ("field", "water")


def test_what_must_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(NetworkError, match="backbone without classes"):
        load_network(files[0], model=MOCO)
    with pytest.raises(NetworkError, match="give the card"):
        load_network(files[0], model="timm:resnet18")
    with pytest.raises(NetworkError, match="no weights"):
        pretrained_spec("torchgeo:ResNet18_Weights.NOWHERE")
    with pytest.raises(NetworkError, match="pass scale="):
        pretrained_spec("torchgeo:ResNet50_Weights.SENTINEL2_MI_RGB_SATLAS")
    with pytest.raises(NetworkError, match="names them by role"):
        pretrained_spec("torchgeo:ResNet18_Weights.LANDSAT_TM_TOA_MOCO", scale=1.0)
    with pytest.raises(NetworkError, match="goes with a torchgeo backbone"):
        load_network(files[0], InputSpec(bands=SENTINEL2), model="timm:resnet18", head=files[1])
    torch.save({"a": torch.zeros(2)}, tmp_path / "no head.pt")
    with pytest.raises(NetworkError, match="one linear layer"):
        load_network(files[0], model=MOCO, head=tmp_path / "no head.pt")


def test_weights_that_cannot_be_fetched_say_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(NetworkError, match=r"cannot be fetched from https://.*give its path"):
        load_network(MOCO, head=tmp_path / "head.pt")
