"""Writes records as CSV that is safe to open in a spreadsheet.

A spreadsheet runs a text that begins with `=` as a formula, and a formula can start programs. So such a text
gets an apostrophe in front, as OWASP advises. Numbers, and lists of numbers, stay as they are.
`results.jsonl` has the texts as they are.
"""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

# What begins a formula in one spreadsheet or another, the full-width forms included.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
INNER_START = re.compile("(;\\s*)([=+\\-@\uff1d\uff0b\uff0d\uff20])")


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A table with a row for each record; lists are joined, and a field without a value is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file = io.StringIO()
    # The line ends of RFC 4180. With them, Python quotes a text that holds a carriage return or a newline.
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        is_text = any(isinstance(item, str) for item in value)
        joined = "; ".join(map(_item, value))
        return _guarded(joined) if is_text else joined
    return _guarded(value) if isinstance(value, str) else value


def _guarded(text: str) -> str:
    # where a semicolon separates cells, one could begin in the middle of a text
    text = INNER_START.sub(r"\1'\2", text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _item(item: Any) -> str:
    """An item of a list: (text, probability), a number, or a text, quoted if it holds a semicolon."""
    if isinstance(item, list | tuple):
        text, p = item
        return f"{text!r} {p:.4g}"
    if isinstance(item, str):
        return repr(item) if ";" in item else item
    return f"{item:.6g}"
