"""The command ``dnd``: describe the units of any vision network from a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, DndError

__all__ = ["describe", "layers", "main", "run"]

Spec = str | dict[str, Any]


def layers(model: str, weights: Path | None = None, random_weights: bool = False) -> None:
    """List the layers of a network whose units can be described, with their shapes.

    Args:
        model: torchvision:NAME, timm:NAME, torchscript:PATH or a class path.
        weights: state dict (safetensors, or a pickle of plain tensors).
        random_weights: list a network without weights.
    """
    from dnd_core.layers import list_layers
    from dnd_core.loading import load

    network = load(model, weights, random_weights=random_weights)
    found = list_layers(network)
    width = max(len(info.name) for info in found)
    print(f"{'layer':<{width}}  {'kind':<8}  {'units':>6}  shape of one image's activation")  # noqa: T201
    for info in found:
        print(f"{info.name:<{width}}  {info.kind:<8}  {info.units:>6}  {tuple(info.shape)}")  # noqa: T201


def describe(
    model: str,
    images: Path,
    layer: list[str],
    out: Path,
    weights: Path | None = None,
    random_weights: bool = False,
    class_names: list[str] | None = None,
    captioner: Spec = "measured",
    summarizer: Spec = "keyphrases",
    concept_images: Spec = "pool",
    image_encoder: Spec = "caption-space",
    text_encoder: Spec = "sentences",
    pool: Path | None = None,
    pool_share: float = 0.25,
    settings: DescribeConfig | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> None:
    """Label every unit of some layers of a network from a folder of images.

    Args:
        model: torchvision:NAME, timm:NAME, torchscript:PATH or a class path of a factory.
        images: folder of probe images.
        layer: layers by dotted path or glob; ``output`` is the network's own output.
        out: run folder to write.
        weights: state dict (safetensors, or a pickle of plain tensors).
        random_weights: describe an untrained network, for trials.
        class_names: names of the outputs.
        captioner: short name, class path, or class_path with init_args.
        summarizer: likewise.
        concept_images: likewise.
        image_encoder: likewise.
        text_encoder: likewise.
        pool: folder of images that concept images are retrieved from; by default a part of ``images`` set aside.
        pool_share: that part.
        settings: everything else, see ``dnd_core.config``.
        resume: go on with the run in ``out``; recompute only what changed.
        quiet: no progress.
    """
    from dnd_core.backends.assembly import assemble
    from dnd_core.folders import FolderImages
    from dnd_core.images import ImageSet, Subset
    from dnd_core.loading import load
    from dnd_core.pipeline import describe as describe_network
    from dnd_core.progress import ProgressReport
    from dnd_core.verification import split

    if not 0 < pool_share < 1:
        raise ConfigError("--pool_share must be between 0 and 1")
    settings = settings or DescribeConfig()
    network = load(model, weights, class_names=tuple(class_names or ()), random_weights=random_weights)
    found = FolderImages(images, network.input_shape[1:])
    probe: ImageSet = found
    held: ImageSet
    if pool is not None:
        held = FolderImages(pool, network.input_shape[1:])
    else:
        ours, theirs = split(len(found), None, pool_share, settings.seed + 1)
        probe, held = Subset(found, ours.tolist()), Subset(found, theirs.tolist())
    backends = assemble(
        {
            "captioner": captioner,
            "summarizer": summarizer,
            "concept_images": concept_images,
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
        },
        pool=held,
        size=network.input_shape[1:],
    )
    header = {"skipped": [list(item) for item in found.skipped]}
    for name, reason in found.skipped:
        print(f"left out {name}: {reason}", file=sys.stderr)  # noqa: T201
    with ProgressReport(quiet) as progress:
        run_ = describe_network(
            network, probe, layer, out, backends, settings, resume=resume, progress=progress, header=header
        )
    summarise(run_.neurons, out)


def summarise(neurons: Any, out: Path) -> None:
    """Print how many units got a label, and the first ones of each layer."""
    for layer_name, part in neurons.groupby("layer", sort=False):
        counts = part["status"].value_counts()
        said = ", ".join(f"{counts.get(s, 0)} {s}" for s in ("labelled", "weak", "abstained", "dead"))
        print(f"{layer_name}: {len(part)} units: {said}")  # noqa: T201
        best = part[part["status"] == "labelled"].sort_values("r", ascending=False).head(8)
        for row in best.itertuples(index=False):
            print(f"  {row.layer}/{row.unit}: {'; '.join(row.labels)} (r {row.r:.2f})")  # noqa: T201
    print(f"written to {out}")  # noqa: T201


def run(commands: Mapping[str, Callable[..., Any]], argv: Sequence[str] | None, program: str) -> int:
    """Run one of some commands and turn errors into exit codes: 2 and one sentence for bad input.

    Args:
        commands: name to function; arguments become options.
        argv: words of the command line; ``sys.argv`` when None.
        program: shown in help.

    Returns:
        What the command returned when that is a number, else 0.
    """
    from jsonargparse import auto_cli

    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        answer = auto_cli(dict(commands), args=words, prog=program, as_positional=False)
    except DndError as error:
        if debug:
            raise
        print(f"{program}: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped; start again with --resume to go on", file=sys.stderr)  # noqa: T201
        return 130
    return answer if isinstance(answer, int) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``dnd``."""
    return run({"describe": describe, "layers": layers}, argv, "dnd")
