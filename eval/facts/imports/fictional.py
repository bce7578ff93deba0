"""Fictional Knowledge: invented passages with cloze probes (Chang et al. 2024, arXiv:2406.11813).

A record has a passage (`train_context`), its `paraphrases`, and three lists of prompts with their targets:
prompts in the words of the passage (`mem_input`, `mem_target`), prompts in other words (`gen_*`), and prompts
that need several sentences of the passage (`hard_gen_*`, "compositional generalisation" in the paper).
"""

from collections.abc import Iterable

from tidy_stlms.configs.errors import shown
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.source_files import Row, checked_text, text_field, text_list
from tidy_stlms.eval.facts.records import Fact

FICTIONAL_LICENSE = "apache-2.0"
TYPES = {"mem": "memorization", "gen": "semantic", "hard_gen": "compositional"}
FIELDS = (
    "train_context",
    "paraphrases",
    *(f"{prefix}_{end}" for prefix in TYPES for end in ("input", "target")),
)
MAPPED = (
    "train_context -> a passage (original), paraphrases -> the same passage (paraphrase:1, 2, ...)",
    "mem_target, gen_target, hard_gen_target -> facts without subject or relation, told by all of the "
    "passage's wordings; a gen_target equal to the mem_target of its place is the same fact",
    "mem_input -> memorization, gen_input -> semantic, hard_gen_input -> compositional; the source has no "
    "distractors",
)


def import_fictional(rows: Iterable[tuple[str, Row]], builder: BankBuilder, role: str) -> None:
    builder.mapped += MAPPED
    builder.fields_taken.update(FIELDS)
    for number, (where, row) in enumerate(rows):
        with builder.record(where):
            _passage(where, f"passage-{number}", row, builder, role)


def _passage(where: str, id: str, row: Row, builder: BankBuilder, role: str) -> None:
    wordings = [text_field(row, "train_context")]
    if "paraphrases" in row:
        wordings += text_list(row, "paraphrases", optional=True)
    facts: dict[str, Fact] = {}
    for prefix, probe_type in TYPES.items():
        with builder.record(f"{where}, {prefix}_input"):
            for index, (prompt, target) in enumerate(_pairs(row, prefix)):
                with builder.record(f"{where}, {prefix}_input {index + 1}"):
                    answer = checked_text(target, f"{prefix}_target").strip()
                    fact = _fact_of(id, prefix, index, answer, facts, builder, role)
                    builder.add_probe(
                        where, [fact], probe_type, checked_text(prompt, f"{prefix}_input"), [answer]
                    )
                    facts[fact.id] = fact
    if not facts:
        raise Refused("no probe of it could be taken")
    for number, wording in enumerate(wordings):
        builder.add_statement(list(facts.values()), wording.strip(), kind="passage", paraphrase=number)


def _pairs(row: Row, prefix: str) -> list[tuple[str, str]]:
    prompts = _list(row, f"{prefix}_input")
    targets = _list(row, f"{prefix}_target")
    if len(prompts) != len(targets):
        # nobody knows which prompt belongs to which target
        raise Refused(f"{prefix}_input has {len(prompts)} entries, {prefix}_target {len(targets)}")
    return list(zip(prompts, targets, strict=True))


def _list(row: Row, name: str) -> list[str]:
    """A list of texts. Its texts are checked later, so that a broken text costs only one probe."""
    value = row.get(name)
    if value is None:
        raise Refused(f"field {name!r} is missing")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refused(f"field {name!r} must be a list of texts, got {shown(value)}")
    return value


def _fact_of(
    id: str, prefix: str, index: int, answer: str, facts: dict[str, Fact], builder: BankBuilder, role: str
) -> Fact:
    memorized = facts.get(f"{id}/mem-{index}")
    if prefix == "gen" and memorized is not None and memorized.object == answer:
        return memorized
    return builder.add_fact(f"{id}/{prefix}-{index}", None, None, answer, role)
