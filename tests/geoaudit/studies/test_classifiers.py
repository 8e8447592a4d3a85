"""The bundled classifiers as Study B takes them: no image both describes a unit and judges the network."""

from __future__ import annotations

import numpy as np
import pytest

from dnd_core.config import DescribeConfig
from geoaudit import bundled
from geoaudit.studies.classifiers import bundled_classifier


@pytest.mark.parametrize("model", ["clean", "haze"])
def test_described_and_judged_images_share_no_block(model: str) -> None:
    made = bundled_classifier(model, DescribeConfig())
    table = bundled.chip_table()
    subject = made.subject
    assert len(made.judged) == int(table.held_out.sum())
    described = {int(block) for images in (subject.probe, subject.pool) for block in images.blocks}
    assert not described & set(made.judged.blocks.tolist())
    assert len(subject.probe) + len(subject.pool) == int((~table.held_out).sum())


def test_the_planted_imagery_is_its_makers() -> None:
    """Every hazed training chip is hazed alike whether it is numbered among all chips or among the training chips."""
    from geoaudit.demo import demo_subject
    from geoaudit.settings import AuditSettings

    settings, table = DescribeConfig(), bundled.chip_table()
    ours, theirs = bundled_classifier("haze", settings).subject, demo_subject("haze", settings, AuditSettings())[0]
    whole, part = theirs.probe.images, ours.probe.images  # type: ignore[attr-defined]
    seen = np.flatnonzero(~table.held_out)
    rows = [3, 40, 500, 900]
    assert np.array_equal(part.pixels(rows), whole.pixels(seen[rows].tolist()))
    assert (table.haze[seen[rows]] > 0).any()
