"""The run folder: whole stages or none, found again after a kill, one writer at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dnd_core.activations import ActivationFile
from dnd_core.captioning import Journal
from dnd_core.errors import NetworkError, ProbeError, StoreError, StoreLocked, StoreMismatch
from dnd_core.store import RunStore, file_sha256, read_manifest, write_atomic, write_table


def run_stage(root: Path, inputs: object, text: str, *, resume: bool = True) -> bool:
    """One stage with one file; says whether an earlier run had finished it."""
    with RunStore(root, resume=resume) as store:
        stage = store.stage("words", inputs)
        if not stage.done:
            stage.path("deep/words.txt").write_text(text)
            stage.commit()
        return stage.done


def test_a_finished_stage_is_reused_and_a_changed_input_recomputes_it(tmp_path):
    root = tmp_path / "run"
    assert not run_stage(root, {"a": 1}, "first")
    assert run_stage(root, {"a": 1}, "never written")
    assert (root / "deep/words.txt").read_text() == "first"
    assert not run_stage(root, {"a": 2}, "second")
    assert (root / "deep/words.txt").read_text() == "second"
    assert not (root / ".work").exists()


def test_a_damaged_file_is_not_trusted(tmp_path):
    run_stage(tmp_path, 1, "whole")
    (tmp_path / "deep/words.txt").write_text("whale")
    assert not run_stage(tmp_path, 1, "whole")
    assert (tmp_path / "deep/words.txt").read_text() == "whole"


def test_a_commit_cut_in_the_middle_is_completed(tmp_path):
    """The process dies after one of two files has moved: the next run finishes the move and recomputes nothing."""
    with RunStore(tmp_path) as store:
        stage = store.stage("pair", 7)
        stage.path("a.txt").write_text("A")
        stage.path("b.txt").write_text("B")
        files = {"a.txt": file_sha256(stage.path("a.txt")), "b.txt": file_sha256(stage.path("b.txt"))}
        write_atomic(stage.scratch / "commit.json", json.dumps({"key": stage.key, "files": files}))
        stage.path("a.txt").replace(tmp_path / "a.txt")
    with RunStore(tmp_path, resume=True) as store:
        assert store.stage("pair", 7).done
    assert (tmp_path / "a.txt").read_text() + (tmp_path / "b.txt").read_text() == "AB"


def test_an_unfinished_commit_whose_files_were_lost_is_dropped(tmp_path):
    with RunStore(tmp_path) as store:
        stage = store.stage("pair", 7)
        stage.path("a.txt").write_text("A")
        write_atomic(stage.scratch / "commit.json", json.dumps({"key": stage.key, "files": {"a.txt": "0" * 64}}))
    with RunStore(tmp_path, resume=True) as store:
        assert not store.stage("pair", 7).done


def test_scratch_survives_a_kill_and_stale_scratch_goes(tmp_path):
    with RunStore(tmp_path) as store:
        store.stage("slow", 1).path("part").write_text("half")
    with RunStore(tmp_path, resume=True) as store:
        assert store.stage("slow", 1).path("part").read_text() == "half"
        assert not store.stage("slow", 2).path("part").exists()
        assert not store.stage("slow", 1).path("part").exists()


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    run_stage(tmp_path, 1, "mine")
    with pytest.raises(StoreMismatch, match="--resume"), RunStore(tmp_path):
        pass
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.doc").write_text("years of work")
    with pytest.raises(StoreMismatch, match="not empty"), RunStore(other):
        pass


def test_two_writers_at_once_the_second_is_refused(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom dnd_core.store import RunStore\n"
        "from dnd_core.errors import StoreLocked\n"
        "try:\n    RunStore(Path(sys.argv[1]), resume=True).__enter__()\n"
        "except StoreLocked as error:\n    print(error)\n    sys.exit(7)\n"
    )
    with RunStore(tmp_path):
        second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert second.returncode == 7
    assert "another run is writing" in second.stdout
    again = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_the_lock_is_released_when_opening_fails(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    for _ in range(2):
        with pytest.raises(StoreError, match="damaged"), RunStore(tmp_path, resume=True):
            pass
    assert not issubclass(StoreMismatch, StoreLocked)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not a run folder"), ("{", "damaged"), ("[]", "schema"), ('{"schema_version": 99}', "schema")],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        read_manifest(tmp_path)


def test_equal_tables_give_equal_bytes(tmp_path):
    frame = pd.DataFrame({"a": [1.5, float("nan")], "b": ["x", "ü"], "c": [[1], [2, 3]]})
    write_table(tmp_path / "one.parquet", frame)
    write_table(tmp_path / "two.parquet", frame.copy())
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one.parquet"), frame)


def test_timestamps_live_under_timings_only(tmp_path):
    for name in ("one", "two"):
        run_stage(tmp_path / name, 1, "same")
    one, two = (read_manifest(tmp_path / name) for name in ("one", "two"))
    del one["timings"], two["timings"]
    assert one == two


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_unwritable_folder_is_one_sentence(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="choose another --out"), RunStore(closed / "run"):
        pass


def test_an_out_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(StoreError, match="is a file"), RunStore(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file" / "run", tmp_path / ("long" * 100)):
        with pytest.raises(StoreError, match=r"cannot be written \(.+\): choose another --out folder"), RunStore(wrong):
            pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_leaves_nothing_aside(tmp_path):
    (tmp_path / ".a.json.part").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"the disk is full while writing .*a\.json"):
        write_atomic(tmp_path / "a.json", b"0" * 100_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "stays"), [(NetworkError("NaN"), False), (ProbeError("lost"), False), (StoreError("full"), True)]
)
def test_bad_input_found_out_late_leaves_no_run_and_a_full_disk_leaves_what_was_done(tmp_path, error, stays):
    def fail(root):
        with RunStore(root) as store:
            store.annotate(model="m")
            store.stage("probing", 1).path("activations/a.npy").write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail(tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()} - {".lock"}
    assert left == ({"manifest.json", ".work"} if stays else set())


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB; mounting one needs privileges that not every machine gives."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("SKIPPED LOUDLY: this machine does not let tests mount a small file system, full disks go untested")
    yield disk
    # Lazily: a map that is not collected yet keeps the disk busy.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_said_and_the_run_resumes(tiny_disk):
    """Activations are appended until the disk is full; after making room the run goes on from the last whole block."""
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"0" * 100_000)
    root = tiny_disk / "run"
    rows, units, block = 1000, 40, 50
    truth = np.random.default_rng(0).normal(size=(rows, units)).astype(np.float32)

    def append(store: RunStore) -> int:
        stage = store.stage("probing", 1)
        file = ActivationFile(stage.path("activations/a.npy"), rows, units, block)
        start = file.rows
        try:
            for first in range(start, rows, block):
                file[first : first + block] = truth[first : first + block]
        finally:
            file.close()
        stage.commit()
        return start

    with pytest.raises(StoreError, match="disk is full"), RunStore(root) as store:
        append(store)
    ballast.unlink()
    with RunStore(root, resume=True) as store:
        assert append(store) > 0
    np.testing.assert_array_equal(np.load(root / "activations/a.npy", mmap_mode="r"), truth)


def test_activations_drop_a_torn_block(tmp_path):
    path = tmp_path / "a.npy"
    file = ActivationFile(path, 10, 3, 4)
    file[0:4] = np.ones((4, 3), dtype=np.float32)
    file.close()
    with path.open("ab") as stream:
        stream.write(b"\0" * 17)
    file = ActivationFile(path, 10, 3, 4)
    assert file.rows == 4
    file[4:8] = np.full((4, 3), 2, dtype=np.float32)
    file[8:10] = np.full((2, 3), 3, dtype=np.float32)
    file.close()
    assert np.load(path)[:, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 2
    file = ActivationFile(path, 10, 3, 4)
    assert file.rows == 10
    file.close()


def test_a_journal_drops_a_line_torn_by_a_kill(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).extend([("a", "one"), ("b", ["two", "\u2028"])])
    with path.open("ab") as stream:
        stream.write(b'["c", "thr')
    journal = Journal(path)
    assert journal.entries == {"a": "one", "b": ["two", "\u2028"]}
    journal.extend([("c", "three")])
    assert Journal(path).entries["c"] == "three"
