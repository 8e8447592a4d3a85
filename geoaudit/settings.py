"""The configuration of an audit: a YAML file with ``class_path`` and ``init_args``, as Lightning's command line has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError

__all__ = ["AuditConfig", "AuditSettings", "load_config"]

BACKENDS: Mapping[str, Any] = {
    "captioner": "geoaudit.captions.SatelliteCaptioner",
    "summarizer": "keyphrases",
    "concept_images": "geoaudit.retrieval.TilePool",
    "image_encoder": "caption-space",
    "text_encoder": "sentences",
}


SAMPLES = ("none", "simple", "stratified", "cluster")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _names(value: Any) -> bool:
    return _texts(value) and len(value) > 0


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _spec(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("class_path"), str)


_CLASS = "a mapping of class_path and init_args"
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_mapping, "a mapping of checkpoint, card and options"),
    "probe": (_spec, _CLASS),
    "layers": (_names, "a list of layers ([layer3, layer4, output])"),
    "pool": (_spec, _CLASS),
    "scenes": (_texts, "a list of rasters"),
    "labels": (_mapping, "a mapping of path, field and classes"),
    "backends": (_mapping, f"a mapping of {', '.join(BACKENDS)}"),
    "settings": (_mapping, "a mapping of settings, see docs/engine.md"),
    "audit": (_mapping, "a mapping of the audit's own settings"),
    "definitions": (_mapping, "a mapping of class names to words"),
    "attributions": (_texts, "a list of lines"),
}
_NEEDED = ("model", "probe", "layers")


@dataclass(frozen=True)
class AuditSettings:
    """What an audit does beyond describing.

    Attributes:
        checks: rules to run, see ``geoaudit checks``; all when empty.
        evaluated: at most this many images for causal tests.
        draws: bootstrap and permutation draws.
        alpha: false-discovery rate of findings.
        pool_share: share of the probe's blocks set aside to retrieve concept images from.
        map_units: units mapped for each concept group; those in findings are always mapped.
        map_stride: scene pixels a map cell.
        sample: how the labelled images were drawn from the mapped ground: ``none`` (not by chance; no hectares),
            ``simple``, ``stratified`` (by mapped class) or ``cluster`` (whole blocks).
    """

    checks: tuple[str, ...] = ()
    evaluated: int = 500
    draws: int = 1000
    alpha: float = 0.05
    pool_share: float = 0.25
    map_units: int = 1
    map_stride: int = 8
    sample: str = "none"

    def __post_init__(self) -> None:
        least = {"evaluated": 20, "draws": 100, "map_units": 0, "map_stride": 1}
        rules = {
            name: (_whole(getattr(self, name), least[name]), f"a whole number from {least[name]}") for name in least
        }
        for name in ("alpha", "pool_share"):
            value = getattr(self, name)
            rules[name] = (isinstance(value, float) and 0 < value < 1, "a number between 0 and 1")
        rules["sample"] = (self.sample in SAMPLES, f"one of {', '.join(SAMPLES)}")
        rules["checks"] = (_texts(self.checks), "a list of rules, see geoaudit checks")
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ConfigError(f"audit.{name} must be {rule}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class AuditConfig:
    """Everything an audit needs, with paths made absolute.

    Attributes:
        model: ``checkpoint`` and ``card``, passed to :func:`geoaudit.networks.load_network`.
        probe: class_path and init_args of an image set.
        layers: layers to describe.
        pool: class_path and init_args of an image set to retrieve concept images from; None sets probe blocks aside.
        scenes: rasters to map units over.
        labels: polygons with land cover to compare hot spots with (``path``, ``field``, ``classes``), or None.
        backends: captioner, summarizer, concept_images, image_encoder, text_encoder.
        settings: of the description.
        audit: of the audit.
        definitions: what each class is, in the user's words.
        attributions: lines every report must carry.
    """

    model: dict[str, Any]
    probe: dict[str, Any]
    layers: tuple[str, ...]
    pool: dict[str, Any] | None = None
    scenes: tuple[str, ...] = ()
    labels: dict[str, Any] | None = None
    backends: dict[str, Any] = field(default_factory=dict)
    settings: DescribeConfig = field(default_factory=DescribeConfig)
    audit: AuditSettings = field(default_factory=AuditSettings)
    definitions: dict[str, str] = field(default_factory=dict)
    attributions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``config.yaml``."""
        values = asdict(self)
        values["layers"], values["scenes"] = list(self.layers), list(self.scenes)
        values["attributions"] = list(self.attributions)
        values["audit"]["checks"] = list(self.audit.checks)
        return values


