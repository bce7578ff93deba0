"""Tidy-STLMs' kinds of fact: `training_fact` and `test_cases` with variables such as {NAME} and {CITY}.

A kind has a subject, {NAME} or else its first variable, and every other variable makes a fact about it:
"{NAME} works as a {PROFESSION} at {COMPANY}" tells of the profession and of the company.
"""

import re
from dataclasses import dataclass
from typing import Any

from tidy_stlms.eval.facts.imports.draft import Draft, Refused
from tidy_stlms.eval.facts.imports.source_files import Record, checked, text
from tidy_stlms.eval.facts.records import PROBE_TYPES, Fact

VARIABLE = re.compile(r"\{([A-Z_][A-Z0-9_]*)\}")
SUBJECT = "NAME"


@dataclass(frozen=True)
class Case:
    """A test case; the template of its answer begins with the space that the source has there, or not."""

    type: str
    prompt: str
    answer: str

    @property
    def template(self) -> str:
        return self.prompt + self.answer


@dataclass(frozen=True)
class Kind:
    name: str
    wording: str
    subject: str  # the variable of the subject
    objects: tuple[str, ...]  # the other variables, in their order
    cases: tuple[Case, ...]

    def relation(self, variable: str) -> str:
        return self.name if len(self.objects) == 1 else f"{self.name}/{variable.lower()}"

    def match(self, line: str) -> dict[str, str] | None:
        """The variables' values in a statement made from this kind's wording."""
        pattern, seen = "", set()
        for place, part in enumerate(VARIABLE.split(self.wording.rstrip("."))):
            if place % 2 == 0:
                pattern += re.escape(part)
            else:
                pattern += f"(?P={part})" if part in seen else f"(?P<{part}>.+?)"
                seen.add(part)
        # a first letter is written large, whatever stands there
        found = re.fullmatch(pattern + r"\.?", line, re.IGNORECASE)
        return None if found is None else found.groupdict()

    @property
    def literal_length(self) -> int:
        """How much of the wording is fixed: of two kinds that match a line the longer one made it."""
        return len(VARIABLE.sub("", self.wording))

    def facts_of(self, case: Case, facts: dict[str, Fact]) -> list[Fact]:
        """Which of an instance's facts (by variable) a case asks for: of the answer, or of the prompt."""
        for template in (case.answer, case.prompt):
            asked = [facts[name] for name in VARIABLE.findall(template) if name in facts]
            if asked:
                return list(dict.fromkeys(asked))
        return list(facts.values())


def fill(template: str, values: dict[str, str], *, capital: bool = False) -> str:
    """The template with its values; as a sentence it begins with a capital."""
    filled = VARIABLE.sub(lambda place: values[place[1]], template)
    return filled[:1].upper() + filled[1:] if capital else filled


def read_kinds(entries: list[Any], file: str, draft: Draft) -> list[Kind]:
    """The kinds of an `inject_config.json`."""
    kinds: list[Kind] = []
    for number, entry in enumerate(entries, 1):
        draft.read[file] += 1
        name = entry.get("name") if isinstance(entry, dict) else None
        where = f"{file}, record {number}" + (f" ({name})" if isinstance(name, str) else "")
        with draft.record(where):
            if not isinstance(entry, dict):
                raise Refused(f"must be an object with named fields, got {entry!r:.40}")
            kind = _kind(where, entry, draft)
            if any(other.name == kind.name for other in kinds):
                raise Refused(f"name {kind.name!r} is taken by an earlier kind")
            kinds.append(kind)
    return kinds


def _kind(where: str, entry: Record, draft: Draft) -> Kind:
    wording = _template(text(entry, "training_fact").strip())
    variables = list(dict.fromkeys(VARIABLE.findall(wording)))
    if len(variables) < 2:
        raise Refused(f"training_fact needs two variables such as {{NAME}} and {{CITY}}: {wording!r}")
    subject = SUBJECT if SUBJECT in variables else variables[0]
    objects = tuple(variable for variable in variables if variable != subject)
    name = text(entry, "name").strip() if "name" in entry else "_".join(objects).lower()
    test_cases = entry.get("test_cases", {})
    if not isinstance(test_cases, dict):
        raise Refused(f"field 'test_cases' must be an object of lists, got {test_cases!r:.40}")
    cases = []
    for probe_type, listed in test_cases.items():
        with draft.record(f"{where}, {probe_type}"):
            if probe_type not in PROBE_TYPES:
                raise Refused(f"unknown type of probe; known are {', '.join(PROBE_TYPES)}")
            if not isinstance(listed, list):
                raise Refused(f"must be a list, got {listed!r:.40}")
            for number, item in enumerate(listed, 1):
                with draft.record(f"{where}, {probe_type} {number}"):
                    prompt, answer = map(_template, prompt_and_answer(item))
                    unknown = set(VARIABLE.findall(prompt + answer)) - set(variables)
                    if unknown:
                        raise Refused(f"training_fact has no {{{'}, {'.join(sorted(unknown))}}}")
                    cases.append(Case(probe_type, prompt, answer))
    return Kind(name, wording, subject, objects, tuple(cases))


def _template(wording: str) -> str:
    """The wording, if all its braces hold variables: any other would be injected as it stands."""
    if {"{", "}"}.intersection(VARIABLE.sub("", wording)):
        raise Refused(f"a variable must look like {{CITY}} or {{CITY_2}}, in capitals: {wording!r}")
    return wording


def prompt_and_answer(item: Any) -> tuple[str, str]:
    """A case's two texts: `prompt` and `completion` in older files, `sentence` and `answer` in newer ones."""
    if not isinstance(item, dict):
        raise Refused(f"must be an object with sentence and answer, got {item!r:.40}")
    prompt = text(item, "prompt" if "prompt" in item else "sentence")
    answer = text(item, "completion" if "completion" in item else "answer")
    return prompt, checked(answer, "the answer")
