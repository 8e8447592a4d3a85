import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from dashboards.loading import BASE_VARIABLE, RUN_VARIABLE
from tests.geoaudit.report.synthetic_run import make_run

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")


def _raster(path, values, like, descriptions=(), tags=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "crs": like.crs, "transform": like.transform, "dtype": values.dtype.name, **options}
    count, height, width = values.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as raster:
        raster.write(values)
        for number, words in enumerate(descriptions, start=1):
            raster.set_band_description(number, words)
        raster.update_tags(1, **(tags or {}))


def chart(root):
    """Add bands, probability, labels and applicability to a drawn run, and a second scene east of the first."""
    with rasterio.open(root / "scene" / "scene-a.tif") as scene:
        rgb = scene.read()
        # Red, green and blue as they are, then bands that differ from them and from one another.
        blue, green, red = rgb[2], rgb[1], rgb[0]
        bands = np.stack([blue, green, red, 255 - red, 255 - green, 255 - blue])
        _raster(root / "bands" / "scene-a.tif", np.maximum(bands, 1), scene, BANDS, nodata=0)
        with rasterio.open(root / "maps" / "classes.tif") as classes:
            decided = classes.read()
        sure = np.where(decided == 255, np.nan, 0.5 + decided / 10).astype(np.float32)
        _raster(root / "maps" / "probability.tif", sure, scene, ["probability"], nodata=np.nan)
        # The labels have their classes in another order and one that the network does not know.
        labels = np.where(decided < 4, 3 - decided, 255).astype(np.uint8)
        labels[:, :20, :20] = 4
        names = dict(enumerate(["residential", "farmland", "forest", "water", "glacier"]))
        tags = {f"CLASS_{number}": name for number, name in names.items()}
        _raster(root / "maps" / "labels.tif", labels, scene, ["labelled class"], tags, nodata=255)
        unlike = np.full(decided.shape, 0.2, dtype=np.float32)
        unlike[:, :, decided.shape[2] // 2 :] = 0.9
        tags = {"LAYER": "layer4", "THRESHOLD": "0.5", "OUTSIDE": "0.5", "IMAGES": "36"}
        _raster(root / "maps" / "applicability.tif", unlike, scene, ["dissimilarity"], tags, nodata=np.nan)
        away = SimpleNamespace(
            crs=scene.crs, transform=from_origin(scene.bounds.right + 50_000, scene.bounds.top, 10, 10)
        )
        _raster(root / "scene" / "a-second.tif", rgb[:, ::-1], away)
        _raster(root / "maps" / "a-second" / "classes.tif", decided, away, nodata=255)
        _raster(root / "maps" / "a-second" / "layer4" / "2.tif", sure, away, nodata=np.nan)
    return root


@pytest.fixture(scope="session")
def sound_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("sound") / "run", units=24, side=6)


@pytest.fixture(scope="session")
def charted_run(tmp_path_factory, sound_run):
    """A run with everything an audit lays over a scene, and a second scene, which comes first by name."""
    root = tmp_path_factory.mktemp("charted") / "run"
    shutil.copytree(sound_run, root)
    return chart(root)


@pytest.fixture(scope="session")
def other_version_run(tmp_path_factory, sound_run):
    root = tmp_path_factory.mktemp("version") / "run"
    shutil.copytree(sound_run, root)
    for name, version in (("manifest.json", 99), ("audit.json", "99.0")):
        values = json.loads((root / name).read_text())
        values["schema_version"] = version
        (root / name).write_text(json.dumps(values))
    return root


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("hostile") / "run", units=20, side=6, hostile=True)


@pytest.fixture(scope="session")
def damaged_run(tmp_path_factory, sound_run):
    root = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(sound_run, root)
    (root / "audit.json").write_text("{ not json")
    for name in ("groups.parquet", "images.parquet", "activations/layer3.npy", "maps/index.gpkg", "maps/layer4/5.tif"):
        (root / name).write_bytes((root / name).read_bytes()[:40])
    shutil.rmtree(root / "thumbnails")
    return root


@pytest.fixture(scope="session")
def unfinished_run(tmp_path_factory, sound_run):
    root = tmp_path_factory.mktemp("unfinished") / "run"
    shutil.copytree(sound_run, root)
    for name in ("audit.json", "ablation.parquet", "reliance.parquet", "groups.parquet", "images.parquet"):
        (root / name).unlink()
    shutil.rmtree(root / "maps")
    return root


@pytest.fixture(scope="session")
def empty_run(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture
def shown(monkeypatch):
    """Make a run the one that this process shows."""

    def show(root, base=""):
        monkeypatch.setenv(RUN_VARIABLE, str(root))
        monkeypatch.setenv(BASE_VARIABLE, base)
        return root

    return show
