"""Real facts from a file: neighbours of the injected ones that should stay as they are, and known facts.

A line is `{"subject", "relation", "object", "prompts": [...]}`, and if wanted `object_aliases` and
`distractors`. A prompt ends where the object would begin. They are asked as `locality` and never trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.files import find_shipped, read_jsonl
from eval.facts.bank import Fact, Probe
from eval.facts.pools import rng
from eval.facts.rows import from_row


@dataclass(frozen=True, slots=True)
class RealFact:
    """A line of the file."""

    subject: str
    relation: str
    object: str
    prompts: tuple[str, ...]
    object_aliases: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()


def read_real_facts(path: str | Path) -> list[RealFact]:
    """Read a file of real facts; UserError naming file and line for what is missing or of another type."""
    rows = read_jsonl(find_shipped(path))
    if not rows:
        raise UserError(f"{path}: holds no facts")
    found = [from_row(RealFact, row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    for number, fact in enumerate(found, 1):
        if not fact.prompts:
            raise UserError(f"{path}: row {number}: field 'prompts' is empty; write at least one")
    return found


def real_facts(
    rows: list[RealFact], role: str, distractors: int, seed: int
) -> Iterator[tuple[Fact, list[Probe]]]:
    """The facts with their probes.

    Where a line names no distractors, they are objects of other lines of its relation that are not right
    for its subject too, `distractors` of them or all there are.
    """
    right: dict[tuple[str, str], set[str]] = {}
    objects: dict[str, dict[str, None]] = {}
    for row in rows:
        own = right.setdefault((row.subject, row.relation), set())
        own.update(text.casefold() for text in (row.object, *row.object_aliases))
        objects.setdefault(row.relation, {})[row.object] = None
    for number, row in enumerate(rows, 1):
        fact = Fact(f"{role}/{number}", row.subject, row.relation, row.object, role, row.object_aliases)
        own = right[row.subject, row.relation]
        others = [
            text
            for text in sorted(objects[row.relation])
            if text.casefold() not in own and not text.casefold().startswith(row.object.casefold())
        ]
        probes = []
        for index, prompt in enumerate(row.prompts):
            probe_id = f"{fact.id}/locality:{index}"
            drawn = rng(seed, probe_id).sample(others, min(distractors, len(others)))
            offered = row.distractors or tuple(drawn)
            probes.append(Probe(probe_id, (fact.id,), "locality", prompt, (row.object,), offered))
        yield fact, probes
