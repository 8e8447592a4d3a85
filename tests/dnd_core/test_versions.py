import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from dnd_core import versions
from dnd_core.pipeline import installed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(monkeypatch):
    """The package as if it lay at another place."""

    def move(path):
        monkeypatch.setattr(versions, "_CHECKOUT", path)
        versions._checkout.cache_clear()

    yield move
    versions._checkout.cache_clear()


def test_a_checkout_knows_its_version_without_being_installed():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert installed(["geoaudit", "numpy"]) == {"geoaudit": stated, "numpy": version("numpy")}


def test_what_is_not_there_is_unknown(elsewhere, tmp_path):
    assert versions.package_version("no-such-package-anywhere") == versions.UNKNOWN
    for text in ("", "[project]", "[project", "[project]\nname = 'geoaudit'\nversion = ''"):
        (tmp_path / "pyproject.toml").write_text(text)
        elsewhere(tmp_path / "pyproject.toml")
        assert versions.package_version("numpy") == version("numpy")


def test_a_pyproject_of_something_else_does_not_speak_for_us(elsewhere, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'numpy-fork'\nversion = '99'\n")
    elsewhere(tmp_path / "pyproject.toml")
    assert versions.package_version("numpy") == version("numpy")
