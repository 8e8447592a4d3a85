"""The offline summarizer, on captions whose contrast is known, against slow sums and an encoder with hand-set meanings."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from dnd_core.backends.contrast import Weighing
from dnd_core.backends.keyphrases import Keyphrases
from dnd_core.backends.phrases import phrases_of, singular
from dnd_core.errors import BackendUnavailable, ConfigError
from dnd_core.protocols import Evidence, Summarizer


class WordAxes:
    """A text is the sum of its words' axes, each drawn from the word's hash."""

    fingerprint = "word-axes"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        rows = np.stack([sum(self._axis(word) for word in text.split()) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    @staticmethod
    def _axis(word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        return np.random.default_rng(seed).normal(size=64)


COLOURS, SHAPES = ("red", "blue", "green", "yellow"), ("circle", "square", "star")
GROUNDS = ("white", "dark", "grey", "striped")


def scene(rng: np.random.Generator, colour: str = "", ground: str = "") -> str:
    colour, ground = colour or str(rng.choice(COLOURS)), ground or str(rng.choice(GROUNDS))
    return f"a photo of a {colour} {rng.choice(SHAPES)} on a {ground} background"


def labels(found: Sequence[object]) -> list[str]:
    return [candidate.label for candidate in found]  # type: ignore[attr-defined]


def propose(captions: Sequence[str], contrast: Sequence[str], n: int = 5, **options: object) -> list[str]:
    summarizer = Keyphrases(WordAxes(), **options)  # type: ignore[arg-type]
    return labels(summarizer.propose([Evidence(tuple(captions), tuple(contrast))], n)[0])


@pytest.fixture
def others() -> list[str]:
    rng = np.random.default_rng(0)
    return [scene(rng) for _ in range(60)]


@pytest.mark.parametrize(
    ("caption", "there", "not_there"),
    [
        (
            "Mostly bare brown fields with straight edges, some dark green forest, thin haze over the left half.",
            {"bare brown fields", "straight edges", "dark green forest", "thin haze", "thin haze over left half"},
            {"fields straight", "edges dark", "forest thin haze", "mostly bare"},
        ),
        (
            "a photo of a red circle on a white background",
            {"red circle", "white background", "red", "circle", "red circle on white background"},
            {"photo", "circle white", "of", "a red"},
        ),
        (
            "two dogs without collars or leashes, no clouds and a blue sky",
            {"two dogs", "no collars", "no leashes", "no clouds", "blue sky"},
            {"collars", "clouds", "no blue sky", "no sky"},
        ),
        ("", set(), {""}),
    ],
)
def test_phrases_stay_inside_their_clause(caption: str, there: set[str], not_there: set[str]) -> None:
    found = set(phrases_of(caption).values())
    assert there <= found
    assert not found & not_there


def test_phrases_are_short_and_blind_to_number() -> None:
    assert all(len(words) <= 3 for words in phrases_of("one very long dark green narrow winding river valley floor", 3))
    assert phrases_of("a dark stripe").keys() == phrases_of("Dark stripes!").keys()
    assert [singular(word) for word in ("grass", "bushes", "berries", "dots", "bus")] == [
        "grass", "bush", "berry", "dots"[:-1], "bus",
    ]  # fmt: skip


def test_what_others_lack_wins_over_what_all_have(others: list[str]) -> None:
    rng = np.random.default_rng(1)
    found = propose([scene(rng, colour="red") for _ in range(10)], others)
    assert found[0] == "red"
    assert "background" not in found
    assert "photo" not in " ".join(found)


def test_most_is_enough(others: list[str]) -> None:
    rng = np.random.default_rng(2)
    captions = [scene(rng, colour="red") for _ in range(8)] + [scene(rng, colour="blue"), scene(rng, colour="green")]
    assert propose(captions, others)[0] == "red"


def test_and_where_two_meet(others: list[str]) -> None:
    rng = np.random.default_rng(3)
    found = propose([scene(rng, "red", "striped") for _ in range(10)], others)
    assert any("red" in label and "striped" in label and " and " in label for label in found[:2])


def test_or_where_neither_covers(others: list[str]) -> None:
    rng = np.random.default_rng(4)
    captions = [scene(rng, colour=("red", "blue")[number % 2]) for number in range(10)]
    found = propose(captions, others)
    assert found[0] == "blue or red"
    assert {"red", "blue"} <= set(found)


def test_absence_is_said(others: list[str]) -> None:
    rng = np.random.default_rng(5)
    hazy = [f"{caption}, thin haze" for caption in others[:40]] + others[40:]
    captions = [scene(rng) for _ in range(10)]
    assert "no thin haze" in propose(captions, hazy)
    reds = [scene(rng, colour="red") for _ in range(10)]
    assert "red without thin haze" in propose(reds, hazy)
    assert not any("haze" in label for label in propose(reds, hazy, compounds=("and", "or")))


def test_activations_name_what_the_top_images_do_not_show() -> None:
    rng = np.random.default_rng(6)
    background = [scene(rng) for _ in range(300)]
    fires = tuple(2.0 * ("red" in caption) + 1.0 * ("striped" in caption) for caption in background)
    top = tuple(scene(rng, "red", str(rng.choice(["white", "dark", "grey"]))) for _ in range(10))
    known = Keyphrases(WordAxes()).propose([Evidence(top, (), tuple(background), activations=fires)], 5)[0]
    blind = Keyphrases(WordAxes()).propose([Evidence(top, (), tuple(background))], 5)[0]
    assert any("striped" in label for label in labels(known))
    assert not any("striped" in label for label in labels(blind) if "without" not in label)
    assert known[0].label == "red"


def test_what_follows_the_unit_at_large_is_asked_about_by_amount() -> None:
    rng = np.random.default_rng(8)
    share = rng.random(300)
    words = np.array(["over a little of", "over part of", "over half of", "over all of"])
    background = tuple(f"water {words[int(4 * x)]} the tile, red fields" for x in share[:250])
    background += tuple("red fields, open sky" for _ in range(50))
    fires = (*share[:250].tolist(), *[0.0] * 50)
    top = tuple("water over all of the tile, red fields" for _ in range(10))
    found = Keyphrases(WordAxes()).propose([Evidence(top, (), background, activations=fires)], 5)[0]
    assert found[0].label == "water"
    # Its contrast is the correlation with the amounts said, which a yes or no could not reach.
    said = np.array([float("water" in caption) for caption in background])
    assert found[0].contrast > 0.93 > np.corrcoef(said, fires)[0, 1] + 0.2


def test_a_second_meaning_that_no_top_image_shows_is_asked_about_together_with_the_first() -> None:
    rng = np.random.default_rng(6)
    background = [scene(rng) for _ in range(300)]
    fires = tuple(max(float("red" in caption), 0.7 * ("striped" in caption)) for caption in background)
    top = tuple(scene(rng, "red", str(rng.choice(["white", "dark", "grey"]))) for _ in range(10))
    said = labels(Keyphrases(WordAxes()).propose([Evidence(top, (), tuple(background), activations=fires)], 5)[0])
    assert any({"red", "or", "striped"} <= set(label.split()) for label in said)


def test_counts_equal_slow_sums() -> None:
    rng = np.random.default_rng(7)
    own, others, sampled = (rng.random((n, 6)) < 0.4 for n in (8, 30, 50))
    weights, activations = rng.random(8), rng.random(50)
    weights /= weights.sum()
    weighing = Weighing(weights, 30, activations)
    pairs = weighing.pairs(own, others, sampled)
    single = pairs.map(np.diagonal)
    first, second = single.map(lambda part: part[:, None]), single.map(lambda part: part[None, :])
    either, without = first + second - pairs, first - pairs
    for tally, holds in (
        (pairs, lambda t, a, b: t[:, a] & t[:, b]),
        (either, lambda t, a, b: t[:, a] | t[:, b]),
        (without, lambda t, a, b: t[:, a] & ~t[:, b]),
    ):
        gain = weighing.gain(tally)
        for a in range(6):
            for b in range(6):
                if a == b:
                    continue
                p = sum(w for w, there in zip(weights, holds(own, a, b), strict=True) if there)
                q = (sum(holds(others, a, b)) + 0.5) / 31
                clipped = min(max(p, 1e-12), 1 - 1e-12)
                slow = clipped * np.log(clipped / q) + (1 - clipped) * np.log((1 - clipped) / (1 - q))
                truth = holds(sampled, a, b)
                r = np.corrcoef(truth, activations)[0, 1] if 3 <= truth.sum() <= 47 else 0.0
                assert gain[a, b] == pytest.approx((slow if p >= q else -slow) + 3 * r, abs=1e-9)


def test_labels_are_short_distinct_and_the_same_again(others: list[str]) -> None:
    rng = np.random.default_rng(8)
    evidence = [
        Evidence(tuple(scene(rng, ground="dark") for _ in range(10)), tuple(others), meaning=2, seed=seed)
        for seed in range(3)
    ]
    first, again = Keyphrases(WordAxes()).propose(evidence, 4), Keyphrases(WordAxes()).propose(evidence, 4)
    assert first == again
    assert all(1 <= len(found) <= 4 for found in first)
    for found in first:
        assert len(set(labels(found))) == len(found)
        assert all(1 <= len(label.split()) <= 5 for label in labels(found))
        assert all(candidate.meaning == 2 and candidate.contrast > 0 and candidate.support >= 1 for candidate in found)


def test_nothing_to_say() -> None:
    assert Keyphrases(WordAxes()).propose([], 5) == []
    assert Keyphrases(WordAxes()).propose([Evidence(()), Evidence(("", " ")), Evidence(("a photo",))], 5) == [
        [],
        [],
        [],
    ]
    same = ("a red circle",) * 10
    assert Keyphrases(WordAxes()).propose([Evidence(same, same)], 5) == [[]]
    assert labels(Keyphrases(WordAxes()).propose([Evidence(same)], 1)[0]) == ["red circle"]


def test_every_option_changes_the_answer_and_the_fingerprint(others: list[str]) -> None:
    rng = np.random.default_rng(9)
    captions = [scene(rng, ("red", "blue")[number % 3 == 0], "striped") for number in range(10)]
    base = Keyphrases(WordAxes())
    plain = labels(base.propose([Evidence(tuple(captions), tuple(others))], 5)[0])
    changes: list[dict[str, object]] = [
        {"diversity": 0.95}, {"compounds": ("or",)}, {"longest": 1}, {"centrality": 1.0},
    ]  # fmt: skip
    for change in changes:
        assert propose(captions, others, **change) != plain, change
        assert Keyphrases(WordAxes(), **change).fingerprint != base.fingerprint  # type: ignore[arg-type]
    assert all(len(label.split()) == 1 for label in propose(captions, others, longest=1))


@pytest.mark.parametrize(
    "options", [{"diversity": 1.5}, {"centrality": -0.1}, {"longest": 6}, {"longest": 0}, {"compounds": ("xor",)}]
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Keyphrases(WordAxes(), **options)  # type: ignore[arg-type]


def test_check_asks_the_encoder() -> None:
    class Missing(WordAxes):
        def check(self) -> None:
            raise BackendUnavailable("no weights")

    Keyphrases(WordAxes()).check()
    with pytest.raises(BackendUnavailable):
        Keyphrases(Missing()).check()
    assert isinstance(Keyphrases(WordAxes()), Summarizer)


def test_distinct_phrases_are_embedded_once_for_all_units() -> None:
    """The encoder is what costs: its work grows with distinct phrases, not with units (seconds: benchmarks/steps.py)."""
    rng = np.random.default_rng(10)
    pool = [scene(rng) + f", {rng.choice(COLOURS)} haze" for _ in range(500)]
    background = tuple(pool[:300])
    evidence = [Evidence(tuple(rng.choice(pool, 10)), tuple(rng.choice(pool, 40)), background) for _ in range(40)]
    encoder = WordAxes()
    together = Keyphrases(encoder).propose(evidence, 5)
    assert len(encoder.asked) == len(set(encoder.asked))
    alone = [WordAxes() for _ in evidence]
    assert [Keyphrases(one).propose([piece], 5)[0] for one, piece in zip(alone, evidence, strict=True)] == together
    assert len(encoder.asked) < sum(len(one.asked) for one in alone) / 2
