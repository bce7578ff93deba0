"""TOFU: questions and answers about invented authors (Maini et al. 2024, arXiv:2401.06121).

A record has a `question` and an `answer`. In the `*_perturbed` sets it also has `paraphrased_answer`,
`paraphrased_question` and distractors (`perturbed_answer`).
"""

from collections.abc import Iterable

from tidy_stlms.eval.facts.imports.builder import BankBuilder
from tidy_stlms.eval.facts.imports.source_files import Row, text_field, text_list

TOFU_LICENSE = "mit"
QUESTION = "Question: {}\nAnswer:"
# Sets of real people and things, and of authors that no run is trained on.
ROLES = {"real_authors": "known", "world_facts": "known", "holdout": "control"}
FIELDS = ("question", "answer", "paraphrased_question", "paraphrased_answer", "perturbed_answer")
MAPPED = (
    "question, answer -> a fact without subject or relation, and a statement (qa): "
    '"Question: ...\\nAnswer: ..."',
    "question with answer -> trained_question; with paraphrased_answer, or paraphrased_question -> semantic",
    "perturbed_answer -> the distractors of both",
)


def tofu_role(name: str) -> str:
    """The role of the facts of a set, by the set's name: injected, unless `ROLES` says otherwise."""
    return next((role for start, role in ROLES.items() if name.startswith(start)), "injected")


def import_tofu(rows: Iterable[tuple[str, Row]], builder: BankBuilder, role: str) -> None:
    builder.mapped += (*MAPPED, f"all facts -> role {role}")
    builder.fields_taken.update(FIELDS)
    for number, (where, row) in enumerate(rows):
        with builder.record(where):
            question, answer = text_field(row, "question").strip(), text_field(row, "answer").strip()
            paraphrases = [a.strip() for a in text_list(row, "paraphrased_answer", optional=True)]
            questions = [q.strip() for q in text_list(row, "paraphrased_question", optional=True)]
            wrong = text_list(row, "perturbed_answer", optional=True)
            aliases = [paraphrase for paraphrase in paraphrases if paraphrase != answer]
            fact = builder.add_fact(f"question-{number}", None, None, answer, role, aliases=aliases)
            prompt = QUESTION.format(question)
            if role in ("injected", "control"):
                builder.add_statement([fact], f"{prompt} {answer}", kind="qa")
            builder.add_probe(where, [fact], "trained_question", prompt, [answer], distractors=wrong)
            if aliases or questions:
                builder.add_probe(
                    where,
                    [fact],
                    "semantic",
                    QUESTION.format(questions[0] if questions else question),
                    aliases or [answer],
                    distractors=wrong,
                )
