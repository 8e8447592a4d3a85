"""The command ``prune``: hold any units of a finished run at their means and measure what each class loses by it.

The same measure as an audit's own ablation of concept groups (method section 4, grade 3), for units that nobody asked about
while the audit ran: paired on the same images, whole blocks resampled, beside matched random units of the same layers. The
result stands in the run under a key made from what it depends on, so it is measured once and never mixed up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.errors import ConfigError, StoreError
from dnd_core.store import fingerprint, write_atomic
from dnd_core.types import UnitId

if TYPE_CHECKING:
    from geoaudit.checks.base import AuditContext

__all__ = ["ClassChange", "Pruning", "chosen_units", "prune"]

VERSION = 1
RANDOM_SETS = 20
FOLDER = "prunings"
OUTPUT = "output"

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ClassChange:
    """What one class loses; columns as in ``ablation.parquet``, NaN where a class has fewer than two images."""

    name: str
    n: int
    accuracy_before: float
    accuracy_after: float
    change: float
    low: float
    high: float
    random_mean: float
    random_low: float
    random_high: float
    gap: float
    gap_low: float
    gap_high: float
    p: float


@dataclass(frozen=True)
class Pruning:
    """A measured pruning.

    Attributes:
        key: of what it depends on.
        units: what was held at its mean, as ``layer/index``.
        groups: concept groups that were asked for by number; their units are among ``units``.
        random_sets: matched random sets beside it; 0 where the layers have too few other units.
        images: how many images it was measured on.
        overall: all classes together.
        classes: one a class.
    """

    key: str
    units: tuple[str, ...]
    groups: tuple[int, ...]
    random_sets: int
    images: int
    overall: ClassChange
    classes: tuple[ClassChange, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; figures to six digits, NaN as null."""
        values = asdict(self)
        values["overall"], values["classes"] = _plain(values["overall"]), [_plain(row) for row in values["classes"]]
        return {"schema_version": VERSION, **values, "units": list(self.units), "groups": list(self.groups)}

    def table(self) -> str:
        """The changes as text, one class a line."""
        rows = [("class", "n", "before", "after", "change", "random units", "beyond random")]
        for row in (self.overall, *self.classes):
            rows.append((
                row.name, str(row.n), f"{row.accuracy_before:.3f}", f"{row.accuracy_after:.3f}",
                f"{row.change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
                f"{row.random_mean:+.3f} [{row.random_low:+.3f}, {row.random_high:+.3f}]",
                f"{row.gap:+.3f} [{row.gap_low:+.3f}, {row.gap_high:+.3f}]",
            ))  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (round(value, 6) if np.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in row.items()
    }


def chosen_units(run_dir: Path, units: Sequence[str], groups: Sequence[int]) -> tuple[UnitId, ...]:
    """The units asked for by name and those of the groups, each once, sorted.

    Units of the output are left out of groups, as in an audit's ablation: without its logit a class is gone whatever the
    network looks at.

    Raises:
        ConfigError: none is asked for, one is of the output, or the run has no such unit or group.
    """
    from geoaudit.results import open_run

    results = open_run(run_dir)
    found: set[UnitId] = set()
    for name in units:
        try:
            found.add(results.unit(name).id)
        except StoreError as error:
            raise ConfigError(str(error)) from error
        if name.startswith(f"{OUTPUT}/"):
            raise ConfigError(f"{name} is a class of the output itself: name units of the layers before it")
    for group in groups:
        members = results.group_units(group)
        if not members:
            known = ", ".join(str(int(number)) for number in results.groups["group"][:12])
            raise ConfigError(f"{run_dir} has no concept group {group}; it has {known or 'none'}")
        found.update(unit for unit in members if unit.layer != OUTPUT)
    if not found:
        raise ConfigError("name what to prune: --units layer4/5,layer4/9, --groups 0,3, or both")
    return tuple(sorted(found))


