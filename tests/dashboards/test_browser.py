"""The dashboard as a user meets it: started from the command line, opened in a real Chromium."""

import os
import shutil
from pathlib import Path

import pytest

from dashboards.reviews import Reviews
from tests.dashboards.driving import chromium, serving, visiting

pytest.importorskip("playwright", reason="BROWSER TESTS SKIPPED: playwright is not installed")
pytestmark = pytest.mark.skipif(
    chromium() is None, reason="BROWSER TESTS SKIPPED: no Chromium found; install one or name it in CHROMIUM"
)
LOADED = "[...document.querySelectorAll('.ga-strip img')].slice(0, 3).every(i => i.complete && i.naturalWidth > 0)"
ARTEFACTS = Path(os.environ.get("TEST_ARTEFACTS", "test-artifacts")) / "dashboard"


def keep(visit, name):
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=str(ARTEFACTS / f"{name}.png"))


def test_a_visit(tmp_path, sound_run):
    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    with serving(root) as (address, _), visiting(address) as visit:
        page = visit.page
        visit.open("")
        assert visit.says("Leans on haze when it decides residential")
        keep(visit, "overview")

        # Findings: filter by typing, as a user does.
        visit.open("findings")
        assert visit.says("2 of 2 findings")
        box = page.get_by_label("Words", exact=True)
        box.fill("edges")
        visit.do("filter findings", lambda: box.press("Enter"), "document.body.innerText.includes('1 of 2 findings')")
        assert "q=edges" in page.url
        keep(visit, "findings")

        # Neurons: search, open one, and come back to it by its address.
        visit.open("neurons")
        box = page.get_by_label("Search by words or meaning")
        box.fill("ploughed fields")
        visit.do(
            "search a neuron", lambda: box.press("Enter"), "document.body.innerText.includes('nearest in meaning')"
        )
        first = page.locator(".ga-sub").first.inner_text()
        assert first == "brown ploughed fields"
        visit.do(
            "open a neuron",
            page.locator("[class*=st-key-open-] button").first.click,
            "document.body.innerText.includes('Labels considered')",
        )
        assert "unit=" in page.url
        images = page.locator(".ga-strip img")
        images.first.wait_for()
        page.wait_for_function(LOADED)
        keep(visit, "neuron")

        # Map: a deep link to a layer, then a click on the scene.
        visit.open("map?layer=unit:layer4/5")
        canvas = page.locator('[data-testid="stDeckGlJsonChart"] canvas').first
        canvas.wait_for()
        drawn = "e => decodeURIComponent(e.name).includes('layer=unit:layer4/5') && e.responseStatus == 200"
        page.wait_for_function(f"performance.getEntriesByType('resource').filter({drawn}).length >= 2")
        frame = canvas.bounding_box()

        def click():
            page.mouse.move(frame["x"] + frame["width"] * 0.5, frame["y"] + frame["height"] * 0.45)
            page.wait_for_timeout(150)
            page.mouse.click(frame["x"] + frame["width"] * 0.5, frame["y"] + frame["height"] * 0.45)

        visit.insist("click the map", click, "document.body.innerText.includes('° north')")
        assert "place=" in page.url
        assert visit.says("of its strong activation")
        keep(visit, "map")

        # Review: a name, a decision, a note; stored where the run is.
        visit.open("review?about=labels&subject=layer4%2F5")
        name = page.get_by_label("Your name")
        name.fill("A. Reviewer")
        visit.do("give a name", lambda: name.press("Enter"), "document.body.innerText.includes('reviewed by you')")
        page.get_by_text("Reject", exact=True).click()
        page.get_by_label("Note").fill("<img src=x onerror=alert(1)> clouds, not haze")
        visit.do(
            "store a review",
            page.get_by_role("button", name="Store").click,
            "document.body.innerText.includes('clouds, not haze')",
        )
        (entry,) = Reviews(root).entries()
        assert (entry.review.subject, entry.review.decision) == ("layer4/5", "reject")
        keep(visit, "review")

        # Export: a report made by a process of its own, then downloaded.
        visit.open("export?formats=csv")
        visit.do(
            "make a report",
            page.get_by_role("button", name="Make the reports").click,
            "document.body.innerText.includes('Making neurons.csv') || document.body.innerText.includes('Made neurons.csv')",
        )  # fmt: skip
        page.wait_for_selector("a[download='neurons.csv']")
        with page.expect_download() as download:
            page.click("a[download='neurons.csv']")
        assert Path(download.value.path()).read_bytes() == (root / "neurons.csv").read_bytes()
        keep(visit, "export")

        visit.open("concepts")
        keep(visit, "concepts")

        # Mitigate: what is not stored is measured by a process of its own, and the page says how that ended.
        visit.open("mitigate?groups=0|5")
        visit.do(
            "measure a pruning",
            page.get_by_role("button", name="Measure this pruning").click,
            "document.body.innerText.includes('The pages stay usable') || document.body.innerText.includes('could not be made')",
        )
        # The drawn run audited no network that could be opened again.
        assert visit.says("could not be made")
        assert visit.says("--config")
        keep(visit, "mitigate")

        # How long things take is measured by benchmarks/dashboard.py, not judged on a machine that may be busy.
        assert visit.outside == []
        assert visit.errors == []


