"""Take the pictures of the dashboard in docs/images: every page over a run of the demonstration, in a real Chromium.

Pictures that no page of the list makes are removed. Each is kept below 300 kB and all together below 2.5 MB, by a palette of
256 colours or fewer.

    python benchmarks/screenshots.py [--run runs/demo] [--out docs/images] [--only mitigate,phone]
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dashboards.layers import grid_of
from geoaudit.results import Results, open_run
from tests.dashboards.driving import Visit, chromium, serving, visiting

MOST_BYTES = 300_000
MOST_TOGETHER = 2_500_000
PICTURES = "[...document.querySelectorAll('img')].every(i => i.complete || i.getBoundingClientRect().top > innerHeight)"
# Tiles asked for and answered; none may be on its way any more when the picture is taken.
TILES = (
    "performance.getEntriesByType('resource').filter(e => decodeURIComponent(e.name).includes('/layers/tile/')).length"
)


@dataclass(frozen=True)
class Shot:
    """A page to take: its name, its address, the window's height, and whether a live map is on it."""

    name: str
    path: str
    height: int
    live: bool = False


def shots(results: Results) -> list[Shot]:
    """The pages, opened where there is most to see in this run."""
    finding = next((found for found in results.findings if found["status"] == "fail"), None)
    scene = next(iter(results.scenes()))
    grid = grid_of(results.scenes()[scene])
    if finding is None or grid is None:
        sys.exit("the run has no open finding or no scene: take `geoaudit demo`, not a clean run")
    mapped = [unit for unit in results.maps(scene) if results.unit(unit).status == "labelled"]
    unit = max(mapped, key=lambda unit: results.unit(unit).figures["r"] or 0.0)
    group = (
        finding["group"] if finding["group"] is not None and finding["group"] >= 0 else int(results.groups["group"][0])
    )
    west, south, east, north = grid.bounds
    place = f"{west + 0.52 * (east - west):.6f},{south + 0.44 * (north - south):.6f}"
    return [
        Shot("overview", "", 1150),
        Shot("findings", f"findings?finding={finding['id']}", 1500),
        Shot("map", f"map?layer=group:{group}&place={place}", 1320, True),
        Shot("map-compare", "map?layer=classes&compare=split&other=labels&view=false", 860, True),
        Shot("map-applicability", "map?layer=applicability", 820, True),
        Shot("neurons", f"neurons?q={finding['concept']}", 1150),
        Shot("neuron", f"neurons?unit={unit}", 1500),
        Shot("concepts", "concepts?value=association", 1250),
        Shot("mitigate", f"mitigate?groups={group}", 1500),
        Shot("review", "review?about=labels", 900),
        Shot("export", "export", 760),
    ]


def settled(visit: Visit, live: bool) -> None:
    """Wait until pictures are there and, with a live map, no more tiles come."""
    # The search by meaning begins once the labels are learnt.
    visit.page.wait_for_function("!document.body.innerText.includes('So far by words alone')")
    visit.page.wait_for_function("!document.querySelector('[data-testid=\"stSkeleton\"]')")
    visit.page.wait_for_function(PICTURES)
    if live:
        visit.page.wait_for_function(f"{TILES} >= 4")
        before = -1
        while (now := visit.page.evaluate(TILES)) != before:
            before = now
            visit.page.wait_for_timeout(2500)
    visit.page.wait_for_timeout(1500)


def small(png: bytes) -> bytes:
    """The picture with as many colours as fit into :data:`MOST_BYTES`, at most 256."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    for colours in (256, 128, 64, 32):
        stream = io.BytesIO()
        picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            stream, "PNG", optimize=True
        )
        if stream.tell() < MOST_BYTES:
            return stream.getvalue()
    sys.exit("a picture is too large even in 32 colours: take a smaller window")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="a run of the demonstration, made where it is not"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", default="", help="names of pictures to take, separated by commas; all when empty")
    given = parser.parse_args()
    only = {name for name in given.only.split(",") if name}
    if chromium() is None:
        sys.exit("no Chromium found: install one, or name it in CHROMIUM")
    if not given.run.exists():
        subprocess.run([sys.executable, "-m", "geoaudit.cli", "demo", "--out", str(given.run)], check=True)
    wanted = shots(open_run(given.run))
    groups = next(shot.path for shot in wanted if shot.name == "mitigate").rpartition("=")[2]
    # Measured beforehand, so that the page shows what the audit stored and what was measured since.
    prune = [sys.executable, "-m", "geoaudit.cli", "prune", str(given.run), f"--groups={groups}", "--quiet"]
    subprocess.run(prune, check=True, stdout=subprocess.DEVNULL)
    taken: dict[str, bytes] = {}
    outside: list[str] = []
    with serving(given.run) as (address, _):
        with visiting(address) as visit:
            for shot in wanted:
                if only and shot.name not in only:
                    continue
                visit.page.set_viewport_size({"width": 1366, "height": shot.height})
                visit.open(shot.path)
                settled(visit, shot.live)
                taken[shot.name] = small(visit.page.screenshot())
                print(f"{shot.name:<20} {len(taken[shot.name]) // 1000:>4} kB", flush=True)
            outside += visit.outside
        for name, width, height, scheme in (("phone", 390, 844, "light"), ("dark", 1366, 1150, "dark")):
            if only and name not in only:
                continue
            with visiting(address, width, height, scheme) as visit:
                visit.open(
                    next(shot.path for shot in wanted if shot.name == ("neurons" if name == "phone" else "findings"))
                )
                settled(visit, False)
                taken[name] = small(visit.page.screenshot())
                outside += visit.outside
    total = sum(map(len, taken.values()))
    if total > MOST_TOGETHER:
        sys.exit(f"{total} bytes of pictures are more than {MOST_TOGETHER}")
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("dashboard-*.png"):
        if not only and old.stem.removeprefix("dashboard-") not in taken:
            old.unlink()
    for name, png in taken.items():
        (given.out / f"dashboard-{name}.png").write_bytes(png)
    print(json.dumps({"pictures": len(taken), "bytes": total, "external_requests": len(outside)}))


if __name__ == "__main__":
    main()
