"""Reads YAML as plain values. All of our YAML files and `key=value` overrides are read here.

    values = read_yaml("configs/quickstart.yaml")   # dicts, lists, texts, numbers, true, false, null

Keys are texts, as they are written: `1:` is "1" and `yes:` is "yes". A key that occurs twice is an error;
PyYAML would use the last one. Dates and `12:30` (base 60 in YAML) stay texts, `1e-3` is a number. Tags
that make other objects are refused, and so are `*aliases` that would repeat values without bound.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from omegaconf import DictConfig, OmegaConf

from tidy_stlms.configs.errors import UserError, one_line, shown
from tidy_stlms.configs.files import read_text
from tidy_stlms.configs.reading import REASON_LIMIT, reading

MAX_DEPTH = 40
MAX_REPEATED = 10_000  # values that aliases add
MAX_DIGITS = 100  # of a whole number
MAX_KEY = 1_000  # characters of an override's key
# A NUL ends a file's name for the operating system, and no encoding can write a lone surrogate.
UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
INT_TAG, FLOAT_TAG = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
REPLACED_TAGS = (INT_TAG, FLOAT_TAG, "tag:yaml.org,2002:timestamp")
BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(BaseLoader):
    """The loader of PyYAML with the rules above."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and (repeated := _expanded_size(node, {}) - _size(node, set())) > MAX_REPEATED:
            raise _error(node, f"aliases (*name) repeat {repeated} values; write them out")
        return node

    def construct_scalar(self, node: yaml.Node) -> str:
        text = super().construct_scalar(node)
        if found := UNWRITABLE.search(text):
            raise _error(node, f"the character {found.group()!a} is not allowed")
        return text

    def whole_number(self, node: yaml.Node) -> int:
        if len(node.value) > MAX_DIGITS:
            raise _error(node, f"a number of {len(node.value)} digits is too large")
        return self.construct_yaml_int(node)

    def mapping(self, node: yaml.Node) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _error(node, "expected a mapping")
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key must be one word")
            if key.value in keys:
                raise _error(key, f"the key {shown(key.value)} occurs twice")
            keys.add(key.value)
        self.flatten_mapping(node)  # `<<: *name`
        return {
            self.construct_scalar(key): self.construct_object(value, deep=True) for key, value in node.value
        }

    def sequence(self, node: yaml.Node) -> list[Any]:
        return self.construct_sequence(node, deep=True)


_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag not in REPLACED_TAGS]
    for start, resolvers in BaseLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(INT_TAG, INT, list("-+0123456789"))
_Loader.add_implicit_resolver(FLOAT_TAG, FLOAT, list("-+0123456789."))
_Loader.yaml_constructors = {
    **{f"tag:yaml.org,2002:{name}": BaseLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
       for name in ("null", "bool", "float", "str")},
    INT_TAG: _Loader.whole_number,
    "tag:yaml.org,2002:map": _Loader.mapping,
    "tag:yaml.org,2002:seq": _Loader.sequence,
    None: BaseLoader.yaml_constructors[None],  # all other tags: an error
}  # fmt: skip


class _TextLoader(_Loader):
    yaml_implicit_resolvers: ClassVar[dict] = {}


def read_yaml(path: str | Path) -> Any:
    """The values of a YAML file. Raises UserError, naming file and line, if it is missing or wrong."""
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, where: object, problem: str = "not valid YAML", *, as_texts: bool = False) -> Any:
    """The values of a YAML text. Raises UserError, beginning with `where`, for invalid YAML.

    With `as_texts`, all values stay texts: "1976" is not read as a number, nor "no" as False.
    """
    with reading(f"{where}: {problem}"):
        try:
            _check_depth(text, where)
            return yaml.load(text, Loader=_TextLoader if as_texts else _Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            reason = one_line(error.problem or error, REASON_LIMIT)
            raise UserError(f"{where}{line}: {problem} ({reason})") from None


def read_mapping(path: str | Path, needed: str) -> dict[str, Any]:
    """The values of a YAML file that must hold a mapping, or nothing. `needed`: the message otherwise."""
    text = read_text(path)
    values = parse_yaml(text, path)
    if not isinstance(values, dict) and text.strip():
        raise UserError(f"{path}: {needed}")
    return values or {}


def parse_override(override: str) -> dict[str, Any]:
    """`section.key=value` as nested mappings; the value is YAML. Raises UserError for other texts."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"{shown(override)}: expected section.key=value")
    written = one_line(f"{override:.100}")
    if len(key) > MAX_KEY or UNWRITABLE.search(key) or key.count(".") + key.count("[") > MAX_DEPTH:
        raise UserError(f"{key!a:.100}: no such key")
    values: Any = DictConfig({})
    parsed = parse_yaml(value, written)
    with reading(written):
        OmegaConf.update(values, key, parsed)
        return OmegaConf.to_container(values, resolve=False)  # type: ignore[return-value]


def walk(values: Any, visit: Callable[[str, Any], None], key: str = "") -> None:
    """Call `visit(full key, value)` for everything in `values` that is neither a mapping nor a list."""
    if isinstance(values, dict):
        for name, value in values.items():
            walk(value, visit, f"{key}.{name}" if key else name)
    elif isinstance(values, list):
        for index, value in enumerate(values):
            walk(value, visit, f"{key}[{index}]")
    else:
        visit(key, values)


def _check_depth(text: str, where: object) -> None:
    """Refuse deep nesting before the text is composed: libyaml would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=BaseLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1
            raise UserError(f"{where}, line {line}: is nested more than {MAX_DEPTH} levels deep")


def _size(node: yaml.Node, seen: set[int]) -> int:
    if id(node) in seen:
        return 0
    seen.add(id(node))
    return 1 + sum(_size(child, seen) for child in _children(node))


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values below a node. Those of an alias count each time it is used."""
    if id(node) not in sizes:
        sizes[id(node)] = -1  # while it is being counted
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in _children(node))
    if sizes[id(node)] < 0:
        raise _error(node, "an alias (*name) contains itself")
    return sizes[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
