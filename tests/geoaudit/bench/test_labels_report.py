"""What the bench of labels writes and keeps: last line, tables, document, cells."""

import csv
import json

import numpy as np
import pytest

from dnd_core.benching import LabelScores, SanityResult, score_labels
from dnd_core.benching.metrics import PRIMARY, SECONDARY
from dnd_core.benching.sanity import TESTS
from dnd_core.errors import StoreError
from dnd_core.types import UnitId
from geoaudit.bench import labels as bench_labels
from geoaudit.bench.labels import Bench, Cell, Plan, summary
from geoaudit.bench.labels_analytic import Recovery, rates
from geoaudit.bench.labels_limits import LIMITS
from geoaudit.bench.labels_methods import COMPARATORS, DND, METHODS, OURS
from geoaudit.bench.labels_networks import OutputMatch
from geoaudit.bench.labels_report import markdown, write_document, write_results
from geoaudit.bench.labels_shown import GALLERIES
from geoaudit.bench.labels_units import KINDS

HOSTILE = "a | b](x) <script>`"


def small_bench():
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(60, 4))
    scores, examples, outputs, recoveries = {}, {}, {}, []
    for number, method in enumerate(METHODS):
        presence = np.clip(activations + number * rng.normal(size=activations.shape), 0, 1)
        shown = [activations[:5, unit] for unit in range(4)]
        scores[method] = score_labels(
            activations,
            presence,
            [True, True, True, False],
            shown=[*shown[:3], np.empty(0)],
            thresholds=np.ones(4),
            draws=5,
        )
        examples[method] = (("layer4/0", HOSTILE, 0.5),)
        outputs[method] = OutputMatch(0.6, 0.4, 0.2, 0.0, ("fields", HOSTILE, "", "houses", "water"))
        for kind in KINDS:
            truth = "" if kind in ("dead", "random") else "water"
            said = HOSTILE if method == OURS and kind == "and" else ""
            recoveries.append(Recovery(method, UnitId("l", 1), kind, truth, said, kind == "single", float("nan")))
    sanity = tuple(SanityResult(m, t, 0.5, 0.4, 1.0, 4) for m in (*PRIMARY, *SECONDARY) for t in TESTS)
    reach = {
        key: score_labels(activations, activations + number * rng.normal(size=activations.shape), [True] * 4, draws=5)
        for number, key in enumerate(LIMITS)
    }
    ungraded = {OURS: reach["statement"], DND: reach["statement"]}
    galleries = {
        key: dict.fromkeys(METHODS, LabelScores(*({"activation_rate": np.array([rate])},) * 2, np.ones(1, dtype=bool)))
        for key, rate in zip(GALLERIES, (0.21, 0.32, 0.43), strict=True)
    }
    network = Cell(
        "clean-1",
        scores,
        examples,
        0.3,
        sanity,
        outputs,
        (),
        reach,
        ungraded,
        galleries,
        {"wider": 0.8, "windows": 0.9},
        {"tiles": 0.11, "windows": 0.55},
    )
    analytic = Cell("analytic-x-1", {}, {}, float("nan"), sanity, {}, tuple(recoveries))
    return Bench(Plan((("clean", 1),), (("x", 1),), ("layer4",), 100, 5), (network, analytic), tuple(METHODS))


def test_the_last_line_has_its_keys_and_figures():
    found = summary(small_bench())
    assert list(found) == [
        "ours", "comparators", "ratio_r", "auprc", "activation_rate", "single", "and", "or", "not", "two_meanings",
        "false_label_rate", "output_match",
    ]  # fmt: skip
    assert set(found["comparators"]) == set(COMPARATORS)
    assert found["ratio_r"] == pytest.approx(found["ours"] / max(found["comparators"].values()), abs=2e-3)
    assert (found["single"], found["and"], found["output_match"]) == (1.0, 0.0, 0.6)
    assert json.loads(json.dumps(found)) == found


def test_rates_count_labels_of_units_that_compute_nothing():
    rows = [
        Recovery(OURS, UnitId("l", 0), "dead", "", "", True, float("nan")),
        Recovery(OURS, UnitId("l", 1), "random", "", "haze", False, float("nan")),
        Recovery(OURS, UnitId("l", 2), "single", "haze", "stripes without x", False, 0.96),
        Recovery(OURS, UnitId("l", 3), "single", "haze", "water", False, 0.94),
    ]
    assert rates(rows) == {"single": 0.5, "false_label_rate": 0.5}


