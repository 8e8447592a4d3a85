import re
import shutil

import pytest
import yaml

from dnd_core.errors import StoreError
from geoaudit import cli
from geoaudit.report.modelcard import model_card
from geoaudit.results import open_run

OWN = """---
license: mit
tags: [own]
model-index:
- name: mine
  results:
  - task: {type: image-classification}
    dataset: {name: other, type: other}
    metrics: [{type: accuracy, value: 0.5}]
---

# Mine

What I wrote.

## Model Examination [optional]

My own words.

## Citation

Me.
"""


def parts(card):
    found = re.match(r"\A---\n(.*?)\n---\n(.*)", card, re.DOTALL)
    return yaml.safe_load(found[1]), found[2]


def test_the_card_has_metadata_evaluation_and_examination(finished):
    metadata, body = parts(model_card(finished))
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"][0]["type"] == "accuracy"
    assert 0.5 < result["metrics"][0]["value"] <= 1
    assert "## Model Examination" in body
    assert "## Evaluation" in body
    assert "**Stop.**" in body
    assert "Leans on haze when it decides residential" in body


def test_merging_keeps_what_the_authors_wrote_and_is_stable(finished):
    once = model_card(finished, OWN)
    metadata, body = parts(once)
    assert metadata["license"] == "mit"
    assert metadata["tags"][0] == "own"
    assert [r["dataset"]["name"] for r in metadata["model-index"][0]["results"]] == [
        "other",
        "Probe images of geoaudit",
    ]
    for words in ("What I wrote.", "My own words.", "## Citation\n\nMe."):
        assert words in body
    assert body.index("My own words.") < body.index("**Stop.**") < body.index("## Citation")
    assert model_card(finished, once) == once


def test_a_card_that_is_no_card_is_refused(finished):
    with pytest.raises(StoreError, match="mapping"):
        model_card(finished, "---\n- a\n---\n")
    with pytest.raises(StoreError, match="YAML"):
        model_card(finished, "---\na: [\n---\n")


def test_hostile_text_is_escaped(hostile):
    metadata, body = parts(model_card(hostile))
    assert "<script" not in body
    assert "<img" not in body
    assert not re.search(r"(?<!\\)\*b\\?\*", body)
    for row in re.findall(r"^\|.*$", body, re.MULTILINE):
        assert len(re.findall(r"(?<!\\)\|", row)) in (4, 5)
    assert "\n" not in metadata["model-index"][0]["name"]


def test_an_unfinished_run_says_so(unfinished):
    assert "**Cannot say.** This run is not finished" in model_card(unfinished)


def test_the_command_merges_a_card_without_changing_it(finished, tmp_path, capsys):
    run = shutil.copytree(finished.root, tmp_path / "run")
    own = tmp_path / "README.md"
    own.write_text(OWN)
    assert cli.main(["report", str(run), "--formats", "modelcard", "--card", str(own)]) == 0
    assert (run / "model_card.md").read_text() == model_card(open_run(run), OWN)
    assert own.read_text() == OWN
    assert cli.main(["report", str(run), "--formats", "sarif", "--card", str(own)]) == 2
    assert "add modelcard to --formats" in capsys.readouterr().err
    assert cli.main(["report", str(run), "--formats", "modelcard", "--card", str(tmp_path / "no.md")]) == 2
    assert "cannot be read" in capsys.readouterr().err
