"""Seconds and bytes of every report format, for a run of the demo's size and for one of 3,000 units.

Without ``--run`` a run is drawn (its shapes are those of a real one). Beside wall time stands the processor's, which other
work on the machine does not lengthen. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from geoaudit.report import FORMATS
from geoaudit.results import open_run

DEMO_UNITS, LARGE_UNITS = 776, 3000


def measure(root: Path, names: list[str]) -> dict[str, tuple[float, float, int]]:
    """Wall seconds, processor seconds and bytes of each format; the run is opened anew for each, as a command does."""
    figures = {}
    for name in names:
        start, worked = time.perf_counter(), time.process_time()
        data = FORMATS[name].make(open_run(root))
        figures[name] = (time.perf_counter() - start, time.process_time() - worked, len(data))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="run folder to take as the demo instead of a drawn one")
    parser.add_argument("--units", type=int, default=LARGE_UNITS, help="units of the large run")
    chosen = parser.parse_args()
    from tests.geoaudit.report.synthetic_run import make_run

    names = list(FORMATS)
    with tempfile.TemporaryDirectory() as folder:
        demo = chosen.run or make_run(Path(folder) / "demo", units=DEMO_UNITS, side=24)
        large = make_run(Path(folder) / "large", units=chosen.units, side=36)
        # What every first report of a process pays once: imports and the drawing library's start.
        start = time.perf_counter()
        FORMATS["html"].make(open_run(make_run(Path(folder) / "small", units=16, side=6)))
        warm = time.perf_counter() - start
        figures = {"demo": measure(demo, names), "large": measure(large, names)}
    large_name = f"{chosen.units} units"
    print(f"{'':<12}{'demo':>24}{large_name:>28}")
    print(f"{'format':<12}" + "".join(f"{head:>9}" for head in ("wall s", "cpu s", "MB") * 2))
    for name in names:
        cells = [
            cell for size in ("demo", "large") for cell in (*figures[size][name][:2], figures[size][name][2] / 1e6)
        ]
        print(f"{name:<12}" + "".join(f"{cell:>9.2f}" for cell in cells))
    print(f"first report of a process pays {warm:.1f} s for imports once")
    summary: dict[str, float] = {"formats": len(names)}
    for size, suffix in (("demo", ""), ("large", "_large")):
        for name in ("pdf", "html"):
            wall, worked, data = figures[size][name]
            summary[f"{name}{suffix}_s"] = round(wall, 2)
            summary[f"{name}{suffix}_cpu_s"] = round(worked, 2)
            summary[f"{name}{suffix}_mb"] = round(data / 1e6, 3)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
