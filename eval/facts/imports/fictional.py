"""Fictional Knowledge: invented passages with cloze probes (Chang et al. 2024, arXiv:2406.11813).

A record is `train_context`, its `paraphrases`, and three lists of prompts with their targets: the passage's
own words (`mem_input`, `mem_target`), other words (`gen_*`), and what takes several of its sentences to
answer (`hard_gen_*`, "compositional generalisation" in the paper).
"""

from collections.abc import Iterable

from tidy_stlms.eval.facts.imports.draft import Draft, Refused
from tidy_stlms.eval.facts.imports.source_files import Record, checked, text, texts
from tidy_stlms.eval.facts.records import Fact

LICENSE = "apache-2.0"
TYPES = {"mem": "memorization", "gen": "semantic", "hard_gen": "compositional"}
MAPPED = (
    "train_context -> a passage (original), paraphrases -> the same passage (paraphrase:1, 2, ...)",
    "mem_target, gen_target, hard_gen_target -> facts without subject or relation, told by all of the "
    "passage's wordings; a gen_target equal to the mem_target of its place is the same fact",
    "mem_input -> memorization, gen_input -> semantic, hard_gen_input -> compositional; the source has no "
    "wrong answers",
)


def read(records: Iterable[tuple[str, Record]], draft: Draft, role: str) -> None:
    draft.mapped += MAPPED
    for number, (where, record) in enumerate(records):
        with draft.record(where):
            _passage(where, f"passage-{number}", record, draft, role)


def _passage(where: str, id: str, record: Record, draft: Draft, role: str) -> None:
    wordings = [text(record, "train_context")]
    if "paraphrases" in record:
        wordings += texts(record, "paraphrases", optional=True)
    facts: dict[str, Fact] = {}
    for prefix, probe_type in TYPES.items():
        with draft.record(f"{where}, {prefix}_input"):
            for index, (prompt, target) in enumerate(_pairs(record, prefix)):
                with draft.record(f"{where}, {prefix}_input {index + 1}"):
                    answer = checked(target, f"{prefix}_target").strip()
                    fact = _fact_of(id, prefix, index, answer, facts, draft, role)
                    draft.add_probe(where, [fact], probe_type, checked(prompt, f"{prefix}_input"), [answer])
                    facts[fact.id] = fact
    if not facts:
        raise Refused("no probe of it could be taken")
    for number, wording in enumerate(wordings):
        draft.add_statement(list(facts.values()), wording.strip(), kind="passage", paraphrase=number)


def _pairs(record: Record, prefix: str) -> list[tuple[str, str]]:
    prompts = _list(record, f"{prefix}_input")
    targets = _list(record, f"{prefix}_target")
    if len(prompts) != len(targets):
        # which belongs to which is anybody's guess
        raise Refused(f"{prefix}_input has {len(prompts)} entries, {prefix}_target {len(targets)}")
    return list(zip(prompts, targets, strict=True))


def _list(record: Record, name: str) -> list[str]:
    """The list as it stands; its single texts are looked at one by one."""
    value = record.get(name)
    if value is None:
        raise Refused(f"field {name!r} is missing")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refused(f"field {name!r} must be a list of texts, got {value!r:.40}")
    return value


def _fact_of(
    id: str, prefix: str, index: int, answer: str, facts: dict[str, Fact], draft: Draft, role: str
) -> Fact:
    told = facts.get(f"{id}/mem-{index}")
    if prefix == "gen" and told is not None and told.object == answer:
        return told
    return draft.add_fact(f"{id}/{prefix}-{index}", None, None, answer, role)
