"""The pipelines of docs/examples, step by step as their service runs them; only the hour of auditing is a stored run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.geoaudit.report.synthetic_run import make_run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

# The command itself, but that its audit hands out the run in $STORED.
COMMAND = """#!{python}
import os, shutil, sys
from types import SimpleNamespace
import geoaudit.launch
from geoaudit import cli
from geoaudit.audit import Audit
from geoaudit.results import open_run

def launch(config, out, *, resume=False, progress=None):
    shutil.copytree(os.environ["STORED"], out)
    results = open_run(out)
    return Audit(out, SimpleNamespace(neurons=results.neurons), (), (), results.audit)

geoaudit.launch.launch = launch
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    return {
        "planted": make_run(folder / "planted", units=16, side=6),
        "clean": make_run(folder / "clean", units=16, side=6, clean=True),
    }


@pytest.fixture
def project(runs, tmp_path):
    """A repository as the examples expect it: a configuration, a baseline, suppressions."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "geoaudit"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    (tmp_path / "audit.yaml").write_text("model: {checkpoint: m.ckpt}\nprobe: {class_path: a.B}\nlayers: [layer4]\n")
    baseline = json.loads((runs["clean"] / "audit.json").read_text())
    (tmp_path / "audit-baseline.json").write_text(json.dumps(baseline))
    (tmp_path / "audit-suppressions.yaml").write_text("[]\n")
    return tmp_path


def shell(script, project, stored, **more):
    """A step as GitHub and GitLab run it: bash that stops at the first error."""
    environment = {
        **os.environ, "PATH": f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "STORED": str(stored), "HF_HUB_OFFLINE": "1", **more,
    }  # fmt: skip
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=project, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_github_fails_the_job_and_uploads_the_findings(project, runs):
    flow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    install, audit = [step for step in flow["jobs"]["audit"]["steps"] if "run" in step]
    assert re.fullmatch(r'pip install "geoaudit @ git\+https://github\.com/OWNER/geoaudit"', install["run"].strip())
    done = shell(audit["run"], project, runs["planted"])
    assert done.returncode == 1, done.stderr[-2000:]
    assert "gate tripped: 1 finding of severity major or worse" in done.stdout
    for step in flow["jobs"]["audit"]["steps"]:
        if "upload" in step.get("uses", ""):
            (needed,) = re.findall(r"^always\(\) && hashFiles\('([^']+)'\) != ''$", step["if"])
            assert (project / needed).is_file()
            for path in step["with"].get("path", step["with"].get("sarif_file", "")).split():
                assert (project / path).is_file(), path
    (result, _) = json.loads((project / "runs/audit/audit.sarif").read_text())["runs"][0]["results"]
    assert (result["level"], result["baselineState"]) == ("error", "new")


def test_gitlab_lets_what_could_not_decide_pass_with_a_warning_and_signs(project, runs):
    pytest.importorskip("cryptography")
    job = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["audit"]
    key = project / "key.pem"
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], capture_output=True, check=False
    )
    assert made.returncode == 0
    done = shell("\n".join(job["script"]), project, runs["clean"])
    assert done.returncode in job["allow_failure"]["exit_codes"], done.stderr[-2000:]
    assert "gate inconclusive" in done.stdout
    after = shell("\n".join(job["after_script"]), project, runs["clean"], AUDIT_KEY=str(key))
    assert after.returncode == 0, after.stderr[-2000:]
    for path in job["artifacts"]["paths"]:
        assert (project / path).is_file(), path
    suite = ET.parse(project / job["artifacts"]["reports"]["junit"]).getroot()
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "2")
    with zipfile.ZipFile(project / "runs/audit/audit.zip") as bundle:
        assert {"audit.json", "report.html", "report.pdf", "audit.sarif", "junit.xml", "sha256.json"} <= set(
            bundle.namelist()
        )
