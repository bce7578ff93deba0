"""Every key of a run with its type, default and meaning, for `stlm train --keys`."""

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.source_fields import fields_in_source

SCHEMA = Path(__file__).parent / "schema.py"


def describe_keys(section: str = "") -> str:
    """The keys of `section`, or of all sections. Raises UserError if there is no such section."""
    tree = ast.parse(SCHEMA.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    sections = {field.name: classes[field.annotation] for field in fields_in_source(classes["RunConfig"])}
    if section and section not in sections:
        raise UserError(f"no section {section!r}; there are {', '.join(sections)}")
    lines = []
    for name, node in sections.items():
        if section in ("", name):
            lines += [f"{name}: {ast.get_docstring(node)}", *_field_lines(node, f"  {name}.", classes), ""]
    return "\n".join(lines)


def _field_lines(node: ast.ClassDef, prefix: str, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    for field in fields_in_source(node):
        yield f"{prefix}{field.name}: {field.annotation} = {field.default}"
        if field.meaning:
            yield textwrap.indent(field.meaning, " " * 6)
        nested = field.annotation.removesuffix(" | None").removeprefix("list[").removesuffix("]")
        if nested in classes:
            yield from _field_lines(classes[nested], f"{prefix}{field.name}.", classes)
