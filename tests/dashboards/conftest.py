import shutil

import pytest

from dashboards.loading import BASE_VARIABLE, RUN_VARIABLE
from tests.geoaudit.report.synthetic_run import make_run


@pytest.fixture(scope="session")
def sound_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("sound") / "run", units=24, side=6)


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
