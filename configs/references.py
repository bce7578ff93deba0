r"""Resolves references between keys, `${data.context_window}`, and nothing else.

OmegaConf would also call resolvers: `${oc.env:HF_TOKEN}` reads the environment, and what it reads would be
written into a run's config or a bank, which are pushed to the Hub. So OmegaConf resolves nothing here. Only
its grammar is used, to parse a text:

    ${section.key}    the value of that key
    ${.key}           the value of a key beside this one; each further dot goes one level up
    \${               the two characters themselves
    ${name:...}       a resolver: refused, and so is a reference inside a reference
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from omegaconf import grammar_parser

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.yaml_files import MAX_DEPTH, walk

MISSING = "???"  # OmegaConf's sign for a value that must be given
MAX_TEXT = 10_000  # characters of a text with references
MAX_RESOLVED = 1_000_000  # characters and values that references may add
# Backslashes at the end, or in front of a ${ at the end: each pair stands for one.
BACKSLASHES = re.compile(r"(\\+)(?=\$\{$|$)")
Path = tuple[str | int, ...]


class Reference(NamedTuple):
    """A parsed `${...}`."""

    text: str
    levels: int
    """Levels above the value's own key at which `keys` begin; 0: at the root."""
    keys: tuple[str, ...]


def check_references(values: Any, where: str) -> None:
    """Raise UserError, naming the key, for a text with `${` that is neither a reference nor an escape."""

    def check(key: str, value: Any) -> None:
        if "${" in key:
            raise UserError(f"{where}: {key:.100}: a key cannot hold ${{...}}; write the key itself")
        if isinstance(value, str) and "${" in value:
            parse_references(value, f"{where}: {key}")

    walk(values, check)


def parse_references(text: str, where: str) -> list[str | Reference]:
    """The parts of a text: texts, with escapes undone, and references."""
    if len(text) > MAX_TEXT:
        raise UserError(
            f"{where}: a text with ${{...}} may have at most {MAX_TEXT} characters, not {len(text)}"
        )
    if text.count("${") > MAX_DEPTH:
        raise UserError(f"{where}: holds ${{...}} more than {MAX_DEPTH} times")
    with reading(f"{where}: {shown(text)}: is no reference to a key", r"; write \${ for the characters ${"):
        tree = grammar_parser.parse(text, parser_rule="configValue", lexer_mode="DEFAULT_MODE")
        tokens = _tokens(tree)
    return [_part(kind, value, where) for kind, value in tokens]


