"""The command ``dnd``: describe the units of any vision network from a terminal."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnd_core.config import DescribeConfig
from dnd_core.errors import ConfigError, DndError

if TYPE_CHECKING:
    from dnd_core.folders import FolderImages
    from dnd_core.images import ImageSet

__all__ = ["describe_folder", "layers", "main", "run"]

Spec = str | dict[str, Any]
Commands = Mapping[str, Any]
"""Name to function, or to a mapping of the same kind: ``{"bench": {"labels": ..., "shortcuts": ...}}``."""
PAPER = DescribeConfig()
VALUELESS = ("--help", "--print_config")
TOLD = 10
"""So many files left out are named on the terminal; the manifest lists all of them."""


def layers(
    model: str, weights: Path | None = None, random_weights: bool = False, input_size: int | None = None
) -> None:
    """List the layers of a network whose units can be described, with their shapes.

    Args:
        model: torchvision:NAME, timm:NAME, torchscript:PATH, or a factory package.module:function.
        weights: state dict (safetensors, or a pickle of plain tensors).
        random_weights: list a network without weights.
        input_size: rows and columns of its images, where the network does not say.
    """
    from dnd_core.layers import list_layers
    from dnd_core.loading import load

    network = load(model, weights, random_weights=random_weights, input_size=input_size)
    found = list_layers(network)
    width = max(len(info.name) for info in found)
    print(f"{'layer':<{width}}  {'kind':<8}  {'units':>6}  shape of one image's activation")  # noqa: T201
    for info in found:
        print(f"{info.name:<{width}}  {info.kind:<8}  {info.units:>6}  {tuple(info.shape)}")  # noqa: T201


# Not called describe: the parser would look that name up in dnd_core, and torch be imported to show help.
def describe_folder(
    model: str,
    images: Path,
    layer: list[str] | str,
    out: Path,
    weights: Path | None = None,
    random_weights: bool = False,
    input_size: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    class_names: list[str] | None = None,
    captioner: Spec = "measured",
    summarizer: Spec = "keyphrases",
    concept_images: Spec = "pool",
    image_encoder: Spec = "caption-space",
    text_encoder: Spec = "sentences",
    pool: Path | None = None,
    pool_share: float = 0.25,
    settings: DescribeConfig = PAPER,
    resume: bool = False,
    quiet: bool = False,
) -> None:
    """Label every unit of some layers of a network from a folder of images.

    Args:
        model: torchvision:NAME, timm:NAME, torchscript:PATH, or a factory package.module:function.
        images: folder of probe images.
        layer: layers by dotted path or glob, several with commas between; output is the network's own output.
        out: run folder to write.
        weights: state dict (safetensors, or a pickle of plain tensors).
        random_weights: describe an untrained network, for trials.
        input_size: rows and columns of the images the network sees; its published size by default.
        mean: of each channel, subtracted from pixels in 0 to 1; the published weights' own by default.
        std: likewise, divided by.
        class_names: names of the outputs.
        captioner: short name, class path, or class_path with init_args.
        summarizer: likewise.
        concept_images: likewise.
        image_encoder: likewise.
        text_encoder: likewise.
        pool: folder of images that concept images are retrieved from; by default a part of images set aside.
        pool_share: that part, where concept images are retrieved and no pool is given.
        settings: everything else; the paper's values by default.
        resume: go on with the run in out; recompute only what changed.
        quiet: no progress.
    """
    from dnd_core.backends.assembly import assemble
    from dnd_core.folders import FolderImages
    from dnd_core.loading import load
    from dnd_core.pipeline import describe
    from dnd_core.progress import ProgressReport
    from dnd_core.registry import takes

    if not 0 < pool_share < 1:
        raise ConfigError(f"--pool_share must be between 0 and 1, got {pool_share}")
    network = load(
        model,
        weights,
        class_names=tuple(class_names or ()),
        random_weights=random_weights,
        input_size=input_size,
        mean=mean,
        std=std,
    )
    found = FolderImages(images, network.input_shape[1:])
    probe: ImageSet = found
    skipped = list(found.skipped)
    context: dict[str, Any] = {"size": network.input_shape[1:]}
    if takes(concept_images, "pool"):
        probe, context["pool"], skipped = _apart(found, pool, pool_share, settings.seed)
    elif pool is not None:
        raise ConfigError(f"--pool is of no use to --concept_images {concept_images}: leave one of them out")
    backends = assemble(
        {
            "captioner": captioner,
            "summarizer": summarizer,
            "concept_images": concept_images,
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
        },
        **context,
    )
    for name, reason in skipped[:TOLD]:
        print(f"left out {name}: {reason}", file=sys.stderr)  # noqa: T201
    if len(skipped) > TOLD:
        more = f"{len(skipped) - TOLD} more files; manifest.json lists them all"
        print(f"left out {more}", file=sys.stderr)  # noqa: T201
    header = {"skipped": [list(item) for item in skipped]}
    names = layer.split(",") if isinstance(layer, str) else layer
    with ProgressReport(quiet) as progress:
        done = describe(
            network,
            probe,
            [name.strip() for name in names],
            out,
            backends,
            settings,
            resume=resume,
            progress=progress,
            header=header,
        )
    summarise(done.neurons, out)


def _apart(
    found: FolderImages, pool: Path | None, share: float, seed: int
) -> tuple[ImageSet, ImageSet, list[tuple[str, str]]]:
    """The probe, the pool of concept images, and all files left out; no image is in both."""
    from dnd_core.folders import FolderImages
    from dnd_core.images import Subset
    from dnd_core.verification import split

    if pool is None:
        ours, theirs = split(len(found), None, share, seed + 1)
        return Subset(found, ours.tolist()), Subset(found, theirs.tolist()), list(found.skipped)
    held = FolderImages(pool, (found.shape[1], found.shape[2]))
    shared = {path.resolve() for path in found.paths} & {path.resolve() for path in held.paths}
    if shared:
        raise ConfigError(
            f"{len(shared)} images are in --images {found.root} and in --pool {pool}: concept images must be other "
            "images than the probe's, or labels would prove themselves"
        )
    return found, held, [*found.skipped, *((f"{pool}: {name}", reason) for name, reason in held.skipped)]


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


def run(commands: Commands, argv: Sequence[str] | None, program: str) -> int:
    """Run one of some commands and turn errors into exit codes: 2 and one sentence for bad input.

    Args:
        commands: name to function; arguments become options, and those without a default also take bare words in their
            order (``diff RUN_A RUN_B``). A mapping in a function's place is a group of commands (``study eurosat``).
        argv: words of the command line; ``sys.argv`` when None.
        program: shown in help.

    Returns:
        What the command returned when that is a number, else 0.
    """
    from jsonargparse import auto_parser

    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = _spelled([word for word in words if word != "--debug"], commands)
    try:
        parser = auto_parser(dict(commands), prog=program, as_positional=False, parser_class=_parser())
        chosen = parser.instantiate(parser.parse_args(words))
        command: Any = commands
        while isinstance(command, Mapping):
            name = chosen.subcommand
            command, chosen = command[name], chosen[name]
        # Called here and not by the library, which takes an argument named config for its own.
        wanted = inspect.signature(command).parameters
        answer = command(**{name: value for name, value in chosen.items() if name in wanted})
    except DndError as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"{program}: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped; start again with --resume to go on", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough (``| head``); Python must not try to flush the rest on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:
        # Python would end with 1, and 1 is a finding: what nobody foresaw must not look like one.
        traceback.print_exc()
        return 2
    return answer if isinstance(answer, int) else 0


def _leaf(words: Sequence[str], commands: Commands) -> tuple[Callable[..., Any] | None, int]:
    """The command that the first words name, None where they name none, and how many words that takes."""
    found: Any = commands
    for number, word in enumerate(words):
        if word not in found:
            break
        found = found[word]
        if not isinstance(found, Mapping):
            return found, number + 1
    return None, 0


def _functions(commands: Commands) -> Iterator[Callable[..., Any]]:
    for found in commands.values():
        if isinstance(found, Mapping):
            yield from _functions(found)
        elif callable(found):
            yield found


def _spelled(words: Sequence[str], commands: Commands) -> list[str]:
    """Words as the parser wants them: ``--fail-on`` is ``--fail_on``, ``--resume`` alone is ``--resume true``, and a word
    that belongs to no option is the command's next argument without a default.
    """
    flags = {
        f"--{name}"
        for function in _functions(commands)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation in (bool, "bool")
    }
    command, depth = _leaf(words, commands)
    spelled: list[str] = []
    bare: list[int] = []
    takes_value = False
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            option = "--" + option[2:].replace("-", "_")
            word = option + equals + value
        elif not takes_value and depth and number >= depth and not word.startswith("-"):
            bare.append(len(spelled))
        takes_value = option.startswith("--") and not equals and option not in VALUELESS
        spelled.append(word)
        answer = words[number + 1].lower() if number + 1 < len(words) else ""
        if word in flags and answer not in ("true", "false", "yes", "no"):
            spelled.append("true")
            takes_value = False
    return _named(spelled, bare, command) if bare and command is not None else spelled


def _named(spelled: list[str], bare: Sequence[int], command: Callable[..., Any]) -> list[str]:
    """The words with the bare ones, from the left, made options for the arguments that were not given by name."""
    given = {word.partition("=")[0] for word in spelled}
    parameters = inspect.signature(command).parameters.values()
    free = [f"--{p.name}" for p in parameters if p.default is p.empty and f"--{p.name}" not in given]
    places = dict(zip(bare, free, strict=False))
    return [
        part for number, word in enumerate(spelled) for part in ([places[number], word] if number in places else [word])
    ]


def _parser() -> type[Any]:
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        """Says what is wrong in one sentence, without the whole usage before it."""

        def error(self, message: str, ex: Exception | None = None) -> Any:
            told = " ".join(message.split())
            if told.startswith("unrecognized arguments: "):
                near = get_close_matches(told.split()[2].partition("=")[0], self._option_string_actions, n=1)
                told += f"; did you mean {near[0]}?" if near else ""
            print(f"{self.prog.split()[0]}: error: {told} (see --help)", file=sys.stderr)  # noqa: T201
            raise SystemExit(2)

    return Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``dnd``."""
    return run({"describe": describe_folder, "layers": layers}, argv, "dnd")


if __name__ == "__main__":
    sys.exit(main())
