"""YAML as plain values: what is read, and what is refused with its line."""

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.yaml_files import parse_override, parse_yaml


def test_keys_are_texts_as_written_and_values_are_plain():
    assert parse_yaml("1: a\nyes: b\nnull: c\n2000-01-01: d", "f") == {
        "1": "a",
        "yes": "b",
        "null": "c",
        "2000-01-01": "d",
    }
    text = "[2000-01-01, 12:30, 1e-3, 1.5e3, .5, 010, 0x1f, 1_000, -5, true, ~, '7', 1:2:3.5]"
    expected = ["2000-01-01", "12:30", 0.001, 1500.0, 0.5, 8, 31, 1000, -5, True, None, "7", "1:2:3.5"]
    assert parse_yaml(text, "f") == expected
    assert parse_yaml("a: &b {x: 1, y: 1}\nc: {<<: *b, x: 2}", "f")["c"] == {"x": 2, "y": 1}
    assert parse_yaml("", "f") is None
    assert len(parse_yaml(f"[{'word, ' * 20_000}]", "f")) == 20_000  # long lists are no bombs


BOMB = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f, line 3: not valid YAML (the key 'a' occurs twice)"),
        ("a:\n- {b: 1, 'b': 2}", "f, line 2: not valid YAML (the key 'b' occurs twice)"),
        ("1: a\n'1': b", "f, line 2: not valid YAML (the key '1' occurs twice)"),
        ("a: [1", "f, line 2: not valid YAML"),
        ("\ta: 1", "f, line 1: not valid YAML"),
        ("a: \x00", "f: not valid YAML: "),
        ('a: "\\0"', "f, line 1: not valid YAML (the character '\\x00' is not allowed)"),
        ('a: "\\ud800"', "f, line 1: not valid YAML"),
        ("a: \ud800", "f: not valid YAML: "),
        ("? [a]\n: b", "f, line 1: not valid YAML (a key must be one word)"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !!set {b}", "could not determine a constructor"),
        ("a: !!int b", "f: not valid YAML: "),
        ("a: !!map b", "f, line 1: not valid YAML (expected a mapping)"),
        ("a: " + "9" * 5000, "f, line 1: not valid YAML (a number of 5000 digits is too large)"),
        ("a: 0x" + "f" * 5000, "a number of 5002 digits is too large"),
        ("[" * 3000, "f, line 1: is nested more than 40 levels deep"),
        ("{a: " * 100_000, "f, line 1: is nested more than 40 levels deep"),
        (BOMB, "aliases (*name) repeat"),
        ("a: &x [*x]", "an alias (*name) contains itself"),
        ("a: &a {<<: *a}", "an alias (*name) contains itself"),
        ("a: 1\n---\nb: 2", "f, line 2: not valid YAML"),
    ],
)
def test_what_is_no_sound_yaml_is_named_with_its_line(text, message):
    with pytest.raises(UserError) as error:
        parse_yaml(text, "f")
    assert message in str(error.value)
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


def test_overrides_are_nested():
    assert parse_override("a.b.c={d: [1, x]}") == {"a": {"b": {"c": {"d": [1, "x"]}}}}
    assert parse_override("a=") == {"a": None}
    assert parse_override("a=b=c") == {"a": "b=c"}
    assert parse_override("a=${oc.env:HOME}") == {"a": "${oc.env:HOME}"}  # not resolved here


@pytest.mark.parametrize("text", ["a", "=1", "a=[1", "a=\ud800", "a\x00=1", "a" * 2000 + "=1"])
def test_what_is_no_override_is_one_short_line(text):
    with pytest.raises(UserError) as error:
        parse_override(text)
    assert len(str(error.value)) < 350
    assert str(error.value).isprintable()


def test_values_as_texts():
    text = "a: {b: ' Oslo', 7: 1976, c: no, d: 2024-13-45, e: ~, f: 1e5, g: }"
    values = {"b": " Oslo", "7": "1976", "c": "no", "d": "2024-13-45", "e": "~", "f": "1e5", "g": ""}
    assert parse_yaml(text, "f", as_texts=True) == {"a": values}
