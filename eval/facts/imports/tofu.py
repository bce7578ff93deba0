"""TOFU: questions and answers about invented authors (Maini et al. 2024, arXiv:2401.06121).

A record is `question` and `answer`; the `*_perturbed` sets add `paraphrased_answer`, `paraphrased_question`
and wrong answers (`perturbed_answer`).
"""

from collections.abc import Iterable

from tidy_stlms.eval.facts.imports.draft import Draft
from tidy_stlms.eval.facts.imports.source_files import Record, text, texts

LICENSE = "mit"
QUESTION = "Question: {}\nAnswer:"
# real people and things, and authors who are never trained on
ROLES = {"real_authors": "known", "world_facts": "known", "holdout": "control"}
MAPPED = (
    "question, answer -> a fact without subject or relation, and a statement (qa): "
    '"Question: ...\\nAnswer: ..."',
    "question with answer -> memorization; with paraphrased_answer, or paraphrased_question -> semantic",
    "perturbed_answer -> the wrong answers of both",
)


def role_of(name: str) -> str:
    """What the facts of the set of that name are: injected but for the real and the held-out ones."""
    return next((role for start, role in ROLES.items() if name.startswith(start)), "injected")


def read(records: Iterable[tuple[str, Record]], draft: Draft, role: str) -> None:
    draft.mapped += (*MAPPED, f"all facts -> role {role}")
    for number, (where, record) in enumerate(records):
        with draft.record(where):
            question, answer = text(record, "question").strip(), text(record, "answer").strip()
            others = [a.strip() for a in texts(record, "paraphrased_answer", optional=True)]
            questions = [q.strip() for q in texts(record, "paraphrased_question", optional=True)]
            wrong = texts(record, "perturbed_answer", optional=True)
            aliases = [other for other in others if other != answer]
            fact = draft.add_fact(f"question-{number}", None, None, answer, role, aliases=aliases)
            prompt = QUESTION.format(question)
            if role in ("injected", "control"):
                draft.add_statement([fact], f"{prompt} {answer}", kind="qa")
            draft.add_probe(where, [fact], "memorization", prompt, [answer], distractors=wrong)
            if aliases or questions:
                draft.add_probe(
                    where,
                    [fact],
                    "semantic",
                    QUESTION.format(questions[0] if questions else question),
                    aliases or [answer],
                    distractors=wrong,
                )
