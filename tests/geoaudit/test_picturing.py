"""The stage of maps over two scenes of one name, of which the labels cover one."""

import json
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from shapely.geometry import box
from torch import nn

from dnd_core.images import ArrayImages
from dnd_core.layers import list_layers
from dnd_core.networks import Network
from dnd_core.pipeline import Run
from dnd_core.store import RunStore
from geoaudit.labels import NoOverlap
from geoaudit.picturing import map_stage
from geoaudit.results import open_run
from geoaudit.settings import AuditSettings

BANDS = ("B02", "B03", "B04")


class Body(nn.Module):
    """Three units that pass their bands on, and a head that decides by the first."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1, bias=False)
        self.body.weight.data = torch.eye(3)[:, :, None, None]
        self.head = nn.Linear(3, 2)
        self.head.weight.data = torch.tensor([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
        self.head.bias.data = torch.tensor([0.0, -2.0])

    def forward(self, pixels):
        return self.head(self.body(pixels).mean(dim=(2, 3)))


def scene(path, left, seed):
    path.parent.mkdir()
    values = np.random.default_rng(seed).integers(400, 1600, (3, 48, 64)).astype(np.uint16)
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 3, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=from_origin(left, 5_400_000, 10, 10), nodata=0, **profile) as raster:
        raster.write(values)
        raster.descriptions, raster.scales = BANDS, (0.0001,) * 3
    return path


@pytest.fixture
def made(tmp_path):
    """(store, subject, run) of a tiny network, two scenes and labels over the first."""
    network = Network(Body(), lambda pixels: pixels, (3, 16, 16), channels=BANDS, class_names=("dark", "bright"))
    layers = tuple(info for info in list_layers(network) if info.name in ("body", "output"))
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.04, 0.16, (24, 3, 16, 16)).astype(np.float32)
    probe = ArrayImages(
        pixels, rgb=np.zeros((24, 16, 16, 3), np.uint8), channels=BANDS, labels=np.arange(24) % 2,
        class_names=("dark", "bright"), blocks=np.arange(24) // 4,
    )  # fmt: skip
    scenes = (scene(tmp_path / "b" / "scene.tif", 500_000, 1), scene(tmp_path / "a" / "scene.tif", 600_000, 2))
    polygons = [box(500_000, 5_399_700, 500_300, 5_400_000), box(500_300, 5_399_700, 500_640, 5_400_000)]
    gpd.GeoDataFrame({"kind": ["dark", "bright"]}, geometry=polygons, crs="EPSG:32633").to_file(
        tmp_path / "labels.gpkg"
    )
    labels = {"path": str(tmp_path / "labels.gpkg"), "field": "kind", "classes": ["dark", "bright"]}
    subject = SimpleNamespace(network=network, probe=probe, scenes=scenes, labels=labels)
    rows = [{"layer": "body", "unit": unit, "label": f"band {unit}", "r": 0.9} for unit in range(3)]
    root = tmp_path / "run"
    with RunStore(root, resume=False, header={}) as store:
        (root / "activations").mkdir()
        np.save(root / "activations" / "body.npy", pixels.mean(axis=(2, 3)))
        groups = [{"group": 0, "name": "first", "units": json.dumps(["body/0"]), "threshold": 0.5}]
        pd.DataFrame(groups).to_parquet(root / "groups.parquet")
        (root / "layers.json").write_text(
            json.dumps([{"name": info.name, "kind": info.kind, "units": info.units} for info in layers])
        )
        yield store, subject, Run(root, pd.DataFrame(rows), layers, np.arange(16), np.arange(16, 24))


OPTIONS = AuditSettings(map_units=1, map_stride=4)
BEFORE = SimpleNamespace(key="before")


def test_each_scene_gets_its_bands_its_maps_and_its_labels(made):
    store, subject, run = made
    map_stage(store, subject, run, [], OPTIONS, BEFORE, None)
    results = open_run(store.root)
    assert list(results.scenes()) == ["scene", "scene-2"]
    assert results.band_roles("scene-2") == {"B02": "blue", "B03": "green", "B04": "red"}
    for name, left in (("scene", 500_000), ("scene-2", 600_000)):
        for path in (
            results.bands(name), results.class_map(name), results.probability_map(name), results.applicability_map(name),
            *results.maps(name).values(),
        ):  # fmt: skip
            with rasterio.open(path) as raster:
                assert raster.bounds.left == left
        with rasterio.open(results.applicability_map(name)) as raster:
            assert raster.tags(1)["IMAGES"] == "16"
            assert raster.shape == (12, 16)
    assert {str(unit) for unit in results.maps("scene-2")} == {"body/0"}
    # The labels lie on the first scene only.
    assert results.label_map("scene-2") is None
    with rasterio.open(results.label_map("scene")) as raster:
        codes = raster.read(1)
        assert (codes[:30, :30] == 0).all()
        assert (codes[:30, 30:] == 1).all()
        assert (codes[30:] == 255).all()
        assert raster.tags(1)["CLASS_1"] == "bright"


def test_labels_beside_the_only_scene_are_an_error(made):
    store, subject, run = made
    subject.scenes = subject.scenes[1:]
    with pytest.raises(NoOverlap, match="touches the scene"):
        map_stage(store, subject, run, [], OPTIONS, BEFORE, None)
