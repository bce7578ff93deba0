"""Reads the texts of files: documents of a corpus, and held-out text.

    for text in told(texts_of(Path("stories.txt"), TextFormat(separator="<|endoftext|>")), "stories.txt"):
        ...

A row whose text is null, empty or white space is skipped, and one warning says how many were. Any other row
without a text is an error.
"""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidy_stlms.configs.errors import UserError, one_line, shown
from tidy_stlms.configs.files import LONE_SURROGATE
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.file_kinds import check_kind, kind_of
from tidy_stlms.eval.rows import Broken, parquet_batches, read_rows, text_lines

logger = logging.getLogger(__name__)

HINT = "; set data.text_column, or --text-column"
LONGEST_NAME = 60  # characters of a column's name
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
MARK = re.compile(r"<\|\w{1,40}\|>")  # as `<|endoftext|>` between the stories of TinyStories


@dataclass(frozen=True)
class TextFormat:
    """What a text is in a file."""

    column: str = "text"
    """In rows: the column that holds it."""
    documents: str = "block"
    """In a .txt file: a `block` between separators, a `line`, or the whole `file`."""
    separator: str | None = None
    """A line between blocks; blank lines when None."""


def expand_files(patterns: list[str] | str | None, key: str) -> list[Path]:
    """The files of paths and globs, in order. Raises UserError, naming `key`, if one cannot be read.

    A path that exists is that file, even if it holds brackets or other signs of a glob.
    """
    if not patterns:
        raise UserError(f"{key}: give one or more files")
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = os.path.expanduser(pattern)
        with reading(f"{key}: {pattern}"):
            names = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not names:
            raise UserError(f"{key}: {pattern}: no such file{_several(pattern, key)}")
        files += map(Path, names)
    for file in files:
        check_kind(file, f"{key}: {file}")
    return files


def _several(pattern: str, key: str) -> str:
    """A hint, if `pattern` holds the names of several files that exist."""
    names = re.split(r"[,\s]+", pattern.strip("[], "))
    with reading(f"{key}: {pattern}"):
        if len(names) < 2 or not all(os.path.exists(os.path.expanduser(name)) for name in names):
            return ""
    several = f"{key} {' '.join(names)}" if key.startswith("--") else f"{key}=[{','.join(names)}]"
    return f"; for several files write {several}"


def refuse_unused(files: Iterable[Path], form: TextFormat, keys: Mapping[str, str]) -> None:
    """Raise UserError if a field of `form` was given and no file uses it. `keys`: its name for the user."""
    kinds = {kind_of(file) for file in files}
    for field, key in keys.items():
        value = getattr(form, field)
        missing, is_used = "file with columns", bool(kinds - {".txt"})
        if field != "column":
            missing, is_used = ".txt file", ".txt" in kinds
        if value != getattr(TextFormat(), field) and not is_used:
            raise UserError(f"{key}={shown(value)}: is not used, for there is no {missing}; remove it")


def texts_of(path: Path, form: TextFormat) -> Iterator[str | None]:
    """The texts of a file, in order; None for each row that is skipped. Raises UserError for a broken row."""
    kind = kind_of(path)
    if kind == ".txt":
        return _text_documents(path, form)
    if kind == ".parquet":
        arrays = text_arrays(path, form.column)
        return chain.from_iterable([*array.to_pylist(), *repeat(None, n)] for array, n in arrays)
    return (text_in(row, form.column, path, place) for place, row in read_rows(path))


def text_arrays(path: Path, column: str) -> Iterator[tuple[pa.Array, int]]:
    """Yield (texts, number of skipped rows) for each part of a Parquet file; no texts are copied."""
    for number, batch in parquet_batches(path, column):
        where = f"{path}, rows {number + 1} to {number + batch.num_rows}"
        if column not in batch.schema.names:
            raise UserError(f"{path}: {no_column(column, batch.schema.names)}")
        values = batch.column(column)
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if kind not in TEXT_TYPES:
            raise UserError(f"{path}: column {column!r} holds no text, but {values.type}{HINT}")
        with reading(where):
            texts = values.cast(pa.large_string())
            texts.validate(full=True)  # of UTF-8 too
            is_blank = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts))
            kept = texts.filter(pc.invert(is_blank))  # the mask is null for null, which is left out
        yield kept, len(texts) - len(kept)


