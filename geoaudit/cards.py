"""Model cards: what a checkpoint does not say about itself, as a STAC item with the MLM extension.

A Lightning checkpoint of torchgeo knows its architecture and how many channels it takes, but not which bands in
which order, how they were scaled, or what its outputs are called. The card says so in the field's own format
(STAC Machine Learning Model extension 1.4), so that other tools read it too; what the extension has no field for
(chip size, accuracy, known issues) stands under ``geoaudit:``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dnd_core.errors import ConfigError

__all__ = ["Measure", "ModelCard", "load_card", "write_card"]

Task = Literal["scene-classification", "semantic-segmentation"]

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
SHA256_MULTIHASH = "1220"
"""What the STAC file extension writes before a sha256: its multihash code and length."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure about a network, with how sure it is.

    Attributes:
        name: what was measured, ``overall accuracy``.
        value: the figure.
        n: how many chips it rests on.
        low: lower end of its 95 % interval, or None.
        high: upper end of its 95 % interval, or None.
        note: on which data and how.

    """

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.name or not math.isfinite(self.value) or self.n < 1:
            raise ConfigError(f"a measure needs a name, a finite value and n >= 1, got {self}")
        if (self.low is None) != (self.high is None):
            raise ConfigError(f"the interval of {self.name!r} has only one end; give low and high, or neither")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ConfigError(
                f"the interval of {self.name!r} ({self.low}, {self.high}) leaves out its value {self.value}"
            )


@dataclass(frozen=True)
class ModelCard:
    """What a network expects and answers.

    Attributes:
        name: shown to people.
        architecture: ``timm:resnet18``.
        task: one class a chip, or one a pixel.
        bands: names of the bands it takes, in order.
        mean: subtracted from reflectance, one a band.
        std: divided by after that, one a band; ``(reflectance - mean) / std`` enters the network.
        input_size: side in pixels of what enters the network.
        chip_size: side in pixels of the chips it was trained on, before they were resized to ``input_size``.
        class_names: of its outputs, in order.
        checkpoint: file name of the weights, beside the card.
        sha256: of that file.
        pixel_scale: reflectance a digital number in the training imagery.
        pixel_offset: reflectance of digital number zero in the training imagery.
        gsd: ground sampling distance in metres.
        bbox: (west, south, east, north) in degrees of the training area.
        acquired: ISO date of the training imagery.
        framework: what trained it, with version.
        training: summary of the training data and recipe.
        measures: accuracy on held-out data first.
        issues: known issues, a sentence each.
        licence: SPDX name or text.

    Raises:
        ConfigError: the fields contradict each other; the sentence names the field.

    """

    name: str
    architecture: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int
    chip_size: int
    class_names: tuple[str, ...]
    checkpoint: str
    sha256: str
    task: Task = "scene-classification"
    pixel_scale: float = 1e-4
    pixel_offset: float = 0.0
    gsd: float = 10.0
    bbox: tuple[float, float, float, float] = (-180.0, -90.0, 180.0, 90.0)
    acquired: str = ""
    framework: str = ""
    training: str = ""
    measures: tuple[Measure, ...] = ()
    issues: tuple[str, ...] = ()
    licence: str = "other"

    def __post_init__(self) -> None:
        for text, field in ((self.name, "name"), (self.architecture, "architecture"), (self.checkpoint, "checkpoint")):
            if not text:
                raise ConfigError(f"a model card needs its field {field!r}")
        for names, field in ((self.bands, "bands"), (self.class_names, "class names")):
            if not names or len(set(names)) != len(names) or not all(names):
                raise ConfigError(f"card {self.name!r}: each of the {field} must be named once, got {list(names)}")
        if not len(self.mean) == len(self.std) == len(self.bands):
            raise ConfigError(
                f"card {self.name!r} names {len(self.bands)} bands but scales {len(self.mean)} means and "
                f"{len(self.std)} deviations; give one of each a band"
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"card {self.name!r}: means must be finite and deviations above 0, got {self.std}")
        if self.input_size < 1 or self.chip_size < 1 or self.gsd <= 0 or self.pixel_scale == 0:
            raise ConfigError(f"card {self.name!r}: sizes, gsd and pixel scale must be positive")
        if self.task not in get_args(Task):
            raise ConfigError(f"card {self.name!r}: unknown task {self.task!r}; one of {', '.join(get_args(Task))}")
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise ConfigError(f"card {self.name!r}: the checkpoint's sha256 must be 64 hexadecimal digits")

    def measure(self, name: str) -> Measure:
        """The measure of this name; raises ConfigError when the card has none."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise ConfigError(
            f"card {self.name!r} has no measure {name!r}; it has {', '.join(m.name for m in self.measures) or 'none'}"
        )

    def check_file(self, folder: Path) -> Path:
        """Path of the checkpoint in ``folder``; raises ConfigError when it is missing or another file."""
        path = folder / self.checkpoint
        if not path.is_file():
            raise ConfigError(f"{path}: the checkpoint named by the card {self.name!r} is not there")
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise ConfigError(f"{path} is not the file of the card {self.name!r} (its sha256 differs)")
        return path

    def to_stac(self) -> dict[str, Any]:
        """The card as a STAC item."""
        west, south, east, north = self.bbox
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        size, count = self.input_size, len(self.class_names)
        pixelwise = self.task == "semantic-segmentation"
        answer = ["batch", "class", "height", "width"] if pixelwise else ["batch", "class"]
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [MLM, CLASSIFICATION, FILE],
            "id": "".join(c if c.isalnum() else "-" for c in self.name.lower()),
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": list(self.bbox),
            "properties": {
                **_times(self.acquired),
                "description": self.training,
                "license": self.licence,
                "gsd": self.gsd,
                "bands": [
                    {"name": name, "raster:scale": self.pixel_scale, "raster:offset": self.pixel_offset}
                    for name in self.bands
                ],
                "mlm:name": self.name,
                "mlm:architecture": self.architecture,
                "mlm:tasks": [self.task],
                "mlm:framework": "pytorch",
                "mlm:framework_version": self.framework,
                "mlm:input": [
                    {
                        "name": "reflectance",
                        "bands": list(self.bands),
                        "input": {
                            "shape": [-1, len(self.bands), size, size],
                            "dim_order": ["batch", "channel", "height", "width"],
                            "data_type": "float32",
                        },
                        "value_scaling": [
                            {"type": "z-score", "mean": mean, "stddev": std}
                            for mean, std in zip(self.mean, self.std, strict=True)
                        ],
                        "resize_type": "interpolation-linear",
                    }
                ],
                "mlm:output": [
                    {
                        "name": "logits",
                        "tasks": [self.task],
                        "result": {
                            "shape": [-1, count, size, size][: len(answer)],
                            "dim_order": answer,
                            "data_type": "float32",
                        },
                        "classification:classes": [
                            {"value": value, "name": name} for value, name in enumerate(self.class_names)
                        ],
                    }
                ],
                "geoaudit:chip_size": self.chip_size,
                "geoaudit:acquired": self.acquired,
                "geoaudit:measures": [
                    {
                        "name": measure.name,
                        "value": measure.value,
                        "interval_95": None if measure.low is None else [measure.low, measure.high],
                        "n": measure.n,
                        "note": measure.note,
                    }
                    for measure in self.measures
                ],
                "geoaudit:known_issues": list(self.issues),
            },
            "assets": {
                "model": {
                    "href": self.checkpoint,
                    "type": "application/octet-stream; application=pytorch",
                    "title": f"Weights of {self.name}",
                    "roles": ["mlm:model", "mlm:checkpoint"],
                    "mlm:artifact_type": "torch.save",
                    "file:checksum": SHA256_MULTIHASH + self.sha256,
                }
            },
            "links": [],
        }


