"""Study B from the command to the files, on a tiny EuroSAT folder and a tiny ResNet made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torchgeo.datamodules.eurosat import MEAN, STD

from dnd_core.errors import ConfigError, DndError, NetworkError, ProbeError
from geoaudit.studies import commands, eurosat
from geoaudit.studies.eurosat import Options, Pruned, default_words, figures, label_table
from geoaudit.studies.reporting import PUBLISHED, verdict
from tests.geoaudit.probes.drawing import write_raster

FILES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
CLASSES = ("AnnualCrop", "Forest", "River")
# The band that is bright in each class; B8A stands where other orders have B12, and B09 where they have B8A.
BRIGHT = ("B8A", "B09", "B03")
SIDE = 64


def tile(label: int, seed: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng([label, seed])
    values = generator.uniform(500, 900, (13, 1, 1)) + generator.uniform(0, 200, (13, SIDE, SIDE))
    values[FILES.index(BRIGHT[label])] += 3000 + 500 * generator.random((SIDE, SIDE))
    values[:, :, : SIDE // 2] *= generator.uniform(0.6, 1.4)
    return values.astype(np.uint16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eurosat")
    base = folder / "ds" / "images" / "remote_sensing" / "otherDatasets" / "sentinel_2" / "tif"
    names: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        for index in range(22):
            part = "val" if index < 14 else "test"
            file = f"{name}_{index + 1}"
            write_raster(
                base / name / f"{file}.tif", tile(label, index), origin=(4e5 + 1e4 * (22 * label + index), 5.8e6)
            )
            names[part].append(f"{file}.jpg")
    names["train"] = names["val"]
    for part, files in names.items():
        (folder / f"eurosat-{part}.txt").write_text("\n".join(files) + "\n")
    return folder


def checkpoint(path: Path, order: tuple[str, ...] = FILES) -> Path:
    """A ResNet whose last layer is fitted to tell the classes apart when its bands stand in ``order``."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", in_chans=13, num_classes=3).eval()
    mean, std = (np.array([table[band] for band in order])[:, None, None] for table in (MEAN, STD))
    labels = np.repeat(np.arange(3), 14)
    pixels = np.stack([tile(label, index % 14)[[FILES.index(b) for b in order]] for index, label in enumerate(labels)])
    with torch.inference_mode():
        inputs = torch.from_numpy(((pixels - mean) / std).astype(np.float32))
        features = model.forward_head(model.forward_features(inputs), pre_logits=True)
        middle, spread = features.mean(0), features.std(0) + 1e-6
        design = torch.cat([(features - middle) / spread, torch.ones(len(labels), 1)], dim=1)
        wanted = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).float()
        solution = torch.linalg.lstsq(design.T @ design + torch.eye(design.shape[1]), design.T @ wanted).solution
        model.fc.weight.data = (solution[:-1] / spread[:, None]).T.contiguous()
        model.fc.bias.data = solution[-1] - model.fc.weight @ middle
    told = {"model": "test_resnet", "in_channels": 13, "num_classes": 3, "loss": "ce", "task": "multiclass"}
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.6", "state_dict": state, "hyper_parameters": told}, path)
    return path


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))


def test_from_folder_and_checkpoint_to_tables_and_pictures(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    arguments: dict[str, Any] = {
        "out": out,
        "root": root,
        "checkpoint": checkpoint(tmp_path / "net.ckpt"),
        "draws": 10,
        "unverified": True,
        "keep_weights": True,
        "quiet": True,
    }
    commands.eurosat(**arguments)
    summary = last_json(capsys)
    assert summary["images"] == 24
    assert summary["right"] == 24
    assert summary["units"] == 96
    assert summary["layers"] == ["layer4"]
    assert "B8A 13th" in " ".join(summary["notes"])
    assert summary["proof"]["pruned_units"] == 0
    assert summary["proof"]["other_units"] == pytest.approx(0, abs=1e-6)
    assert summary["proof"]["against_hooks"] == pytest.approx(0, abs=1e-5)
    assert summary["published"] == PUBLISHED
    assert sum(summary["kinds"].values()) == 96
    assert {"fish", "purple, pink"} <= {row["words"] for row in summary["prunings"]}
    chosen = [row for row in summary["prunings"] if row["units"]]
    assert chosen
    for name in ("labels.csv", "words.csv", "plausibility.csv", "pruning.csv", "words.png", "pruning.png"):
        assert (out / name).stat().st_size > 50, name
    page = (out / "study.md").read_text()
    assert "2572/2700" in page
    assert "| AnnualCrop |" in page
    table = pd.read_csv(out / "pruning.csv")
    assert set(table["class"]) == {"all", *CLASSES}
    assert (table.loc[table["class"] == "all", "right_before"] == 24).all()

    # What was pruned in weights is what a user gets: the written file answers as the table says.
    from safetensors.torch import load_file

    words = chosen[0]["words"].replace(", ", "-")
    model = timm.create_model("test_resnet", in_chans=13, num_classes=3).eval()
    model.load_state_dict(load_file(out / f"pruned-{words}.safetensors"))
    labels = np.repeat(np.arange(3), 8)
    mean, std = (np.array([numbers[band] for band in FILES])[:, None, None] for numbers in (MEAN, STD))
    pixels = np.stack([tile(label, 14 + index % 8) for index, label in enumerate(labels)])
    with torch.inference_mode():
        answers = model(torch.from_numpy(((pixels - mean) / std).astype(np.float32))).argmax(1).numpy()
    assert int((answers == labels).sum()) == chosen[0]["right_after"]

    # Resumed, nothing is computed anew and everything stays as it is.
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".png", ".md", ".json")}
    monkeypatch.setattr(eurosat, "_study", lambda *_: pytest.fail("computed again"))
    commands.eurosat(**arguments, resume=True)
    assert last_json(capsys) == summary
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".png", ".md", ".json")}
    after.pop("manifest.json"), before.pop("manifest.json")
    assert after == before


