"""Study B: do units with implausible labels matter? (paper section 5, a ResNet-50 on EuroSAT).

Every unit of a classifier's last stages is described; what the labels talk about is counted; units are chosen by words in
their labels and pruned in the weights; and the accuracy that is left, overall and class by class, is compared with the
whole network's and with that after pruning as many units of equal strength drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from dnd_core.ablation import Ablation, matched_random_sets, unit_statistics
from dnd_core.captioning import Progress
from dnd_core.changes import accuracy_change, accuracy_gap
from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, NetworkError
from dnd_core.pipeline import Run, describe_into
from dnd_core.store import RunStore, Stage
from geoaudit.definitions import stated
from geoaudit.studies.classifiers import Classifier
from geoaudit.studies.predicting import predict, preprocessed
from geoaudit.studies.pruning import check_pruned, last_block, prune
from geoaudit.studies.reporting import write_eurosat
from geoaudit.studies.words import judge_label, parse_words, select, word_counts
from geoaudit.studies.writing import to_json

__all__ = ["PAPER_WORDS", "Options", "Pruned", "run_eurosat"]

VERSION = 2
PAPER_WORDS = "fish; purple, pink"
COMMONEST = 3
PROVEN_ON = 16
# A batch norm's arithmetic may round a bit differently beside pruned channels; more than this is a change.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Options:
    """What the study does beyond describing.

    Attributes:
        layers: residual stages whose units are described and pruned.
        words: sets of words that select units, ``fish; purple, pink``; empty takes the paper's two and each of the
            labels' three commonest words.
        draws: random prunings beside each selection.
        keep_weights: write the pruned weights of every selection.
    """

    layers: tuple[str, ...] = ("layer4",)
    words: str = ""
    draws: int = 50
    keep_weights: bool = False

    def __post_init__(self) -> None:
        if self.draws < 10:
            raise ConfigError(f"an interval of random prunings needs at least 10 draws, got {self.draws}")
        if not self.layers:
            raise ConfigError("name at least one residual stage to describe, such as layer4")
        if self.words:
            parse_words(self.words)


@dataclass(frozen=True, eq=False)
class Pruned:
    """One selection of units, pruned.

    Attributes:
        words: what selected them.
        units: layer -> units; empty where no label says the words.
        answers: (N,) classes answered after pruning in weights.
        random: (draws, N) classes answered with matched random units held at 0; no row where none can be drawn.
        proof: largest answer of a pruned unit, largest change of another unit of its stage, largest difference to
            holding the units at 0 while the network runs (relative to the largest answer).
    """

    words: tuple[str, ...]
    units: Mapping[str, tuple[int, ...]]
    answers: NDArray[np.int64]
    random: NDArray[np.int64]
    proof: tuple[float, float, float]

    @property
    def count(self) -> int:
        """How many units were pruned."""
        return sum(map(len, self.units.values()))


def run_eurosat(
    classifier: Classifier,
    out: Path,
    settings: DescribeConfig,
    options: Options,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Describe, count, prune and measure; everything is written into ``out``.

    Args:
        classifier: network and images.
        out: run folder; besides the description it gets ``study.md``, ``study.json``, CSV tables and PNG pictures.
        settings: of the description; with verification off every label counts, as in the paper.
        options: of the study.
        resume: go on with what is there.
        progress: called with (stage, done, total).

    Returns:
        What ``study.json`` holds.

    Raises:
        DndError: a layer is no residual stage, or anything the description refuses.
    """
    subject = replace(classifier.subject, layers=options.layers)
    for layer in options.layers:
        last_block(subject.network.module, layer)
    with RunStore(out, resume=resume, header={"tool": {"name": "geoaudit study eurosat", "version": VERSION}}) as store:
        run = describe_into(
            store,
            subject.network,
            subject.probe,
            subject.layers,
            classifier.backends,
            settings,
            held_out=subject.held_out if settings.verification.enabled else None,
            progress=progress,
        )
        described = store.manifest["stages"]["verification"]["key"]
        stage = store.stage("study", ["eurosat", VERSION, described, classifier.judged.fingerprint, asdict(options)])
        if not stage.done:
            _study(stage, classifier, run, options, settings.seed, progress)
            stage.commit()
    found: dict[str, Any] = json.loads((out / "study.json").read_text(encoding="utf-8"))
    return found


