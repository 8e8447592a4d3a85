"""The commands ``geoaudit study ...``: thin, so that help and errors in options come before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dnd_core.errors import ConfigError
from geoaudit.marks import parts_of

if TYPE_CHECKING:
    from dnd_core.config import DescribeConfig

__all__ = ["eurosat", "tile2vec"]

# What --docs writes of which bundled study: command, marks, pictures, and how deep the headings go.
_DOCUMENTED: dict[tuple[str, bool], tuple[str, str, tuple[str, ...], int]] = {
    ("haze", False): ("geoaudit study eurosat", "study", ("words", "pruning"), 1),
    ("clean", True): ("geoaudit study eurosat --model clean --unverified", "clean", (), 2),
}


def eurosat(
    out: Path = Path("runs/study-eurosat"),
    root: Path | None = None,
    checkpoint: Path | None = None,
    card: Path | None = None,
    config: Path | None = None,
    model: Literal["haze", "clean"] = "haze",
    layers: str = "",
    words: str = "",
    draws: int = 50,
    unverified: bool = False,
    keep_weights: bool = False,
    seed: int = 0,
    resume: bool = False,
    docs: Path | None = None,
    quiet: bool = False,
) -> None:
    """Prune a classifier's units by words in their labels and measure what accuracy is left (paper section 5).

    Without root and checkpoint, or config, the classifier that ships with the project is studied. The last line printed is
    one JSON object of the figures.

    Args:
        out: run folder to write.
        root: folder of EuroSAT as torchgeo lays it out; described on its val part, judged on its test part.
        checkpoint: of the classifier: torchgeo's ClassificationTask, or weights of a timm ResNet-50.
        card: its model card; by default the bands, order and scaling torchgeo trains with on EuroSAT.
        config: an audit's YAML file in place of root and checkpoint; accuracy is then measured on its pool.
        model: which bundled classifier: haze, with a planted shortcut, or clean.
        layers: residual stages, separated by commas; layer4 of a user's network, layer3,layer4 of the bundled ones.
        words: what selects units, commas between words for one thing and semicolons between things; by default the
            paper's fish; purple, pink and the labels' three commonest words.
        draws: random prunings beside each selection.
        unverified: count every label, as the paper did, without holding it against held-out images.
        keep_weights: write the pruned weights of each selection.
        seed: decides every random draw.
        resume: go on with the run in ``out``; recompute only what changed.
        docs: documentation folder of a checkout whose study-eurosat.md gets the tables and pictures.
        quiet: no progress.
    """
    plain = (root, checkpoint, config, layers, words, draws, seed) == (None, None, None, "", "", 50, 0)
    if docs is not None and not (plain and (model, unverified) in _DOCUMENTED):
        raise ConfigError("--docs is for the bundled study: --model clean --unverified, or no option that changes it")
    if docs is not None:
        parts_of(docs / "study-eurosat.md", _DOCUMENTED[model, unverified][1])
    if (root is None) != (checkpoint is None):
        raise ConfigError("--root and --checkpoint go together: give EuroSAT's folder and the classifier's file")
    if config is not None and root is not None:
        raise ConfigError("--config takes the place of --root and --checkpoint: leave one of them out")
    if card is not None and checkpoint is None:
        raise ConfigError("--card is the card of --checkpoint: give that too")

    from dataclasses import replace

    from dnd_core.config import DescribeConfig, VerificationConfig
    from dnd_core.progress import ProgressReport
    from geoaudit.studies import classifiers
    from geoaudit.studies.documents import write_document
    from geoaudit.studies.eurosat import Options, run_eurosat
    from geoaudit.studies.reporting import last_line

    named = tuple(name.strip() for name in layers.split(",") if name.strip())
    settings = DescribeConfig(verification=VerificationConfig(enabled=not unverified), seed=seed)
    if config is not None:
        from geoaudit.settings import load_config

        loaded = load_config(config)
        settings = _unverified(loaded.settings, unverified)
        found = classifiers.configured_classifier(replace(loaded, settings=settings))
        named = named or tuple(name for name in loaded.layers if name != "output")
    elif root is not None and checkpoint is not None:
        found = classifiers.eurosat_classifier(root, checkpoint, card, settings)
        named = named or ("layer4",)
    else:
        found = classifiers.bundled_classifier(model, settings)
        named = named or ("layer3", "layer4")
    options = Options(named, words, draws, keep_weights)
    with ProgressReport(quiet) as progress:
        summary = run_eurosat(found, out, settings, options, resume=resume, progress=progress)
    if docs is not None:
        command, mark, pictures, deeper = _DOCUMENTED[model, unverified]
        write_document(out, docs, "study-eurosat", command, mark=mark, pictures=pictures, deeper=deeper)
    print((out / "study.md").read_text(encoding="utf-8"))  # noqa: T201
    print(last_line(summary))  # noqa: T201


def tile2vec(
    out: Path = Path("runs/study-tile2vec"),
    weights: Path | None = None,
    config: Path | None = None,
    draws: int = 20,
    splits: int = 3,
    trees: int = 50,
    unverified: bool = False,
    seed: int = 0,
    resume: bool = False,
    docs: Path | None = None,
    quiet: bool = False,
) -> None:
    """Group the units of a Tile2Vec network by concept, prune the ungrouped and classify with what is left (section 5).

    Without options the network and tiles that ship with the project are studied. The last line printed is one JSON object
    of the figures.

    Args:
        out: run folder to write.
        weights: other Tile2Vec weights (a state dict of tensors) for the bundled tiles, which have four bands.
        config: a YAML file with ``model`` (checkpoint; options bands, mean, std), ``probe`` with labels, and ``layers``.
        draws: random prunings beside each pruning of ungrouped units.
        splits: 80/20 splits, once with tiles drawn one by one and once with whole spatial blocks.
        trees: of a random forest.
        unverified: count every label, as the paper did, without holding it against held-out images.
        seed: decides every random draw.
        resume: go on with the run in ``out``; recompute only what changed.
        docs: documentation folder of a checkout whose study-tile2vec.md gets the tables and pictures.
        quiet: no progress.
    """
    changed = weights or config or unverified or seed or (draws, splits, trees) != (20, 3, 50)
    if docs is not None and changed:
        raise ConfigError("--docs is for the bundled study: leave out the options that change it")
    if docs is not None:
        parts_of(docs / "study-tile2vec.md", "study")
    if config is not None and weights is not None:
        raise ConfigError("--config names its own weights: leave --weights out")

    from dataclasses import replace

    from dnd_core.config import DescribeConfig, VerificationConfig
    from dnd_core.progress import ProgressReport
    from geoaudit.studies import embedders
    from geoaudit.studies.documents import write_document
    from geoaudit.studies.reporting import last_line
    from geoaudit.studies.tile2vec import Options, run_tile2vec

    options = Options(draws, splits, trees)
    settings = DescribeConfig(verification=VerificationConfig(enabled=not unverified), seed=seed)
    if config is not None:
        from geoaudit.settings import load_config

        loaded = load_config(config)
        settings = _unverified(loaded.settings, unverified)
        found = embedders.configured_embedder(replace(loaded, settings=settings))
    else:
        found = embedders.bundled_embedder(settings, weights)
    with ProgressReport(quiet) as progress:
        summary = run_tile2vec(found, out, settings, options, resume=resume, progress=progress)
    if docs is not None:
        write_document(out, docs, "study-tile2vec", "geoaudit study tile2vec", pictures=("groups", "forests"))
    print((out / "study.md").read_text(encoding="utf-8"))  # noqa: T201
    print(last_line(summary))  # noqa: T201


def _unverified(settings: DescribeConfig, unverified: bool) -> DescribeConfig:
    from dataclasses import replace

    if not unverified:
        return settings
    return replace(settings, verification=replace(settings.verification, enabled=False))
