"""Tidy-STLMs' test cases, which become probes.

test_cases_answers_by_type.json     {type: [{sentence, answer}]} or {type: {kind: [...]}} (JSON5)
test_cases_answers.json             {kind: {type: [...]}} or [{type: [...]}]
*.txt, *.yaml                       lists of `- sentence:` and `answer:`, under headings or none
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import did_you_mean, nearest, shown
from tidy_stlms.configs.yaml_files import parse_yaml
from tidy_stlms.eval.facts.imports.builder import SPACE_ADDED, BankBuilder, Refused
from tidy_stlms.eval.facts.imports.source_files import checked_text, parse_json5, read_lossy
from tidy_stlms.eval.facts.imports.tidy.templates import prompt_and_answer
from tidy_stlms.eval.facts.records import PROBE_TYPES, Fact

JSON, YAML = (".json", ".json5"), (".yaml", ".yml")
CASE_KEYS = {"sentence", "answer", "prompt", "completion"}
LIST_LINE = re.compile(r"\s*(?:-\s*)?(sentence|prompt|answer|completion|Type|Name):\s*(.*?)\s*")
# A key at least this similar to a type is a typing mistake. "location" is less similar to "locality".
MISTYPED = 0.8


@dataclass(frozen=True)
class TestCase:
    """A prompt with its answer, and its place, type and template in the source."""

    where: str
    type: str | None
    kind: str | None
    """The name of the template that it was made from."""
    prompt: str
    answer: str


def read_cases(path: Path, builder: BankBuilder) -> Iterator[TestCase]:
    """The test cases of a file, in order."""
    suffix = path.suffix.lower()
    if suffix in YAML or suffix in JSON:
        is_yaml = suffix in YAML
        value = parse_yaml(read_lossy(path), path, as_texts=True) if is_yaml else parse_json5(path)
        yield from _cases_of_tree(value, path.name, (), builder)
    else:
        yield from _cases_of_list(path, builder)


def add_probe(
    case: TestCase, facts: list[Fact], probe_type: str, builder: BankBuilder, template: str | None = None
) -> None:
    """Add a test case as a probe.

    Tidy-STLMs concatenates prompt and answer. If neither has a space at the boundary, the joint is a space
    and the probe is flagged, except if a trained sentence or the template shows that there is none.
    """
    touch = not (case.prompt[-1:].isspace() or case.answer[:1].isspace())
    builder.add_probe(
        case.where,
        facts,
        probe_type,
        case.prompt,
        [case.answer],
        template=template,
        flags=(SPACE_ADDED,) if touch else (),
        before=(case.prompt if template is not None else None) if touch else f"{case.prompt} ",
    )


def _cases_of_tree(value: Any, file: str, path: tuple[str, ...], builder: BankBuilder) -> Iterator[TestCase]:
    """The cases in nested lists and mappings. The keys above a case are its type and kind."""
    where = ", ".join((file, "/".join(path))) if path else file
    if isinstance(value, dict) and _is_case(value):
        builder.records_read[file] += 1
        builder.fields.update(dict.fromkeys(value))
        case = None
        with builder.record(where):
            case = TestCase(where, *_type_and_kind(path, file), *prompt_and_answer(value))
        if case is not None:
            yield case
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _cases_of_tree(inner, file, (*path, str(key)), builder)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _cases_of_tree(inner, file, (*path, str(number)), builder)
    elif path and path[-1].isdigit():
        builder.records_read[file] += 1
        builder.leave_out(where, f"must be an object with sentence and answer, got {shown(value)}")


def _is_case(value: dict) -> bool:
    """Whether a mapping has a text at a key of a case.

    `trainer: {prompt: {input_prompts: ...}}` in a whole config has a mapping there, and is no case.
    """
    return any(key in value and not isinstance(value[key], (dict, list)) for key in CASE_KEYS)


def _type_and_kind(path: tuple[str, ...], file: str) -> tuple[str | None, str | None]:
    """The type and the kind that the keys above a case give. Raises Refused for a mistyped type."""
    types = [key for key in path if key in PROBE_TYPES]
    kinds = [key for key in path if key not in PROBE_TYPES and not key.isdigit()]
    for key in kinds if not types else ():
        if "_by_type" in file or nearest(key, PROBE_TYPES, cutoff=MISTYPED):
            raise _unknown_type(key)
    return types[-1] if types else None, checked_text(kinds[-1], "the kind") if kinds else None


def _unknown_type(name: str) -> Refused:
    hint = did_you_mean(name, PROBE_TYPES) or f"; known are {', '.join(PROBE_TYPES)}"
    return Refused(f"unknown type of probe {name!r}{hint}")


def _cases_of_list(path: Path, builder: BankBuilder) -> Iterator[TestCase]:
    """The cases of a .txt list. It looks like YAML and is not: it does not escape quotes inside texts."""
    headings: dict[str, str] = {}
    open_prompt: tuple[str, str] | None = None  # (where, prompt) of a prompt that has no answer yet
    for where, key, value in _list_lines(path, builder):
        if key in ("Type", "Name"):
            headings[key] = value.partition(",")[0].strip()
        elif key in ("sentence", "prompt"):
            if open_prompt is not None:
                builder.leave_out(open_prompt[0], "a sentence without an answer")
            builder.records_read[path.name] += 1
            open_prompt = where, value
        elif open_prompt is None:
            builder.leave_out(where, "an answer without a sentence")
        else:
            (prompt_where, prompt), open_prompt = open_prompt, None
            case = None
            with builder.record(prompt_where):
                case = _case_of_list(prompt_where, prompt, value, headings)
            if case is not None:
                yield case
    if open_prompt is not None:
        builder.leave_out(open_prompt[0], "a sentence without an answer")


def _list_lines(path: Path, builder: BankBuilder) -> Iterator[tuple[str, str, str]]:
    """(where, key, value) of each line."""
    for number, line in enumerate(read_lossy(path).split("\n"), 1):
        where = f"{path.name}, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LIST_LINE.fullmatch(line)
        if match is None:
            builder.leave_out(where, f"neither sentence nor answer: {shown(line.strip())}")
            continue
        key, value = match[1], match[2]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        yield where, key, value


def _case_of_list(where: str, prompt: str, answer: str, headings: dict[str, str]) -> TestCase:
    prompt, answer = checked_text(prompt, "the sentence"), checked_text(answer, "the answer")
    probe_type = headings.get("Type")
    if probe_type is not None and probe_type not in PROBE_TYPES:
        raise _unknown_type(probe_type)
    return TestCase(where, probe_type, headings.get("Name"), prompt, answer)
