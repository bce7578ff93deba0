"""Keeps a measurement part by part, so that a stopped command continues where it was.

    parts = read_parts(path, DocumentScore, size=len(documents))
    for start, stop in missing(parts, size=len(documents), step=64):
        append_part(path, Part(start, seconds, score_documents(model, tokenizer, documents[start:stop])))

One file holds one measurement of one model. Its path has hashes (`key`) of everything that changes the
numbers. Each line is a part, and lines are only appended. A kill may leave half of the last line, which is
not read. The files may be deleted at any time.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from tidy_stlms.configs.full_disk import writing

Row = TypeVar("Row")


class Part(msgspec.Struct, Generic[Row], frozen=True):
    """Consecutive rows of a measurement, measured together."""

    start: int
    """Index of the first row."""
    seconds: float
    """Time to measure them."""
    rows: tuple[Row, ...]
    """The results of probes, documents or prompts, or the results of one benchmark."""

    @property
    def stop(self) -> int:
        """Index after the last row."""
        return self.start + len(self.rows)


def key(value: Any) -> str:
    """A hash of a JSON-serialisable value, 24 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def read_parts(path: Path | None, row_type: type[Row], size: int) -> list[Part[Row]]:
    """Read the kept parts of a measurement of `size` rows, in order and without overlaps.

    Lines that are broken are left out. Two commands at the same moment may have kept the same rows: the part
    that was written first counts.
    """
    content = b""
    if path is not None:
        with contextlib.suppress(OSError):
            content = path.read_bytes()
    decode = msgspec.json.Decoder(Part[row_type]).decode  # type: ignore[valid-type]
    parts: list[Part[Row]] = []
    for line in content.split(b"\n"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            part = decode(line)
            fits = 0 <= part.start < part.stop <= size
            if fits and all(part.stop <= other.start or other.stop <= part.start for other in parts):
                parts.append(part)
    return sorted(parts, key=lambda part: part.start)


def append_part(path: Path, part: Part[Any]) -> None:
    """Add a part to a file; makes missing folders.

    Raises DiskFull or OSError; half of the line may then be left.
    """
    # The newline comes first: it also ends what a killed command left of its last line.
    line = b"\n" + msgspec.json.encode(part)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("ab") as file:
                file.write(line)
        except OSError:
            if path.is_file() and path.stat().st_size == 0:
                path.unlink()
            raise


def missing(parts: Sequence[Part[Any]], size: int, step: int) -> Iterator[tuple[int, int]]:
    """The gaps between `parts` of `size` rows, as (start, stop) of at most `step` rows each."""
    ends = [0, *(part.stop for part in parts)]
    starts = [*(part.start for part in parts), size]
    for gap_start, gap_stop in zip(ends, starts, strict=True):
        for start in range(gap_start, gap_stop, step):
            yield start, min(start + step, gap_stop)
