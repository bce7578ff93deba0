"""`stlm facts validate --fix`: corrects case, outer spaces and joints of probes in clear cases."""

from collections import defaultdict
from collections.abc import Iterator

from msgspec.structs import replace

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import JOINTS, Probe
from tidy_stlms.eval.facts.right_answers import names_of
from tidy_stlms.eval.facts.text_match import find_words, folded, holds_terminal, normal

Spellings = dict[tuple[str | None, str], str]  # by relation and folded name


def fix_bank(bank: FactBank) -> tuple[FactBank, list[str]]:
    """The bank with corrected probes, and a line for each change.

    - Removes spaces around prompts, answers and distractors; the joint supplies the space. Keeps line breaks,
      since a prompt may end with one on purpose. Never empties an answer.
    - Writes an answer that is a fact's object (or an alias), and the distractors, in the case that statements
      use. Does so only if statements of the relation write all of them, each in one way: a capital in the
      answer but in no distractor would give the answer away.
    - Changes the joint if a statement of the probe's facts has prompt and answer only with the other joint.

    Computes `seen_verbatim` of a changed probe again.
    """
    spellings = _trained_spellings(bank)
    probes: list[Probe] = []
    lines: list[str] = []
    for probe in bank.probes:
        fixed = _joined_as_stated(bank, _in_trained_case(bank, _without_outer_spaces(probe), spellings))
        if fixed != probe:
            fixed = replace(fixed, seen_verbatim=bank.is_stated(fixed))
        lines += _changes(probe, fixed)
        probes.append(fixed)
    return replace(bank, probes=tuple(probes)) if lines else bank, lines


def _without_outer_spaces(probe: Probe) -> Probe:
    joint = " " if probe.prompt.endswith(" ") else probe.joint  # a space at the prompt's end was the joint
    fixed = replace(probe, prompt=probe.prompt.strip(" "), joint=joint)
    answers = tuple(answer.strip(" ") for answer in probe.answers)
    distractors = tuple(distractor.strip(" ") for distractor in probe.distractors)
    return (
        replace(fixed, answers=answers, distractors=distractors) if all((*answers, *distractors)) else fixed
    )


def _in_trained_case(bank: FactBank, probe: Probe, spellings: Spellings) -> Probe:
    for fact in (bank.fact_by_id[fact_id] for fact_id in probe.fact_ids if fact_id in bank.fact_by_id):
        if {folded(name) for name in names_of(fact)}.isdisjoint(map(folded, probe.answers[:1])):
            continue
        answers = tuple(spellings.get((fact.relation, folded(answer)), answer) for answer in probe.answers)
        distractors = [spellings.get((fact.relation, folded(text))) for text in probe.distractors]
        spelled = tuple(text for text in distractors if text is not None)
        if answers != probe.answers and len(spelled) == len(probe.distractors):
            return replace(probe, answers=answers, distractors=spelled)
    return probe


def _joined_as_stated(bank: FactBank, probe: Probe) -> Probe:
    for joint in (probe.joint, *JOINTS):
        joined = replace(probe, joint=joint)
        if any(bank.is_stated(joined, answer) for answer in probe.answers):
            return joined
    return probe


def _trained_spellings(bank: FactBank) -> Spellings:
    """How statements write the objects of a relation and their aliases. Only names written in one way."""
    spellings: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for fact in bank.facts:
        for name in names_of(fact):
            for statement in bank.statements_of(fact.id):
                spellings[fact.relation, folded(name)].update(_spellings_in(statement.text, name))
    return {key: written.pop() for key, written in spellings.items() if len(written) == 1}


def _spellings_in(text: str, words: str) -> Iterator[str]:
    """Every way in which the text writes these words, not inside longer words.

    Leaves out the beginnings of sentences: all words have a capital there.
    """
    lowered, wanted = text.lower(), words.lower()
    if not wanted or len(lowered) != len(text):  # some capitals are longer in lower case
        return
    start = find_words(lowered, wanted, strict=True)
    while start >= 0:
        before = text[:start].rstrip(" \t\"'“”‘’„«»()[]")
        if before and before[-1] not in ":\n" and not holds_terminal(before[-1]):
            yield text[start : start + len(wanted)]
        start = find_words(lowered, wanted, start + 1, strict=True)


def _changes(before: Probe, after: Probe) -> Iterator[str]:
    pairs = [("prompt", before.prompt, after.prompt), ("joint", before.joint, after.joint)]
    pairs += [("answer", *pair) for pair in zip(before.answers, after.answers, strict=True)]
    pairs += [("distractor", *pair) for pair in zip(before.distractors, after.distractors, strict=True)]
    for field, old, new in pairs:
        if old != new:
            how = " (normal form C)" if normal(old) == normal(new) else ""
            yield f"probes.jsonl: {before.id!r}: {field} {old!r} is now {new!r}{how}"
