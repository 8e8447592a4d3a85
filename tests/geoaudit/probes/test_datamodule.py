"""Data modules of torchgeo training configs: the same images, and the normalisation they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dnd_core.errors import ProbeError
from geoaudit.networks import load_network
from geoaudit.probes import DataModuleProbe, check_contract

from . import layouts
from .drawing import write_raster

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    return layouts.eurosat(tmp_path / "data", "eurosat-100")


def config(path: Path, root: Path, **init: Any) -> Path:
    """A training config as ``torchgeo fit --print_config`` writes it."""
    data = {
        "class_path": "EuroSAT100DataModule",
        "init_args": {"batch_size": 8, "num_workers": 0, **init},
        "dict_kwargs": {"root": str(root), "download": True},
    }
    path.write_text(yaml.safe_dump({"seed_everything": 0, "trainer": {"max_epochs": 1}, "data": data}))
    return path


def test_a_training_config_gives_its_test_split_in_reflectance(tmp_path: Path, eurosat: Path) -> None:
    from torchgeo.datamodules.eurosat import MEAN, STD

    probe = DataModuleProbe(config(tmp_path / "train.yaml", eurosat))
    assert probe.channels == layouts.EUROSAT_ORDER
    np.testing.assert_allclose(probe.pixels([0])[0, 0, 0, 0], 101 / 1e4, atol=1e-6)
    assert probe.class_names == layouts.EUROSAT_CLASSES
    assert probe[0].metadata["crs"] == "EPSG:32633"
    assert probe.normalisation is not None
    bands = layouts.EUROSAT_ORDER
    np.testing.assert_allclose(probe.normalisation.mean, [MEAN[b] / 1e4 for b in bands], rtol=1e-4)
    np.testing.assert_allclose(probe.normalisation.std, [STD[b] / 1e4 for b in bands], rtol=1e-4)
    assert probe.contract_notes == ()


def test_a_network_loaded_with_its_spec_sees_what_the_module_would_feed_it(tmp_path: Path, eurosat: Path) -> None:
    import timm

    from geoaudit.probes.torchgeo_adapter import make

    model = timm.create_model("resnet10t", in_chans=13, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    path = config(tmp_path / "train.yaml", eurosat)
    probe = DataModuleProbe(path)
    network = load_network(tmp_path / "w.pt", probe.input_spec(), model="resnet10t")
    module = make(yaml.safe_load(path.read_text())["data"], "datamodules")
    module.setup("test")
    batch = next(iter(module.test_dataloader()))
    fed = module.aug({"image": batch["image"].clone()})["image"]
    torch.testing.assert_close(network.preprocess(torch.from_numpy(probe.pixels(range(6)))), fed, rtol=1e-3, atol=1e-3)
    assert network.class_names == layouts.EUROSAT_CLASSES
    assert not [note for note in check_contract(network, probe) if note.field == "normalisation"]


class Wide(torch.utils.data.Dataset[dict[str, Any]]):
    """Sixteen-bit images of a user's own."""

    def __init__(self, split: str = "train", top: float = 4000.0) -> None:
        self.top = top

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.full((4, 8, 8), self.top / (index + 1)), "label": torch.tensor(index)}


def module_of(dataset: Any, **options: Any) -> Any:
    from torchgeo.datamodules import NonGeoDataModule

    return NonGeoDataModule(dataset, 2, 0, **options)


def test_the_default_division_by_255_of_wide_numbers_is_reported() -> None:
    options = {"bands": BANDS, "scale": 1e-4, "class_names": ("a", "b")}
    probe = DataModuleProbe(module_of(Wide), **options)
    assert probe.normalisation is not None
    np.testing.assert_allclose(probe.normalisation.std, [255e-4] * 4, rtol=1e-4)
    assert len(probe.contract_notes) == 1
    assert "divides by 255" in probe.contract_notes[0]
    assert "reach 4000" in probe.contract_notes[0]
    assert any(
        n.severity == "warning" and "divides by 255" in n.message for n in check_contract(probe.input_spec(), probe)
    )
    narrow = DataModuleProbe(module_of(Wide, top=200.0), **options)
    assert narrow.contract_notes == ()
    assert narrow.fingerprint != probe.fingerprint


def test_other_augmentations_are_not_taken_for_a_normalisation() -> None:
    options = {"bands": BANDS, "scale": 1e-4}

    class Squared(torch.nn.Module):
        def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"image": batch["image"] ** 2}

    squared = module_of(Wide)
    squared.aug = Squared()
    probe = DataModuleProbe(squared, **options)
    assert probe.normalisation is None
    assert "does more to images" in probe.contract_notes[0]
    with pytest.raises(ProbeError, match="give the network a card"):
        probe.input_spec()
    bare = module_of(Wide)
    bare.aug = None
    assert "no augmentation" in DataModuleProbe(bare, **options).contract_notes[0]


def test_a_resize_becomes_the_input_size(tmp_path: Path) -> None:
    layouts.photographs(tmp_path, "UCMerced_LandUse/Images", "uc_merced-{split}.txt", 256, ".tif")
    spec = {"class_path": "UCMercedDataModule", "init_args": {"root": str(tmp_path), "batch_size": 2}}
    probe = DataModuleProbe(spec, "val")
    assert probe.normalisation is not None
    assert probe.normalisation.size == (256, 256)
    np.testing.assert_allclose(probe.normalisation.std, [1.0] * 3, rtol=1e-4)
    assert probe.contract_notes == ()


def test_a_module_of_rasters_is_cut_by_its_own_sampler(tmp_path: Path) -> None:
    from torchgeo.datamodules import GeoDataModule
    from torchgeo.datasets import RasterDataset

    class Mine(RasterDataset):  # type: ignore[misc]
        all_bands = BANDS

        def __init__(self, split: str = "train", **options: Any) -> None:
            super().__init__(**options)

    path = write_raster(tmp_path / "a.tif", np.full((4, 16, 32), 500, np.uint16))
    module = GeoDataModule(Mine, 1, 8, 4, 0, paths=str(path))
    probe = DataModuleProbe(module, scale=1e-4)
    assert probe.shape == (4, 8, 8)
    assert len(probe) == 8
    np.testing.assert_allclose(probe.pixels([3]), 0.05, atol=1e-6)
    assert "divides by 255" in probe.contract_notes[0]


def test_bad_configs(tmp_path: Path, eurosat: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read as a training config"):
        DataModuleProbe(tmp_path / "nowhere.yaml")
    (tmp_path / "a.yaml").write_text("trainer: {}\n")
    with pytest.raises(ProbeError, match="no data: block"):
        DataModuleProbe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("data: [1, 2\n")
    with pytest.raises(ProbeError, match="training config"):
        DataModuleProbe(tmp_path / "b.yaml")
    with pytest.raises(ProbeError, match="cannot set up its test data"):
        DataModuleProbe(config(tmp_path / "c.yaml", tmp_path / "elsewhere"))
    with pytest.raises(ProbeError, match="unknown split"):
        DataModuleProbe(config(tmp_path / "d.yaml", eurosat), "valid")  # type: ignore[arg-type]
    nested = {"fit": {"data": {"class_path": "EuroSAT100DataModule", "dict_kwargs": {"root": str(eurosat)}}}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(nested))
    assert len(DataModuleProbe(tmp_path / "e.yaml", "val")) == 6
