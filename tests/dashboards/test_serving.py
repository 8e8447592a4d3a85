"""How the dashboard is started, and what stands between it and the rest of the project."""

import socket
import subprocess
import sys

import pytest

from dashboards.app import SETTINGS
from dashboards.loading import address, current, origin
from dashboards.navigation import PAGES
from dnd_core.errors import ConfigError, StoreError
from geoaudit.cli import main
from geoaudit.serving import command, serve


def test_it_listens_on_this_machine_only_unless_told_otherwise(tmp_path):
    line = command(tmp_path, 8501, "127.0.0.1", "")
    assert line[1:4] == ["-m", "dashboards", str(tmp_path.resolve())]
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert "--base-path" not in line
    assert command(tmp_path, 80, "0.0.0.0", "/audits/7")[-1] == "/audits/7"
    assert SETTINGS["browser.gatherUsageStats"] is False


@pytest.mark.parametrize(
    ("run", "port", "base", "says"),
    [
        ("missing", 8501, "", "is not a folder"),
        (".", 0, "", "--port must be 1 to 65535"),
        (".", 8501, "/a/../b", "--base_path must be a plain path"),
        (".", 8501, "/a//b", "--base_path must be a plain path"),
    ],
)
def test_what_cannot_be_served_is_said(tmp_path, run, port, base, says):
    with pytest.raises(ConfigError, match=says):
        command(tmp_path / run, port, "127.0.0.1", base)


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another --port"):
            serve(tmp_path, port)


def test_the_command_answers_with_exit_code_2(tmp_path, capsys):
    assert main(["dashboard", str(tmp_path / "missing")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_server_without_a_run_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOAUDIT_RUN", "")
    with pytest.raises(StoreError, match="started without a run"):
        current()
    monkeypatch.setenv("GEOAUDIT_RUN", str(tmp_path / "missing"))
    with pytest.raises(StoreError, match="is not a folder"):
        current()


def test_a_run_is_opened_anew_when_it_grows(sound_run, shown, tmp_path):
    import shutil

    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    audit = (root / "audit.json").read_bytes()
    (root / "audit.json").unlink()
    shown(root)
    first = current()
    assert first.state == "unfinished"
    assert current() is first
    (root / "audit.json").write_bytes(audit)
    assert current().state == "complete"


def test_addresses_stand_below_the_base_path_and_quote_what_they_carry(shown, sound_run):
    shown(sound_run, base="/audits/7/")
    assert address("layers/x.png", layer="unit:a/1", empty="", none=None) == "/audits/7/layers/x.png?layer=unit%3Aa%2F1"
    assert address("x", q='"><script>') == "/audits/7/x?q=%22%3E%3Cscript%3E"
    assert origin("https://host:1/a?b") == "https://host:1"
    assert origin(None) == ""


def test_each_page_is_a_file_and_each_file_a_page():
    from pathlib import Path

    import dashboards.pages

    files = {path.stem for path in Path(dashboards.pages.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(PAGES)


def test_geoaudit_does_not_import_the_screens():
    code = (
        "import sys, geoaudit.cli, geoaudit.serving\n"
        "sys.exit(bool({name.split('.')[0] for name in sys.modules} & {'dashboards', 'streamlit', 'torch'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
