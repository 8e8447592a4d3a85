"""The bench of labels as one resumable job: ``geoaudit bench labels`` (method section 3).

Every cell (a network or a set of analytic units, on one split) is finished by itself and kept in the output folder, so a
killed bench goes on where it stopped. Scores, tables, figures and the last line are made from the cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnd_core.benching import LabelScores, SanityResult
from dnd_core.errors import StoreError
from dnd_core.store import fingerprint, write_atomic
from dnd_core.types import UnitId
from geoaudit.bench.labels_methods import METHODS, OURS

if TYPE_CHECKING:
    from dnd_core.captioning import Progress
    from geoaudit.bench.labels_analytic import Recovery
    from geoaudit.bench.labels_networks import OutputMatch

__all__ = ["FULL", "QUICK", "YOURS", "Bench", "Cell", "Plan", "run_labels"]

YOURS = "yours"
"""The user's labels among the methods."""

_VERSION = 5
_MAKERS = ("analytic", "hidden", "limits", "methods", "networks", "shown", "tiles", "units", "words")


@dataclass(frozen=True)
class Plan:
    """What a bench runs.

    Attributes:
        networks: (bundled classifier, seed) of every split.
        analytic: (bundled scene, seed) of every set of analytic units.
        hidden: hidden layers of the classifiers.
        tiles: tiles drawn of a scene for analytic units.
        draws: bootstrap draws.
    """

    networks: tuple[tuple[str, int], ...]
    analytic: tuple[tuple[str, int], ...]
    hidden: tuple[str, ...]
    tiles: int
    draws: int


FULL = Plan(
    networks=(("clean", 40), ("clean", 41), ("haze", 40), ("haze", 41)),
    analytic=(("delmarva", 40), ("delmarva", 41)),
    hidden=("layer3", "layer4"),
    tiles=1000,
    draws=200,
)
"""What the document is made from. Rules were set on brandenburg with seeds 0 to 3; later ones looked at once each."""

QUICK = Plan(networks=(("clean", 3),), analytic=(("brandenburg", 3),), hidden=("layer4",), tiles=900, draws=30)
"""A look in a few minutes; too few units for a claim."""


@dataclass(frozen=True, eq=False)
class Cell:
    """What one cell found; parts that its kind of cell does not have are empty.

    Attributes:
        name: of the cell.
        scores: method -> scores of hidden units.
        examples: method -> (unit, label, r).
        ceiling: activation rate that no choice of real tiles can pass; NaN for analytic units.
        sanity: sanity tests of every measure.
        outputs: method -> match of output units.
        recoveries: every method's labels of every analytic unit.
        limits: scores of hidden units, r alone, that nothing said in the captions' phrases can pass by much.
        ungraded: method -> scores of hidden units, r alone, where presence asks whether, not how much.
        galleries: key of :data:`geoaudit.bench.labels_shown.GALLERIES` -> method -> activation rate on these images.
        ceilings: the same keys -> as ``ceiling``, where images are real.
        firing: ``tiles`` and ``windows`` -> activation rate of statements chosen for nothing but a high one.
    """

    name: str
    scores: Mapping[str, LabelScores]
    examples: Mapping[str, tuple[tuple[str, str, float], ...]]
    ceiling: float
    sanity: tuple[SanityResult, ...]
    outputs: Mapping[str, OutputMatch]
    recoveries: tuple[Recovery, ...]
    limits: Mapping[str, LabelScores] = field(default_factory=dict)
    ungraded: Mapping[str, LabelScores] = field(default_factory=dict)
    galleries: Mapping[str, Mapping[str, LabelScores]] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    firing: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Bench:
    """A finished bench.

    Attributes:
        plan: what was run.
        cells: what was found.
        methods: keys of the methods, in the order of tables.
    """

    plan: Plan
    cells: tuple[Cell, ...]
    methods: tuple[str, ...]


def run_labels(out: Path, plan: Plan = FULL, labels: Path | None = None, *, progress: Progress | None = None) -> Bench:
    """Run the bench, or what is left of it.

    Args:
        out: folder to work in; cells that are there already, of the same inputs, are kept.
        plan: what to run.
        labels: a user's labels of the bundled classifiers, scored beside all others.
        progress: called with (stage, done, total).

    Raises:
        ConfigError: the user's labels cannot be read or name what is not there.
        StoreError: the folder cannot be written.
    """
    from dnd_core.backends.sentences import SentenceEncoder
    from dnd_core.benching import CachedCaptioner
    from geoaudit.captions import SatelliteCaptioner

    if labels is not None:
        for model in ("clean", "haze"):
            _users(labels, model, plan.hidden)
    encoder = SentenceEncoder()
    captioner = CachedCaptioner(SatelliteCaptioner(), out / "captions")
    cells = []
    both = zip_longest(plan.networks, plan.analytic)
    jobs = [(kind, *job) for pair in both for kind, job in zip(("network", "analytic"), pair, strict=True) if job]
    for number, (kind, name, seed) in enumerate(jobs):
        if progress is not None:
            progress(f"{kind} {name} {seed}", number, len(jobs))
        make = _network_cell if kind == "network" else _analytic_cell
        cells.append(make(out, plan, name, seed, labels, captioner, encoder, progress))
    if progress is not None:
        progress("cells", len(jobs), len(jobs))
    return Bench(plan, tuple(cells), (*METHODS, *([YOURS] if labels is not None else [])))


