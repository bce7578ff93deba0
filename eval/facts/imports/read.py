"""Reading other people's files record by record: JSON, JSON5, JSON Lines, CSV, Parquet, YAML, plain lines.

A line that is broken costs that line. A file that cannot be parsed as a whole is the user's to mend
(`UserError` with the place), for nobody knows what else would be lost in it.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from eval.facts.imports.draft import Draft, Refused

Record = dict[str, Any]
DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# where a byte was not UTF-8; a text that really holds this sign has been through such an accident before
BROKEN = "\ufffd"


def read_lossy(path: Path) -> str:
    """The file's text, with `BROKEN` for bytes that are not UTF-8: `text()` refuses what holds them."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def parse_json5(path: Path) -> Any:
    """JSON with comments, trailing commas and bare keys; UserError with the line of a mistake."""
    content = read_lossy(path)
    try:
        return json.loads(content)  # a thousand times faster, and most files are plain
    except json.JSONDecodeError:
        import json5
    try:
        return json5.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error).removeprefix("<string>:").strip() or type(error).__name__
        raise UserError(f"{path}: not valid JSON5, line {reason}") from None


def parse_yaml(path: Path, content: str | None = None) -> Any:
    import yaml

    try:
        return yaml.safe_load(read_lossy(path) if content is None else content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)})") from None


def read_records(path: Path, draft: Draft) -> Iterator[tuple[str, Record]]:
    """Yield where ("file, line 3") and the object there of a data file; what is no object is left out."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        found: Iterator[tuple[str, Any]] = _json_lines(path, draft)
    elif kind in (".csv", ".tsv"):
        found = _csv_rows(path, draft, "\t" if kind == ".tsv" else ",")
    elif kind == ".parquet":
        found = _parquet_rows(path)
    elif kind == ".json":
        found = _json_records(path, draft)
    else:
        raise UserError(f"{path}: cannot be read as data; give one of {', '.join(DATA_FILES)}")
    for where, value in found:
        draft.read[path.name] += 1
        if isinstance(value, dict):
            yield where, value
        else:
            draft.leave_out(where, f"must be an object with named fields, got {value!r:.40}")


def data_file(source: Path, wanted: str | None, needs: Sequence[str] = DATA_FILES) -> Path:
    """`source` itself, or the one data file of a folder; `wanted` is the stem of one of several."""
    if source.is_file():
        return source
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in needs and path.is_file())
    if wanted is not None:
        found = [path for path in found if path.stem == wanted] or found
    if len(found) == 1 and wanted in (None, found[0].stem):
        return found[0]
    if not found:
        raise UserError(f"{source}: holds no data file ({', '.join(needs)})")
    names = ", ".join(path.stem for path in found[:12]) + (", ..." if len(found) > 12 else "")
    raise UserError(f"{source}: holds several data files; choose one with --config: {names}")


def text(record: Record, name: str) -> str:
    """A field that must be a text with something in it."""
    value = _present(record, name)
    if not isinstance(value, str):
        raise Refused(f"field {name!r} must be text, got {value!r:.40}")
    return checked(value, f"field {name!r}")


def texts(record: Record, name: str, *, optional: bool = False) -> list[str]:
    """A field that must be a list of texts; a text alone is a list of one."""
    if optional and record.get(name) is None:
        return []
    value = _present(record, name)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(item, str) for item in values):
        raise Refused(f"field {name!r} must be a list of texts, got {value!r:.40}")
    return [checked(item, f"field {name!r}") for item in values]


def checked(value: str, what: str) -> str:
    """The text, if it is UTF-8 and not empty."""
    if BROKEN in value:
        raise Refused(f"{what} is not UTF-8: {value!r:.60}")
    if not value.strip():
        raise Refused(f"{what} is empty")
    return value


def _present(record: Record, name: str) -> Any:
    if record.get(name) is None:
        raise Refused(f"field {name!r} is missing; it has {', '.join(map(repr, record)) or 'none'}")
    return record[name]


def _json_lines(path: Path, draft: Draft) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(read_lossy(path).split("\n"), 1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            yield where, json.loads(line)
        except json.JSONDecodeError as error:
            draft.read[path.name] += 1
            draft.leave_out(where, f"not valid JSON ({error.msg}, column {error.colno})")


def _json_records(path: Path, draft: Draft) -> Iterator[tuple[str, Any]]:
    """A list of records; or JSON Lines, as many files that end in .json are."""
    lines = [line for line in read_lossy(path).splitlines() if line.strip()]
    objects = sum(line.lstrip().startswith("{") for line in lines)
    if len(lines) > 1 and 2 * objects > len(lines) and not lines[0].lstrip().startswith("["):
        yield from _json_lines(path, draft)
        return
    value = parse_json5(path)
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, 1):
        yield f"{path.name}, record {number}", row


def _csv_rows(path: Path, draft: Draft, delimiter: str) -> Iterator[tuple[str, Any]]:
    rows = csv.reader(io.StringIO(read_lossy(path), newline=""), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            draft.leave_out(f"{path.name}, line {rows.line_num}", f"not valid CSV ({error})")
            continue
        where = f"{path.name}, line {rows.line_num}"
        if header is None:
            header = [name.strip() for name in row]
            continue
        if not row:
            continue
        if len(row) != len(header):
            draft.read[path.name] += 1
            draft.leave_out(where, f"has {len(row)} columns, the header {len(header)}")
            continue
        # an empty cell is a field that is not there
        yield where, {name: cell for name, cell in zip(header, row, strict=True) if cell != ""}


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({error})") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path.name}, row {number}", row
