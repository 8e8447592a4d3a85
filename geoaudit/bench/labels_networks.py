"""Labels of the bundled classifiers: hidden units by simulation on held-out tiles, output units against their classes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnd_core.benching import CachedCaptioner, LabelScores, SanityResult, sanity_tests
from dnd_core.errors import ConfigError
from dnd_core.images import Subset
from dnd_core.types import UnitId
from geoaudit.bench.labels_hidden import OUTPUT, HiddenUnits, Rates, Simulated
from geoaudit.bench.labels_methods import Case, Labels
from geoaudit.bench.labels_tiles import INDEX_MASKS, index_masks, parts
from geoaudit.definitions import definition_of, stated

if TYPE_CHECKING:
    from dnd_core.backends.sentences import SentenceEncoder

__all__ = ["HIDDEN", "Fit", "OutputMatch", "bundled_case", "fit_of", "match_outputs", "read_labels"]

HIDDEN = ("layer3", "layer4")


@dataclass(frozen=True, eq=False)
class Fit:
    """How well every method's labels fit a network on tiles that no method saw.

    Attributes:
        simulated: scores of the hidden units.
        rates: activation rates of the hidden units, by what labels are shown on.
        limits: how well hidden units can be followed in the captions' phrases at all, with r alone.
        sanity: the sanity tests of every measure on the output units, whose classes are known.
        outputs: method -> match of output labels with classes.
    """

    simulated: Simulated
    rates: Rates
    limits: Mapping[str, LabelScores]
    sanity: tuple[SanityResult, ...]
    outputs: Mapping[str, OutputMatch]


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
    hidden = HiddenUnits(case, labels, captioner, encoder, draws)
    outputs = {method: match_outputs(case, labels, said, encoder) for method, said in labels.said.items()}
    return Fit(hidden.simulate(), hidden.rates(), hidden.limits(), _sanity(case, labels), outputs)


def _sanity(case: Case, labels: Labels) -> tuple[SanityResult, ...]:
    """On the output units, whose classes are known on the evaluation's tiles."""
    from dnd_core.probing import activate

    tiles: Any = case.evaluation
    fired = activate(case.network, labels.run.layers, tiles.pixels(range(len(tiles))))[OUTPUT]
    truth = np.stack([tiles.labels == number for number in range(len(case.network.class_names))], axis=1)
    return tuple(sanity_tests(fired, truth, seed=case.seed))


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
