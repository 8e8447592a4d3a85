"""Study A on paper: groups per layer, forests before and after pruning, and the plain answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dnd_core.store import Stage
from geoaudit.report.text import plain
from geoaudit.studies import writing
from geoaudit.studies.writing import cell, markdown_table, share, spread

__all__ = ["answer", "group_table", "write_tile2vec"]

SHOWN_GROUPS = 15
ALPHA = 0.05
KINDS = {"tiles": "tiles drawn one by one", "blocks": "whole spatial blocks"}


def write_tile2vec(
    stage: Stage, summary: dict[str, Any], pairs: pd.DataFrame, names: Sequence[str], found: pd.DataFrame
) -> dict[str, Any]:
    """Write tables, pictures and ``study.md`` of a finished study.

    Args:
        stage: where to.
        summary: what is known already.
        pairs: one row a unit with its pair and group.
        names: of the groups, by number.
        found: rows of :class:`geoaudit.studies.forests.Comparison`.

    Returns:
        The summary with groups and comparisons, as ``study.json`` keeps it.
    """
    groups = group_table(pairs, names)
    layers = layer_table(pairs)
    said = answer(found)
    summary = {
        **summary,
        "groups": len(names),
        "largest_groups": groups.head(SHOWN_GROUPS).to_dict("records"),
        "by_layer": layers.to_dict("records"),
        "ungrouped": int((pairs["group"] < 0).sum()),
        "units": len(pairs),
        "comparisons": found.to_dict("records"),
        "answer": said,
    }
    writing.csv_table(stage.path("units.csv"), pairs)
    writing.csv_table(stage.path("groups.csv"), groups)
    writing.csv_table(stage.path("layers.csv"), layers)
    writing.csv_table(stage.path("forests.csv"), found)
    if len(groups):
        writing.picture(stage.path("groups.png"), _groups_chart(pairs, groups))
    if len(found):
        writing.picture(stage.path("forests.png"), _forest_chart(found))
    stage.path("study.md").write_text(_page(summary, pairs, groups, layers, found), encoding="utf-8")
    return summary


def group_table(pairs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """``group, name, units`` and the units of each layer, largest group first."""
    layers = list(dict.fromkeys(pairs["layer"]))
    rows = []
    for number, name in enumerate(names):
        mine = pairs[pairs["group"] == number]
        counts = {layer: int((mine["layer"] == layer).sum()) for layer in layers}
        rows.append({"group": number, "name": name, "units": len(mine), **counts})
    return pd.DataFrame(rows, columns=["group", "name", "units", *layers])


def layer_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Units of each layer: with a verified concept, with a class, in a group, in none; and groups present."""
    rows = []
    for layer, part in pairs.groupby("layer", sort=False):
        named = part["concept"] != ""
        rows.append(
            {
                "layer": layer,
                "units": len(part),
                "concept": int(named.sum()),
                "class": int((named & (part["pair"] != part["concept"])).sum()),
                "groups": int(part.loc[part["group"] >= 0, "group"].nunique()),
                "grouped": int((part["group"] >= 0).sum()),
                "alone": int((named & (part["group"] < 0)).sum()),
                "unlabelled": int((~named).sum()),
            }
        )
    return pd.DataFrame(rows)


def answer(found: pd.DataFrame) -> str:
    """Whether pruning uninterpretable units beats random pruning, in plain words.

    It does where fewer than one in twenty random prunings of equal number leave the forest as good or better.
    """
    if found.empty:
        return "Every unit is in a group, so there was nothing to prune."
    better = found[found["p_better"] <= ALPHA]
    worse = found[found["p_worse"] <= ALPHA]
    if len(better) == len(found):
        start = "Yes: pruning ungrouped units leaves more accuracy than pruning random ones in every comparison"
    elif len(better) > max(1, ALPHA * len(found)) and len(better) > 2 * len(worse):
        start = f"In part: pruning ungrouped units beats random pruning in {len(better)} of {len(found)} comparisons"
    else:
        start = f"No: pruning ungrouped units beats random pruning in only {len(better)} of {len(found)} comparisons"
    rest = f"and is worse in {len(worse)}; about {ALPHA * len(found):.1f} of each would be expected by chance"
    gain = (found["accuracy"] - found["random"]).mean()
    return f"{start} {rest}. Its mean advantage is {100 * gain:+.1f} points of accuracy."


def _groups_chart(pairs: pd.DataFrame, groups: pd.DataFrame) -> Any:
    """Share of each layer's units in the largest groups, the other groups, and none."""
    import altair as alt

    largest = groups.head(8)["group"].tolist()
    title = {int(row.group): f"{plain(row.name, 44)}" for row in groups.itertuples(index=False)}
    kind = [title[g] if g in largest else "other groups" if g >= 0 else "ungrouped" for g in pairs["group"]]
    order = [*dict.fromkeys(title[g] for g in largest), "other groups", "ungrouped"]
    counted = pairs.assign(kind=kind).groupby(["layer", "kind"], sort=False).size().reset_index(name="units")
    counted["place"] = [order.index(value) for value in counted["kind"]]
    colours = ["#1f7a6d", "#4a6fa5", "#e0a030", "#d1495b", "#7d5ba6", "#5c9e31", "#b5651d", "#2f9fb3"][: len(order) - 2]
    return (
        alt.Chart(counted, title="Units of each layer by concept group", width=420, height=170)
        .mark_bar()
        .encode(
            y=alt.Y("layer:N", sort=list(dict.fromkeys(pairs["layer"])), title=None),
            x=alt.X("units:Q", stack="normalize", title="share of the layer's units", axis=alt.Axis(format="%")),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=order, range=[*colours, "#b9c4c1", "#e6eae9"]),
                legend=alt.Legend(orient="right", symbolLimit=12),
            ),
            order=alt.Order("place:Q"),
        )
    )


