import re
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser

import pytest

from geoaudit.report.html import page
from geoaudit.results import open_run
from tests.geoaudit.report.synthetic_findings import disagreeing

VOID = {"meta", "link", "img", "input", "br", "line", "circle", "path"}


class Reader(HTMLParser):
    """Collects tags, attributes and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids, self.seen, self._silent = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._silent:
            self.seen.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.seen))


@pytest.fixture(scope="session")
def pages(finished, clean, hostile, unfinished, empty):
    runs = {"finished": finished, "clean": clean, "hostile": hostile, "unfinished": unfinished, "empty": empty}
    return {name: page(results) for name, results in runs.items()}


def test_the_page_says_what_was_found_and_how_sure_it_is(pages, finished):
    read = Reader(pages["finished"])
    for words in ("Stop", "Leans on haze when it decides residential", "Critical", "0.35 to 0.49", "1 240 ha",
                  "980 to 1 510", "label-shuffled units",
                  "Train with haze painted on every class", "Tested again \u2013 not measured",
                  "Passed", "Inconclusive", "Not run", "Contains modified Copernicus Sentinel data 2021", "CC0-1.0",
                  "random units", "B10 is not among the bands."):  # fmt: skip
        assert words in read.text, words
    for unit in finished.unit_ids:
        assert f"unit-{str(unit).replace('/', '-')}" in read.ids
    assert any(
        "fires as it does on its strongest 1 % of tiles" in value
        for _, name, value in read.attributes
        if name == "title"
    )
    assert "finding-F001" in read.ids
    assert len(read.ids) == len(set(read.ids))


def test_a_brush_and_real_images_that_disagree_each_get_their_verdict(finished, tmp_path):
    run, step = disagreeing(finished.root, tmp_path / "run")
    text = Reader(page(open_run(run))).text
    assert "Does not hold: Pairs of real images do not differ." in text
    assert f"Holds: {step['sentence']}" in text
    assert text.count("Does not hold: ") == 1


def test_every_link_inside_the_page_has_its_goal(pages):
    read = Reader(pages["finished"])
    goals = {value[1:] for _, name, value in read.attributes if name == "href" and value.startswith("#")}
    assert goals <= set(read.ids)


@pytest.mark.parametrize("name", ["finished", "hostile", "unfinished", "empty"])
def test_the_page_asks_for_nothing_from_outside(pages, name):
    text = pages[name]
    read = Reader(text)
    for _, attribute, value in read.attributes:
        if attribute in ("src", "href", "action", "poster", "data"):
            assert value.startswith(("data:", "#")), value[:80]
    assert not re.search(r"url\((?!data:)", text.split("</style>")[0])
    assert "default-src 'none'" in text
    assert not {"iframe", "object", "embed", "form", "base"} & set(read.tags)


def test_tiles_are_stored_once_and_the_page_stays_small(pages, finished):
    text = pages["finished"]
    assert text.count("data:image/jpeg") < 12
    assert len(text) < 3_000_000
    boxes = re.findall(r'<i style="--l:([\d.]+);--t:([\d.]+);--w:([\d.]+);--h:([\d.]+)">', text)
    assert ("12.5", "6.2", "50.0", "75.0") in boxes
    assert len(boxes) > 40


def test_a_clean_run_shows_no_red_and_what_a_reviewer_set_aside(pages):
    read = Reader(pages["clean"])
    assert "Caution" in read.text  # two checks could not decide
    assert "There is no finding." in read.text
    assert "Set aside by A. Reviewer: field edges are part of farmland" in read.text


@pytest.mark.parametrize("name", ["unfinished", "empty"])
def test_an_unfinished_run_says_so_before_anything_else(pages, name):
    text = Reader(pages[name]).text
    first = text[: text.index("Each finding says")]
    assert "Cannot say" in first
    assert "What is wrong with this run" in first
    assert "must not be signed" in text
    assert ("audit.json is not there yet" in first) == (name == "unfinished")


def test_hostile_text_stays_text(pages):
    text = pages["hostile"]
    read = Reader(text)
    assert read.tags.count("script") == Reader(pages["finished"]).tags.count("script")
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert "<script>document.title" in read.text
    assert "&lt;script&gt;document.title" in text
    assert "{{7*7}}" in read.text
    assert "\x00" not in text
    assert "\u202e" not in text
    assert len(text) < 4_000_000


def test_equal_runs_give_equal_pages(pages, finished):
    assert page(finished) == pages["finished"]


CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
in_a_browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="BROWSER TEST SKIPPED: no Chromium is installed"
)


@in_a_browser
def test_print_shows_what_is_folded_on_the_screen(pages, tmp_path):
    from pypdf import PdfReader

    path, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(pages["clean"], encoding="utf-8")
    folded = re.findall(r'<details class="[^"]*finding[^"]*"[^>]*>', pages["clean"])
    assert folded
    assert not any(" open" in tag for tag in folded)
    command = [*CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000",
               f"--print-to-pdf={printed}", path.as_uri()]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    read = "".join(page.extract_text() for page in PdfReader(printed).pages)
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", read))  # ligatures as letters
    for words in ("Edges go with farmland.", "Labels considered, best first", "Decided (rows) against truth (columns)",
                  "layer3/5", "Sign-off"):  # fmt: skip
        assert re.sub(r"\s+", "", words) in text, words
    # Every map of the chooser, not only the one chosen.
    assert text.count("hotspot") >= 10


@in_a_browser
def test_a_browser_draws_the_charts_and_runs_nothing_hostile(pages, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(pages["hostile"], encoding="utf-8")
    command = [
        *CHROMIUM,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=8000",
        "--dump-dom",
        path.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    read = Reader(dom)
    assert "<title>owned</title>" not in dom
    assert any(name == "class" and "vega-embed" in value for _, name, value in read.attributes)
    assert not any(name == "class" and value == "still" for _, name, value in read.attributes)
