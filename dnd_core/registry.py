"""Backends by short name or ``class_path``: from a config's words to an object."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Unpack, get_args, get_origin

import numpy as np

from dnd_core.errors import ConfigError
from dnd_core.protocols import Captioner, ConceptImages, ImageEncoder, Summarizer, TextEncoder
from dnd_core.store import fingerprint

__all__ = ["SHORT_NAMES", "backend_fingerprint", "build", "import_class", "takes"]

SHORT_NAMES: dict[str, str] = {
    "blip": "dnd_core.backends.blip.Blip",
    "vlm": "dnd_core.backends.vlm.VisionLanguageModel",
    "endpoint-captioner": "dnd_core.backends.openai_compatible.EndpointCaptioner",
    "local-llm": "dnd_core.backends.local_llm.LocalLanguageModel",
    "endpoint-summarizer": "dnd_core.backends.openai_compatible.EndpointSummarizer",
    "diffusers": "dnd_core.backends.text_to_image.TextToImage",
    "open-clip": "dnd_core.backends.clip.OpenClip",
    "measured": "dnd_core.backends.measured.MeasuredCaptioner",
    "keyphrases": "dnd_core.backends.keyphrases.Keyphrases",
    "pool": "dnd_core.backends.pool.PoolImages",
    "sentences": "dnd_core.backends.sentences.SentenceEncoder",
    "caption-space": "dnd_core.backends.caption_space.CaptionSpace",
}


def import_class(path: str) -> Any:
    """The class or function that a dotted path names.

    Raises:
        ConfigError: the module or the name in it does not exist.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        near = get_close_matches(path, SHORT_NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known short names are {', '.join(SHORT_NAMES)}"
        raise ConfigError(f"{path!r} is neither a short name nor a class path: {hint}")
    if not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError(f"{path!r} is no class path: write package.module.Class, with the package on PYTHONPATH")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"class_path {path}: module {module_name} cannot be imported ({error}); is its folder on PYTHONPATH?"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        near = get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"class_path {path}: {module_name} has no {name}{hint}")
    return found


def build(spec: Any, **defaults: Any) -> Any:
    """An object from ``"short-name"``, ``"a.class.path"`` or ``{"class_path": ..., "init_args": {...}}``.

    Anything else is taken to be the object itself. ``defaults`` (a probe's pool, an encoder ...) are passed where
    the class has a parameter of that name which the spec does not set.

    Raises:
        ConfigError: the class is unknown or does not take the arguments given.
    """
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if not isinstance(spec, Mapping):
        return spec
    if set(spec) - {"class_path", "init_args"} or "class_path" not in spec:
        raise ConfigError(f"a backend is given by class_path and init_args, got {sorted(map(str, spec))}")
    given = str(spec["class_path"])
    path = SHORT_NAMES.get(given, given)
    cls = import_class(path)
    if not callable(cls):
        raise ConfigError(f"class_path {path} is a {type(cls).__name__}, not a class: write package.module.Class")
    given_arguments = spec.get("init_args") or {}
    if not isinstance(given_arguments, Mapping):
        raise ConfigError(f"init_args of {path} must be a mapping of names to values, got {given_arguments!r}")
    arguments = dict(given_arguments)
    parameters = _parameters(cls)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [] if open_ended else [name for name in arguments if name not in parameters]
    if unknown:
        near = get_close_matches(unknown[0], parameters, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(parameters)}"
        raise ConfigError(f"{path} takes no argument {unknown[0]!r}: {hint}")
    for name, value in defaults.items():
        if name in parameters and name not in arguments:
            arguments[name] = value
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in arguments
    ]
    if missing:
        raise ConfigError(f"{path} needs init_args {', '.join(missing)}")
    return cls(**arguments)


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """What a class takes by name, also what it hands on by ``**options: Unpack[Options]``."""
    try:
        signature = inspect.signature(cls, eval_str=True)
    except NameError:
        # Names that a user's module imports for type checkers only.
        signature = inspect.signature(cls)
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(parameter.annotation) is Unpack:
            options = get_args(parameter.annotation)[0].__annotations__
            found |= {key: inspect.Parameter(key, parameter.KEYWORD_ONLY, default=None) for key in options}
        else:
            found[name] = parameter
    return found


def takes(spec: Any, name: str) -> bool:
    """Whether the class that a spec names has a parameter ``name`` that the spec leaves open.

    Raises:
        ConfigError: as :func:`build` does.
    """
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return False
    given = str(spec["class_path"])
    parameters = _parameters(import_class(SHORT_NAMES.get(given, given)))
    return name in parameters and name not in (spec.get("init_args") or {})


def backend_fingerprint(backend: Any) -> str:
    """What decides a backend's answers: its ``fingerprint``, else its class, its source and its attributes.

    Of attributes the plain ones count, and public containers, arrays and other backends. What the engine cannot read
    (a torch module, an open file) counts by its class alone: a backend that holds such things needs a ``fingerprint``.
    """
    own = getattr(backend, "fingerprint", None)
    cls = type(backend)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if isinstance(own, str):
        return f"{name}:{own}"
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        source = ""
    held = getattr(backend, "__dict__", {})
    # Private containers are caches more often than settings, and grow while a backend works.
    told = {k: _told(v) for k, v in sorted(held.items()) if isinstance(v, _PLAIN) or not k.startswith("_")}
    return f"{name}:{fingerprint([source, told])}"


_PLAIN = (str, int, float, bool, tuple, list, Path)


def _told(value: Any) -> Any:
    """A value as plain data that is equal for equal values."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _told(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_told(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, (Captioner, Summarizer, ConceptImages, ImageEncoder, TextEncoder)):
        return backend_fingerprint(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _told(getattr(value, f.name)) for f in fields(value)}
    return f"{type(value).__module__}.{type(value).__qualname__}"
