"""Real facts from a file: neighbours of the injected ones that should stay as they are, and known facts.

A line is `{"subject", "relation", "object", "prompts": [...]}`, and if wanted `object_aliases`,
`distractors` and `joint`. A prompt ends where the object would begin, and `joint`, " " or "", stands between
the two; left out, it is what is usual there (`usual_joint`). They are asked as `locality` and never trained.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import find_shipped
from tidy_stlms.configs.records import Record, read_records
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.answers import rng
from tidy_stlms.eval.facts.records import Fact, Probe, Relation
from tidy_stlms.eval.facts.text_match import folded, folded_all, usual_joint
from tidy_stlms.eval.facts.warnings import validate


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

    UserError naming file and row for what is missing or of another type, and for whatever the validator
    finds.
    """
    rows = read_records(find_shipped(path), RealFact)
    if not rows:
        raise UserError(f"{path}: holds no facts")
    first: dict[tuple[str, str, str], int] = {}
    for number, row in enumerate(rows, 1):
        if not row.prompts:
            raise UserError(f"{path}: row {number}: field 'prompts' is empty; write at least one")
        told = first.setdefault((row.subject, row.relation, row.object), number)
        if told < number:
            raise UserError(f"{path}: row {number}: is the fact of row {told}; put their prompts together")
    bank = real_facts(rows, role, distractors, seed)
    if findings := validate(bank):
        number = int(findings[0].ids[0].split("/")[1])
        raise UserError(f"{path}: row {number}: {findings[0].message.split(': ', 2)[2]}")
    return bank


def real_facts(rows: Sequence[RealFact], role: str, distractors: int, seed: int) -> FactBank:
    """The facts with their probes; a relation of which a subject has several objects is `many`.

    Where a line names no distractors, they are objects of other lines of its relation that are not right
    for its subject too, `distractors` of them or all there are.
    """
    right: dict[tuple[str, str], set[str]] = defaultdict(set)
    objects: dict[str, set[str]] = defaultdict(set)
    several: set[str] = set()
    for row in rows:
        own = right[row.subject, row.relation]
        if own:
            several.add(row.relation)
        own.update(folded_all((row.object, *row.object_aliases)))
        objects[row.relation].add(row.object)
    facts, probes = [], []
    for number, row in enumerate(rows, 1):
        fact = Fact(f"{role}/{number}", row.subject, row.relation, row.object, role, row.object_aliases)
        own = right[row.subject, row.relation]
        others = [
            text
            for text in sorted(objects[row.relation])
            if folded(text) not in own and not folded(text).startswith(folded(row.object))
        ]
        facts.append(fact)
        for index, prompt in enumerate(row.prompts):
            probe_id = f"{fact.id}/locality:{index}"
            drawn = rng(seed, probe_id).sample(others, min(distractors, len(others)))
            offered = row.distractors or tuple(drawn)
            joint = usual_joint(prompt, row.object) if row.joint is None else row.joint
            probes.append(
                Probe(probe_id, (fact.id,), "locality", prompt, (row.object,), offered, joint=joint)
            )
    relations = [
        Relation(name, name, cardinality="many" if name in several else "one") for name in sorted(objects)
    ]
    return FactBank({}, relations, facts, (), probes)
