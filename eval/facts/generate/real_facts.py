"""Real facts from a file: neighbours of the injected ones that should stay as they are, and known facts.

A line is `{"subject", "relation", "object", "prompts": [...]}`, and if wanted `object_aliases`,
`distractors` and `joint`. A prompt ends where the object would begin. `joint`, " " or "", stands between the
two; without it, the usual one does (`usual_joint`). The probes are of type `locality`. Nothing is trained.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import find_shipped
from tidy_stlms.configs.records import Record, read_records
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.records import Fact, Probe, Relation
from tidy_stlms.eval.facts.text_match import folded, folded_all, usual_joint
from tidy_stlms.eval.facts.validate import validate


class RealFact(Record, frozen=True):
    """A line of the file."""

    subject: str
    relation: str
    object: str
    prompts: tuple[str, ...]
    object_aliases: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    joint: str | None = None


def read_real_facts(path: str | Path, role: str, distractors: int, seed: int) -> FactBank:
    """The facts of a file, in `role`, and their probes.

    UserError, naming file and row, for a missing field, for one of another type, and for whatever the
    validator finds.
    """
    rows = read_records(find_shipped(path), RealFact, by_hand=True)
    if not rows:
        raise UserError(f"{path}: holds no facts")
    first_rows: dict[tuple[str, str, str], int] = {}
    for number, row in enumerate(rows, 1):
        if not row.prompts:
            raise UserError(f"{path}: row {number}: field 'prompts' is empty; write at least one")
        first_row = first_rows.setdefault((row.subject, row.relation, row.object), number)
        if first_row < number:
            raise UserError(
                f"{path}: row {number}: is the fact of row {first_row}; put their prompts together"
            )
    bank = real_facts(rows, role, distractors, seed)
    if findings := validate(bank, guessers=False):
        numbers = {fact.id: number for number, fact in enumerate(bank.facts, 1)}
        numbers |= {probe.id: numbers[probe.fact_ids[0]] for probe in bank.probes}
        raise UserError(f"{path}: row {numbers[findings[0].ids[0]]}: {findings[0].problem}")
    return bank


def real_facts(rows: Sequence[RealFact], role: str, distractors: int, seed: int) -> FactBank:
    """The facts with their probes; a relation of which a subject has several objects is `many`.

    Where a line names no distractors, they are objects of other lines of its relation: `distractors` of them,
    or all there are. An object that is right for the line's subject too is never drawn.
    """
    right_objects: dict[tuple[str, str], set[str]] = defaultdict(set)  # folded, with their aliases
    objects: dict[str, set[str]] = defaultdict(set)
    several: set[str] = set()
    for row in rows:
        right = right_objects[row.subject, row.relation]
        if right:
            several.add(row.relation)
        right.update(folded_all((row.object, *row.object_aliases)))
        objects[row.relation].add(row.object)
    facts: list[Fact] = []
    probes: list[Probe] = []
    for number, row in enumerate(rows, 1):
        fact = Fact(
            id=f"{role}/{number}",
            subject=row.subject,
            relation=row.relation,
            object=row.object,
            role=role,
            object_aliases=row.object_aliases,
        )
        facts.append(fact)
        right = right_objects[row.subject, row.relation]
        wrong = [
            text
            for text in sorted(objects[row.relation])
            if folded(text) not in right and not folded(text).startswith(folded(row.object))
        ]
        probes += _locality_probes(fact, row, wrong, distractors, seed)
    relations = [
        Relation(id=name, label=name, cardinality="many" if name in several else "one")
        for name in sorted(objects)
    ]
    return FactBank(meta={}, relations=relations, facts=facts, statements=(), probes=probes)


def _locality_probes(
    fact: Fact, row: RealFact, wrong: list[str], distractors: int, seed: int
) -> Iterator[Probe]:
    for index, prompt in enumerate(row.prompts):
        probe_id = f"{fact.id}/locality:{index}"
        drawn = rng(seed, probe_id).sample(wrong, min(distractors, len(wrong)))
        yield Probe(
            id=probe_id,
            fact_ids=(fact.id,),
            type="locality",
            prompt=prompt,
            answers=(row.object,),
            distractors=row.distractors or tuple(drawn),
            joint=usual_joint(prompt, row.object) if row.joint is None else row.joint,
        )
