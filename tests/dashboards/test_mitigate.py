"""The page Mitigate: what was measured is shown at once, the rest is measured by a process that can be followed and stopped."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from dashboards import jobs
from dashboards.jobs import Job
from tests.dashboards.test_pages import markup, open_page, words

PATIENCE = 120


def waited(job):
    """The job after its process has ended."""
    job.process.wait(PATIENCE)
    return job.state


@pytest.fixture
def run(tmp_path, sound_run, shown):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    yield shown(root)
    job = jobs._jobs.pop((root, "prune"), None)
    if job is not None:
        job.close()
        job.process.wait(PATIENCE)


def pruning(units, change=-0.25, key="abc", groups=()):
    row = {
        "n": 40, "accuracy_before": 0.9, "accuracy_after": 0.9 + change, "change": change, "low": change - 0.05,
        "high": change + 0.05, "random_mean": -0.01, "random_low": -0.03, "random_high": 0.02, "gap": change + 0.01,
        "gap_low": change - 0.04, "gap_high": change + 0.06, "p": 0.001,
    }  # fmt: skip
    named = [{"name": name, **row} for name in ("forest", "water")]
    return {
        "schema_version": 1, "key": key, "units": sorted(units), "groups": list(groups), "random_sets": 20, "images": 80,
        "overall": {"name": "all classes", **row}, "classes": named,
    }  # fmt: skip


def keep(root, entry):
    (root / "prunings").mkdir(exist_ok=True)
    (root / "prunings" / f"{entry['key']}.json").write_text(json.dumps(entry))


def test_a_pruning_that_is_stored_is_shown_at_once(run):
    keep(run, pruning(["layer4/5", "layer3/2"]))
    page = open_page("mitigate", groups="none", units="layer3/2, layer4/5,layer4/5")
    assert not page.exception
    text = words(page)
    assert "All of it at once: 2 neurons of layer3, layer4" in text
    assert "\u22120.25 (\u22120.30 to \u22120.20)" in text
    assert "20 random sets" in text
    assert not [button for button in page.button if "Measure" in button.label]
    # A damaged one is said and does not take the page away.
    (run / "prunings" / "bad.json").write_text("{")
    assert not open_page("mitigate").exception


def test_hostile_names_in_a_pruning_are_text(run):
    entry = pruning(["layer4/5"], key="<script>alert(1)</script>")
    entry["classes"][0]["name"] = "<img src=x onerror=alert(1)> [x](http://x) $a$"
    del entry["classes"][1]["low"]
    keep(run, {**entry, "key": "k"})
    page = open_page("mitigate", groups="none", units="layer4/5")
    assert not page.exception
    assert "<img src=x" not in markup(page)
    assert "&lt;img src=x" in markup(page)


def test_what_the_audit_switched_off_is_the_deepest_layer(run):
    from geoaudit.results import open_run

    results = open_run(run)
    members = [unit for unit in results.group_units(5) if unit.layer != "output"]
    order = [layer.name for layer in results.layers]
    deepest = max((unit.layer for unit in members), key=order.index)
    text = words(open_page("mitigate", groups="5"))
    count = sum(unit.layer == deepest for unit in members)
    assert f"<b><bdi>{count}</bdi></b><bdi>neurons switched off</bdi>" in text
    assert f"those of {deepest}, its deepest layer" in text
    # The rest of the concept is offered to be measured.
    assert len({unit.layer for unit in members}) > 1
    assert f"All of it at once: {len(members)} neurons" in text
    assert "Measure this pruning" in text


def test_a_class_that_loses_nothing_does_not_hang_on_the_neurons(run):
    # Random neurons push the class up, these leave it as it is: the gap is real, but nothing is lost.
    entry = pruning(["layer4/5"])
    entry["classes"][0] |= {"change": 0.0, "low": 0.0, "high": 0.0, "gap": -0.1, "p": 0.001}
    keep(run, entry)
    text = words(open_page("mitigate", groups="none", units="layer4/5"))
    assert text.count("hangs on it") == 1
    assert "<b><bdi>1</bdi></b><bdi>classes that lose more than by chance</bdi>" in text


def test_a_pruning_without_random_sets_says_so(run):
    entry = pruning(["layer4/5"])
    entry["random_sets"] = 0
    for row in (entry["overall"], *entry["classes"]):
        row |= dict.fromkeys(("random_mean", "random_low", "random_high", "gap", "gap_low", "gap_high"))
    keep(run, entry)
    page = open_page("mitigate", groups="none", units="layer4/5")
    assert not page.exception
    assert "no random neurons to compare with" in words(page)


def test_names_that_are_no_neurons_are_refused(run):
    for name in ("layer4/999", "../../x/1", "--out=/etc", "<script>", "layer4"):
        page = open_page("mitigate", groups="none", units=name)
        assert not page.exception
        assert "This run has no neuron" in words(page)
        assert not [button for button in page.button if "Measure" in button.label]


def test_a_measure_that_fails_says_why_and_what_to_do(run):
    page = open_page("mitigate", groups="0|5", units="layer4/2")
    (button,) = [button for button in page.button if "Measure" in button.label]
    page = button.click().run()
    job = jobs.job_of(run, "prune")
    assert len(job.about) > 3
    # The drawn run audited no network that could be opened again.
    assert waited(job) == "failed"
    page = open_page("mitigate", groups="0|5", units="layer4/2")
    assert any("could not be made" in entry.value for entry in page.error)
    assert "Traceback" not in markup(page)
    assert "--config" in markup(page)
    assert not (run / "prunings").exists()


def process(code):
    import tempfile

    output = tempfile.TemporaryFile()  # noqa: SIM115
    begun = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=output, stderr=subprocess.STDOUT)
    return Job(("layer4/5",), time.monotonic(), begun, output)


def test_a_job_tells_how_far_it_is_and_can_be_stopped(run):
    job = process("import time\nprint('prune: 3/10 (0 s)', flush=True)\ntime.sleep(600)")
    jobs._jobs[(run, "prune")] = job
    begun = time.monotonic()
    while job.step() is None and time.monotonic() - begun < PATIENCE:
        time.sleep(0.05)
    assert job.step() == ("prune", 3, 10)
    assert job.state == "running"
    page = open_page("mitigate", groups="none", units="layer4/5")
    assert "The pages stay usable" in page.info[0].value
    page.button(key="cancel-prune").click().run()
    assert waited(job) == "cancelled"
    page = open_page("mitigate", groups="none", units="layer4/5")
    assert any("Cancelled after" in entry.value for entry in page.warning)
    # A second start while nothing runs begins anew.
    assert next(button for button in page.button if "Measure" in button.label).disabled is False


def test_what_a_job_printed_ends_with_its_reason(run):
    job = process("import sys\nprint('x: 1/2 (0 s)')\nprint('error: no such thing')\nsys.exit(2)")
    assert waited(job) == "failed"
    assert job.said() == "error: no such thing"
    job.close()
    assert job.state == "failed"


def test_one_measure_at_a_time(run, monkeypatch):
    job = process("import time\ntime.sleep(600)")
    jobs._jobs[(run, "prune")] = job
    assert jobs.start(run, "prune", ["other"], ["doctor"]) is job
    page = open_page("mitigate", groups="none", units="layer4/4")
    assert next(button for button in page.button if "Measure" in button.label).disabled is True
    assert "Another pruning is being measured" in markup(page)


def test_the_page_never_loads_the_network(run):
    keep(run, pruning(["layer4/5", "layer3/2"]))
    code = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        "page = AppTest.from_string('from dashboards.pages.mitigate import show\\nshow()', default_timeout=60)\n"
        "page.query_params['units'] = 'layer4/5, layer3/2'\n"
        "page.query_params['groups'] = 'none'\n"
        "assert not page.run().exception\n"
        "sys.exit(f'loaded: {sorted(set(sys.modules) & {\"torch\", \"geoaudit.pruning\"})}' if 'torch' in sys.modules else 0)\n"
    )
    environment = {**os.environ, "GEOAUDIT_RUN": str(run)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
