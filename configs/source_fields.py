"""Fields of a class as its source shows them.

Python keeps no docstring of a field. It stands below the field in the source, which is parsed, not imported:
importing the schema of a run takes seconds, because it needs transformers.
"""

import ast
import functools
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FACTORIES = {"dict": "{}", "list": "[]"}


class SourceField(NamedTuple):
    """A field of a dataclass or a record."""

    name: str
    annotation: str
    default: str
    """The default as Python writes it; empty for a field without one."""
    meaning: str
    """The docstring below the field, or else the first sentence of its `help`; empty without both."""


def fields_in_source(node: ast.ClassDef) -> Iterator[SourceField]:
    """The fields of a class, in order."""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        annotation = ast.unparse(statement.annotation)
        if annotation.startswith("ClassVar"):
            continue
        value = following.value if isinstance(following, ast.Expr) else None
        meaning = inspect.cleandoc(str(value.value)) if isinstance(value, ast.Constant) else ""
        default, help_text = _default_and_help(statement.value)
        yield SourceField(statement.target.id, annotation, default, meaning or help_text)


@functools.cache
def classes_in_source(path: Path) -> dict[str, ast.ClassDef]:
    """The classes of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def package_folder(name: str) -> Path:
    """The folder of a package, which is not imported."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _default_and_help(value: ast.expr | None) -> tuple[str, str]:
    """The default of a field, and the first sentence of the `help` in its metadata."""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "field"):
        return ast.unparse(value) if value else "", ""
    arguments = {keyword.arg: keyword.value for keyword in value.keywords}
    default = ast.unparse(arguments["default"]) if "default" in arguments else ""
    if "default_factory" in arguments:
        factory = ast.unparse(arguments["default_factory"])
        default = FACTORIES.get(factory, factory)
    metadata = arguments.get("metadata")
    if isinstance(metadata, ast.Dict) and len(metadata.values) == 1 and _is_text(metadata.values[0]):
        text = " ".join(ast.literal_eval(metadata.values[0]).split())
        return default, text.partition(". ")[0].rstrip(".") + "."
    return default, ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
