"""Backends from a configuration's words, each given what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnd_core.pipeline import Backends
from dnd_core.registry import build

__all__ = ["assemble"]


def assemble(specs: Mapping[str, Any], **context: Any) -> Backends:
    """Build the five backends.

    Args:
        specs: ``captioner``, ``summarizer``, ``concept_images``, ``image_encoder`` and ``text_encoder``, each a short
            name, a class path, or a mapping of ``class_path`` and ``init_args``.
        context: passed to every backend that has a parameter of that name: ``pool``, ``probe``, ``size`` and, as they
            are built, ``encoder`` (the text encoder), ``captioner`` and ``clip`` (an image encoder that reads texts).

    Raises:
        ConfigError: a class is unknown or takes other arguments.
    """
    text = build(specs["text_encoder"], **context)
    context |= {"encoder": text, "text_encoder": text}
    captioner = build(specs["captioner"], **context)
    context["captioner"] = captioner
    image = build(specs["image_encoder"], **context)
    if hasattr(image, "encode_texts"):
        # A CLIP finds concept images by sight; a sentence encoder only by their captions.
        context["clip"] = image
        retrieval = {**context, "encoder": image}
    else:
        retrieval = context
    summarizer = build(specs["summarizer"], **context)
    return Backends(captioner, summarizer, build(specs["concept_images"], **retrieval), image, text)
