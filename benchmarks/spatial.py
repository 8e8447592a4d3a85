"""Speed and peak memory of mapping units over a scene, against the bare forward passes of the same windows.

Maps units of two layers and the classes of a randomly initialised ``resnet10t`` (13 bands, chips of 32 pixels resized
to 64) over the two bundled Sentinel-2 scenes, each in a process of its own so that peaks do not mix. The share of bare
is taken from processor time, which other programs on the machine disturb less than wall time.

    python benchmarks/spatial.py [--overlap 0.5] [--units 16] [--resolution 0] [--batch-size 64]

``--resolution`` is scene pixels a map cell; 0 takes each layer's own. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

SCENES = ("brandenburg", "delmarva")


def measure(name: str, overlap: float, units: int, resolution: int, batch_size: int) -> dict[str, float | str]:
    """Map one scene; figures of this process."""
    import timm
    import torch

    from dnd_core.layers import resolve
    from dnd_core.networks import Network
    from dnd_core.types import UnitId
    from geoaudit.bundled import data_path
    from geoaudit.scenes import open_scene
    from geoaudit.spatial import map_units

    torch.manual_seed(0)
    scene = open_scene(data_path(f"{name}.tif"))
    module = timm.create_model("resnet10t", pretrained=False, in_chans=len(scene.bands), num_classes=5)

    def preprocess(pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(pixels, size=(64, 64), mode="bilinear", align_corners=False)

    network = Network(module, preprocess, (len(scene.bands), 32, 32), channels=scene.bands)
    layers = resolve(network, ["layer3", "layer4", "output"])
    wanted = [UnitId(layer, index) for layer in ("layer3", "layer4") for index in range(units)]
    network(torch.zeros(batch_size, *network.input_shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        settings = {"overlap": overlap, "resolution": resolution or None, "batch_size": batch_size}
        start, busy = time.perf_counter(), time.process_time()
        result = map_units(network, scene, wanted, layers, folder, **settings)
        mapped, mapped_busy = time.perf_counter() - start, time.process_time() - busy
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = torch.rand(batch_size, *network.input_shape)
    start, busy = time.perf_counter(), time.process_time()
    for done in range(0, result.windows, batch_size):
        network(batch[: result.windows - done])
    bare, bare_busy = time.perf_counter() - start, time.process_time() - busy
    mpx = scene.width * scene.height / 1e6
    return {
        "scene": name,
        "mpx": round(mpx, 2),
        "windows": result.windows,
        "seconds": round(mapped, 1),
        "mpx_per_s": round(mpx / mapped, 3),
        "bare_mpx_per_s": round(mpx / bare, 3),
        "share_of_bare": round(bare_busy / mapped_busy, 3),
        "peak_mb": round(after / 1024),
        "added_mb": round((after - before) / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--scene", choices=SCENES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scene:
        print(json.dumps(measure(given.scene, given.overlap, given.units, given.resolution, given.batch_size)))
        return
    rows = []
    for scene in SCENES:
        command = [sys.executable, __file__, *sys.argv[1:], "--scene", scene]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(answer.splitlines()[-1]))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(json.dumps({row["scene"]: row for row in rows}))


if __name__ == "__main__":
    main()
