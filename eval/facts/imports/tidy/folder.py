"""Tidy-STLMs' files: templates of facts, injected sentences, test cases, watched prompts.

    inject_config.json                  templates with variables (JSON5), see `templates.py`
    inject_data.txt                     injected sentences, a line each, see `sentences.py`
    test_cases_answers*.json, .txt      test cases, see `cases.py`

Sentences become statements, and test cases become probes. Templates beside them only give their relations and
types. Sentences without test cases get the test cases of their templates. Templates alone are filled with
invented people, see `values.py`.
"""

import re
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.recognise import refuse_document, refuse_other_text
from tidy_stlms.eval.facts.imports.source_files import checked_text, parse_json5, read_lossy
from tidy_stlms.eval.facts.imports.tidy.cases import CASE_KEYS, JSON, YAML, TestCase, add_probe, read_cases
from tidy_stlms.eval.facts.imports.tidy.sentences import (
    add_filled,
    add_sentences,
    add_template_probes,
    read_sentences,
)
from tidy_stlms.eval.facts.imports.tidy.templates import (
    SUBJECT,
    TEMPLATE_KEYS,
    FactTemplate,
    fill,
    read_templates,
)
from tidy_stlms.eval.facts.imports.tidy.values import draw_values, known_variables

TEMPLATES = ("inject_config.json", "insert_config.json")
SENTENCES = ("inject_data.txt", "injected_data.txt", "insert_data.txt")
# Endings of a file that is given alone. Its content decides what it is.
ENDINGS = ("", ".txt", *JSON, *YAML)
CASES = tuple(f"test_cases_answers{kind}" for kind in ("_by_type.json", ".json", "_by_type.txt", ".txt"))


def import_tidy(
    source: Path, builder: BankBuilder, role: str | None, *, people: int, control: int, seed: int
) -> None:
    """Import a folder or a single file. `people`, `control` and `seed` are for templates alone.

    Without a `role`, facts of sentences are injected, and facts of test cases without sentences are known.
    Templates alone make injected and control people.
    """
    builder.fields_taken.update(CASE_KEYS, TEMPLATE_KEYS)
    files = _files(source, builder)
    templates = _templates(files["templates"], builder) if "templates" in files else []
    sentences = read_sentences(files["sentences"], builder) if "sentences" in files else []
    cases = list(read_cases(files["cases"], builder)) if "cases" in files else []
    if sentences:
        add_sentences(sentences, templates, cases, builder, role or "injected")
    elif templates and not cases:
        if role is not None:
            raise UserError(f"--role {role}: bare templates make injected and control people; leave it out")
        _add_invented_people(templates, builder, people, control, seed)
    else:
        if templates:
            reason = (
                "not used: the test cases are filled, and no sentences are there for these templates to match"
            )
            builder.leave_out(files["templates"].name, f"{reason}; give it by itself to have it filled")
        _add_cases_alone(cases, builder, role or "known")


def _files(source: Path, builder: BankBuilder) -> dict[str, Path]:
    """The files by content. If several have the same content, the first in the order of names above."""
    if source.is_file():
        refuse_document(source, builder.format)
        return {_content_of(source, builder.format): source}
    files: dict[str, Path] = {}
    for content, names in (("templates", TEMPLATES), ("sentences", SENTENCES), ("cases", CASES)):
        present = [source / name for name in names if (source / name).is_file()]
        if present:
            files[content] = present[0]
        for path in present[1:]:
            builder.leave_out(path.name, f"not read: {present[0].name} is taken for the same content")
    if not files:
        known = ", ".join((*TEMPLATES[:1], *SENTENCES[:1], *CASES[:1]))
        raise UserError(
            f"{source}: no file of Tidy-STLMs there, such as {known}; give the folder or one file"
        )
    unread = {path.name for path in source.iterdir() if path.is_file()} - {p.name for p in files.values()}
    for name in sorted(unread - {where for where, _ in builder.left_out}):
        builder.leave_out(
            name, "not read: not one of Tidy-STLMs' names for facts; give it by itself if it is one"
        )
    for path in files.values():
        refuse_document(path, builder.format)
    return files


def _content_of(path: Path, format: str) -> str:
    """What a single file holds, by its ending and its text: `templates`, `sentences` or `cases`."""
    suffix, content = path.suffix.lower(), read_lossy(path)
    if suffix not in ENDINGS:
        refuse_other_text(path, [line for line in content.split("\n") if line.strip()], format)
        raise UserError(
            f"{path}: `{format}` reads files that end in {', '.join(ENDINGS[1:])}, or "
            "have no ending; rename it to .txt for one sentence a line; import records as csv or jsonl"
        )
    if suffix in YAML:
        return "cases"
    if suffix in JSON:
        return "templates" if re.search(r"""["']?training_fact["']?\s*:""", content) else "cases"
    return "cases" if re.search(r"^\s*-\s*(sentence|prompt):", content, re.MULTILINE) else "sentences"


def _templates(path: Path, builder: BankBuilder) -> list[FactTemplate]:
    value = parse_json5(path)
    if not isinstance(value, list):
        raise UserError(f"{path}: must be a list of kinds of fact with training_fact and test_cases")
    return read_templates(value, path.name, builder)


def _add_invented_people(
    templates: list[FactTemplate], builder: BankBuilder, people: int, control: int, seed: int
) -> None:
    usable, known = [], {SUBJECT, *known_variables()}
    for template in templates:
        with builder.record(f"kind {template.name}"):
            if unknown := {template.subject, *template.objects} - known:
                raise Refused(
                    f"no values are known for {{{'}, {'.join(sorted(unknown))}}}; give the filled sentences, "
                    f"or use {', '.join(sorted(known))}"
                )
            usable.append(template)
    if not usable:
        return
    variables = {variable for template in usable for variable in (template.subject, *template.objects)}
    for role, values_of_people in draw_values(variables, people, control, seed).items():
        for number, values in enumerate(values_of_people):
            for template in usable:
                line = fill(template.wording, values, capital=True)
                filled = add_filled(line, template, values, f"{role}-{number}", builder, role)
                add_template_probes(filled, builder)
    builder.mapped += [
        f"each template, filled for {people} injected and {control} control people (seed {seed}) -> a "
        "statement, and a fact for each variable but the subject",
        "test_cases -> probes of the type they stand under",
    ]


def _add_cases_alone(cases: list[TestCase], builder: BankBuilder, role: str) -> None:
    where_of: dict[tuple, str] = {}
    for number, case in enumerate(cases):
        with builder.record(case.where):
            first = where_of.setdefault((case.type, case.prompt, case.answer), case.where)
            if first != case.where:
                raise Refused(f"the same as {first}")
            answer = checked_text(case.answer, "the answer").strip()
            fact = builder.add_fact(f"prompt-{number}", None, None, answer, role)
            add_probe(case, [fact], case.type or "memorization", builder)
    builder.mapped.append(
        f"sentence, answer -> a probe of a fact of role {role}, since no sentence is given that could be "
        "injected; of type memorization where no type is given"
    )