def _forest_chart(found: pd.DataFrame) -> Any:
    import altair as alt

    kind = "blocks" if (found["split"] == "blocks").any() else "tiles"
    parts = []
    for forest, title in (("kept", "forest kept"), ("refitted", "forest fitted anew")):
        rows: list[dict[str, Any]] = []
        for row in found[(found["split"] == kind) & (found["forest"] == forest)].itertuples(index=False):
            name = f"{row.pruned} ({row.units} of {row.of})"
            points = {
                "no pruning": (row.whole, row.whole, row.whole),
                "ungrouped units pruned": (row.accuracy, row.accuracy, row.accuracy),
                "random units, 95 % of draws": (row.random, row.low, row.high),
            }
            rows += [
                {"name": name, "what": what, "value": value, "low": low, "high": high}
                for what, (value, low, high) in points.items()
            ]
        parts.append(writing.interval_chart(rows, f"{title}, test on {KINDS[kind]}", "accuracy"))
    return alt.vconcat(*parts)


def _page(
    summary: Mapping[str, Any], pairs: pd.DataFrame, groups: pd.DataFrame, layers: pd.DataFrame, found: pd.DataFrame
) -> str:
    names = list(summary["layers"])
    classes = ", ".join(f"{cell(name)} {count}" for name, count in summary["classes"].items())
    lines = [
        "# Study A: concept groups and pruning in an unsupervised embedding\n",
        f"**{summary['answer']}**\n",
        f"Network: {cell(summary['network'])}, {summary['units']} units in {len(names)} layers, an embedding of "
        f"{summary['embedding']} numbers; described on {summary['described_on']} tiles. The forests work on {summary['tiles']} "
        f"labelled tiles of other spatial blocks ({classes}; always saying the largest class is right on "
        f"{share(summary['largest_class'])} %).\n",
        "## Concept groups\n",
        f'Labels are pairs "visual concept (land-cover class)". Two units share a group where the mean cosine of both parts '
        f"reaches {summary['threshold']:.2f}; threshold: {cell(summary['threshold_source'], 200)}. {summary['groups']} groups; "
        f"{summary['ungrouped']} of {summary['units']} units are in none.\n",
        markdown_table(
            [
                "layer",
                "units",
                "verified concept",
                "with a class",
                "groups",
                "grouped",
                "concept like no other",
                "no label",
            ],
            [[cell(row[0]), *row[1:]] for row in layers.itertuples(index=False)],
        ),
        markdown_table(
            ["group", "units", *map(cell, names)],
            [
                [cell(r["name"]), r["units"], *(r[name] for name in names)]
                for r in groups.head(SHOWN_GROUPS).to_dict("records")
            ],
        )
        if len(groups)
        else "",
        "![Concept groups](groups.png)\n" if len(groups) else "",
        "## Random forests on the embedding\n",
        f"Accuracy in percent, mean over {summary['splits']} splits of each kind (80 % training, 20 % test), "
        f"{summary['trees']} trees; random pruning: mean and 95 % of {summary['draws']} draws of as many units of the same "
        "layers. p is the share of random prunings that leave the forest at least as good, not corrected for the number of "
        "comparisons.\n",
    ]
    for kind, words in KINDS.items():
        mine = found[found["split"] == kind]
        if mine.empty:
            continue
        lines.append(f"### Test on {words}\n")
        whole, alone = float(mine["whole"].iloc[0]), summary["colours_alone"][kind]
        lines.append(
            f"The whole embedding reaches {share(whole)} %; a forest on each band's mean and spread, without any network, "
            f"{share(alone)} %."
            + (
                " That is no more than always saying the largest class, so these comparisons say little.\n"
                if whole <= summary["largest_class"]
                else "\n"
            )
        )
        lines.append(
            markdown_table(
                ["pruned", "ungrouped units", "forest", "no pruning", "ungrouped pruned", "random pruned", "p"],
                [
                    [
                        cell(row.pruned),
                        f"{row.units} of {row.of}",
                        "kept" if row.forest == "kept" else "fitted anew",
                        share(row.whole),
                        share(row.accuracy),
                        spread(row.random, row.low, row.high),
                        f"{row.p_better:.3f}",
                    ]
                    for row in mine.itertuples(index=False)
                ],
            )
        )
    if len(found):
        lines.append("![Forests](forests.png)\n")
    return "\n".join(line for line in lines if line)
