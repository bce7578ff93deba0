"""Every key of a run with its type, default and meaning, for `stlm train --keys`.

The schema's source is parsed, not imported: importing it takes seconds, because it needs transformers.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tidy_stlms.configs.errors import UserError

SCHEMA = Path(__file__).parent / "schema.py"


def describe_keys(section: str = "") -> str:
    """The keys of `section`, or of all sections. Raises UserError if there is no such section."""
    tree = ast.parse(SCHEMA.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    sections = {name: classes[annotation] for name, annotation, _, _ in _fields(classes["RunConfig"])}
    if section and section not in sections:
        raise UserError(f"no section {section!r}; there are {', '.join(sections)}")
    lines = []
    for name, node in sections.items():
        if section in ("", name):
            lines += [f"{name}: {ast.get_docstring(node)}", *_field_lines(node, f"  {name}.", classes), ""]
    return "\n".join(lines)


def _field_lines(node: ast.ClassDef, prefix: str, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    for name, annotation, default, meaning in _fields(node):
        yield f"{prefix}{name}: {annotation} = {default}"
        if meaning:
            yield textwrap.indent(meaning, " " * 6)
        nested = annotation.removesuffix(" | None").removeprefix("list[").removesuffix("]")
        if nested in classes:
            yield from _field_lines(classes[nested], f"{prefix}{name}.", classes)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Name, annotation, default and docstring of each field of a dataclass."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        default = ast.unparse(statement.value) if statement.value else ""
        if default.startswith("field("):
            default = default.removeprefix("field(default_factory=").removesuffix(")")
        value = following.value if isinstance(following, ast.Expr) else None
        meaning = inspect.cleandoc(str(value.value)) if isinstance(value, ast.Constant) else ""
        yield statement.target.id, ast.unparse(statement.annotation), default, meaning