def _study(
    stage: Stage, classifier: Classifier, run: Run, options: Options, seed: int, progress: Progress | None
) -> None:
    names = classifier.judged.class_names
    labels = label_table(run.neurons, names)
    sets = parse_words(options.words) if options.words else default_words(labels)
    network = classifier.subject.network
    whole = predict(network, classifier.judged).argmax(axis=1)
    pruned = []
    for number, words in enumerate(sets):
        if progress is not None:
            progress("pruning", number, len(sets))
        pruned.append(_prune(stage, classifier, run, labels, words, options, seed))
    if progress is not None:
        progress("pruning", len(sets), len(sets))
    truth = np.asarray(classifier.judged.labels)
    rows = [row for one in pruned for row in figures(one, whole, truth, names, classifier.blocks, seed)]
    summary = {
        "study": "eurosat",
        "network": classifier.name,
        "layers": list(options.layers),
        "images": len(truth),
        "where": classifier.where,
        "described_on": len(classifier.subject.probe),
        "right": int((whole == truth).sum()),
        "accuracy": float((whole == truth).mean()),
        "notes": list(classifier.notes),
        "draws": options.draws,
        "proof": {
            "pruned_units": max((one.proof[0] for one in pruned), default=0.0),
            "other_units": max((one.proof[1] for one in pruned), default=0.0),
            "against_hooks": max((one.proof[2] for one in pruned), default=0.0),
        },
    }
    summary = write_eurosat(stage, summary, labels, rows)
    text = json.dumps(to_json(summary), indent=1, sort_keys=True, ensure_ascii=False)
    stage.path("study.json").write_text(text + "\n", encoding="utf-8")