def test_tables_are_written_and_labels_in_them_stay_text(tmp_path):
    bench = small_bench()
    files = write_results(bench, tmp_path)
    assert [path.name for path in files] == [
        "scores.csv", "units.csv", "analytic.csv", "bench-labels-fit.png", "bench-labels-recovery.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 100 for path in files)
    assert {row["method"] for row in csv.DictReader(files[0].read_text().splitlines())} == {
        *METHODS,
        *(f"limit: {key}" for key in LIMITS),
    }
    page = markdown(bench, "geoaudit bench labels")
    (line,) = [line for line in page.splitlines() if LIMITS["statement"] in line]
    assert "| 1.000 [1.000, 1.000] | " in line
    assert line.endswith(f"| {1 / summary(bench)['comparators']['dnd']:.2f} |")
    assert (
        "higher rate on the evaluation's tiles than **0.30**, with the pool's tiles too **0.80**, with windows **0.90**"
        in page
    )
    assert "reach **0.11** on the evaluation's tiles and **0.55** on windows" in page
    (line,) = [line for line in page.splitlines() if line.startswith("| ours |") and "0.210" in line]
    assert line.endswith("| 0.210 [0.210, 0.210] | 0.320 [0.320, 0.320] | 0.430 [0.430, 0.430] |")
    (row,) = [row for row in csv.DictReader(files[0].read_text().splitlines()) if row["method"] == OURS]
    assert [row[f"activation_rate_{key}"] for key in GALLERIES] == ["0.21", "0.32", "0.43"]
    assert "simulation r is ours 1.000 [1.000, 1.000], DnD as published 1.000 [1.000, 1.000], 1 times" in page
    assert "<script>" not in page
    rows = [line.replace("\\|", "") for line in page.splitlines() if line.startswith("|") and "script" in line]
    # Four cells in the list of wrong labels, six in the list of output labels.
    assert {line.count("|") for line in rows} == {5, 7}
    first = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_results(bench, tmp_path)] == first


def test_the_document_keeps_the_text_around_its_tables(tmp_path):
    bench = small_bench()
    write_results(bench, tmp_path / "out")
    docs = tmp_path / "docs"
    with pytest.raises(StoreError, match="is not there"):
        write_document(bench, tmp_path / "out", docs, "x")
    docs.mkdir()
    page = docs / "bench-labels.md"
    page.write_text("no marks")
    with pytest.raises(StoreError, match="no part between"):
        write_document(bench, tmp_path / "out", docs, "x")
    page.write_text("before <!-- bench: begin -->replaced<!-- bench: end --> after")
    write_document(bench, tmp_path / "out", docs, "geoaudit bench labels")
    text = page.read_text()
    assert text.startswith("before <!-- bench: begin -->")
    assert text.endswith("<!-- bench: end --> after")
    assert "replaced" not in text
    assert "simulation r" in text
    assert (docs / "images" / "bench-labels-fit.png").is_file()


def test_a_bench_in_one_go_writes_what_a_killed_one_writes(tmp_path):
    bench = small_bench()
    fresh = [bench_labels._finished(tmp_path / "cells" / f"{cell.name}.json", "key", cell) for cell in bench.cells]
    kept = [bench_labels._load(tmp_path / "cells" / f"{cell.name}.json", "key") for cell in bench.cells]
    for name, cells in (("fresh", fresh), ("kept", kept)):
        write_results(Bench(bench.plan, tuple(cells), bench.methods), tmp_path / name)
    for name in ("scores.csv", "units.csv", "analytic.csv"):
        assert (tmp_path / "fresh" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()


def test_a_finished_cell_is_found_again_and_another_one_is_not(tmp_path):
    bench = small_bench()
    for cell in bench.cells:
        file = tmp_path / "cells" / f"{cell.name}.json"
        bench_labels._save(file, "key", cell)
        assert bench_labels._load(file, "other key") is None
        found = bench_labels._load(file, "key")
        # NaN equals nothing, so cells are compared as they are written.
        again = tmp_path / "again.json"
        bench_labels._save(again, "key", found)
        assert again.read_bytes() == file.read_bytes()
        assert (dict(found.ceilings), dict(found.firing)) == (dict(cell.ceilings), dict(cell.firing))
    assert summary(
        Bench(
            bench.plan,
            tuple(bench_labels._load(tmp_path / "cells" / f"{c.name}.json", "key") for c in bench.cells),
            bench.methods,
        )
    ) == summary(bench)
    file.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        bench_labels._load(file, "key")
