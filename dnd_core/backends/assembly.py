"""Backends from a configuration's words, each given what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnd_core.errors import ConfigError
from dnd_core.pipeline import Backends
from dnd_core.protocols import Captioner, ConceptImages, ImageEncoder, Summarizer, TextEncoder
from dnd_core.registry import build

__all__ = ["assemble"]

_SEAMS = {
    "captioner": (Captioner, "caption(images)"),
    "summarizer": (Summarizer, "propose(evidence, n)"),
    "concept_images": (ConceptImages, "show(concept, n)"),
    "image_encoder": (ImageEncoder, "encode_images(images)"),
    "text_encoder": (TextEncoder, "encode_texts(texts)"),
}


def assemble(specs: Mapping[str, Any], **context: Any) -> Backends:
    """Build the five backends.

    Args:
        specs: ``captioner``, ``summarizer``, ``concept_images``, ``image_encoder`` and ``text_encoder``, each a short
            name, a class path, or a mapping of ``class_path`` and ``init_args``.
        context: passed to every backend that has a parameter of that name: ``pool``, ``probe``, ``size`` and, as they
            are built, ``encoder`` (the text encoder), ``captioner`` and ``clip`` (an image encoder that reads texts).

    Raises:
        ConfigError: a class is unknown, takes other arguments, or has not the method of its seam.
    """
    text = _made("text_encoder", specs, context)
    context |= {"encoder": text, "text_encoder": text}
    captioner = _made("captioner", specs, context)
    context["captioner"] = captioner
    image = _made("image_encoder", specs, context)
    if isinstance(image, TextEncoder):
        # A CLIP finds concept images by sight; a sentence encoder only by their captions.
        context["clip"] = image
        retrieval = {**context, "encoder": image}
    else:
        retrieval = context
    summarizer = _made("summarizer", specs, context)
    return Backends(captioner, summarizer, _made("concept_images", specs, retrieval), image, text)


def _made(seam: str, specs: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
    made = build(specs[seam], **context)
    protocol, method = _SEAMS[seam]
    if not isinstance(made, protocol):
        cls = type(made)
        raise ConfigError(f"{cls.__module__}.{cls.__qualname__} cannot be the {seam}: it has no method {method}")
    return made
