"""What the bench of labels shows: tables in CSV and Markdown, two figures, and one page for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnd_core.benching import PRIMARY, SECONDARY, TESTS, Estimate, SanityResult, estimate
from dnd_core.store import write_atomic
from geoaudit.bench.labels import YOURS, Bench, summary
from geoaudit.bench.labels_analytic import SAME, rates
from geoaudit.bench.labels_figures import NAMES, SHOWN_KINDS, draw, pooled
from geoaudit.bench.labels_limits import LIMITS
from geoaudit.bench.labels_methods import DND, OURS
from geoaudit.bench.labels_shown import GALLERIES
from geoaudit.bench.labels_tables import as_csv, figure, in_cell, interval, table
from geoaudit.marks import put_between

__all__ = ["EXPECTED", "write_document", "write_results"]

TITLES = {
    "r": "simulation r", "auprc": "AUPRC", "f1": "F1", "iou": "IoU", "cosy_auc": "CoSy AUC", "cosy_mad": "CoSy MAD",
    "activation_rate": "activation rate",
}  # fmt: skip
EXPECTED: tuple[tuple[str, str, float, bool], ...] = (
    ("ratio_r", "simulation r, times the best comparator's", 1.5, True),
    ("single", "analytic units recovered: single", 0.9, True),
    ("and", "analytic units recovered: AND", 0.7, True),
    ("or", "analytic units recovered: OR", 0.7, True),
    ("false_label_rate", "dead or random units given a label", 0.05, False),
    ("activation_rate", "activation rate", 0.8, True),
    ("output_match", "output units whose label is nearest to their class's definition (clean)", 0.9, True),
)
"""Key of the last line, its words, what was expected of it, and whether more is better."""


def write_results(bench: Bench, out: Path) -> list[Path]:
    """Write ``scores.csv``, ``units.csv``, ``analytic.csv`` and the figures into a folder.

    Returns:
        The files written.
    """
    files = [out / "scores.csv", out / "units.csv", out / "analytic.csv"]
    write_atomic(files[0], as_csv(_score_rows(bench)))
    units = [
        {"cell": cell.name, "method": method, "unit": unit, "label": label, "r": round(r, 4)}
        for cell in bench.cells
        for method, rows in cell.examples.items()
        for unit, label, r in rows
    ]
    write_atomic(files[1], as_csv(units or [{"cell": "", "method": "", "unit": "", "label": "", "r": ""}]))
    write_atomic(
        files[2],
        as_csv(
            [
                {
                    "cell": cell.name, "method": row.method, "unit": str(row.unit), "kind": row.kind, "truth": row.truth,
                    "label": row.said, "exact": int(row.exact), "agreement": figure(row.agreement), "right": int(row.right),
                }
                for cell in bench.cells
                for row in cell.recoveries
            ]
        ),
    )  # fmt: skip
    return files + draw(bench, out)


def write_document(bench: Bench, out: Path, docs: Path, command: str) -> list[Path]:
    """Put tables, CSV and figures into the documentation; the text outside the marks stays as it is.

    Args:
        bench: what was found.
        out: where :func:`write_results` wrote.
        docs: folder with ``bench-labels.md``, which has the marks ``<!-- bench: begin -->`` and ``<!-- bench: end -->``.
        command: that anyone reruns this with.

    Raises:
        StoreError: the document is not there or has no marks.
    """
    page = docs / "bench-labels.md"
    put_between(page, "bench", markdown(bench, command))
    written = [page]
    for name in ("bench-labels-fit.png", "bench-labels-recovery.png"):
        write_atomic(docs / "images" / name, (out / name).read_bytes())
        written.append(docs / "images" / name)
    write_atomic(docs / "bench-labels.csv", as_csv(_score_rows(bench)))
    return [*written, docs / "bench-labels.csv"]


def markdown(bench: Bench, command: str) -> str:
    """Every table of the bench."""
    return "\n\n".join(
        part
        for part in (
            f"`{command}`",
            _runs(bench),
            "### Against what was expected\n\n" + _expected(bench),
            "### Hidden units of the bundled classifiers\n\n" + _fit(bench),
            "![Simulation r of every method](images/bench-labels-fit.png)",
            "### How far the captions' phrases reach\n\n" + _reach(bench),
            "### Do the measures notice wrong labels?\n\n" + _sanity(bench),
            "### Known truth: analytic units\n\n" + _analytic(bench),
            "![Units recovered by every method](images/bench-labels-recovery.png)",
            "#### What our labels got wrong\n\n" + _wrong(bench),
            "### Output units\n\n" + _outputs(bench),
        )
    )


def _runs(bench: Bench) -> str:
    networks = ", ".join(f"{model} (seed {seed})" for model, seed in bench.plan.networks)
    scenes = ", ".join(f"{scene} (seed {seed})" for scene, seed in bench.plan.analytic)
    return (
        f"Classifiers: {networks}; hidden layers {', '.join(bench.plan.hidden)}. Analytic units on: {scenes}, up to "
        f"{bench.plan.tiles} tiles each. Intervals are 95 %, {bench.plan.draws} bootstrap draws of units and of whole "
        "spatial blocks of tiles."
    )


def _expected(bench: Bench) -> str:
    found = summary(bench)
    rows = []
    for key, words, bar, more in EXPECTED:
        value = found[key]
        met = value is not None and (value >= bar if more else value <= bar)
        rows.append([words, f"{'>=' if more else '<='} {bar:g}", figure(value), "yes" if met else "**no**"])
    return table(["what", "expected", "found", "met"], rows)


def _labelled(bench: Bench, method: str) -> tuple[int, int, float]:
    """How many units have a label, of how many, and mean r of those."""
    parts = [cell.scores[method] for cell in bench.cells if method in cell.scores]
    has = sum(int(part.labelled.sum()) for part in parts)
    total = sum(len(part.labelled) for part in parts)
    sums = sum(float(part.units["r"][part.labelled].sum()) for part in parts)
    return has, total, sums / has if has else float("nan")


def _score_rows(bench: Bench) -> list[dict[str, Any]]:
    rows = []
    for method in bench.methods:
        if not any(method in cell.scores for cell in bench.cells):
            continue
        has, total, own = _labelled(bench, method)
        row: dict[str, Any] = {"method": method, "units": total, "labelled": has, "r_of_labelled": figure(own)}
        for name in (*PRIMARY, *SECONDARY):
            found = pooled(bench, method, name)
            row |= {name: figure(found.value), f"{name}_low": figure(found.low), f"{name}_high": figure(found.high)}
        row |= {f"activation_rate_{key}": figure(found.value) for key, found in _shown(bench, method).items()}
        known = [r for cell in bench.cells for r in cell.recoveries if r.method == method]
        if known:
            row |= {key: figure(value) for key, value in rates(known).items()}
        rows.append(row)
    for key, found in _limits(bench).items():
        rows.append(
            {"method": f"limit: {key}", "units": found.n, "r": figure(found.value), "r_low": figure(found.low),
             "r_high": figure(found.high)}
        )  # fmt: skip
    return rows


def _whether(bench: Bench) -> str:
    """What r is where presence is not graded by amount."""
    parts = [cell.ungraded for cell in bench.cells if cell.ungraded]
    if not parts:
        return ""
    ours, plain = (estimate([part[method] for part in parts], "r") for method in (OURS, DND))
    return (
        "\n\nPresence grades how much of a tile shows a label, for every method alike. Asked only whether the tile shows it (a "
        f"small extent weighs little less than a large one), simulation r is ours {interval(ours)}, {NAMES[DND]} "
        f"{interval(plain)}, {figure(ours.value / plain.value if plain.value > 0 else None, 2)} times."
    )


def _limits(bench: Bench) -> dict[str, Estimate]:
    parts = [cell.limits for cell in bench.cells if cell.limits]
    return {key: estimate([part[key] for part in parts], "r") for key in LIMITS} if parts else {}


def _reach(bench: Bench) -> str:
    plain = pooled(bench, DND, "r")
    found = {NAMES[OURS]: pooled(bench, OURS, "r"), NAMES[DND]: plain}
    found |= {LIMITS[key]: value for key, value in _limits(bench).items()}
    return (
        "Our labels and DnD's are made of phrases that the measured captions say, and presence is read from the same captions. "
        "No rule of ours had a part in the other lines. A plain measure is the share of a tile where a band, an index or "
        "the texture of one lies beyond a level, whatever the captioner says of it; a weighted sum or a regression on all phrases "
        "is no label, only what the phrases hold.\n\n"
        + table(
            ["followed by", "simulation r", f"times {NAMES['dnd']}"],
            [
                [words, interval(value), figure(value.value / plain.value if plain.value > 0 else None, 2)]
                for words, value in found.items()
            ],
        )
    )


def _fit(bench: Bench) -> str:
    primary = [["method", "labelled", *(TITLES[name] for name in PRIMARY), "r where labelled"]]
    others = [["method", *(TITLES[name] for name in SECONDARY), *GALLERIES.values()]]
    for method in bench.methods:
        if not any(method in cell.scores for cell in bench.cells):
            continue
        has, total, own = _labelled(bench, method)
        figures = [interval(pooled(bench, method, name)) for name in PRIMARY]
        primary.append([NAMES[method], f"{has / total:.2f}", *figures, figure(own, 3)])
        more = [interval(found) for found in _shown(bench, method).values()]
        others.append([NAMES[method], *(interval(pooled(bench, method, name)) for name in SECONDARY), *more])
    real = [[cell.ceiling, *cell.ceilings.values()] for cell in bench.cells if cell.ceilings]
    few, many, parts = np.mean(real, axis=0)
    tuned = {
        key: float(np.mean([cell.firing[key] for cell in bench.cells if cell.firing])) for key in ("tiles", "windows")
    }
    return (
        "Primary measures, over all units; a unit without a label counts as r = 0. These fall when labels are wrong.\n\n"
        + table(primary[0], primary[1:])
        + _whether(bench)
        + "\n\nSecondary measures, over units with a label and tiles that show it. **These miss labels that are too "
        "narrow** (next section).\n\n"
        + table(others[0], others[1:])
        + "\n\nThe last three columns are activation rates on other images of the same labels. *The pool's tiles too*: twice as "
        "much ground to choose from, though the pool had a part in choosing DnD's labels. *Windows*: the evaluation's tiles and "
        "nine windows of half their side in each, mirrored to full size, so that a label may fill an image from edge to edge. "
        "*Exaggerated*: the same windows, in every band as far again from the usual tile as they are, which is no real image. "
        "Nothing of the network is used to make them.\n\n"
        "No label could reach a higher rate on the evaluation's tiles than "
        f"**{few:.2f}**, with the pool's tiles too **{many:.2f}**, with windows **{parts:.2f}**: that is the share of the ten "
        "images a unit fires on *most* which exceed its 99th percentile over the probe. Nor is it that labels are chosen for r: of "
        "all statements of one or two phrases or plain measures (next section), those whose own ten explaining tiles fire each "
        f"unit most often reach **{tuned['tiles']:.2f}** on the evaluation's tiles and **{tuned['windows']:.2f}** on windows."
    )


def _shown(bench: Bench, method: str) -> dict[str, Estimate]:
    """Activation rate of a method on the images of every other gallery."""
    cells = [cell for cell in bench.cells if cell.galleries]
    return {
        key: estimate(
            [cell.galleries[key][method] for cell in cells if method in cell.galleries[key]], "activation_rate"
        )
        for key in GALLERIES
    }


def _sanity(bench: Bench) -> str:
    found: dict[tuple[str, str], list[SanityResult]] = {}
    for cell in bench.cells:
        for result in cell.sanity:
            found.setdefault((result.metric, result.test), []).append(result)
    rows = []
    for metric in (*PRIMARY, *SECONDARY):
        row = [TITLES[metric]]
        passed = []
        for test in TESTS:
            results = found[metric, test]
            units = sum(result.units for result in results)

            def mean(name: str, results: Sequence[SanityResult] = tuple(results), units: int = units) -> float:
                return float(sum(getattr(result, name) * result.units for result in results) / units)

            row.append(f"{mean('before'):.2f} to {mean('after'):.2f}, fell for {100 * mean('fell'):.0f} %")
            passed.append(mean("fell") >= 0.9)
        rows.append([*row, "yes" if all(passed) else "**no**"])
    units = sum(result.units for result in found[PRIMARY[0], TESTS[0]])
    return (
        f"Run on {units} units whose concept is known tile by tile (analytic units, and outputs with labelled tiles). A measure "
        "notices when it falls for nine units in ten in both tests.\n\n" + table(["measure", *TESTS, "notices"], rows)
    )


def _analytic(bench: Bench) -> str:
    rows = []
    for method in (m for m in bench.methods if m != YOURS):
        known = [row for cell in bench.cells for row in cell.recoveries if row.method == method]
        if not known:
            continue
        shares, false = rates(known), rates(known)["false_label_rate"]
        cells = []
        for kind in SHOWN_KINDS:
            exact = float(np.mean([row.exact for row in known if row.kind == kind]))
            cells.append(f"{shares[kind]:.2f} ({exact:.2f})")
        rows.append([NAMES[method], *cells, f"{false:.2f}"])
    by_cell = []
    for cell in (cell for cell in bench.cells if cell.recoveries):
        shares = rates([row for row in cell.recoveries if row.method == OURS])
        by_cell.append(
            [cell.name, *(f"{shares[kind]:.2f}" for kind in SHOWN_KINDS), f"{shares['false_label_rate']:.2f}"]
        )
    counts = [row.kind for cell in bench.cells for row in cell.recoveries if row.method == OURS]
    heads = [kind.replace("_", " ") for kind in SHOWN_KINDS]
    sizes = ", ".join(f"{counts.count(kind)} {kind.replace('_', ' ')}" for kind in dict.fromkeys(counts))
    return (
        f"Units: {sizes}. A label is right when it says the truth in words (share in brackets), or something that holds "
        f"on the same evaluation tiles (correlation of {SAME:g} or more between what unit and label measure).\n\n"
        + table(["method", *heads, "false labels"], rows)
        + "\n\nOurs by split:\n\n"
        + table(["split", *heads, "false labels"], by_cell)
    )


def _wrong(bench: Bench, most: int = 24) -> str:
    missed: dict[tuple[str, str, str], int] = {}
    for cell in bench.cells:
        for row in cell.recoveries:
            if row.method == OURS and not row.right:
                key = (row.kind.replace("_", " "), row.truth or "nothing", row.said or "nothing")
                missed[key] = missed.get(key, 0) + 1
    ordered = sorted(missed.items(), key=lambda item: (-item[1], item[0]))
    rows = [[kind, truth, in_cell(said), str(times)] for (kind, truth, said), times in ordered[:most]]
    more = f"\n\n{len(ordered) - most} more are in `analytic.csv`." if len(ordered) > most else ""
    return table(["kind", "computes", "was called", "times"], rows) + more if rows else "Nothing."


def _outputs(bench: Bench) -> str:
    rows = []
    for method in bench.methods:
        for model in dict.fromkeys(model for model, _ in bench.plan.networks):
            found = [c.outputs[method] for c in bench.cells if method in c.outputs and c.name.startswith(f"{model}-")]
            if found:
                means = [
                    np.mean([getattr(m, name) for m in found]) for name in ("nearest", "cosine", "contained", "exact")
                ]
                rows.append([NAMES[method], model, *(f"{value:.2f}" for value in means)])
    named = []
    for cell in (cell for cell in bench.cells if OURS in cell.outputs):
        labels = cell.outputs[OURS].labels
        named.append([cell.name, *(in_cell(label) or "-" for label in labels)])
    return (
        "*nearest*: share of outputs whose label is nearer to their own class's definition than to any other class's; *cosine* of "
        "label and class name; *contained*: the label holds the class's name; *exact*: it is the name. In the classifier "
        "`haze` the output meadow truly answers to haze, so there a label that names the meadow would be the wrong one.\n\n"
        + table(["method", "classifier", "nearest", "cosine", "contained", "exact"], rows)
        + "\n\nOur labels of the outputs farm, forest, meadow, residential and water:\n\n"
        + table(["split", "farm", "forest", "meadow", "residential", "water"], named)
    )
