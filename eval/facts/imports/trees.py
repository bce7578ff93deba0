"""Parses whole files of nested values: JSON, JSON5, YAML.

Strict where a lenient parser would lose or change a text: no key twice in an object, no aliases in YAML, and
YAML values are texts as they stand ("1976" and "no" are not a number and False).
"""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.rows import JSON

DEEPEST = 100  # lists and objects inside each other; files of facts have four or five
LONGEST_JSON5 = 1_000_000  # characters; its parser reads 40,000 of them a second


def parse_json5(path: Path, content: str) -> Any:
    """JSON with comments, trailing commas and bare keys; UserError, with the line if it is a mistake."""
    if not content.strip():
        raise UserError(f"{path}: is empty")
    try:
        with reading(f"{path}: not valid JSON"):
            value = JSON.decode(content)  # fast, and most files are plain
    except UserError as error:
        mistake = error.__cause__
        if not isinstance(mistake, json.JSONDecodeError):
            raise
        if len(content) > LONGEST_JSON5:
            raise UserError(
                f"{path}: not valid JSON, line {mistake.lineno} ({mistake.msg}); only files up to "
                f"{LONGEST_JSON5:,} characters may have comments and bare keys"
            ) from None
        value = _parse_json5(path, content)
    return _not_too_deep(path, value)


def parse_yaml(path: Path, content: str) -> Any:
    """YAML with all values as texts; UserError, with the line if it is known, for a mistake."""
    try:
        with reading(f"{path}: not valid YAML"):
            value = yaml.load(content, _Texts)
    except UserError as error:
        mistake = error.__cause__
        mark = getattr(mistake, "problem_mark", None)
        if mark is None:
            raise
        problem = getattr(mistake, "problem", mistake)
        raise UserError(f"{path}, line {mark.line + 1}: not valid YAML ({problem})") from None
    return _not_too_deep(path, value)


def _parse_json5(path: Path, content: str) -> Any:
    import json5

    try:
        with reading(f"{path}: not valid JSON5"):
            return json5.loads(content, allow_duplicate_keys=False)
    except UserError as error:
        raise UserError(str(error).replace("JSON5: <string>:", "JSON5, line ")) from None


class _Texts(yaml.BaseLoader):
    """Reads every value as a text and ignores tags. Refuses aliases, which can make a small file endless."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read; write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        value = super().construct_mapping(node, deep)
        if len(value) < len(node.value):
            keys = [key.value for key, _ in node.value]
            key, mark = next(
                (key.value, key.start_mark) for key, _ in node.value if keys.count(key.value) > 1
            )
            problem = f"the key {key!r:.60} stands twice"
            raise yaml.constructor.ConstructorError(None, None, problem, mark)
        return value


def _not_too_deep(path: Path, value: Any) -> Any:
    """The value. UserError if it is nested more than `DEEPEST`: recursive functions would fail on it."""
    level, depth = [value], 0
    while level := [outer for outer in level if isinstance(outer, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise UserError(f"{path}: is nested more than {DEEPEST} deep")
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return value
