"""BLIP and vision-language models that have learned five images say what those images show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dnd_core.backends.blip import Blip
from dnd_core.backends.vlm import VisionLanguageModel
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage
from dnd_core.protocols import Captioner

CAPTIONS = ["a red field", "a green field", "a blue field", "a white field", "black and white stripes"]


def captioner(kind: str, folder: Path, **options: Any) -> Blip | VisionLanguageModel:
    cls = {"blip": Blip, "vlm": VisionLanguageModel}[kind]
    return cls(str(folder), device="cpu", **{"max_new_tokens": 8, **options})


@pytest.fixture
def folder(kind: str, request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    return folder


@pytest.mark.parametrize("kind", ["blip", "vlm"])
def test_captions_say_what_is_seen_in_order(kind: str, folder: Path, images: list[ProbeImage]) -> None:
    eye = captioner(kind, folder, batch_size=2)
    assert isinstance(eye, Captioner)
    eye.check()
    assert eye.caption(images) == CAPTIONS
    assert eye.caption(images[::-1]) == CAPTIONS[::-1]
    assert eye.caption([]) == []


@pytest.mark.parametrize("kind", ["blip", "vlm"])
def test_the_longest_caption_is_kept_to(kind: str, folder: Path, images: list[ProbeImage]) -> None:
    assert captioner(kind, folder, max_new_tokens=2).caption(images[:1]) == ["a red"]


def test_blip_goes_on_from_a_prompt_and_searches_with_beams(blip_folder: Path, images: list[ProbeImage]) -> None:
    assert captioner("blip", blip_folder, prompt="a blue", num_beams=3).caption(images[:1])[0].startswith("a blue")


@pytest.mark.parametrize("kind", ["blip", "vlm"])
def test_the_fingerprint_follows_weights_and_settings_not_the_place(kind: str, folder: Path, tmp_path: Path) -> None:
    own = captioner(kind, folder).fingerprint
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert captioner(kind, copy, batch_size=1).fingerprint == own
    changed = [
        captioner(kind, folder, prompt="what?").fingerprint,
        captioner(kind, folder, max_new_tokens=9).fingerprint,
        captioner(kind, folder, dtype="float16").fingerprint,
    ]
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    changed.append(captioner(kind, copy).fingerprint)
    assert len({own, *changed}) == 5


def test_wrong_checkpoints_are_refused_before_the_job(
    blip_folder: Path, vlm_folder: Path, llm_folders: tuple[Path, Path], tmp_path: Path, offline: None
) -> None:
    with pytest.raises(BackendUnavailable, match="is a llava checkpoint, not BLIP: use VisionLanguageModel"):
        Blip(str(vlm_folder), device="cpu").check()
    with pytest.raises(BackendUnavailable, match=r"AutoProcessor|images only|no chat template"):
        VisionLanguageModel(str(llm_folders[0]), device="cpu").check()
    untemplated = Path(shutil.copytree(vlm_folder, tmp_path / "untemplated"))
    (untemplated / "chat_template.jinja").unlink()
    with pytest.raises(BackendUnavailable, match="no chat template"):
        VisionLanguageModel(str(untemplated), device="cpu").check()
    for eye in (Blip(device="cpu"), VisionLanguageModel("nobody/nothing", device="cpu")):
        with pytest.raises(BackendUnavailable, match=r"not in the local hub cache.*hf download"):
            eye.check()
    unknown = Path(shutil.copytree(blip_folder, tmp_path / "unknown"))
    config = json.loads((unknown / "config.json").read_text())
    code = {"model_type": "homemade", "auto_map": {"AutoConfig": "steal.Config"}}
    (unknown / "config.json").write_text(json.dumps({**config, **code}))
    (unknown / "steal.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BackendUnavailable, match="code from checkpoints is never run"):
        Blip(str(unknown), device="cpu").check()
    assert not (tmp_path / "ran").exists()


class Thief:
    """What a hostile pickle holds: a call that is made when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


def test_pickled_weights_load_as_tensors_only(blip_folder: Path, images: list[ProbeImage], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    copy = Path(shutil.copytree(blip_folder, tmp_path / "copy"))
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    eye = captioner("blip", copy)
    eye.check()
    assert eye.caption(images[:1]) == ["a red field"]
    torch.save({**state, "more": Thief(tmp_path / "ran")}, copy / "pytorch_model.bin")
    with pytest.raises(BackendUnavailable, match="holds code"):
        captioner("blip", copy).check()
    assert not (tmp_path / "ran").exists()


def test_settings_out_of_range_are_refused() -> None:
    for options in ({"batch_size": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ConfigError):
            Blip(**options)
    with pytest.raises(ConfigError):
        Blip(num_beams=0)
    with pytest.raises(ConfigError):
        VisionLanguageModel(prompt=" ")


def test_devices_and_number_formats_are_checked(blip_folder: Path) -> None:
    with pytest.raises(ConfigError, match="device must be"):
        Blip(str(blip_folder), device="tpu").check()
    with pytest.raises(ConfigError, match="dtype must be"):
        Blip(str(blip_folder), device="cpu", dtype="int8").check()
    with pytest.raises(BackendUnavailable, match="not on this machine"):
        Blip(str(blip_folder), device=f"cuda:{torch.cuda.device_count()}").check()
