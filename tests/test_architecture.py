"""The house stays as it was drawn: one direction, small files, documents that run and that name every option."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dnd_core import cli
from dnd_core.config import DescribeConfig
from dnd_core.registry import SHORT_NAMES

ROOT = Path(__file__).parents[1]
PACKAGES = ("dnd_core", "geoaudit", "dashboards")
ENGINE = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")


def test_imports_go_one_way():
    """The contracts stand in pyproject.toml."""
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_no_file_has_more_than_400_lines():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 50
    long = {str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_nothing_is_left_unfinished():
    """No note to oneself, no stub."""
    words = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if words.search(line)
    ]
    assert found == []


def settings(section=None, prefix="settings."):
    for field in dataclasses.fields(section or DescribeConfig()):
        value = getattr(section or DescribeConfig(), field.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


@pytest.mark.parametrize(("name", "default"), list(settings()))
def test_every_setting_stands_in_the_guide_with_its_default(name, default):
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    row = re.search(rf"^\| `{re.escape(name)}` \| `?([^|`]+)`? \|", ENGINE, re.MULTILINE)
    assert row is not None, f"{name} is not in docs/engine.md"
    assert row[1].strip() == shown


@pytest.mark.parametrize("command", [cli.describe_folder, cli.layers])
def test_every_option_stands_in_the_guide(command):
    for name, parameter in inspect.signature(command).parameters.items():
        assert f"`--{name}" in ENGINE, f"--{name} is not in docs/engine.md"
        assert parameter.name in (inspect.getdoc(command) or "")


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_every_backend_stands_in_the_guide_with_its_class(name):
    assert f"| `{name}` | `{SHORT_NAMES[name]}` |" in ENGINE


def test_exit_codes_stand_in_the_guide():
    assert all(f"`{code}`" in ENGINE for code in (0, 2, 130))


def snippets():
    """Fenced blocks that follow a line ``<!-- run -->``."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, (language, code) in enumerate(
            re.findall(
                r"^<!-- run -->\n+```(\w+)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
            )
        ):
            yield pytest.param(language, code, id=f"{path.stem}-{number}")


def test_there_are_snippets_to_run():
    assert list(snippets())


@pytest.mark.parametrize(("language", "code"), list(snippets()))
def test_snippets_of_the_documents_run(language, code, tmp_path):
    """In a fresh folder, with the commands of this checkout on the path."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    for name, module in {"dnd": "dnd_core.cli", "geoaudit": "geoaudit.cli"}.items():
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = {"python": [sys.executable, "-c", code], "bash": ["bash", "-eu", "-c", code]}[language]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
