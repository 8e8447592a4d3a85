"""How fast the dashboard opens and answers over a large run, in a real Chromium, and what it needs.

A run of 20,000 tiles and 3,000 units is drawn (about three minutes and 10 GB of memory, once; ``--run`` keeps it), served
by ``geoaudit dashboard`` and visited. Opening is the time from a fresh browser's request until the overview stands and no
script runs (median of the visits); an interaction is timed until its result is seen. On pages with a map two seconds pass
before anything is done, as they would for a person: without a graphics card Chromium draws maps on a core of its own.
Tiles are asked for one after the other, none twice. Memory is the server's highest resident memory.

    python benchmarks/dashboard.py [--tiles 20000] [--units 3000] [--run DIR] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dashboards.layers import grid_of
from geoaudit.results import open_run
from tests.dashboards.driving import Visit, chromium, serving, visiting
from tests.geoaudit.report.synthetic_run import make_run

LOOK = 2000


class Memory(threading.Thread):
    """The highest resident memory of a process, in MB, looked at five times a second."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.on = psutil.Process(process), 0.0, True

    def run(self) -> None:
        while self.on:
            try:
                self.peak = max(self.peak, self.process.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.2)


def says(text: str) -> str:
    return f"document.body.innerText.includes({json.dumps(text)})"


def typed(visit: Visit, label: str, words: str, until: str, name: str) -> None:
    box = visit.page.get_by_label(label, exact=True)
    box.fill(words)
    visit.do(name, lambda: box.press("Enter"), until)


def interactions(visit: Visit) -> list[float]:
    """One round of what a user does; seconds of each."""
    page = visit.page
    visit.open("findings", "(page) findings")
    page.wait_for_timeout(LOOK)
    typed(visit, "Words", "edges", says("1 of 2 findings"), "filter the findings")
    visit.open("neurons", "(page) neurons")
    typed(visit, "Search by words or meaning", "thin cloud", says("nearest in meaning"), "search the neurons")
    visit.do("next page of neurons", page.get_by_role("button", name="Next").click, says("page 2 of"))
    visit.do("open a neuron", page.locator("[class*=st-key-open-] button").first.click, says("Labels considered"))
    visit.do("back to all neurons", page.get_by_role("button", name="All neurons").click, says("nearest in meaning"))
    visit.open("map?layer=unit:layer4/5", "(page) map")
    canvas = page.locator('[data-testid="stDeckGlJsonChart"] canvas').first
    canvas.wait_for()
    page.wait_for_timeout(LOOK)
    frame = canvas.bounding_box()
    for place, (x, y) in enumerate(((0.5, 0.45), (0.4, 0.6))):
        x, y = frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        before = page.evaluate("new URL(location).searchParams.get('place')")
        visit.do(
            f"click the map ({place + 1})",
            lambda x=x, y=y: page.mouse.click(x, y),
            f"new URL(location).searchParams.get('place') !== {json.dumps(before)} && {says('° north')}",
        )
    visit.open("concepts", "(page) concepts")
    visit.open("mitigate", "(page) mitigate")
    visit.open("review", "(page) review")
    box = page.get_by_label("Your name")
    box.fill("A. Reviewer")
    visit.do("give a name", lambda: box.press("Enter"), says("reviewed by you"))
    note = f"seen {time.time():.3f}"
    page.get_by_label("Note").fill(note)
    visit.do("store a review", page.get_by_role("button", name="Store").click, says(note))
    return [seconds for name, seconds in visit.times.items() if not name.startswith(("(page)", "open overview"))]


def tile_times(address: str, root: Path, count: int) -> list[float]:
    """Milliseconds of tiles of the scene, a unit, a concept and the classes, over the whole scene and at several zooms."""
    grid = grid_of(next(iter(open_run(root).scenes().values())))
    assert grid is not None
    west, south, east, north = grid.bounds
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    found = []
    layers = ("scene", "unit:layer4/5", "unit:layer3/2", "classes", "truth")
    for _ in range(20 * count):
        if len(found) == count:
            break
        zoom = int(rng.integers(max(grid.zoom - 4, 0), grid.zoom + 1))
        longitude, latitude = rng.uniform(west, east), math.radians(rng.uniform(south, north))
        x = int((longitude + 180) / 360 * 2**zoom)
        y = int((1 - math.log(math.tan(latitude) + 1 / math.cos(latitude)) / math.pi) / 2 * 2**zoom)
        layer = layers[len(found) % len(layers)]
        place = f"{address}/layers/tile/{zoom}/{x}/{y}.png?layer={urllib.parse.quote(layer)}"
        if place in seen:
            continue
        seen.add(place)
        begun = time.perf_counter()
        with urllib.request.urlopen(place) as answer:
            answer.read()
        found.append(1000 * (time.perf_counter() - begun))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--units", type=int, default=3_000)
    parser.add_argument("--run", type=Path, help="a run to use, made there where it is not")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--map-tiles", type=int, default=120)
    given = parser.parse_args()
    if chromium() is None:
        sys.exit("no Chromium found: install one, or name it in CHROMIUM")
    with tempfile.TemporaryDirectory() as folder:
        root = given.run or Path(folder) / "run"
        if not root.exists():
            print(f"drawing a run of {given.tiles} tiles and {given.units} units ...", flush=True)
            make_run(root, units=given.units, side=math.ceil(math.sqrt(given.tiles)))
        measure(root, given.repeats, given.map_tiles)


def measure(root: Path, repeats: int, count: int) -> None:
    results = open_run(root)
    print(f"{len(results.images)} tiles, {len(results.neurons)} units, {os.cpu_count()} cores")
    opened, acted, outside = [], [], 0
    rows: dict[str, list[float]] = {}
    with serving(root) as (address, process):
        memory = Memory(process.pid)
        memory.start()
        for repeat in range(repeats):
            with visiting(address) as visit:
                opened.append(visit.open(""))
                if repeat == 0:
                    # Labels are encoded in the background from the first search on; what a user waits for is timed below.
                    visit.open("neurons?q=haze", "(page) first search")
                acted += interactions(visit)
                outside += len(visit.outside)
                assert not visit.errors, visit.errors
            for name, seconds in visit.times.items():
                rows.setdefault(name, []).append(seconds)
        tiles = tile_times(address, root, count)
        memory.on = False
        memory.join()
    print(f"\n{'step':<28} {'median s':>9} {'worst s':>9}")
    for name, seconds in rows.items():
        print(f"{name:<28} {np.median(seconds):9.2f} {max(seconds):9.2f}")
    print(
        f"\n{len(tiles)} map tiles: median {np.median(tiles):.0f} ms, 95th percentile {np.percentile(tiles, 95):.0f} ms"
    )
    print(f"server's memory at its highest: {memory.peak:.0f} MB; requests that left this machine: {outside}\n")
    figures = {
        "open_s": round(float(np.median(opened)), 3), "interaction_p95_s": round(float(np.percentile(acted, 95)), 3),
        "tile_p95_ms": round(float(np.percentile(tiles, 95)), 1), "peak_mb": round(memory.peak, 1),
        "external_requests": outside,
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
