"""What a model's answer says: labels out of free text, refusals, and which labels mean the same."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from dnd_core.protocols import TextEncoder

__all__ = ["LABEL_WORDS", "clean_sentence", "contrast_of", "is_refusal", "merge_labels", "parse_label", "same_form"]

LABEL_WORDS = 5

_REFUSALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\W*(i|we)( am|'m| are|'re)? (so |very |really |truly )*"
        r"(sorry|afraid|apologi[sz]e|unable|not able|not sure)\b",
        r"^\W*(my |our )?(sorry|apologies|unfortunately|regrettably)"
        r"(\W*$|\s*[,.:;-]|\s+(but|i|we|for|about|this|that)\b)",
        r"\bas an? (\w+ )?(ai|artificial intelligence|language model|assistant|text-based)\b",
        r"\b(i|we) (can ?not|can't|could not|couldn't|am unable to|am not able to|won't|will not|do not|don't) "
        r"(be able to |really |actually )?(see|view|determine|identify|provide|help|assist|describe|comply|tell|have|"
        r"access|process|answer|find|fulfil+|generate|recogni[sz]e|analy[sz]e|label|name|create|know|think)\b",
        r"\b(can ?not|can't|could not|couldn't) (be )?(determined?|identif(y|ied)|summari[sz]ed?|named?)\b",
        r"\b(unable|impossible|not possible|difficult|hard) to (determine|identify|tell|say|name|summari[sz]e|label)\b",
        r"\b(no|not an?y?) (single |clear |obvious |discernible |shared |one )*(common|shared) "
        r"(concept|theme|label|name|element|feature|thing)",
        r"\b(not enough|insufficient|lack of) (information|context|detail|data)",
        r"\bplease (provide|upload|share|give|describe)\b",
        r"\b(content|usage) (policy|policies|guidelines)\b",
    )
)
# fmt: off
_EMPTY = frozenset({
    "a", "an", "answer", "concept", "concepts", "different", "group", "image", "images",
    "label", "labels", "misc", "miscellaneous", "mixed", "n", "na", "name", "no", "none",
    "nothing", "null", "object", "objects", "other", "others", "photo", "photograph", "photographs",
    "photos", "picture", "pictures", "random", "something", "stuff", "the", "thing", "things",
    "unclear", "undetermined", "unknown", "unlabeled", "unlabelled", "unspecified", "various", "variety",
})
_STOP = frozenset({
    "a", "an", "and", "at", "by", "for", "from", "in", "into",
    "of", "on", "or", "over", "the", "to", "under", "with",
})
# fmt: on
_PREFIX = re.compile(
    r"^(?:[-*•>#\s]+|\(?\d{1,2}[.):]\s+|(?:the |a |my |final |best |short |common |suggested |possible |proposed )*"
    r"(?:label|name|answer|concept|theme|category|group|short form|output|result)\s*"
    r"(?:is|would be|could be|[:=-])[:\s]*)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(
    r"^(?:most of |many of |all |all of )?(?:the |these |this |they |it |i )?(?:images?|group|pictures?|photos?|lines|"
    r"descriptions?|they|it|captions?)?\s*(?:all |mostly |mainly |probably |commonly )?"
    r"(?:(?:is|are) of|is|are|shows?|depicts?|contains?|features?|shares?|would be|could be|have in common|"
    r"has in common|"
    r"(?:would |'d )?(?:suggest|say|call it|name it))[:\s]+(?=\S)",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^(?:(?:a|an|the|some|various|different)\s+|(?:images?|photos?|photographs?|pictures?|views?|scenes?|close-?ups?)"
    r"\s+(?:of|with|showing)\s+)+",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"\s*(?:[,;:(\[|]|\s[-\u2013\u2014]\s|\b(?:that|which|who|because|since|as they|as it)\b)\s*", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"“”«»]([^\"“”«»]+)[\"“”«»]|(?<![\w'])'([^']+(?:'\w+)*)'(?!\w)|\*\*([^*]+)\*\*")
_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
_EDGE = " \t\"'`“”‘’«».,;:!?*_~#()[]{}<>|-–—"  # noqa: RUF001


def is_refusal(text: str) -> bool:
    """Whether a model declined to answer, or said that nothing can be answered."""
    plain = text.replace("’", "'")  # noqa: RUF001
    return any(pattern.search(plain) for pattern in _REFUSALS)


def clean_sentence(text: str) -> str:
    """A caption on one line, without the markup models add; empty where the model refused or said nothing."""
    line = " ".join(_without_thoughts(text).split()).strip("\"'`“”* ")
    return "" if is_refusal(line) or not _WORD.search(line) else line


def parse_label(text: str) -> str | None:
    """The label an answer gives, in lower case, one to five words; None for refusals and answers without a label.

    Understands bare labels, lists, quotes, markdown, JSON objects, short sentences ("The images show ...") and
    answers that follow a reasoning block. A sentence that cannot be brought under six words is no label.
    """
    plain = _without_thoughts(text)
    if not plain.strip() or is_refusal(plain):
        return None
    line = _from_json(plain) or _first_line(plain)
    previous = None
    while line != previous:
        previous, line = line, _PREFIX.sub("", line).strip()
    quoted = next((next(filter(None, match)) for match in _QUOTED.findall(line)), "")
    if quoted and 1 <= len(quoted.split()) <= LABEL_WORDS:
        line = quoted
    # "is", "shows" ... begin the label's clause only where the line is a sentence, not a label itself.
    if len(line.split()) > 2:
        line = _SENTENCE.sub("", line)
    line = _LEAD.sub("", line.strip(_EDGE))
    if len(line.split()) > LABEL_WORDS:
        line = _CLAUSE.split(line)[0]
    label = " ".join(unicodedata.normalize("NFKC", line).strip(_EDGE).lower().split())
    words = label.split()
    if not 1 <= len(words) <= LABEL_WORDS or len(label) > 80 or not _WORD.search(label) or not _readable(label):
        return None
    return None if set(same_form(label).split()) <= _EMPTY | _STOP else label


def _readable(label: str) -> bool:
    """False for control characters and for the mark of bytes that are no text, as a model run hot writes them."""
    return label.isprintable() and "\ufffd" not in label


def _without_thoughts(text: str) -> str:
    """Leave out a reasoning block; an answer cut off inside it says nothing."""
    text = re.sub(r"<think(?:ing)?>.*?</think(?:ing)?>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return re.split(r"<think(?:ing)?>", text, flags=re.IGNORECASE)[0]


def _from_json(text: str) -> str:
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end:
        return ""
    try:
        values = json.loads(text[start : end + 1])
    except ValueError:
        return ""
    for key in ("label", "name", "concept", "answer"):
        if isinstance(values, dict) and isinstance(values.get(key), str):
            return str(values[key])
    return ""


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    # "Here is the name:" announces the answer on the next line.
    while len(lines) > 1 and lines[0].rstrip("*").endswith(":"):
        lines.pop(0)
    return lines[0] if lines else ""


def same_form(label: str) -> str:
    """The form in which labels that differ in case, punctuation or spacing only are equal."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", " ", folded).split())


