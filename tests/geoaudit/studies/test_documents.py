"""A study's tables and pictures in its page of the documentation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dnd_core.errors import StoreError
from geoaudit import cli
from geoaudit.marks import parts_of, put_between
from geoaudit.studies.documents import write_document

PAGE = "# Study\n\nSaid by hand.\n\n<!-- study: begin -->\nold\n<!-- study: end -->\n\n## What it means\n"
STUDY = (
    "# Study X: a title\n\nA network.\n\n## Words\n\n![Words](words.png)\n\n![More](more.png)\n\n### By class\n\n| a |\n"
    "\n## What was published\n\nquoted\n"
)


@pytest.fixture
def folders(tmp_path):
    run, docs = tmp_path / "run", tmp_path / "docs"
    run.mkdir()
    (docs / "images").mkdir(parents=True)
    (run / "study.md").write_text(STUDY)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(run / "words.png")
    (docs / "study-x.md").write_text(PAGE)
    return run, docs


def test_tables_and_pictures_are_put_between_the_marks_and_nothing_else_changes(folders) -> None:
    run, docs = folders
    written = write_document(run, docs, "study-x", "geoaudit study x", pictures=("words",))
    page = (docs / "study-x.md").read_text()
    assert page.startswith(
        "# Study\n\nSaid by hand.\n\n<!-- study: begin -->\n`geoaudit study x`\n\nA network.\n\n### Words\n"
    )
    assert page.endswith("#### By class\n\n| a |\n<!-- study: end -->\n\n## What it means\n")
    assert "![Words](images/study-x-words.png)" in page
    assert "more" not in page.lower()
    assert "old" not in page
    assert "quoted" not in page
    assert written == [docs / "study-x.md", docs / "images" / "study-x-words.png"]
    with Image.open(written[1]) as shown:
        assert (shown.size, shown.mode) == ((80, 60), "P")
    again = write_document(run, docs, "study-x", "geoaudit study x", pictures=("words",), deeper=2)
    assert "\n#### Words\n" in again[0].read_text()


def test_a_page_without_its_marks_is_refused_and_left_alone(tmp_path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(StoreError, match="is not there"):
        parts_of(page, "study")
    for text in ("", PAGE + PAGE, "<!-- study: end --> <!-- study: begin -->", PAGE.replace("study:", "bench:")):
        page.write_text(text)
        with pytest.raises(StoreError, match="no part between"):
            put_between(page, "study", "new")
        assert page.read_text() == text


@pytest.mark.parametrize(
    "words",
    [
        ["study", "tile2vec"],
        ["study", "eurosat"],
        ["study", "eurosat", "--model", "clean", "--unverified", "true"],
        ["bench", "labels"],
        ["bench", "shortcuts"],
    ],
)
def test_a_folder_without_the_page_is_refused_before_the_long_job(words, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert cli.main([*words, "--out", str(out), "--docs", str(tmp_path)]) == 2
    assert "is not there: --docs wants the documentation's folder of a checkout" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["tile2vec", "--draws", "3"],
        ["tile2vec", "--unverified"],
        ["eurosat", "--model", "clean"],
        ["eurosat", "--seed", "1"],
    ],
)
def test_only_the_study_that_the_page_speaks_of_is_put_into_it(words, tmp_path, capsys) -> None:
    assert cli.main(["study", *words, "--docs", str(tmp_path)]) == 2
    assert "--docs is for the bundled study" in capsys.readouterr().err
