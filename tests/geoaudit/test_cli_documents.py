"""The documents name every command, option, exit code and format, and their pipelines call what exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

from geoaudit import cli
from geoaudit.report import FORMATS

DOCS = Path(__file__).parents[2] / "docs"


def commands() -> dict[str, object]:
    """The commands as the parser gets them; those of a group by both words."""
    found: dict[str, object] = {}

    def take(given, argv, program):
        for name, command in given.items():
            group = (
                {f"{name} {word}": its for word, its in command.items() if callable(its)}
                if isinstance(command, dict)
                else {}
            )
            found.update(group or {name: command})
        return 0

    original, cli.run = cli.run, take
    try:
        cli.main([])
    finally:
        cli.run = original
    return found


def sections() -> dict[str, str]:
    parts = re.split(
        r"^## `geoaudit ([a-z]+(?: [a-z0-9]+)?)\b.*`$", (DOCS / "commands.md").read_text(), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_and_option_is_documented():
    said, known = sections(), commands()
    assert set(said) == set(known)
    for name, command in known.items():
        headline = re.search(rf"^## `(geoaudit {name}\b.*)`$", (DOCS / "commands.md").read_text(), re.MULTILINE)[1]
        for parameter in inspect.signature(command).parameters.values():
            if parameter.default is parameter.empty:
                assert parameter.name.upper() in headline or f"--{parameter.name}" in headline, (name, parameter.name)
            else:
                assert f"`--{parameter.name.replace('_', '-')}" in said[name], (name, parameter.name)
        options = {option.replace("-", "_") for option in re.findall(r"`--([a-z-]+)", said[name])}
        assert options <= set(inspect.signature(command).parameters), name


def test_every_exit_code_and_format_is_documented():
    table = dict(re.findall(r"^\| `(\d+)` \| (.+?) \|", (DOCS / "ci.md").read_text(), re.MULTILINE))
    assert set(table) == {"0", "1", "2", "3"}
    text = (DOCS / "commands.md").read_text()
    assert [name for name in (*FORMATS, "zip") if f"`{name}`" not in text] == []
    folder = (DOCS / "run-folder.md").read_text()
    names = [*(entry.file for entry in FORMATS.values()), "audit.zip", "audit.zip.sig", "audit.unfinished.json"]
    assert [name for name in names if f"`{name}`" not in folder] == []


def test_the_pipelines_call_commands_that_exist():
    known = commands()
    files = sorted((DOCS / "examples").glob("*.yml"))
    assert [path.name for path in files] == ["github-actions.yml", "gitlab-ci.yml"]
    for path in files:
        text = path.read_text()
        assert yaml.safe_load(text)
        calls = re.findall(r"geoaudit ([a-z]+)((?: [^\s|;&]+)*)", text.replace("\\\n", " ").replace("\n", " ; "))
        assert {name for name, _ in calls} >= {"audit"}
        for name, words in calls:
            parameters = inspect.signature(known[name]).parameters
            options = {option.replace("-", "_") for option in re.findall(r"--([a-z-]+)", words)}
            assert options <= set(parameters), (path.name, name)
            asked = re.search(r"--formats (\S+)", words)
            assert set(asked[1].split(",") if asked else ()) <= {*FORMATS, "zip"}


def test_github_uploads_what_the_audit_wrote_even_when_the_gate_trips():
    flow = yaml.safe_load((DOCS / "examples" / "github-actions.yml").read_text())
    # YAML 1.1 reads the key "on" as true.
    assert set(flow[True]) >= {"pull_request"}
    steps = flow["jobs"]["audit"]["steps"]
    uploads = {step["uses"].split("@")[0]: step for step in steps if "upload" in step.get("uses", "")}
    assert uploads["github/codeql-action/upload-sarif"]["with"]["sarif_file"].endswith("audit.sarif")
    assert all("always()" in step["if"] for step in uploads.values())
    assert flow["jobs"]["audit"]["permissions"]["security-events"] == "write"


def test_gitlab_shows_the_checks_as_tests():
    job = yaml.safe_load((DOCS / "examples" / "gitlab-ci.yml").read_text())["audit"]
    assert job["artifacts"]["reports"]["junit"].endswith("junit.xml")
    assert job["artifacts"]["when"] == "always"
    assert job["allow_failure"]["exit_codes"] == [3]


def test_the_suppressions_of_the_documents_can_be_read(tmp_path):
    from geoaudit.suppressions import load_suppressions

    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "ci.md").read_text(), re.DOTALL)
    (tmp_path / "s.yaml").write_text(next(block for block in blocks if "fingerprint" in block))
    entries = load_suppressions(tmp_path / "s.yaml")
    assert entries
    assert all(entry.reason and entry.by and entry.until for entry in entries)
