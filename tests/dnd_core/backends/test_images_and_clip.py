"""A tiny Stable Diffusion makes concept images, a tiny open_clip model embeds images and texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dnd_core.backends.clip import OpenClip
from dnd_core.backends.text_to_image import TextToImage
from dnd_core.errors import BackendError, BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage
from dnd_core.protocols import ConceptImages, ImageEncoder, TextEncoder


def painter(folder: Path, **options: Any) -> TextToImage:
    return TextToImage(str(folder), device="cpu", **{"size": (24, 20), "steps": 2, "batch_size": 2, **options})


def test_a_concept_has_its_own_images_and_always_the_same(diffusion_folder: Path) -> None:
    first = painter(diffusion_folder)
    assert isinstance(first, ConceptImages)
    first.check()
    red = first.show("red field", 3)
    assert [image.pixels.shape for image in red] == [(3, 24, 20)] * 3
    assert all(0 <= image.pixels.min() <= image.pixels.max() <= 1 for image in red)
    np.testing.assert_allclose(red[0].pixels.transpose(1, 2, 0) * 255, red[0].rgb, atol=1e-4)
    assert red[0].metadata["prompt"] == "a photo of red field"
    assert len({image.key for image in red}) == 3
    again = painter(diffusion_folder)
    again.show("green", 1)
    assert [image.key for image in again.show("red field", 3)] == [image.key for image in red]
    assert [image.key for image in again.show("red field", 2)] == [image.key for image in red[:2]]
    assert again.show("green field", 1)[0].key != red[0].key


def test_every_setting_changes_the_images_and_the_fingerprint(diffusion_folder: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"template": "a drawing of {concept}"},
        {"negative_prompt": "text"},
        {"scheduler": "EulerDiscreteScheduler"},
        {"scheduler": ""},
        {"steps": 3},
        {"guidance": 2.0},
        {"render_size": (32, 32)},
        {"seed": 1},
        {"size": (16, 16)},
    ]
    made = [painter(diffusion_folder, **options) for options in settings]
    assert len({one.fingerprint for one in made}) == len(settings)
    assert len({one.show("red field", 1)[0].key for one in made}) == len(settings)
    names = [type(one._pipeline.scheduler).__name__ for one in made[:5]]
    assert names == ["DPMSolverMultistepScheduler"] * 3 + ["EulerDiscreteScheduler", "PNDMScheduler"]


def test_images_that_a_safety_checker_withholds_are_left_out(
    diffusion_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paint = painter(diffusion_folder)

    def checker(images: Any, **_: Any) -> tuple[Any, list[bool]]:
        return images, [number == 0 for number in range(len(images))]

    monkeypatch.setattr(type(paint._pipeline), "run_safety_checker", lambda _, image, *__: checker(image))
    shown = paint.show("red field", 4)
    assert [image.metadata["number"] for image in shown] == [1, 3]
    assert "2 of 4 images of 'red field' were withheld" in caplog.text


def test_pipelines_that_cannot_run_are_refused_before_the_job(
    diffusion_folder: Path, tmp_path: Path, offline: None
) -> None:
    with pytest.raises(BackendUnavailable, match="not in the local hub cache"):
        TextToImage(device="cpu").check()
    with pytest.raises(ConfigError, match="is not a class of diffusers"):
        painter(diffusion_folder, scheduler="StableDiffusionPipeline").check()
    with pytest.raises(ConfigError, match="FlowMatchEulerDiscreteScheduler does not fit"):
        painter(diffusion_folder, scheduler="FlowMatchEulerDiscreteScheduler").check()
    copy = Path(shutil.copytree(diffusion_folder, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "HomemadePipeline"}))
    with pytest.raises(BackendUnavailable, match=r"HomemadePipeline.*never run"):
        painter(copy).check()
    flow = {**index, "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    (copy / "model_index.json").write_text(json.dumps(flow))
    with pytest.raises(ConfigError, match="set scheduler to an empty string"):
        painter(copy).check()
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BackendUnavailable, match="header promises"):
        painter(copy).check()
    with pytest.raises(BackendError, match="failed on"):
        painter(diffusion_folder, render_size=(9, 9)).show("red", 1)


@pytest.mark.parametrize("options", [{"steps": 0}, {"size": (0, 3)}, {"template": "a photo"}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TextToImage(**options)


def clip(folder: Path, weights: str = "open_clip_model.safetensors", **options: Any) -> OpenClip:
    config = str(folder / "tiny-clip.json")
    return OpenClip("tiny-clip", str(folder / weights), config=config, device="cpu", **options)


def test_embeddings_are_unit_rows_in_one_space(clip_folder: Path, images: list[ProbeImage]) -> None:
    model = clip(clip_folder, batch_size=2)
    assert isinstance(model, ImageEncoder)
    assert isinstance(model, TextEncoder)
    model.check()
    seen, said = model.encode_images(images), model.encode_texts(["red", "green", "red"])
    assert seen.shape == (5, 12)
    assert said.shape == (3, 12)
    assert seen.dtype == said.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([seen, said]), axis=1), 1, atol=1e-5)
    assert (said[0] == said[2]).all()
    assert abs(said[0] - said[1]).max() > 1e-3
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, 12)


def test_bits_do_not_depend_on_what_is_embedded_beside(clip_folder: Path, images: list[ProbeImage]) -> None:
    model, other = clip(clip_folder), clip(clip_folder)
    together = model.encode_images(images)
    assert (np.concatenate([model.encode_images([image]) for image in images]) == together).all()
    texts = ["red", "a green field", "stripes"]
    alone = np.concatenate([other.encode_texts([text]) for text in texts[::-1]])[::-1]
    assert (model.encode_texts(texts) == alone).all()


def test_weights_decide_and_the_library_agrees(clip_folder: Path, images: list[ProbeImage], tmp_path: Path) -> None:
    import open_clip
    from PIL import Image

    module, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    with torch.inference_mode():
        expected = module.eval().encode_image(preprocess(Image.fromarray(images[0].rgb))[None], normalize=True)
    for model in (
        clip(clip_folder),
        OpenClip(str(clip_folder), "", device="cpu"),
        OpenClip(f"local-dir:{clip_folder}", "", device="cpu"),
    ):
        np.testing.assert_allclose(model.encode_images(images[:1]), expected, atol=1e-5)
    state = load_file(clip_folder / "open_clip_model.safetensors")
    copy = Path(shutil.copytree(clip_folder, tmp_path / "copy"))
    torch.save({name: value * 1.5 for name, value in state.items()}, copy / "other.pt")
    assert abs(clip(copy, "other.pt").encode_images(images[:1]) - expected.numpy()).max() > 1e-3
    assert clip(copy, "other.pt").fingerprint != clip(copy).fingerprint == clip(clip_folder).fingerprint


class Thief:
    """What a hostile pickle holds: a call that is made when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


