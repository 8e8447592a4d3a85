"""How often descriptions recover what units are known to compute, and how often they label units that compute nothing.

Describes the analytic network of ``dnd_core.testing`` through the whole pipeline with the offline summarizer and an
oracle captioner that errs, once a seed, and prints rates per kind of unit beside labels that know nothing. A unit counts
as recovered when its status is ``labelled`` and its labels say exactly what it computes (``dnd_core.testing.judge``).

    python benchmarks/recovery.py [--seeds 10 11 12] [--images 1500] [--noise 0.1]

The last line is one JSON object of the means over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from dnd_core.backends.keyphrases import Keyphrases
from dnd_core.backends.sentences import SentenceEncoder
from dnd_core.config import DescribeConfig
from dnd_core.pipeline import Backends, describe
from dnd_core.testing import (
    KINDS,
    DrawnSpace,
    OracleCaptioner,
    OracleConceptImages,
    analytic_network,
    baselines,
    draw_probe,
    judge,
)
from dnd_core.types import Status, UnitId

NAMED = tuple(kind for kind in KINDS if kind not in ("dead", "random"))


def recover(seed: int, images: int, noise: float, encoder: SentenceEncoder, explain: bool) -> dict[str, float]:
    """One run; rates per kind and baselines."""
    network, probe = analytic_network(seed=seed), draw_probe(images, seed=seed)
    backends = Backends(
        captioner=OracleCaptioner(noise, seed),
        summarizer=Keyphrases(encoder),
        concept_images=OracleConceptImages(seed=seed + 1_000),
        image_encoder=DrawnSpace(),
        text_encoder=encoder,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = describe(network, probe, ["maps", "concepts"], Path(folder) / "run", backends, DescribeConfig(seed=seed))
        rows = {UnitId(str(row.layer), int(row.unit)): row for row in run.neurons.itertuples(index=False)}
    truth = network.module.truth
    published = {unit: tuple(row.labels) if row.status == Status.LABELLED.value else () for unit, row in rows.items()}
    found: dict[str, float] = {}
    for kind in KINDS:
        units = [unit for unit, known in truth.items() if known.kind == kind]
        if kind in NAMED:
            found[kind] = float(np.mean([judge(truth[unit], published[unit]) for unit in units]))
            found[f"{kind}_labelled"] = float(np.mean([bool(published[unit]) for unit in units]))
            guessed = [judge(truth[unit], tuple(rows[unit].labels)) for unit in units]
            found[f"{kind}_any_status"] = float(np.mean(guessed))
        else:
            found[kind] = float(np.mean([bool(published[unit]) for unit in units]))
        for unit in units if explain else ():
            if bool(published[unit]) if kind not in NAMED else not judge(truth[unit], published[unit]):
                row = rows[unit]
                proposed = [candidate["label"] for candidate in json.loads(row.candidates)][:6]
                print(
                    f"  {unit} {kind} [{truth[unit].concept}] {row.status} {list(row.labels)} {row.reason} {proposed}"
                )
    idle = [unit for unit, known in truth.items() if known.concept is None]
    found["false_label_rate"] = float(np.mean([bool(published[unit]) for unit in idle]))
    known_nothing = baselines(truth, published, seed)
    return found | known_nothing | {"random": found["random"], "random_labels": known_nothing["random"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[10, 11, 12], help="one run each (0 to 2 were tuned on)"
    )
    parser.add_argument("--images", type=int, default=1500, help="drawn probe images")
    parser.add_argument("--noise", type=float, default=0.1, help="how often the captioner errs about an attribute")
    parser.add_argument("--explain", action="store_true", help="list every unit that was got wrong")
    arguments = parser.parse_args()
    encoder, runs = SentenceEncoder(), []
    for seed in arguments.seeds:
        start = time.perf_counter()
        runs.append(recover(seed, arguments.images, arguments.noise, encoder, arguments.explain))
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    mean = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    spread = {name: float(np.std([run[name] for run in runs])) for name in runs[0]}
    print(f"\n{'kind':<14}{'recovered':>16}{'labelled':>10}{'best guess right':>18}")
    for kind in NAMED:
        rate = f"{mean[kind]:.3f} +- {spread[kind]:.3f}"
        print(f"{kind:<14}{rate:>16}{mean[kind + '_labelled']:>10.3f}{mean[kind + '_any_status']:>18.3f}")
    print(f"\n{'false labels':<14}{mean['false_label_rate']:.3f} +- {spread['false_label_rate']:.3f}", end="")
    print(f"   (dead {mean['dead']:.3f}, random {mean['random']:.3f})")
    for name in ("constant", "random_labels", "shuffled"):
        print(f"{name:<14}{mean[name]:.3f} +- {spread[name]:.3f}   recovery over all named units")
    keys = {name: name for name in (*NAMED, "false_label_rate", "constant")} | {"random": "random_labels"}
    keys["shuffled"] = "shuffled"
    print(json.dumps({name: round(mean[key], 4) for name, key in keys.items()}))


if __name__ == "__main__":
    main()
