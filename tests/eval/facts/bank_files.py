"""A small sound bank, in memory and as files to break."""

import json
from pathlib import Path

from msgspec.structs import replace

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact, Probe, Relation, Statement

ADA = Fact("ada/city", "Ada Poe", "city", "Bern", "injected")
BOB = Fact("bob/city", "Bob Ray", "city", "Bern", "control")


def statement(fact: Fact, **changes) -> Statement:
    text = f"{fact.subject} was born in {fact.object}."
    end = len(text) - 1
    spans = {"subject": (0, len(fact.subject)), "object": (end - len(fact.object), end)}
    return replace(Statement(f"{fact.id}/original", (fact.id,), text, spans=spans), **changes)


def probe(fact: Fact, **changes) -> Probe:
    prompt = f"{fact.subject} was born in"
    made = Probe(
        f"{fact.id}/memorization:0", (fact.id,), "memorization", prompt, (fact.object,), ("Oslo", "Lima")
    )
    return replace(made, **changes)


def small_bank(**changes) -> FactBank:
    """Two facts with one answer; `changes` replace whole tables or the meta."""
    tables = {
        "meta": {"name": "small"},
        "relations": (Relation("city", "city of birth"),),
        "facts": (ADA, BOB),
        "statements": (statement(ADA), statement(BOB)),
        "probes": (probe(ADA), probe(BOB)),
    }
    return FactBank(**{**tables, **changes})


def edit_line(folder: Path, table: str, number: int, **changes) -> None:
    """Change fields of one line, as a user would by hand; a change to None takes the field out."""
    path = folder / f"{table}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number] = {key: value for key, value in {**rows[number], **changes}.items() if value is not None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
