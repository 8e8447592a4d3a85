"""A tiny Llama that has learned both tasks proposes labels: as running text, as chat, and from a GGUF file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dnd_core import prompts
from dnd_core.backends.local_llm import LocalLanguageModel
from dnd_core.errors import BackendError, BackendUnavailable, ConfigError
from dnd_core.protocols import Evidence, Summarizer
from dnd_core.types import Candidate

PONDS = Evidence(("a pond", "the pond", "the dog", "a pond"), contrast=("the cat",), seed=3, meaning=2)
TOWERS = Evidence(("the tower", "a dog", "the tower", "a tower"), seed=8)


@pytest.fixture
def source(kind: str, llm_folders: tuple[Path, Path], gguf_file: Path) -> Path:
    return {"text": llm_folders[0], "chat": llm_folders[1], "gguf": gguf_file}[kind]


def llm(source: Path, **options: Any) -> LocalLanguageModel:
    return LocalLanguageModel(str(source), device="cpu", **{"max_new_tokens": 6, **options})


@pytest.mark.parametrize("kind", ["text", "chat", "gguf"])
def test_the_shared_thing_is_proposed(kind: str, source: Path) -> None:
    model = llm(source)
    assert isinstance(model, Summarizer)
    model.check()
    ponds, towers, nothing = model.propose([PONDS, TOWERS, Evidence(("", " "))], 5)
    assert ponds == [Candidate("pond", support=5, contrast=0.75, meaning=2)]
    assert [(c.label, c.support, c.contrast) for c in towers] == [("tower", 5, 0.0)]
    assert nothing == []
    assert model.propose([], 5) == []


def test_captions_are_shortened_once_each(llm_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = llm(llm_folders[1])
    asked: list[str] = []
    answers = model._answers
    monkeypatch.setattr(model, "_answers", lambda q, s: (asked.extend(p.question for p in q), answers(q, s))[1])
    model.propose([PONDS, PONDS], 2)
    model.propose([PONDS], 2)
    shortened = [question for question in asked if question.startswith("Caption: ")]
    assert sorted(shortened) == ["Caption: a pond", "Caption: the cat", "Caption: the dog", "Caption: the pond"]
    named = [question for question in asked if question.startswith("Group:")]
    assert len(named) == 6
    assert named[0].count("- pond") == 3
    assert named[0] != named[1]
    assert llm(llm_folders[1], simplify=False)._shortened(["a pond"]) == {"a pond": "a pond"}


def test_contrast_is_drawn_with_the_seed(llm_folders: tuple[Path, Path]) -> None:
    model = llm(llm_folders[0], contrast_shown=3)
    many = tuple(f"thing {number}" for number in range(40))
    drawn = [model._shown_contrast(Evidence(("a pond",), contrast=many, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(captions)) == 3 for captions in drawn)
    assert model._shown_contrast(Evidence(("thing 1",), contrast=many[:2])) == ["thing 0"]


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_drawn_tokens_follow_the_seed(kind: str, source: Path) -> None:
    hot = llm(source, temperature=3.0, max_new_tokens=3, simplify=False)
    question = [prompts.label_prompt(["pond", "pond", "dog"])] * 6
    said = hot._answers(question, range(6))
    assert said == hot._answers(question, range(6))
    assert said[::-1] == hot._answers(question, range(5, -1, -1))
    assert len(set(said)) > 1


def test_answers_do_not_depend_on_the_batch(llm_folders: tuple[Path, Path]) -> None:
    questions = [prompts.simplify_prompt(f"the {thing}") for thing in ("pond", "roof", "tower", "forest")]
    questions.append(prompts.label_prompt(["roof"] * 3, ["cat"]))
    expected = ["pond", "roof", "tower", "forest", "roof"]
    for size in (1, 2, 5):
        assert llm(llm_folders[0], batch_size=size)._answers(questions, [0] * 5) == expected


def test_a_prompt_longer_than_the_model_reads_is_an_error(llm_folders: tuple[Path, Path]) -> None:
    long = Evidence(tuple(f"the pond number {number}" for number in range(200)))
    with pytest.raises(BackendError, match="do not fit the model's 640: lower contrast_shown"):
        llm(llm_folders[0], simplify=False).propose([long], 1)


def test_every_setting_is_part_of_the_fingerprint(llm_folders: tuple[Path, Path], gguf_file: Path) -> None:
    own = llm(llm_folders[0]).fingerprint
    settings: list[dict[str, Any]] = [
        {"domain": "maps"},
        {"simplify": False},
        {"contrast_shown": 2},
        {"temperature": 0.5},
        {"max_new_tokens": 7},
        {"same_meaning": 0.5},
        {"dtype": "bfloat16"},
    ]
    prints = {llm(llm_folders[0], **options).fingerprint for options in settings}
    prints |= {own, llm(llm_folders[1]).fingerprint, llm(gguf_file).fingerprint}
    assert len(prints) == len(settings) + 3
    assert llm(llm_folders[0], batch_size=1).fingerprint == own


def test_only_the_gguf_file_that_is_loaded_counts(gguf_file: Path, tmp_path: Path) -> None:
    shutil.copy(gguf_file, tmp_path / "a.gguf")
    own = LocalLanguageModel(str(tmp_path), gguf_file="a.gguf").fingerprint
    (tmp_path / "b.gguf").write_bytes(b"GGUF, another quantisation")
    assert LocalLanguageModel(str(tmp_path / "a.gguf")).fingerprint == own


def test_what_cannot_run_is_refused_before_the_job(
    llm_folders: tuple[Path, Path], tmp_path: Path, offline: None
) -> None:
    with pytest.raises(BackendUnavailable, match="not in the local hub cache"):
        LocalLanguageModel(device="cpu").check()
    with pytest.raises(BackendUnavailable, match=r"no weights at .*missing|not a whole checkpoint.*lacks none\.gguf"):
        LocalLanguageModel(str(tmp_path), gguf_file="none.gguf", device="cpu").check()
    (tmp_path / "fake.gguf").write_bytes(b"<html>")
    with pytest.raises(BackendUnavailable, match="is not a GGUF file"):
        LocalLanguageModel(str(tmp_path / "fake.gguf"), device="cpu").check()
    bare = Path(shutil.copytree(llm_folders[0], tmp_path / "bare"))
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(BackendUnavailable, match="no usable AutoTokenizer files"):
        LocalLanguageModel(str(bare), device="cpu").check()
    misfit = Path(shutil.copytree(llm_folders[0], tmp_path / "misfit"))
    config = json.loads((misfit / "config.json").read_text())
    (misfit / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    with pytest.raises(BackendUnavailable, match="cannot be loaded as AutoModelForCausalLM"):
        llm(misfit).propose([PONDS], 1)


def test_settings_out_of_range_are_refused(llm_folders: tuple[Path, Path]) -> None:
    for options in ({"temperature": -1}, {"contrast_shown": -1}, {"same_meaning": 2}, {"batch_size": 0}):
        with pytest.raises(ConfigError):
            llm(llm_folders[0], **options)
    with pytest.raises(ConfigError, match="n must be"):
        llm(llm_folders[0]).propose([PONDS], 0)
