"""The command ``mitigate``: read a finished run, repair its network, write a checkpoint and a card beside it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, NetworkError, StoreError, StoreMismatch
from dnd_core.store import write_atomic
from geoaudit.heads import LinearHead
from geoaudit.mitigation import By, Mitigation, repair
from geoaudit.reauditing import audit_again
from geoaudit.settings import AuditSettings

if TYPE_CHECKING:
    from dnd_core.captioning import Progress
    from dnd_core.pipeline import Backends
    from geoaudit.audit import Subject
    from geoaudit.cards import ModelCard
    from geoaudit.checks.base import AuditContext

__all__ = ["Audited", "audit_context", "audited_subject", "mitigate", "write_checkpoint"]

# Images put through the written checkpoint to see that it answers as computed.
CHECKED = 64


def mitigate(
    run_dir: Path,
    finding: str,
    by: By,
    config: Path | None = None,
    out: Path | None = None,
    *,
    again: bool = True,
    report: Progress | None = None,
) -> Mitigation:
    """Repair the network of a run against one of its findings, and audit the repaired network anew.

    Args:
        run_dir: a finished audit.
        finding: id or fingerprint of the finding, as in ``audit.json``.
        by: ``prune`` or ``retrain-head``.
        config: the audit's YAML file; a run of the bundled demonstration does without.
        out: folder of the new checkpoint, card and ``mitigation.json``; below the run by default.
        again: whether to audit the repaired network as the run was, into the folder ``audit`` below ``out``.
        report: called with (stage, done, total).

    Raises:
        DndError: the run, the finding or the network does not allow it; the sentence says why and what does.
    """
    from geoaudit.cards import load_card, write_card
    from geoaudit.networks import load_network

    chosen = _finding(run_dir, finding)
    audited = audited_subject(run_dir, config)
    checkpoint = audited.checkpoint
    subject = audited.subject
    if audited.card is None:
        raise ConfigError(f"{config}: model.card is missing, and a repaired network needs one to be loaded again")
    card = load_card(audited.card)
    folder = out if out is not None else run_dir / "mitigation" / f"{chosen['id']}-{by}"
    target = folder / f"{checkpoint.stem}-{chosen['id']}-{by}{checkpoint.suffix}"
    for path in (target, target.with_suffix(".json")):
        if path.exists():
            raise ConfigError(f"{path} is there already and is not overwritten: choose another --out folder")
    # A repair is measured on every image that was held out, not on a sample.
    context = replace(audit_context(run_dir, audited, report), evaluated=np.arange(len(subject.probe)))
    done, made = repair(context, chosen, by)
    write_checkpoint(checkpoint, target, done.head)
    new_card = _card(card, target, made)
    write_card(new_card, target.with_suffix(".json"))
    _check(load_network(target, new_card, channels=subject.network.channels), context, done.head, done.layer)
    made = replace(made, written={"checkpoint": target.name, "card": target.with_suffix(".json").name})
    # Written before the audit, which takes longer: what was measured survives an interruption.
    _write(folder, made)
    if again:
        told = audit_again(
            run_dir, folder / "audit", chosen, subject, audited.backends, target, audited.options, report
        )
        made = replace(made, reaudit=told)
        _write(folder, made)
    return made


def _write(folder: Path, made: Mitigation) -> None:
    text = json.dumps(made.to_dict(), indent=1, sort_keys=True, ensure_ascii=False)
    write_atomic(folder / "mitigation.json", text + "\n")


def _finding(run_dir: Path, wanted: str) -> Mapping[str, Any]:
    path = run_dir / "audit.json"
    try:
        findings = json.loads(path.read_text(encoding="utf-8"))["findings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{run_dir} holds no audit.json that can be read: give the folder of a finished audit"
        ) from error
    for found in findings:
        if wanted in (found["id"], found["fingerprint"]):
            return dict(found)
    known = ", ".join(found["id"] for found in findings) or "none"
    raise ConfigError(f"{run_dir} has no finding {wanted!r}; it has {known}")


@dataclass(frozen=True, eq=False)
class Audited:
    """What a run audited, loaded again.

    Attributes:
        subject: network and images.
        backends: of the description.
        checkpoint: the network's file.
        card: its card, or None where the configuration names none.
        options: of the audit.
    """

    subject: Subject
    backends: Backends
    checkpoint: Path
    card: Path | None
    options: AuditSettings


def audited_subject(run_dir: Path, config: Path | None) -> Audited:
    """The audited network and probe again.

    Args:
        run_dir: a finished audit.
        config: its YAML file; a run of the bundled demonstration does without.

    Raises:
        ConfigError: the configuration is missing.
        StoreMismatch: it is not the run's.
    """
    from geoaudit.launch import prepare
    from geoaudit.settings import load_config

    manifest = _json(run_dir / "manifest.json")
    if config is not None:
        loaded = load_config(config)
        card = loaded.model.get("card")
        subject, backends = prepare(loaded)
        path = Path(card) if card is not None else None
        found = Audited(subject, backends, Path(loaded.model["checkpoint"]), path, loaded.audit)
    else:
        found = _bundled(run_dir, manifest)
    subject = found.subject
    for what, ours in (("model", subject.network.fingerprint), ("probe", subject.probe.fingerprint)):
        if manifest[what]["fingerprint"] != ours:
            way = "" if config is not None else ": give the audit's own configuration with --config"
            raise StoreMismatch(
                f"the {what} of {config or 'the demonstration'} is not the one that {run_dir} audited{way}"
            )
    return found


def _bundled(run_dir: Path, manifest: Mapping[str, Any]) -> Audited:
    from geoaudit import bundled
    from geoaudit.demo import demo_subject

    settings = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    settings.pop("layers", None)
    for name, model in bundled.checkpoints().items():
        if model.load_card().name == manifest["model"]["name"]:
            options = AuditSettings()
            subject, backends = demo_subject(name, DescribeConfig.from_dict(settings), options)
            return Audited(subject, backends, model.checkpoint, model.card, options)
    raise ConfigError(f"{run_dir} did not audit a bundled network: give the audit's configuration with --config")


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}): give the folder of a finished audit") from error


def audit_context(run_dir: Path, audited: Audited, report: Progress | None = None) -> AuditContext:
    """What measures after an audit ask of it, from the run's own arrays and tables.

    Args:
        run_dir: the finished audit.
        audited: see :func:`audited_subject`.
        report: called with (stage, done, total).

    Raises:
        StoreError: the run lacks its arrays.
    """
    from dnd_core.layers import resolve
    from geoaudit.contexts import read_context

    subject = audited.subject
    settings = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    settings.pop("layers", None)
    layers = tuple(resolve(subject.network, subject.layers))
    try:
        activations = {
            info.name: np.load(run_dir / "activations" / f"{info.name}.npy", mmap_mode="r") for info in layers
        }
        logits = np.load(run_dir / "predictions" / "logits.npy")
    except (OSError, ValueError) as error:
        raise StoreError(f"{run_dir} lacks activations or predictions ({error}): run the audit again") from error
    given = DescribeConfig.from_dict(settings)
    return read_context(run_dir, subject, layers, activations, logits, audited.backends, given, audited.options, report)


def write_checkpoint(source: Path, target: Path, head: LinearHead) -> None:
    """Copy a checkpoint with another head in it; everything else stays as it is.

    Args:
        source: a Lightning checkpoint, state dict or safetensors file; only read.
        target: the new file, of the same kind.
        head: the new weights.

    Raises:
        NetworkError: the file holds no such layer of that shape, or cannot be read.
    """
    import torch

    from dnd_core.checkpoints import read_checkpoint

    read_checkpoint(source)
    if source.suffix == ".safetensors":
        from safetensors.torch import load_file, save

        state = dict(load_file(source))
        _put(state, head, source)
        write_atomic(target, save(state))
        return
    content = torch.load(source, map_location="cpu", weights_only=True)
    state = next((content[n] for n in ("state_dict", "model_state_dict", "model") if n in content), content)
    _put(state, head, source)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(target, buffer.getvalue())


def _put(state: dict[str, Any], head: LinearHead, source: Path) -> None:
    import torch

    for part, values in (("weight", head.weight), ("bias", head.bias)):
        wanted = f"{head.name}.{part}"
        names = [name for name in state if name == wanted or name.endswith(f".{wanted}")]
        if len(names) != 1 or tuple(state[names[0]].shape) != values.shape:
            raise NetworkError(
                f"{source}: has no {wanted} of shape {values.shape} of its own to replace, so the repair cannot be written"
            )
        state[names[0]] = torch.from_numpy(values).to(state[names[0]].dtype)


def _card(card: ModelCard, target: Path, report: Mitigation) -> ModelCard:
    from geoaudit.cards import Measure

    note = f"held-out blocks of the audit, after the repair of {report.finding}"
    measures = tuple(
        Measure(
            line.name,
            line.after.value,
            line.n,
            min(line.after.low, line.after.value),
            max(line.after.high, line.after.value),
            note,
        )
        for line in report.lines
        if np.isfinite([line.after.value, line.after.low, line.after.high]).all()
    )
    return replace(
        card,
        name=f"{card.name}, {report.by} against {report.finding}",
        checkpoint=target.name,
        sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
        training=f"{card.training} Repaired after an audit: {report.words}.".strip(),
        measures=measures,
        issues=(*card.issues, f"Repaired against: {report.title}. Audit it again before use."),
    )


def _check(network: Any, context: AuditContext, head: LinearHead, layer: str) -> None:
    """The written file must answer as the repair was computed.

    Raises:
        NetworkError: it does not.
    """
    import torch

    rows = np.unique(np.linspace(0, len(context.images) - 1, min(CHECKED, len(context.images))).astype(int))
    answer = network(torch.from_numpy(np.ascontiguousarray(context.images.pixels(rows.tolist())))).numpy()
    expected = head(context.activations[layer][rows])
    if not np.allclose(answer, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max())):
        raise NetworkError(
            f"{network.name}: the written checkpoint does not answer as computed (off by up to "
            f"{float(np.abs(answer - expected).max()):.3g}); do not use it"
        )
