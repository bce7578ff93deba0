"""Guessers: rules that choose among a probe's candidates without knowing a fact.

    credits = guess(bank)           # {"shortest": {probe id: 1.0, ...}, ...}

A model that never read a fact can still prefer the answer that it read most often, the shortest one, or one
that goes with a word of the prompt. If such a rule is right more often than chance, accuracy shows more than
facts. `guesser_tests.py` decides whether it is.

Each guesser gives the candidates of a probe a score and chooses the highest. A tie among k counts 1/k if the
right answer is among them. No guesser reads statements of control facts: training never states them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from tidy_stlms.eval.facts.associations import Associations, genders_of
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Probe, Statement
from tidy_stlms.eval.facts.text_match import folded, words_in

Scores = Sequence[float]
Credits = dict[str, dict[str, float]]  # by guesser and probe id
NUMBER = re.compile(r"\d+")
MOST_CANDIDATES = 150_000  # of all probes together, or a few more: about five seconds
TIE = 1e-9  # sums of equal terms differ in their last bits


def guess(bank: FactBank) -> Credits:
    """What each guesser gets for each probe of `probes_to_guess`: 1, 0 or a share of a tie.

    A guesser that has nothing to go by for a probe, such as the gender of a name, is left out there. Of a
    large bank, only the probes of every second, third, ... subject are guessed.
    """
    probes = probes_to_guess(bank)
    size = sum(len(probe.candidates) for probe in probes)
    subjects = list(dict.fromkeys(map(bank.subject_of, probes)))
    step = max(1, -(-size // MOST_CANDIDATES))  # rounded up
    chosen = set(subjects[::step])
    guessed = [probe for probe in probes if bank.subject_of(probe) in chosen]
    credits: Credits = {}
    for name, score in _guessers(bank, probes).items():
        credits[name] = {
            probe.id: credit(scores) for probe in guessed if (scores := score(probe)) is not None
        }
    return credits


def probes_to_guess(bank: FactBank) -> list[Probe]:
    """The probes with distractors about injected and control facts."""
    return [
        probe for probe in bank.probes if probe.distractors and bank.role_of(probe) in ("injected", "control")
    ]


def credit(scores: Scores) -> float:
    """1 if the first score is the highest, 1/k if k share the highest and it is one of them, else 0."""
    highest = max(scores) - TIE
    return 1 / sum(score > highest for score in scores) if scores[0] > highest else 0.0


def _guessers(bank: FactBank, probes: Sequence[Probe]) -> dict[str, Callable[[Probe], Scores | None]]:
    """The guessers by name; each gives scores to a probe's candidates, or None."""
    injected = [
        statement
        for statement in bank.statements
        if any(bank.fact_by_id[fact_id].role == "injected" for fact_id in statement.fact_ids)
    ]
    every = {candidate for probe in probes for candidate in probe.candidates}
    stated = Mentions(every, (item for item in injected if item.kind != "qa"))
    trained_questions = Mentions(every, (item for item in injected if item.kind == "qa"))
    associations = Associations(bank, probes)
    right = associations.right_answers
    genders = genders_of(bank)

    def right_count(probe: Probe) -> Scores:
        counts = right[associations.kind_of(probe)]
        return [counts[candidate] for candidate in probe.candidates]

    def negative(score: Callable[[Probe], Scores]) -> Callable[[Probe], Scores]:
        return lambda probe: [-value for value in score(probe)]

    return {
        "most frequent in statements": stated.counts,
        "least frequent in statements": negative(stated.counts),
        "most frequent in trained questions": trained_questions.counts,
        "least frequent in trained questions": negative(trained_questions.counts),
        "most frequent as right answer": right_count,
        "least frequent as right answer": negative(right_count),
        "first in the statements": negative(stated.first_mentions),
        "last in the statements": stated.first_mentions,
        "longest": _lengths,
        "shortest": negative(_lengths),
        "first by alphabet": negative(_ranks),
        "last by alphabet": _ranks,
        "middle by alphabet": _middle,
        "nearest in spelling to the subject": lambda probe: _alike_to(probe, _named_in_prompt(bank, probe)),
        "most like the other candidates": _alike_to_others,
        "least like the other candidates": negative(_alike_to_others),
        "words of the prompt": associations.by_prompt,
        "words of the prompt, first letter": associations.by_prompt_to_letter,
        "gender of the name": lambda probe: associations.by_gender(probe, genders),
    }


class Mentions:
    """How often candidates occur in texts, as whole words whatever their case."""

    def __init__(self, candidates: Iterable[str], statements: Iterable[Statement]):
        self.words_of = {candidate: " ".join(words_in(folded(candidate))) for candidate in candidates}
        wanted = set(self.words_of.values())
        lengths = sorted({words.count(" ") + 1 for words in wanted})
        self.times: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        for number, statement in enumerate(statements):
            words = words_in(folded(statement.text))
            for length in lengths:
                for start in range(len(words) - length + 1):
                    run = " ".join(words[start : start + length])
                    if run in wanted:
                        self.times[run] += 1
                        self.first.setdefault(run, number)

    def counts(self, probe: Probe) -> Scores:
        return [self.times[self.words_of[candidate]] for candidate in probe.candidates]

    def first_mentions(self, probe: Probe) -> Scores:
        """The number of the first statement with each candidate; a candidate without one comes last."""
        return [self.first.get(self.words_of[candidate], 10**9) for candidate in probe.candidates]


def _lengths(probe: Probe) -> Scores:
    return [len(candidate) for candidate in probe.candidates]


def _ranks(probe: Probe) -> Scores:
    """Ranks by alphabet; numbers by size."""
    keys = [
        NUMBER.sub(lambda number: number[0].zfill(12), folded(candidate)) for candidate in probe.candidates
    ]
    order = sorted(keys)
    return [order.index(key) for key in keys]


def _middle(probe: Probe) -> Scores:
    centre = len(probe.distractors) / 2
    return [-abs(rank - centre) for rank in _ranks(probe)]


def _named_in_prompt(bank: FactBank, probe: Probe) -> str:
    """The subject; if the probe asks for the subject, the object."""
    fact = bank.fact_by_id[probe.fact_ids[0]]
    return fact.object if probe.answers[0] == fact.subject else (fact.subject or "")


def _alike_to(probe: Probe, name: str) -> Scores:
    return [alike(candidate, name) for candidate in probe.candidates]


def _alike_to_others(probe: Probe) -> Scores:
    """How many of the candidates have the pairs of letters of each one, on average."""
    pairs = [_letter_pairs(candidate) for candidate in probe.candidates]
    times = Counter(pair for of_candidate in pairs for pair in of_candidate)
    return [sum(map(times.__getitem__, of_candidate)) / len(of_candidate) for of_candidate in pairs]


def alike(first: str, second: str) -> float:
    """Dice's coefficient of the pairs of neighbouring letters, from 0 to 1."""
    pairs, others = _letter_pairs(first), _letter_pairs(second)
    return 2 * len(pairs & others) / (len(pairs) + len(others))


@cache
def _letter_pairs(text: str) -> frozenset[str]:
    # the marks make first and last letter count, and a pair of any text
    text = f"^{folded(text)}$"
    return frozenset(text[start : start + 2] for start in range(len(text) - 1))
