"""``geoaudit study ...`` as it is typed."""

from __future__ import annotations

import pytest

from geoaudit import cli
from geoaudit.studies import commands
from geoaudit.studies.writing import cell, csv_table, markdown_table, spread, to_json


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []

    def eurosat(out: str = "x", words: str = "", keep_weights: bool = False, draws: int = 50) -> None:
        """Take note of the options."""
        found.append({"out": out, "words": words, "keep_weights": keep_weights, "draws": draws})

    monkeypatch.setattr(commands, "eurosat", eurosat)
    return found


def test_a_group_of_commands_takes_options_flags_and_spellings(called: list[dict[str, object]]) -> None:
    words = ["study", "eurosat", "--keep-weights", "--words", "fish; purple, pink", "--draws=20"]
    assert cli.main(words) == 0
    assert called == [{"out": "x", "words": "fish; purple, pink", "keep_weights": True, "draws": 20}]


def test_what_is_wrong_with_options_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "eurosat", "--root", "somewhere"]) == 2
    assert capsys.readouterr().err == (
        "geoaudit: error: --root and --checkpoint go together: give EuroSAT's folder and the classifier's file\n"
    )
    assert cli.main(["study", "tile2vec", "--config", "a.yaml", "--weights", "b.pt"]) == 2
    assert "leave --weights out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["study"], ["study", "mars"], ["study", "eurosat", "--wrods", "x"]])
def test_unknown_words_end_with_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "geoaudit: error: " in capsys.readouterr().err


def test_other_peoples_words_stay_words(tmp_path) -> None:
    import pandas as pd

    assert cell("a|b <script> [x](y) *z*\n# w") == "a\\|b &lt;script&gt; \\[x\\](y) \\*z\\* # w"
    assert markdown_table(["a", "b"], [[1, cell("x|y")]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"
    csv_table(tmp_path / "t.csv", pd.DataFrame({"label": ["=1+1", "@x", "plain\nline"], "n": [1.23456789, 2, -3]}))
    assert (tmp_path / "t.csv").read_text() == "label,n\n'=1+1,1.23457\n'@x,2\nplain line,-3\n"


def test_figures_as_text_and_json() -> None:
    assert spread(0.5, 0.25, 0.75) == "50.0 [25.0, 75.0]"
    assert spread(float("nan"), 0, 1) == "\u2013"
    assert to_json({"a": float("nan"), "b": (0.123456789, 3), "c": "x"}) == {"a": None, "b": [0.123457, 3], "c": "x"}