def test_a_place_is_picked_by_keyboard_alone(charted_run):
    with serving(charted_run) as (address, _), visiting(address) as visit:
        page = visit.page
        visit.open("map?scene=scene-a&layer=applicability")
        assert visit.says("of this map")
        focused = "document.activeElement"

        def tab_to(found):
            for _ in range(120):
                page.keyboard.press("Tab")
                if page.evaluate(found):
                    return
            raise AssertionError(f"Tab does not reach {found}")

        tab_to(f"{focused}.tagName === 'SUMMARY' && {focused}.innerText.includes('Pick a place')")
        page.keyboard.press("Enter")
        tab_to(f"{focused}.getAttribute('aria-label') === 'Longitude'")
        before = float(page.evaluate(f"{focused}.value"))
        page.keyboard.press("ArrowUp")
        visit.do("move a place", lambda: page.keyboard.press("Enter"), "document.body.innerText.includes('° north')")
        assert "place=" in page.url
        moved = float(page.url.split("place=")[1].split("&")[0].replace("%2C", ",").split(",")[0])
        assert moved > before
        assert visit.says("area of applicability (dissimilarity")
        page.wait_for_function("[...document.querySelectorAll('img[src*=\"chip.png\"]')].some(i => i.naturalWidth > 0)")
        # Two layers, divided: tiles of both are drawn.
        visit.open("map?scene=scene-a&layer=classes&compare=split&other=labels&view=false")
        for part in ("layer=classes&v=", "layer=labels&v=", "bands=4%2C3%2C2"):
            page.wait_for_function(
                "part => performance.getEntriesByType('resource').some(e => e.name.includes(part) && e.responseStatus == 200)",
                arg=part,
            )
        keep(visit, "map-compare")
        assert visit.errors == []
        assert visit.outside == []


def test_hostile_words_do_nothing_in_a_browser(hostile_run):
    with serving(hostile_run) as (address, _), visiting(address) as visit:
        alerts = []
        visit.page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        for path in (
            "",
            "findings",
            "neurons",
            "neurons?unit=layer4%2F0",
            "map?layer=classes",
            "review?about=compare&method=control",
        ):
            visit.open(path)
            visit.page.wait_for_timeout(300)
            assert "owned" not in visit.page.title()
            assert visit.page.locator("img[src='x']").count() == 0
        assert alerts == []
        assert visit.outside == []
        # A word of a hundred thousand letters must not push the page wider than the window.
        assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_below_a_base_path_on_a_phone_in_the_dark(sound_run):
    with serving(sound_run, "/audits/7") as (address, _), visiting(address, 390, 844, "dark") as visit:
        visit.open("")
        assert visit.says("Leans on haze")
        assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        ground = visit.page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert max(int(part) for part in ground[4:-1].split(",")[:3]) < 60
        keep(visit, "phone")
        visit.open("map?layer=unit:layer4/5")
        visit.page.wait_for_function(
            "performance.getEntriesByType('resource')"
            ".some(e => e.name.includes('/audits/7/layers/tile/') && e.responseStatus == 200)"
        )
        # No page is wider than the phone.
        for path in ("findings", "concepts", "mitigate", "review", "export", "neurons?unit=layer4%2F5"):
            visit.open(path)
            assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), path
        visit.open("neurons?q=water")
        visit.page.wait_for_function(LOADED)
        assert visit.page.locator(".ga-strip img").count() >= 2
        assert visit.outside == []
