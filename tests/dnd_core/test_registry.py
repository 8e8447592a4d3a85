"""From words to backends, and what makes two backends the same."""

import dataclasses
import re

import numpy as np
import pytest

from dnd_core import registry
from dnd_core.backends.assembly import assemble
from dnd_core.backends.caption_space import CaptionSpace
from dnd_core.errors import ConfigError
from dnd_core.protocols import Captioner, ConceptImages, ImageEncoder, Summarizer, TextEncoder
from dnd_core.registry import SHORT_NAMES, backend_fingerprint, build, import_class, takes
from dnd_core.testing import DrawnSpace, OracleCaptioner, WordVectors, draw_probe

ORACLE = "dnd_core.testing.OracleCaptioner"


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_every_short_name_names_a_class_that_fits_a_seam(name):
    cls = import_class(SHORT_NAMES[name])
    seams = {"caption", "propose", "show", "encode_images", "encode_texts"}
    assert seams & set(dir(cls))


def test_a_spec_is_a_name_a_path_a_mapping_or_the_thing_itself():
    assert build(ORACLE).noise == 0.0
    assert build({"class_path": ORACLE, "init_args": {"noise": 0.5}}).noise == 0.5
    assert build({"class_path": ORACLE, "init_args": None}).noise == 0.0
    ready = OracleCaptioner(0.3)
    assert build(ready) is ready


def test_defaults_fill_only_what_the_class_takes_and_the_spec_leaves_open():
    spec = {"class_path": ORACLE, "init_args": {"noise": 0.5}}
    assert build(spec, noise=0.1, seed=4, pool="unused").seed == 4
    assert build(spec, noise=0.1).noise == 0.5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("keyphrase", "neither a short name nor a class path: did you mean keyphrases"),
        ("zzz", "known short names are blip"),
        ("no_such_package.Thing", "no_such_package cannot be imported.*PYTHONPATH"),
        ("dnd_core.testing.OracleCaptoner", "dnd_core.testing has no OracleCaptoner; did you mean OracleCaptioner"),
        ("./my.py", "is no class path"),
        ("..Thing", "is no class path"),
        ("dnd_core.backends", "is a module, not a class"),
        ({"init_args": {}}, "given by class_path and init_args"),
        ({"class_path": ORACLE, "args": {}}, "given by class_path and init_args"),
        ({"class_path": ORACLE, "init_args": {"noize": 1}}, "takes no argument 'noize': did you mean noise"),
        ({"class_path": ORACLE, "init_args": {"x": 1}}, "it takes noise, seed"),
        ({"class_path": ORACLE, "init_args": [1]}, "must be a mapping of names to values"),
        ("caption-space", "needs init_args captioner, text_encoder"),
    ],
)
def test_a_spec_that_cannot_be_built_says_why(spec, message):
    with pytest.raises(ConfigError, match=message):
        build(spec)


def test_whether_a_backend_asks_for_a_pool():
    assert takes("pool", "pool")
    assert not takes({"class_path": "pool", "init_args": {"pool": "mine"}}, "pool")
    assert not takes("measured", "pool")
    assert not takes(OracleCaptioner(), "pool")
    with pytest.raises(ConfigError, match="no_such"):
        takes("no_such.Thing", "pool")


@dataclasses.dataclass
class Options:
    words: int = 3


class Plain:
    """A user's backend that knows nothing of fingerprints."""

    def __init__(self, **held):
        vars(self).update(held)

    def encode_texts(self, texts):
        return WordVectors().encode_texts(texts)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (1, 2),
        (1, "1"),
        (None, 0),
        ([1, 2], (2, 1)),
        ({"words": 3}, {"words": 4}),
        ({1, 2}, {1, 3}),
        (np.zeros(3), np.zeros(4)),
        (np.zeros(3), np.ones(3)),
        (Options(3), Options(4)),
        (WordVectors(8), WordVectors(9)),
        (Plain(a=1), Plain(a=2)),
    ],
)
def test_a_backend_s_settings_are_in_its_fingerprint(one, two):
    assert backend_fingerprint(Plain(value=one)) != backend_fingerprint(Plain(value=two))
    assert backend_fingerprint(Plain(value=one)) == backend_fingerprint(Plain(value=one))
    assert backend_fingerprint(Plain(value=one)) != backend_fingerprint(Plain(other=one))


