"""What probing costs beside the bare forward pass, and whether its memory grows with the number of images.

ResNet-18 with random weights at 64 px; layer3 (256 units) and layer4 (512 units) are pooled and written to disk. The bare
pass reads the same batches in the same way (one thread reads ahead) with the same thread settings, but no hooks and no
writing. Both are timed in turns, so that a busy machine slows both; the ratio is the median of the pairs' ratios.
Memory is the anonymous resident memory (files in the page cache do not count) a fresh process has at its highest.

    python benchmarks/probing.py [--images 2000] [--repeats 7] [--threads N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnd_core.config import ProbingConfig
from dnd_core.forward import blocks_of, prefetched, tensor_of
from dnd_core.images import RGB, ProbeImage
from dnd_core.layers import LayerInfo, resolve
from dnd_core.loading import load
from dnd_core.networks import Network
from dnd_core.probing import probe

SIZE, LAYERS = 64, ("layer3", "layer4")
SMALL, LARGE = 2_000, 20_000


class GeneratedImages:
    """N random images, each made anew whenever it is read, so that the set itself takes no memory."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._base = np.random.default_rng(0).random((64, 3, SIZE, SIZE), dtype=np.float32)
        self.channels, self.shape = RGB, (3, SIZE, SIZE)
        self.labels, self.blocks, self.class_names = None, None, ()
        self.fingerprint = hashlib.sha256(str(count).encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> ProbeImage:
        pixels = self.pixels([index])[0]
        return ProbeImage(pixels, (pixels.transpose(1, 2, 0) * 255).astype(np.uint8))

    def pixels(self, indices: Sequence[int]) -> NDArray[np.float32]:
        rows = np.asarray(indices, dtype=np.int64)
        shift = (rows // 64 % SIZE).reshape(-1, 1)
        columns = (np.arange(SIZE)[None] + shift) % SIZE
        return np.take_along_axis(self._base[rows % 64], columns[:, None, None, :], axis=3)


def bare(network: Network, images: GeneratedImages, batch_size: int) -> None:
    device = next(network.module.parameters()).device
    for _, pixels in prefetched(lambda rows: images.pixels(list(rows)), blocks_of(len(images), batch_size)):
        network(tensor_of(pixels, device))


def probing(
    network: Network, images: GeneratedImages, layers: list[LayerInfo], config: ProbingConfig, folder: Path
) -> None:
    out = {
        info.name: np.lib.format.open_memmap(folder / f"{info.name}.npy", "w+", np.float32, (len(images), info.units))
        for info in layers
    }
    probe(network, images, layers, config, out=out)
    for array in out.values():
        array.flush()


def anonymous_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def peak_memory(count: int) -> float:
    """The highest anonymous memory while probing, looked at after every block."""
    network, config = network_at(), ProbingConfig()
    layers, images = resolve(network, LAYERS), GeneratedImages(count)
    seen = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        out = {
            info.name: np.lib.format.open_memmap(
                Path(folder) / f"{info.name}.npy", "w+", np.float32, (count, info.units)
            )
            for info in layers
        }
        probe(network, images, layers, config, out=out, on_block=lambda _done: seen.append(anonymous_mb()))
    return max(seen)


def network_at() -> Network:
    return load("torchvision:resnet18", random_weights=True, input_size=SIZE)


def in_fresh_process(count: int, threads: int) -> float:
    command = [sys.executable, __file__, "--memory-of", str(count), "--threads", str(threads)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(answer.splitlines()[-1])


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=SMALL, help="images of a timed pass")
    parser.add_argument("--repeats", type=int, default=7, help="timed pairs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_memory(options.memory_of))
        return

    network, images, config = network_at(), GeneratedImages(options.images), ProbingConfig()
    layers = resolve(network, LAYERS)
    timed: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        bare(network, GeneratedImages(256), config.batch_size)
        probing(network, GeneratedImages(256), layers, config, Path(folder))
        for repeat in range(options.repeats):
            seconds = {}
            # Which goes first alternates: a drift of the machine's speed favours neither.
            for what in ("bare", "probing") if repeat % 2 == 0 else ("probing", "bare"):
                start = time.perf_counter()
                if what == "bare":
                    bare(network, images, config.batch_size)
                else:
                    probing(network, images, layers, config, Path(folder))
                seconds[what] = time.perf_counter() - start
            timed.append((seconds["bare"], seconds["probing"]))
    forward_s, probing_s = (statistics.median(column) for column in zip(*timed, strict=True))
    ratio = statistics.median(after / before for before, after in timed)
    small, large = (in_fresh_process(count, options.threads) for count in (SMALL, LARGE))

    print(f"ResNet-18, {SIZE} px, {' + '.join(f'{i.name} ({i.units})' for i in layers)}, batch {config.batch_size}")
    print(f"{'pass':<28}{'seconds':>10}{'images/s':>12}")
    for title, value in (("bare forward", forward_s), ("probing", probing_s)):
        print(f"{title:<28}{value:>10.2f}{options.images / value:>12.0f}")
    print(f"{'ratio':<28}{ratio:>10.3f}   pairs {', '.join(f'{a / b:.3f}' for b, a in timed)}")
    print(f"{'images':<28}{'peak memory, MB':>16}")
    for count, value in ((SMALL, small), (LARGE, large)):
        print(f"{count:<28}{value:>16.1f}")
    figures = {
        "forward_s": forward_s,
        "probing_s": probing_s,
        "ratio": ratio,
        "rss_small_mb": small,
        "rss_large_mb": large,
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
