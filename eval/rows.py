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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import STRICT_JSON
from tidy_stlms.configs.reading import reading

ROWS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
KINDS = (".txt", *ROWS)
PACKED = {".gz": "gzip", ".zst": "zstd"}
LARGEST_CELL = 2**28  # characters; an unclosed quote would read all of a huge file into memory
SAMPLE = 100  # lines that show whether a .json file is JSON Lines
BATCH = 1_000  # rows of a Parquet file in memory


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read."""

    reason: str


def kind_of(path: str | Path) -> str:
    """The ending that says how to read a file: ".csv" for `Data.CSV.gz`; empty if it is none of `KINDS`."""
    ending = _unpacked(path).suffix.lower()
    return ending if ending in KINDS else ""


def stem_of(path: str | Path) -> str:
    """A file's name without its endings: "Data" for `Data.CSV.gz`."""
    return _unpacked(path).stem


def _unpacked(path: str | Path) -> Path:
    """The name of a compressed file without .gz or .zst."""
    path = Path(path)
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def check_kind(path: Path, what: str, kinds: tuple[str, ...] = KINDS) -> None:
    """Raise UserError, which begins with `what`, unless `path` is a file of one of these kinds."""
    with reading(what):
        is_file, is_folder, exists = path.is_file(), path.is_dir(), path.exists()
    if is_folder:
        raise UserError(f"{what}: is a folder; write {path}/*{kinds[0]}")
    if not exists:
        raise UserError(f"{what}: no such file")
    if not is_file:
        raise UserError(f"{what}: is a pipe or a device; write its content to a file")
    kind = kind_of(path)
    if kind not in kinds:
        raise UserError(
            f"{what}: cannot read {_unpacked(path).suffix or 'such'} files, only {', '.join(kinds)}, also "
            f"compressed ({', '.join(PACKED)})"
        )
    if kind == ".parquet" and path.suffix.lower() in PACKED:
        raise UserError(f"{what}: decompress it; the content of a Parquet file is compressed already")


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
    """The bytes of a file, decompressed if it ends in .gz or .zst."""
    packing = PACKED.get(path.suffix.lower())
    # pyarrow reports truncated files and wrong checksums, as the standard library does for gzip
    if packing:
        import pyarrow as pa

        with reading(path):
            file = pa.input_stream(str(path), compression=packing)
    else:
        with reading(path):
            file = path.open("rb")
    with file:
        yield file


def holds_json_lines(path: Path) -> bool:
    """Whether at least half of a file's first lines are JSON objects: many .json files are JSON Lines."""
    lines = list(itertools.islice((line for line in _lines(path) if not line.isspace()), SAMPLE))
    return 2 * sum(isinstance(_parsed(line), dict) for line in lines) >= len(lines) > 0


def _lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """The lines with their ends. Bytes that are not UTF-8 become lone surrogates, which `_fault` names."""
    with open_unpacked(path) as file, reading(path):  # errors in the caller's loop are not raised in here
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

    Raises UserError for a misplaced quote: nobody knows where the next row begins.
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
        elif faults:
            yield _span(first, rows.line_num), Broken(faults[0])
        elif not row and len(header) == 1:
            yield f"line {rows.line_num}", {header[0]: None}
        elif row and len(row) != len(header):
            yield f"line {rows.line_num}", Broken(f"has {len(row)} cells, the header has {len(header)}")
        elif row:
            # an empty cell is a missing value
            yield (
                f"line {rows.line_num}",
                {name: cell or None for name, cell in zip(header, row, strict=True)},
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
        raise UserError(f"{path}: the header names {name!r:.40} twice; rename one of the columns")
