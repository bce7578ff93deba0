"""results.csv: read back as it was, and harmless in a spreadsheet."""

import csv
import io

import pandas
import pytest

from tidy_stlms.eval.study.spreadsheet import to_csv


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_text_that_would_be_a_formula_gets_an_apostrophe(start):
    text = f"{start}cmd|' /C calc'!A0"
    row = {"text": text, "texts": (text, "b"), "inside": f"a{text}", "tokens": ((text, 0.25),), "none": None}
    (cells,) = csv.DictReader(io.StringIO(to_csv([row]), newline=""))
    assert cells["text"] == f"'{text}"
    assert cells["texts"] == f"'{text}; b"
    assert cells["inside"] == f"a{text}"
    assert not cells["tokens"].startswith(start)
    assert cells["none"] == ""


def test_a_formula_behind_a_semicolon_gets_one_too():
    """Where a semicolon separates cells, one could begin in the middle of a text."""
    rows = [{"distractors": ["a", "=1+1", "-x"], "prompt": "The;=cmd", "text": "one; two - three"}]
    assert to_csv(rows).splitlines()[1] == "a; '=1+1; '-x,The;'=cmd,one; two - three"


def test_numbers_stay_numbers_and_texts_are_read_back_whole():
    texts = [
        "a\rb",
        "a\nb",
        "a\r\nb",
        'q"q',
        "a;b",
        "a,b",
        "'x",
        "\u05d0\N{MAN}\u200d\N{WOMAN}",
        "\x1b\u202e",
        "1.5",
    ]
    rows = [{"text": text, "logprob": -1.5, "n": -2, "logprobs": (-1.5, -2.0)} for text in texts]
    table = pandas.read_csv(io.StringIO(to_csv(rows)), keep_default_na=False, dtype={"text": str})
    assert table["text"].tolist() == texts
    assert table["logprob"].tolist() == [-1.5] * len(texts)
    assert table["n"].tolist() == [-2] * len(texts)
    assert set(table["logprobs"]) == {"-1.5; -2"}
