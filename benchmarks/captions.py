"""Measured captions against the land-use map and painted artefacts, on blocks no rule was set on; and their speed.

    python benchmarks/captions.py [--tiles 200]

Rules and words were set on the training blocks of the bundled scene; everything here is counted on its held-out blocks.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from dnd_core.backends.measured import MeasuredCaptioner
from dnd_core.images import ProbeImage
from geoaudit import bundled
from geoaudit.agreement import Agreement, artefact_agreement, as_images, cover_agreement
from geoaudit.bands import SENTINEL2, reorder
from geoaudit.captions import SatelliteCaptioner
from geoaudit.perturb import PERTURBATIONS, paint
from geoaudit.scenes import open_scene

BANDS = {13: SENTINEL2, 4: ("B04", "B03", "B02", "B08"), 3: ("B04", "B03", "B02")}


def held_out() -> tuple[np.ndarray, list[str]]:
    """(N, 13, H, W) reflectance and the class names of the held-out chips."""
    table = bundled.chip_table()
    chips = table.chips
    scene, _ = open_scene(bundled.scenes()["brandenburg"]).read()
    chosen = np.flatnonzero(table.held_out)
    tiles = [
        scene[:, r : r + chips.size, c : c + chips.size]
        for r, c in zip(chips.rows[chosen], chips.columns[chosen], strict=True)
    ]
    return np.stack(tiles), [chips.class_names[label] for label in chips.labels[chosen]]


def table_of(rows: list[Agreement]) -> None:
    print(f"  {'truth':<20}{'words':<28}{'strength':>8}{'n':>6}{'base':>7}{'precision':>11}{'recall':>8}")
    for row in rows:
        strength = f"{row.strength:.1f}" if row.strength else "-"
        print(
            f"  {row.truth:<20}{row.words:<28}{strength:>8}{row.n:>6}{row.base:>7.2f}"
            f"{row.precision:>11.2f}{row.recall:>8.2f}"
        )


def speed(caption: object, images: list[ProbeImage]) -> float:
    """Images a second of processor time, the best of three runs after a first that loads tables."""
    caption.caption(images[:8])  # type: ignore[attr-defined]
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        caption.caption(images)  # type: ignore[attr-defined]
        best = min(best, time.process_time() - start)
    return len(images) / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=200, help="held-out chips that artefacts are painted on")
    settings = parser.parse_args()
    pixels, labels = held_out()
    generator = np.random.default_rng(0)
    some = np.sort(generator.permutation(len(pixels))[: settings.tiles])
    figures: dict[str, float] = {}
    for count, channels in BANDS.items():
        order = list(reorder(SENTINEL2, channels))
        tiles = np.ascontiguousarray(pixels[:, order])
        captioner = SatelliteCaptioner(level="toa")
        print(f"\n{count} bands, captions of {len(tiles)} held-out chips against the land-use map (base = always said)")
        rows = cover_agreement(captioner.caption(as_images(tiles, channels)), labels)
        table_of(rows)
        figures[f"cover_precision_{count}"] = float(np.nanmean([row.precision for row in rows]))
        figures[f"cover_recall_{count}"] = float(np.nanmean([row.recall for row in rows]))
        print(f"\n{count} bands, artefacts painted on {len(some)} held-out chips (base: half are painted)")
        rows = artefact_agreement(captioner, tiles[some], channels)
        table_of(rows)
        figures[f"artefact_precision_{count}"] = float(np.nanmean([row.precision for row in rows]))
        figures[f"artefact_recall_{count}"] = float(np.nanmean([row.recall for row in rows]))
        haze = [row for row in rows if row.truth == "haze"]
        figures[f"haze_precision_{count}"] = min(row.precision for row in haze)
        figures[f"haze_recall_{count}"] = min(row.recall for row in haze)
    print(f"\nshare of {len(some)} held-out chips said to be hazy when something else is painted on them (strongest)")
    for name, entry in PERTURBATIONS.items():
        if name in ("haze", "cloud"):
            continue
        shares = []
        for channels in BANDS.values():
            tiles = np.ascontiguousarray(pixels[some][:, list(reorder(SENTINEL2, channels))])
            painted = paint(name, tiles, channels, entry.strengths[-1], 0)
            said = SatelliteCaptioner(level="toa").caption(as_images(painted, channels))
            shares.append(float(np.mean(["haze" in caption for caption in said])))
        print(f"  {name:<20}" + "  ".join(f"{b} bands {v:.2f}" for b, v in zip(BANDS, shares, strict=True)))
        figures[f"haze_said_of_{name}_13"] = shares[0]
    images = as_images(pixels[:600], SENTINEL2)
    pictures = generator.integers(0, 256, (600, 64, 64, 3)).astype(np.uint8)
    photographs = [
        ProbeImage(np.zeros((3, 64, 64), np.float32), picture, key=str(i)) for i, picture in enumerate(pictures)
    ]
    figures["satellite_tiles_per_s"] = speed(SatelliteCaptioner(), images)
    figures["rgb_images_per_s"] = speed(MeasuredCaptioner(), photographs)
    print(f"\n{figures['satellite_tiles_per_s']:.0f} tiles of 13 x 32 x 32 a second on one core,")
    print(f"{figures['rgb_images_per_s']:.0f} RGB pictures of 64 x 64 a second on one core")
    figures["caption_agreement"] = figures["cover_precision_13"]
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
