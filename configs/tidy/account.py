"""Accounts for every value of a Tidy-STLMs config: our key for it, or the reason why it is left behind."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tidy_stlms.configs.errors import UserError

SO_HERE = "(it is so here)"


@dataclass
class TidyConversion:
    """Our config, and what became of each key of the source."""

    config: dict[str, Any] = field(default_factory=dict)
    """Our config, by section."""
    carried: dict[str, str] = field(default_factory=dict)
    """Our key for each of their keys."""
    changed: dict[str, str] = field(default_factory=dict)
    """What is different here, by their key; all of these are in `carried` too."""
    left_behind: dict[str, str] = field(default_factory=dict)
    """The reason for each of their keys that is not carried over."""

    def yaml(self, source: str) -> str:
        """The config as YAML, with what is different and what is missing as comments on top."""
        lines = [f"Converted by `stlm convert tidy-config` from {source} of Tidy-STLMs."]
        for title, notes in (("Different here:", self.changed), ("Not carried over:", self.left_behind)):
            if notes:
                # keys and the values that reasons quote may contain line breaks
                entries = (" ".join(f"{key}: {reason}".split()) for key, reason in notes.items())
                lines += ["", title, *(f"  {entry}" for entry in entries)]
        head = "\n".join(f"# {line}".rstrip() for line in lines)
        return f"{head}\n\n{yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True, width=100)}"


class Account:
    """The values of a config that are still to be accounted for (`left`), and the result so far."""

    def __init__(self, config: dict[str, Any], where: str):
        self.left = dict(leaves(config))
        self.values = dict(self.left)
        self.where, self.result = where, TidyConversion()

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def number(self, key: str, default: float = 0) -> float:
        """A value that must be a number; `default` for null."""
        value = default if self.get(key) is None else self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{self.where}: {key}={value}: must be a number")
        return value

    def put(self, ours: str, value: Any) -> None:
        """Set our key, such as `training.max_steps`, in the result."""
        *sections, name = ours.split(".")
        values = self.result.config
        for section in sections:
            values = values.setdefault(section, {})
        values[name] = value

    def carry(self, key: str, ours: str, *value: Any, note: str | None = None) -> None:
        """Account for `key` as carried over to `ours`, with `value` in place of its own if given."""
        if key not in self.left:
            return
        source_value = self.left.pop(key)
        self.put(ours, value[0] if value else source_value)
        self.result.carried[key] = ours
        if note:
            self.result.changed[key] = note

    def same(self, key: str, why: str = SO_HERE, note: str | None = None) -> None:
        """Account for `key` as fixed here, with the same value."""
        if key in self.left:
            del self.left[key]
            self.result.carried[key] = why
            if note:
                self.result.changed[key] = note

    def leave(self, key: str, reason: str) -> None:
        """Account for `key` as left behind, unless it is accounted for already."""
        if key in self.left:
            del self.left[key]
            self.result.left_behind[key] = reason

    def settle(self, key: str, *wanted: Any) -> None:
        """Account for `key`: the same here if its value is in `wanted`, or else left behind."""
        if self.get(key) in wanted:
            self.same(key)
        self.leave(key, f"only {' or '.join(map(str, wanted))} is so here")


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) such as `("trainer.eval[0].evaluator", "mcq")` of all values.

    Mappings, and lists with mappings in them, are walked through. Any other list is a value.
    """
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        for index, value in enumerate(values):
            yield from leaves(value, f"{prefix}[{index}]")
    else:
        yield prefix, values