def label_table(neurons: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """One row a unit: ``layer, unit, status, label`` (all published meanings), ``stated`` (without what they deny: "bare
    fields" of "bare fields without haze"), ``kind`` (see ``words.KINDS``) and ``guess`` (the best candidate of units whose
    label was not published).
    """
    rows = []
    for record in neurons.itertuples(index=False):
        published = record.status == "labelled"
        labels = [str(label) for label in record.labels] if published else []
        # A unit that fires where there is no haze must not be chosen by the word haze.
        says = "; ".join(filter(None, map(stated, labels)))
        row = {"layer": record.layer, "unit": int(record.unit), "status": record.status, "label": "; ".join(labels)}
        row |= {"stated": says, "kind": judge_label(says, class_names), "guess": "" if published else str(record.label)}
        rows.append(row)
    return pd.DataFrame(rows)


def default_words(labels: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """The paper's two sets and the commonest words that leave units enough for random draws; words that select the very
    same units are one set.
    """
    said = labels["stated"].tolist()
    found: dict[tuple[int, ...], tuple[str, ...]] = {}
    for word, _ in word_counts(said):
        chosen = tuple(select(said, (word,)))
        if chosen in found or (len(found) < COMMONEST and _leaves_half(labels, chosen)):
            found[chosen] = (*found.get(chosen, ()), word)
    return (*parse_words(PAPER_WORDS), *found.values())


def _leaves_half(labels: pd.DataFrame, chosen: Sequence[int]) -> bool:
    mine = labels["layer"].iloc[list(chosen)].value_counts()
    return all(2 * count <= int((labels["layer"] == layer).sum()) for layer, count in mine.items())


def _prune(
    stage: Stage,
    classifier: Classifier,
    run: Run,
    labels: pd.DataFrame,
    words: tuple[str, ...],
    options: Options,
    seed: int,
) -> Pruned:
    network, judged = classifier.subject.network, classifier.judged
    chosen = labels.iloc[select(labels["stated"].tolist(), words)]
    units = {
        str(layer): tuple(int(unit) for unit in part["unit"]) for layer, part in chosen.groupby("layer", sort=False)
    }
    if not units:
        empty = np.zeros((0, len(judged)), dtype=np.int64)
        return Pruned(words, {}, predict(network, judged).argmax(axis=1), empty, (0.0, 0.0, 0.0))
    module, left, moved = network.module, 0.0, 0.0
    rows = np.unique(np.linspace(0, len(judged) - 1, min(PROVEN_ON, len(judged))).astype(int))
    inputs = preprocessed(network, judged, rows)
    for layer, its in units.items():
        before: nn.Module = module
        module = prune(before, layer, its)
        found = check_pruned(before, module, layer, its, inputs)
        left, moved = max(left, found[0]), max(moved, found[1])
    if left > 0 or moved > ROUNDING:
        raise NetworkError(
            f"{network.name}: pruning units of {', '.join(units)} in weights left up to {left:.2g} of them and changed "
            f"others by up to {moved:.2g}, so the network's blocks are not built as its names say"
        )
    answers = predict(replace(network, module=module, fingerprint=""), judged)
    statistics = {layer: unit_statistics(run.activations(layer), run.explain) for layer in units}
    sets = _matched(units, {layer: its.norms for layer, its in statistics.items()}, options.draws, seed)
    infos = [info for info in run.layers if info.name in units]
    ablation = Ablation(network, infos, {layer: np.zeros(len(its.means)) for layer, its in statistics.items()})
    _, held = ablation.logits_with(judged, [units, *sets])
    apart = float(np.abs(held[0] - answers).max() / max(1e-9, float(np.abs(answers).max())))
    if options.keep_weights:
        from safetensors.torch import save_file

        state = {name: value.contiguous() for name, value in module.state_dict().items()}
        save_file(state, str(stage.path(f"pruned-{'-'.join(words)}.safetensors")))
    return Pruned(words, units, answers.argmax(axis=1), held[1:].argmax(axis=2), (left, moved, apart))


def _matched(
    units: Mapping[str, Sequence[int]], norms: Mapping[str, NDArray[np.float64]], draws: int, seed: int
) -> list[dict[str, list[int]]]:
    # Beyond half of a layer the other units cannot make up a set of the same size, let alone of the same strength.
    if any(2 * len(its) > len(norms[layer]) for layer, its in units.items()):
        return []
    return matched_random_sets(units, norms, draws, seed=seed)


def figures(
    one: Pruned,
    whole: NDArray[np.int64],
    truth: NDArray[np.int64],
    names: Sequence[str],
    blocks: NDArray[np.int64] | None,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of ``pruning.csv``: accuracy over all images and of each class, whole, pruned and randomly pruned.

    ``change`` is pruned less whole with its interval over images (whole blocks resampled); ``random_low`` and
    ``random_high`` hold 95 % of the random prunings; ``gap`` is the change beyond the random mean; ``p`` is the share of random
    prunings that cost at least as much.
    """
    change = accuracy_change(whole, one.answers, truth, len(names), blocks=blocks, seed=seed)
    rows = []
    for number, (name, found) in enumerate(zip(("all", *names), (change.overall, *change.classes), strict=True)):
        mine = np.ones(len(truth), dtype=bool) if number == 0 else truth == number - 1
        row: dict[str, Any] = {"words": ", ".join(one.words), "units": one.count, "class": name, **asdict(found)}
        row |= {
            "right_before": int((whole == truth)[mine].sum()),
            "right_after": int((one.answers == truth)[mine].sum()),
        }
        row |= dict.fromkeys(("random", "random_low", "random_high", "gap", "gap_low", "gap_high", "p"), float("nan"))
        if len(one.random) and mine.any():
            shares = (one.random == truth)[:, mine].mean(axis=1)
            low, high = np.quantile(shares, [0.025, 0.975])
            klass = None if number == 0 else number - 1
            gap = accuracy_gap(whole, one.answers, one.random, truth, klass, blocks=blocks, seed=seed)
            row |= {"random": float(shares.mean()), "random_low": float(low), "random_high": float(high)}
            row |= dict(zip(("gap", "gap_low", "gap_high"), gap, strict=True))
            row["p"] = float((1 + (shares <= found.after + 1e-12).sum()) / (1 + len(shares)))
        rows.append(row)
    return rows
