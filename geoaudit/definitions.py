"""What each class is, and what no class is: is a concept part of what a class means?

Definitions are our own short paraphrases of the class wording of OpenStreetMap land use, EuroSAT, CORINE and ESA
WorldCover. The nuisance lexicon lists what sensors, skies and processing put into images. A concept is spurious for
a class when it speaks of a nuisance rather than of anything on the ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dnd_core.presence import concept_parts
from dnd_core.protocols import TextEncoder

__all__ = ["DEFINITIONS", "NUISANCES", "Relation", "relate", "stated"]

DEFINITIONS: Mapping[str, str] = {
    "annualcrop": "fields ploughed and sown every year, bare soil or young crops with straight edges",
    "farm": "farmland, fields ploughed and sown every year, bare soil or crops with straight edges",
    "farmland": "farmland, fields ploughed and sown every year, bare soil or crops with straight edges",
    "forest": "forest, dense trees, dark green vegetation",
    "grass": "grass, lawns, low green vegetation",
    "herbaceousvegetation": "low green or dry vegetation, grass and herbs",
    "highway": "a road, a long pale line through the land",
    "industrial": "large bright roofs, factories, paved yards, built-up land",
    "meadow": "meadow, grassland that is mown or grazed, low green or pale dry vegetation",
    "pasture": "pasture, grassland that is grazed, low green vegetation",
    "permanentcrop": "orchards and vineyards in rows, green vegetation with bare soil between",
    "residential": "houses, roofs, gardens and streets, built-up land with small bright points",
    "river": "a river, a winding band of dark water",
    "scrub": "scrub, low bushes, sparse dry vegetation",
    "sealake": "sea or lake, open dark water",
    "trees": "trees, dense dark green vegetation",
    "water": "open water, lakes and rivers, dark smooth surface",
    "wetland": "wetland, reeds and wet ground, dark vegetation with water",
    "builtup": "built-up land, roofs and streets",
    "bare": "bare soil, sand or rock",
    "snow": "snow or ice, very bright ground",
}

NUISANCES: tuple[str, ...] = (
    "haze", "thin haze", "fog or mist", "smoke", "cloud", "thin cloud", "cloud shadow", "bluish veil", "striping",
    "vertical stripes", "horizontal stripes", "sensor noise", "missing data", "nodata wedge", "black border",
    "tile border", "swath edge", "watermark", "logo", "colour cast", "reddish tint", "blur", "compression blocks",
    "coarse quantisation", "brightness offset", "washed out image", "overexposed image", "low contrast veil",
)  # fmt: skip

# Two short phrases about the same thing have cosines above this in MiniLM; unrelated ones stay below.
ABOUT = 0.45


@dataclass(frozen=True)
class Relation:
    """How a concept stands to a class.

    Attributes:
        kind: ``part`` of what the class is, ``context`` (on the ground, but of another class), or ``artefact``.
        why: the reason, with the similarities.
    """

    kind: str
    why: str

    @property
    def spurious(self) -> bool:
        """Whether a network should not need the concept to decide the class."""
        return self.kind != "part"


def definition_of(name: str, own: Mapping[str, str] | None = None) -> str:
    """The class's definition: the user's, else ours, else its name."""
    key = "".join(c for c in name.casefold() if c.isalnum())
    given = {"".join(c for c in k.casefold() if c.isalnum()): v for k, v in (own or {}).items()}
    return given.get(key) or DEFINITIONS.get(key) or name


def stated(concept: str) -> str:
    """What a concept says is there, without what it says is absent: "bare fields" of "bare fields without haze"."""
    alternatives = concept_parts(concept)
    words = [" and ".join(part.content for part in parts if not part.denied) for parts in alternatives]
    return " or ".join(word for word in words if word)


def relate(
    concept: str,
    classes: Sequence[str],
    encoder: TextEncoder,
    own: Mapping[str, str] | None = None,
) -> dict[str, Relation]:
    """How a concept stands to every class.

    Args:
        concept: a label in words.
        classes: class names.
        encoder: sentence encoder with rows of length one.
        own: the user's definitions by class name.

    Returns:
        Class name to relation.
    """
    meanings = [definition_of(name, own) for name in classes]
    vectors = encoder.encode_texts([concept, *NUISANCES, *meanings])
    likeness = vectors[1:] @ vectors[0]
    nuisance, ground = likeness[: len(NUISANCES)], likeness[len(NUISANCES) :]
    worst = int(np.argmax(nuisance))
    relations = {}
    for number, name in enumerate(classes):
        figures = (
            f"closest nuisance '{NUISANCES[worst]}' {nuisance[worst]:.2f}, definition of {name} {ground[number]:.2f}"
        )
        if nuisance[worst] >= ABOUT and nuisance[worst] > ground.max():
            relations[name] = Relation("artefact", f"it speaks of the image, not of the ground ({figures})")
        elif int(np.argmax(ground)) != number and ground.max() >= ABOUT and ground.max() - ground[number] > 0.1:
            other = classes[int(np.argmax(ground))]
            relations[name] = Relation("context", f"it belongs to {other} ({ground.max():.2f}) rather ({figures})")
        else:
            relations[name] = Relation("part", f"it may be part of what {name} is ({figures})")
    return relations
