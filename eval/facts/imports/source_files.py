"""Reads source files record by record: JSON, JSON5, JSON Lines, CSV, Parquet, YAML, plain lines.

A broken line is left out. A file that cannot be parsed raises `UserError` with the line, because nobody knows
which of its records would be lost.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import trees
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused

Row = dict[str, Any]
DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# Stands for a byte that is not UTF-8. A source that holds this character itself was decoded wrongly before.
BROKEN = "\ufffd"
# `BROKEN`, or half of a surrogate pair, which JSON can write as "\ud83d" and UTF-8 cannot.
NOT_UTF8 = re.compile(rf"[{BROKEN}\ud800-\udfff]")
# The beginning of a list, after white space and comments.
JSON_LIST = re.compile(r"(?:\s|//[^\n]*|/\*(?s:.*?)\*/)*+\[")


def read_lossy(path: Path) -> str:
    """The file's text, with `BROKEN` for bytes that are not UTF-8. `text_field` refuses such texts."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def parse_json5(path: Path) -> Any:
    """See `trees.parse_json5`."""
    return trees.parse_json5(path, read_lossy(path))


def parse_yaml(path: Path) -> Any:
    """See `trees.parse_yaml`."""
    return trees.parse_yaml(path, read_lossy(path))


def read_rows(path: Path, builder: BankBuilder) -> Iterator[tuple[str, Row]]:
    """Yield (where, row) of a data file, such as ("file, line 3", {"name": "Ada"}); each row once."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        values: Iterator[tuple[str, Any]] = _json_lines(path, builder)
    elif kind in (".csv", ".tsv"):
        values = _csv_rows(path, builder)
    elif kind == ".parquet":
        values = _parquet_rows(path)
    elif kind == ".json":
        values = _json_records(path, builder)
    else:
        raise UserError(f"{path}: cannot be read as data; give one of {', '.join(DATA_FILES)}")
    return unique_rows(values, path.name, builder)


def unique_rows(
    values: Iterable[tuple[str, Any]], source: str, builder: BankBuilder
) -> Iterator[tuple[str, Row]]:
    """The values that are objects. Repeated objects are left out, because they would count twice."""
    where_of: dict[str, str] = {}
    for where, value in values:
        builder.records_read[source] += 1
        if not isinstance(value, dict):
            builder.leave_out(where, f"must be an object with named fields, got {value!r:.40}")
        elif (first := where_of.setdefault(repr(value), where)) != where:
            builder.leave_out(where, f"the same as {first}")
        else:
            yield where, value


def data_file(source: Path, wanted: str | None, needs: Sequence[str] = DATA_FILES) -> Path:
    """`source` itself, or the only data file in the folder, or the data file with the stem `wanted`."""
    if source.is_file():
        if wanted not in (None, source.stem):
            raise UserError(f"--config {wanted}: {source} is a file by itself; leave it out")
        return source
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in needs and path.is_file())
    if wanted is not None:
        paths = [path for path in paths if path.stem == wanted] or paths
    if len(paths) == 1 and wanted in (None, paths[0].stem):
        return paths[0]
    if not paths:
        raise UserError(f"{source}: holds no data file ({', '.join(needs)})")
    names = ", ".join(path.stem for path in paths[:12]) + (", ..." if len(paths) > 12 else "")
    raise UserError(f"{source}: holds several data files; choose one with --config: {names}")


def text_field(record: Row, name: str) -> str:
    """A field that must be a text, and not empty."""
    value = _present(record, name)
    if not isinstance(value, str):
        raise Refused(f"field {name!r} must be text, got {value!r:.40}")
    return checked_text(value, f"field {name!r}")


def text_list(record: Row, name: str, *, optional: bool = False) -> list[str]:
    """A field that must be a list of texts, or a text, which becomes a list."""
    if optional and record.get(name) is None:
        return []
    value = _present(record, name)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(item, str) for item in values):
        raise Refused(f"field {name!r} must be a list of texts, got {value!r:.40}")
    return [checked_text(item, f"field {name!r}") for item in values]


def checked_text(value: str, what: str) -> str:
    """The text. Raises Refused if it is not UTF-8, or empty."""
    if NOT_UTF8.search(value):
        raise Refused(f"{what} is not UTF-8: {value!r:.60}")
    if not value.strip():
        raise Refused(f"{what} is empty")
    return value


def _present(record: Row, name: str) -> Any:
    if record.get(name) is None:
        raise Refused(f"field {name!r} is missing; it has {', '.join(map(repr, record)) or 'none'}")
    return record[name]


def _json_lines(path: Path, builder: BankBuilder) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(read_lossy(path).split("\n"), 1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            yield where, json.loads(line)
        except json.JSONDecodeError as error:
            builder.records_read[path.name] += 1
            builder.leave_out(where, f"not valid JSON ({error.msg}, column {error.colno})")


def _json_records(path: Path, builder: BankBuilder) -> Iterator[tuple[str, Any]]:
    """The records of a list, or of JSON Lines: many files that end in .json are JSON Lines."""
    content = read_lossy(path)
    lines = [line for line in content.split("\n") if line.strip()]
    objects = sum(line.lstrip().startswith("{") for line in lines)
    if len(lines) > 1 and 2 * objects > len(lines) and not JSON_LIST.match(content):
        yield from _json_lines(path, builder)
        return
    value = parse_json5(path)
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, 1):
        yield f"{path.name}, record {number}", row


def _csv_rows(path: Path, builder: BankBuilder) -> Iterator[tuple[str, Any]]:
    """The rows of a table. Quotes enclose a cell in .csv, and are text in .tsv, where tabs separate cells."""
    lines = io.StringIO(read_lossy(path), newline="")
    if path.suffix.lower() == ".tsv":
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        first_line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            span = (
                f"line {first_line}"
                if rows.line_num <= first_line
                else f"lines {first_line} to {rows.line_num}"
            )
            if header is None:
                raise UserError(f"{path}: {span}, the header: not valid CSV ({error})") from None
            builder.records_read[path.name] += 1
            builder.leave_out(f"{path.name}, {span}", f"not valid CSV ({error}); is a quote missing?")
            continue
        where = f"{path.name}, line {rows.line_num}"
        if header is None:
            header = [name.strip() for name in row]
            repeated = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
            if repeated:
                raise UserError(f"{path}: the header names {repeated[0]!r} twice; rename one of the columns")
            continue
        if not row:
            continue
        if len(row) != len(header):
            builder.records_read[path.name] += 1
            builder.leave_out(where, f"has {len(row)} columns, the header {len(header)}")
            continue
        # an empty cell is a missing field
        yield where, {name: cell or None for name, cell in zip(header, row, strict=True)}


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({error})") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path.name}, row {number}", row
