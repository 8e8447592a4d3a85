"""Shuffled audits: thresholds and false-alarm rates follow from what the shuffles say, by counting."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from geoaudit.checking import gate_facts, settle
from geoaudit.checks.concept_reliance import ConceptReliance
from geoaudit.checks.nulls import AUDITS, Calibration, NullTest, Rung, calibrate, shuffled_pairs
from geoaudit.checks.sensor_probes import SensorProbes
from geoaudit.findings import CheckResult, judge

from .planted import planted_context
from .test_findings import hypothesis

QUIET = Rung(0.0, False, 1.0)
LOUD = Rung(0.4, True, 0.001)


def null_of(*rungs: tuple[int, Rung], real: Rung | None = None, **given) -> NullTest:
    return NullTest(hypothesis(**given), real, {grade: (rung,) * AUDITS for grade, rung in rungs})


def test_quiet_shuffles_leave_the_least_effect_and_a_bound() -> None:
    found = calibrate([null_of((2, QUIET), (3, QUIET))] * 10, 0.05)
    assert found.thresholds == {1: 0.0, 2: 0.1, 3: 0.1}
    assert found.worst.rate == 0
    assert found.worst.n == 10 * AUDITS // 2
    assert found.worst.upper_bound == pytest.approx(1 - 0.05 ** (1 / found.worst.n))
    assert found.audits.n == AUDITS


def test_a_rung_that_shuffles_pass_is_raised_beyond_them() -> None:
    found = calibrate([null_of((3, LOUD)), *[null_of((3, QUIET))] * 9], 0.05)
    assert found.thresholds[3] > LOUD.value
    assert found.rungs[3].rate == 0, "the raised threshold holds on the shuffles it was not set on"


def test_real_pairs_with_random_units_are_a_world_of_their_own() -> None:
    """A painted artefact that really moves the class: only random units that pass would make it a false alarm."""
    silent = calibrate([null_of((2, QUIET), (3, QUIET), real=LOUD)] * 5, 0.05)
    assert (silent.unit_labels.rate, silent.pairs.rate) == (0, 0)
    # Half of the tests pass the ablation by chance, in odd audits only: what sets the thresholds cannot see them.
    odd = tuple(LOUD if number % 2 else QUIET for number in range(AUDITS))
    by_chance = NullTest(hypothesis(group=3), LOUD, {2: (QUIET,) * AUDITS, 3: odd})
    loud = calibrate([by_chance, null_of((2, QUIET), (3, QUIET), real=LOUD, group=4, concept="roofs")], 0.05)
    assert (loud.unit_labels.rate, loud.pairs.rate) == (0.5, 0)
    assert loud.worst == loud.unit_labels
    assert loud.audits.rate == 0.5


def test_calibration_survives_json_and_speaks_in_words() -> None:
    found = calibrate([null_of((1, QUIET), (2, LOUD))], 0.05)
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    facts = gate_facts(found)
    assert set(facts["rungs"]) == {"association", "counterfactual", "ablation"}
    assert "labels shuffled" in facts["null"]
    json.dumps(facts, allow_nan=False)


def test_nothing_tested_means_nothing_known() -> None:
    found = calibrate([], 0.05)
    assert found.worst.rate is None
    assert found.worst.upper_bound == 1.0


def test_turning_pairs_round_by_block_keeps_their_size() -> None:
    context = planted_context(0.0)
    rows, after = np.arange(72), np.ones(72)
    rungs = shuffled_pairs(context, rows, after, np.zeros(72), stream=3)
    assert rungs == shuffled_pairs(context, rows, after, np.zeros(72), stream=3)
    assert len(rungs) == AUDITS
    # Every difference is 1, so a shuffle is the mean of twelve blocks' signs.
    assert all(abs(r.value) <= 1 and (r.value * 6) % 1 == pytest.approx(0, abs=1e-9) for r in rungs)
    assert not all(r.value > 0 for r in rungs)


def test_shuffled_labels_of_a_planted_network_raise_no_finding() -> None:
    context = planted_context(450.0)
    results = [ConceptReliance().run(context), SensorProbes(("haze", "blur")).run(context)]
    found = calibrate(context.null_tests, 0.05)
    assert len(context.null_tests) == sum(result.tested for result in results)
    assert found.worst.rate == 0
    findings = judge([h for r in results for h in settle(r, found.thresholds).hypotheses])
    assert findings[0].severity == "critical", "the planted shortcut is beyond what its own shuffles reach"


def test_evidence_below_the_threshold_takes_the_check_s_failure_back() -> None:
    failed = CheckResult("r", "t", "fail", "1 leans", 1, "n", "c", (hypothesis(2, 3),))
    assert settle(failed, {2: 0.1, 3: 0.1}) is failed
    kept = settle(failed, {3: 0.9})
    assert kept.status == "fail", "the counterfactual still holds"
    gone = settle(failed, {2: 0.9, 3: 0.9})
    assert gone.status == "pass"
    assert not any(e.holds for e in gone.hypotheses[0].evidence)
    assert "below what shuffled labels reach" in gone.reason
    assert judge(gone.hypotheses) == []
    assert replace(gone, hypotheses=()).rule == "r"
