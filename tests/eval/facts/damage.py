"""Damages files of banks and of other projects, as editors, disks and strangers do.

    damage(random.Random(7), folder)       # changes one file of the folder; says how

The same generator gives the same damage.
"""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ODD: list[Any] = [
    None, True, -1, 1.5, float("nan"), float("inf"), 10**30, "", " ", "\n", "\ud800", "\x1b[31mred",
    "\u202eabc", "a\x00b", "x" * 100_000, "\ufffd", "{subject}", "[X]", "../../x", "<|endoftext|>",
    [], {}, [[]], [None], ["a", "a"], ["\udfff"], [1], {"str": "x"}, {"a": [0, 3]},
]  # fmt: skip
# JSON that Python's writer would not write; a mark takes its place first
RAW = ["9" * 5000, "NaN", "tru", '"\\ud800"', '"\\u12"', "/*", "'x'", "[" * 100_000, "[" * 950 + "]" * 950]
MARK = "@@raw@@"
BYTES = [
    b"",
    b"\n",
    b"\x00" * 9,
    b"\xff\xfe",
    b"\xff",
    b"%PDF-1.7",
    b"{",
    b"]",
    b'"',
    b"null",
    b"7",
    b"x" * 100_000,
]
YAML = [
    "- &a [*a]\n",
    "b: !!python/object/apply:os.system [touch ran]\n",
    "? [a]\n: 1\n",
    "d: 2024-13-45\n",
    "\t- x",
]
KEYS = ["x", "", "\ud800", "\x1b[3m", "id", "type", "suffix", "k" * 10_000]


def damage(rng: random.Random, folder: Path) -> str:
    """Damage one file of the folder, in a way that depends on `rng`; returns the name of the way."""
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.is_file()])
    way = rng.choice([_cut, _flip, _insert, _replace, _another_kind, *4 * [_change_values]])
    way(rng, path)
    return f"{way.__name__} {path.name}"


def _cut(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def _flip(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes() or b"x")
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)


def _insert(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    place = rng.randrange(len(data) + 1)
    more = rng.choice(YAML).encode() if path.suffix == ".yaml" else rng.choice(BYTES)
    path.write_bytes(data[:place] + more + data[place:])


def _replace(rng: random.Random, path: Path) -> None:
    path.write_bytes(rng.choice(BYTES))


def _another_kind(rng: random.Random, path: Path) -> None:
    """A folder, a link to itself or a link to nothing in place of the file."""
    path.unlink()
    kind = rng.randrange(3)
    if kind == 0:
        path.mkdir()
    else:
        path.symlink_to(path.name if kind == 1 else "nowhere")


def _change_values(rng: random.Random, path: Path) -> None:
    """Change one value of a JSON or JSON Lines file, or the text of any other file."""
    try:
        text = path.read_text(encoding="utf-8")
        is_lines = path.suffix == ".jsonl"
        value = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
        value = _changed(rng, value)
        written = "\n".join(map(json.dumps, value)) if is_lines else json.dumps(value)
    except (ValueError, RecursionError, TypeError):
        _insert(rng, path)
        return
    path.write_text(written.replace(json.dumps(MARK), rng.choice(RAW)), encoding="utf-8")


def _changed(rng: random.Random, value: Any) -> Any:
    places = list(_places(value))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    way = rng.randrange(7)
    if way == 0:
        del holder[key]
    elif way == 1:
        holder[key] = MARK
    elif way == 2:
        holder[key] = [holder[key], copy.deepcopy(holder[key])]
    elif way == 3 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif way == 4 and isinstance(holder, dict):
        holder[rng.choice(KEYS)] = holder.pop(key)
    elif way == 5:
        other, other_key = rng.choice(places)
        holder[key] = copy.deepcopy(other[other_key])
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(object or list, key or index) of every value inside."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)
