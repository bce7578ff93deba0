"""Nested files: nothing is lost, changed or run on the way, and each mistake is one line with the file."""

from pathlib import Path

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import trees
from tidy_stlms.eval.facts.imports.trees import parse_json5, parse_yaml

PATH = Path("x.file")
LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


def test_what_is_read():
    assert parse_json5(PATH, "[{a: 'x', \"b\": 1,}, /* c */]") == [{"a": "x", "b": 1}]
    assert parse_yaml(PATH, "a: {b: ' Oslo', 7: 1976, c: no, d: 2024-13-45, e: ~}") == {
        "a": {"b": " Oslo", "7": "1976", "c": "no", "d": "2024-13-45", "e": "~"}
    }
    assert parse_yaml(PATH, "- !!python/object/apply:os.system [ls]\n- !x y\n- 1e5") == [["ls"], "y", "1e5"]
    assert parse_yaml(PATH, "9" * 100_000) == "9" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.file: is empty"),
        ('{"a": 1, "a": 2}', "x.file: not valid JSON: an object has the key 'a' twice"),
        ("{a: 1, a: 2}", 'x.file: not valid JSON5: Duplicate key "a" found in object'),
        ('[1\n"a" 2]', 'x.file: not valid JSON5, line 2 Unexpected """ at column 1'),
        ("[" * 101 + "]" * 101, "x.file: is nested more than 100 deep"),
        ("[" * 100_000, "x.file: not valid JSON: is nested too deeply"),
        ("[9" + "9" * 5000 + "]", "x.file: not valid JSON: Exceeds the limit"),
        ("[+9" + "9" * 5000 + "]", "x.file: not valid JSON5: Exceeds the limit"),
        ("# Capitals", 'x.file: not valid JSON5, line 1 Unexpected "#" at column 1'),
    ],
)
def test_mistakes_in_json(content, message):
    with pytest.raises(UserError) as error:
        parse_json5(PATH, content)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "x.file, line 2: not valid YAML (aliases (*name) are not read; write it out)"),
        ("a: &a [*a]", "x.file, line 1: not valid YAML (aliases"),
        ("a: 1\nb: 2\na: 3", "x.file, line 1: not valid YAML (the key 'a' stands twice)"),
        ("a: b: c", "x.file, line 1: not valid YAML (mapping values"),
        ("? [a]\n: b", "x.file, line 1: not valid YAML (found unhashable key)"),
        ("a: \x00", "x.file: not valid YAML: unacceptable character #x0000"),
        ("a\n---\nb", "x.file, line 2: not valid YAML (but found another document)"),
        ("[" * 101 + "]" * 101, "x.file: is nested more than 100 deep"),
        ("[" * 3000 + "]" * 3000, "x.file: not valid YAML: is nested too deeply"),
    ],
)
def test_mistakes_in_yaml(content, message):
    with pytest.raises(UserError) as error:
        parse_yaml(PATH, content)
    assert str(error.value).startswith(message)


def test_a_large_file_must_be_plain_json(monkeypatch):
    monkeypatch.setattr(trees, "LONGEST_JSON5", 5)
    assert parse_json5(PATH, '["abcdef"]') == ["abcdef"]
    with pytest.raises(
        UserError, match=r"^x\.file: not valid JSON, line 1 \(Expecting value\); only files up"
    ):
        parse_json5(PATH, "[1, 2, ]")
