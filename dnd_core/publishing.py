"""The last stage of a run: test every chosen label on held-out images, group the labels, write one row a unit."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core import verification
from dnd_core.describing import Context, concept_rows, presence_in
from dnd_core.grouping import group_labels
from dnd_core.layers import LayerInfo
from dnd_core.scoring import activation_rate, pearson
from dnd_core.selection import SCORES
from dnd_core.store import Stage, fingerprint, write_table
from dnd_core.types import Status

__all__ = ["verification_stage"]

COLUMNS = (
    "layer", "unit", "status", "label", "labels", "group", "r", "auprc", "activation_rate", "p", "q", "stability",
    "threshold", "p99", "reason", "candidates", "top_images",
)  # fmt: skip
MOST_LABELS = 3
# How much better several labels must follow a unit than fewer do.
GAIN = 0.02


def verification_stage(context: Context, selected: Stage) -> pd.DataFrame:
    """Verify, abstain, group; see ``docs/run-folder.md`` for the columns of ``neurons.parquet``."""
    settings = context.config.verification
    stage = context.stage(
        "verification",
        selected.key,
        asdict(settings),
        context.config.seed,
        fingerprint(context.held_out.tolist()),
        context.prints["text_encoder"],
    )
    if not stage.done:
        scores = context.table("scores")
        labels = sorted(set(scores["label"]))
        column = {label: number for number, label in enumerate(labels)}
        concepts = (
            presence_in(context, context.held_out, labels)
            if settings.enabled
            else np.zeros((0, len(labels)), dtype=np.float32)
        )
        tops = _top_images(context)
        rows: list[dict[str, Any]] = []
        for number, info in enumerate(context.layers, start=1):
            rows += _layer(context, info, scores[scores["layer"] == info.name], concepts, column, tops)
            context.report("verification", number, len(context.layers))
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame, groups = _group(context, frame)
        write_table(stage.path("neurons.parquet"), frame)
        write_table(stage.path("groups.parquet"), groups)
        stage.commit()
    return context.table("neurons")


def _top_images(context: Context) -> dict[tuple[str, int], str]:
    table = context.table("top_images")
    names = ["image", "left", "top", "right", "bottom", "activation"]
    return {
        (str(layer), int(unit)): json.dumps(part.sort_values("rank")[names].to_numpy().round(6).tolist())
        for (layer, unit), part in table.groupby(["layer", "unit"], sort=False)
    }


def _layer(
    context: Context,
    info: LayerInfo,
    scores: pd.DataFrame,
    concepts: NDArray[np.float32],
    column: dict[str, int],
    tops: dict[tuple[str, int], str],
) -> list[dict[str, Any]]:
    settings, seed = context.config.verification, context.config.seed
    activations = np.asarray(context.activations(info.name))
    state = verification.health(activations)
    p99 = np.percentile(activations, 99, axis=0)
    fired = np.load(context.store.root / "concept_images" / f"{info.name}.npy")
    shown = concept_rows(context)
    by_unit = {int(unit): part.sort_values("rank") for unit, part in scores.groupby("unit", sort=True)}
    units = np.array(
        [u for u in range(info.units) if u in by_unit and not (state.dead[u] or state.diffuse[u])], dtype=int
    )
    chosen = [str(by_unit[int(u)]["label"].iloc[0]) for u in units]
    own = np.array([column[label] for label in chosen], dtype=np.int64)
    blocks = None if context.images.blocks is None else context.images.blocks[context.held_out]
    held = activations[context.held_out][:, units]
    evidence = (
        verification.verify(held, concepts, own, blocks, settings, seed) if settings.enabled and len(units) else None
    )
    draws = np.random.default_rng([seed, 4]).integers(0, max(1, len(held)), size=(settings.resamples, len(held)))
    place = {int(unit): number for number, unit in enumerate(units)}
    rows = []
    for unit in range(info.units):
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"layer": info.name, "unit": unit, "label": "", "labels": [], "group": -1, "p99": float(p99[unit])}
        row |= {"candidates": "[]", "top_images": tops.get((info.name, unit), "[]")}
        part = by_unit.get(unit)
        if part is not None:
            row["candidates"] = json.dumps(
                [
                    {
                        "label": c.label,
                        "support": int(c.support),
                        "contrast": round(float(c.contrast), 6),
                        "meaning": int(c.meaning),
                    }
                    | {
                        name: round(float(getattr(c, name)), 6)
                        for name in SCORES
                        if getattr(c, name) == getattr(c, name)
                    }
                    for c in part.itertuples(index=False)
                ],
                ensure_ascii=False,
            )
        number = place.get(unit)
        if state.dead[unit]:
            row |= {"status": Status.DEAD.value, "reason": "its activation never changes over the probe"}
        elif number is None or part is None:
            why = "its activation hardly changes" if state.diffuse[unit] else "no label was proposed for its images"
            row |= {"status": Status.ABSTAINED.value, "reason": why}
        else:
            label = chosen[number]
            rate = activation_rate(fired[shown.get(label, np.empty(0, dtype=int)), unit], float(p99[unit]))
            row |= {"label": label, "labels": [label], "activation_rate": rate}
            if evidence is None:
                row |= {"status": Status.LABELLED.value, "reason": "verification is off"}
            else:
                row |= _judge(evidence, number, settings.alpha)
                row["stability"] = _stability(held[:, number], concepts, part, column, draws)
                if row["status"] == Status.LABELLED.value:
                    row["labels"] = _meanings(
                        context, held[:, number], concepts, part, column, blocks, evidence.threshold
                    )
        rows.append(row)
    return rows


def _judge(evidence: verification.Evidence, number: int, alpha: float) -> dict[str, Any]:
    r, q, bar = float(evidence.r[number]), float(evidence.q[number]), evidence.threshold
    found = {
        "r": r, "auprc": float(evidence.auprc[number]), "p": float(evidence.p[number]), "q": q, "threshold": bar
    }  # fmt: skip
    if q <= alpha and r >= bar:
        return found | {"status": Status.LABELLED.value, "reason": f"r {r:.2f} on held-out images, null {bar:.2f}"}
    if q <= alpha:
        why = f"r {r:.2f} on held-out images is no better than other units' labels reach ({bar:.2f})"
        return found | {"status": Status.WEAK.value, "reason": why}
    why = f"held-out images do not support it (r {r:.2f}, q {q:.2f})"
    return found | {"status": Status.ABSTAINED.value, "reason": why}


def _stability(
    a: NDArray[np.float32],
    concepts: NDArray[np.float32],
    part: pd.DataFrame,
    column: dict[str, int],
    draws: NDArray[np.int64],
) -> float:
    own = concepts[:, [column[label] for label in part["label"]]]
    return verification.stability(a, own, 0, draws)


def _meanings(
    context: Context,
    a: NDArray[np.float32],
    concepts: NDArray[np.float32],
    part: pd.DataFrame,
    column: dict[str, int],
    blocks: NDArray[np.int64] | None,
    bar: float,
) -> list[str]:
    """The chosen label and up to two more, each of which explains what the ones before leave."""
    settings, seed = context.config.verification, context.config.seed
    labels = [str(part["label"].iloc[0])]
    most = min(MOST_LABELS, context.config.candidates.max_meanings)
    others = [str(c.label) for c in part.iloc[1:].itertuples(index=False)]
    said = concepts[:, column[labels[0]]]
    for label in others:
        if len(labels) >= most:
            break
        c = concepts[:, column[label]]
        r, p, weight = verification.adds_meaning(a, said, c, blocks, settings, seed)
        plain, alike = (float(np.corrcoef(x, c)[0, 1]) if c.std() > 0 else 0.0 for x in (a, said))
        # Labels are read as alternatives: together they must follow the unit better than those before did.
        before, together = pearson(a, said), pearson(a, np.maximum(said, c))
        if (
            p <= settings.alpha / len(others)
            and r > 0
            and weight >= verification.OWN_WEIGHT
            and plain >= bar
            and alike <= verification.ABOUT_THE_SAME
            and together > before + GAIN
        ):
            labels.append(label)
            said = np.maximum(said, c)
    return labels


def _group(context: Context, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Group published labels; ungrouped and unpublished units have group -1."""
    published = frame.index[frame["status"] == Status.LABELLED.value]
    columns = ["group", "name", "units", "threshold"]
    if len(published) == 0:
        return frame, pd.DataFrame({"group": [], "name": [], "units": [], "threshold": []}, columns=columns)
    labels = frame.loc[published, "label"].tolist()
    grouping = group_labels(labels, context.backends.text_encoder.encode_texts(labels))
    frame.loc[published, "group"] = list(grouping.groups)
    rows = [
        (
            number,
            name,
            json.dumps(
                [
                    f"{frame.at[i, 'layer']}/{frame.at[i, 'unit']}"
                    for i in published[np.asarray(grouping.groups) == number]
                ]
            ),
            grouping.threshold,
        )
        for number, name in enumerate(grouping.names)
    ]
    return frame, pd.DataFrame(rows, columns=columns)
