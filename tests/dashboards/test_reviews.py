import json
import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest

from dashboards.charts import wilson
from dashboards.reviews import FILE, Choice, Review, Reviews
from dnd_core.errors import StoreError

WRITER = """
import sys
from pathlib import Path
from dashboards.reviews import Review, Reviews
reviews = Reviews(Path(sys.argv[1]))
for place in range(40):
    reviews.add(Review("label", f"layer4/{place}", "haze", "accept", sys.argv[2]))
"""


def test_two_reviewers_at_once_lose_nothing(tmp_path):
    people = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in ("A", "B")]
    assert [person.wait(60) for person in people] == [0, 0]
    entries = Reviews(tmp_path).entries()
    assert len(entries) == 80
    assert sorted({entry.number for entry in entries}) == list(range(1, 81))
    assert sum(entry.review.reviewer == "A" for entry in entries) == 40
    with sqlite3.connect(tmp_path / FILE) as base:
        assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    base.close()


def test_the_last_word_of_each_person_counts_and_all_are_kept(tmp_path):
    reviews = Reviews(tmp_path)
    reviews.add(Review("finding", "f" * 40, "haze", "accept", "A"))
    reviews.add(Review("finding", "f" * 40, "haze", "reject", "B", note="clear sky"))
    reviews.add(Review("finding", "f" * 40, "haze", "correct", "A", correction="smoke"))
    assert len(reviews.entries()) == 3
    first, second = reviews.latest("finding")["f" * 40]
    assert (first.review.reviewer, first.review.decision, first.review.correction) == ("A", "correct", "smoke")
    assert (second.review.reviewer, second.review.decision) == ("B", "reject")
    assert reviews.latest("label") == {}


def test_hostile_words_are_kept_as_they_are(tmp_path):
    words = "'); DROP TABLE reviews; -- <script> \U0001f30d \u202e\ud800"
    reviews = Reviews(tmp_path)
    reviews.add(Review("label", "layer4/1", words, "reject", words, note=words * 500))
    (entry,) = reviews.entries()
    assert entry.review.reviewer == words.replace("\ud800", "?")
    assert len(entry.review.note) == 4000
    assert entry.written.endswith("+00:00")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"reviewer": " "}, "give your name"),
        ({"decision": "maybe"}, "one of accept, correct, reject"),
        ({"decision": "correct"}, "a correction needs its words"),
        ({"kind": "network"}, "label or a finding"),
        ({"subject": ""}, "names it"),
    ],
)
def test_what_is_no_review_is_refused(fields, says):
    given = {"kind": "label", "subject": "layer4/1", "label": "", "decision": "accept", "reviewer": "A", **fields}
    with pytest.raises(StoreError, match=says):
        Review(**given)


def test_comparisons_are_counted_once_a_person_and_unit(tmp_path):
    reviews = Reviews(tmp_path)
    for unit, winner in (("a/0", "theirs"), ("a/0", "ours"), ("a/1", "ours"), ("a/2", "theirs"), ("a/3", "neither")):
        reviews.add(Choice(unit, "second", "haze", "cloud", winner, "A"))
    reviews.add(Choice("a/0", "control", "haze", "water", "both", "B"))
    tally = reviews.tallies()["second"]
    assert (tally.ours, tally.theirs, tally.both, tally.neither, tally.decided) == (2, 1, 0, 1, 3)
    assert reviews.compared("A", "second") == {"a/0", "a/1", "a/2", "a/3"}
    assert reviews.compared("B", "second") == set()
    assert reviews.summary()["comparisons"]["control"]["both"] == 1


def test_the_interval_of_a_win_rate_is_wilsons():
    # Worked by hand from Wilson's formula for 8 of 10.
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94331), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0


def test_the_summary_is_for_other_tools(tmp_path):
    reviews = Reviews(tmp_path)
    reviews.add(Review("finding", "f" * 40, "haze", "reject", "A", note="clear sky"))
    found = json.loads(reviews.write_summary().read_text())
    (said,) = found["findings"]["f" * 40]
    assert (said["verdict"], said["by"], said["note"]) == ("reject", "A", "clear sky")


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        Reviews(tmp_path).entries()
    with pytest.raises(StoreError, match="cannot be written"):
        Reviews(tmp_path).add(Review("label", "a/0", "", "accept", "A"))


def test_a_folder_without_reviews_stays_untouched(tmp_path):
    assert Reviews(tmp_path).entries() == []
    assert Reviews(tmp_path).tallies() == {}
    assert list(tmp_path.iterdir()) == []
    assert stat.S_ISDIR(tmp_path.stat().st_mode)


def test_what_was_decided_stands_in_the_report(tmp_path, sound_run):
    from geoaudit.report.content import lines
    from geoaudit.results import open_run

    root = tmp_path / "run"
    shutil.copytree(sound_run, root)
    fingerprint = open_run(root).findings[0]["fingerprint"]
    reviews = Reviews(root)
    reviews.add(Review("finding", fingerprint, "haze", "reject", "A", note="first"))
    reviews.add(Review("finding", fingerprint, "haze", "accept", "B. Signer", note="second"))
    reviews.write_summary()
    first, second = open_run(root).findings
    assert (first["decision"]["verdict"], first["decision"]["by"]) == ("accept", "B. Signer")
    assert lines(first["decision"]["note"], 40) == "second"
    assert "decision" not in second
    (root / "reviews.json").write_text("[1")
    opened = open_run(root)
    assert "decision" not in opened.findings[0]
    assert any(problem.where == "reviews.json" for problem in opened.problems)
