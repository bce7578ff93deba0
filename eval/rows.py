"""Reads files of rows: JSON Lines, JSON, CSV, TSV, Parquet, plain lines; also compressed (gzip, Zstandard).

    for place, row in read_rows(Path("people.csv.gz")):
        ...    # "line 2", {"name": "Ada"}

The file's ending says what it holds. A row that cannot be read is a `Broken` with the reason, so that the
caller can refuse the file or go on. A file that cannot be read at all raises UserError. Files may be larger
than memory, except a `.json` file that holds a list or one object.
"""

import contextlib
import csv
import io
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import STRICT_JSON
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.file_kinds import PACKED, ROWS, check_kind, is_packed, kind_of

logger = logging.getLogger(__name__)

LARGEST_CELL = 2**28  # characters; an unclosed quote would read all of a huge file into memory
LEAST_LINES = 5  # inside one cell, that look like rows
LINE_END = re.compile(r"\r\n?|\n")
COMMA_OF_TEXT = re.compile(r",(\s|$)")
SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars", "\t": "tabs"}
# By the ending of a table. A header may be missing, so that a sentence with commas stands in its place.
OTHER_SEPARATORS = {".csv": re.compile(r"[;|\t]"), ".tsv": re.compile(r"[;|]|,(?!\s)")}
SAMPLE = 100  # lines that show whether a .json file is JSON Lines
DAMAGED = "; copy or download the file again, or take the ending off its name if it is not compressed"
BATCH = 1_000  # rows of a Parquet file in memory


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read."""

    reason: str


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of a file, such as ("line 3", {"name": "Ada"}).

    A row is a dict, a `Broken` or, in JSON, any other value.

    Raises UserError for a file that cannot be read, and for a table with two columns of one name.
    """
    kind = kind_of(path)
    check_kind(path, str(path), ROWS)
    if kind in (".csv", ".tsv"):
        return _table_rows(path)
    if kind == ".parquet":
        return _parquet_rows(path)
    if kind == ".json" and not holds_json_lines(path):
        return _json_records(path)
    return _json_lines(path)


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends. Raises UserError, with the line, if one is no text."""
    for number, line in enumerate(_lines(path), 1):
        if fault := _fault(line):
            raise UserError(f"{path}, line {number}: {fault}")
        yield line


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed if it ends in .gz or .zst.

    Raises UserError, with the file, for any error inside the block: put only calls that read the file there.
    """
    with reading(path, DAMAGED if is_packed(path) else ""):
        # pyarrow reports truncated files and wrong checksums, as the standard library does for gzip
        if is_packed(path):
            import pyarrow as pa

            file = pa.input_stream(str(path), compression=PACKED[path.suffix.lower()])
        else:
            file = path.open("rb")
        with file:
            yield file


def holds_json_lines(path: Path) -> bool:
    """Whether at least half of a file's first lines are JSON objects: many .json files are JSON Lines."""
    lines = list(itertools.islice((line for line in _lines(path) if not line.isspace()), SAMPLE))
    return 2 * sum(isinstance(_parsed(line), dict) for line in lines) >= len(lines) > 0


def _lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """The lines with their ends. Bytes that are not UTF-8 become lone surrogates, which `_fault` names."""
    with open_unpacked(path) as file:  # errors in the caller's loop are not raised in here
        yield from io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline=newline)


def _fault(line: str) -> str | None:
    """Why a line is not text; None if it is."""
    if "\0" in line:
        return "holds a NUL byte, so it is not UTF-8 text; convert it to UTF-8"
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            return f"not UTF-8 (byte {byte:#x}); convert the file to UTF-8"
    return None


def _parsed(line: str) -> Any:
    if fault := _fault(line):
        return Broken(fault)
    try:
        with reading("not valid JSON"):
            return STRICT_JSON.decode(line.rstrip("\n"))  # so that a mistake at the end has its column
    except UserError as error:
        return Broken(str(error))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.isspace():
            yield f"line {number}", _parsed(line)


def _json_records(path: Path) -> Iterator[tuple[str, Any]]:
    content = "".join(text_lines(path))
    if not content.strip():
        return
    with reading(f"{path}: not valid JSON"):
        value = STRICT_JSON.decode(content)
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield f"record {number}", row


