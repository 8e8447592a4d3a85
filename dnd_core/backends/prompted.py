"""Step 2b with any language model: simplify captions, ask several times, keep what can be labels."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from dnd_core import prompts
from dnd_core.backends.answers import clean_sentence, contrast_of, is_refusal, merge_labels, parse_label
from dnd_core.errors import ConfigError
from dnd_core.prompts import Prompt
from dnd_core.protocols import Evidence, TextEncoder
from dnd_core.types import Candidate

__all__ = ["PromptedOptions", "PromptedSummarizer"]

log = logging.getLogger(__name__)
CONCEPT_WORDS = 12


class PromptedOptions(TypedDict, total=False):
    """What every summarizer of this kind takes by name: see :class:`PromptedSummarizer`."""

    domain: str
    simplify: bool
    contrast_shown: int
    encoder: TextEncoder | None
    same_meaning: float


class PromptedSummarizer(ABC):
    """The paper's Step 2 (section 3.2) for a model that answers prompts.

    Every distinct caption is simplified once. Each evidence is then asked about ``n`` times with its captions in a
    different order each time, and the answers are parsed, freed of refusals and merged.

    Args:
        domain: what the images are, for instance ``satellite images``; said in every prompt.
        simplify: shorten captions before they are shown, as the paper does.
        contrast_shown: how many of the evidence's contrast captions are shown as other images.
        encoder: merges labels of one meaning and measures contrast by meaning; None compares words.
        same_meaning: cosine from which two labels mean the same, in [0, 1].
        model, options: handed on to the class that asks the model.

    """

    def __init__(
        self,
        *model: str,
        domain: str = "",
        simplify: bool = True,
        contrast_shown: int = 10,
        encoder: TextEncoder | None = None,
        same_meaning: float = 0.85,
        **options: Any,
    ) -> None:
        # What asks the model is the next class: a checkpoint on this machine, or an endpoint.
        super().__init__(*model, **options)
        if contrast_shown < 0 or not 0 <= same_meaning <= 1:
            raise ConfigError("contrast_shown must be 0 or more and same_meaning between 0 and 1")
        self.domain, self.simplify, self.contrast_shown = domain, simplify, contrast_shown
        self.encoder, self.same_meaning = encoder, same_meaning
        self.refused = 0
        self._short: dict[str, str] = {}

    @abstractmethod
    def _answers(self, questions: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """One answer a question, in order; a seed decides an answer where the model draws lots."""

    def _identity(self) -> list[Any]:
        """The settings of this class that decide what is proposed."""
        encoder = getattr(self.encoder, "fingerprint", repr(self.encoder)) if self.encoder is not None else None
        return [
            prompts.PROMPTS_VERSION,
            self.domain,
            self.simplify,
            self.contrast_shown,
            encoder,
            self.same_meaning,
        ]

    def propose(self, evidence: Sequence[Evidence], n: int) -> list[list[Candidate]]:
        """Up to ``n`` candidates for each evidence, best first; none where the model gave no usable answer.

        Raises:
            BackendError: the model failed.
            BackendUnavailable: the model cannot run here.

        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        shown = [self._shown_contrast(item) for item in evidence]
        short = self._shortened([*(c for item in evidence for c in item.captions), *(c for cs in shown for c in cs)])
        questions: list[Prompt] = []
        seeds: list[int] = []
        asked: list[int] = []
        for number, (item, others) in enumerate(zip(evidence, shown, strict=True)):
            concepts = [short[caption] for caption in item.captions if short[caption]]
            rest = [short[caption] for caption in others if short[caption]]
            if not concepts:
                continue
            for draw, order in enumerate(_orders(len(concepts), n, item.seed, item.meaning)):
                questions.append(prompts.label_prompt([concepts[i] for i in order], rest, self.domain))
                seeds.append(item.seed * 1009 + draw)
                asked.append(number)
        proposals: list[list[str]] = [[] for _ in evidence]
        for number, answer in zip(asked, self._answers(questions, seeds), strict=True):
            label = parse_label(answer)
            if label is None:
                self._count_refusal(answer)
            else:
                proposals[number].append(label)
        return [self._candidates(item, labels, n) for item, labels in zip(evidence, proposals, strict=True)]

    def _candidates(self, item: Evidence, labels: Sequence[str], n: int) -> list[Candidate]:
        merged = merge_labels(labels, self.encoder, self.same_meaning)
        gains = contrast_of([label for label, _ in merged], item.captions, item.contrast, self.encoder)
        candidates = [
            Candidate(label, support, round(gain, 6), item.meaning)
            for (label, support), gain in zip(merged, gains, strict=True)
        ]
        # Python's sort is stable: equal support and contrast keep the order of first appearance.
        return sorted(candidates, key=lambda c: (-c.support, -c.contrast))[:n]

    def _shown_contrast(self, item: Evidence) -> list[str]:
        """A seeded draw of the contrast captions, so that prompts stay short and stay the same."""
        distinct = sorted(set(item.contrast) - set(item.captions))
        if len(distinct) <= self.contrast_shown:
            return distinct
        chosen = np.random.default_rng([item.seed, item.meaning]).permutation(len(distinct))[: self.contrast_shown]
        return [distinct[i] for i in sorted(chosen)]

    def _shortened(self, captions: Sequence[str]) -> dict[str, str]:
        """Each caption's short concept; empty for an empty or refused caption."""
        distinct = sorted(set(captions))
        usable = [caption for caption in distinct if clean_sentence(caption)]
        if not self.simplify:
            return {caption: clean_sentence(caption) for caption in distinct}
        missing = [caption for caption in usable if caption not in self._short]
        answers = self._answers([prompts.simplify_prompt(c, self.domain) for c in missing], [0] * len(missing))
        for caption, answer in zip(missing, answers, strict=True):
            self._short[caption] = self._concept(answer)
        return {caption: self._short.get(caption, "") for caption in distinct}

    def _concept(self, answer: str) -> str:
        first = next((line for line in answer.splitlines() if line.strip()), "")
        for cue in ("short form:", "short form is"):
            if first.lower().strip().startswith(cue):
                first = first.strip()[len(cue) :]
        concept = clean_sentence(first).strip(" .\"'")
        if not concept:
            self._count_refusal(answer)
        return " ".join(concept.split()[:CONCEPT_WORDS])

    def _count_refusal(self, answer: str) -> None:
        self.refused += 1
        kind = "refused" if is_refusal(answer) else "gave no usable answer"
        log.info("%r %s: %.80r", self, kind, answer)


def _orders(count: int, n: int, seed: int, meaning: int) -> list[list[int]]:
    """``n`` seeded orders of ``count`` things, all different as long as there are that many."""
    generator = np.random.default_rng([seed, meaning, count])
    orders: list[list[int]] = []
    for _ in range(50 * n):
        order = generator.permutation(count).tolist()
        if order not in orders:
            orders.append(order)
        if len(orders) == n:
            return orders
    return [orders[i % len(orders)] for i in range(n)]
