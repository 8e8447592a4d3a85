"""The main job: what ``make audit`` costs and finds, after set-up, on the planted and on the clean classifier.

    python benchmarks/main_job.py [--keep DIR]

Each audit runs in a process of its own, as a user starts it. Prints a table; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from captions import held_out

from dnd_core.backends.sentences import SentenceEncoder
from geoaudit.agreement import as_images, cover_agreement
from geoaudit.bands import SENTINEL2
from geoaudit.captions import SatelliteCaptioner
from geoaudit.definitions import definition_of


def run(model: str, out: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of one audit."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.perf_counter()
    command = [sys.executable, "-m", "geoaudit.cli", "demo", "--model", model, "--out", str(out), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    # The largest child so far; the first audit is the larger one, so a later one can only raise it.
    return wall, max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def output_matches(neurons: pd.DataFrame, classes: list[str]) -> tuple[float, float]:
    """Share of output units whose label is nearest to their own class's definition, and the same for shuffled labels."""
    encoder = SentenceEncoder()
    meanings = encoder.encode_texts([f"{name}: {definition_of(name)}" for name in classes])
    rows = neurons[(neurons["layer"] == "output")].sort_values("unit")
    said = encoder.encode_texts(["; ".join(labels) if len(labels) else "nothing" for labels in rows["labels"]])
    likeness = said @ meanings.T
    own = float((likeness.argmax(axis=1) == np.arange(len(classes))).mean())
    rng = np.random.default_rng(0)
    shuffled = [
        (likeness[rng.permutation(len(classes))].argmax(axis=1) == np.arange(len(classes))).mean() for _ in range(200)
    ]
    return own, float(np.mean(shuffled))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder to keep the two runs in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        wall, peak = run("haze", folder / "haze")
        clean_wall, _ = run("clean", folder / "clean")
        found = {name: json.loads((folder / name / "audit.json").read_text()) for name in ("haze", "clean")}
        neurons = {name: pd.read_parquet(folder / name / "neurons.parquet") for name in ("haze", "clean")}
        seconds = json.loads((folder / "haze" / "manifest.json").read_text())["timings"]["stages"]
    status = neurons["haze"]["status"].value_counts(normalize=True)
    ranks = [
        number
        for number, finding in enumerate(found["haze"]["findings"], start=1)
        if "haze" in finding["concept"] and finding["class_pair"] == ["meadow"]
    ]
    planted = found["haze"]["findings"][ranks[0] - 1] if ranks else None
    match, chance = output_matches(neurons["clean"], found["clean"]["model"]["class_names"])
    tiles, names = held_out()
    agreement = cover_agreement(SatelliteCaptioner().caption(as_images(tiles, SENTINEL2)), names)
    precision = float(np.nanmean([row.precision for row in agreement]))

    print(f"{'audit of the planted classifier':<44}{wall:8.0f} s   {peak:.0f} MB at most")
    print(f"{'audit of the clean classifier':<44}{clean_wall:8.0f} s")
    print("  seconds by stage: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    print(f"{'units':<44}{len(neurons['haze']):8d}")
    for name in ("labelled", "weak", "abstained", "dead"):
        print(f"  {name:<42}{status.get(name, 0.0):8.2f}")
    print(f"{'output units named after their class (clean)':<44}{match:8.2f}   shuffled labels {chance:.2f}")
    print(f"{'captions against OSM, mean precision':<44}{precision:8.2f}")
    for row in agreement:
        print(f"  {row.truth:<42}{row.precision:8.2f}   recall {row.recall:.2f}, base rate {row.base:.2f}")
    print(
        f"{'planted finding':<44}"
        + (f"rank {ranks[0]}, {planted['severity']}: {planted['title']}" if planted else "none")
    )
    print(f"{'worst severity on the clean classifier':<44}{found['clean']['summary']['worst_severity']}")
    print(
        json.dumps(
            {
                "wall_s": round(wall, 1),
                "peak_mb": round(peak),
                "units": len(neurons["haze"]),
                "labelled_share": round(float(status.get("labelled", 0.0)), 4),
                "abstained_share": round(float(status.get("abstained", 0.0)), 4),
                "output_label_match": round(match, 4),
                "caption_agreement": round(precision, 4),
                "planted_rank": ranks[0] if ranks else None,
                "planted_severity": planted["severity"] if planted else None,
                "clean_worst_severity": found["clean"]["summary"]["worst_severity"] or "none",
            }
        )
    )


if __name__ == "__main__":
    main()
