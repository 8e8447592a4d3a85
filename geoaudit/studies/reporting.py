"""Study B on paper: tables, pictures and the page that says what they mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dnd_core.store import Stage
from geoaudit.studies import writing
from geoaudit.studies.words import KINDS, word_counts
from geoaudit.studies.writing import NOT_MEASURED, cell, markdown_table, share, spread

__all__ = ["PUBLISHED", "verdict", "write_eurosat"]

SHOWN_WORDS = 15

PUBLISHED = {
    "images": 2700,
    "right": 2572,
    "right_without_fishing": 2572,
    "right_without_purple_pink": 657,
    "labels": 2048,
    "say_fish": 853,
    "say_purple_or_pink": 609,
    "name_land_cover": 0.063,
    "refusals": 47,
}
"""What the paper and its published files report, for reference; nothing here is computed from it."""


def write_eurosat(
    stage: Stage, summary: dict[str, Any], labels: pd.DataFrame, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write tables, pictures and ``study.md`` of a finished study.

    Args:
        stage: where to.
        summary: what is known already.
        labels: one row a unit, see :func:`geoaudit.studies.eurosat.label_table`.
        rows: accuracy before and after, see :func:`geoaudit.studies.eurosat.figures`.

    Returns:
        The summary with the figures of labels and prunings, as ``study.json`` keeps it.
    """
    counts = {kind: int((labels["kind"] == kind).sum()) for kind in KINDS}
    given = len(labels) - counts["none"]
    words = word_counts(labels["stated"].tolist())
    prunings = [row for row in rows if row["class"] == "all"]
    summary = {
        **summary,
        "units": len(labels),
        "labels": given,
        "kinds": counts,
        "share_land_cover": counts["land cover"] / given if given else math.nan,
        "share_out_of_domain": counts["out of domain"] / given if given else math.nan,
        "words": [{"word": word, "labels": count} for word, count in words[:SHOWN_WORDS]],
        "prunings": [{**row, "verdict": verdict(row)} for row in prunings],
        "published": PUBLISHED,
    }
    writing.csv_table(stage.path("labels.csv"), labels)
    writing.csv_table(stage.path("words.csv"), pd.DataFrame(words, columns=["word", "labels"]))
    kinds = [
        {"kind": kind, "labels": counts[kind], "share": counts[kind] / given if given else math.nan} for kind in KINDS
    ]
    writing.csv_table(stage.path("plausibility.csv"), pd.DataFrame(kinds))
    writing.csv_table(stage.path("pruning.csv"), pd.DataFrame(rows))
    if words:
        writing.picture(
            stage.path("words.png"),
            writing.bars(words[:SHOWN_WORDS], "Commonest words of the labels", "labels that say the word"),
        )
    if any(row["units"] for row in prunings):
        chart = writing.interval_chart(_points(rows), "Accuracy before and after pruning", "accuracy")
        writing.picture(stage.path("pruning.png"), chart)
    stage.path("study.md").write_text(_page(summary, rows), encoding="utf-8")
    return summary


def verdict(row: Mapping[str, Any]) -> str:
    """In words, what pruning one selection did."""
    if not row["units"]:
        return "no published label says this, so nothing was pruned"
    moved = "costs" if row["high"] < 0 else "gains" if row["low"] > 0 else "changes accuracy by no more than chance"
    if moved != "changes accuracy by no more than chance":
        moved = f"{moved} {abs(100 * row['change']):.1f} points of accuracy"
    if not math.isfinite(row["p"]):
        return f"{moved}; no random units are left to compare with"
    if row["p"] <= 0.05:
        return f"{moved}; more than pruning random units of equal strength (p {row['p']:.3f})"
    return f"{moved}; no more than pruning random units of equal strength (p {row['p']:.2f})"


