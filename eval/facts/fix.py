"""What `stlm facts validate --fix` mends: case and outer spaces of probes, where there is no doubt."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

from eval.facts.bank import FactBank, Probe, Statement

Respell = Callable[[str | None, str], str]


def fix_bank(bank: FactBank) -> tuple[FactBank, list[str]]:
    """The bank with what is certain mended, and a line for each change.

    - Spaces around prompts, answers and distractors go: prompt and answer are joined by a space of their
      own. Line breaks stay, as a prompt may end with one on purpose.
    - An answer that the statements of its facts write in one other case only is written like them, and
      so is a distractor that is an object of the same relation: were the answer mended alone, its
      capital would give it away.

    A change that would leave an empty answer, or make an answer one of its own distractors, is not made.
    """
    respell = _spelling_of_objects(bank)
    probes: list[Probe] = []
    lines: list[str] = []
    for probe in bank.probes:
        mended = _without_outer_spaces(probe)
        mended = _in_trained_case(bank, mended, respell)
        lines += _changes(probe, mended)
        probes.append(mended)
    return replace(bank, probes=tuple(probes)) if lines else bank, lines


def _without_outer_spaces(probe: Probe) -> Probe:
    answers = tuple(answer.strip(" ") for answer in probe.answers)
    distractors = tuple(distractor.strip(" ") for distractor in probe.distractors)
    mended = replace(probe, prompt=probe.prompt.strip(" "), answers=answers, distractors=distractors)
    return (
        mended
        if all((*answers, *distractors))
        else replace(mended, answers=probe.answers, distractors=probe.distractors)
    )


def _in_trained_case(bank: FactBank, probe: Probe, respell: Respell) -> Probe:
    facts = [bank.fact_by_id[fact_id] for fact_id in probe.fact_ids if fact_id in bank.fact_by_id]
    statements = [statement for fact in facts for statement in bank.statements_of(fact.id)]
    answers = tuple(_case_of_statements(answer, statements) for answer in probe.answers)
    if not facts or answers == probe.answers:
        return probe
    distractors = tuple(respell(facts[0].relation, distractor) for distractor in probe.distractors)
    if {answer.casefold() for answer in answers} & {text.casefold() for text in distractors}:
        return probe
    return replace(probe, answers=answers, distractors=distractors)


def _case_of_statements(answer: str, statements: list[Statement]) -> str:
    """The answer as the statements write it, if they do so in one way, and not in the answer's own."""
    found = {spelling for statement in statements for spelling in _spellings(answer, statement.text)}
    return found.pop() if len(found) == 1 else answer


def _spellings(words: str, text: str) -> Iterator[str]:
    """Every way in which `text` writes `words`, not inside of longer words."""
    lowered, wanted = text.lower(), words.lower()
    if not wanted or len(lowered) != len(text):  # some capitals are longer in lower case
        return
    start = lowered.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if not text[start - 1 : start].isalnum() and not text[end : end + 1].isalnum():
            yield text[start:end]
        start = lowered.find(wanted, start + 1)


def _spelling_of_objects(bank: FactBank) -> Respell:
    """How the objects of a relation are written, where they are written in one way."""
    known: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for fact in bank.facts:
        known[fact.relation, fact.object.casefold()].add(fact.object)

    def respell(relation: str | None, text: str) -> str:
        spellings = known.get((relation, text.casefold()), {text})
        return next(iter(spellings)) if len(spellings) == 1 else text

    return respell


def _changes(before: Probe, after: Probe) -> Iterator[str]:
    pairs = [("prompt", before.prompt, after.prompt)]
    pairs += [("answer", *pair) for pair in zip(before.answers, after.answers, strict=True)]
    pairs += [("distractor", *pair) for pair in zip(before.distractors, after.distractors, strict=True)]
    for name, old, new in pairs:
        if old != new:
            yield f"probes.jsonl: {before.id!r}: {name} {old!r} is now {new!r}"
