"""The bench from plan to rows: every case trained, checked, audited and compared once, resumable after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dnd_core.images import ImageSet
from dnd_core.networks import Network
from geoaudit.audit import Audit
from geoaudit.bench.shortcuts.audits import SharedBackends, audit_case, read_findings, run_score
from geoaudit.bench.shortcuts.cases import Case, Half, plan
from geoaudit.bench.shortcuts.chips import BenchChips
from geoaudit.bench.shortcuts.comparators import COMPARATORS, Material
from geoaudit.bench.shortcuts.models import CASES_A_BASE, make_base, make_model
from geoaudit.bench.shortcuts.plants import FAMILIES
from geoaudit.bench.shortcuts.validity import measure, repair
from geoaudit.checks.base import AuditContext, choose_evaluated
from geoaudit.findings import judge

__all__ = ["run_bench", "run_case"]

Progress = Callable[[str, int, int], None]
DEPTH = 20
"""How far down a list of findings or suspicions the plant is looked for."""


def run_bench(
    out: Path,
    seeds: int = 5,
    half: Half = "evaluation",
    quick: bool = False,
    progress: Progress | None = None,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Run, or go on with, all cases of a plan.

    Args:
        out: ``models/`` and ``cases/`` are written here; finished cases are read back, never done again.
        seeds: how many seeds of the half.
        half: see :func:`geoaudit.bench.shortcuts.cases.plan`.
        quick: the short plan.
        progress: called with (stage, done, total).
        jobs: cases at a time, each in a process of its own; their rows are the same whatever their number.

    Returns:
        One row a case, in the order of the plan.
    """
    cases = list(plan(seeds, half, quick))
    paths = [out / "cases" / f"{case.name}.json" for case in cases]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    told = progress or (lambda stage, done, total: None)
    left = [(case, out) for case, path in zip(cases, paths, strict=True) if not path.is_file()]
    told("networks", len(cases) - len(left), len(cases))
    if jobs == 1 or len(left) < 2:
        with _one_thread():
            for number, (case, _) in enumerate(left, start=1):
                _finish(case, out)
                told("networks", len(cases) - len(left) + number, len(cases))
    else:
        _in_processes(left, jobs, lambda done: told("networks", len(cases) - len(left) + done, len(cases)))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _in_processes(left: Sequence[tuple[Case, Path]], jobs: int, told: Callable[[int], None]) -> None:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    # Forked torch hangs; a fresh process shares nothing with this one.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _alone) as pool:
        try:
            first = {case.seed % CASES_A_BASE: (case, out) for case, out in left}
            # Backbones before the networks that start from them, or two processes would train the same one.
            for waiting in [pool.submit(_base, *given) for given in first.values()]:
                waiting.result()
            for done, waiting in enumerate(as_completed([pool.submit(_finish, *given) for given in left]), start=1):
                waiting.result()
                told(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone() -> None:
    import torch

    torch.set_num_threads(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread a network, as in a process of its own: the order in which threads add would change the last digits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _materials() -> tuple[BenchChips, SharedBackends]:
    """The chips and backends of a process, made once."""
    return BenchChips(), SharedBackends.make()


def _base(case: Case, out: Path) -> None:
    make_base(case.seed, _materials()[0], out / "models")


def _finish(case: Case, out: Path) -> None:
    """Run a case and write its row aside, then rename it."""
    row = run_case(case, *_materials(), out)
    path = out / "cases" / f"{case.name}.json"
    aside = path.with_suffix(".writing")
    aside.write_text(json.dumps(row, sort_keys=True) + "\n", encoding="utf-8")
    aside.replace(path)


def run_case(case: Case, chips: BenchChips, shared: SharedBackends, out: Path) -> dict[str, Any]:
    """Everything the bench wants to know of one network."""
    network = make_model(case, chips, out / "models")
    validity = measure(network, case, chips)
    imagery = chips.imagery(case)
    run = out / "runs" / case.name
    # A run that a kill left half done is made anew: the case as a whole is what resumes.
    shutil.rmtree(run, ignore_errors=True)
    done, images, planted = audit_case(network, imagery, chips, shared, case.seed, run)
    findings = done.document["findings"]
    family = FAMILIES.get(case.family)
    reading = read_findings(findings, family, case.target, planted)
    row: dict[str, Any] = {
        **asdict(case),
        "name": case.name,
        **{f"valid_{key}": value for key, value in asdict(validity).items()},
        "learned": validity.learned,
        "quiet": validity.quiet,
        **asdict(reading),
        "findings": [
            [f["severity"], f["rule"], f["concept"], f["class_pair"][0], f["effect"]["value"]] for f in findings[:8]
        ],
        "evidence": [_holding(f) for f in findings[:8]],
    }
    material = _material(done, images, network, case)
    for name, method in COMPARATORS.items():
        suspicions = method(material)[:DEPTH]
        named = [place for place, s in enumerate(suspicions, start=1) if family is not None and family.named(s.words)]
        row[f"{name} score"] = suspicions[0].score if suspicions else 0.0
        row[f"{name} rank"] = named[0] if named else 0
    if case.pool == "planted" and validity.learned:
        units = _units_of(findings, case)
        mended = repair(network, case, chips, done.run.activations("layer3"), units, "layer3")
        row["repair"] = None if mended is None else asdict(mended)
        row["shuffled"] = _shuffled_score(done, images, network, case, shared)
    shutil.rmtree(run, ignore_errors=True)
    return row


def _holding(finding: Mapping[str, Any]) -> list[list[Any]]:
    return [[e["grade"], e["value"], e["holds"]] for e in finding["evidence"]]


def _units_of(findings: Sequence[Mapping[str, Any]], case: Case) -> list[int]:
    """Units of the last described layer in the first finding that names the family."""
    for finding in findings:
        if FAMILIES[case.family].named(str(finding["concept"]), str(finding["rule"])):
            units = [str(unit).rpartition("/") for unit in finding["units"]]
            return sorted(int(index) for layer, _, index in units if layer == "layer3")
    return []


def _captions(done: Audit, count: int) -> list[str]:
    table = pd.read_parquet(done.root / "captions.parquet")
    whole = table[table["left"] == -1]
    said = dict(zip(whole["image"].tolist(), whole["caption"].tolist(), strict=True))
    return [str(said.get(index, "")) for index in range(count)]


def _material(done: Audit, images: ImageSet, network: Network, case: Case) -> Material:
    run = done.run
    return Material(
        network=network,
        images=images,
        layers=run.layers,
        captions=_captions(done, len(images)),
        labels=np.asarray(images.labels),
        logits=np.load(done.root / "predictions" / "logits.npy"),
        features=np.asarray(run.activations("layer3")),
        neurons=run.neurons,
        class_names=network.class_names,
        seed=case.seed,
    )


def _shuffled_score(done: Audit, images: ImageSet, network: Network, case: Case, shared: SharedBackends) -> float:
    """The run score of the concept check alone once units have swapped their labels: words that mean nothing must accuse nobody."""
    from geoaudit.checks.concept_reliance import ConceptReliance

    run = done.run
    groups = pd.read_parquet(done.root / "groups.parquet")
    neurons, groups = _swap(run.neurons, groups, np.random.default_rng([case.seed, 41]))
    logits = np.load(done.root / "predictions" / "logits.npy")
    context = AuditContext(
        network=network,
        images=images,
        layers=run.layers,
        neurons=neurons,
        groups=groups,
        activations={info.name: run.activations(info.name) for info in run.layers},
        logits=logits,
        encoder=shared.encoder,
        definitions={},
        evaluated=choose_evaluated(np.asarray(images.labels), 240, case.seed),
        captions=_captions(done, len(images)),
        held_out=run.held_out,
        seed=case.seed,
        draws=300,
        batch_size=128,
    )
    found = judge(ConceptReliance().run(context).hypotheses)
    return run_score([finding.to_dict(place) for place, finding in enumerate(found, start=1)])


def _swap(neurons: pd.DataFrame, groups: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give each unit of a layer the label and group of another unit of that layer."""
    swapped = neurons.copy()
    names: dict[str, str] = {}
    said = [column for column in neurons.columns if column not in ("layer", "unit")]
    for layer in neurons["layer"].unique():
        rows: NDArray[np.int64] = np.flatnonzero((neurons["layer"] == layer).to_numpy())
        order = rng.permutation(rows)
        swapped.iloc[rows, [swapped.columns.get_loc(c) for c in said]] = neurons.iloc[order][said].to_numpy()
        units = neurons["unit"].to_numpy()
        names |= {f"{layer}/{units[old]}": f"{layer}/{units[new]}" for new, old in zip(rows, order, strict=True)}
    moved = groups.copy()
    moved["units"] = [json.dumps([names.get(str(u), str(u)) for u in json.loads(text)]) for text in groups["units"]]
    return swapped, moved
