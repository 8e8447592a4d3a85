"""Hidden units of a bundled classifier on a few real tiles: scores, rates and limits against what they are made of."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dnd_core.backends.sentences import SentenceEncoder
from dnd_core.benching import CachedCaptioner
from dnd_core.images import Subset
from dnd_core.layers import resolve
from dnd_core.presence import CaptionIndex
from dnd_core.probing import activate
from dnd_core.types import UnitId
from dnd_core.windows import Windows
from geoaudit.bench.labels_hidden import HiddenUnits
from geoaudit.bench.labels_limits import LIMITS
from geoaudit.bench.labels_methods import DND, OURS, Labels
from geoaudit.bench.labels_networks import bundled_case
from geoaudit.bench.labels_shown import GALLERIES, most_possible
from geoaudit.captions import SatelliteCaptioner

FEW = 5
WORDS = (("forest",), ("open water", "haze"), (), ("bare farm fields",), ("no vegetation",))


@pytest.fixture(scope="module")
def hidden(tmp_path_factory) -> HiddenUnits:
    case = bundled_case("clean", 3, ("layer4",))
    case = replace(
        case,
        probe=Subset(case.probe, range(0, len(case.probe), 12)),
        evaluation=Subset(case.evaluation, range(0, len(case.evaluation), 9)),
        wider=Subset(case.wider, range(0, len(case.wider), 12)),
    )
    case = replace(case, held_out=np.arange(0, len(case.probe), 3))
    infos = resolve(case.network, list(case.layers))
    fired = activate(case.network, infos, case.probe.pixels(range(len(case.probe))))
    # Outputs stand between hidden units here, so that no column can be right by its place alone.
    units = (UnitId("layer4", 7), UnitId("output", 0), *(UnitId("layer4", n) for n in (3, 50, 90, 11)))
    said = (WORDS[0], ("farm",), *WORDS[1:])
    run = SimpleNamespace(layers=infos, activations=lambda name: fired[name])
    labels = Labels(units, {OURS: said, DND: tuple(reversed(said)), "random": said}, run)
    captioner = CachedCaptioner(SatelliteCaptioner(), tmp_path_factory.mktemp("captions"))
    return HiddenUnits(case, labels, captioner, SentenceEncoder(), draws=4)


def test_outputs_are_left_out_and_columns_keep_their_units(hidden) -> None:
    assert [unit.index for unit in hidden.units] == [7, 3, 50, 90, 11]
    assert hidden.said[OURS] == list(WORDS)
    case, run = hidden.case, hidden.labels.run
    tiles = case.evaluation.pixels(range(len(case.evaluation)))
    np.testing.assert_allclose(
        hidden.evaluation.fired, activate(case.network, run.layers, tiles)["layer4"][:, [7, 3, 50, 90, 11]], rtol=1e-5
    )
    told = run.activations("layer4")[:, [7, 3, 50, 90, 11]]
    np.testing.assert_allclose(hidden.thresholds, np.percentile(told, 99, axis=0))
    rows = np.setdiff1d(np.arange(len(case.probe)), case.held_out)
    np.testing.assert_array_equal(hidden.explaining.fired, told[rows])
    assert len(hidden.explaining.captions) == len(hidden.explaining.pixels) == len(rows)


def test_simulation_is_of_the_best_of_a_units_labels_on_unseen_tiles(hidden) -> None:
    found = hidden.simulate()
    presence = CaptionIndex(hidden.evaluation.captions, hidden.encoder, amounts=True).presence(["open water", "haze"])
    expected = np.corrcoef(presence.max(axis=0), hidden.evaluation.fired[:, 1])[0, 1]
    r = found.scores[OURS].units["r"]
    assert r[1] == pytest.approx(expected)
    assert r[2] == 0
    assert [words for _, words, _ in found.examples[OURS]] == [
        "forest", "open water; haze", "bare farm fields", "no vegetation"
    ]  # fmt: skip
    assert set(found.ungraded) == {OURS, DND}
    assert found.ungraded[OURS].units["r"][1] != pytest.approx(expected, abs=1e-6)


def test_rates_are_of_each_kind_of_image_and_under_what_is_possible_there(hidden) -> None:
    found, tiles = hidden.rates(), hidden.evaluation
    windows = Windows(hidden.case.evaluation)
    fired = hidden.fire(windows.pixels(range(len(windows))))
    assert found.ceiling == most_possible(tiles.fired, hidden.thresholds)
    assert found.ceilings["windows"] == pytest.approx(most_possible(fired, hidden.thresholds))
    assert list(found.galleries) == list(GALLERIES)
    assert set(found.firing) == {"tiles", "windows"}
    assert found.firing["tiles"] <= found.ceiling
    assert found.firing["windows"] <= found.ceilings["windows"]
    # Ten times as many images, parts of which show what is said from edge to edge.
    assert found.firing["windows"] > found.firing["tiles"]


def test_limits_are_of_these_units_on_these_tiles(hidden) -> None:
    found = hidden.limits()
    assert list(found) == list(LIMITS)
    assert all(scores.units["r"].shape == (FEW,) for scores in found.values())
    assert (found["hindsight"].units["r"] >= hidden.simulate().scores[OURS].units["r"] - 0.05).all()
