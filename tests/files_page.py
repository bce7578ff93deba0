"""Writes docs/files.md: every file that this project writes, with the meaning of its fields.

    python -m tests.files_page

`tests/files_written.py` names the files. Their fields come from the types that they are written from: names,
defaults and docstrings from the source, types from the annotations. `tests/test_docs.py` checks that the
page is up to date.
"""

import ast
import functools
import inspect
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UnsetType

from tests.files_written import LISTED, SECTIONS, File
from tidy_stlms.configs.files import write_whole
from tidy_stlms.configs.records import IN_WORDS, Record
from tidy_stlms.configs.source_fields import SourceField, fields_in_source

CONSTANT = re.compile(r"\b[A-Z]+(?:_[A-Z]+)*\b")
PAGE = Path(__file__).parent.parent / "docs" / "files.md"

INTRODUCTION = """\
# Files

<!-- Written by `python -m tests.files_page`. Change that file, or the docstrings of the types. -->

What each file holds that `stlm` writes. In names, `N` is a number of optimizer steps, `KEY` a hash of
everything that the content depends on, and `*` any text. [glossary.md](glossary.md) has the words,
[recall.md](recall.md) the formulas.

JSON is UTF-8, and a `.jsonl` file holds one JSON object a line. In the tables of fields, a *pair* is a list
of two values, and an *object of texts* is a JSON object with texts as its values. Fields with a default may
be left out of a file that you write. Fields with the default *left out* are not written without a value.

Files that matter are first written under a temporary name, `.NAME.MACHINE-PROCESS-RANDOM.tmp`. A killed
command may leave one; a later command removes it.
"""


def page() -> str:
    """The content of docs/files.md."""
    lines = [INTRODUCTION]
    for title, about, files in SECTIONS:
        lines += [f"## {title}", "", about, "", *_table_of_files(files), ""]
    lines += ["## Fields", ""]
    for title, fields in LISTED.items():
        lines += [f"### {title}", "", *_table(("field", "type", "meaning"), _quoted(fields)), ""]
    for record in records():
        lines += [f"### {record.__name__}", "", *_about(record), ""]
        lines += [*_table(("field", "type", "default", "meaning"), _quoted(fields_of(record))), ""]
    return "\n".join(lines)


def records() -> list[type]:
    """The types of all files and of their fields, in order of their first mention."""
    files = [file for _, _, files in SECTIONS for file in files]
    waiting = [fields for file in files for fields in file.fields if not isinstance(fields, str)]
    types_of_page: list[type] = []
    while waiting:
        record = waiting.pop(0)
        if record not in types_of_page:
            types_of_page.append(record)
            waiting[:0] = _records_in(*typing.get_type_hints(record).values())
    return types_of_page


def _records_in(*annotations: Any) -> Iterator[type]:
    for annotation in annotations:
        if _is_record(annotation):
            yield annotation
        else:
            yield from _records_in(*typing.get_args(annotation))


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        is_dataclass(annotation) or issubclass(annotation, msgspec.Struct)
    )


def fields_of(record: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type in words, default and meaning of each field."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    annotations = typing.get_type_hints(record)
    for field in fields_in_source(tree):
        annotation = annotations[field.name]
        meaning = CONSTANT.sub(functools.partial(_values, record), " ".join(field.meaning.split()))
        yield field.name, in_words(annotation), _default(record, field, annotation), meaning


def _values(record: type, match: re.Match[str]) -> str:
    """The values of a constant of the record's module, as in `One of ROLES`; other capitals stay."""
    value = getattr(sys.modules[record.__module__], match[0], None)
    values = {str: [value], tuple: value}.get(type(value))
    return match[0] if values is None else ", ".join(f"`{text}`" for text in values)


def in_words(annotation: Any, plural: bool = False) -> str:
    """A type in the words of JSON, such as `list of texts`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in IN_WORDS:
        return IN_WORDS[annotation][plural].removeprefix("a ")
    if _is_record(annotation):
        return f"[{annotation.__name__}](#{_anchor(annotation.__name__)})"
    if origin in (types.UnionType, typing.Union):
        kinds = [argument for argument in arguments if argument not in (types.NoneType, UnsetType)]
        words = [in_words(kind, plural) for kind in kinds]
        return " or ".join([*words, "null"] if types.NoneType in arguments else words)
    if origin is list or (origin is tuple and arguments[-1] is ...):
        return f"list{'s' * plural} of {in_words(arguments[0], plural=True)}"
    if origin is tuple:
        left, right = arguments
        of_both = in_words(left, plural=True) if left == right else f"{in_words(left)} and {in_words(right)}"
        return f"pair{'s' * plural} of {of_both}"
    if origin is dict:
        return f"object{'s' * plural} of {in_words(arguments[1], plural=True)}"
    names = {dict: "object", list: "list"}
    return names.get(annotation, "row") + "s" * plural


def _default(record: type, field: SourceField, annotation: Any) -> str:
    """What a missing field stands for, in JSON; empty for a field that must be there."""
    if not issubclass(record, Record):  # no user writes such a file, and `stlm` writes all of its fields
        return ""
    if field.default == "UNSET":
        return "left out"
    if field.default:
        return f"`{json.dumps(ast.literal_eval(field.default))}`"
    return "`null`" if types.NoneType in typing.get_args(annotation) else ""


def _about(record: type) -> list[str]:
    """What a record is and where it is defined, and whether defaults are left out."""
    source = record.__module__.removeprefix("tidy_stlms.").replace(".", "/") + ".py"
    paragraph = " ".join(inspect.cleandoc(record.__doc__ or "").split())
    lines = [f"{paragraph} (`{record.__name__}` in `{source}`)"]
    if issubclass(record, Record) and record.__struct_config__.omit_defaults:
        lines += ["", "A field that holds its default is not written."]
    return lines


def _table_of_files(files: Sequence[File]) -> list[str]:
    rows = []
    for file in files:
        titles = [fields if isinstance(fields, str) else fields.__name__ for fields in file.fields]
        links = ", ".join(f"[{title}](#{_anchor(title)})" for title in titles)
        holds = f"{file.holds} Fields: {links}." if links else file.holds
        rows.append((f"`{file.name}`", holds, file.writer))
    return _table(("file", "what", "written by"), rows)


def _quoted(rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    for name, *cells in rows:
        yield f"`{name}`", *cells


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]


def _anchor(title: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    write_whole(PAGE, page())
