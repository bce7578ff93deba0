"""Errors of libraries become one line; errors of ours keep what they are."""

import errno
import json
import re

import pytest

from tests.test_imports import MODULES
from tidy_stlms.configs.errors import DiskFull, UserError, one_line, shown
from tidy_stlms.configs.printable import printable
from tidy_stlms.configs.reading import REASON_LIMIT, reading


class PanicException(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\nlines"), "a.json: two lines"),
        (TypeError(), "a.json: TypeError"),
        (KeyError("rope"), "a.json: 'rope' is missing or unknown"),
        (RecursionError("maximum recursion depth exceeded"), "a.json: is nested too deeply"),
        (
            ModuleNotFoundError("No module named 'x'", name="x"),
            "a.json: it needs the Python package x, which is not installed",
        ),
        (PanicException("no entry found for key"), "a.json: no entry found for key"),
        (MemoryError(), "a.json: does not fit into memory"),
        (AssertionError("\x1b[31mred\u202e"), "a.json: \\u001b[31mred\\u202e"),
    ],
)
def test_any_error_of_a_library_is_one_line_that_names_the_file(error, line):
    with pytest.raises(UserError) as raised, reading("a.json"):
        raise error
    assert str(raised.value) == line
    assert raised.value.__cause__ is error  # for `stlm --debug`


def test_a_long_message_is_cut():
    with pytest.raises(UserError) as raised, reading("a.json", "; copy it again"):
        raise ValueError("word " * 1000)
    assert len(str(raised.value)) <= len("a.json: ; copy it again") + REASON_LIMIT + len(" ...")
    assert str(raised.value).endswith(" ...; copy it again")


@pytest.mark.parametrize("error", [UserError("ours"), DiskFull("full"), KeyboardInterrupt()])
def test_errors_of_ours_pass(error):
    with pytest.raises(type(error)) as raised, reading("a.json"):
        raise error
    assert raised.value is error


def test_a_full_disk_is_no_mistake_of_the_file():
    with pytest.raises(OSError, match="No space"), reading("a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_printable_shows_what_would_control_a_terminal():
    assert (
        printable("a\x1b]0;title\x07\u202ebc\x9b\ud800") == "a\\u001b]0;title\\u0007\\u202ebc\\u009b\\ud800"
    )


@pytest.mark.parametrize(
    "text", ["plain", "tab\tand\nline", "naïve 東京 Ελλάς", "👩\u200d🚀", "می\u200cخواهم", ""]
)
def test_printable_keeps_all_other_text(text):
    assert printable(text) == text


def test_printable_text_inside_json_is_the_same_value():
    value = {"text": "\u202ea\x9b"}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_one_line_has_no_control_characters():
    assert one_line(ValueError("a\x1b[2J\r\n b")) == "a\\u001b[2J b"


def test_an_error_among_its_own_causes_ends():
    """As one that is raised again while what it caused is handled."""
    error, effect = ValueError("a"), UserError("b")
    error.__context__, effect.__cause__ = effect, error
    with pytest.raises(UserError, match=r"^a\.json: a$"), reading("a.json"):
        raise error


def test_some_errors_may_pass():
    def is_mine(error):
        return "mine" in str(error)

    with pytest.raises(ValueError, match="mine"), reading("a.json", passes=is_mine):
        raise ValueError("mine")
    with pytest.raises(UserError), reading("a.json", passes=is_mine):
        raise ValueError("other")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("a" * 58, repr("a" * 58)),
        ("a" * 59, f"'{'a' * 59}...'"),
        (["a" * 99], f"['{'a' * 58}...]"),
        (10**99, f"1{'0' * 59}..."),
        (b"a" * 99, f"b'{'a' * 58}...'"),
    ],
)
def test_a_long_value_in_a_message_ends_in_an_ellipsis(value, text):
    assert shown(value) == text


def test_no_message_cuts_a_value_without_an_ellipsis():
    cut = re.compile(r"!r:\.\d|\[:\d+\]!r")
    found = [name for name, file in MODULES.items() if cut.search(file.read_text(encoding="utf-8"))]
    assert not found
