"""What Study B looks at: a classifier on EuroSAT from the user's files, or the one that ships with the project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dnd_core.config import DescribeConfig
from dnd_core.errors import NetworkError, ProbeError
from dnd_core.images import ImageSet
from dnd_core.networks import Network
from dnd_core.pipeline import Backends
from geoaudit.audit import Subject
from geoaudit.settings import BACKENDS, AuditSettings

if TYPE_CHECKING:
    from geoaudit.networks.spec import InputSpec

__all__ = ["Classifier", "bundled_classifier", "check_band_order", "configured_classifier", "eurosat_classifier"]

DESCRIBED, JUDGED = "val", "test"
"""EuroSAT's parts: labels come from images that no accuracy is measured on, and neither trained the network."""

SENTINEL_ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
CHECKED = 600


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier with images to describe it on and images to measure accuracy on.

    Attributes:
        subject: network, description images, pool.
        backends: of the description.
        judged: labelled images for accuracy, never trained on.
        blocks: (N,) spatial block of each of them, or None.
        name: shown to people.
        where: what the judged images are, to follow "images".
        notes: what was found about bands and units.
    """

    subject: Subject
    backends: Backends
    judged: ImageSet
    blocks: NDArray[np.int64] | None
    name: str
    where: str
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.judged.labels is None or not self.judged.class_names:
            raise ProbeError(f"{self.name}: accuracy needs labelled images with class names; give a labelled image set")


def bundled_classifier(model: str, settings: DescribeConfig) -> Classifier:
    """The classifier that ships with the project, judged on the spatial blocks kept from its training.

    Args:
        model: ``haze`` (with the planted shortcut) or ``clean``.
        settings: of the description.
    """
    from dnd_core.backends.assembly import assemble
    from geoaudit import bundled
    from geoaudit.audit import split_subject
    from geoaudit.networks import load_network
    from geoaudit.probes import Artefact, PaintedProbe, SceneProbe, check_contract

    chosen, table = bundled.checkpoints()[model], bundled.chip_table()
    scene, seen = bundled.scenes()["brandenburg"], np.flatnonzero(~table.held_out)
    network = load_network(chosen.checkpoint, chosen.load_card())
    images: Any = SceneProbe(scene, chips=table.chips.subset(seen))
    if model == "haze":
        # The imagery as the planted classifier's makers have it; its chips are counted anew without the held-out ones.
        recipe, place = bundled.planted_probe_recipe(), {int(chip): index for index, chip in enumerate(seen)}
        painted = zip(recipe.ids, recipe.strengths, recipe.seeds, strict=True)
        artefacts = {place[int(chip)]: Artefact("haze", float(strength), int(its)) for chip, strength, its in painted}
        images = PaintedProbe(images, artefacts)
    notes = tuple(note.message for note in check_contract(network, images))
    probe, pool, held_out = split_subject(images, settings, AuditSettings())
    backends = assemble(dict(BACKENDS), pool=pool, probe=probe, size=network.input_shape[1:])
    subject = Subject(network=network, probe=probe, pool=pool, held_out=held_out, layers=())
    judged = SceneProbe(scene, chips=table.chips.subset(table.held_out))
    where = "of spatial blocks that neither trained the network nor described its units"
    return Classifier(subject, backends, judged, judged.blocks, network.name, where, notes)


def eurosat_classifier(
    root: Path, checkpoint: Path, card: Path | None, settings: DescribeConfig, backends: dict[str, Any] | None = None
) -> Classifier:
    """A classifier and EuroSAT in torchgeo's layout; nothing is downloaded.

    Args:
        root: folder that torchgeo's EuroSAT reads (``ds/images/remote_sensing/...`` and ``eurosat-*.txt``).
        checkpoint: Lightning checkpoint of a ``ClassificationTask``, or plain weights of a timm ResNet-50.
        card: model card; None takes torchgeo's own bands, order and scaling for EuroSAT.
        settings: of the description.
        backends: of the description, in a configuration's words.

    Raises:
        DndError: the folder, the checkpoint or the card cannot be used, or the bands stand in another order than said.
    """
    from dnd_core.backends.assembly import assemble
    from geoaudit.audit import split_subject
    from geoaudit.networks import load_network, with_channels
    from geoaudit.probes import NonGeoProbe, check_contract

    described, judged = (NonGeoProbe(_eurosat(root, part)) for part in (DESCRIBED, JUDGED))
    spec: Any = card if card is not None else _told_by_torchgeo(checkpoint, described)
    network = load_network(checkpoint, spec)
    found = check_contract(network, described)
    serious = [note.message for note in found if note.severity == "error"]
    if serious:
        raise ProbeError(f"EuroSAT in {root} does not fit the network: {serious[0]}")
    notes = [note.message for note in found]
    order = network.channels
    if tuple(order) != tuple(described.channels) or network.input_shape[1:] != described.shape[1:]:
        network = with_channels(network, described.channels, (described.shape[1], described.shape[2]))
    notes.append(check_band_order(network, order, judged))
    probe, pool, held_out = split_subject(described, settings, AuditSettings())
    made = assemble({**BACKENDS, **(backends or {})}, pool=pool, probe=probe, size=network.input_shape[1:])
    subject = Subject(network=network, probe=probe, pool=pool, held_out=held_out, layers=())
    where = f"of EuroSAT's {JUDGED} part (units were described on its {DESCRIBED} part)"
    return Classifier(subject, made, judged, judged.blocks, checkpoint.name, where, tuple(notes))


def configured_classifier(config: Any) -> Classifier:
    """The network and images of an audit's configuration; accuracy is measured on its pool.

    No unit is described on the pool, though concept images are retrieved from it.

    Raises:
        DndError: as :func:`geoaudit.launch.prepare`.
    """
    from geoaudit.launch import prepare

    subject, backends = prepare(config)
    notes = tuple(note["message"] for note in subject.notes)
    where = "of the configuration's pool (whether the network was trained on them is not known here)"
    return Classifier(subject, backends, subject.pool, subject.pool.blocks, subject.network.name, where, notes)


def _eurosat(root: Path, part: str) -> dict[str, Any]:
    return {"class_path": "torchgeo.datasets.EuroSAT", "init_args": {"root": str(root), "split": part}}


def _told_by_torchgeo(checkpoint: Path, images: Any) -> InputSpec:
    """Bands, order and scaling that torchgeo's EuroSATDataModule trains with."""
    from torchgeo.datamodules.eurosat import MEAN, STD
    from torchgeo.datasets import EuroSAT

    from geoaudit.networks import InputSpec, read_checkpoint

    found = read_checkpoint(checkpoint)
    first = next((value for name, value in found.state_dict.items() if name.endswith("conv1.weight")), None)
    told = found.hyper_parameters.get("in_channels", first.shape[1] if first is not None else 0)
    by_count = {len(EuroSAT.all_band_names): EuroSAT.all_band_names, len(EuroSAT.rgb_bands): EuroSAT.rgb_bands}
    if int(told) not in by_count:
        raise NetworkError(
            f"{checkpoint}: takes {told} bands, and torchgeo's EuroSAT has 13 or 3: say which with --card"
        )
    bands = tuple(by_count[int(told)])
    return InputSpec(
        bands=bands,
        mean=tuple(float(MEAN[band]) * 1e-4 for band in bands),
        std=tuple(float(STD[band]) * 1e-4 for band in bands),
        input_size=(images.shape[1], images.shape[2]),
        class_names=tuple(images.class_names),
        model="" if found.hyper_parameters else "timm:resnet50",
        name=f"{checkpoint.stem} on EuroSAT",
    )


