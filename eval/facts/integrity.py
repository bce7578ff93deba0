"""The validator's errors: what makes a bank unusable. Its warnings are in `warnings.py`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tidy_stlms.configs.errors import did_you_mean, shown
from tidy_stlms.eval.facts.bank import TABLES, FactBank
from tidy_stlms.eval.facts.records import (
    CARDINALITIES,
    FORM,
    JOINTS,
    PROBE_TYPES,
    ROLES,
    STATEMENT_KINDS,
    Probe,
    Statement,
)
from tidy_stlms.eval.facts.right_answers import RightAnswers, names_of
from tidy_stlms.eval.facts.text_match import folded, folded_all


@dataclass(frozen=True)
class Finding:
    """An error or a warning of the validator."""

    level: Literal["error", "warning"]
    code: str
    file: str
    """The file of the bank that holds the mistake, such as probes.jsonl."""
    ids: tuple[str, ...]
    """The ids of the records with the mistake; none for bank.json."""
    problem: str

    @property
    def message(self) -> str:
        """The file, the first id and the problem, in one line."""
        first_id = f" {self.ids[0]!r}:" if self.ids else ""
        return f"{self.file}:{first_id} {self.problem}"


def integrity_errors(bank: FactBank) -> list[Finding]:
    """All errors of the bank, each with the file and the record."""
    checks = (_arms, _values, _duplicate_ids, _dangling_ids, _wrong_spans, _answers)
    return [error for check in checks for error in check(bank)]


def _error(code: str, table: str, record: Any, problem: str) -> Finding:
    return Finding("error", code, f"{table}.jsonl", (record.id,), problem)


def _arms(bank: FactBank) -> Iterator[Finding]:
    """`arms` in bank.json must give exposures, because training reads them there."""
    arms = bank.meta.get("arms", {})
    if not isinstance(arms, dict):
        problem = f"arms must look like {{'once': {{'exposures': 1}}}}, got {shown(arms)}"
        yield Finding("error", "schema", "bank.json", (), problem)
        return
    for name, arm in arms.items():
        exposures = arm.get("exposures") if isinstance(arm, dict) else None
        if type(exposures) is not int or exposures < 0:
            problem = (
                f"arms.{name} must look like {{'exposures': 1}}, a whole number from 0, got {shown(arm)}"
            )
            yield Finding("error", "schema", "bank.json", (), problem)


def _values(bank: FactBank) -> Iterator[Finding]:
    """Fields with a fixed set of values, and lists that must not be empty."""
    fields = (
        ("relations", "cardinality", CARDINALITIES),
        ("facts", "role", ROLES),
        ("statements", "kind", STATEMENT_KINDS),
        ("probes", "type", PROBE_TYPES),
    )
    for table, name, allowed in fields:
        for record in getattr(bank, table):
            value = getattr(record, name)
            if value not in allowed:
                hint = did_you_mean(value, allowed) or f", must be one of {', '.join(allowed)}"
                yield _error("schema", table, record, f"unknown {name} {value!r}{hint}")
    for statement in bank.statements:
        if not FORM.fullmatch(statement.form):
            problem = f"form {statement.form!r} must be original, paraphrase:1, paraphrase:2, ... or reverse"
            yield _error("schema", "statements", statement, problem)
        if not statement.text.strip():
            yield _error("schema", "statements", statement, "text is empty")
    for probe in bank.probes:
        if probe.joint not in JOINTS:
            problem = f'joint {probe.joint!r} must be "" or " "; move anything else to the prompt'
            yield _error("schema", "probes", probe, problem)
    for table in ("statements", "probes"):
        for record in getattr(bank, table):
            if not record.fact_ids:
                yield _error("schema", table, record, "fact_ids is empty; name at least one fact")


def _duplicate_ids(bank: FactBank) -> Iterator[Finding]:
    for table in TABLES:
        records = getattr(bank, table)
        counts = Counter(record.id for record in records)
        if len(counts) < len(records):
            for record_id, count in counts.items():
                if count > 1:
                    problem = f"{count} lines have this id; give each its own"
                    yield Finding("error", "duplicate_id", f"{table}.jsonl", (record_id,), problem)


def _dangling_ids(bank: FactBank) -> Iterator[Finding]:
    relations = {relation.id for relation in bank.relations}
    for relation in bank.relations:
        if relation.inverse is not None and relation.inverse not in relations:
            problem = f"inverse {relation.inverse!r} is not in relations.jsonl"
            yield _error("dangling_id", "relations", relation, problem)
    for fact in bank.facts:
        if fact.relation is not None and fact.relation not in relations:
            problem = f"relation {fact.relation!r} is not in relations.jsonl"
            yield _error("dangling_id", "facts", fact, problem)
        if fact.counterfactual_of is not None and fact.counterfactual_of not in bank.fact_by_id:
            problem = f"counterfactual_of {fact.counterfactual_of!r} is not in facts.jsonl"
            yield _error("dangling_id", "facts", fact, problem)
    for table in ("statements", "probes"):
        for record in getattr(bank, table):
            for fact_id in record.fact_ids:
                if fact_id not in bank.fact_by_id:
                    problem = f"fact {fact_id!r} is not in facts.jsonl"
                    yield _error("dangling_id", table, record, problem)


def _wrong_spans(bank: FactBank) -> Iterator[Finding]:
    for statement in bank.statements:
        for name, (start, end) in statement.spans.items():
            expected = _texts_of_span(bank, statement, name)
            inside = 0 <= start < end <= len(statement.text)
            if expected is None:
                problem = (
                    f"span {name!r} must be subject, object or object:FACT with one of the statement's facts"
                )
                yield _error("wrong_span", "statements", statement, problem)
            elif not inside or statement.text[start:end] not in expected:
                what = name.partition(":")[0]
                points_at = repr(statement.text[start:end]) if inside else "nothing"
                problem = f"the {what}'s span [{start}, {end}] points at {points_at}, not at the {what}"
                yield _error("wrong_span", "statements", statement, problem)


def _texts_of_span(bank: FactBank, statement: Statement, name: str) -> set[str | None] | None:
    """The texts that a span of this name may mark; None if the statement cannot have such a span."""
    facts = [bank.fact_by_id[fact_id] for fact_id in statement.fact_ids if fact_id in bank.fact_by_id]
    if name == "subject":
        return {fact.subject for fact in facts}
    what, colon, fact_id = name.partition(":")
    marked = [fact for fact in facts if not colon or fact.id == fact_id]
    return {text for fact in marked for text in names_of(fact)} if what == "object" and marked else None


def _answers(bank: FactBank) -> Iterator[Finding]:
    right_answers = RightAnswers(bank)
    for probe in bank.probes:
        if not probe.answers or not all(answer.strip() for answer in probe.answers):
            yield _error("no_answer", "probes", probe, "an answer is missing or empty")
        else:
            yield from _distractors(probe, right_answers)


def _distractors(probe: Probe, right_answers: RightAnswers) -> Iterator[Finding]:
    counts = Counter(map(str.strip, probe.distractors))
    if counts[""]:
        yield _error("distractor", "probes", probe, "a distractor is empty; remove it")
    for distractor, count in counts.items():
        if count > 1:
            problem = f"the distractor {distractor!r} stands there {count} times; chance would be wrong"
            yield _error("distractor", "probes", probe, problem)
    answers = {folded(answer.strip()) for answer in probe.answers}
    also_right = right_answers.stated(probe)
    for distractor, name in zip(counts, folded_all(tuple(counts)), strict=True):
        if name in answers:
            problem = f"the answer {distractor!r} is among its own distractors"
            yield _error("answer_in_distractors", "probes", probe, problem)
        elif name in also_right:
            problem = f"the distractor {distractor!r} is right as well, by facts.jsonl"
            yield _error("answer_in_distractors", "probes", probe, problem)