def _users(path: Path, model: str, hidden: tuple[str, ...]) -> dict[UnitId, tuple[str, ...]]:
    from geoaudit.bench.labels_networks import read_labels

    units = {"layer3": 192, "layer4": 96, "output": 5}
    known = {layer: units[layer] for layer in (*hidden, "output")}
    return read_labels(path, model, known, [name for name in ("clean", "haze") if name != model])


def _network_cell(
    out: Path, plan: Plan, model: str, seed: int, labels: Path | None, captioner: Any, encoder: Any, progress: Any
) -> Cell:
    from dataclasses import replace

    from geoaudit.bench.labels_methods import label_units
    from geoaudit.bench.labels_networks import bundled_case, fit_of

    case = bundled_case(model, seed, plan.hidden)
    mine = _users(labels, model, plan.hidden) if labels is not None else {}
    inputs = [sorted((str(unit), some) for unit, some in mine.items()), labels is not None, plan.draws]
    file, key = _cell_file(out, case, captioner, encoder, inputs)
    kept = _load(file, key)
    if kept is not None:
        return kept
    said = label_units(case, out / "runs", captioner, encoder, progress=progress)
    if labels is not None:
        yours = tuple(mine.get(unit, ()) for unit in said.units)
        said = replace(said, said={**said.said, YOURS: yours})
    fit = fit_of(case, said, captioner, encoder, draws=plan.draws)
    seen, rates = fit.simulated, fit.rates
    cell = Cell(
        case.name, seen.scores, seen.examples, rates.ceiling, fit.sanity, fit.outputs, (), fit.limits, seen.ungraded,
        rates.galleries, rates.ceilings, rates.firing,
    )  # fmt: skip
    return _finished(file, key, cell)


def _analytic_cell(
    out: Path, plan: Plan, scene: str, seed: int, _labels: Path | None, captioner: Any, encoder: Any, progress: Any
) -> Cell:
    from geoaudit.bench.labels_analytic import analytic_case, judge_units, sanity_of
    from geoaudit.bench.labels_methods import label_units
    from geoaudit.bench.labels_units import told

    case, units = analytic_case(scene, seed, plan.tiles)
    file, key = _cell_file(out, case, captioner, encoder, [told(units)])
    kept = _load(file, key)
    if kept is not None:
        return kept
    said = label_units(case, out / "runs", captioner, encoder, progress=progress)
    found = judge_units(case, said, units)
    cell = Cell(case.name, {}, {}, float("nan"), sanity_of(case, said, units), {}, tuple(found))
    return _finished(file, key, cell)


def _cell_file(out: Path, case: Any, captioner: Any, encoder: Any, inputs: Any) -> tuple[Path, str]:
    """Where a cell is kept, and what decides it."""
    from dnd_core import describing
    from dnd_core.backends.keyphrases import Keyphrases

    parts = [part.fingerprint for part in (case.network, case.probe, case.pool, case.evaluation)]
    # Tables are made of cells; only what cells are made of counts.
    own = [Path(__file__).with_name(f"labels_{name}.py") for name in _MAKERS]
    engine = Path(describing.__file__).parent
    own += [engine / "windows.py", *sorted((engine / "benching").glob("*.py"))]
    sources = [hashlib.sha256(path.read_bytes()).hexdigest() for path in own]
    backends = [captioner.fingerprint, encoder.fingerprint, Keyphrases(encoder).fingerprint]
    key = fingerprint([_VERSION, parts, case.layers, backends, describing.VERSIONS, sources, inputs])
    return out / "cells" / f"{case.name}.json", key


def _finished(file: Path, key: str, cell: Cell) -> Cell:
    """Keep a cell, and go on with what is kept: a bench that was killed writes the same bytes as one that was not."""
    _save(file, key, cell)
    kept = _load(file, key)
    if kept is None:
        raise StoreError(f"{file} was changed by another run while this one wrote it: give each a folder of its own")
    return kept


