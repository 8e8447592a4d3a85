"""Text and figures as every report prints them: one line, no controls, no surprises."""

from __future__ import annotations

import math
import re
from typing import Any

from geoaudit.report.wording import say

__all__ = [
    "areas", "figure", "hectares", "interval", "lines", "percent", "plain", "probability", "seconds", "share_interval",
    "shares",
]  # fmt: skip

# What can hide text, turn its direction, or is illegal in XML: C0 and C1 controls, bidirectional overrides and isolates,
# characters without width (but for the joiners that Indic and Persian spelling needs), tags, variation selectors, lone
# surrogates, non-characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e0fff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
# A tower of marks on one letter runs over the lines above and below; no language needs more than a few.
_MARK = "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_TOWER = re.compile(f"({_MARK}{{4}}){_MARK}+")
_SPACE = re.compile(r"\s+")
LIMIT = 300


def plain(value: Any, limit: int = LIMIT) -> str:
    """Any value as one line of at most ``limit`` characters, without control characters and direction overrides."""
    if value is None:
        return ""
    text = str(value)
    cut = len(text) > limit * 4
    text = _TOWER.sub(r"\1", _SPACE.sub(" ", _UNSEEN.sub("", text[: limit * 4]))).strip()
    return text[: limit - 1].rstrip() + "…" if cut or len(text) > limit else text


def lines(value: Any, limit: int = 2000) -> str:
    """A longer text: the same, with a higher limit, for sentences and reasons."""
    return plain("; ".join(map(str, value)) if isinstance(value, (list, tuple)) else value, limit)


def figure(value: Any, digits: int = 2, *, signed: bool = False) -> str:
    """A number with a true minus sign; a dash where it was not measured."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "\u2013"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "\u2212")


def percent(value: Any, digits: int = 0) -> str:
    """A share in [0, 1] in percent."""
    text = figure(value * 100 if isinstance(value, (int, float)) and not isinstance(value, bool) else None, digits)
    return text if text == "\u2013" else f"{text} %"


def interval(ci: Any, digits: int = 2, *, shares: bool = False) -> str:
    """A 95 % interval as "low to high"; empty where there is none."""
    if not isinstance(ci, (list, tuple)) or len(ci) != 2 or any(figure(end) == "\u2013" for end in ci):
        return ""
    low, high = (figure(end * 100, 0) if shares else figure(end, digits) for end in ci)
    return say("range", low=low, high=high) + (" %" if shares else "")


def shares(entry: Any) -> str:
    """A share with its interval, "81 % (70 % – 92 %)"; the interval is left out where there is none."""
    return f"{percent(entry['estimate'])}{f' ({share_interval(entry)})' if share_interval(entry) else ''}"


def share_interval(entry: Any) -> str:
    """The interval of an estimate that is a share, "70 % – 92 %"; empty where there is none."""
    return (
        ""
        if entry["low"] is None or entry["high"] is None
        else f"{percent(entry['low'])} \u2013 {percent(entry['high'])}"
    )


def areas(entry: Any) -> str:
    """An area with its interval, "1 240 (980 to 1 510)", in hectares."""
    if entry["low"] is None or entry["high"] is None:
        return hectares(entry["estimate"])
    between = say("range", low=hectares(entry["low"]), high=hectares(entry["high"]))
    return f"{hectares(entry['estimate'])} ({between})"


def probability(p: Any) -> str:
    """A p- or q-value without the letter: "0.004", "< 0.001"."""
    if figure(p) == "\u2013":
        return "\u2013"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def hectares(value: Any) -> str:
    """An area to three figures, thousands set apart."""
    if figure(value) == "\u2013":
        return "\u2013"
    size = 0 if value == 0 else math.floor(math.log10(abs(value)))
    rounded = round(value, max(0, 2 - size)) if size < 3 else round(value, 2 - size)
    text = f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def seconds(value: Any) -> str:
    """A duration, "4.2 s" or "3 min 20 s"."""
    if figure(value) == "\u2013":
        return "\u2013"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"
