"""What is new, gone or changed between two runs: findings by fingerprint, labels by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoaudit.report.text import figure, plain
from geoaudit.report.wording import say
from geoaudit.results import Results, open_run

__all__ = ["Difference", "FindingChange", "LabelChange", "diff_runs"]

# A change of the main effect smaller than this is noise of the figures' rounding.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class FindingChange:
    """A finding that stands in both runs, but not alike.

    Attributes:
        fingerprint: of the finding.
        title: as the second run says it.
        changes: field -> (before, after) for ``severity``, ``status``, ``evidence_grade`` and ``effect``.

    """

    fingerprint: str
    title: str
    changes: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A unit whose status or label differs; None where a run has no such unit."""

    unit: str
    before: tuple[str, str] | None
    after: tuple[str, str] | None


@dataclass(frozen=True)
class Difference:
    """Two runs compared.

    Attributes:
        same_model, same_probe: whether the fingerprints agree; None where a run does not say.
        new, gone: findings of the second and of the first run alone.
        changed: findings of both that differ.
        unchanged: how many are alike.
        labels: units whose status or label differs.
        problems: what is wrong with either run.

    """

    same_model: bool | None
    same_probe: bool | None
    new: tuple[Mapping[str, Any], ...]
    gone: tuple[Mapping[str, Any], ...]
    changed: tuple[FindingChange, ...]
    unchanged: int
    labels: tuple[LabelChange, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "same_model": self.same_model, "same_probe": self.same_probe, "new": [dict(f) for f in self.new],
            "gone": [dict(f) for f in self.gone], "unchanged": self.unchanged, "problems": list(self.problems),
            "changed": [
                {"fingerprint": c.fingerprint, "title": c.title, "changes": {k: list(v) for k, v in c.changes.items()}}
                for c in self.changed
            ],
            "labels": [
                {"unit": c.unit, "before": c.before and list(c.before), "after": c.after and list(c.after)} for c in self.labels
            ],
        }  # fmt: skip

    def to_text(self) -> str:
        """A few plain lines for a terminal."""
        said = []
        for same, what in ((self.same_model, "model"), (self.same_probe, "probe")):
            said.append(say(f"diff.{what}." + {True: "same", False: "other", None: "unknown"}[same]))
        rows = [", ".join(said)]
        rows += [f"! {plain(problem)}" for problem in self.problems]
        rows += [f"+ {f['severity']}: {plain(f['title'])}" for f in self.new]
        rows += [f"- {f['severity']}: {plain(f['title'])}" for f in self.gone]
        for change in self.changed:
            parts = "; ".join(f"{name} {_said(a)} -> {_said(b)}" for name, (a, b) in change.changes.items())
            rows.append(f"~ {plain(change.title)} ({parts})")
        rows.append(say("diff.rest", findings=self.unchanged, units=len(self.labels)))
        for label in self.labels:
            before, after = (
                plain(": ".join(side)) if side else say("diff.absent") for side in (label.before, label.after)
            )
            rows.append(f"  {plain(label.unit, 80)}: {before} -> {after}")
        return "\n".join(rows)


def _said(value: Any) -> str:
    return figure(value, 3) if isinstance(value, float) else plain(value, 60)


def diff_runs(a: Path | str, b: Path | str) -> Difference:
    """Compare run ``b`` with the earlier run ``a``: the same model on new data, or a retrained model.

    Raises:
        StoreError: one of them is no folder.

    """
    first, second = open_run(a), open_run(b)
    before = {finding["fingerprint"]: finding for finding in first.findings}
    after = {finding["fingerprint"]: finding for finding in second.findings}
    both = [fingerprint for fingerprint in after if fingerprint in before]
    changed = [change for change in (_changed(before[f], after[f]) for f in both) if change is not None]
    return Difference(
        same_model=_same(first, second, "model"),
        same_probe=_same(first, second, "probe"),
        new=tuple(finding for fingerprint, finding in after.items() if fingerprint not in before),
        gone=tuple(finding for fingerprint, finding in before.items() if fingerprint not in after),
        changed=tuple(changed),
        unchanged=len(both) - len(changed),
        labels=tuple(_labels(first, second)),
        problems=tuple(
            f"{plain(run.root, 120)}: {problem.sentence}" for run in (first, second) for problem in run.problems
        ),
    )


def _same(first: Results, second: Results, key: str) -> bool | None:
    prints = []
    for run in (first, second):
        holder = run.manifest.get(key)
        prints.append(holder.get("fingerprint") if isinstance(holder, Mapping) else None)
    return None if None in prints else prints[0] == prints[1]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> FindingChange | None:
    changes = {
        name: (old.get(name), new.get(name))
        for name in ("severity", "status", "evidence_grade")
        if old.get(name) != new.get(name)
    }
    effects = [(finding.get("effect") or {}).get("value") for finding in (old, new)]
    numbers = [value for value in effects if isinstance(value, (int, float))]
    if len(numbers) == 1 or (len(numbers) == 2 and abs(numbers[0] - numbers[1]) > _TOLERANCE):
        changes["effect"] = (effects[0], effects[1])
    return FindingChange(str(new["fingerprint"]), str(new["title"]), changes) if changes else None


def _labels(first: Results, second: Results) -> list[LabelChange]:
    sides = []
    for run in (first, second):
        frame = run.neurons
        keys = [f"{layer}/{unit}" for layer, unit in zip(frame["layer"], frame["unit"], strict=True)]
        said = zip(frame["status"].fillna("").astype(str), frame["label"].fillna("").astype(str), strict=True)
        sides.append(dict(zip(keys, said, strict=True)))
    before, after = sides
    units = dict.fromkeys([*before, *after])
    return [LabelChange(u, before.get(u), after.get(u)) for u in units if before.get(u) != after.get(u)]