def _save(file: Path, key: str, cell: Cell) -> None:
    def listed(scores: LabelScores) -> dict[str, Any]:
        return {
            "units": {name: _plain(values) for name, values in scores.units.items()},
            "draws": {name: _plain(values) for name, values in scores.draws.items()},
            "labelled": scores.labelled.tolist(),
        }

    content = {
        "key": key,
        "name": cell.name,
        "scores": {method: listed(scores) for method, scores in cell.scores.items()},
        **{
            name: {key: listed(scores) for key, scores in getattr(cell, name).items()}
            for name in ("limits", "ungraded")
        },
        "galleries": {
            name: {key: listed(scores) for key, scores in kept.items()} for name, kept in cell.galleries.items()
        },
        **{
            name: {key: _number(value) for key, value in getattr(cell, name).items()} for name in ("ceilings", "firing")
        },
        "examples": cell.examples,
        "ceiling": _plain(np.array([cell.ceiling]))[0],
        "sanity": [asdict(result) for result in cell.sanity],
        "outputs": {method: asdict(match) for method, match in cell.outputs.items()},
        "recoveries": [
            {**asdict(row), "unit": str(row.unit), "agreement": _number(row.agreement)} for row in cell.recoveries
        ],
    }
    write_atomic(file, json.dumps(content, sort_keys=True) + "\n")


def _load(file: Path, key: str) -> Cell | None:
    """The cell, if it is there and was made of the same inputs."""
    from geoaudit.bench.labels_analytic import Recovery
    from geoaudit.bench.labels_networks import OutputMatch

    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}): remove it and run the bench again") from error
    if content["key"] != key:
        return None

    def scores(kept: Mapping[str, Any]) -> LabelScores:
        return LabelScores(
            {name: _floats(values) for name, values in kept["units"].items()},
            {name: _floats(values) for name, values in kept["draws"].items()},
            np.asarray(kept["labelled"], dtype=bool),
        )

    return Cell(
        content["name"],
        {method: scores(kept) for method, kept in content["scores"].items()},
        {method: tuple((u, w, float(r)) for u, w, r in rows) for method, rows in content["examples"].items()},
        float(_floats([content["ceiling"]])[0]),
        tuple(SanityResult(**result) for result in content["sanity"]),
        {
            method: OutputMatch(**{**kept, "labels": tuple(kept["labels"])})
            for method, kept in content["outputs"].items()
        },
        tuple(
            Recovery(**{**row, "unit": UnitId.parse(row["unit"]), "agreement": float(_floats([row["agreement"]])[0])})
            for row in content["recoveries"]
        ),
        {key: scores(kept) for key, kept in content["limits"].items()},
        {key: scores(kept) for key, kept in content["ungraded"].items()},
        {name: {key: scores(part) for key, part in kept.items()} for name, kept in content["galleries"].items()},
        *({key: float(_floats([value])[0]) for key, value in content[name].items()} for name in ("ceilings", "firing")),
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _plain(values: Any) -> list[float | None]:
    return [_number(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def _floats(values: Any) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def summary(bench: Bench) -> dict[str, Any]:
    """The last line: figures of our labels, r of every comparator, and how many times the best of them ours is.

    Keys are ``ours``, ``comparators``, ``ratio_r``, ``auprc``, ``activation_rate``, ``single``, ``and``, ``or``, ``not``,
    ``two_meanings``, ``false_label_rate`` and ``output_match``. r counts every unit, 0 for those without a label;
    activation rate counts units that have one.
    """
    from dnd_core.benching import estimate
    from geoaudit.bench.labels_analytic import rates
    from geoaudit.bench.labels_methods import COMPARATORS

    def r_of(method: str) -> float:
        return estimate([cell.scores[method] for cell in bench.cells if method in cell.scores], "r").value

    ours = [cell.scores[OURS] for cell in bench.cells if OURS in cell.scores]
    others = {method: round(r_of(method), 4) for method in COMPARATORS}
    best = max(others.values())
    known = rates([row for cell in bench.cells for row in cell.recoveries if row.method == OURS])
    matches = [cell.outputs[OURS].nearest for cell in bench.cells if cell.outputs and cell.name.startswith("clean")]
    return {
        "ours": round(r_of(OURS), 4),
        "comparators": others,
        "ratio_r": round(r_of(OURS) / best, 4) if best > 0 else None,
        "auprc": round(estimate(ours, "auprc").value, 4),
        "activation_rate": round(estimate(ours, "activation_rate").value, 4),
        **{kind: round(known[kind], 4) for kind in ("single", "and", "or", "not", "two_meanings")},
        "false_label_rate": round(known["false_label_rate"], 4),
        "output_match": round(float(np.mean(matches)), 4),
    }
