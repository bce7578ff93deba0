"""Tidy-STLMs' templates: `training_fact` and `test_cases` with variables such as {NAME} and {CITY}.

The subject of a template is {NAME}, or else its first variable. Each other variable makes a fact about it:
"{NAME} works as a {PROFESSION} at {COMPANY}" states the profession and the company.
"""

import re
from dataclasses import dataclass
from typing import Any

from tidy_stlms.configs.errors import shown
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.source_files import Row, checked_text, text_field
from tidy_stlms.eval.facts.records import PROBE_TYPES, Fact

VARIABLE = re.compile(r"\{([A-Z_][A-Z0-9_]*)\}")
SUBJECT = "NAME"
TEMPLATE_KEYS = {"name", "training_fact", "test_cases"}


@dataclass(frozen=True)
class CaseTemplate:
    """A test case with variables. The answer keeps a space at its beginning."""

    type: str
    prompt: str
    answer: str

    @property
    def wording(self) -> str:
        return self.prompt + self.answer


@dataclass(frozen=True)
class FactTemplate:
    """An entry of `inject_config.json`: a wording with variables, and its test cases."""

    name: str
    wording: str
    subject: str
    """The variable of the subject."""
    objects: tuple[str, ...]
    """All other variables, in the order of the wording."""
    cases: tuple[CaseTemplate, ...]

    def relation(self, variable: str) -> str:
        return self.name if len(self.objects) == 1 else f"{self.name}/{variable.lower()}"

    def match(self, line: str) -> dict[str, str] | None:
        """The variables' values in a statement made from this wording; None for another statement."""
        pattern, variables = "", set()
        for index, part in enumerate(VARIABLE.split(self.wording.rstrip("."))):
            if index % 2 == 0:
                pattern += re.escape(part)
            else:
                pattern += f"(?P={part})" if part in variables else f"(?P<{part}>.+?)"
                variables.add(part)
        # a sentence begins with a capital, and the wording may not
        match = re.fullmatch(pattern + r"\.?", line, re.IGNORECASE)
        return None if match is None else match.groupdict()

    @property
    def literal_length(self) -> int:
        """Characters of the wording outside its variables. Of several templates that match, most win."""
        return len(VARIABLE.sub("", self.wording))

    def facts_of(self, case: CaseTemplate, facts: dict[str, Fact]) -> list[Fact]:
        """The facts that a case asks for: those in its answer, or else those in its prompt, or else all.

        `facts` are by variable.
        """
        for text in (case.answer, case.prompt):
            case_facts = [facts[name] for name in VARIABLE.findall(text) if name in facts]
            if case_facts:
                return list(dict.fromkeys(case_facts))
        return list(facts.values())


@dataclass(frozen=True)
class FilledTemplate:
    """A template with its values, and the facts that it states, by variable."""

    template: FactTemplate
    values: dict[str, str]
    facts: dict[str, Fact]


def fill(wording: str, values: dict[str, str], *, capital: bool = False) -> str:
    """The wording with values in place of variables. With `capital` it begins with a capital."""
    filled = VARIABLE.sub(lambda match: values[match[1]], wording)
    return filled[:1].upper() + filled[1:] if capital else filled


def read_templates(entries: list[Any], file: str, builder: BankBuilder) -> list[FactTemplate]:
    """The templates of an `inject_config.json`."""
    templates: list[FactTemplate] = []
    for number, entry in enumerate(entries, 1):
        builder.records_read[file] += 1
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"{file}, record {number}" + (f" ({name})" if isinstance(name, str) else "")
        with builder.record(where):
            if not isinstance(entry, dict):
                raise Refused(f"must be an object with named fields, got {shown(entry)}")
            builder.fields.update(dict.fromkeys(map(str, entry)))
            template = _template(where, entry, builder)
            if any(earlier.name == template.name for earlier in templates):
                raise Refused(f"name {template.name!r} is taken by an earlier kind")
            templates.append(template)
    return templates


def _template(where: str, entry: Row, builder: BankBuilder) -> FactTemplate:
    wording = _checked_wording(text_field(entry, "training_fact").strip())
    variables = list(dict.fromkeys(VARIABLE.findall(wording)))
    if len(variables) < 2:
        raise Refused(f"training_fact needs two variables such as {{NAME}} and {{CITY}}: {wording!r}")
    subject = SUBJECT if SUBJECT in variables else variables[0]
    objects = tuple(variable for variable in variables if variable != subject)
    name = text_field(entry, "name").strip() if "name" in entry else "_".join(objects).lower()
    return FactTemplate(name, wording, subject, objects, _case_templates(where, entry, variables, builder))


def _case_templates(
    where: str, entry: Row, variables: list[str], builder: BankBuilder
) -> tuple[CaseTemplate, ...]:
    test_cases = entry.get("test_cases", {})
    if not isinstance(test_cases, dict):
        raise Refused(f"field 'test_cases' must be an object of lists, got {shown(test_cases)}")
    cases = []
    for probe_type, items in test_cases.items():
        with builder.record(f"{where}, {probe_type}"):
            if probe_type not in PROBE_TYPES:
                raise Refused(f"unknown type of probe; known are {', '.join(PROBE_TYPES)}")
            if not isinstance(items, list):
                raise Refused(f"must be a list, got {shown(items)}")
            for number, item in enumerate(items, 1):
                with builder.record(f"{where}, {probe_type} {number}"):
                    prompt, answer = map(_checked_wording, prompt_and_answer(item))
                    unknown = set(VARIABLE.findall(prompt + answer)) - set(variables)
                    if unknown:
                        raise Refused(f"training_fact has no {{{'}, {'.join(sorted(unknown))}}}")
                    cases.append(CaseTemplate(probe_type, prompt, answer))
    return tuple(cases)


def _checked_wording(wording: str) -> str:
    """The wording. Raises Refused for braces that hold no variable: they would be injected as they are."""
    if {"{", "}"}.intersection(VARIABLE.sub("", wording)):
        raise Refused(f"a variable must look like {{CITY}} or {{CITY_2}}, in capitals: {wording!r}")
    return wording


def prompt_and_answer(item: Any) -> tuple[str, str]:
    """The texts of a case: `prompt` and `completion` in old files, `sentence` and `answer` in new ones."""
    if not isinstance(item, dict):
        raise Refused(f"must be an object with sentence and answer, got {shown(item)}")
    prompt = text_field(item, "prompt" if "prompt" in item else "sentence")
    answer = text_field(item, "completion" if "completion" in item else "answer")
    return prompt, checked_text(answer, "the answer")