def merge_labels(
    labels: Sequence[str], encoder: TextEncoder | None = None, same_meaning: float = 0.85
) -> list[tuple[str, int]]:
    """Distinct labels with how often each was proposed, most often first, then in order of first appearance.

    Args:
        labels: as proposed, repeats included.
        encoder: joins labels whose embeddings' cosine is at least ``same_meaning``; None compares forms only.
        same_meaning: cosine in [0, 1].

    """
    counts: dict[str, int] = {}
    written: dict[str, str] = {}
    for label in labels:
        form = same_form(label)
        counts[form] = counts.get(form, 0) + 1
        written.setdefault(form, label)
    ranked = sorted(counts, key=lambda form: -counts[form])
    if encoder is None or len(ranked) < 2:
        return [(written[form], counts[form]) for form in ranked]
    rows = encoder.encode_texts([written[form] for form in ranked])
    kept: list[int] = []
    support: dict[int, int] = {}
    for index, form in enumerate(ranked):
        same = next((k for k in kept if float(rows[k] @ rows[index]) >= same_meaning), None)
        if same is None:
            kept.append(index)
            same = index
        support[same] = support.get(same, 0) + counts[form]
    kept.sort(key=lambda index: -support[index])
    return [(written[ranked[index]], support[index]) for index in kept]


def contrast_of(
    labels: Sequence[str], captions: Sequence[str], contrast: Sequence[str], encoder: TextEncoder | None = None
) -> list[float]:
    """How much more ``captions`` speak of each label than ``contrast`` does, in [-1, 1]; 0 without contrast captions.

    With an encoder the difference of mean cosines, else of the mean share of the label's words that a caption holds.
    """
    if not labels or not captions or not contrast:
        return [0.0] * len(labels)
    if encoder is not None:
        rows = encoder.encode_texts([*labels, *captions, *contrast])
        cosines = rows[: len(labels)] @ rows[len(labels) :].T
        ours, others = cosines[:, : len(captions)].mean(axis=1), cosines[:, len(captions) :].mean(axis=1)
        return [float(difference) for difference in (ours - others) / 2]
    return [_share(label, captions) - _share(label, contrast) for label in labels]


def _share(label: str, captions: Sequence[str]) -> float:
    wanted = {_stem(word) for word in same_form(label).split()}
    wanted = wanted - _STOP or wanted
    held = [len(wanted & {_stem(word) for word in same_form(caption).split()}) / len(wanted) for caption in captions]
    return sum(held) / len(held)


def _stem(word: str) -> str:
    """Singular and plural count as one word."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
