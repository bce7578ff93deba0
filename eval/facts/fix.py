"""What `stlm facts validate --fix` mends: case, outer spaces and joints of probes, without any doubt."""

from collections import defaultdict
from collections.abc import Iterator

from msgspec.structs import replace

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import JOINTS, Fact, Probe
from tidy_stlms.eval.facts.text_match import find_words, folded, holds_terminal, normal

Spellings = dict[tuple[str | None, str], str]  # by relation and folded name


def fix_bank(bank: FactBank) -> tuple[FactBank, list[str]]:
    """The bank with what is certain mended, and a line for each change.

    - Removes spaces around prompts, answers and distractors; the joint supplies the space. Keeps line breaks,
      since a prompt may end with one on purpose. Never empties an answer.
    - A fact's object (or alias) that is asked for in another case than the statements write it in is
      written like them, and so are the distractors. All of them must be names that the statements of the
      relation write in one way: were the answer mended alone, its capital would give it away.
    - Takes the other joint if prompt and answer occur in a statement of the probe's facts only with that one.

    `seen_verbatim` of a mended probe is renewed.
    """
    trained = _trained_spellings(bank)
    probes: list[Probe] = []
    lines: list[str] = []
    for probe in bank.probes:
        mended = _joined_as_stated(bank, _in_trained_case(bank, _without_outer_spaces(probe), trained))
        if mended != probe:
            mended = replace(mended, seen_verbatim=bank.is_stated(mended))
        lines += _changes(probe, mended)
        probes.append(mended)
    return replace(bank, probes=tuple(probes)) if lines else bank, lines


def _without_outer_spaces(probe: Probe) -> Probe:
    answers = tuple(answer.strip(" ") for answer in probe.answers)
    distractors = tuple(distractor.strip(" ") for distractor in probe.distractors)
    joint = " " if probe.prompt.endswith(" ") else probe.joint  # the prompt's own space was the joint
    mended = replace(
        probe, prompt=probe.prompt.strip(" "), answers=answers, distractors=distractors, joint=joint
    )
    return (
        mended
        if all((*answers, *distractors))
        else replace(mended, answers=probe.answers, distractors=probe.distractors)
    )


def _in_trained_case(bank: FactBank, probe: Probe, trained: Spellings) -> Probe:
    facts = [bank.fact_by_id[fact_id] for fact_id in probe.fact_ids if fact_id in bank.fact_by_id]
    for fact in facts:
        if {folded(name) for name in _names(fact)}.isdisjoint(map(folded, probe.answers[:1])):
            continue
        answers = [trained.get((fact.relation, folded(answer)), answer) for answer in probe.answers]
        distractors = [trained.get((fact.relation, folded(text))) for text in probe.distractors]
        written = tuple(text for text in distractors if text is not None)
        if tuple(answers) != probe.answers and len(written) == len(probe.distractors):
            return replace(probe, answers=tuple(answers), distractors=written)
    return probe


def _joined_as_stated(bank: FactBank, probe: Probe) -> Probe:
    for joint in (probe.joint, *JOINTS):
        joined = replace(probe, joint=joint)
        if any(bank.is_stated(joined, answer) for answer in probe.answers):
            return joined
    return probe


def _names(fact: Fact) -> tuple[str, ...]:
    return (fact.object, *fact.object_aliases)


def _trained_spellings(bank: FactBank) -> Spellings:
    """How statements write the objects of a relation and their aliases, where they do so in one way."""
    found: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for fact in bank.facts:
        for name in _names(fact):
            for statement in bank.statements_of(fact.id):
                found[fact.relation, folded(name)].update(_spellings(name, statement.text))
    return {key: spellings.pop() for key, spellings in found.items() if len(spellings) == 1}


def _spellings(words: str, text: str) -> Iterator[str]:
    """Every way in which `text` writes `words`, not inside of longer words, nor where a sentence begins and
    a capital says nothing."""
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
    for name, old, new in pairs:
        if old != new:
            how = " (normal form C)" if normal(old) == normal(new) else ""
            yield f"probes.jsonl: {before.id!r}: {name} {old!r} is now {new!r}{how}"
