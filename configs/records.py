"""Records: lines of JSON Lines files, and other JSON objects, as typed and frozen values.

    class Fact(Record, frozen=True, omit_defaults=True):
        id: str
        object: str
        object_aliases: tuple[str, ...] = ()

    write_records("facts.jsonl", [Fact("f1", "Oslo")])  # {"id": "f1", "object": "Oslo"}
    read_records("facts.jsonl", Fact)                   # (Fact(id='f1', object='Oslo', object_aliases=()),)

Types are checked as msgspec checks them: a whole number is a number, nothing else is converted. A field that
may be null, or that has a default, may be left out of a line. Nested records, lists and dicts are read and
written too.
"""

import functools
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from tidy_stlms.configs.errors import UserError, did_you_mean, shown
from tidy_stlms.configs.files import parse_json_line, read_text, write_jsonl

IN_WORDS = {
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A line of a file. With `omit_defaults=True`, fields that hold their default stay out of the line.

    `gc=False`: a bank may hold a million records, and the garbage collector would walk through all of them
    again and again. It would find nothing: records hold plain values, which cannot refer to each other in a
    circle.
    """


class Output(Record, frozen=True, forbid_unknown_fields=False):
    """A record of a file that only programs write. Fields that a later version has added are ignored."""


AnyRecord = TypeVar("AnyRecord", bound=Record)


class _Field(NamedTuple):
    name: str
    annotation: Any
    default: Any  # msgspec.NODEFAULT for a field that must be given
    holds_records: bool


def read_records(
    path: str | Path, record_type: type[AnyRecord], *, by_hand: bool = False
) -> tuple[AnyRecord, ...]:
    """Read a JSON Lines file; UserError, naming the file and the line or its id, for what is wrong in it.

    With `by_hand`, for files that people write, a key that occurs twice in an object is refused, which takes
    four times as long. Otherwise the last of its two values is taken.
    """
    decode = msgspec.json.Decoder(record_type).decode
    records: list[AnyRecord] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        if by_hand:
            parse_json_line(line, path, number)
        try:
            records.append(decode(line))
        except msgspec.DecodeError:  # a mistake, or null for a default: both are seen field by field
            row = parse_json_line(line, path, number)
            name = repr(row["id"]) if isinstance(row.get("id"), str) else f"row {len(records) + 1}"
            records.append(from_row(record_type, row, f"{path}: {name}"))
    return tuple(records)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write a JSON Lines file, whole."""
    write_jsonl(path, map(to_row, records))


def to_row(record: Record) -> dict[str, Any]:
    """The record as a dict for JSON, nested records too; fields that are UNSET are left out."""
    omits = record.__struct_config__.omit_defaults
    row = {}
    for name, _, default, holds_records in _fields(type(record)):
        value = getattr(record, name)
        if value is msgspec.UNSET:
            continue
        # msgspec would omit only the default object itself, not an equal value
        if omits and (value is None or value == default):
            continue
        row[name] = _plain(value) if holds_records else value
    return row


def from_row(record_type: type[AnyRecord], row: dict[str, Any], where: str) -> AnyRecord:
    """Build a record from a parsed JSON object; UserError, beginning with `where`, for a wrong field."""
    fields = _fields(record_type)
    values = {}
    for name, annotation, default, _ in fields:
        if row.get(name) is not None:
            values[name] = _checked(row[name], annotation, f"{where}: field {name!r}")
        elif default is msgspec.NODEFAULT:
            raise UserError(f"{where}: field {name!r} is missing; add it")
        else:
            values[name] = default
    for name in row if record_type.__struct_config__.forbid_unknown_fields else ():
        if name not in values:
            raise UserError(f"{where}: unknown field {name!r}{did_you_mean(name, values) or '; remove it'}")
    return record_type(**values)


@functools.cache
def _fields(record_type: type[Record]) -> tuple[_Field, ...]:
    fields = []
    for field in msgspec.structs.fields(record_type):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        elif default is msgspec.NODEFAULT and type(None) in typing.get_args(field.type):
            default = None
        fields.append(_Field(field.name, field.type, default, _holds_records(field.type)))
    return tuple(fields)


def _holds_records(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Record)
    return any(map(_holds_records, typing.get_args(annotation)))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return to_row(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _checked(value: Any, annotation: Any, where: str) -> Any:
    """The value in the field's type. Raises UserError for a value of another type."""
    if isinstance(annotation, type) and issubclass(annotation, Record) and isinstance(value, dict):
        return from_row(annotation, value, where)
    try:
        converted = msgspec.convert(value, annotation)
        # refuses half of a surrogate pair, which JSON can hold ("\\ud800") and a file in UTF-8 cannot
        msgspec.json.encode(converted)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        wanted = _in_words(annotation)
        problem = f" must {wanted}, got {shown(value)}" if wanted else f": {error}"
        raise UserError(f"{where}{problem}") from None
    return converted


def _in_words(annotation: Any) -> str:
    """What a value must be or look like; empty for a nested type, where msgspec says which part is wrong."""
    for note in getattr(annotation, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.examples:
            return f"look like {note.examples[0]}"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        alternatives = [argument for argument in arguments if argument not in (type(None), msgspec.UnsetType)]
        return _in_words(alternatives[0]) if len(alternatives) == 1 else ""
    if origin in (list, tuple) and arguments[0] in IN_WORDS:
        return f"be a list of {IN_WORDS[arguments[0]][1]}"
    return f"be {IN_WORDS[annotation][0]}" if annotation in IN_WORDS else ""
