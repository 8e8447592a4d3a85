"""The command line: a folder of pictures and a saved network in, labels and an exit code out."""

import io
import json
import subprocess
import sys
import time
import tomllib
from contextlib import redirect_stdout
from importlib import util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from dnd_core import cli
from dnd_core.testing import draw_probe

ROOT = Path(__file__).parents[2]
MODEL = "timm:test_resnet.r160_in1k"
QUICK = [
    "--settings.probing.top_k=4",
    "--settings.probing.crops_per_image=1",
    "--settings.candidates.n=2",
    "--settings.selection.images_per_concept=3",
    "--settings.selection.beta=2",
    "--settings.verification.permutations=20",
    "--settings.verification.resamples=2",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Forty drawn pictures and one broken file."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(draw_probe(40, seed=2)):
        Image.fromarray(image.rgb).save(folder / f"drawn {number:02}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The state dict of a small timm network with three classes."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model(MODEL.removeprefix("timm:"), pretrained=False, num_classes=3)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(module.state_dict(), path)
    return path


def described(pictures: Path, weights: Path, out: Path, *more: str) -> list[str]:
    return [
        "describe", "--model", MODEL, "--weights", str(weights), "--input-size", "48", "--images", str(pictures),
        "--layer", "output", "--out", str(out), "--quiet", *QUICK, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def offline_run(pictures, weights, tmp_path_factory) -> tuple[Path, str, int]:
    """The default backends: nothing is loaded from a hub."""
    out, said = tmp_path_factory.mktemp("runs") / "offline", io.StringIO()
    with redirect_stdout(said):
        code = cli.main(described(pictures, weights, out, "--layer", "output,layer1*"))
    return out, said.getvalue(), code


def test_describe_labels_a_network_from_one_command(offline_run):
    out, said, code = offline_run
    assert code == 0
    neurons = pd.read_parquet(out / "neurons.parquet")
    assert len(neurons.query("layer == 'output'")) == 3
    assert any(layer.startswith("layer1") for layer in neurons["layer"])
    assert (neurons["candidates"] != "[]").any()
    assert "output: 3 units: " in said
    assert f"written to {out}" in said
    manifest = json.loads((out / "manifest.json").read_text())
    assert [name for name, _ in manifest["skipped"]] == ["broken.png"]
    assert manifest["tool"]["name"] == "dnd"
    # A quarter of the pictures was set aside to show concepts.
    assert manifest["probe"]["images"] == 30
    assert yaml.safe_load((out / "config.yaml").read_text())["probing"]["top_k"] == 4


def test_a_second_run_is_refused_without_resume_and_goes_on_with_it(offline_run, pictures, weights, capsys):
    out = offline_run[0]
    words = described(pictures, weights, out, "--layer", "output,layer1*")
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert "already holds a run: add --resume" in told
    assert "left out broken.png: it cannot be read" in told
    before = (out / "neurons.parquet").stat().st_mtime_ns
    assert cli.main([*words, "--resume"]) == 0
    assert (out / "neurons.parquet").stat().st_mtime_ns == before


def test_layers_lists_what_can_be_described(weights, capsys):
    assert cli.main(["layers", MODEL, "--weights", str(weights)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["layer", "kind", "units"]
    assert any(line.split()[:3] == ["output", "vector", "3"] for line in lines)
    assert len(lines) > 5


def test_a_pool_of_one_s_own_must_be_other_pictures(pictures, weights, tmp_path, capsys):
    assert cli.main(described(pictures, weights, tmp_path / "run", "--pool", str(pictures))) == 2
    assert "40 images are in --images" in capsys.readouterr().err
    pool = tmp_path / "pool"
    pool.mkdir()
    for number, image in enumerate(draw_probe(12, seed=8)):
        Image.fromarray(image.rgb).save(pool / f"{number}.png")
    (pool / "notes.txt").write_text("")
    assert cli.main(described(pictures, weights, tmp_path / "run", "--pool", str(pool))) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["probe"]["images"] == 40
    assert len(manifest["skipped"]) == 2
    drawn = ["--concept-images", "dnd_core.testing.OracleConceptImages"]
    assert cli.main(described(pictures, weights, tmp_path / "b", "--pool", str(pool), *drawn)) == 2
    assert "--pool is of no use" in capsys.readouterr().err


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> Path:
    """The tiny BLIP that the backends' tests build; it has learned to name colours."""
    path = Path(__file__).parent / "backends" / "conftest.py"
    spec = util.spec_from_file_location("backend_fixtures", path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images = module.images.__wrapped__()
    return module.blip_folder.__wrapped__(tmp_path_factory, images)


def test_a_local_blip_is_the_captioner(pictures, weights, blip, tmp_path):
    captioner = json.dumps({"class_path": "blip", "init_args": {"model": str(blip)}})
    encoder = ["--text_encoder", "dnd_core.testing.WordVectors"]
    code = cli.main(described(pictures, weights, tmp_path / "run", "--captioner", captioner, *encoder))
    assert code == 0
    captions = pd.read_parquet(tmp_path / "run" / "captions.parquet")["caption"]
    known = {"a red field", "a green field", "a blue field", "a white field", "black and white stripes"}
    assert captions.isin(known).mean() > 0.5
    assert "Blip:" in json.loads((tmp_path / "run" / "manifest.json").read_text())["backends"]["captioner"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layer", "outputs"], "has no layer 'outputs'; the nearest are"),
        (["--weights", "nothing.safetensors"], "nothing.safetensors: no such file; give the path of a checkpoint"),
        (["--images", "nowhere"], "the image folder nowhere does not exist"),
        (["--captioner", "blib"], "did you mean blip"),
        (["--captioner", '{"class_path": "blip", "init_args": {"model": "nowhere"}}'], "nowhere"),
        (["--pool_share", "1.5"], "--pool_share must be between 0 and 1"),
        (["--mean", "[0.5]"], "mean"),
        (["--settings.selection.beta", "9"], "selection.beta must be between 1 and images_per_concept"),
        (["--settings.probing.top_k", "100"], "30 images, fewer than the 100 top images"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(pictures, weights, tmp_path, capsys, more, message):
    assert cli.main(described(pictures, weights, tmp_path / "run", *more)) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("dnd: error: ")
    assert message in told[-1]
    assert "Traceback" not in "".join(told)
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["describe", "--captionr", "blip"], "unrecognized arguments: --captionr blip; did you mean --captioner?"),
        (["describe", "--settings.probing.top_k", "many"], "top_k"),
        (["describe", "--settings.selection.score", "best"], "selection.score"),
        (["describe"], "model"),
        (["descripe"], "invalid choice"),
        ([], ""),
    ],
)
def test_a_misspelt_command_is_one_line_and_exit_code_2(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert len(told) == 1
    assert told[0].startswith("dnd: error: ")
    assert message in told[0]


def test_debug_shows_the_traceback():
    words = ["layers", "--model", "nothing_like_it"]
    plain, debug = (
        subprocess.run([sys.executable, "-m", "dnd_core.cli", *words, *more], capture_output=True, text=True)
        for more in ([], ["--debug"])
    )
    assert (plain.returncode, debug.returncode) == (2, 2)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "package.module:factory, got 'nothing_like_it'" in plain.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], ["describe", "--help"]])
def test_help_imports_little_so_that_it_is_quick(words):
    """Modules are counted, not seconds: a busy machine is slow at everything."""
    code = (
        "import sys\nfrom dnd_core.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'transformers', 'scipy'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy), 'modules', len(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("heavy [] modules ")
    assert int(last.split()[-1]) < 700
    assert "describe" in done.stdout


def test_the_script_is_called_dnd():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["dnd"] == f"{cli.main.__module__}:{cli.main.__name__}"


def test_words_are_spelled_as_the_parser_wants_them():
    def command(out: str, fail_on: str = "major", resume: bool = False, quiet: "bool" = True) -> None: ...

    def spelled(*words):
        return cli._spelled(words, {"command": command})

    assert spelled("command", "--fail-on", "a-b") == ["command", "--fail_on", "a-b"]
    assert spelled("--fail-on=a-b") == ["--fail_on=a-b"]
    assert spelled("--resume", "--out", "x") == ["--resume", "true", "--out", "x"]
    assert spelled("--resume", "false", "--quiet") == ["--resume", "false", "--quiet", "true"]
    assert spelled("command", "here", "--resume") == ["command", "--out", "here", "--resume", "true"]
    assert spelled("--out", "--resume") == ["--out", "--resume", "true"]


def test_progress_elsewhere_than_on_a_terminal_is_lines(capsys, monkeypatch):
    from dnd_core.progress import ProgressReport

    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    with ProgressReport() as report:
        for done in range(1, 101):
            report("captions", done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["captions: 1/100 (0 s)", "captions: 100/100 (0 s)"]
    with ProgressReport(quiet=True) as report:
        report("captions", 1, 1)
    assert capsys.readouterr().err == ""


def test_progress_says_where_slow_work_is(capsys, monkeypatch):
    from dnd_core.progress import ProgressReport

    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with ProgressReport() as report:
        for done in (1, 2, 3, 4, 5):
            report("captions", done, 9)
    assert capsys.readouterr().err.splitlines() == [
        "captions: 1/9 (0 s)", "captions: 3/9 (12 s)", "captions: 5/9 (24 s)"
    ]  # fmt: skip


def test_the_summary_names_the_best_labels(capsys, tmp_path):
    rows = {
        "layer": ["a"] * 3,
        "unit": [0, 1, 2],
        "status": ["labelled", "dead", "labelled"],
        "labels": [["red", "blue"], [], ["dots"]],
        "r": [0.5, np.nan, 0.75],
    }
    cli.summarise(pd.DataFrame(rows), tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 units: 2 labelled, 0 weak, 0 abstained, 1 dead",
        "  a/2: dots (r 0.75)",
        "  a/0: red; blue (r 0.50)",
        f"written to {tmp_path}",
    ]
