"""Lines of JSON to frozen dataclasses and back, with errors that say which field of which line is wrong."""

import contextlib
import dataclasses
import difflib
import functools
import gc
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tidy_stlms.configs.errors import UserError

Record = TypeVar("Record")
SURROGATE = re.compile("[\ud800-\udfff]")
Span = tuple[int, int]
Spans = dict[str, Span]  # {"subject": (start, end), "object": (start, end)}, in characters


def to_row(record: Any) -> dict[str, Any]:
    """The record as a dict for JSON, without the fields that hold their default."""
    kind: Any = type(record)
    row = {}
    for name, _, default in _fields(kind):
        value = getattr(record, name)
        if value is not None and value != default:
            row[name] = value
    return row


def from_row(kind: Callable[..., Record], row: dict[str, Any], where: str) -> Record:
    """Build a `kind` from a parsed line; UserError, beginning with `where`, for fields it cannot take."""
    values = {}
    for name, annotation, default in _fields(kind):
        if row.get(name) is not None:
            values[name] = _read(row[name], annotation, f"{where}: field {name!r}")
        elif default is dataclasses.MISSING:
            raise UserError(f"{where}: field {name!r} is missing; add it")
        else:
            values[name] = default
    for name in row:
        if name not in values:
            raise UserError(f"{where}: unknown field {name!r}{did_you_mean(name, values) or '; remove it'}")
    return kind(**values)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the nearest known word, or nothing where none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {nearest[0]!r}?" if nearest else ""


@contextlib.contextmanager
def many_records() -> Iterator[None]:
    """Hold the garbage collector off while a million records are made.

    None of them is garbage, yet it walks through all of them again and again: 40% of the time at
    100,000 facts.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.cache
def _fields(kind: Any) -> list[tuple[str, Any, Any]]:
    """(name, annotation, default) of each field; text that may be null need not be written at all."""
    fields = []
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        elif default is dataclasses.MISSING and field.type == str | None:
            default = None
        fields.append((field.name, field.type, default))
    return fields


def _read(value: Any, annotation: Any, where: str) -> Any:
    if annotation in (str, str | None):
        if isinstance(value, str) and _is_unicode(value):
            return value
        raise UserError(f"{where} must be text, got {value!r:.40}")
    if annotation is bool:
        if isinstance(value, bool):
            return value
        raise UserError(f"{where} must be true or false, got {value!r:.40}")
    if annotation in (tuple[str, ...], tuple[str, ...] | None):
        if isinstance(value, list) and {str}.issuperset(map(type, value)) and all(map(_is_unicode, value)):
            return tuple(value)
        raise UserError(f"{where} must be a list of texts, got {value!r:.40}")
    if isinstance(value, dict) and all(_is_span(span) for span in value.values()):
        return {name: (start, end) for name, (start, end) in value.items()}
    raise UserError(f"{where} must look like {{'subject': [0, 8]}}, got {value!r:.40}")


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can hold and no file in UTF-8."""
    return text.isascii() or not SURROGATE.search(text)


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value)
