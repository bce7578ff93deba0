"""JSON5 of other projects: nothing is lost or changed, and each mistake is one line with the file."""

from pathlib import Path

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import source_files
from tidy_stlms.eval.facts.imports.source_files import parse_json5


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """`parse(content)`: the value of a file."""
    monkeypatch.chdir(tmp_path)

    def run(content):
        (tmp_path / "x.file").write_text(content)
        return parse_json5(Path("x.file"))

    return run


def test_what_is_read(parse):
    assert parse("[{a: 'x', \"b\": 1,}, /* c */]") == [{"a": "x", "b": 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.file: is empty"),
        ('{"a": 1, "a": 2}', "x.file: not valid JSON: an object has the key 'a' twice"),
        ("{a: 1, a: 2}", 'x.file: not valid JSON5: Duplicate key "a" found in object'),
        ('[1\n"a" 2]', 'x.file: not valid JSON5, line 2 Unexpected """ at column 1'),
        ("[" * 101 + "]" * 101, "x.file: is nested more than 100 levels deep"),
        ("[" * 100_000, "x.file: not valid JSON: is nested too deeply"),
        ("[9" + "9" * 5000 + "]", "x.file: not valid JSON: a number has too many digits"),
        ("[+9" + "9" * 5000 + "]", "x.file: not valid JSON5: a number has too many digits"),
        ("# Capitals", 'x.file: not valid JSON5, line 1 Unexpected "#" at column 1'),
    ],
)
def test_mistakes(parse, content, message):
    with pytest.raises(UserError) as error:
        parse(content)
    assert str(error.value).startswith(message)


def test_a_large_file_must_be_plain_json(parse, monkeypatch):
    monkeypatch.setattr(source_files, "LONGEST_JSON5", 5)
    assert parse('["abcdef"]') == ["abcdef"]
    with pytest.raises(UserError, match=r"^x\.file: not valid JSON: .* \(column 8\); only files up"):
        parse("[1, 2, ]")