def read_texts(patterns: list[str], key: str, column: str) -> Iterator[str]:
    """The texts of files that may be larger than memory, those of a .txt file line by line.

    Raises UserError, naming `key`, for files that are missing or of another kind.
    """
    files = expand_files(patterns, key)
    form = TextFormat(column, "line")
    refuse_unused(files, form, {"column": "--text-column"})
    return chain.from_iterable(told(texts_of(file, form), str(file)) for file in files)


def told(texts: Iterable[str | None], source: str) -> Iterator[str]:
    """The texts without the skipped rows. Logs the number of these at the end."""
    skipped = 0
    for text in texts:
        if text is None:
            skipped += 1
        else:
            yield text
    tell_skipped(skipped, source)


def tell_skipped(number: int, source: str) -> None:
    if number:
        logger.warning("%s: skipped %d rows without text (null, empty or white space)", source, number)


def text_in(row: Any, column: str, source: object, place: str) -> str | None:
    """The text of a row; None to skip it. Raises UserError if the row is broken or `column` holds no text."""
    if isinstance(row, dict) and column in row:
        text = row[column]
        if text is None:
            return None
        if isinstance(text, str):
            if not text.isascii() and (half := LONE_SURROGATE.search(text)):
                raise UserError(
                    f"{source}, {place}: {half.group()!r} in column {column!r} is a lone surrogate"
                )
            return text if text and not text.isspace() else None
        reason = f"column {column!r} holds no text, but {shown(text)}{HINT}"
    elif isinstance(row, dict):
        reason = no_column(column, row)
    elif isinstance(row, Broken):
        reason = row.reason
    else:
        reason = f"must be an object with named fields, got {shown(row)}"
    raise UserError(f"{source}, {place}: {reason}")


def no_column(column: str, columns: Iterable[str]) -> str:
    """The reason, with the columns there are. A text in place of a name shows that the header is missing."""
    names = list(columns)
    known = one_line(", ".join(map(shown, names)), 200)
    has_text = any(len(name) > LONGEST_NAME for name in names)
    remedy = "; the first row must name the columns" if has_text else HINT
    return f"no column {shown(column)}, only {known or 'none'}{remedy}"


# The text loader of `datasets` has the same three modes, but its `paragraph` does not end at a line of
# spaces, its `line` yields empty lines and keeps the spaces around others, and it leaves a byte order mark in
# the text.
def _text_documents(path: Path, form: TextFormat) -> Iterator[str | None]:
    lines = text_lines(path)
    if form.documents == "line":
        yield from filter(None, map(str.strip, lines))
    elif form.documents == "file":
        content = "".join(lines)
        yield None if content.isspace() or not content else content
    else:
        bare: Iterator[str] = (line.rstrip("\n") for line in lines)
        if form.separator is not None:
            bare = _with_separator(bare, form.separator, path)
        else:
            bare = _without_marks(bare, path)
        yield from split_documents(bare, form.separator or "")


def is_mark(line: str) -> bool:
    """Whether a line holds only a mark such as `<|endoftext|>`."""
    return line.startswith("<|") and MARK.fullmatch(line.strip()) is not None


def _without_marks(lines: Iterable[str], path: Path) -> Iterator[str]:
    """The lines. Warns if some hold only a mark such as `<|endoftext|>`, which may separate documents."""
    marks: Counter[str] = Counter()
    for line in lines:
        if is_mark(line):
            marks[line.strip()] += 1
        yield line
    for mark, number in marks.most_common(1):
        logger.warning(
            "%s: %d lines hold only %s; if they stand between its documents, set data.separator, or "
            "--separator, to it: now a blank line ends a document",
            *(path, number, mark),
        )


def _with_separator(lines: Iterable[str], separator: str, path: Path) -> Iterator[str]:
    found = False
    for line in lines:
        found = found or line.strip() == separator
        yield line
    if not found:
        raise UserError(
            f"{path}: no line is {separator!r}, so the file would be one document; set data.separator, or "
            "--separator, to the line between its documents, or leave it out"
        )


def split_documents(lines: Iterable[str], separator: str = "") -> Iterator[str]:
    """The documents of a text between lines that hold only `separator`; by default, between blank lines.

    `lines` come without their ends. Blank lines around a document do not belong to it.
    """
    document: list[str] = []
    for line in chain(lines, [separator]):
        bare = line.strip()
        if bare == separator:
            while document and not document[-1].strip():
                document.pop()
            if document:
                yield "\n".join(document)
            document = []
        elif bare or document:
            document.append(line)
