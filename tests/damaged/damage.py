"""Strategies of hypothesis that damage a file: a value of its JSON or YAML, or its bytes."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONG = "STLM_FUZZ" in os.environ
SECRET = "only-the-environment-knows-this"  # the value of $STLM_SECRET
DEEP = "stands for 3,000 brackets"
LONG_WORD = "stands for 100,000 letters"
DIGITS = "stands for 5,000 digits"
CODE = "stands for a YAML tag that makes a folder"

WORDS = [
    "", " ", "x", "gpt2", "../../etc/passwd", LONG_WORD, "\x1b]0;title\x07", "\u202eabc", "\ud800", "\0",
    "=cmd|' /C calc'!A0", "${oc.env:STLM_SECRET}", "${training.seed}", "${nowhere}", "${", "{subject}",
    "{subject.__class__}", "{", "{0}", "%s", "2020-01-01", "1e3", "nan", "\n", "naïve 東京", "(", "[X]",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 3.5, -0.5, 10**9, -(10**9), 2**63, 10**30, 1e308, float("inf"), float("nan")]
ODD = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    [1, "a"],
    {"a": 1},
    {"": None},
    {"a": {"b": []}},
    DEEP,
    DIGITS,
    CODE,
]
odd_values = st.one_of(st.sampled_from(WORDS), st.sampled_from(NUMBERS), st.sampled_from(ODD))


def cases(short: int, long: int) -> settings:
    """The number of cases of a test in `make test`, always the same ones, and in `make fuzz`."""
    return settings(
        max_examples=long if LONG else short,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@st.composite
def damaged_value(draw: Any, value: Any) -> Any:
    """A copy of a JSON-like value with one or two of its parts replaced, left out, renamed or moved."""
    value = {"": copy.deepcopy(value)}  # so that the whole has a place too
    for _ in range(draw(st.integers(1, 2))):
        parent, key = _place(draw, value)
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "wrap", "swap"]))
        if kind == "replace" or parent is value:
            parent[key] = copy.deepcopy(draw(odd_values))
        elif kind == "remove":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            name = draw(st.one_of(st.sampled_from([f"{key}s", str(key)[1:], "x", "1"]), st.text(max_size=8)))
            parent[name] = parent.pop(key)
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"a": parent[key]}, [parent[key]] * 2]))
        else:
            other, other_key = _place(draw, value)
            parent[key] = copy.deepcopy(other[other_key])
    return value[""]


def _place(draw: Any, root: dict[str, Any]) -> tuple[Any, Any]:
    """A container and one of its keys. All depths are about as likely, however many values they hold."""
    parent: Any = root
    key: Any = ""
    while True:
        child = parent[key]
        if not isinstance(child, dict | list) or not child or draw(st.integers(0, 3)) == 0:
            return parent, key
        parent = child
        key = (
            draw(st.sampled_from(list(child)))
            if isinstance(child, dict)
            else draw(st.integers(0, len(child) - 1))
        )


@st.composite
def damaged_bytes(draw: Any, content: bytes) -> bytes:
    """The bytes of a file, cut off, changed, or replaced by those of another kind of file."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "remove", "repeat", "whole"]))
    start = draw(st.integers(0, max(len(content) - 1, 0)))
    end = min(len(content), start + draw(st.integers(1, 64)))
    if kind == "cut":
        return content[:start]
    if kind == "flip":
        new = draw(st.binary(min_size=end - start, max_size=end - start))
        return content[:start] + new + content[end:]
    if kind == "insert":
        return (
            content[:start]
            + draw(st.one_of(st.binary(max_size=64), st.sampled_from(PIECES)))
            + content[start:]
        )
    if kind == "remove":
        return content[:start] + content[end:]
    if kind == "repeat":
        return content[:end] + content[start:]
    return WHOLES[draw(st.sampled_from(sorted(WHOLES)))]


PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b'"', b"'", b"\n\n", b"\x1b[2J", b"\xed\xa0\x80",
    b"{{", b"NaN",
]  # fmt: skip
# Each letter stands for eight of the one before: 2 * 8^16 texts.
ALIASES = b"a: &a [x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 8)) for letter in range(98, 114)
)
WHOLES = {
    "empty": b"", "newline": b"\n", "null": b"null", "number": b"3", "list": b"[]", "mapping": b"{}",
    "text": b'"text"', "numbers": b"[1, 2]", "utf-32": b"\xff\xfe\0\0", "utf-16": "a: 1\n".encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\0cut", "zip": b"PK\x03\x04 a zip", "pdf": b"%PDF-1.7\n%\xe2\xe3",
    "html": b"<!DOCTYPE html>\n<html>", "pickle": b"\x80\x04\x95", "csv": b"a,b\n1,2\n",
    "markdown": b"# Capitals\n\n- Paris\n", "program": b"\x7fELF\x02\x01\x01" + bytes(64),
    "parquet": b"PAR1" + bytes(20) + b"PAR1", "deep list": b"[" * 3000 + b"]" * 3000,
    "deep mapping": b'{"a":' * 3000, "deep YAML": b"- " * 3000, "5,000 digits": b"1" * 5000,
    "aliases": ALIASES,
}  # fmt: skip


def to_json(value: Any) -> bytes:
    """JSON as a careless program writes it: with NaN, infinities and halves of characters."""
    return _special(json.dumps(value))


def to_yaml(value: Any, canary: Path) -> bytes:
    """YAML, with a tag for `CODE` that would make the folder `canary` if YAML ran code."""
    call = f'!!python/object/apply:os.mkdir ["{canary}"]'
    return _special(yaml.safe_dump(value, sort_keys=False)).replace(CODE.encode(), call.encode())


def _special(text: str) -> bytes:
    deep = "[" * 3000 + "]" * 3000
    for mark, meaning in ((DEEP, deep), (DIGITS, "9" * 5000)):
        text = text.replace(f'"{mark}"', meaning).replace(mark, meaning)
    return text.replace(LONG_WORD, "a" * 100_000).encode("utf-8", "surrogatepass")
