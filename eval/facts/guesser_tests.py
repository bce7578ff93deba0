"""Tests of guessers: whether any of them, knowing no facts, is right more often than chance.

    for test in guesser_tests(bank): print(test.line)

The share that a guesser gets right is compared with chance, for each probe type and group. The interval is
Wilson's with the effective number of probes, since the probes of one subject are correlated: n_eff =
p(1 - p) / v with v the variance over subjects (linearisation), at most the number of probes, and the quantile
of t with subjects - 1 degrees of freedom. A bank has hundreds of such tests; `LEVEL` is the probability that
one or more of them refuses a bank without a leak, by Bonferroni's correction.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.guessers import guess, probes_to_guess
from tidy_stlms.eval.facts.integrity import Finding
from tidy_stlms.eval.facts.records import Probe

LEVEL = 0.001


@dataclass(frozen=True)
class GuesserTest:
    """What one guesser gets in the probes of one type about one group."""

    guesser: str
    type: str
    group: str
    """injected, control, an arm, or a relation of injected facts."""
    probes: int
    subjects: int
    share: float
    """The share of right guesses; a tie among k counts 1/k."""
    low: float
    """Lower end of the interval, which holds for all tests of the bank together."""
    high: float
    chance: float
    detected: float
    """The smallest share that would count as above chance in this test."""

    @property
    def beats_chance(self) -> bool:
        return self.low > self.chance

    @property
    def line(self) -> str:
        return (
            f"{self.guesser}, {self.type} ({self.group}): {self.share:.2f} "
            f"[{self.low:.2f}, {self.high:.2f}], chance {self.chance:.2f}"
        )


def guesser_tests(bank: FactBank) -> list[GuesserTest]:
    """All tests of a bank, first the one whose interval starts highest above chance.

    Groups with fewer than two subjects are left out: they have no interval.
    """
    credits = guess(bank)
    samples = []
    for key, pairs in _groups(bank).items():
        for name, of_probe in credits.items():
            sample = [(probe, subject) for probe, subject in pairs if probe.id in of_probe]
            if len({subject for _, subject in sample}) > 1:
                samples.append((name, key, sample))
    tests = [
        _test(name, key, sample, [credits[name][probe.id] for probe, _ in sample], LEVEL / len(samples))
        for name, key, sample in samples
    ]
    return sorted(tests, key=lambda test: test.chance - test.low)


def guessable(tests: Iterable[GuesserTest]) -> Iterator[Finding]:
    """A warning for each guesser that beats chance, about the bank as a whole; the clearest case is named."""
    named = set()
    for test in tests:
        if test.beats_chance and test.guesser not in named:
            named.add(test.guesser)
            problem = (
                f'a guesser that knows no facts ("{test.guesser}") is right in {test.share:.2f} '
                f"[{test.low:.2f}, {test.high:.2f}] of {test.probes} {test.type} probes ({test.group}), "
                f"where chance is {test.chance:.2f}"
            )
            yield Finding("warning", "guessable", "probes.jsonl", (), problem)


def best_guesser_in_words(tests: Sequence[GuesserTest]) -> str:
    """The first test in one line, and the shares that count as above chance in all tests."""
    best, limits = tests[0], [test.detected for test in tests]
    return (
        f"best of {len({test.guesser for test in tests})} guessers that know no facts: {best.line} (all "
        f"intervals of {len(tests)} tests hold together at {1 - LEVEL:.1%}; a leak is noticed from a share "
        f"of {min(limits):.2f} in the most exact test, of {max(limits):.2f} in the least exact one)"
    )


def share_interval(
    share: float, variance: float, probes: int, subjects: int, level: float
) -> tuple[float, float, float]:
    """Wilson's interval of a share with the effective number of probes, and that number.

    `level` is the probability of each tail.
    """
    spread = share * (1 - share)
    effective = subjects if spread <= 0 else probes if variance <= 0 else min(probes, spread / variance)
    t = stats.t.ppf(1 - level, subjects - 1)
    centre = (share + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t / (1 + t**2 / effective) * sqrt(spread / effective + t**2 / (4 * effective**2))
    return float(centre - half), float(centre + half), float(effective)


def _groups(bank: FactBank) -> dict[tuple[str, str], list[tuple[Probe, str]]]:
    """Probes with their subjects by type and group: a role, and of injected facts also each arm and relation
    where there are several. In the mean over all relations, a leak of one of them may be lost."""
    arms = {fact.arm for fact in bank.injected_facts()}
    relations = {fact.relation for fact in bank.injected_facts()}
    groups: dict[tuple[str, str], list[tuple[Probe, str]]] = defaultdict(list)
    for probe in probes_to_guess(bank):
        fact = bank.fact_by_id[probe.fact_ids[0]]
        pair = (probe, bank.subject_of(probe))
        groups[probe.type, fact.role].append(pair)
        if len(arms) > 1 and fact.role == "injected" and fact.arm is not None:
            groups[probe.type, f"arm {fact.arm}"].append(pair)
        if len(relations) > 1 and fact.role == "injected" and fact.relation is not None:
            groups[probe.type, f"relation {fact.relation}"].append(pair)
    return groups


def _test(
    guesser: str,
    key: tuple[str, str],
    sample: Sequence[tuple[Probe, str]],
    credits: Sequence[float],
    level: float,
) -> GuesserTest:
    names = {
        subject: number for number, subject in enumerate(dict.fromkeys(subject for _, subject in sample))
    }
    size = len(names)
    share = float(np.mean(credits))
    residuals = np.zeros(size)
    np.add.at(residuals, [names[subject] for _, subject in sample], np.asarray(credits) - share)
    variance = float((residuals**2).sum() / len(sample) ** 2 * size / (size - 1))
    low, high, effective = share_interval(share, variance, len(sample), size, level)
    chance = float(np.mean([1 / (1 + len(probe.distractors)) for probe, _ in sample]))
    t = stats.t.ppf(1 - level, size - 1)
    detected = min(1.0, chance + float(t) * sqrt(chance * (1 - chance) / effective))
    return GuesserTest(guesser, *key, len(sample), size, share, low, high, chance, detected)
