"""Every page, run as Streamlit runs it, over runs that are sound, unfinished, damaged, empty and hostile."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from streamlit.testing.v1 import AppTest

from dashboards.navigation import PAGES
from dashboards.reviews import Reviews
from geoaudit.results import open_run
from tests.geoaudit.report.synthetic_findings import disagreeing


def _page(name):
    from importlib import import_module

    import_module(f"dashboards.pages.{name}").show()


def open_page(name, **query):
    page = AppTest.from_function(_page, kwargs={"name": name}, default_timeout=60)
    for key, value in query.items():
        page.query_params[key] = value
    return page.run()


def markup(page):
    return "\n".join(element.proto.body for element in page.get("html"))


def words(page):
    """All HTML that a page puts out, with the plain texts."""
    return "\n".join(
        [markup(page), *(entry.value for entry in page.caption), *(button.label for button in page.button)]
    )


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("kind", ["sound", "charted", "unfinished", "damaged", "empty", "hostile", "other_version"])
def test_every_page_opens_over_every_run(name, kind, request, shown):
    shown(request.getfixturevalue(f"{kind}_run"))
    page = open_page(name)
    assert not page.exception
    text = markup(page)
    assert "ga-title" in text
    if kind in ("unfinished", "damaged", "empty", "other_version"):
        said = [entry.value for entry in (*page.warning, *page.error)]
        assert said, "what is wrong with the run must be said"
    # Markup from the run is text: no tag but those that the pages make themselves.
    tags = {tag.lower() for tag in re.findall(r"<\s*/?\s*([a-zA-Z][\w-]*)", text)}
    own = {
        "a",
        "b",
        "bdi",
        "br",
        "div",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "img",
        "p",
        "span",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
    }
    assert tags <= own
    assert "onerror=alert" not in re.sub(r"<bdi>.*?</bdi>", "", text, flags=re.DOTALL)
    assert not re.search("[\x00\u202a-\u202e\u2066-\u2069]", text)
    assert max((len(line) for line in re.findall(r"<bdi>(.*?)</bdi>", text, re.DOTALL)), default=0) < 10_000


def test_the_overview_counts_what_the_run_holds(sound_run, shown):
    shown(sound_run)
    results = open_run(sound_run)
    text = words(open_page("overview"))
    named = int((results.neurons["status"] == "labelled").sum())
    assert f"<b><bdi>{named}</bdi></b>" in text
    assert "at most 6.0 %" in text
    assert text.count("Not run") == 1
    assert "Too few spatial blocks" in text


def test_findings_are_filtered_and_linked_to(sound_run, shown):
    shown(sound_run)
    both = open_page("findings")
    assert "2 of 2 findings" in words(both)
    assert "Leans on haze" in words(both)
    minor = open_page("findings", severity="minor")
    assert "1 of 2 findings" in words(minor)
    assert "Sharp field edges go with farmland</bdi></h2>" in words(minor)
    assert "1 of 2 findings" in words(open_page("findings", q="HAZE resid"))
    assert "No finding fits" in words(open_page("findings", q="snow"))
    # A link opens the finding that it names, and the state goes into the address.
    second = open_page("findings", finding="F002")
    assert "Sharp field edges go with farmland</bdi></h2>" in words(second)
    chosen = both.multiselect(key="w-severity").set_value(["critical"]).run()
    assert chosen.query_params["severity"] in ("critical", ["critical"])
    assert "1 of 2 findings" in words(chosen)


def test_the_ladder_tells_what_holds(sound_run, shown):
    shown(sound_run)
    text = words(open_page("findings", finding="F001"))
    assert text.count("\u2713 holds") == 3
    assert "not measured" in text
    assert "1\u202f240 ha" in text
    assert "does not hold" in words(open_page("findings", finding="F002"))


def test_a_brush_and_real_images_that_disagree_are_both_shown(sound_run, shown, tmp_path):
    run, _ = disagreeing(sound_run, tmp_path / "run")
    shown(run)
    text = words(open_page("findings", finding="F001"))
    assert text.count("\u2713 holds") == 3
    assert "Pairs of real images do not differ." in text
    assert "does not hold" in text


def test_neurons_are_found_by_words_and_by_meaning(sound_run, shown):
    from dashboards.components import clean
    from dashboards.meaning import labels_of

    shown(sound_run)
    results = open_run(sound_run)
    assert labels_of([clean(label, 200) for label in results.neurons["label"]]).wait(60)
    text = words(open_page("neurons", q="ploughed"))
    hits = int((results.neurons["label"] == "brown ploughed fields").sum())
    assert f"{hits} of 24 neurons" in text
    # No word in common: found by meaning alone, and nearer than every other label.
    first = re.search(r'class="ga-sub"><bdi>(.*?)</bdi>', words(open_page("neurons", q="lake or sea")))
    assert first is not None
    assert first[1] == "dark blue water"
    assert "No neuron fits" in words(open_page("neurons", q="quarterly tax return"))


def test_neurons_are_filtered(sound_run, shown):
    shown(sound_run)
    neurons = open_run(sound_run).neurons
    assert f"{int((neurons['status'] == 'dead').sum())} of 24" in words(open_page("neurons", status="dead"))
    assert f"{int((neurons['layer'] == 'fc').sum())} of 24" in words(open_page("neurons", layers="fc"))
    assert f"{int((neurons['group'] == 3).sum())} of 24" in words(open_page("neurons", group="3"))
    results = open_run(sound_run)
    truth = [results.image(view.image)["label"] for view in results.unit("fc/2").top_images]
    most = max(set(truth), key=truth.count)
    with_it = words(open_page("neurons", **{"class": str(most), "layers": "fc"}))
    assert results.unit("fc/2").label in with_it
    without = words(open_page("neurons", **{"class": str((most + 1) % 5), "layers": "fc"}))
    assert results.unit("fc/2").label not in without


def test_a_neurons_page_shows_its_evidence(sound_run, shown):
    shown(sound_run)
    results = open_run(sound_run)
    unit = results.unit("layer4/5")
    text = words(open_page("neurons", unit="layer4/5"))
    assert f"layer4/5: {unit.label}" in text
    assert unit.reason in text
    # What firing means stands beside the share: a unit that follows its label well may still reach it seldom.
    assert f"{100 * unit.figures['activation_rate']:.0f} %" in text
    assert "as on its strongest 1 % of tiles" in text
    assert text.count("/layers/image/") == len(unit.top_images)
    assert text.count("/layers/concept/") == 3
    boxed = sum(view.box is not None for view in unit.top_images)
    assert text.count("ga-box") == boxed > 0
    assert "has no unit" in words(open_page("neurons", unit="layer4/999"))
    assert "has no unit" in words(open_page("neurons", unit="../../etc/1"))


def test_a_place_on_the_map_tells_what_fires(sound_run, shown):
    shown(sound_run)
    results = open_run(sound_run)
    from dashboards.places import look

    place = look(results, "scene-a", 15.02, 48.74)
    assert place.image is not None
    strongest = place.firing[0]
    row = results.activations(strongest.unit.layer)[place.image]
    assert strongest.value == pytest.approx(float(row[strongest.unit.index]))
    text = words(open_page("map", layer="unit:layer4/5", place="15.02,48.74"))
    assert f"<bdi>{strongest.unit}</bdi>" in text
    assert f"/layers/image/{place.image}.png" in text
    for nonsense in ("x,y", "999,1", "1", "nan,1"):
        assert "Click a place" in words(open_page("map", place=nonsense))


def test_mitigation_begins_with_the_concept_that_matters(sound_run, shown):
    shown(sound_run)
    page = open_page("mitigate")
    assert page.multiselect(key="w-groups").value == ["5"]
    assert "most affected: residential" in words(page)
    assert "\u221230" in words(page) or "\u221231" in words(page)
    two = page.multiselect(key="w-groups").set_value(["5", "0"]).run()
    assert "is no sum" in words(two)


def test_a_review_is_stored_and_shown(tmp_path, sound_run, shown):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    shown(root)
    page = open_page("review", subject="layer4/5")
    page.text_input(key="reviewer").set_value("A. Reviewer").run()
    page.radio[0].set_value("reject")
    page.text_area[0].set_value("<b>not haze</b>")
    page.button[0].click().run()
    assert not page.exception
    (entry,) = Reviews(root).entries()
    assert (entry.review.subject, entry.review.decision, entry.review.reviewer) == ("layer4/5", "reject", "A. Reviewer")
    assert "&lt;b&gt;not haze" in words(page)
    assert "Reviewed: reject by A. Reviewer" in words(open_page("neurons", unit="layer4/5"))
    assert "&lt;b&gt;not haze" in words(open_page("review", about="history"))


def test_a_review_without_a_name_is_refused(tmp_path, sound_run, shown):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    shown(root)
    page = open_page("review", subject="layer4/5")
    page.button[0].click().run()
    assert any("give your name" in entry.value for entry in page.error)
    assert Reviews(root).entries() == []


def test_a_blind_comparison_is_counted(tmp_path, sound_run, shown):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    shown(root)
    page = open_page("review", about="compare", method="second")
    page.text_input(key="reviewer").set_value("B").run()
    for _ in range(4):
        page.button(key="choose-0").click().run()
    tally = Reviews(root).tallies()["second"]
    assert tally.decided == 4
    # Four pairs in an order that does not give ours away: A is not always the same side's (fixed by name and unit).
    assert "How often ours wins" in words(page)
    assert len(Reviews(root).compared("B", "second")) == 4


def test_the_dashboard_loads_no_torch(sound_run):
    code = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        "import dashboards.app\n"
        "for name in ('overview', 'neurons', 'map', 'findings', 'concepts', 'export'):\n"
        "    page = AppTest.from_string(f'from dashboards.pages.{name} import show\\nshow()', default_timeout=60)\n"
        "    page.query_params['q'] = 'thin cloud'\n"
        "    assert not page.run().exception\n"
        "found = {'torch', 'transformers', 'sklearn', 'geoaudit.report', 'geoaudit.audit'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {found}' if found else 0)\n"
    )
    from os import environ

    done = subprocess.run(
        [sys.executable, "-c", code], env={**environ, "GEOAUDIT_RUN": str(sound_run)}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_overview_takes_the_audits_own_intervals_and_shows_the_model_card(tmp_path, sound_run, shown):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    audit = json.loads((root / "audit.json").read_text())
    audit["accuracy"] = {
        "overall": {"value": 0.8, "ci": [0.7, 0.9], "n": 36}, "note": "",
        "classes": [{"class": "forest", "value": 0.75, "ci": [0.5, 0.95], "n": 8}],
    }  # fmt: skip
    (root / "audit.json").write_text(json.dumps(audit))
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["card"] = {"name": "resnet18", "issues": ["<b>one</b> winter day only", "few water tiles"]}
    (root / "manifest.json").write_text(json.dumps(manifest))
    shown(root)
    page = open_page("overview")
    assert not page.exception
    text = markup(page)
    assert "whole blocks of neighbouring tiles drawn anew" in text
    assert "&lt;b&gt;one&lt;/b&gt; winter day only" in text
    assert "few water tiles" in text
    shown(sound_run)
    assert "take tiles as independent" in markup(open_page("overview"))
