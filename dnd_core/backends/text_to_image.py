"""Concept images by a diffusers text-to-image pipeline (Bai et al., TMLR 2025, section 3.3)."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dnd_core import prompts
from dnd_core.backends.weights import (
    content_hash,
    require_package,
    resolve_device,
    resolve_dtype,
    resolve_weights,
    stable_hash,
)
from dnd_core.errors import BackendError, BackendUnavailable, ConfigError
from dnd_core.images import ProbeImage

__all__ = ["TextToImage"]

log = logging.getLogger(__name__)


class TextToImage:
    """Any text-to-image pipeline that diffusers loads: Stable Diffusion, SDXL, PixArt, ...

    Args:
        model: a folder, or a hub id.
        size: (height, width) in pixels of the images handed over: the input size of the network they are scored with.
        revision: branch, tag or commit on the hub.
        template: the prompt, with ``{concept}`` where the concept goes.
        negative_prompt: what the images must not show; empty for none, or where the pipeline takes none.
        scheduler: class name of the diffusers scheduler; empty keeps the pipeline's own.
        steps: denoising steps.
        guidance: classifier-free guidance; None for the pipeline's default.
        render_size: (height, width) at which the pipeline works; None for its default.
        batch_size: images a forward pass.
        seed: with the concept and the image's number it decides the noise an image starts from.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto`` (float32 on a CPU, else bfloat16), ``float32``, ``float16`` or ``bfloat16``.

    """

    def __init__(
        self,
        model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5",
        *,
        size: tuple[int, int] = (224, 224),
        revision: str | None = None,
        template: str = prompts.PHOTO_TEMPLATE,
        negative_prompt: str = "",
        scheduler: str = "DPMSolverMultistepScheduler",
        steps: int = 25,
        guidance: float | None = None,
        render_size: tuple[int, int] | None = None,
        batch_size: int = 5,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        if steps < 1 or batch_size < 1 or min(size) < 1 or (render_size is not None and min(render_size) < 8):
            raise ConfigError("steps, batch_size and size must be at least 1, and render_size at least 8")
        if "{concept}" not in template:
            raise ConfigError(f"template must hold {{concept}}, got {template!r}")
        self.model, self.size, self.revision, self.template = model, (size[0], size[1]), revision, template
        self.negative_prompt, self.scheduler, self.steps, self.guidance = negative_prompt, scheduler, steps, guidance
        self.render_size, self.batch_size, self.seed = render_size, batch_size, seed
        self.device, self.dtype = device, dtype

    def __repr__(self) -> str:
        return f"TextToImage({self.model!r}, size={self.size})"

    @functools.cached_property
    def path(self) -> Path:
        """The pipeline's folder.

        Raises:
            BackendUnavailable: it is missing and cannot be fetched, or it is not whole.

        """
        return resolve_weights(self.model, needs=("model_index.json",), revision=self.revision, nested=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights' content and of every setting that decides the images; the device is not among them."""
        settings = [
            [*self.size],
            self.template,
            self.negative_prompt,
            self.scheduler,
            self.steps,
            self.guidance,
            [*self.render_size] if self.render_size else None,
            self.batch_size,
            self.seed,
            self.dtype,
        ]
        return stable_hash("TextToImage", content_hash(self.path), settings)

    def check(self) -> None:
        """Look for everything that is needed, without loading the weights.

        Raises:
            BackendUnavailable: a package, the weights or the device is missing, or the pipeline brings its own code.
            ConfigError: the scheduler is unknown, or not one for this pipeline.

        """
        require_package("diffusers", "diffusers")
        resolve_dtype(self.dtype, resolve_device(self.device))
        import diffusers

        index = json.loads((self.path / "model_index.json").read_text())
        if not hasattr(diffusers, str(index.get("_class_name"))):
            raise BackendUnavailable(
                f"{self.model} is a {index.get('_class_name')}, which the installed diffusers does not know, and code "
                f"from checkpoints is never run: choose another pipeline or a newer diffusers"
            )
        own = index.get("scheduler", [None, None])[1]
        if self.scheduler and self.scheduler != own:
            self._check_scheduler(own)

    def _check_scheduler(self, own: str | None) -> None:
        import diffusers

        known = getattr(diffusers, self.scheduler, None)
        if not (isinstance(known, type) and issubclass(known, diffusers.SchedulerMixin)):
            raise ConfigError(f"scheduler {self.scheduler!r} is not a class of diffusers: for instance {own}")
        configuration = json.loads((self.path / "scheduler" / "scheduler_config.json").read_text())
        flow = "FlowMatch" in str(own) or configuration.get("prediction_type") == "flow_prediction"
        compatible = [cls.__name__ for cls in getattr(diffusers, str(own))._get_compatibles()]
        # A flow-matching model denoised on a diffusion schedule gives noise, not an error.
        if flow or self.scheduler not in compatible:
            raise ConfigError(
                f"{self.model} was trained for {own}, and {self.scheduler} does not fit it: set scheduler to an empty "
                f"string to keep its own" + ("" if flow else f", or to one of {', '.join(sorted(compatible))}")
            )

    @functools.cached_property
    def _pipeline(self) -> Any:
        self.check()
        import diffusers
        from diffusers.utils import logging as diffusers_logging

        device = resolve_device(self.device)
        index = json.loads((self.path / "model_index.json").read_text())
        diffusers_logging.disable_progress_bar()
        try:
            pipeline = self._from(diffusers.AutoPipelineForText2Image, device)
        except ValueError:
            # Not every text-to-image pipeline is in the auto table; the checkpoint names its own class.
            pipeline = self._from(getattr(diffusers, index["_class_name"]), device)
        if self.scheduler:
            pipeline.scheduler = getattr(diffusers, self.scheduler).from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)

    def _from(self, loader: Any, device: str) -> Any:
        safe = any(self.path.rglob("*.safetensors"))
        try:
            return loader.from_pretrained(
                self.path,
                local_files_only=True,
                dtype=resolve_dtype(self.dtype, device),
                use_safetensors=True if safe else None,
            )
        except (OSError, RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BackendUnavailable(f"{self.model} cannot be loaded as a pipeline: {reason}") from error

    def show(self, concept: str, n: int) -> list[ProbeImage]:
        """``n`` RGB images of ``concept`` in [0, 1] at :attr:`size`, the same ones for the same concept and settings.

        Fewer where the pipeline's safety checker withholds some.

        Raises:
            BackendError: the pipeline failed, for instance out of memory.
            BackendUnavailable, ConfigError: see :meth:`check`.

        """
        shown: list[ProbeImage] = []
        prompt = self.template.replace("{concept}", concept)
        # Whole batches only: an image must not depend on how many are asked for.
        for start in range(0, n, self.batch_size):
            numbers = range(start, start + self.batch_size)
            for number, picture in zip(numbers, self._render(prompt, concept, numbers), strict=True):
                if number < n and picture is not None:
                    shown.append(self._probe_image(picture, concept, prompt, number))
        if len(shown) < n:
            log.warning("%r: %d of %d images of %r were withheld", self, n - len(shown), n, concept)
        return shown

    def _render(self, prompt: str, concept: str, numbers: range) -> list[Any]:
        import torch

        pipeline = self._pipeline
        # Noise is drawn on the CPU, so that a seed means the same on every device.
        noise = [torch.Generator("cpu").manual_seed(self._image_seed(concept, number)) for number in numbers]
        options: dict[str, Any] = {}
        if self.guidance is not None:
            options["guidance_scale"] = self.guidance
        if self.negative_prompt:
            options["negative_prompt"] = [self.negative_prompt] * len(noise)
        if self.render_size is not None:
            options["height"], options["width"] = self.render_size
        try:
            with torch.inference_mode():
                made = pipeline(
                    prompt=[prompt] * len(noise), generator=noise, num_inference_steps=self.steps, **options
                )
        except torch.cuda.OutOfMemoryError as error:
            raise BackendError(f"{self!r}: out of memory at {len(noise)} images: lower batch_size") from error
        except (RuntimeError, ValueError, TypeError) as error:
            raise BackendError(f"{self!r} failed on {prompt!r}: {error}") from error
        withheld = getattr(made, "nsfw_content_detected", None) or [False] * len(made.images)
        return [None if bad else picture for picture, bad in zip(made.images, withheld, strict=True)]

    def _image_seed(self, concept: str, number: int) -> int:
        return int(stable_hash(concept, self.seed, number)[:15], 16)

    def _probe_image(self, picture: Any, concept: str, prompt: str, number: int) -> ProbeImage:
        from PIL import Image

        height, width = self.size
        rgb = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)
        pixels = np.ascontiguousarray((rgb / np.float32(255)).transpose(2, 0, 1), dtype=np.float32)
        made = {"source": "text-to-image", "concept": concept, "prompt": prompt, "number": number}
        return ProbeImage(pixels, rgb, metadata={**made, "seed": self._image_seed(concept, number)})
