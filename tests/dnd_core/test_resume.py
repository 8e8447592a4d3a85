"""A run killed at any moment goes on and ends in the same bytes."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import types
from pathlib import Path

import pytest

KILLS = 20


def describe_drawn_images(out: str, delay: float) -> None:
    """The tiny network's whole description; ``delay`` spreads it over time so that kills fall everywhere."""
    import torch

    from dnd_core.pipeline import describe
    from dnd_core.testing import draw_probe
    from tests.dnd_core.conftest import QUICK, SIDE, tiny_backends, tiny_network

    torch.set_num_threads(1)
    describe(
        tiny_network(),
        draw_probe(120, size=SIDE, seed=3),
        ["maps", "mix"],
        Path(out),
        tiny_backends(),
        QUICK,
        resume=True,
        progress=lambda *_: time.sleep(delay),
    )


def contents(root: Path) -> dict[str, str]:
    """Hash of every file; of the manifest everything but its timings."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != ".lock":
            data = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(data)
                del manifest["timings"]
                data = json.dumps(manifest, sort_keys=True).encode()
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


@pytest.fixture(scope="module")
def processes():
    """Fresh processes that have already imported what a run needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch",
            "pyarrow.parquet",
            "scipy.stats",
            "sklearn.cluster",
            "sklearn.metrics",
            "skimage.filters",
            "dnd_core.pipeline",
            "dnd_core.publishing",
            "tests.dnd_core.conftest",
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        # Children import the parent's main module; another test may have left a script there that is no longer.
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        yield context


def run(processes, root: Path, kill_after: float | None = None) -> float:
    """Run in another process; kill it after a while if asked. Gives the seconds it ran."""
    process = processes.Process(target=describe_drawn_images, args=(str(root), 0.01))
    start = time.monotonic()
    process.start()
    if kill_after is not None:
        process.join(kill_after)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join()
    if kill_after is None:
        assert process.exitcode == 0
    return time.monotonic() - start


def test_killed_at_random_moments_the_run_ends_in_the_same_bytes(processes, tmp_path):
    whole = tmp_path / "whole"
    run(processes, whole)
    expected = contents(whole)
    assert "neurons.parquet" in expected
    shutil.rmtree(whole)
    took = run(processes, whole)
    assert contents(whole) == expected
    moments = random.Random(20)
    landed = set()
    for number in range(KILLS):
        root = tmp_path / f"killed{number}"
        run(processes, root, kill_after=took * moments.uniform(0.02, 0.98))
        manifest = root / "manifest.json"
        landed.add(len(json.loads(manifest.read_text())["stages"]) if manifest.exists() else -1)
        run(processes, root)
        assert contents(root) == expected, f"kill {number}"
        shutil.rmtree(root)
    # The kills fell into different stages, or the test shows nothing.
    assert len(landed) >= 3, landed


def test_a_finished_stage_is_not_done_again(processes, tmp_path):
    root = tmp_path / "run"
    run(processes, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    run(processes, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")} == before
