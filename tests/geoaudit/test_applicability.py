"""The map of applicability against a scene whose left half the audited images resemble and whose right half they do not."""

from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from scipy.spatial.distance import cdist
from torch import nn

from dnd_core.layers import list_layers
from dnd_core.networks import Network
from geoaudit.applicability import ApplicabilityMap, Reference, reference_of
from geoaudit.spatial import SpatialError, map_units
from geoaudit.windows import plan_windows

UTM = Affine(10, 0, 500_000, 0, -10, 6_000_000)


class Body(nn.Module):
    """Two units that pass their bands on, and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(2, 2, 1, bias=False)
        self.body.weight.data = torch.eye(2)[:, :, None, None]
        self.head = nn.Linear(2, 2)

    def forward(self, pixels):
        return self.head(self.body(pixels).mean(dim=(2, 3)))


class HalfScene:
    """Left half: values as audited. Right half: brighter than anything audited. The last rows hold no data."""

    crs, transform, height, width, bands = "EPSG:32633", UTM, 32, 64, ("a", "b")

    def __init__(self):
        rng = np.random.default_rng(5)
        self.pixels = rng.uniform(0, 1, (2, 32, 64)).astype(np.float32)
        self.pixels[:, :, 32:] += 8
        self.valid = np.ones((32, 64), dtype=bool)
        self.valid[28:] = False

    def read(self, window=None, *, bands=None):
        rows = slice(window.row_off, window.row_off + window.height)
        columns = slice(window.col_off, window.col_off + window.width)
        return self.pixels[:, rows, columns], self.valid[rows, columns]


def reference(seed=0):
    known = np.random.default_rng(seed).uniform(0.3, 0.7, (60, 2))
    return Reference.fit(known, np.arange(60) // 6)


def test_the_index_is_the_distance_to_the_nearest_known_image():
    found = reference()
    new = np.random.default_rng(1).uniform(-2, 3, (50, 2))
    slow = cdist(new * found.scale, found.known).min(axis=1) / found.mean
    np.testing.assert_allclose(found.index(new), slow, rtol=1e-9, atol=1e-12)


def test_a_map_of_what_the_audit_has_not_seen(tmp_path):
    net = Network(Body(), lambda pixels: pixels, (2, 8, 8))
    layers = list_layers(net)
    scene = HalfScene()
    features = ApplicabilityMap(reference(), "body", "mean")
    # No unit of the layer is mapped: it is run for its features alone.
    made = map_units(net, scene, [], layers, tmp_path, resolution=4, features=features)
    path = tmp_path / "applicability.tif"
    outside = features.write(path, made.grids["body"], made.chip, scene.crs, made.probability)
    with rasterio.open(path) as raster:
        values, tags = raster.read(1), raster.tags(1)
        assert raster.crs.to_epsg() == 32633
        assert raster.transform.a == 40
        assert np.isnan(raster.nodata)
        assert raster.descriptions[0] == "dissimilarity to the audited images"
    assert values.shape == (8, 16)
    # What holds no data says nothing about applicability.
    assert np.isnan(values[7]).all()
    assert np.isfinite(values[:7]).all()
    threshold = float(tags["THRESHOLD"])
    assert (values[:7, :6] <= threshold).mean() > 0.8
    assert (values[:7, 9:] > threshold).all()
    assert outside == pytest.approx(float((values[:7] > threshold).mean()), abs=1e-6)
    assert float(tags["OUTSIDE"]) == pytest.approx(outside, abs=1e-5)
    assert (tags["LAYER"], tags["IMAGES"]) == ("body", "60")
    assert path.with_suffix(".qml").is_file()
    assert {entry.name for entry in tmp_path.glob("*.raw")} == set()


def test_a_cell_takes_the_mean_of_the_windows_over_it():
    net = Network(Body(), lambda pixels: pixels, (2, 8, 8))
    scene, known = HalfScene(), reference()
    features = ApplicabilityMap(known, "body", "mean")
    from geoaudit.sliding import SlidingPass

    run = SlidingPass(net, scene, {"body": []}, list_layers(net), resolution=4, features=features)
    assert list(run) == []
    values = features.raster(run.grids["body"], (8, 8))
    plan = plan_windows(32, 64, (8, 8))
    total, count = np.zeros((8, 16)), np.zeros((8, 16))
    for top in plan.rows.starts:
        for left in plan.columns.starts:
            chip, valid = scene.pixels[:, top : top + 8, left : left + 8], scene.valid[top : top + 8, left : left + 8]
            # Pixels without data take the mean of the others, so the mean is that of the others.
            (index,) = known.index(chip[:, valid].mean(axis=1)[None])
            total[top // 4 : top // 4 + 2, left // 4 : left // 4 + 2] += index
            count[top // 4 : top // 4 + 2, left // 4 : left // 4 + 2] += 1
    np.testing.assert_allclose(values, total / count, rtol=1e-4, atol=1e-4)


def test_features_of_a_layer_that_is_not_run_are_refused():
    from geoaudit.sliding import SlidingPass

    net = Network(Body(), lambda pixels: pixels, (2, 8, 8))
    with pytest.raises(SpatialError, match="'head'"):
        SlidingPass(
            net, HalfScene(), {"body": [0]}, list_layers(net), features=ApplicabilityMap(reference(), "head", "mean")
        )


def test_held_out_and_unlabelled_images_are_not_known():
    activations = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    run = SimpleNamespace(held_out=np.arange(10), activations=lambda layer: activations)
    labels = np.r_[np.zeros(35, dtype=int), -np.ones(5, dtype=int)]

    class Images(SimpleNamespace):
        def __len__(self):
            return 40

    found = reference_of(run, Images(labels=labels, blocks=np.arange(40) // 5), "layer")
    assert len(found.known) == 25
    assert reference_of(run, Images(labels=labels, blocks=np.zeros(40)), "layer") is None
    assert len(reference_of(run, Images(labels=None, blocks=None), "layer").known) == 30
