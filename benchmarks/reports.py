"""Seconds and bytes of every report format, for a run of the demo's size and for one of 3,000 units.

Without ``--run`` a run is drawn (its shapes are those of a real one). The last line is one JSON object.
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


def measure(root: Path, names: list[str]) -> dict[str, tuple[float, int]]:
    """Wall seconds and bytes of each format; the run is opened anew for each, as a user's command does."""
    figures = {}
    for name in names:
        start = time.perf_counter()
        data = FORMATS[name].make(open_run(root))
        figures[name] = (time.perf_counter() - start, len(data))
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
    print(f"{'format':<12}{'demo s':>9}{'demo MB':>10}{f'{chosen.units} s':>11}{f'{chosen.units} MB':>11}")
    for name in names:
        (quick, small), (slow, big) = figures["demo"][name], figures["large"][name]
        print(f"{name:<12}{quick:>9.2f}{small / 1e6:>10.2f}{slow:>11.2f}{big / 1e6:>11.2f}")
    print(f"first report of a process pays {warm:.1f} s for imports once")
    summary = {
        "pdf_s": round(figures["demo"]["pdf"][0], 2),
        "html_s": round(figures["demo"]["html"][0], 2),
        "pdf_mb": round(figures["demo"]["pdf"][1] / 1e6, 3),
        "html_mb": round(figures["demo"]["html"][1] / 1e6, 3),
        "pdf_large_s": round(figures["large"]["pdf"][0], 2),
        "html_large_s": round(figures["large"]["html"][0], 2),
        "pdf_large_mb": round(figures["large"]["pdf"][1] / 1e6, 3),
        "html_large_mb": round(figures["large"]["html"][1] / 1e6, 3),
        "formats": len(names),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
