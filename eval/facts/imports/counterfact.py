"""CounterFact: edits that contradict what a model knows (Meng et al. 2022, arXiv:2202.05262).

A record has a `requested_rewrite`: a `prompt` with {} for the `subject`, and a new answer, `target_new`,
instead of `target_true`. `paraphrase_prompts` ask the same question in other words. `neighborhood_prompts`
ask about other subjects with the answer `target_true`, which an edit must not change.
"""

from collections.abc import Iterable
from typing import Any

from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.source_files import Row, checked_text, text_field
from tidy_stlms.eval.facts.text_match import folded, usual_joint

COUNTERFACT_LICENSE = "mit"
MAPPED = (
    "requested_rewrite -> two facts: target_true (role known) and target_new (role injected, "
    "counterfactual_of the first), and one statement: prompt, subject, target_new and a full stop",
    "prompt -> memorization, paraphrase_prompts -> semantic; target_true is the wrong answer",
    "neighborhood_prompts -> locality, of facts of role neighbour whose subject the source does not give; "
    "target_true is the answer, target_new the wrong one",
    "attribute_prompts and generation_prompts are not taken: they have no answer of their own",
)


def import_counterfact(rows: Iterable[tuple[str, Row]], builder: BankBuilder, role: str) -> None:
    builder.mapped += MAPPED
    for number, (where, row) in enumerate(rows):
        with builder.record(where):
            id = checked_text(str(row.get("case_id", number)), "case_id")
            _case(where, f"case-{id}", row, builder, role)


def _case(where: str, id: str, row: Row, builder: BankBuilder, role: str) -> None:
    rewrite = _object(row, "requested_rewrite")
    subject, template = text_field(rewrite, "subject").strip(), text_field(rewrite, "prompt")
    if template.count("{}") != 1:
        raise Refused(f"requested_rewrite.prompt needs {{}} once, for the subject: {template!r:.60}")
    new, true = (text_field(_object(rewrite, name), "str").strip() for name in ("target_new", "target_true"))
    if folded(new) == folded(true):
        raise Refused(f"target_new and target_true are both {new!r}")
    relation = checked_text(str(rewrite.get("relation_id") or template), "relation_id")
    builder.add_relation(relation, template.replace("{}", "[X]"))
    known = builder.add_fact(f"{id}/true", subject, relation, true, "known")
    fact = builder.add_fact(f"{id}/new", subject, relation, new, role, counterfactual_of=known.id)
    prompt = template.replace("{}", subject).strip()
    builder.add_statement([fact], f"{prompt}{usual_joint(prompt, new)}{new}.")
    builder.add_probe(where, [fact], "memorization", prompt, [new], distractors=[true])
    for number, prompt in _prompts(where, row, "paraphrase_prompts", builder):
        with builder.record(f"{where}, paraphrase_prompts {number}"):
            builder.add_probe(
                where, [fact], "semantic", checked_text(prompt, "the prompt"), [new], distractors=[true]
            )
    for number, prompt in _prompts(where, row, "neighborhood_prompts", builder):
        with builder.record(f"{where}, neighborhood_prompts {number}"):
            checked_text(prompt, "the prompt")
            neighbour = builder.add_fact(f"{id}/neighbour-{number}", None, relation, true, "neighbour")
            builder.add_probe(where, [neighbour], "locality", prompt, [true], distractors=[new])


def _prompts(where: str, row: Row, name: str, builder: BankBuilder) -> list[tuple[int, str]]:
    with builder.record(f"{where}, {name}"):
        value = row.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Refused(f"must be a list of texts, got {value!r:.40}")
        return list(enumerate(value, 1))
    return []


def _object(row: Row, name: str) -> dict[str, Any]:
    value = row.get(name)
    if not isinstance(value, dict):
        raise Refused(f"field {name!r} must be an object, got {value!r:.40}")
    return value
