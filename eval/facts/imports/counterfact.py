"""CounterFact: edits that contradict what a model knows (Meng et al. 2022, arXiv:2202.05262), in two formats.

The authors' records have a `requested_rewrite`: a `prompt` with {} for the `subject`, and a new answer,
`target_new`, instead of `target_true`. `paraphrase_prompts` ask the same question in other words.
`neighborhood_prompts` ask about other subjects with the answer `target_true`, which an edit must not change.

EasyEdit's records (Wang et al. 2023, arXiv:2308.07269) are flat: `prompt` names the `subject`, `ground_truth`
is the true answer, `rephrase_prompt` is a paraphrase, `locality_prompt` asks for `locality_ground_truth`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tidy_stlms.configs.errors import shown
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.source_files import Row, checked_text, text_field, text_list
from tidy_stlms.eval.facts.text_match import folded, holds_words, replace_words, usual_joint

COUNTERFACT_LICENSE = "mit"
MAPPED = (
    "requested_rewrite -> two facts: target_true (role known) and target_new (role injected, "
    "counterfactual_of the first), and one statement: prompt, subject, target_new and a full stop",
    "prompt -> memorization, paraphrase_prompts -> semantic; target_true is the distractor",
    "neighborhood_prompts -> locality, of facts of role neighbour whose subject the source does not give; "
    "target_true is the answer, target_new the distractor",
    "attribute_prompts and generation_prompts are not taken: they have no answer of their own",
)
MAPPED_FLAT = (
    "subject, ground_truth, target_new -> two facts: ground_truth (role known) and target_new (role "
    "injected, counterfactual_of the first), and one statement: prompt, target_new and a full stop",
    "prompt -> memorization, rephrase_prompt -> semantic; ground_truth is the distractor",
    "locality_prompt, locality_ground_truth -> locality, of a fact of role neighbour whose subject the "
    "source does not give; target_new is the distractor",
)
NESTED_FIELDS = ("case_id", "requested_rewrite", "paraphrase_prompts", "neighborhood_prompts")
FLAT_FIELDS = (
    "case_id", "subject", "relation_id", "prompt", "target_new", "ground_truth", "rephrase_prompt",
    "locality_prompt", "locality_ground_truth",
)  # fmt: skip
ZSRE = {"src", "alt"}
FLAT = {"target_new", "subject", "prompt", *ZSRE}


@dataclass
class Edit:
    """A record of either format."""

    subject: str
    relation: str
    label: str
    prompt: str
    new: str
    true: str | None
    names: tuple[str, str]
    """What the record calls `new` and `true`."""
    paraphrases: list[tuple[str, str]]
    """(where, prompt) of each."""
    neighbours: list[tuple[str, str, str]]
    """(where, prompt, answer) of each."""
    true_aliases: list[str] = field(default_factory=list)


def import_counterfact(rows: Iterable[tuple[str, Row]], builder: BankBuilder, role: str) -> None:
    """Import records of either format, also mixed."""
    nested = flat = False
    builder.fields_taken.update(NESTED_FIELDS, FLAT_FIELDS)
    for number, (where, row) in enumerate(rows):
        with builder.record(where):
            id = checked_text(str(row.get("case_id", number)), "case_id")
            if "requested_rewrite" in row or not FLAT.intersection(row):
                edit, nested = _nested(where, row, builder), True
            else:
                edit, flat = _flat(where, row, builder), True
            _add(f"case-{id}", where, edit, builder, role)
    if nested or not flat:
        builder.mapped += MAPPED
    if flat:
        builder.mapped += MAPPED_FLAT


def _add(id: str, where: str, edit: Edit, builder: BankBuilder, role: str) -> None:
    if edit.true is not None and folded(edit.new) == folded(edit.true):
        raise Refused(f"{edit.names[0]} and {edit.names[1]} are both {edit.new!r}")
    subject, relation, new, true = edit.subject, edit.relation, edit.new, edit.true
    builder.add_relation(relation, edit.label)
    known = None
    if true is not None:
        known = builder.add_fact(f"{id}/true", subject, relation, true, "known", aliases=edit.true_aliases)
    fact = builder.add_fact(
        f"{id}/new", subject, relation, new, role, counterfactual_of=None if known is None else known.id
    )
    wrong = [] if true is None else [true]
    builder.add_statement([fact], f"{edit.prompt}{usual_joint(edit.prompt, new)}{new}.")
    builder.add_probe(where, [fact], "memorization", edit.prompt, [new], distractors=wrong)
    for place, prompt in edit.paraphrases:
        with builder.record(place):
            builder.add_probe(
                where, [fact], "semantic", checked_text(prompt, "the prompt"), [new], distractors=wrong
            )
    for number, (place, prompt, answer) in enumerate(edit.neighbours, 1):
        with builder.record(place):
            checked_text(prompt, "the prompt")
            # a neighbour with another answer may have another relation
            of_relation = relation if true is not None and folded(answer) == folded(true) else None
            neighbour = builder.add_fact(f"{id}/neighbour-{number}", None, of_relation, answer, "neighbour")
            builder.add_probe(where, [neighbour], "locality", prompt, [answer], distractors=[new])


def _nested(where: str, row: Row, builder: BankBuilder) -> Edit:
    rewrite = _object(row, "requested_rewrite")
    subject, template = text_field(rewrite, "subject").strip(), text_field(rewrite, "prompt")
    if template.count("{}") != 1:
        raise Refused(f"requested_rewrite.prompt needs {{}} once, for the subject: {shown(template)}")
    new, true = (text_field(_object(rewrite, name), "str").strip() for name in ("target_new", "target_true"))
    return Edit(
        subject,
        relation=checked_text(str(rewrite.get("relation_id") or template), "relation_id"),
        label=template.replace("{}", "[X]"),
        prompt=template.replace("{}", subject).strip(),
        new=new,
        true=true,
        names=("target_new", "target_true"),
        paraphrases=_prompts(where, row, "paraphrase_prompts", builder),
        neighbours=[(*item, true) for item in _prompts(where, row, "neighborhood_prompts", builder)],
    )


def _flat(where: str, row: Row, builder: BankBuilder) -> Edit:
    if row.keys() >= ZSRE:
        raise Refused(
            "is a record of ZsRE: src is a question, and no sentence states the answer alt; import it as "
            "jsonl with --column prompt=src --column answer=alt"
        )
    subject, prompt = text_field(row, "subject").strip(), text_field(row, "prompt").strip()
    if not holds_words(prompt, subject):
        raise Refused(f"the subject {shown(subject)} is not in the prompt {shown(prompt)}")
    template = replace_words(prompt, subject, "{}")
    true = [text.strip() for text in text_list(row, "ground_truth", optional=True)]
    paraphrases = text_list(row, "rephrase_prompt") if row.get("rephrase_prompt") else []
    return Edit(
        subject,
        relation=checked_text(str(row.get("relation_id") or template), "relation_id"),
        label=template.replace("{}", "[X]"),
        prompt=prompt,
        new=text_field(row, "target_new").strip(),
        true=true[0] if true else None,
        names=("target_new", "ground_truth"),
        true_aliases=true[1:],
        paraphrases=[(f"{where}, rephrase_prompt {n}", text) for n, text in enumerate(paraphrases, 1)],
        neighbours=_flat_neighbours(where, row, builder),
    )


def _flat_neighbours(where: str, row: Row, builder: BankBuilder) -> list[tuple[str, str, str]]:
    place = f"{where}, locality_prompt"
    with builder.record(place):
        prompts = text_list(row, "locality_prompt", optional=True)
        answers = [text.strip() for text in text_list(row, "locality_ground_truth", optional=True)]
        if len(prompts) != len(answers):
            raise Refused(f"has {len(prompts)} entries, locality_ground_truth {len(answers)}")
        return [(place, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return []


def _prompts(where: str, row: Row, name: str, builder: BankBuilder) -> list[tuple[str, str]]:
    with builder.record(f"{where}, {name}"):
        value = row.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Refused(f"must be a list of texts, got {shown(value)}")
        return [(f"{where}, {name} {number}", item) for number, item in enumerate(value, 1)]
    return []


def _object(row: Row, name: str) -> dict[str, Any]:
    value = row.get(name)
    if not isinstance(value, dict):
        raise Refused(f"field {name!r} must be an object, got {shown(value)}")
    return value
