import io
import re
import unicodedata

import pytest

from geoaudit.report.pdf import document
from geoaudit.report.typefaces import FAMILIES, covered, font_folder, printable
from geoaudit.results import open_run
from tests.geoaudit.report.synthetic_run import HOSTILE, LONG, make_run


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


SCRIPTS = {
    "Latin": "Wald Økologisk Łąka", "Vietnamese": "rừng rậm", "Greek": "σκούρο δάσος", "Cyrillic": "тёмный лес",
    "Arabic": "غابة كثيفة",
    "Persian": "می‌خواهم", "Urdu": "گھنا جنگل", "Hebrew": "יער צפוף", "Devanagari": "घना जंगल",
    "Bengali": "ঘন বন", "Gujarati": "ગાઢ જંગલ",
    "Gurmukhi": "ਸੰਘਣਾ ਜੰਗਲ", "Tamil": "அடர்ந்த காடு", "Telugu": "దట్టమైన అడవి", "Kannada": "ದಟ್ಟವಾದ ಕಾಡು", "Malayalam": "നിബിഡ വനം",
    "Oriya": "ଘଞ୍ଚ ଜଙ୍ଗଲ", "Sinhala": "ඝන වනාන්තරය", "Thai": "ป่าทึบ", "Lao": "ປ່າທຶບ", "Khmer": "ព្រៃក្រាស់", "Myanmar": "ထူထပ်သောတော",
    "Tibetan": "ནགས་ཚལ", "Georgian": "ხშირი ტყე", "Armenian": "խիտ անտառ", "Ethiopic": "ጥቅጥቅ ያለ ደን", "Mongolian": "ᠣᠢ ᠮᠣᠳᠤ",
    "Chinese": "茂密森林 農地", "Japanese": "深い森 カタカナ", "Korean": "울창한 숲",
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_its_letters(script):
    assert printable(SCRIPTS[script]).replace("\u200b", "") == SCRIPTS[script]


def test_a_run_in_many_scripts_is_set_in_pdf_a_with_embedded_fonts(tmp_path):
    results = open_run(make_run(tmp_path / "run", units=16, side=6))
    words = list(SCRIPTS.values())
    results.manifest["model"]["class_names"] = [*words[15:17], *words[27:]]
    results.manifest["model"]["name"] = "模型 модель"
    for number, check in enumerate(results.audit["checks"]):
        check["reason"] = "; ".join(words[number::3])
    data = document(results)
    assert data == document(results)
    pages, read = pages_of(data)
    text = squeezed("".join(pages))
    for name in ("Chinese", "Korean", "Japanese", "Cyrillic", "Greek", "Georgian"):
        assert squeezed(SCRIPTS[name]) in text, name
    assert "[U+" not in text
    fonts = {
        font.get_object()["/BaseFont"]: font.get_object()
        for page in read.pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert any("Droid" in name for name in fonts)
    for font in fonts.values():
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]
        assert {"/FontFile2", "/FontFile3"} & set(descriptor)
    assert len(data) < 1_500_000


def test_every_font_is_named_and_every_name_is_a_font():
    from fontTools.ttLib import TTFont

    families = set()
    for path in font_folder().glob("*.ttf"):
        with TTFont(path, lazy=True) as font:
            families.add(font["name"].getDebugName(1))
    assert families == set(FAMILIES)
    assert sum(path.stat().st_size for path in font_folder().iterdir()) < 10_000_000


def test_characters_without_a_glyph_are_named_and_long_words_may_break():
    said = printable({"a": [HOSTILE], "file": "x" * 60, "n": 3})
    assert "[U+1F30D]" in said["a"][0]
    assert "عربى" in said["a"][0]
    assert "中文" in said["a"][0]
    assert printable("\U0001f30d\U0001f30e\U0001f30f\U0001f310x") == "[U+1F30D U+1F30E U+1F30F … 4]x"
    assert said["file"] == "x" * 60
    assert said["n"] == 3
    assert max(len(part) for part in re.split("[ \u200b]", printable(LONG[:5000]))) <= 40


def test_a_long_word_never_breaks_inside_a_letter():
    word = "क्षेत्र" * 12
    parts = printable(word).split("\u200b")
    assert len(parts) > 3
    assert "".join(parts) == word
    assert not any(unicodedata.category(part[0]).startswith("M") or part.endswith("\u094d") for part in parts)
    assert "\u200b" not in printable("\u0628" * 30)
    assert ord("森") in covered()
