"""Fields of a class as its source shows them.

Python keeps no docstring of a field. It stands below the field in the source, which is parsed, not imported:
importing the schema of a run takes seconds, because it needs transformers.
"""

import ast
import inspect
from collections.abc import Iterator
from typing import NamedTuple


class SourceField(NamedTuple):
    """A field of a dataclass or a record."""

    name: str
    annotation: str
    default: str
    """The default as Python writes it; empty for a field without one."""
    meaning: str
    """The docstring below the field; empty without one."""


def fields_in_source(node: ast.ClassDef) -> Iterator[SourceField]:
    """The fields of a class, in order."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        default = ast.unparse(statement.value) if statement.value else ""
        if default.startswith("field("):
            default = default.removeprefix("field(default_factory=").removesuffix(")")
        value = following.value if isinstance(following, ast.Expr) else None
        meaning = inspect.cleandoc(str(value.value)) if isinstance(value, ast.Constant) else ""
        yield SourceField(statement.target.id, ast.unparse(statement.annotation), default, meaning)