def _tokens(tree: Any) -> list[tuple[str, Any]]:
    """(kind, text or node) for each part of a text that OmegaConf has parsed."""
    parser = grammar_parser.OmegaConfGrammarParser
    children, tokens = list(tree.text().getChildren()), []
    for child, following in zip(children, [*children[1:], None], strict=True):
        if not isinstance(child, parser.InterpolationContext):
            text = child.getText()
            is_escape = child.symbol.type == parser.ESC_INTER  # an odd number of backslashes, and ${
            if is_escape or isinstance(following, parser.InterpolationContext):
                text = BACKSLASHES.sub(lambda found: found[1][: len(found[1]) // 2], text)
            tokens.append(("text", text))
        elif child.interpolationNode() is None:
            tokens.append(("resolver", child.getText()))
        else:
            node = child.interpolationNode()
            keys = [key.getText() for key in node.configKey()]
            dots = 0
            for part in list(node.getChildren())[1:]:
                if part.getText() != ".":
                    break
                dots += 1
            tokens.append(("reference", Reference(child.getText(), dots, tuple(keys))))
    return tokens


def _part(kind: str, value: Any, where: str) -> str | Reference:
    if kind == "resolver":
        raise UserError(f"{where}: {value:.60}: resolvers are not allowed here; write the value itself")
    if kind == "reference" and any("${" in key for key in value.keys):
        raise UserError(f"{where}: {value.text:.60}: a reference cannot contain another one; name the key")
    return value


def escape(values: Any) -> Any:
    r"""The values with `\${` for each `${`: OmegaConf, and `resolve`, then read the texts as they are."""
    if isinstance(values, dict):
        return {key: escape(value) for key, value in values.items()}
    if isinstance(values, list):
        return [escape(value) for value in values]
    if isinstance(values, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", values)
    return values


def resolve(values: dict[str, Any], where: str) -> dict[str, Any]:
    r"""The values with all references replaced by the values of their keys, and `\${` by `${`.

    Raises UserError, naming the key, for a reference to a key that does not exist, to itself or in a circle.
    """
    return _Resolver(values, where).value(())


class _Resolver:
    def __init__(self, values: dict[str, Any], where: str):
        self.values, self.where = values, where
        self.done: dict[Path, Any] = {}
        self.open: list[Path] = []
        self.added = 0

    def value(self, path: Path) -> Any:
        """The resolved value at a path of `values`."""
        if path in self.done:
            return self.done[path]
        raw: Any = self.values
        for key in path:
            raw = raw[key]
        if isinstance(raw, dict):
            with self._opened(path):
                self.done[path] = {key: self.value((*path, key)) for key in raw}
        elif isinstance(raw, list):
            with self._opened(path):
                self.done[path] = [self.value((*path, index)) for index in range(len(raw))]
        elif isinstance(raw, str) and "${" in raw:
            with self._opened(path):
                self.done[path] = self._joined(parse_references(raw, self._name(path)), path)
        else:
            self.done[path] = raw
        return self.done[path]

    def _joined(self, parts: list[str | Reference], path: Path) -> Any:
        resolved = [part if isinstance(part, str) else self._referred(part, path) for part in parts]
        if len(parts) == 1:
            return resolved[0]
        for part, value in zip(parts, resolved, strict=True):
            if isinstance(value, dict | list):
                text = part.text if isinstance(part, Reference) else part
                raise UserError(
                    f"{self._name(path)}: {text:.60} is a section or a list, which cannot be part of a text"
                )
        return "".join(map(str, resolved))

    def _referred(self, reference: Reference, path: Path) -> Any:
        value = self.value(self._target(reference, path))
        self.added += _amount(value)
        if self.added > MAX_RESOLVED:
            raise UserError(f"{self._name(path)}: references repeat too much; write the values out")
        return value

    def _target(self, reference: Reference, path: Path) -> Path:
        """The path that a reference at `path` refers to. References on the way there are followed."""
        target: Path = path[: -reference.levels] if reference.levels else ()
        if reference.levels > len(path):
            raise self._no_such_key(reference, path)
        for number, key in enumerate(reference.keys, 1):
            found = self._at(target)
            if isinstance(found, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(found):
                target = (*target, int(key[:9]))
            elif isinstance(found, dict) and key in found:
                target = (*target, key)
            else:
                raise self._no_such_key(reference, path)
            raw = self._at(target)
            if isinstance(raw, str) and "${" in raw and number < len(reference.keys):
                parts = parse_references(raw, self._name(target))
                if len(parts) == 1 and isinstance(parts[0], Reference):
                    with self._opened(target):
                        target = self._target(parts[0], target)
        return target

    def _at(self, path: Path) -> Any:
        raw: Any = self.values
        for key in path:
            raw = raw[key]
        return raw

    @contextmanager
    def _opened(self, path: Path) -> Iterator[None]:
        if path in self.open:
            raise UserError(f"{self._name(path)}: refers to itself; write the value")
        self.open.append(path)
        yield
        self.open.pop()

    def _no_such_key(self, reference: Reference, path: Path) -> UserError:
        return UserError(f"{self._name(path)}: {reference.text:.60}: there is no such key")

    def _name(self, path: Path) -> str:
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
        return f"{self.where}: {name:.200}"


def _amount(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + sum(map(_amount, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, str) else 1