def _times(acquired: str) -> dict[str, str | None]:
    # An item without a date must say between which it lies; the extension advises the widest range.
    if acquired:
        return {"datetime": f"{acquired}T00:00:00Z"}
    return {"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}


def write_card(card: ModelCard, path: str | Path) -> None:
    """Write the card beside its checkpoint, aside first and then renamed; the same card gives the same bytes."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.write_text(json.dumps(card.to_stac(), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the model card there ({error.strerror})") from error


def load_card(path: str | Path) -> ModelCard:
    """Read a model card.

    Besides our own files this reads any STAC MLM item with one input of named bands and z-score or no scaling; what
    only ``geoaudit:`` fields tell (chip size, measures) takes its default where the item has none.

    Raises:
        ConfigError: the file is no such item, lacks a field, or contradicts itself; the sentence names the field.

    """
    path = Path(path)
    try:
        item = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; give the path of the network's model card") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is not a JSON file that can be read ({error})") from error
    try:
        return _Reader(path).card(item)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from error


class _Reader:
    """Reads one card; every fault is named by the path of its field."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, holder: Any, *steps: str | int, kind: type | tuple[type, ...] = object) -> Any:
        value, trail = holder, ""
        for step in steps:
            trail += f"[{step}]" if isinstance(step, int) else f"{'.' if trail else ''}{step}"
            fits = isinstance(value, Mapping) if isinstance(step, str) else isinstance(value, list)
            if not fits or (step not in value if isinstance(step, str) else step >= len(value)):
                raise ConfigError(f"{self.path}: the card lacks {trail}; a STAC MLM item has it")
            value = value[step]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self.path}: {trail} is not what a STAC MLM item has there, got {value!r:.60}")
        return value

    def card(self, item: Any) -> ModelCard:
        properties = self.get(item, "properties", kind=Mapping)
        inputs = self.get(properties, "mlm:input", kind=list)
        outputs = self.get(properties, "mlm:output", kind=list)
        if len(inputs) != 1 or len(outputs) != 1:
            raise ConfigError(
                f"{self.path}: {len(inputs)} inputs and {len(outputs)} outputs; only networks with one of each are read"
            )
        bands = tuple(self.name_of(band) for band in self.get(inputs[0], "bands", kind=list))
        shape = self.get(inputs[0], "input", "shape", kind=list)
        if len(shape) != 4 or shape[1] != len(bands):
            raise ConfigError(
                f"{self.path}: mlm:input names {len(bands)} bands but its shape is {shape}; "
                f"expected [-1, {len(bands)}, height, width]"
            )
        if shape[2] != shape[3] or not isinstance(shape[2], int):
            raise ConfigError(f"{self.path}: the input must be square, its shape is {shape}")
        mean, std = self.scaling(inputs[0], len(bands))
        task = self.get(properties, "mlm:tasks", 0, kind=str)
        asset = self.model_asset(self.get(item, "assets", kind=Mapping))
        described = properties.get("bands") or [{}]
        first = described[0] if isinstance(described, list) and isinstance(described[0], Mapping) else {}
        return ModelCard(
            name=self.get(properties, "mlm:name", kind=str),
            architecture=self.get(properties, "mlm:architecture", kind=str),
            bands=bands,
            mean=mean,
            std=std,
            input_size=shape[2],
            chip_size=int(properties.get("geoaudit:chip_size", shape[2])),
            class_names=self.classes(outputs[0]),
            checkpoint=self.get(asset, "href", kind=str),
            sha256=self.get(asset, "file:checksum", kind=str).removeprefix(SHA256_MULTIHASH),
            task="scene-classification" if task == "classification" else task,
            pixel_scale=float(first.get("raster:scale", 1e-4)),
            pixel_offset=float(first.get("raster:offset", 0.0)),
            gsd=float(properties.get("gsd", 10.0)),
            bbox=self.bbox(item),
            acquired=str(properties.get("geoaudit:acquired", "")),
            framework=str(properties.get("mlm:framework_version", "")),
            training=str(properties.get("description", "")),
            measures=tuple(self.measure(entry) for entry in properties.get("geoaudit:measures", [])),
            issues=tuple(map(str, properties.get("geoaudit:known_issues", []))),
            licence=str(properties.get("license", "other")),
        )

    def name_of(self, band: Any) -> str:
        return band if isinstance(band, str) else str(self.get(band, "name", kind=str))

    def scaling(self, entry: Any, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        scalings = entry.get("value_scaling") if isinstance(entry, Mapping) else None
        if not scalings:
            return (0.0,) * count, (1.0,) * count
        if not isinstance(scalings, list) or len(scalings) not in (1, count):
            raise ConfigError(f"{self.path}: mlm:input scales {len(scalings)} bands and names {count}; give one or all")
        kinds = {self.get(scaling, "type", kind=str) for scaling in scalings}
        if kinds != {"z-score"}:
            raise ConfigError(f"{self.path}: value_scaling {', '.join(sorted(kinds))} is not read; write it as z-score")
        mean = [float(self.get(scaling, "mean", kind=(int, float))) for scaling in scalings]
        std = [float(self.get(scaling, "stddev", kind=(int, float))) for scaling in scalings]
        repeat = count // len(scalings)
        return tuple(mean * repeat), tuple(std * repeat)

    def classes(self, output: Any) -> tuple[str, ...]:
        entries = self.get(output, "classification:classes", kind=list)
        values = [self.get(entry, "value", kind=int) for entry in entries]
        if sorted(values) != list(range(len(values))):
            raise ConfigError(f"{self.path}: class values must be 0 to {len(values) - 1}, each once, got {values}")
        shape = self.get(output, "result", "shape", kind=list)
        if len(shape) > 1 and shape[1] != len(entries):
            raise ConfigError(f"{self.path}: mlm:output answers {shape[1]} classes but names {len(entries)}")
        return tuple(str(self.get(entry, "name", kind=str)) for _, entry in sorted(zip(values, entries, strict=True)))

    def model_asset(self, assets: Mapping[str, Any]) -> Mapping[str, Any]:
        found = [a for a in assets.values() if isinstance(a, Mapping) and "mlm:model" in (a.get("roles") or [])]
        if len(found) != 1:
            raise ConfigError(f"{self.path}: expected one asset with the role mlm:model, found {len(found)}")
        return found[0]

    def bbox(self, item: Any) -> tuple[float, float, float, float]:
        values = item.get("bbox") or [-180.0, -90.0, 180.0, 90.0]
        if not isinstance(values, Sequence) or len(values) != 4:
            raise ConfigError(f"{self.path}: bbox must be [west, south, east, north], got {values!r}")
        west, south, east, north = map(float, values)
        return west, south, east, north

    def measure(self, entry: Any) -> Measure:
        low, high = (entry.get("interval_95") or (None, None)) if isinstance(entry, Mapping) else (None, None)
        return Measure(
            name=self.get(entry, "name", kind=str),
            value=float(self.get(entry, "value", kind=(int, float))),
            n=self.get(entry, "n", kind=int),
            low=low,
            high=high,
            note=str(entry.get("note", "")),
        )
