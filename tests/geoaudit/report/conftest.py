import pytest

from geoaudit.results import open_run
from tests.geoaudit.report.synthetic_run import make_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return open_run(make_run(tmp_path_factory.mktemp("finished") / "run", units=24, side=6))


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    return open_run(make_run(tmp_path_factory.mktemp("clean") / "run", units=16, side=6, clean=True))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    return open_run(make_run(tmp_path_factory.mktemp("hostile") / "run", units=16, side=6, hostile=True))


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory):
    root = make_run(tmp_path_factory.mktemp("unfinished") / "run", units=16, side=6)
    for name in ("audit.json", "ablation.parquet", "reliance.parquet", "groups.parquet"):
        (root / name).unlink()
    return open_run(root)


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    return open_run(tmp_path_factory.mktemp("empty"))