def _points(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    seen = False
    for row in rows:
        if row["class"] != "all" or not row["units"]:
            continue
        if not seen:
            points.append(
                {
                    "name": "whole network",
                    "what": "whole network",
                    "value": row["before"],
                    "low": row["before"],
                    "high": row["before"],
                }
            )
            seen = True
        name = f"{row['words']} ({row['units']} units)"
        shifted = {"low": row["before"] + row["low"], "high": row["before"] + row["high"]}
        points.append(
            {"name": name, "what": "pruned by their words, 95 % over images", "value": row["after"], **shifted}
        )
        if math.isfinite(row["random"]):
            ends = {"low": row["random_low"], "high": row["random_high"]}
            points.append({"name": name, "what": "random units, 95 % of draws", "value": row["random"], **ends})
    return points


def _page(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = summary["kinds"]
    lines = [
        "# Study B: spurious units in a supervised classifier\n",
        f"Network: {cell(summary['network'])}; stages {', '.join(map(cell, summary['layers']))}; {summary['units']} units "
        f"described on {summary['described_on']} images. Accuracy is measured on {summary['images']} images "
        f"{cell(summary['where'], 200)}: {summary['right']}/{summary['images']} right ({share(summary['accuracy'])} %).\n",
        "".join(f"- {cell(note, 300)}\n" for note in summary["notes"]),
        "## What the labels say\n",
        f"{summary['labels']} of {summary['units']} units have a published label; {share(summary['share_land_cover'])} % of "
        f"the labels name some land cover, {share(summary['share_out_of_domain'])} % are out of domain.\n",
        markdown_table(
            ["labels that", "labels", "%"],
            [
                [
                    words,
                    kinds[kind],
                    share(kinds[kind] / summary["labels"]) if summary["labels"] and kind != "none" else NOT_MEASURED,
                ]
                for kind, words in (
                    ("land cover", "name some land cover"),
                    ("appearance", "speak of colour, texture, weather or sensor alone"),
                    ("out of domain", "speak of what no satellite image shows"),
                    ("refusal", "decline to answer"),
                    ("none", "(units without a published label)"),
                )
            ],
        ),
        "Commonest words: "
        + (", ".join(f"{cell(item['word'])} ({item['labels']})" for item in summary["words"]) or "none")
        + ".\n",
        "![Commonest words](words.png)\n" if summary["words"] else "",
        "## Pruned by words\n",
        "Accuracy in percent with 95 % intervals: of the pruned network over images (whole blocks resampled), of random "
        f"prunings over {summary['draws']} draws matched in stage, number and activation norm. p is the share of random prunings "
        "that cost at least as much, not corrected for the number of comparisons.\n",
        markdown_table(
            ["words", "units", "right", "pruned", "random", "p", "verdict"],
            [
                [
                    cell(row["words"]),
                    row["units"],
                    f"{row['right_after']}/{row['n']}",
                    spread(row["after"], row["before"] + row["low"], row["before"] + row["high"])
                    if row["units"]
                    else NOT_MEASURED,
                    spread(row["random"], row["random_low"], row["random_high"]),
                    NOT_MEASURED if not math.isfinite(row["p"]) else f"{row['p']:.3f}",
                    row["verdict"],
                ]
                for row in summary["prunings"]
            ],
        ),
        "![Accuracy after pruning](pruning.png)\n" if any(row["units"] for row in summary["prunings"]) else "",
        *_by_class(rows),
        "A pruned unit's largest answer is {pruned_units:g}, the largest change of another unit of its stage "
        "{other_units:.2g}; pruned weights and units held at 0 while running agree to {against_hooks:.2g} of the largest "
        "answer.\n".format(**summary["proof"]),
        "## What was published\n",
        f"With the paper's own network and labels: {PUBLISHED['right']}/{PUBLISHED['images']} right unpruned, "
        f"{PUBLISHED['right_without_fishing']} after pruning 'fishing' units, {PUBLISHED['right_without_purple_pink']} after "
        f"pruning 'purple/pink' units, without random controls. Of {PUBLISHED['labels']:,} published labels "
        f"{PUBLISHED['say_fish']} say fish, {PUBLISHED['say_purple_or_pink']} purple or pink, "
        f"{100 * PUBLISHED['name_land_cover']:.1f} % name any land cover, and {PUBLISHED['refusals']} are refusals.\n",
    ]
    return "\n".join(line for line in lines if line)


def _by_class(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for words in dict.fromkeys(row["words"] for row in rows if row["units"]):
        mine = [row for row in rows if row["words"] == words and row["class"] != "all"]
        parts.append(f"### {cell(words)}, class by class\n")
        parts.append(
            markdown_table(
                ["class", "images", "whole", "pruned", "change", "random", "p"],
                [
                    [
                        cell(row["class"]),
                        row["n"],
                        share(row["before"]),
                        share(row["after"]),
                        spread(row["change"], row["low"], row["high"]),
                        spread(row["random"], row["random_low"], row["random_high"]),
                        NOT_MEASURED if not math.isfinite(row["p"]) else f"{row['p']:.3f}",
                    ]
                    for row in mine
                ],
            )
        )
    return parts


def last_line(summary: Mapping[str, Any]) -> str:
    """The figures as one line of JSON, the last that a study prints."""
    return json.dumps(writing.to_json(summary), sort_keys=True, ensure_ascii=False)
