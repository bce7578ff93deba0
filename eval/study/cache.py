"""Results that are kept part by part, so that a measurement that was cut off goes on where it stopped.

A part is one JSON file, `START-STOP.json`, written whole: a killed process leaves all of a part or nothing.
Which model, bank and settings it belongs to is said by its folder's name (`key`); nothing in here is ever
changed, only added, and the whole folder may be deleted at any time.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidy_stlms.configs.files import to_json, write_whole

PART = re.compile(r"(\d+)-(\d+)\.json")


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` - 1 of a measurement, and the seconds that they took."""

    start: int
    stop: int
    rows: list[dict[str, Any]]
    seconds: float


def key(value: Any) -> str:
    """24 hex digits that stand for a JSON-serialisable value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def read_parts(folder: Path | None, size: int) -> list[Part]:
    """The parts of a measurement of `size` rows that are there, in order, none overlapping another."""
    found: list[Part] = []
    if folder is None or not folder.is_dir():
        return found
    for path in folder.iterdir():
        name = PART.fullmatch(path.name)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8")) if name else {}
            start, stop = (int(number) for number in name.groups()) if name else (0, 0)
            if 0 <= start < stop <= size and len(content["rows"]) == stop - start:
                found.append(Part(start, stop, content["rows"], float(content["seconds"])))
    apart: list[Part] = []
    for part in sorted(found, key=lambda part: part.start):
        if not apart or part.start >= apart[-1].stop:
            apart.append(part)
    return apart


def write_part(folder: Path, part: Part) -> None:
    content = {"seconds": part.seconds, "rows": part.rows}
    write_whole(folder / f"{part.start:08}-{part.stop:08}.json", to_json(content))


def missing(parts: Sequence[Part], size: int, step: int) -> Iterator[tuple[int, int]]:
    """What `parts` lack of `size` rows, as (start, stop) of at most `step` rows each."""
    ends = [0, *(part.stop for part in parts)]
    starts = [*(part.start for part in parts), size]
    for gap_start, gap_stop in zip(ends, starts, strict=True):
        for start in range(gap_start, gap_stop, step):
            yield start, min(start + step, gap_stop)
