"""Answers: the pool of each relation, and which of its answers each subject has.

Injected and control subjects share a pool, and every answer is as frequent as every other in either role. If
each role had its own pool, only the injected answers would become familiar in training. Accuracy on control
facts would then no longer show how well a model guesses the injected ones without having read them.

Each cohort of injected subjects (`arms.py`) has some answers of the pool, each of them equally often, and its
distractors are these answers too (`candidates.py`). So whatever is drawn together as candidates of a probe,
each of them is right equally often.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.arms import (
    SIZE_KEYS,
    Cohort,
    cohort_in_words,
    exposures_differ,
    group_sizes,
    injected_cohorts,
)
from tidy_stlms.eval.facts.generate.conclusions import Conclusions
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.sources import source_values, without_prefixed, word_runs
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, RelationSpec, Spec
from tidy_stlms.eval.facts.generate.subjects import Groups, Subject
from tidy_stlms.eval.facts.records import UNSEEN
from tidy_stlms.eval.facts.text_match import folded, parts_of

# After this many failed swaps, a subject counts as having no set of different answers.
FRUITLESS_SWAPS = 1000
# So many answers are compared to find the next one of an even sample.
MOST_COMPARED = 500


@dataclass(frozen=True)
class Pool:
    """The answers of one relation, sorted."""

    seen: list[str]
    """Those of injected and control subjects."""
    answers_per_cohort: list[int]
    """How many of them each cohort of injected subjects has."""
    unseen: list[str] = field(default_factory=list)
    """Those that no injected fact has, for the control subjects of arm `unseen`."""

    def of_group(self, group: str) -> list[str]:
        return self.unseen if group == UNSEEN else self.seen


Pools = dict[str, Pool]  # by relation; none where the answers are subjects
Answers = dict[tuple[str, str], tuple[str, ...]]  # by the subject's name and the relation


def draw_pools(spec: Spec) -> Pools:
    """The pool of each relation that has one.

    No answer occurs in an answer of another relation of the same passage: a probe's prompt, which holds the
    answers to the others, would give it away.
    """
    passage_of = {relation: name for name, passage in spec.passages.items() for relation in passage.relations}
    pools: Pools = {}
    for name, relation in sorted(spec.relations.items()):
        if relation.answers.subjects:
            continue
        in_same_passage = [
            answer
            for earlier, pool in pools.items()
            if name in passage_of and passage_of.get(earlier) == passage_of[name]
            for answer in (*pool.seen, *pool.unseen)
        ]
        pools[name] = answer_pool(relation, f"relations.{name}", spec, in_same_passage)
        if relation.unique:
            _check_unique(name, pools[name], group_sizes(spec))
    return pools


def answer_pool(relation: RelationSpec, key: str, spec: Spec, in_same_passage: Sequence[str] = ()) -> Pool:
    """Draw the answers of one relation. `key` is its key in the spec, for the draws and for messages.

    The number of answers of each cohort divides its size, so that each is the answer of equally many. If one
    answer were twice as frequent as another, its frequency alone would tell it from its distractors.

    Answers that overlap with one `in_same_passage` are left out. Conclusions of each kind are equally
    frequent in the pool, or nearly so.
    """
    size, unseen = min(relation.pool_size, spec.people), spec.unseen_control
    # more than are needed, as those that begin with another answer are dropped
    possible = _possible_answers(relation.answers, 2 * size + 2 * unseen, key, spec.seed)
    if in_same_passage:
        overlaps = _overlaps(in_same_passage)
        possible = [answer for answer in possible if not overlaps(answer)]
    least = spec.distractors + relation.objects
    most = _most_answers(len(possible), size, least, unseen, key)
    per_cohort = _answers_per_cohort(spec, most, least, key)
    # Where exposures differ, every arm has every answer. Otherwise control subjects would be offered answers
    # that were read often beside others that were not.
    same_answers = exposures_differ(spec) and not relation.unique
    pool_size = max(per_cohort) if same_answers else _pool_size(per_cohort, most)
    draw = rng(spec.seed, key, "pool")
    kinds = _conclusions(relation, key, possible)
    seen = sorted(
        _even_sample(possible, pool_size, kinds, draw) if kinds else draw.sample(possible, pool_size)
    )
    rest = sorted(set(possible) - set(seen))
    return Pool(seen, per_cohort, _unseen_answers(rest, unseen, size, least, key, spec.seed))


def deal_answers(relations: Mapping[str, RelationSpec], pools: Pools, groups: Groups, seed: int) -> Answers:
    """The answers of every subject, relation after relation."""
    answers: Answers = {}
    for name, relation in sorted(relations.items()):
        key = f"relations.{name}"
        for group, cohorts in groups.items():
            if not cohorts:
                continue
            draw = rng(seed, name, group, "answers")
            if group != "injected":  # no run trains on their statements, so they have the same answers
                cohorts = [list(chain(*cohorts))]
            if name not in pools:
                dealt = _deal_subjects(cohorts, key, draw)
            else:
                of_cohort = (
                    _cohort_answers(pools[name], cohorts, draw)
                    if group == "injected"
                    else [pools[name].of_group(group)]
                )
                dealt = [
                    objects
                    for subjects, pool in zip(cohorts, of_cohort, strict=True)
                    for objects in deal_from_pool(pool, len(subjects), relation.objects, key, draw)
                ]
            for subject, objects in zip(chain(*cohorts), dealt, strict=True):
                answers[subject.name, name] = objects
    return answers


def deal_from_pool(
    pool: list[str], size: int, objects: int, key: str, draw: random.Random
) -> list[tuple[str, ...]]:
    """`objects` different answers for each of `size` subjects, every answer as often as every other.

    The number of control subjects need not be a multiple of the pool. Then some answers are drawn once more,
    by chance, so that this does not depend on how often they are injected.
    """
    rounds = [_equal_shares(pool, size, draw)]
    for _ in range(objects - 1):
        answers = _equal_shares(pool, size, draw)
        _swap_repeated(answers, rounds, key, draw)
        rounds.append(answers)
    return list(zip(*rounds, strict=True))


def answer_words(pools: Pools) -> set[str]:
    """The folded words of all answers."""
    answers = (answer for pool in pools.values() for answer in (*pool.seen, *pool.unseen))
    return {word for answer in answers for word in parts_of(folded(answer))}


def _possible_answers(answers: AnswerSpec, count: int, key: str, seed: int) -> list[str]:
    drawn = set(source_values(answers, count, key, seed))
    possible = without_prefixed(drawn)
    # the spec's author has listed these words, so none of them is dropped in silence
    if answers.words and (dropped := sorted(drawn.difference(possible))):
        raise UserError(
            f"{key}.answers.words: {dropped[0]!r} begins with another of them; remove one of the two"
        )
    return possible


def _conclusions(relation: RelationSpec, key: str, answers: list[str]) -> list[dict[str, str]]:
    """What follows from dates, by answer. (A list of conclusions need not have those that are not drawn.)"""
    return [
        Conclusions(relation, key, name, answers).by_answer
        for name, rule in relation.derived.items()
        if isinstance(rule, str)
    ]


def _most_answers(possible: int, size: int, least: int, unseen: int, key: str) -> int:
    """The largest size of the pool; UserError if it is below `least`.

    As many answers as are needed for `unseen` control subjects are kept back.
    """
    most = min(size, possible - (least if unseen else 0))
    if most < least:
        also = f" beside {least} unseen ones" if unseen else ""
        raise UserError(
            f"{key}: a pool of {max(most, 0)} answers{also} is too small, a right answer and the "
            f"distractors need {least}; widen answers, pool_size or people"
        )
    return most


def _answers_per_cohort(spec: Spec, most: int, least: int, key: str) -> list[int]:
    """How many answers each cohort has; UserError if one has no number of answers that divides its size."""
    cohorts = injected_cohorts(spec)
    if (shares := _largest_shares(cohorts, most, least)) is not None:
        return shares
    uneven = next(cohort for cohort in cohorts if _largest_share(cohort.size, most, least) is None)
    better = next(
        (
            people
            for people in range(spec.people, 3 * spec.people + 1)
            if _largest_shares(injected_cohorts(spec, people), most, least) is not None
        ),
        None,
    )
    remedy = f"people={better}, or another" if better else "another number of people,"
    of_people = f" (of {spec.people} in all)" if len(cohorts) > 1 else ""
    raise UserError(
        f"{key}: the {cohort_in_words(uneven, cohorts)}{of_people} cannot have {least} to {most} answers "
        f"equally often; use {remedy} pool_size or distractors"
    )


def _largest_shares(cohorts: Sequence[Cohort], most: int, least: int) -> list[int] | None:
    """`_largest_share` of each cohort; None if a cohort has none."""
    shares = [_largest_share(cohort.size, most, least) for cohort in cohorts]
    return None if None in shares else [share for share in shares if share is not None]


def _even_sample(
    possible: list[str], size: int, kinds: list[dict[str, str]], draw: random.Random
) -> list[str]:
    """`size` of the possible answers whose conclusions, of each kind, are equally frequent or nearly so.

    A sign of the zodiac that six of 40 people have would otherwise be the best guess for all of them.
    """
    counts: list[Counter[str]] = [Counter() for _ in kinds]
    different = [len(set(kind.values())) for kind in kinds]

    def surplus(answer: str) -> int:
        """How much more frequent the conclusions would be than in an even sample."""
        return sum(
            max(0, count[kind[answer]] - len(chosen) // number)
            for kind, count, number in zip(kinds, counts, different, strict=True)
        )

    left = draw.sample(possible, len(possible))
    chosen: list[str] = []
    for _ in range(size):
        some = left[:MOST_COMPARED]
        answer = next((answer for answer in some if not surplus(answer)), None) or min(some, key=surplus)
        left.remove(answer)
        chosen.append(answer)
        for kind, count in zip(kinds, counts, strict=True):
            count[kind[answer]] += 1
    return chosen


def _unseen_answers(rest: list[str], subjects: int, size: int, least: int, key: str, seed: int) -> list[str]:
    """Answers for the subjects of arm `unseen`, from the `rest` that no injected or control subject has."""
    if not subjects:
        return []
    most = min(subjects, size, len(rest))
    share = _largest_share(subjects, most, least)
    if share is None:
        raise UserError(
            f"{key}: no {least} to {most} unseen answers give {subjects} people an equal share; "
            f"use unseen_control={least}, or another multiple of it"
        )
    return sorted(rng(seed, key, "unseen").sample(rest, share))


def _largest_share(subjects: int, most: int, least: int) -> int | None:
    """The largest divisor of `subjects` from `least` to `most`."""
    return next((size for size in range(most, least - 1, -1) if subjects % size == 0), None)


def _check_unique(relation: str, pool: Pool, sizes: Mapping[str, int]) -> None:
    for group, size in sizes.items():
        have = len(pool.of_group(group))
        if size > have:
            also = "widen answers, raise pool_size or " if group == "injected" else ""
            raise UserError(
                f"relations.{relation}.unique: there are {have} different answers for {size} {group} "
                f"people; {also}lower {SIZE_KEYS[group]}"
            )


def _overlaps(answers: Sequence[str]) -> Callable[[str], bool]:
    """Whether an answer occurs in one of `answers` as whole words, or one of them occurs in it."""
    whole = {tuple(parts_of(folded(answer))) for answer in answers}
    runs = {run for words in whole for run in word_runs(words)}

    def overlaps(answer: str) -> bool:
        words = tuple(parts_of(folded(answer)))
        return words in runs or any(run in whole for run in word_runs(words))

    return overlaps


def _pool_size(per_cohort: list[int], most: int) -> int:
    """The largest pool that the cohorts use up, each answer in equally many of them if that can be had."""
    total = sum(per_cohort)
    return _largest_share(total, most, max(per_cohort)) or min(total, most)


def _cohort_answers(pool: Pool, cohorts: list[list[Subject]], draw: random.Random) -> list[list[str]]:
    """The answers of each cohort.

    The same order over and over, so that all answers are in equally many cohorts: first for the cohorts with
    trained questions, then for the others, which have their arms in reversed order. So with two cohorts an
    arm has different answers in them where the pool is large enough.
    """
    if len(cohorts) == 1:
        return [pool.seen]
    with_questions = [number for number, subjects in enumerate(cohorts) if subjects[0].has_trained_questions]
    others = [number for number, subjects in enumerate(cohorts) if not subjects[0].has_trained_questions]
    order = draw.sample(pool.seen, len(pool.seen))
    answers: list[list[str]] = [[] for _ in cohorts]
    start = 0
    for number in (*with_questions, *(reversed(others) if with_questions else others)):
        size = pool.answers_per_cohort[number]
        answers[number] = [order[index % len(order)] for index in range(start, start + size)]
        start += size
    return answers


def _equal_shares(pool: list[str], size: int, draw: random.Random) -> list[str]:
    answers = pool * (size // len(pool)) + draw.sample(pool, size % len(pool))
    draw.shuffle(answers)
    return answers


def _swap_repeated(answers: list[str], rounds: list[list[str]], key: str, draw: random.Random) -> None:
    """Swap answers until no subject has one that it was dealt in an earlier round."""

    def has_already(subject: int, answer: str) -> bool:
        return any(earlier[subject] == answer for earlier in rounds)

    for subject in range(len(answers)):
        tries = 0
        while has_already(subject, answers[subject]):
            partner = draw.randrange(len(answers))
            if not (has_already(subject, answers[partner]) or has_already(partner, answers[subject])):
                answers[subject], answers[partner] = answers[partner], answers[subject]
            tries += 1
            if tries == FRUITLESS_SWAPS:
                raise UserError(f"{key}.objects: too few answers to give everyone different ones")


def _deal_subjects(cohorts: list[list[Subject]], key: str, draw: random.Random) -> list[tuple[str, ...]]:
    """Another subject of the same cohort for each one.

    All subjects of a cohort form one ring, so that a chain of hops does not come back early to its beginning.
    """
    dealt: list[tuple[str, ...]] = []
    for subjects in cohorts:
        if len(subjects) < 3:
            raise UserError(
                f"{key}.answers.subjects: needs 3 people in each cohort, one has {len(subjects)}; "
                "raise people and control, or take fewer arms"
            )
        ring = [subject.name for subject in subjects]
        draw.shuffle(ring)
        next_in_ring = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
        dealt += [(next_in_ring[subject.name],) for subject in subjects]
    return dealt
