"""Plain tables, as CSV or JSON Lines. The user may map the names of their columns to ours.

A row is a fact with a statement, a probe, or both. More rows of the same fact (the same `id`, or the same
subject, relation and object) add statements and probes to it. Where there is a column for the subject, no row
may leave it empty: its answer would become a distractor of the others.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean, shown
from tidy_stlms.configs.files import parse_json
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused, listed
from tidy_stlms.eval.facts.imports.source_files import Row, checked_text
from tidy_stlms.eval.facts.records import PROBE_TYPES, ROLES, STATEMENT_KINDS, Fact
from tidy_stlms.eval.facts.text_match import ASCII_SPACES

COLUMNS = (
    "id", "subject", "relation", "object", "aliases", "role", "arm",
    "statement", "kind",
    "prompt", "joint", "answer", "type", "distractors", "suffix", "template",
)  # fmt: skip
LISTS = ("aliases", "answer", "distractors")
SEPARATOR = re.compile(r"(?<!<)\|(?!>)")  # a bar, except the bars of <|endoftext|>
# An empty cell of a CSV file means "not given", so the joint "" has a word, `none`.
JOINT_WORDS = {"none": "", "": "", "space": " ", " ": " "}


def import_table(
    rows: Iterable[tuple[str, Row]],
    builder: BankBuilder,
    role: str,
    columns: Mapping[str, str] | None = None,
) -> None:
    """Import rows. `columns` maps fields of `COLUMNS` to the source's names, where they differ."""
    names = {field: (columns or {}).get(field, field) for field in COLUMNS}
    for field in columns or {}:
        if field not in COLUMNS:
            hint = did_you_mean(field, COLUMNS) or f"; known: {', '.join(COLUMNS)}"
            raise UserError(f"--column {field}={(columns or {})[field]}: no such field {field!r}{hint}")
    builder.fields_taken.update(names.values())
    statements: dict[str, list[str]] = defaultdict(list)
    for where, row in rows:
        with builder.record(where):
            if names["subject"] in row and row[names["subject"]] is None:
                raise Refused(f"the subject (column {names['subject']!r}) is empty")
            _add_row(
                where, {field: row.get(name) for field, name in names.items()}, builder, role, statements
            )
    for field, name in (columns or {}).items():
        if builder.fields and name not in builder.fields:
            hint = did_you_mean(name, builder.fields) or f"; there are {listed(builder.fields)}"
            raise UserError(f"--column {field}={name}: no record has a column {name!r}{hint}")
    taken = [
        f"{name} -> {field}" if name != field else name
        for field, name in names.items()
        if name in builder.fields
    ]
    builder.mapped.append(f"columns {listed(taken) or 'none'}")


def _add_row(where: str, row: Row, builder: BankBuilder, role: str, statements: dict[str, list[str]]) -> None:
    values = {field: _value(row, field) for field in COLUMNS}
    answers = values["answer"] or ([values["object"]] if values["object"] else [])
    if not answers:
        raise Refused("needs an object or an answer, and has neither")
    wording, prompt = values["statement"], values["prompt"]
    if not wording and not prompt:
        raise Refused("needs a statement or a prompt, and has neither")
    kind = _one_of(values["kind"] or "statement", STATEMENT_KINDS, "kind")
    trained_type = "trained_question" if kind == "qa" else "memorization"
    probe_type = _one_of(values["type"] or trained_type, PROBE_TYPES, "type")
    fact = _fact(values, answers[0], builder, role)
    if wording and wording not in statements[fact.id]:
        builder.add_statement([fact], wording, kind=kind, paraphrase=len(statements[fact.id]))
        statements[fact.id].append(wording)
    elif not prompt:
        raise Refused(f"an earlier record states {fact.id!r} in the very same way")
    if prompt:
        builder.add_probe(
            where,
            [fact],
            probe_type,
            prompt,
            answers,
            distractors=values["distractors"],
            suffix=values["suffix"] or "",
            template=values["template"],
            joint=values["joint"],
            before=_before_answer(values["template"]),
        )


def _fact(values: Row, answer: str, builder: BankBuilder, role: str) -> Fact:
    subject, relation, object = values["subject"], values["relation"], values["object"] or answer
    if relation:
        builder.add_relation(relation, relation)
    return builder.add_fact(
        values["id"] or " / ".join(part for part in (subject, relation, object) if part),
        subject,
        relation,
        object,
        _one_of(values["role"] or role, ROLES, "role"),
        aliases=values["aliases"],
        arm=values["arm"],
    )


def _value(row: Row, field: str) -> Any:
    """The field's text, or None; for `LISTS` a list, maybe empty."""
    value = row[field]
    if field in LISTS:
        return [checked_text(item, f"field {field!r}") for item in _list(value, field)]
    if value is None or (field == "suffix" and value == ""):
        return None
    if field == "joint":
        if not isinstance(value, str) or value not in JOINT_WORDS:
            raise Refused(f'field \'joint\' must be none, space, "" or " ", got {shown(value)}')
        return JOINT_WORDS[value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and field in ("id", "object"):
        value = str(value)
    if not isinstance(value, str):
        raise Refused(f"field {field!r} must be text, got {shown(value)}")
    value = checked_text(value, f"field {field!r}")
    if field == "suffix":  # no joint stands before it, so its spaces are needed
        return value
    # a prompt may end with « and a no-break space
    return value.strip(ASCII_SPACES) if field in ("prompt", "statement") else value.strip()


def _before_answer(template: str | None) -> str | None:
    """The template's text before {object}."""
    before, mark, _ = (template or "").partition("{object}")
    return before if mark else None


def _list(value: Any, field: str) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value, field)
        except UserError:
            raise Refused(f"field {field!r} begins with [ and is not a JSON list: {shown(value)}") from None
    if isinstance(value, str):
        return [part.strip() for part in SEPARATOR.split(value)]
    if value is None:
        return []
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [str(value)]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refused(f"field {field!r} must be text or a list of texts, got {shown(value)}")
    return value


def _one_of(value: str, allowed: tuple[str, ...], field: str) -> str:
    if value not in allowed:
        hint = did_you_mean(value, allowed) or f", must be one of {', '.join(allowed)}"
        raise Refused(f"unknown {field} {value!r}{hint}")
    return value
