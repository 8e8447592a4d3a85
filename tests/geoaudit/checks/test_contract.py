"""Every check declares what it needs, costs and calls chance; without its needs it is not run, and says why."""

from __future__ import annotations

import numpy as np
import pytest

from geoaudit.checking import LACKING, missing, not_run, settle
from geoaudit.checks import CHECKS
from geoaudit.checks.nulls import calibrate
from geoaudit.checks.sensor_probes import SensorProbes
from geoaudit.findings import judge

from .planted import planted_context


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.rule)
def test_every_check_declares_itself(check) -> None:
    assert check.rule == check.rule.lower().replace("_", "-").replace(" ", "-")
    assert check.title[:1].isupper()
    assert check.cost
    assert check.null
    assert set(check.needs) <= set(LACKING)


def test_rules_are_distinct_and_every_need_is_used() -> None:
    assert len({check.rule for check in CHECKS}) == len(CHECKS) == 6
    assert {need for check in CHECKS for need in check.needs} == set(LACKING)


class Unplaced:
    """The images of a context without one of the things a check may need."""

    def __init__(self, images, **changes) -> None:
        self._images, self._changes = images, changes

    def __getattr__(self, name):
        return self._changes.get(name, getattr(self._images, name))

    def __getitem__(self, index):
        from dataclasses import replace

        image = self._images[index]
        return replace(image, metadata={}) if "nowhere" in self._changes else image


def lacking(need: str):
    context = planted_context(0.0)
    if need == "labels":
        context.images = Unplaced(context.images, labels=np.full(120, -1))
    elif need == "georeference":
        context.images = Unplaced(context.images, nowhere=True)
    elif need == "bands":
        context.images = Unplaced(context.images, channels=())
    elif need == "groups":
        context.groups = context.groups.iloc[:0]
    else:
        context.logits = context.logits[:, :1]
    return context


@pytest.mark.parametrize("need", sorted(LACKING))
def test_a_check_that_lacks_its_needs_says_why(need: str) -> None:
    context = lacking(need)
    for check in CHECKS:
        why = missing(check, context)
        assert (LACKING[need] in why) == (need in check.needs), check.rule
        if why:
            result = not_run(check, why)
            assert (result.status, result.reason, result.tested) == ("not_run", why, 0)
            assert result.rule == check.rule


def test_nothing_is_missing_where_everything_is_there() -> None:
    context = planted_context(0.0)
    assert [missing(check, context) for check in CHECKS] == [""] * 6


def findings_of_every_check(planted: float):
    """All six checks on one audit, judged together; artefacts that flat tiles cannot tell from their class are left out."""
    context = planted_context(planted, held_out=np.flatnonzero((np.arange(120) // 3) % 12 >= 7))
    probes = SensorProbes(("haze", "stripes_vertical", "blur"))
    checks = [probes if check.rule == probes.rule else check for check in CHECKS]
    assert not any(missing(check, context) for check in checks)
    results = [check.run(context) for check in checks]
    calibration = calibrate(context.null_tests, 0.05)
    results = [settle(result, calibration.thresholds) for result in results]
    return results, judge([h for result in results for h in result.hypotheses])


def test_all_checks_together_put_the_plant_first() -> None:
    results, findings = findings_of_every_check(450.0)
    first = findings[0].hypothesis
    assert (first.rule, first.concept, first.class_name) == ("concept-reliance", "haze", "water")
    assert findings[0].severity == "critical"
    assert {result.rule for result in results if result.status == "fail"} <= {"concept-reliance", "sensor-probe"}


def test_all_checks_together_leave_a_clean_network_alone() -> None:
    results, findings = findings_of_every_check(0.0)
    assert findings == []
    # The drawn network has no card, so what its bands are cannot be said.
    assert {result.rule: result.status for result in results if result.status != "pass"} == {
        "input-contract": "inconclusive"
    }
