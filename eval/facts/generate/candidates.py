"""Distractors: the wrong answers that are offered beside the right one.

Distractors are drawn evenly from values that are as familiar to a model as the answer is, so that without the
fact no candidate looks better than another. For an injected subject they are answers, or names, of its cohort
(`arms.py`). Those of other cohorts are read more or less often, in other wordings or in other places. For a
control subject they are answers of the pool, or names of control subjects: injected names occur in training,
control names do not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.answers import Answers, Pools
from tidy_stlms.eval.facts.generate.conclusions import Conclusions
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.spec import RelationSpec
from tidy_stlms.eval.facts.generate.subjects import Groups, Subject
from tidy_stlms.eval.facts.generate.topics import SUBJECT


class Choices:
    """The values that fit one place of a template."""

    def __init__(self, values: Sequence[str]):
        self.values = values
        self.index = {value: index for index, value in enumerate(values)}

    def draw(self, excluded: Iterable[str], count: int, probe_id: str, seed: int) -> tuple[str, ...]:
        """`count` different values, all but the excluded ones equally probable, in random order."""
        gaps = sorted({self.index[value] for value in excluded if value in self.index})
        left = len(self.values) - len(gaps)
        if left < count:
            raise UserError(
                f"people: {probe_id!r} has {left} possible distractors, distractors={count} needs as many; "
                "raise people or take fewer distractors"
            )
        chosen = []
        # draws from as many indices as are left, then maps each one past the excluded ones
        for index in rng(seed, probe_id).sample(range(left), count):
            for gap in gaps:
                index += index >= gap
            chosen.append(self.values[index])
        return tuple(chosen)


@dataclass(frozen=True)
class Candidates:
    """What is offered in probes about the subjects of one cohort, or of one group that is not injected."""

    choices: Mapping[str, Choices]
    """By place: "subject" or a relation."""
    conclusions: Mapping[tuple[str, str], Conclusions]
    """By relation and name."""
    count: int
    """Distractors of a probe."""
    seed: int

    def distractors(self, probe_id: str, asked: str, excluded: Iterable[str]) -> tuple[str, ...]:
        return self.choices[asked].draw(excluded, self.count, probe_id, self.seed)

    def wrong_conclusions(self, probe_id: str, relation: str, name: str, conclusion: str) -> tuple[str, ...]:
        draw = rng(self.seed, probe_id)
        return self.conclusions[relation, name].distractors(conclusion, self.count, draw)


def offer_candidates(
    relations: Mapping[str, RelationSpec],
    pools: Pools,
    groups: Groups,
    answers: Answers,
    *,
    distractors: int,
    seed: int,
) -> dict[str, Candidates]:
    """The candidates of every subject, by name.

    Args:
        relations: The relations of the spec.
        pools: Their answers.
        groups: The subjects by group.
        answers: The answers of each subject.
        distractors: The number of distractors of a probe.
        seed: The bank's seed.
    """
    candidates = {}
    for group, subjects in _offered_alike(groups):
        names = Choices([subject.name for subject in subjects])
        choices, conclusions = {SUBJECT: names}, {}
        for name, relation in relations.items():
            if name not in pools:  # the answers are subjects
                choices[name] = names
                continue
            values = pools[name].of_group(group)
            if group == "injected":
                values = sorted({text for subject in subjects for text in answers[subject.name, name]})
            choices[name] = Choices(values)
            for derived in relation.derived:
                conclusions[name, derived] = Conclusions(relation, f"relations.{name}", derived, values)
        offered = Candidates(choices, conclusions, distractors, seed)
        candidates.update({subject.name: offered for subject in subjects})
    return candidates


def identifying_relations(
    relations: Mapping[str, RelationSpec], pools: Pools, groups: Groups
) -> frozenset[str]:
    """The relations whose answers are unique to one subject of each group.

    A reversal probe needs at least one of them in its prompt. If three of a bank's subjects are bakers, three
    names are right for the baker, and a model that knows them all is marked down for two of them. A
    relation counts for all groups or for none, since control subjects must be asked as injected ones are.
    """
    shared = {
        name
        for name, pool in pools.items()
        for group, cohorts in groups.items()
        if relations[name].objects * sum(map(len, cohorts)) > len(pool.of_group(group))
    }
    return frozenset(relations.keys() - shared)


def _offered_alike(groups: Groups) -> list[tuple[str, list[Subject]]]:
    """The subjects that have the same candidates: each cohort of the injected group, each other group."""
    alike = []
    for group, cohorts in groups.items():
        together = cohorts if group == "injected" else [list(chain(*cohorts))]
        alike += [(group, subjects) for subjects in together if subjects]
    return alike
