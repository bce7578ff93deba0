"""Checks plain values against the types of a dataclass, and says in plain words what a value must be.

OmegaConf makes the dataclass afterwards and checks too. But it lets some wrong values pass (a list inside a
list of texts), and its messages name Python's types, or no key.
"""

import collections
import dataclasses
import functools
import types
import typing
from enum import Enum
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


def find_mismatch(
    values: dict[str, Any], dataclass: type, where: str, *, is_resolved: bool = False
) -> Mismatch | None:
    """The first value that is not of its type. Raises UserError for a key that the dataclass does not have.

    `???` passes and so do references, unless `is_resolved`: then `${...}` is a text like any other.
    """
    return _Check(where, is_resolved).mismatch(values, dataclass, "", is_strict=False)


class _Check(NamedTuple):
    where: str
    is_resolved: bool

    def mismatch(self, value: Any, hint: Any, key: str, *, is_strict: bool) -> Mismatch | None:
        """The first mismatch in a value. With `is_strict`, as in unions, OmegaConf converts nothing."""
        origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
        if value == MISSING or (isinstance(value, str) and "${" in value and not self.is_resolved):
            return None
        if origin in UNIONS:
            return self._in_union(value, arguments, key)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self._in_mapping(value, _hints(hint), key)
        if origin is dict:
            item_hint = (*arguments, Any, Any)[1]
            return self._in_mapping(value, collections.defaultdict(lambda: item_hint), key)
        if origin is list:
            if not isinstance(value, list):
                return Mismatch(key, value, _in_words(hint))
            item_hint = (*arguments, Any)[0]
            names = (f"{key}[{index}]" for index in range(len(value)))
            found = (
                self.mismatch(item, item_hint, name, is_strict=is_strict)
                for name, item in zip(names, value, strict=True)
            )
            return next(filter(None, found), None)
        if _is_enum(hint) and not isinstance(value, str):
            return Mismatch(key, value, _in_words(hint))
        if hint in NODES and not _fits(value, hint, is_strict):
            return Mismatch(key, value, _in_words(hint))
        return None

    def _in_mapping(self, value: Any, hints: dict[str, Any], key: str) -> Mismatch | None:
        if not isinstance(value, dict):
            return Mismatch(key, value, IN_WORDS[dict][0])
        for name, item in value.items():
            full = f"{key}.{name}" if key else name
            if name not in hints and not isinstance(hints, collections.defaultdict):
                raise UserError(f"{self.where}: unknown key {full:.100}{did_you_mean(name, hints)}")
            if found := self.mismatch(item, hints[name], full, is_strict=False):
                return found
        return None

    def _in_union(self, value: Any, hints: tuple[Any, ...], key: str) -> Mismatch | None:
        if value is None and type(None) in hints:
            return None
        options = [hint for hint in hints if hint is not type(None)]
        found = [self.mismatch(value, hint, key, is_strict=len(options) > 1) for hint in options]
        mismatches = [mismatch for mismatch in found if mismatch is not None]
        if len(mismatches) < len(options):
            return None
        inside = next((mismatch for mismatch in mismatches if mismatch.key != key), None)
        named = [hint for hint in options if _is_enum(hint)] or options  # TrainingArguments: enum or text
        return inside or Mismatch(key, value, " or ".join(map(_in_words, named)))


def _fits(value: Any, hint: Any, is_strict: bool) -> bool:
    if isinstance(value, list | dict) or (is_strict and type(value) is not hint):
        return False
    if isinstance(value, str) and "${" in value:  # a node would take it for a reference
        return hint is str
    if hint is bool and isinstance(value, int | float) and value not in (0, 1):
        return False  # a node would take any other number for true
    try:
        NODES[hint](value, is_optional=False)
    except ValidationError:
        return False
    return True


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _in_words(hint: Any) -> str:
    if _is_enum(hint):  # in quotes, as YAML reads no as false
        return f"one of {', '.join(repr(str(member.value)) for member in hint)}, in quotes"
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
