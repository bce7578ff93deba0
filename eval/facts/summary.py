"""Counts of a bank's content, for `stlm facts show` and reports."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import PROBE_TYPES, Fact, Probe, Statement
from tidy_stlms.eval.facts.text_match import join
from tidy_stlms.eval.tokens import encode_texts

Counts = dict[str, int]


@dataclass(frozen=True)
class BankSummary:
    """The size of a bank. The role of a statement or probe is that of its first fact."""

    subjects: Counts
    """By role."""
    facts: Counts
    """By role."""
    arms: Counts
    """Facts by arm."""
    relations: dict[str, Counts]
    """Facts by relation and role."""
    forms: dict[str, Counts]
    """Statements by form and role."""
    types: dict[str, Counts]
    """Probes by type and role."""
    flags: Counts
    """Probes by flag."""


class Example(NamedTuple):
    """A fact with its statements and probes."""

    fact: Fact
    statements: list[Statement]
    probes: list[Probe]


def bank_summary(bank: FactBank) -> BankSummary:
    roles = {fact.id: fact.role for fact in bank.facts}
    subjects = {(fact.role, fact.subject) for fact in bank.facts if fact.subject is not None}
    return BankSummary(
        subjects=_count(role for role, _ in subjects),
        facts=_count(roles.values()),
        arms=_count(fact.arm for fact in bank.facts if fact.arm is not None),
        relations=_count_by_role((fact.relation or "(none)", fact.role) for fact in bank.facts),
        forms=_count_by_role((item.form, roles[item.fact_ids[0]]) for item in bank.statements),
        types=_count_by_role((probe.type, bank.role_of(probe)) for probe in bank.probes),
        flags=_count(flag for probe in bank.probes for flag in probe.flags),
    )


def examples(bank: FactBank, n: int = 3) -> list[Example]:
    """`n` facts spread evenly over the bank, as they are stored."""
    step = max(1, len(bank.facts) // max(1, n))
    facts = list(bank.facts)[::step][:n]
    probes: dict[str, list[Probe]] = {fact.id: [] for fact in facts}
    for probe in bank.probes:
        for fact_id in probe.fact_ids:
            if fact_id in probes:
                probes[fact_id].append(probe)
    return [Example(fact, bank.statements_of(fact.id), probes[fact.id]) for fact in facts]


def token_lengths(bank: FactBank, tokenizer: Any) -> dict[str, dict[str, float]]:
    """Tokens of statements, prompts and answers, special tokens not counted.

    `{"statements" | "prompts" | "answers": {"min", "median", "max"}}`; a key is left out if the bank has no
    such texts. The space that joins an answer to its prompt is counted with the answer.
    """
    texts = {
        "statements": [statement.text for statement in bank.statements],
        "prompts": [probe.prompt for probe in bank.probes],
        "answers": [join(probe.prompt, probe.joint)[1] + probe.answers[0] for probe in bank.probes],
    }
    return {name: _spread(_lengths(items, tokenizer)) for name, items in texts.items() if items}


def chance_of(bank: FactBank) -> float | None:
    """The accuracy of guessing, if it is the same for all probes with distractors; else None."""
    chances = {1 / (1 + len(probe.distractors)) for probe in bank.probes if probe.distractors}
    return chances.pop() if len(chances) == 1 else None


def exact_match_chance(bank: FactBank) -> dict[str, float]:
    """The exact match of guessing, by probe type: means over the probes about injected facts.

    For a probe, the probability that an answer drawn from those that injected facts give to the same question
    is right: each as often as it is the object (or the subject, if that is asked for) of its relation.
    Conclusions are no objects; they are drawn from the right answers to the same template. Control facts have
    the same objects, so it is their chance too, except where the subject is asked for: training never names
    control subjects.
    """
    given: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for fact in bank.injected_facts():
        given["object", fact.relation][fact.object] += 1
        given["subject", fact.relation][fact.subject or ""] += 1
    probes = [probe for probe in bank.probes if bank.role_of(probe) == "injected"]
    for probe in probes:
        asked_for = bank.asked_for(probe)
        if asked_for[0] == "template":
            given[asked_for][probe.answers[0]] += 1
    chances: dict[str, list[float]] = defaultdict(list)
    for probe in probes:
        answers = given[bank.asked_for(probe)]
        right = sum(answers[answer] for answer in set(probe.answers))
        chances[probe.type].append(right / answers.total())
    return {probe_type: fmean(chances[probe_type]) for probe_type in PROBE_TYPES if probe_type in chances}


def chance_in_words(accuracy: float | None, exact_match: Mapping[str, float]) -> str:
    """As in "chance: accuracy 0.10, exact match 0.06"; empty if there is neither figure."""
    parts = [] if accuracy is None else [f"accuracy {accuracy:.2f}"]
    if exact_match:
        parts.append(f"exact match {exact_match_in_words(exact_match)}")
    return f"chance: {', '.join(parts)}" if parts else ""


def exact_match_in_words(exact_match: Mapping[str, float]) -> str:
    """As in "0.06", or "0.06 (memorization, semantic), 0.12 (inferential)" where probe types differ."""
    types_of: dict[str, list[str]] = defaultdict(list)
    for probe_type, chance in exact_match.items():
        types_of[f"{chance:.2f}"].append(probe_type)
    if len(types_of) == 1:
        return next(iter(types_of))
    return ", ".join(f"{chance} ({', '.join(types)})" for chance, types in types_of.items())


def _lengths(texts: Sequence[str], tokenizer: Any) -> list[int]:
    return [len(ids) for ids in encode_texts(tokenizer, texts)["input_ids"]]


def _spread(lengths: Sequence[int]) -> dict[str, float]:
    return {"min": min(lengths), "median": median(lengths), "max": max(lengths)}


def _count(items: Iterable[Hashable]) -> Counts:
    return {str(item): count for item, count in sorted(Counter(items).items(), key=lambda pair: str(pair[0]))}


def _count_by_role(pairs: Iterable[tuple[str, str]]) -> dict[str, Counts]:
    table: dict[str, Counts] = {}
    for (name, role), count in sorted(Counter(pairs).items()):
        table.setdefault(name, {})[role] = count
    return table