def test_caches_are_no_settings_and_private_numbers_are():
    assert backend_fingerprint(Plain(_cache={"a": 1})) == backend_fingerprint(Plain(_cache={}))
    assert backend_fingerprint(Plain(_floor=1)) != backend_fingerprint(Plain(_floor=2))


def test_a_backend_s_own_fingerprint_goes_before_its_attributes_and_code_counts():
    assert backend_fingerprint(WordVectors(8)) == "dnd_core.testing.words.WordVectors:word-vectors-8"

    class Plain:
        def encode_texts(self, texts):
            return None

    assert backend_fingerprint(Plain()).split(":")[1] != backend_fingerprint(globals()["Plain"]()).split(":")[1]

    class Slotted:
        __slots__ = ("a",)

    assert re.fullmatch(r".*Slotted:[0-9a-f]{64}", backend_fingerprint(Slotted()))


SPECS = {
    "captioner": "measured",
    "summarizer": "keyphrases",
    "concept_images": "pool",
    "image_encoder": "caption-space",
    "text_encoder": "dnd_core.testing.WordVectors",
}


class SeesAndReads(DrawnSpace):
    def encode_texts(self, texts):
        return WordVectors(17).encode_texts(texts)


def test_assembled_backends_are_given_one_another():
    pool = draw_probe(5, seed=0)
    made = assemble(SPECS, pool=pool, size=(48, 48))
    assert isinstance(made.captioner, Captioner)
    assert isinstance(made.summarizer, Summarizer)
    assert isinstance(made.concept_images, ConceptImages)
    assert isinstance(made.image_encoder, ImageEncoder)
    assert isinstance(made.text_encoder, TextEncoder)
    assert made.concept_images.pool is pool
    assert made.concept_images.captioner is made.image_encoder.captioner is made.captioner
    assert made.concept_images.encoder is made.image_encoder.text_encoder is made.text_encoder
    made.check()
    assert set(made.fingerprints()) == set(SPECS)


def test_a_clip_retrieves_concept_images_by_sight():
    clip = SeesAndReads()
    made = assemble({**SPECS, "image_encoder": clip}, pool=draw_probe(5, seed=0), size=(48, 48))
    assert made.concept_images.encoder is clip
    assert made.summarizer.encoder is made.text_encoder


def test_the_caption_space_asks_once_an_image_and_says_what_it_stands_on():
    class Once(OracleCaptioner):
        asked = 0

        def caption(self, images):
            self.asked += len(images)
            return super().caption(images)

    images = [draw_probe(4, seed=0)[index] for index in (0, 1, 2, 1)]
    captioner = Once()
    space = CaptionSpace(captioner, WordVectors())
    rows = space.encode_images(images)
    space.encode_images(images)
    assert captioner.asked == 3
    np.testing.assert_array_equal(rows[1], rows[3])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert space.fingerprint != CaptionSpace(OracleCaptioner(0.5), WordVectors()).fingerprint
    assert space.fingerprint != CaptionSpace(captioner, WordVectors(9)).fingerprint


def test_the_registry_exports_what_it_says():
    assert all(hasattr(registry, name) for name in registry.__all__)


@pytest.mark.parametrize("seam", SPECS)
def test_a_class_without_the_method_of_its_seam_is_refused_before_the_job(seam):
    with pytest.raises(ConfigError, match=rf"json\.decoder\.JSONDecoder cannot be the {seam}: it has no method \w+\("):
        assemble({**SPECS, seam: "json.JSONDecoder"}, pool=draw_probe(5, seed=0), size=(48, 48))


def test_options_that_a_class_hands_on_are_known_by_name():
    made = build({"class_path": "vlm", "init_args": {"batch_size": 3, "device": "cpu"}})
    assert (made.batch_size, made.max_new_tokens) == (3, 64)
    near = {"endpoint-summarizer": ("max_token", "max_tokens"), "blip": ("batchsize", "batch_size")}
    near |= {"local-llm": ("contrast_show", "contrast_shown"), "endpoint-captioner": ("timeout", "timeout_s")}
    for name, (wrong, right) in near.items():
        with pytest.raises(ConfigError, match=f"takes no argument '{wrong}': did you mean {right}"):
            build({"class_path": name, "init_args": {wrong: 1}})
    encoder = object()
    assert build("endpoint-summarizer", encoder=encoder).encoder is encoder
    assert takes("local-llm", "encoder")