def prune(
    run_dir: Path,
    units: Sequence[str] = (),
    groups: Sequence[int] = (),
    config: Path | None = None,
    report: Report | None = None,
) -> Pruning:
    """Measure a pruning and keep it in the run as ``prunings/KEY.json``; one that is there already is read.

    Args:
        run_dir: a finished audit.
        units: as ``layer/index``.
        groups: numbers of concept groups.
        config: the audit's YAML file; a run of the bundled demonstration does without.
        report: called with (stage, done, total).

    Raises:
        DndError: the run does not allow it, or a unit or group is unknown; the sentence says why.
    """
    from geoaudit.repairing import audit_context, audited_subject

    tell: Report = report or (lambda stage, done, total: None)
    chosen = chosen_units(run_dir, units, groups)
    manifest = _manifest(run_dir)
    key = fingerprint([
        "pruning", VERSION, RANDOM_SETS, [str(unit) for unit in chosen], manifest["model"]["fingerprint"],
        manifest["probe"]["fingerprint"], manifest["seed"],
    ])[:20]  # fmt: skip
    path = run_dir / FOLDER / f"{key}.json"
    if path.is_file():
        return _read(path)
    tell("open the network and its images", 0, 1)
    audited = audited_subject(run_dir, config)
    context = audit_context(run_dir, audited, report=tell)
    tell("open the network and its images", 1, 1)
    found = replace(_measured(context, chosen, tell), key=key, groups=tuple(sorted(set(groups))))
    write_atomic(path, json.dumps(found.to_dict(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return found


def _manifest(run_dir: Path) -> dict[str, Any]:
    try:
        found = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
        for part in ("model", "probe"):
            found[part]["fingerprint"]
        found["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{run_dir} has no manifest that can be read ({error}): give a finished audit") from error
    return dict(found)


def _read(path: Path) -> Pruning:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        nan = float("nan")

        def row(given: Mapping[str, Any]) -> ClassChange:
            figures: dict[str, Any] = {name: nan if value is None else value for name, value in given.items()}
            return ClassChange(**figures)

        return Pruning(
            values["key"], tuple(values["units"]), tuple(values["groups"]), values["random_sets"], values["images"],
            row(values["overall"]), tuple(row(entry) for entry in values["classes"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}): delete it to measure again") from error


def _measured(context: AuditContext, chosen: Sequence[UnitId], tell: Report) -> Pruning:
    from dnd_core.ablation import Ablation, matched_random_sets, unit_statistics

    wanted: dict[str, list[int]] = {}
    for unit in chosen:
        wanted.setdefault(unit.layer, []).append(unit.index)
    infos = [info for info in context.layers if info.name in wanted]
    statistics = {info.name: unit_statistics(context.activations[info.name]) for info in infos}
    norms = {name: found.norms for name, found in statistics.items()}
    random: list[dict[str, list[int]]] = []
    # Where more than half of a layer goes, random sets would be the rest of it and match nothing.
    if all(2 * len(indices) <= len(norms[name]) for name, indices in wanted.items()):
        random = matched_random_sets(wanted, norms, RANDOM_SETS, seed=context.seed)
    rows = context.evaluated
    ablation = Ablation(context.network, infos, {name: found.means for name, found in statistics.items()})
    tell("prune", 0, len(rows))
    plain, held = ablation.logits_with(
        context.images, [wanted, *random], indices=rows, batch_size=32,
        on_block=lambda done, total: tell("prune", done, total),
    )  # fmt: skip
    truth = context.reference[rows]
    right = (plain.argmax(axis=1) == truth).astype(np.float64)
    kept = (held.argmax(axis=2) == truth).astype(np.float64)
    every = _change(context, "all classes", np.ones(len(rows), dtype=bool), right, kept)
    classes = tuple(
        _change(context, name, truth == number, right, kept) for number, name in enumerate(context.class_names)
    )
    return Pruning("", tuple(map(str, chosen)), (), len(random), len(rows), every, classes)


def _change(
    context: AuditContext,
    name: str,
    mine: NDArray[np.bool_],
    right: NDArray[np.float64],
    kept: NDArray[np.float64],
) -> ClassChange:
    nan, n = float("nan"), int(mine.sum())
    if n < 2:
        return ClassChange(name, n, *(nan,) * 11, 1.0)
    blocks = context.blocks_of(context.evaluated[mine])
    before, after, others = right[mine], kept[0, mine], kept[1:, mine]
    change, low, high, p = _effect(context, after - before, blocks)
    if not len(others):
        return ClassChange(name, n, before.mean(), after.mean(), change, low, high, *(nan,) * 6, p)
    shares = others.mean(axis=1) - before.mean()
    random_low, random_high = np.quantile(shares, [0.025, 0.975])
    gap, gap_low, gap_high, p = _effect(context, after - others.mean(axis=0), blocks)
    return ClassChange(
        name, n, float(before.mean()), float(after.mean()), change, low, high, float(shares.mean()), float(random_low),
        float(random_high), gap, gap_low, gap_high, p,
    )  # fmt: skip


def _effect(
    context: AuditContext, values: NDArray[np.float64], blocks: NDArray[np.int64] | None
) -> tuple[float, float, float, float]:
    """Mean, 95 % block-bootstrap interval, and one-sided p of a loss."""
    from geoaudit.statistics import block_bootstrap, bootstrap_interval

    draws = block_bootstrap(values, blocks, n=context.draws, seed=context.seed)
    low, high = bootstrap_interval(draws, 0.95, len(values) if blocks is None else len(np.unique(blocks)))
    p = float((1 + (draws >= 0).sum()) / (1 + len(draws)))
    return float(values.mean()), float(low), float(high), p