def test_unsafe_missing_and_unknown_weights_are_refused_before_the_job(
    clip_folder: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = Path(shutil.copytree(clip_folder, tmp_path / "copy"))
    torch.save({"state_dict": Thief(tmp_path / "ran")}, copy / "thief.pt")
    with pytest.raises(BackendUnavailable, match="holds code"):
        clip(copy, "thief.pt").check()
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError, match="neither a weights file nor a tag of tiny-clip"):
        clip(copy, "nothing.pt").check()
    with pytest.raises(ConfigError, match="no architecture 'ViT-Z'"):
        OpenClip("ViT-Z", device="cpu").check()
    with pytest.raises(BackendUnavailable, match="not in the local hub cache"):
        OpenClip("hf-hub:nobody/nothing", "", device="cpu").check()
    with pytest.raises(BackendUnavailable, match="weights laion2b_s34b_b79k of ViT-B-32 are not in the local cache"):
        OpenClip(device="cpu").check()
    changed = tmp_path / "tiny-clip.json"
    changed.write_text(json.dumps({**json.loads((copy / "tiny-clip.json").read_text()), "embed_dim": 9}))
    with pytest.raises(ConfigError, match="another architecture as tiny-clip"):
        OpenClip("tiny-clip", str(copy / "open_clip_model.safetensors"), config=str(changed), device="cpu").check()
    with pytest.raises(ConfigError):
        clip(copy, batch_size=0)
