"""Labels of the bundled classifiers: hidden units by simulation on held-out tiles, output units against their classes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.benching import CachedCaptioner, LabelScores, SanityResult, sanity_tests, score_labels
from dnd_core.errors import ConfigError
from dnd_core.images import ImageSet, Subset
from dnd_core.types import UnitId
from geoaudit.bench.labels_limits import firing_statements, limits, phrase_extents, plain_measures, told
from geoaudit.bench.labels_methods import DND, OURS, Case, Labels
from geoaudit.bench.labels_shown import most_possible, rate_of_best, rates_of_exaggerated, rates_of_shown, show
from geoaudit.bench.labels_tiles import INDEX_MASKS, index_masks, parts
from geoaudit.definitions import definition_of, stated

if TYPE_CHECKING:
    from dnd_core.backends.sentences import SentenceEncoder

__all__ = ["HIDDEN", "Fit", "OutputMatch", "bundled_case", "fit_of", "match_outputs", "read_labels"]

HIDDEN = ("layer3", "layer4")
OUTPUT = "output"


@dataclass(frozen=True, eq=False)
class Fit:
    """How well every method's labels fit a network's hidden units on tiles that no method saw.

    Attributes:
        scores: method -> scores of the hidden units.
        examples: method -> (unit, label, r) of every hidden unit that has a label.
        ceiling: mean activation rate that the tiles each unit fires on most would reach: no choice of real tiles by any
            label can do better.
        sanity: the sanity tests of every measure on the output units, whose classes are known.
        outputs: method -> match of output labels with classes.
        limits: how well hidden units can be followed in the captions' phrases at all, with r alone.
        ungraded: method -> scores of hidden units, r alone, where presence asks whether a thing is there, not how much of
            it; of ours and DnD.
        galleries: key of :data:`geoaudit.bench.labels_shown.GALLERIES` -> method -> activation rate on these.
        ceilings: the same keys -> as ``ceiling``, where images are real.
        firing: ``tiles`` and ``windows`` -> mean activation rate of statements chosen for nothing but a high one.
    """

    scores: Mapping[str, LabelScores]
    examples: Mapping[str, tuple[tuple[str, str, float], ...]]
    ceiling: float
    sanity: tuple[SanityResult, ...]
    outputs: Mapping[str, OutputMatch]
    limits: Mapping[str, LabelScores]
    ungraded: Mapping[str, LabelScores]
    galleries: Mapping[str, Mapping[str, LabelScores]]
    ceilings: Mapping[str, float]
    firing: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OutputMatch:
    """Output labels against class names and definitions.

    Attributes:
        nearest: share of outputs whose label is nearer to their own class's definition than to any other's.
        cosine: mean cosine of label and class name in the text encoder's space; 0 for an output without a label.
        contained: share whose label holds the class's name.
        exact: share whose label is the class's name.
        labels: the labels, in the order of the classes.
    """

    nearest: float
    cosine: float
    contained: float
    exact: float
    labels: tuple[str, ...]


def bundled_case(model: str, seed: int, hidden: Sequence[str] = HIDDEN) -> Case:
    """A bundled classifier on the imagery its makers have, with a quarter of the tiles kept from every method.

    Args:
        model: ``clean`` or ``haze``.
        seed: decides the split and every draw.
        hidden: hidden layers whose units are labelled; the output always is.
    """
    from geoaudit import bundled
    from geoaudit.networks import load_network
    from geoaudit.probes import Artefact, PaintedProbe, SceneProbe

    chosen = bundled.checkpoints()[model]
    card = chosen.load_card()
    network = load_network(chosen.checkpoint, card)
    probe = SceneProbe(
        bundled.scenes()["brandenburg"],
        bundled.labels(),
        field="fclass",
        classes=list(card.class_names),
        chips=bundled.chip_table().chips,
    )
    images: Any = probe
    if model == "haze":
        recipe = bundled.planted_probe_recipe()
        images = PaintedProbe(
            probe,
            {
                int(chip): Artefact("haze", float(strength), int(number))
                for chip, strength, number in zip(recipe.ids, recipe.strengths, recipe.seeds, strict=True)
            },
        )
    split = parts(images, seed)
    cover = np.stack([np.asarray(probe.mask(int(index))) for index in split.probed])
    land = np.stack([cover == number for number in range(len(card.class_names))], axis=1)
    indices = index_masks(images.pixels(split.probed.tolist()), images.channels)
    mapped = np.repeat((cover >= 0)[:, None], land.shape[1], axis=1)
    return Case(
        name=f"{model}-{seed}",
        network=network,
        layers=(*hidden, OUTPUT),
        probe=split.probe,
        held_out=split.held_out,
        pool=split.pool,
        evaluation=split.evaluation,
        masks=np.concatenate([land, indices], axis=1),
        known=np.concatenate([mapped, np.ones_like(indices)], axis=1),
        mask_names=(*card.class_names, *INDEX_MASKS),
        seed=seed,
        wider=Subset(images, np.setdiff1d(np.arange(len(images)), split.probed).tolist()),
    )


def read_labels(
    path: Path, model: str, cases: Mapping[str, int], others: Sequence[str]
) -> dict[UnitId, tuple[str, ...]]:
    """A user's labels of one of the classifiers.

    Args:
        path: CSV with the columns ``layer``, ``unit`` and ``label``, and ``model`` where it is not ``clean``; several labels
            of a unit stand in one cell with semicolons between.
        model: whose labels are wanted.
        cases: layer -> number of its units.
        others: the other classifiers a row may name.

    Raises:
        ConfigError: the file cannot be read, lacks a column, or names a unit that is not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            lacking = [name for name in ("layer", "unit", "label") if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV ({error}): give a file with layer, unit, label") from error
    if lacking:
        raise ConfigError(f"{path} has no column {', '.join(lacking)}: its first line must name layer, unit and label")
    found: dict[UnitId, tuple[str, ...]] = {}
    for number, row in enumerate(rows, start=2):
        whose = (row.get("model") or "clean").strip()
        if whose not in (model, *others):
            raise ConfigError(f"{path}, line {number}: model {whose!r} is none of {', '.join((model, *others))}")
        layer, unit = (row["layer"] or "").strip(), (row["unit"] or "").strip()
        if layer not in cases:
            raise ConfigError(
                f"{path}, line {number}: layer {layer!r} is not in the bench, which has {', '.join(cases)}"
            )
        if not unit.isdecimal() or int(unit) >= cases[layer]:
            raise ConfigError(f"{path}, line {number}: unit {unit!r} is not one of the {cases[layer]} units of {layer}")
        if whose == model:
            labels = tuple(part.strip() for part in (row["label"] or "").split(";") if part.strip())
            found[UnitId(layer, int(unit))] = labels
    return found


def fit_of(case: Case, labels: Labels, captioner: CachedCaptioner, encoder: SentenceEncoder, *, draws: int) -> Fit:
    """Score every method's labels on the evaluation's tiles.

    Args:
        case: network and tiles.
        labels: what the methods say.
        captioner: says what is on the evaluation's tiles.
        encoder: compares labels with what it says.
        draws: bootstrap draws.
    """
    from dnd_core.presence import CaptionIndex
    from dnd_core.probing import activate

    tiles = case.evaluation
    captions = _captions(tiles, range(len(tiles)), captioner)
    fired = activate(case.network, labels.run.layers, tiles.pixels(range(len(tiles))))
    hidden = [place for place, unit in enumerate(labels.units) if unit.layer != OUTPUT]
    columns = [labels.units[place] for place in hidden]
    activations = np.stack([fired[unit.layer][:, unit.index] for unit in columns], axis=1)
    bars = {info.name: np.percentile(labels.run.activations(info.name), 99, axis=0) for info in labels.run.layers}
    thresholds = np.array([bars[unit.layer][unit.index] for unit in columns])
    distinct = sorted({label for said in labels.said.values() for some in said for label in some})
    row = {label: number for number, label in enumerate(distinct)}
    presence = CaptionIndex(captions, encoder, amounts=True).presence(distinct)
    whether = CaptionIndex(captions, encoder).presence(distinct)
    said_of = {method: [said[place] for place in hidden] for method, said in labels.said.items()}
    best = show(list(said_of.values()), captions, encoder)
    blocks = tiles.blocks
    scores, examples, ungraded = {}, {}, {}
    for method, mine in said_of.items():
        has = np.array([bool(some) for some in mine])
        there, plainly = np.zeros(activations.shape), np.zeros(activations.shape)
        shown: list[NDArray[np.float32]] = []
        for unit, some in enumerate(mine):
            if some:
                rows = [row[label] for label in some]
                there[:, unit], plainly[:, unit] = presence[rows].max(axis=0), whether[rows].max(axis=0)
            shown.append(activations[best[some], unit])
        scores[method] = score_labels(
            activations,
            there,
            has,
            shown=shown,
            thresholds=thresholds,
            blocks=blocks,
            draws=draws,
            seed=case.seed,
        )
        if method in (OURS, DND):
            found = score_labels(activations, plainly, has, blocks=blocks, draws=draws, seed=case.seed)
            ungraded[method] = found.only("r")
        examples[method] = tuple(
            (str(unit), "; ".join(some), float(r))
            for unit, some, r in zip(columns, mine, scores[method].units["r"], strict=True)
            if some
        )
    explaining = np.setdiff1d(np.arange(len(case.probe)), case.held_out)
    probed = {info.name: labels.run.activations(info.name)[explaining] for info in labels.run.layers}
    studied = np.stack([probed[unit.layer][:, unit.index] for unit in columns], axis=1)
    spoken, ground = _captions(case.probe, explaining.tolist(), captioner), case.probe.pixels(explaining.tolist())
    measures = plain_measures(ground, tiles.pixels(range(len(tiles))), case.probe.channels)
    reach = limits(
        studied, activations, (spoken, captions), encoder, measures, blocks=blocks, draws=draws, seed=case.seed
    )
    phrases = phrase_extents(spoken, captions, encoder)
    here, there_too = (np.concatenate(both, axis=1) for both in zip(phrases, measures, strict=True))
    firing = firing_statements(studied, thresholds, here)

    def fired_by_words(captions: Sequence[str], pixels: NDArray[np.float32], fired: NDArray[np.float32]) -> float:
        """Rate of the statements chosen for it on other images."""
        parts = phrase_extents(spoken, captions, encoder)[1], plain_measures(ground, pixels, case.probe.channels)[1]
        return rate_of_best(told(np.concatenate(parts, axis=1), firing), fired, thresholds)

    galleries, ceilings, on_windows = _galleries(
        case, labels, columns, said_of, thresholds, captioner, encoder, draws, fired_by_words
    )
    return Fit(
        scores,
        examples,
        most_possible(activations, thresholds),
        _sanity(case, fired, tiles),
        {method: match_outputs(case, labels, said, encoder) for method, said in labels.said.items()},
        reach,
        ungraded,
        galleries,
        ceilings,
        {"tiles": rate_of_best(told(there_too, firing), activations, thresholds), "windows": on_windows},
    )


def _galleries(
    case: Case,
    labels: Labels,
    columns: Sequence[UnitId],
    said: Mapping[str, Sequence[tuple[str, ...]]],
    thresholds: NDArray[np.floating],
    captioner: CachedCaptioner,
    encoder: SentenceEncoder,
    draws: int,
    rate: Callable[[Sequence[str], NDArray[np.float32], NDArray[np.float32]], float],
) -> tuple[dict[str, dict[str, LabelScores]], dict[str, float], float]:
    """Activation rates on other images than the evaluation's tiles, what is possible there, and ``rate`` on windows."""
    from dnd_core.probing import activate
    from dnd_core.windows import Windows

    def fire(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found = activate(case.network, labels.run.layers, pixels)
        return np.stack([found[unit.layer][:, unit.index] for unit in columns], axis=1)

    galleries, ceilings = {}, {}
    sources: dict[str, ImageSet] = {"wider": case.wider or case.evaluation, "windows": Windows(case.evaluation)}
    for key, images in sources.items():
        captions = _captions(images, range(len(images)), captioner)
        pixels = images.pixels(range(len(images)))
        fired = fire(pixels)
        chosen = show(list(said.values()), captions, encoder)
        galleries[key] = rates_of_shown(said, fired, thresholds, chosen, draws=draws, seed=case.seed)
        ceilings[key] = most_possible(fired, thresholds)
    # Windows come last: what is exaggerated are the windows chosen there.
    usual = pixels[: len(case.evaluation)]
    galleries["exaggerated"] = rates_of_exaggerated(
        said, pixels, thresholds, chosen, usual, fire, draws=draws, seed=case.seed
    )
    return galleries, ceilings, rate(captions, pixels, fired)


def _captions(tiles: ImageSet, rows: Sequence[int], captioner: CachedCaptioner) -> list[str]:
    made: list[str] = []
    for first in range(0, len(rows), 64):
        made += captioner.caption([tiles[row] for row in rows[first : first + 64]])
    return made


def _sanity(case: Case, fired: Mapping[str, NDArray[np.float32]], tiles: Any) -> tuple[SanityResult, ...]:
    names = case.network.class_names
    truth = np.stack([tiles.labels == number for number in range(len(names))], axis=1)
    return tuple(sanity_tests(fired[OUTPUT], truth, seed=case.seed))


def match_outputs(case: Case, labels: Labels, said: Sequence[tuple[str, ...]], encoder: SentenceEncoder) -> OutputMatch:
    """A method's output labels against the classes.

    Args:
        case: whose network's classes are meant.
        labels: gives the units.
        said: the method's labels.
        encoder: compares them. What a label denies ("bare fields without haze") is left out of the comparison, since a
            sentence encoder reads "without haze" as being about haze.
    """
    classes = list(case.network.class_names)
    mine = {unit.index: some for unit, some in zip(labels.units, said, strict=True) if unit.layer == OUTPUT}
    told = ["; ".join(mine.get(number, ())) for number in range(len(classes))]
    plain = ["; ".join(filter(None, map(stated, mine.get(number, ())))) for number in range(len(classes))]
    meanings = encoder.encode_texts([f"{name}: {definition_of(name)}" for name in classes])
    names = encoder.encode_texts(classes)
    words = encoder.encode_texts([text or "nothing" for text in plain])
    has = np.array([bool(text) for text in told])
    likeness = words @ meanings.T
    own = np.arange(len(classes))
    return OutputMatch(
        nearest=float((has & (likeness.argmax(axis=1) == own)).mean()),
        cosine=float((has * (words * names).sum(axis=1)).mean()),
        contained=float(np.mean([name in text.lower() for name, text in zip(classes, plain, strict=True)])),
        exact=float(np.mean([name == text.lower() for name, text in zip(classes, plain, strict=True)])),
        labels=tuple(told),
    )