def load_config(path: Path) -> AuditConfig:
    """Read an audit's YAML file. Relative paths in it are taken from the file's own folder.

    Raises:
        ConfigError: the file is missing or no YAML, a field is unknown or has the wrong kind; the sentence names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} cannot be read ({error}): give the path of a YAML file") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold fields (model:, probe:, layers: ...), not {type(values).__name__}")
    return from_values(values, path.parent, str(path))


def from_values(values: Mapping[str, Any], folder: Path, where: str) -> AuditConfig:
    """The configuration in already parsed fields; see :func:`load_config`."""
    known = {f.name for f in fields(AuditConfig)}
    for name in values:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known fields are {', '.join(sorted(known))}"
            raise ConfigError(f"{where}: unknown field {name!r}; {hint}")
    for name, (holds, kind) in _KINDS.items():
        value = values.get(name)
        if value is None and name in _NEEDED:
            raise ConfigError(f"{where}: the field {name} is missing; it must be {kind}")
        if value is not None and not holds(value):
            raise ConfigError(f"{where}: the field {name} must be {kind}, got {value!r}")
    model, labels = values["model"], values.get("labels") or {}
    if set(model) - {"checkpoint", "card", "options"} or not isinstance(model.get("checkpoint"), str):
        raise ConfigError(f"{where}: model takes checkpoint (a path), card and options, got {sorted(map(str, model))}")
    if not isinstance(model.get("options", {}), Mapping):
        raise ConfigError(f"{where}: model.options must be a mapping, got {model['options']!r}")
    if labels and (set(labels) - {"path", "field", "classes"} or not _texts([labels.get("path"), labels.get("field")])):
        raise ConfigError(f"{where}: labels takes path, field and classes, got {sorted(map(str, labels))}")
    given = dict(values.get("audit") or {})
    unknown = set(given) - {f.name for f in fields(AuditSettings)}
    if unknown:
        raise ConfigError(f"{where}: unknown audit settings {sorted(unknown)}")
    if isinstance(given.get("checks"), list):
        given["checks"] = tuple(given["checks"])
    backends = dict(values.get("backends") or {})
    if set(backends) - set(BACKENDS):
        raise ConfigError(f"{where}: backends are {', '.join(BACKENDS)}, got {sorted(set(backends) - set(BACKENDS))}")
    resolved = _resolve(dict(values), folder)
    return AuditConfig(
        model=resolved["model"],
        probe=resolved["probe"],
        layers=tuple(str(name) for name in values["layers"]),
        pool=resolved.get("pool"),
        scenes=tuple(resolved.get("scenes") or ()),
        labels=resolved.get("labels"),
        backends={**BACKENDS, **resolved.get("backends", {})},
        settings=DescribeConfig.from_dict(dict(values.get("settings") or {})),
        audit=AuditSettings(**given),
        definitions={str(k): str(v) for k, v in dict(values.get("definitions") or {}).items()},
        attributions=tuple(str(line) for line in values.get("attributions") or ()),
    )


def _resolve(value: Any, folder: Path) -> Any:
    """Make relative paths that exist below the configuration's folder absolute."""
    if isinstance(value, dict):
        return {name: _resolve(item, folder) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, folder) for item in value]
    if isinstance(value, str) and ("/" in value or "." in value) and "\n" not in value and len(value) < 1000:
        try:
            found = folder / value
            if not Path(value).is_absolute() and found.exists():
                return str(found.resolve())
        except (OSError, ValueError):
            return value
    return value
