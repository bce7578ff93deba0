"""Answers: the pool of each relation, and which of its answers each subject has.

Injected and control subjects share a pool, and every answer is as frequent as every other in either role. If
each role had its own pool, only the injected answers would become familiar in training. Accuracy on control
facts would then no longer show how well a model guesses the injected ones without having read them.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.arms import SIZE_KEYS, exposures_differ, group_sizes
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.sources import source_values, without_prefixed, word_runs
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, RelationSpec, Spec
from tidy_stlms.eval.facts.generate.subjects import Groups, Subject
from tidy_stlms.eval.facts.records import UNSEEN
from tidy_stlms.eval.facts.text_match import folded, parts_of

# After this many failed swaps, a subject counts as having no set of different answers.
FRUITLESS_SWAPS = 1000


@dataclass(frozen=True)
class Pool:
    """The answers of one relation, sorted."""

    seen: list[str]
    """Those of injected and control subjects."""
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
    sizes = group_sizes(spec)
    # Where exposures differ, every arm must have every answer. Otherwise the answers of an arm with many
    # exposures would be read more often than the distractors beside them.
    shared_by = len(spec.arms) if exposures_differ(spec) else 1
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
        arms = 1 if relation.unique else shared_by
        pools[name] = answer_pool(
            relation.answers,
            min(relation.pool_size, spec.people // arms),
            spec.people,
            spec.distractors + relation.objects,
            f"relations.{name}",
            spec.seed,
            unseen=spec.unseen_control,
            clashes=_overlaps(in_same_passage) if in_same_passage else None,
            shared_by=arms,
        )
        if relation.unique:
            _check_unique(name, pools[name], sizes)
    return pools


def answer_pool(
    answers: AnswerSpec,
    size: int,
    subjects: int,
    least: int,
    key: str,
    seed: int,
    *,
    unseen: int = 0,
    clashes: Callable[[str], bool] | None = None,
    shared_by: int = 1,
) -> Pool:
    """Draw the answers of one relation: at least `least` and at most `size`.

    Their number divides `subjects`, the number of injected ones, so that each is the answer of equally many.
    If one answer were twice as frequent as another, its frequency alone would tell it from its distractors.
    `unseen` control subjects share answers of their own.

    Answers for which `clashes` is true are left out. `key` is the spec's key, for the draws and for messages;
    `shared_by` is the number of arms that have all answers, for a message.
    """
    size = min(size, subjects)
    # more than are needed, as those that begin with another answer are dropped
    possible = _possible_answers(answers, 2 * size + 2 * unseen, key, seed)
    if clashes is not None:
        possible = [answer for answer in possible if not clashes(answer)]
    most = min(size, len(possible) - (least if unseen else 0))
    if most < least:
        also = f" beside {least} unseen ones" if unseen else ""
        also += f" for each of {shared_by} arms, whose exposures differ," if shared_by > 1 else ""
        raise UserError(
            f"{key}: a pool of {max(most, 0)} answers{also} is too small, a right answer and the "
            f"distractors need {least}; widen answers, pool_size or people"
        )
    pool_size = _largest_share(subjects, most, least)
    if pool_size is None:
        better = next(n for n in range(subjects, 2 * subjects + 1) if _largest_share(n, most, least))
        raise UserError(
            f"{key}: no pool of {least} to {most} answers gives {subjects} people an equal share; "
            f"use people={better}, or another pool_size or distractors"
        )
    seen = sorted(rng(seed, key, "pool").sample(possible, pool_size))
    rest = sorted(set(possible) - set(seen))
    return Pool(seen, _unseen_answers(rest, unseen, size, least, key, seed) if unseen else [])


def deal_answers(relations: Mapping[str, RelationSpec], pools: Pools, groups: Groups, seed: int) -> Answers:
    """The answers of every subject, relation after relation."""
    answers: Answers = {}
    for name, relation in sorted(relations.items()):
        key = f"relations.{name}"
        for group, arms in groups.items():
            if not arms:
                continue
            draw = rng(seed, name, group, "answers")
            if name in pools:
                sizes = [len(subjects) for subjects in arms]
                dealt = deal_from_pool(pools[name].of_group(group), sizes, relation.objects, key, draw)
            else:
                dealt = _deal_subjects(arms, key, draw)
            for subject, objects in zip(chain(*arms), dealt, strict=True):
                answers[subject.name, name] = objects
    return answers


def deal_from_pool(
    pool: list[str], sizes: list[int], objects: int, key: str, draw: random.Random
) -> list[tuple[str, ...]]:
    """`objects` different answers for each of `sum(sizes)` subjects, every answer as often as every other.

    `sizes` are those of the arms. Within each arm, too, one answer comes at most once more than another. The
    number of control subjects need not be a multiple of the pool. Then some answers are drawn once more, by
    chance, so that this does not depend on how often they are injected.
    """
    rounds = [_equal_shares(pool, sizes, draw)]
    for _ in range(objects - 1):
        answers = _equal_shares(pool, sizes, draw)
        _swap_repeated(answers, rounds, sizes, key, draw)
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


def _unseen_answers(rest: list[str], subjects: int, size: int, least: int, key: str, seed: int) -> list[str]:
    """Answers for the subjects of arm `unseen`, from the `rest` that no injected or control subject has."""
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


def _overlaps(answers: list[str]) -> Callable[[str], bool]:
    """Whether an answer occurs in one of `answers` as whole words, or one of them occurs in it."""
    whole = {tuple(parts_of(folded(answer))) for answer in answers}
    parts = {run for words in whole for run in word_runs(words)}

    def overlaps(answer: str) -> bool:
        words = tuple(parts_of(folded(answer)))
        return words in parts or any(run in whole for run in word_runs(words))

    return overlaps


def _equal_shares(pool: list[str], sizes: list[int], draw: random.Random) -> list[str]:
    count = sum(sizes)
    if len(sizes) == 1:
        answers = pool * (count // len(pool)) + draw.sample(pool, count % len(pool))
    else:
        # the same order over and over: any stretch of it has every answer equally often, give or take one
        order = draw.sample(pool, len(pool))
        answers = [order[index % len(order)] for index in range(count)]
    dealt: list[str] = []
    for size in sizes:
        arm_answers = answers[len(dealt) : len(dealt) + size]
        draw.shuffle(arm_answers)
        dealt += arm_answers
    return dealt


def _swap_repeated(
    answers: list[str], rounds: list[list[str]], sizes: list[int], key: str, draw: random.Random
) -> None:
    """Swap answers within each arm until no subject has one that it was dealt in an earlier round."""

    def has_already(subject: int, answer: str) -> bool:
        return any(earlier[subject] == answer for earlier in rounds)

    start = 0
    for size in sizes:
        for subject in range(start, start + size):
            tries = 0
            while has_already(subject, answers[subject]):
                partner = start + draw.randrange(size)
                if not (has_already(subject, answers[partner]) or has_already(partner, answers[subject])):
                    answers[subject], answers[partner] = answers[partner], answers[subject]
                tries += 1
                if tries == FRUITLESS_SWAPS:
                    raise UserError(f"{key}.objects: too few answers to give everyone different ones")
        start += size


def _deal_subjects(arms: list[list[Subject]], key: str, draw: random.Random) -> list[tuple[str, ...]]:
    """Another subject of the same arm for each one.

    All subjects of an arm form one ring, so that a chain of hops does not come back early to its beginning.
    """
    dealt: list[tuple[str, ...]] = []
    for subjects in arms:
        if len(subjects) < 3:
            raise UserError(
                f"{key}.answers.subjects: needs 3 people in each role and arm, one has {len(subjects)}; "
                "raise people and control, or take fewer arms"
            )
        ring = [subject.name for subject in subjects]
        draw.shuffle(ring)
        next_in_ring = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
        dealt += [(next_in_ring[subject.name],) for subject in subjects]
    return dealt