# The standard library's `csv` with `strict` refuses every misplaced quote. pyarrow's CSV reads '"a"b' as
# 'ab', and everything from an unclosed quote to the next one as one cell. It turns 007 into 7 and NA into
# null, and cannot read a cell that is larger than its block.
def _table_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a table. Quotes enclose a cell in .csv, and are text in .tsv, where tabs separate cells.

    Raises UserError for a quote that is not closed, or closed inside a cell: nobody knows where the next row
    begins. Warns of the first cell that seems to hold whole rows.
    """
    faults: list[str] = []  # of the lines of the present row

    def lines() -> Iterator[str]:
        for line in _lines(path, newline=""):
            if fault := _fault(line):
                faults.append(fault)
            yield line

    csv.field_size_limit(LARGEST_CELL)
    if kind_of(path) == ".tsv":
        rows = csv.reader(lines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines(), strict=True)
    header: list[str] | None = None
    is_warned = False
    while True:
        first = rows.line_num + 1
        faults.clear()
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:  # errors of another type come from lines()
            place = _span(first, rows.line_num)
            raise UserError(f"{path}, {place}: not valid CSV ({error}); is a quote missing?") from None
        if header is None:
            if faults:
                raise UserError(f"{path}, {_span(first, rows.line_num)}, the header: {faults[0]}")
            header = [name.strip() for name in row]
            _check_names(path, header)
            _check_separator(path, header)
        elif faults:
            yield _span(first, rows.line_num), Broken(faults[0])
        elif not row and len(header) == 1:
            yield f"line {rows.line_num}", {header[0]: None}
        elif row and len(row) != len(header):
            yield f"line {rows.line_num}", Broken(_ragged(len(row), len(header), kind_of(path)))
        elif row:
            if not is_warned and rows.line_num - first > LEAST_LINES and _holds_rows(row):
                is_warned = True
                logger.warning(
                    "%s, %s: one cell holds lines that look like whole rows; is a quote missing?",
                    *(path, _span(first, rows.line_num)),
                )
            # an empty cell is a missing value
            yield (
                f"line {rows.line_num}",
                {name: cell or None for name, cell in zip(header, row, strict=True)},
            )


def _ragged(cells: int, columns: int, kind: str) -> str:
    reason = f"has {cells} cell{'s' * (cells != 1)}, the header has {columns}"
    if cells < columns:
        return f"{reason}; add the cells, empty ones too"
    return f"{reason}; " + (
        "a cell cannot hold a tab" if kind == ".tsv" else "a cell that holds a comma needs quotes"
    )


def _holds_rows(row: list[str]) -> bool:
    """Whether a cell's inner lines all have as many commas as a row, none before a space, as in a text.

    A quote that is closed many rows later makes one cell of all of them. In a table of one column nothing
    shows this.
    """
    for cell in row if len(row) > 1 else ():
        inner = LINE_END.split(cell)[1:-1]
        if len(inner) >= LEAST_LINES and all(
            line.count(",") == len(row) - 1 and not COMMA_OF_TEXT.search(line) for line in inner
        ):
            return True
    return False


def _check_separator(path: Path, header: list[str]) -> None:
    """Raise UserError for one column whose name holds another separator than the table's."""
    found = OTHER_SEPARATORS[kind_of(path)].findall(header[0]) if len(header) == 1 else []
    if not found:
        return
    name = SEPARATORS[Counter(found).most_common(1)[0][0]]
    here = "tabs" if kind_of(path) == ".tsv" else "commas"
    ending = {"tabs": ".tsv", "commas": ".csv"}.get(name)
    remedy = f"give it the ending {ending}" if ending else f"save it with {here}"
    raise UserError(
        f"{path}: the header is one cell, {shown(header[0])}, so the file seems to be separated by {name}, "
        f"not by {here}; {remedy}"
    )


def _span(first: int, last: int) -> str:
    return f"line {first}" if last <= first else f"lines {first} to {last}"


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, batch in parquet_batches(path):
        with reading(f"{path}, rows {number + 1} to {number + batch.num_rows}"):
            rows = batch.to_pylist()
        yield from ((f"row {place}", row) for place, row in enumerate(rows, number + 1))


def parquet_batches(path: Path, column: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (rows before it, Arrow record batch) of a Parquet file; all columns if it lacks `column`.

    Raises UserError for a broken file, and for two columns of one name.
    """
    import pyarrow.parquet as pq

    with reading(f"{path}: not a Parquet file, or a broken one"):
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    _check_names(path, names)
    number = 0
    with reading(f"{path}: not a Parquet file, or a broken one"), file:
        columns = [column] if column in names else None
        for group in range(file.num_row_groups):  # over several groups, `iter_batches` keeps all of them
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
                yield number, batch
                number += batch.num_rows


def _check_names(path: Path, names: list[str]) -> None:
    name, times = next(iter(Counter(filter(None, names)).most_common(1)), ("", 1))
    if times > 1:
        raise UserError(f"{path}: the header names {shown(name)} twice; rename one of the columns")