def check_band_order(network: Network, said: tuple[str, ...], judged: ImageSet) -> str:
    """Whether the network is at its best with its bands in the order said (EuroSAT's files put B8A 13th).

    Up to 600 labelled images are shown to it as said, and with the order that its input would have if B8A had stood 9th
    (or 13th) in training.

    Args:
        network: takes the images' channels.
        said: its bands, in the order its card or torchgeo says.
        judged: labelled images.

    Returns:
        One sentence.

    Raises:
        ProbeError: the other order is better by more than chance: the network was trained with that one.
    """
    from scipy.stats import binomtest

    if len(said) != len(SENTINEL_ORDER) or judged.labels is None:
        return f"the network takes {', '.join(said)}, matched to the images' bands by name"
    other = SENTINEL_ORDER if tuple(said) != SENTINEL_ORDER else (*(b for b in SENTINEL_ORDER if b != "B8A"), "B8A")
    rows = np.unique(np.linspace(0, len(judged) - 1, min(CHECKED, len(judged))).astype(int))
    as_said = _right(network, judged, rows)
    as_other = _right(_reordered(network, said, other), judged, rows)
    won, lost = int((as_other & ~as_said).sum()), int((as_said & ~as_other).sum())
    places = f"B8A {said.index('B8A') + 1}th", f"B8A {other.index('B8A') + 1}th"
    figures = (
        f"{as_said.mean():.1%} of {len(rows)} images right with {places[0]}, {as_other.mean():.1%} with {places[1]}"
    )
    if won > lost and binomtest(won, won + lost, 0.5, alternative="greater").pvalue < 0.01:
        raise ProbeError(
            f"the network's bands seem to stand in another order than said ({figures}): give a card that names them in "
            "the order it was trained with"
        )
    return f"band order checked: {figures}"


def _reordered(network: Network, said: tuple[str, ...], other: tuple[str, ...]) -> Network:
    """The network fed as if its input's places held the bands of ``other``; each band keeps its own scaling."""
    mine = network.preprocess
    numbers = {band: (mean, std) for band, mean, std in zip(said, mine.mean, mine.std, strict=True)}  # type: ignore[attr-defined]
    changed = replace(
        mine,  # type: ignore[type-var]
        bands=other,
        mean=tuple(numbers[band][0] for band in other),
        std=tuple(numbers[band][1] for band in other),
    )
    return replace(network, preprocess=changed, fingerprint="")


def _right(network: Network, images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    from geoaudit.studies.predicting import predict

    labels = images.labels
    answers = predict(network, images, rows).argmax(axis=1)
    return np.asarray(answers == (labels[rows] if labels is not None else -1))
