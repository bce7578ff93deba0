"""What makes a bank unusable: the error level of validation. The warnings are in `validate.py`."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tidy_stlms.configs.errors import did_you_mean
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import (
    CARDINALITIES,
    FORM,
    JOINTS,
    PROBE_TYPES,
    ROLES,
    STATEMENT_KINDS,
    Fact,
    Probe,
)
from tidy_stlms.eval.facts.text_match import folded, folded_all


@dataclass(frozen=True)
class Finding:
    """Something the validator found. The message begins with the file and the id."""

    level: Literal["error", "warning"]
    code: str
    ids: tuple[str, ...]
    message: str


def integrity_errors(bank: FactBank) -> list[Finding]:
    checks = (_arms, _values, _duplicate_ids, _dangling_ids, _wrong_spans, _answers)
    return [finding for check in checks for finding in check(bank)]


def _error(code: str, table: str, record: Any, message: str) -> Finding:
    return Finding("error", code, (record.id,), f"{table}.jsonl: {record.id!r}: {message}")


def _arms(bank: FactBank) -> Iterator[Finding]:
    """`arms` in bank.json, from which training takes exposures."""
    arms = bank.meta.get("arms", {})
    if not isinstance(arms, dict):
        problem = f"arms must look like {{'once': {{'exposures': 1}}}}, got {arms!r:.40}"
        yield Finding("error", "schema", (), f"bank.json: {problem}")
        return
    for name, arm in arms.items():
        exposures = arm.get("exposures") if isinstance(arm, dict) else None
        if type(exposures) is not int or exposures < 0:
            problem = f"arms.{name} must look like {{'exposures': 1}}, a whole number from 0, got {arm!r:.40}"
            yield Finding("error", "schema", (name,), f"bank.json: {problem}")


def _values(bank: FactBank) -> Iterator[Finding]:
    """Fields that take one of a few words, and lists that may not be empty."""
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
    for table in ("relations", "facts", "statements", "probes"):
        records = getattr(bank, table)
        counts = Counter(record.id for record in records)
        if len(counts) < len(records):
            for record_id, count in counts.items():
                if count > 1:
                    message = f"{table}.jsonl: {record_id!r}: {count} lines have this id; give each its own"
                    yield Finding("error", "duplicate_id", (record_id,), message)


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
        facts = [bank.fact_by_id[fact_id] for fact_id in statement.fact_ids if fact_id in bank.fact_by_id]
        for name, (start, end) in statement.spans.items():
            place, colon, fact_id = name.partition(":")
            told = [fact for fact in facts if not colon or fact.id == fact_id]
            if name == "subject":
                expected = {fact.subject for fact in facts}
            elif place == "object" and told:
                expected = {text for fact in told for text in (fact.object, *fact.object_aliases)}
            else:
                problem = (
                    f"span {name!r} must be subject, object or object:FACT with one of the statement's facts"
                )
                yield _error("wrong_span", "statements", statement, problem)
                continue
            inside = 0 <= start < end <= len(statement.text)
            if not inside or statement.text[start:end] not in expected:
                points_at = repr(statement.text[start:end]) if inside else "nothing"
                problem = f"the {place}'s span [{start}, {end}] points at {points_at}, not at the {place}"
                yield _error("wrong_span", "statements", statement, problem)


def _answers(bank: FactBank) -> Iterator[Finding]:
    right = _right_objects(bank)
    for probe in bank.probes:
        if not probe.answers or not all(answer.strip() for answer in probe.answers):
            yield _error("no_answer", "probes", probe, "an answer is missing or empty")
            continue
        counts = Counter(map(str.strip, probe.distractors))
        if counts[""]:
            yield _error("distractor", "probes", probe, "a distractor is empty; remove it")
        for distractor, count in counts.items():
            if count > 1:
                problem = f"the distractor {distractor!r} stands there {count} times; chance would be wrong"
                yield _error("distractor", "probes", probe, problem)
        answers = {folded(answer.strip()) for answer in probe.answers}
        also_right = right(probe)
        for distractor, name in zip(counts, folded_all(tuple(counts)), strict=True):
            if name in answers:
                problem = f"the answer {distractor!r} is among its own distractors"
                yield _error("answer_in_distractors", "probes", probe, problem)
            elif name in also_right:
                problem = f"the distractor {distractor!r} is right as well, by facts.jsonl"
                yield _error("answer_in_distractors", "probes", probe, problem)


def _right_objects(bank: FactBank) -> Callable[[Probe], set[str]]:
    """What else is right, folded, where a probe asks for an object: its aliases and, if the relation is
    `many`, the subject's other objects. A counterfactual and its original exclude each other."""
    many = {relation.id for relation in bank.relations if relation.cardinality == "many"}
    together: dict[tuple[str | None, str | None], list[Fact]] = defaultdict(list)
    for fact in bank.facts:
        if fact.relation in many and fact.subject is not None and fact.counterfactual_of is None:
            together[fact.subject, fact.relation].append(fact)

    def right(probe: Probe) -> set[str]:
        asked, found = folded(probe.answers[0].strip()), set[str]()
        for fact in (bank.fact_by_id[fact_id] for fact_id in probe.fact_ids if fact_id in bank.fact_by_id):
            own = names_of(fact)
            if asked in own:
                found |= own
                if fact.counterfactual_of is None:
                    found = found.union(*map(names_of, together.get((fact.subject, fact.relation), ())))
        return found

    return right


def names_of(fact: Fact) -> set[str]:
    """A fact's object and its aliases, folded: whatever names the right answer."""
    return {folded(name.strip()) for name in (fact.object, *fact.object_aliases)}
