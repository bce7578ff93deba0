"""CounterFact: edits that contradict what a model knows (Meng et al. 2022, arXiv:2202.05262).

A record's `requested_rewrite` says of a `subject` in a `prompt` with {} that it is `target_new` and not
`target_true`; `paraphrase_prompts` ask the same in other words, `neighborhood_prompts` ask of other subjects
for which `target_true` is right and must stay so.
"""

from collections.abc import Iterable
from typing import Any

from tidy_stlms.eval.facts.imports.draft import Draft, Refused
from tidy_stlms.eval.facts.imports.source_files import Record, checked, text
from tidy_stlms.eval.facts.text_match import folded, usual_joint

LICENSE = "mit"
MAPPED = (
    "requested_rewrite -> two facts: target_true (role known) and target_new (role injected, "
    "counterfactual_of the first), and one statement: prompt, subject, target_new and a full stop",
    "prompt -> memorization, paraphrase_prompts -> semantic; target_true is the wrong answer",
    "neighborhood_prompts -> locality, of facts of role neighbour whose subject the source does not give; "
    "target_true is the answer, target_new the wrong one",
    "attribute_prompts and generation_prompts are not taken: they have no answer of their own",
)


def read(records: Iterable[tuple[str, Record]], draft: Draft, role: str) -> None:
    draft.mapped += MAPPED
    for number, (where, record) in enumerate(records):
        with draft.record(where):
            id = checked(str(record.get("case_id", number)), "case_id")
            _case(where, f"case-{id}", record, draft, role)


def _case(where: str, id: str, record: Record, draft: Draft, role: str) -> None:
    rewrite = _object(record, "requested_rewrite")
    subject, template = text(rewrite, "subject").strip(), text(rewrite, "prompt")
    if template.count("{}") != 1:
        raise Refused(f"requested_rewrite.prompt needs {{}} once, for the subject: {template!r:.60}")
    new, true = (text(_object(rewrite, name), "str").strip() for name in ("target_new", "target_true"))
    if folded(new) == folded(true):
        raise Refused(f"target_new and target_true are both {new!r}")
    relation = checked(str(rewrite.get("relation_id") or template), "relation_id")
    draft.add_relation(relation, template.replace("{}", "[X]"))
    known = draft.add_fact(f"{id}/true", subject, relation, true, "known")
    fact = draft.add_fact(f"{id}/new", subject, relation, new, role, counterfactual_of=known.id)
    prompt = template.replace("{}", subject).strip()
    draft.add_statement([fact], f"{prompt}{usual_joint(prompt, new)}{new}.")
    draft.add_probe(where, [fact], "memorization", prompt, [new], distractors=[true])
    for number, prompt in _prompts(where, record, "paraphrase_prompts", draft):
        with draft.record(f"{where}, paraphrase_prompts {number}"):
            asked = checked(prompt, "the prompt")
            draft.add_probe(where, [fact], "semantic", asked, [new], distractors=[true])
    for number, prompt in _prompts(where, record, "neighborhood_prompts", draft):
        with draft.record(f"{where}, neighborhood_prompts {number}"):
            asked = checked(prompt, "the prompt")
            near = draft.add_fact(f"{id}/neighbour-{number}", None, relation, true, "neighbour")
            draft.add_probe(where, [near], "locality", asked, [true], distractors=[new])


def _prompts(where: str, record: Record, name: str, draft: Draft) -> list[tuple[int, str]]:
    with draft.record(f"{where}, {name}"):
        value = record.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Refused(f"must be a list of texts, got {value!r:.40}")
        return list(enumerate(value, 1))
    return []


def _object(record: Record, name: str) -> dict[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise Refused(f"field {name!r} must be an object, got {value!r:.40}")
    return value
