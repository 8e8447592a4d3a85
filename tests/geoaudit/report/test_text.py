import ast
import math
import re
from pathlib import Path

import pytest

from geoaudit.report.machine import CROSSWALK
from geoaudit.report.text import figure, hectares, interval, lines, percent, plain, probability, seconds
from geoaudit.report.wording import ENGLISH, count, say
from tests.geoaudit.report.synthetic_run import HOSTILE, LONG

REPORT = Path(__file__).parents[3] / "geoaudit" / "report"


def test_plain_is_one_short_line_without_controls():
    text = plain(HOSTILE, 10_000)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "<script>" in text  # what is text stays text; each format escapes it for itself
    assert "中文 عربى" in text
    assert len(plain(LONG)) == 300
    assert plain(LONG).endswith("…")
    assert plain(None) == ""
    assert plain("\ud800x\ufffe") == "x"
    assert lines(["a", "b"]) == "a; b"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (figure(-0.123), "\u22120.12"), (figure(0.1, signed=True), "+0.10"), (figure(-0.001), "0.00"), (figure(None), "\u2013"),
        (figure(math.nan), "\u2013"), (figure(True), "\u2013"), (percent(0.426), "43 %"), (percent(None), "\u2013"),
        (interval([0.1, 0.25]), "0.10 to 0.25"), (interval([None, 1]), ""), (interval([0.1, 0.2], shares=True), "10 to 20 %"),
        (probability(0.0004), "< 0.001"), (probability(0.032), "0.032"), (probability(0.4), "0.40"),
        (hectares(1236.4), "1\u202f240"), (hectares(0), "0"), (hectares(3.14159), "3.14"), (hectares(56.78), "57"),
        (seconds(4.21), "4.2 s"), (seconds(200), "3 min 20 s"), (count(1, "finding"), "1 finding"),
        (count(1200, "tile"), "1\u202f200 tiles"),
    ],
)  # fmt: skip
def test_figures_read_as_people_write_them(said, expected):
    assert said == expected


def test_values_are_never_read_as_patterns():
    assert say("title", model="{0} {x!r} %s") == "Audit of {0} {x!r} %s"


def test_every_key_that_is_used_is_in_the_catalogue_and_the_other_way_round():
    sources = "\n".join(
        path.read_text() for path in REPORT.rglob("*") if path.suffix in (".py", ".j2") and path.name != "wording.py"
    )
    used = set(re.findall(r"""["']([a-z_]+(?:\.[a-z_0-9]+)+)["']""", sources)) & set(ENGLISH)
    asked = set(re.findall(r"""(?:say|w|head)\(\s*["']([a-z_.0-9]+)["']\s*[,)]""", sources))
    assert asked <= set(ENGLISH)
    built = ("verdict.", "severity.", "status.", "check.", "baseline.", "ladder.", "neuron.", "nav.", "fact.", "method.",
             "limits.", "glossary.", "provenance.", "chart.", "crosswalk.", "diff.", "design.")  # fmt: skip
    idle = {
        key for key in ENGLISH if key not in used | asked and not key.startswith(built) and f'"{key}"' not in sources
    }
    assert not idle


# Identifiers of formats and tags that people never read as sentences.
NO_WORDING = {"Noto Sans, sans-serif", "Feature", "FeatureCollection", "Unknown", "Polygon", "MultiPolygon"}


def sentences(path):
    """String constants that read like words for people: not docstrings, not errors, not names in ``__all__``, not markup."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            skipped.add(id(node.body[0].value))
        if isinstance(node, ast.Raise) or (
            isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ):
            skipped |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            said = node.value
            wordy = re.search(r"[A-Za-z]{2,},? [a-z]{2,}|(?:^| )(?:by|to|of|and|in|not) |^[A-Z][a-z]{3,}$", said)
            if wordy and said not in NO_WORDING and not said.startswith("<"):
                yield said


@pytest.mark.parametrize(
    "name",
    [
        "atlas",
        "charts",
        "content",
        "difference",
        "geodata",
        "html",
        "machine",
        "maps",
        "modelcard",
        "pdf",
        "tables",
        "text",
    ],
)
def test_no_module_says_anything_that_is_not_in_the_catalogue(name):
    found = set(sentences(REPORT / f"{name}.py"))
    # The names of standards and of their clauses are no wording of ours.
    assert found - {part for row in CROSSWALK for part in row[:2]} == set()


def test_the_templates_say_nothing_of_their_own():
    page = re.sub(
        r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", " ", (REPORT / "templates" / "report.html.j2").read_text(), flags=re.DOTALL
    )
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.findall(r"[A-Za-z]{2,}", text) == []
    typst = re.sub(r"^//.*$", "", (REPORT / "templates" / "report.typ").read_text(), flags=re.MULTILINE)
    assert [said for said in re.findall(r'"([^"\n]*)"', typst) if re.search(r"[A-Za-z]{2,} [a-z]{2,}", said)] == []
