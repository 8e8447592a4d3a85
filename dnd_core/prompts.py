"""Everything this project says to a language or vision-language model, versioned.

``PROMPTS_VERSION`` goes up with every change of wording: it is part of the fingerprint of each backend that
prompts, so old answers are never taken for new ones. The two tasks are those of Bai et al. (TMLR 2025) section 3.2,
simplify a caption and name what captions share; wording and examples are this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "AERIAL_TEMPLATE",
    "CAPTION",
    "PHOTO_TEMPLATE",
    "PROMPTS_VERSION",
    "Prompt",
    "label_prompt",
    "simplify_prompt",
]

PROMPTS_VERSION = "1"

CAPTION = (
    "Describe this image in one plain sentence: the things, materials, colours, textures and shapes that can be seen. "
    "Say nothing that cannot be seen."
)
PHOTO_TEMPLATE = "a photo of {concept}"
AERIAL_TEMPLATE = "a satellite image of {concept}, seen from straight above"

_SIMPLIFY = (
    "Shorten the caption of an image to the main thing it shows, in at most six words. "
    "Keep colours, materials and patterns when they are what stands out. Answer with the short form only."
)
_SIMPLIFY_EXAMPLES = (
    ("a brown dog is running across a lawn with a red frisbee in its mouth", "dog running with frisbee"),
    ("there is a close up of several old books standing on a wooden shelf", "old books on a shelf"),
    ("this picture shows fine diagonal stripes, black and yellow, on a metal plate", "black and yellow stripes"),
    ("many white boats are tied to long piers in a harbour, seen from above", "boats in a harbour"),
)

_LABEL = (
    "Each line describes one image of a group. Name what most images of the group share, in one to five words. "
    "The name need not fit every image. Be as specific as the lines allow. "
    "Where other images are listed, the name must not fit those. Answer with the name only."
)
_LABEL_EXAMPLES: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        ("zebra drinking", "striped shirt on a hanger", "pedestrian crossing", "bar code", "man with a phone"),
        ("brown horse in a meadow", "plain white shirt", "empty asphalt road"),
        "black and white stripes",
    ),
    (
        ("harbour with boats", "swimmer in a lake", "bridge over a river", "surfer on a wave", "wooden hut"),
        (),
        "water",
    ),
    (
        ("tomatoes on a plate", "red barn", "woman in a red coat", "stop sign", "fire engine"),
        ("cucumbers on a plate", "grey barn", "yellow school bus"),
        "red objects",
    ),
    (
        ("wooden chair in a kitchen", "sofa with cushions", "desk and lamp", "bed in a small room", "cat on a carpet"),
        ("crowded street", "mountain path"),
        "furniture",
    ),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a language model with worked examples.

    Attributes:
        instruction: what to do.
        examples: pairs of question and answer.
        question: what is asked.
        cue: the word before each answer where examples are written as running text.

    """

    instruction: str
    examples: tuple[tuple[str, str], ...]
    question: str
    cue: str

    def messages(self) -> list[dict[str, str]]:
        """Turns for a chat model. No system turn: several models' templates refuse one."""
        turns: list[dict[str, str]] = []
        for question, answer in self.examples:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        turns.append({"role": "user", "content": self.question})
        turns[0]["content"] = f"{self.instruction}\n\n{turns[0]['content']}"
        return turns

    def text(self) -> str:
        """Running text for a model without a chat template; the answer is the rest of the last line."""
        blocks = [f"{question}\n{self.cue}: {answer}" for question, answer in self.examples]
        return "\n\n".join([self.instruction, *blocks, f"{self.question}\n{self.cue}:"])


def simplify_prompt(caption: str, domain: str = "") -> Prompt:
    """Ask for the short form of one caption."""
    examples = tuple((f"Caption: {caption}", short) for caption, short in _SIMPLIFY_EXAMPLES)
    return Prompt(_with_domain(_SIMPLIFY, domain), examples, f"Caption: {_one_line(caption)}", "Short form")


def label_prompt(concepts: Sequence[str], others: Sequence[str] = (), domain: str = "") -> Prompt:
    """Ask for one label of a group of images.

    Args:
        concepts: short descriptions of the group's images, in the order shown.
        others: short descriptions of images outside the group; may be empty.
        domain: what kind of images they are, for instance ``satellite images``; may be empty.

    """
    examples = tuple((_group(inside, outside), label) for inside, outside, label in _LABEL_EXAMPLES)
    return Prompt(_with_domain(_LABEL, domain), examples, _group(concepts, others), "Name")


def _group(concepts: Sequence[str], others: Sequence[str]) -> str:
    lines = ["Group:", *(f"- {_one_line(concept)}" for concept in concepts)]
    if others:
        lines += ["Other images:", *(f"- {_one_line(other)}" for other in others)]
    return "\n".join(lines)


def _with_domain(instruction: str, domain: str) -> str:
    return f"{instruction} The images are {_one_line(domain)}." if domain else instruction


def _one_line(text: str) -> str:
    return " ".join(text.split())
