import io
import re

import pytest

from geoaudit.report.pdf import document, printable
from tests.geoaudit.report.synthetic_run import HOSTILE, LONG


@pytest.fixture(scope="session")
def documents(finished, clean, hostile, unfinished, empty):
    runs = {"finished": finished, "clean": clean, "hostile": hostile, "unfinished": unfinished, "empty": empty}
    return {name: document(results) for name, results in runs.items()}


def pages_of(data):
    from pypdf import PdfReader

    read = PdfReader(io.BytesIO(data))
    return [re.sub(r"[\u200b]", "", page.extract_text()) for page in read.pages], read


def squeezed(text):
    return re.sub(r"\s+", "", text)


def test_the_document_holds_what_a_signer_needs(documents):
    pages, read = pages_of(documents["finished"])
    assert 8 <= len(pages) <= 20
    assert "Stop" in pages[0]
    assert "Leans on haze when it decides residential" in pages[0]
    whole = squeezed("".join(pages))
    for words in ("What was checked", "Inconclusive", "0.35 to 0.49", "Glossary", "Contains modified Copernicus", "Sign-off",
                  "Name and role", "Found (producer's)", "What this audit cannot say", "ab" * 20):  # fmt: skip
        assert squeezed(words) in whole, words
    assert read.metadata.title.startswith("Audit of")


def test_it_is_pdf_a_with_its_own_fonts(documents):
    _, read = pages_of(documents["finished"])
    packet = read.trailer["/Root"]["/Metadata"].get_data().decode()
    assert re.search(r"pdfaid:part(>|=\")2", packet)
    assert re.search(r"pdfaid:conformance(>|=\")A", packet)
    fonts = {
        str(font.get_object()["/BaseFont"]) for page in read.pages for font in page["/Resources"]["/Font"].values()
    }
    assert fonts
    assert all("Noto" in font or "DejaVu" in font for font in fonts)


def test_equal_runs_give_equal_documents(documents, finished):
    assert document(finished) == documents["finished"]


@pytest.mark.parametrize("name", ["unfinished", "empty"])
def test_an_unfinished_run_says_so_on_page_one_and_cannot_be_signed(documents, name):
    pages, _ = pages_of(documents[name])
    assert "Cannot say" in pages[0]
    assert squeezed("What is wrong with this run") in squeezed(pages[0])
    assert squeezed("must not be signed") in squeezed("".join(pages))
    assert "Name and role" not in "".join(pages)


def test_hostile_text_is_set_as_text(documents):
    pages, _ = pages_of(documents["hostile"])
    whole = squeezed("".join(pages))
    for words in ("<script>document.title='owned'</script>", "{{7*7}}", '#panic("x")', "$x^2$", "*b*", "@ref"):
        assert squeezed(words) in whole, words
    assert len(pages) <= 20


def test_characters_without_a_glyph_are_named_and_long_words_may_break():
    said = printable({"a": [HOSTILE], "file": "x" * 60, "n": 3})
    assert "[U+4E2D]" in said["a"][0]
    assert "عربى" in said["a"][0]
    assert said["file"] == "x" * 60
    assert said["n"] == 3
    assert max(len(part) for part in re.split("[ \u200b]", printable(LONG[:5000]))) <= 40
