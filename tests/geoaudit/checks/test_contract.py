"""Every check declares what it needs, costs and calls chance; without its needs it is not run, and says why."""

from __future__ import annotations

import numpy as np
import pytest

from geoaudit.checking import LACKING, missing, not_run
from geoaudit.checks import CHECKS

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
