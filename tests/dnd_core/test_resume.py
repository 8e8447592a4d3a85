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
BY_THE_CLOCK = 3


def describe_drawn_images(out: str, kill_at: int | None, tally: str) -> None:
    """The tiny network's whole description, killed at its ``kill_at``-th moment.

    Moments are counted, not timed, so that a busy machine changes nothing: each file of the run that is about to be
    opened, renamed or removed, and each report of progress. ``tally`` is where their number is left.
    """
    import torch

    from dnd_core.pipeline import describe
    from dnd_core.testing import draw_probe
    from tests.dnd_core.conftest import QUICK, SIDE, tiny_backends, tiny_network

    torch.set_num_threads(1)
    moments = 0

    def moment(*_: object) -> None:
        nonlocal moments
        moments += 1
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def of_the_run(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(arguments[0]).startswith(out):
            moment()

    sys.addaudithook(of_the_run)
    describe(
        tiny_network(),
        draw_probe(120, size=SIDE, seed=3),
        ["maps", "mix"],
        Path(out),
        tiny_backends(),
        QUICK,
        resume=True,
        progress=moment,
    )
    Path(tally).write_text(str(moments))


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


def run(processes, root: Path, kill_at: int | None = None, kill_after: float | None = None) -> int:
    """Run in another process, kill it if asked; the moments it had (0 where it was killed)."""
    tally = root.with_suffix(".tally")
    tally.unlink(missing_ok=True)
    process = processes.Process(target=describe_drawn_images, args=(str(root), kill_at, str(tally)))
    process.start()
    if kill_after is not None:
        process.join(kill_after)
        process.kill()
    process.join()
    if kill_at is not None:
        assert process.exitcode == -signal.SIGKILL
    elif kill_after is None:
        assert process.exitcode == 0
    return int(tally.read_text()) if tally.exists() else 0


def test_killed_at_random_moments_the_run_ends_in_the_same_bytes(processes, tmp_path):
    whole = tmp_path / "whole"
    total = run(processes, whole)
    expected = contents(whole)
    assert "neurons.parquet" in expected
    shutil.rmtree(whole)
    assert run(processes, whole) == total
    assert contents(whole) == expected
    landed = set()
    for number, moment in enumerate(sorted(random.Random(20).sample(range(1, total), KILLS))):
        root = tmp_path / f"killed{number}"
        run(processes, root, kill_at=moment)
        manifest = root / "manifest.json"
        landed.add(len(json.loads(manifest.read_text())["stages"]) if manifest.exists() else -1)
        run(processes, root)
        assert contents(root) == expected, f"killed at moment {moment} of {total}"
        shutil.rmtree(root)
    # The kills fell into different stages, or the test shows nothing.
    assert len(landed) >= 5, landed


def test_killed_by_the_clock_the_run_ends_in_the_same_bytes(processes, tmp_path):
    """Between two counted moments, too; where a kill lands is chance, and none may matter."""
    whole = tmp_path / "whole"
    started = time.monotonic()
    run(processes, whole)
    took, expected = time.monotonic() - started, contents(whole)
    generator = random.Random(3)
    root = tmp_path / "killed"
    for _ in range(BY_THE_CLOCK):
        run(processes, root, kill_after=took * generator.uniform(0.2, 0.9))
    run(processes, root)
    assert contents(root) == expected


def test_a_finished_stage_is_not_done_again(processes, tmp_path):
    root = tmp_path / "run"
    run(processes, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    run(processes, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")} == before
