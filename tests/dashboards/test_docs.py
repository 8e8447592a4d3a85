"""The pictures and links of the documentation: all there, small, and none left over."""

import re
from pathlib import Path

from dashboards.navigation import PAGES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documentation_shows_every_page_with_pictures_that_are_there():
    text = (DOCS / "dashboard.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for title, _ in PAGES.values():
        assert title in headings
    shown = set(re.findall(r"\]\(images/([\w-]+\.png)\)", text))
    there = {path.name for path in (DOCS / "images").glob("dashboard-*.png")}
    # The README may show a picture too, but none lies there that nothing shows.
    assert shown == there
    for anchor in re.findall(r"\]\(#([\w-]+)\)", text):
        assert anchor in {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}
    for link in re.findall(r"\]\(([\w-]+\.md)\)", text):
        assert (DOCS / link).is_file()


def test_pictures_are_small():
    sizes = [path.stat().st_size for path in (DOCS / "images").glob("dashboard-*.png")]
    assert max(sizes) < 300_000
    assert sum(sizes) < 2_500_000
