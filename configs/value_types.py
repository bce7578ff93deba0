"""Checks plain values against the types of a dataclass, and says in plain words what a value must be.

OmegaConf makes the dataclass afterwards and checks too. But it lets some wrong values pass (a list inside a
list of texts), and its messages name Python's types, or no key.
"""

import dataclasses
import functools
import types
import typing
from typing import Any, NamedTuple

from omegaconf import BooleanNode, FloatNode, IntegerNode, StringNode
from omegaconf.errors import ValidationError

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.configs.references import MISSING

NODES: dict[Any, Any] = {int: IntegerNode, float: FloatNode, bool: BooleanNode, str: StringNode}
IN_WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a text", "texts"),
    list: ("a list", "lists"),
    dict: ("a mapping of keys", "mappings of keys"),
}
UNIONS = (types.UnionType, typing.Union)


class Mismatch(NamedTuple):
    """A value that is not of its type."""

    key: str
    value: Any
    needed: str
    """What it must be, in words."""


def find_mismatch(values: dict[str, Any], dataclass: type, where: str) -> Mismatch | None:
    """The first value that is not of its type. Raises UserError for a key that the dataclass does not have.

    Values that are not known yet, `${...}` and `???`, pass.
    """
    return _mismatch(values, dataclass, "", where)


def shown(value: Any) -> str:
    """A value in a message."""
    text = "null" if value is None else f"{value!r}"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _mismatch(value: Any, hint: Any, key: str, where: str) -> Mismatch | None:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if value == MISSING or (isinstance(value, str) and "${" in value):
        return None
    if origin in UNIONS:
        return _mismatch_of_union(value, arguments, key, where)
    if dataclasses.is_dataclass(hint) or origin is dict:
        if not isinstance(value, dict):
            return Mismatch(key, value, IN_WORDS[dict][0])
        hints = _hints(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None
        for name, item in value.items():
            full = f"{key}.{name}" if key else name
            if hints is not None and name not in hints:
                raise UserError(f"{where}: unknown key {full:.100}{did_you_mean(name, hints)}")
            item_hint = hints[name] if hints is not None else (*arguments, Any, Any)[1]
            if found := _mismatch(item, item_hint, full, where):
                return found
    elif origin is list:
        if not isinstance(value, list):
            return Mismatch(key, value, _in_words(hint))
        items = (_mismatch(item, (*arguments, Any)[0], f"{key}[{n}]", where) for n, item in enumerate(value))
        return next(filter(None, items), None)
    elif hint in NODES and not _is_convertible(value, hint):
        return Mismatch(key, value, _in_words(hint))
    return None


def _mismatch_of_union(value: Any, hints: tuple[Any, ...], key: str, where: str) -> Mismatch | None:
    if value is None and type(None) in hints:
        return None
    options = [hint for hint in hints if hint is not type(None)]
    found = [_mismatch(value, hint, key, where) for hint in options]
    mismatches = [mismatch for mismatch in found if mismatch is not None]
    if len(mismatches) < len(options):
        return None
    inside = next((mismatch for mismatch in mismatches if mismatch.key != key), None)
    return inside or Mismatch(key, value, " or ".join(map(_in_words, options)))


def _is_convertible(value: Any, hint: type) -> bool:
    if isinstance(value, list | dict):
        return False
    try:
        NODES[hint](value, is_optional=False)
    except ValidationError:
        return False
    return True


def _in_words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return IN_WORDS[dict][0]
    if origin is list and arguments:
        item = typing.get_origin(arguments[0]) or arguments[0]
        return f"a list of {IN_WORDS[item][1]}" if item in IN_WORDS else "a list"
    return IN_WORDS[origin][0] if origin in IN_WORDS else str(getattr(hint, "__name__", hint))


@functools.cache
def _hints(dataclass: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(dataclass)
    return {field.name: hints[field.name] for field in dataclasses.fields(dataclass)}