def test_a_wrong_band_order_is_found_by_looking(root: Path, tmp_path: Path) -> None:
    """Trained with B8A 9th, as Sentinel-2 weights want it, and said to follow the files."""
    from geoaudit.studies.classifiers import SENTINEL_ORDER

    path = checkpoint(tmp_path / "other.ckpt", SENTINEL_ORDER)
    with pytest.raises(ProbeError, match=r"another order than said .*with B8A 13th, .*with B8A 9th"):
        commands.eurosat(tmp_path / "run", root, path, draws=10, quiet=True)
    assert not (tmp_path / "run" / "study.json").exists()


def test_bad_input_is_one_sentence(root: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "net.ckpt")
    with pytest.raises(ConfigError, match="go together"):
        commands.eurosat(tmp_path / "a", root=root)
    with pytest.raises(ConfigError, match="leave one of them out"):
        commands.eurosat(tmp_path / "a", root, path, config=tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="give that too"):
        commands.eurosat(tmp_path / "a", card=path)
    with pytest.raises(ConfigError, match="at least 10 draws"):
        commands.eurosat(tmp_path / "a", root, path, draws=3, quiet=True)
    with pytest.raises(ConfigError, match="does not end with a residual block"):
        commands.eurosat(tmp_path / "a", root, path, layers="conv1", quiet=True)
    with pytest.raises(DndError):
        commands.eurosat(tmp_path / "a", tmp_path, path, quiet=True)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["in_channels"] = 7
    torch.save(content, path)
    with pytest.raises(NetworkError, match="takes 7 bands, and torchgeo's EuroSAT has 13 or 3"):
        commands.eurosat(tmp_path / "a", root, path, quiet=True)


def neurons(labels: list[list[str]]) -> pd.DataFrame:
    status = ["labelled" if its else "weak" for its in labels]
    return pd.DataFrame(
        {
            "layer": "layer4",
            "unit": range(len(labels)),
            "status": status,
            "labels": labels,
            "label": [its[0] if its else "a guess" for its in labels],
        }
    )


def test_labels_do_not_say_what_they_deny() -> None:
    table = label_table(neurons([["bare fields without haze"], ["haze", "krill bank"], []]), ["KrillBank"])
    assert table["stated"].tolist() == ["bare fields", "haze; krill bank", ""]
    assert table["kind"].tolist() == ["land cover", "land cover", "none"]
    assert table["guess"].tolist() == ["", "", "a guess"]


def test_default_words_are_the_papers_and_the_commonest_that_leave_half() -> None:
    labels = [["open water"]] * 3 + [["dark"]] * 2 + [["dark forest"]] * 1 + [["road"]] * 1 + [["snow"]] * 1
    table = label_table(neurons(labels + [[]] * 8), [])
    assert default_words(table) == (("fish",), ("purple", "pink"), ("dark",), ("open", "water"), ("forest",))
    crowded = label_table(neurons([["haze"]] * 3 + [["dark"]]), [])
    assert default_words(crowded)[2:] == (("dark",),)


def test_figures_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    whole = np.array([0, 0, 1, 0])
    pruned = np.array([1, 1, 1, 1])
    random = np.array([[0, 0, 1, 0]] * 8 + [[0, 1, 0, 0]] * 2)
    one = Pruned(("fish",), {"layer4": (1, 2)}, pruned, random, (0.0, 0.0, 0.0))
    everything, first, second = figures(one, whole, truth, ["a", "b"], None, 0)
    assert (everything["right_before"], everything["right_after"], everything["units"]) == (3, 2, 2)
    assert everything["before"] == 0.75
    assert everything["after"] == 0.5
    assert everything["random"] == pytest.approx((8 * 0.75 + 2 * 0.25) / 10)
    assert everything["p"] == pytest.approx(3 / 11)
    assert first["after"] == 0
    assert first["p"] == pytest.approx(1 / 11)
    assert second["after"] == 1
    assert second["p"] == 1.0
    assert everything["gap"] == pytest.approx(-0.25 - (everything["random"] - 0.75))


def row(**changes: Any) -> dict[str, Any]:
    return {"units": 3, "low": -0.1, "high": -0.02, "change": -0.05, "p": 0.02, **changes}


def test_verdicts_say_both_comparisons() -> None:
    assert verdict(row()) == "costs 5.0 points of accuracy; more than pruning random units of equal strength (p 0.020)"
    assert "no more than pruning random" in verdict(row(p=0.4))
    assert verdict(row(low=-0.1, high=0.1)).startswith("changes accuracy by no more than chance")
    assert verdict(row(low=0.01, high=0.1, change=0.04)).startswith("gains 4.0 points")
    assert verdict(row(units=0)) == "no published label says this, so nothing was pruned"
    assert "no random units" in verdict(row(p=float("nan")))


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least one residual stage"):
        Options(layers=())
    with pytest.raises(ConfigError, match="no list of words"):
        Options(words="fish;;")
