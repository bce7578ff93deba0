"""Reads source files record by record: JSON, JSON5, JSON Lines, CSV, Parquet, YAML, plain lines.

A broken row is left out. A file that cannot be parsed raises `UserError`, with the line where it is known,
because some of its records would be lost without notice.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import STRICT_JSON
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.file_kinds import ROWS, kind_of, stem_of
from tidy_stlms.eval.rows import Broken, holds_json_lines, open_unpacked
from tidy_stlms.eval.rows import read_rows as rows_of

Row = dict[str, Any]
DATA_FILES = ROWS
DEEPEST = 100  # lists and objects inside each other; files of facts have four or five
LONGEST_JSON5 = 1_000_000  # characters; its parser reads 40,000 of them a second
# Stands for a byte that is not UTF-8. A source that holds this character itself was decoded wrongly before.
BROKEN = "\ufffd"
# `BROKEN`, or half of a surrogate pair, which JSON can write as "\ud83d" and UTF-8 cannot.
NOT_UTF8 = re.compile(rf"[{BROKEN}\ud800-\udfff]")


def read_lossy(path: Path) -> str:
    """The file's text, with `BROKEN` for bytes that are not UTF-8. `text_field` refuses such texts."""
    with open_unpacked(path) as file:
        return file.read().decode("utf-8-sig", errors="replace")


def parse_json5(path: Path) -> Any:
    """JSON with comments, trailing commas and bare keys; UserError, with the line if it is a mistake."""
    content = read_lossy(path)
    if not content.strip():
        raise UserError(f"{path}: is empty")
    try:
        with reading(f"{path}: not valid JSON"):
            value = STRICT_JSON.decode(content)  # fast, and most files are plain JSON
    except UserError as error:
        if not isinstance(error.__cause__, json.JSONDecodeError):
            raise
        if len(content) > LONGEST_JSON5:
            limit = f"only files up to {LONGEST_JSON5:,} characters may have comments and bare keys"
            raise UserError(f"{error}; {limit}") from None
        value = _parse_json5(path, content)
    return _not_too_deep(path, value)


def _parse_json5(path: Path, content: str) -> Any:
    import json5

    try:
        with reading(f"{path}: not valid JSON5"):
            return json5.loads(content, allow_duplicate_keys=False)
    except UserError as error:
        raise UserError(str(error).replace("JSON5: <string>:", "JSON5, line ")) from None


def _not_too_deep(path: Path, value: Any) -> Any:
    """Return the value; raise UserError if it is so deep that recursive functions would fail on it."""
    level, depth = [value], 0
    while level := [outer for outer in level if isinstance(outer, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise UserError(f"{path}: is nested more than {DEEPEST} levels deep")
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return value


def read_rows(path: Path, builder: BankBuilder) -> Iterator[tuple[str, Row]]:
    """Yield (where, row) of a data file, such as ("file, line 3", {"name": "Ada"}); each row once."""
    if kind_of(path) == ".json" and not holds_json_lines(path):
        value = parse_json5(path)
        numbered = enumerate(value if isinstance(value, list) else [value], 1)
        rows: Iterator[tuple[str, Any]] = ((f"record {number}", row) for number, row in numbered)
    else:
        rows = rows_of(path)
    return unique_rows(((f"{path.name}, {place}", row) for place, row in rows), path.name, builder)


def unique_rows(
    values: Iterable[tuple[str, Any]], source: str, builder: BankBuilder
) -> Iterator[tuple[str, Row]]:
    """The values that are objects. Repeated objects are left out, because they would count twice."""
    where_of: dict[str, str] = {}
    for where, value in values:
        builder.records_read[source] += 1
        if isinstance(value, Broken):
            builder.leave_out(where, value.reason)
        elif not isinstance(value, dict):
            builder.leave_out(where, f"must be an object with named fields, got {shown(value)}")
        elif (first := where_of.setdefault(repr(value), where)) != where:
            builder.leave_out(where, f"the same as {first}")
        else:
            builder.fields.update(dict.fromkeys(map(str, value)))
            yield where, value


def data_file(source: Path, wanted: str | None, needs: Sequence[str] = DATA_FILES) -> Path:
    """`source` itself, or the only data file in the folder, or the data file with the stem `wanted`."""
    if source.is_file():
        if wanted not in (None, stem_of(source)):
            raise UserError(f"--config {wanted}: {source} is a file by itself; leave it out")
        return source
    paths = sorted(path for path in source.rglob("*") if kind_of(path) in needs and path.is_file())
    if wanted is not None:
        paths = [path for path in paths if stem_of(path) == wanted] or paths
    if len(paths) == 1 and wanted in (None, stem_of(paths[0])):
        return paths[0]
    if not paths:
        raise UserError(f"{source}: holds no data file ({', '.join(needs)})")
    names = ", ".join(map(stem_of, paths[:12])) + (", ..." if len(paths) > 12 else "")
    raise UserError(f"{source}: holds several data files; choose one with --config: {names}")


def text_field(record: Row, name: str) -> str:
    """A field that must be a text, and not empty."""
    value = _present(record, name)
    if not isinstance(value, str):
        raise Refused(f"field {name!r} must be text, got {shown(value)}")
    return checked_text(value, f"field {name!r}")


def text_list(record: Row, name: str, *, optional: bool = False) -> list[str]:
    """A field that must be a list of texts, or a text, which becomes a list."""
    if optional and record.get(name) is None:
        return []
    value = _present(record, name)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(item, str) for item in values):
        raise Refused(f"field {name!r} must be a list of texts, got {shown(value)}")
    return [checked_text(item, f"field {name!r}") for item in values]


def checked_text(value: str, what: str) -> str:
    """The text. Raises Refused if it is not UTF-8, or empty."""
    if NOT_UTF8.search(value):
        raise Refused(f"{what} is not UTF-8: {shown(value)}")
    if not value.strip():
        raise Refused(f"{what} is empty")
    return value


def _present(record: Row, name: str) -> Any:
    if name not in record:
        raise Refused(f"field {name!r} is missing; it has {', '.join(map(repr, record)) or 'none'}")
    if record[name] is None:  # null, or an empty cell
        raise Refused(f"field {name!r} is empty")
    return record[name]
