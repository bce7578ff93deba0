"""Answers: the pool of each relation, and which of its answers each subject has.

Injected and control subjects share a pool, and every answer is as frequent as every other in either role. If
each role had its own pool, only the injected answers would become familiar in training. Accuracy on control
facts would then no longer show how well a model guesses the injected ones without having read them.

Each cell of injected subjects (an arm's subjects with trained questions, and those without) has a part of the
pool, each answer of it equally often, and its distractors come from the same part (`candidates.py`). So
whatever is drawn together as candidates of a probe, each of them is right equally often.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.arms import SIZE_KEYS, exposures_differ, group_sizes, injected_cells
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
    parts: list[int]
    """How many of them each cell of injected subjects has."""
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
        pools[name] = answer_pool(
            relation.answers,
            relation.pool_size,
            spec.people,
            spec.distractors + relation.objects,
            f"relations.{name}",
            spec.seed,
            cells=lambda people: [cell.size for cell in injected_cells(spec, people)],
            unseen=spec.unseen_control,
            clashes=_overlaps(in_same_passage) if in_same_passage else None,
            # Where exposures differ, every arm has every answer. Otherwise control subjects would be offered
            # answers that were read often beside others that were not.
            same_answers=exposures_differ(spec) and not relation.unique,
            conclusions=partial(_conclusions, relation, f"relations.{name}"),
        )
        if relation.unique:
            _check_unique(name, pools[name], sizes)
    return pools


def one_cell(people: int) -> list[int]:
    """The sizes of the cells where all subjects are alike."""
    return [people]


def answer_pool(
    answers: AnswerSpec,
    size: int,
    people: int,
    least: int,
    key: str,
    seed: int,
    *,
    cells: Callable[[int], list[int]] = one_cell,
    unseen: int = 0,
    clashes: Callable[[str], bool] | None = None,
    same_answers: bool = False,
    conclusions: Callable[[list[str]], list[dict[str, str]]] | None = None,
) -> Pool:
    """Draw the answers of one relation: at least `least` and at most `size`.

    `cells` gives the sizes of the cells that a number of injected people makes. The number of answers of each
    cell divides its size, so that each is the answer of equally many. If one answer were twice as frequent as
    another, its frequency alone would tell it from its distractors. `unseen` control subjects share answers
    of their own.

    Answers for which `clashes` is true are left out. `key` is the spec's key, for the draws and for messages.
    With `same_answers` the pool is no larger than the largest part of a cell. `conclusions` gives what
    follows from each of the possible answers, a mapping for each kind of conclusion: in the pool, those of
    each kind are equally frequent, or nearly so.
    """
    size = min(size, people)
    # more than are needed, as those that begin with another answer are dropped
    possible = _possible_answers(answers, 2 * size + 2 * unseen, key, seed)
    if clashes is not None:
        possible = [answer for answer in possible if not clashes(answer)]
    most = min(size, len(possible) - (least if unseen else 0))
    if most < least:
        also = f" beside {least} unseen ones" if unseen else ""
        raise UserError(
            f"{key}: a pool of {max(most, 0)} answers{also} is too small, a right answer and the "
            f"distractors need {least}; widen answers, pool_size or people"
        )
    parts = _parts_of_cells(cells(people), most, least)
    if parts is None:
        uneven = next(size for size in cells(people) if _largest_share(size, most, least) is None)
        of_people = f", {uneven} of whom are alike," if uneven < people else ""
        possible_numbers = range(people, 3 * people + 1)
        better = next((n for n in possible_numbers if _parts_of_cells(cells(n), most, least)), None)
        remedy = f"people={better}, or another" if better else "another number of people,"
        raise UserError(
            f"{key}: no pool of {least} to {most} answers gives {people} people{of_people} an equal share; "
            f"use {remedy} pool_size or distractors"
        )
    pool_size = max(parts) if same_answers else _pool_size(parts, most)
    draw = rng(seed, key, "pool")
    kinds = conclusions(possible) if conclusions is not None else []
    seen = sorted(
        _even_sample(possible, pool_size, kinds, draw) if kinds else draw.sample(possible, pool_size)
    )
    rest = sorted(set(possible) - set(seen))
    return Pool(seen, parts, _unseen_answers(rest, unseen, size, least, key, seed) if unseen else [])


def deal_answers(relations: Mapping[str, RelationSpec], pools: Pools, groups: Groups, seed: int) -> Answers:
    """The answers of every subject, relation after relation."""
    answers: Answers = {}
    for name, relation in sorted(relations.items()):
        key = f"relations.{name}"
        for group, cells in groups.items():
            if not cells:
                continue
            draw = rng(seed, name, group, "answers")
            if group != "injected":  # no run trains on their statements, so they are all alike
                cells = [list(chain(*cells))]
            if name not in pools:
                dealt = _deal_subjects(cells, key, draw)
            else:
                parts = _cell_answers(pools[name], cells, draw) if group == "injected" else None
                dealt = [
                    objects
                    for number, subjects in enumerate(cells)
                    for objects in deal_from_pool(
                        parts[number] if parts else pools[name].of_group(group),
                        len(subjects),
                        relation.objects,
                        key,
                        draw,
                    )
                ]
            for subject, objects in zip(chain(*cells), dealt, strict=True):
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


def _parts_of_cells(cells: list[int], most: int, least: int) -> list[int] | None:
    """How many answers each cell has, or None if a cell has no equal share."""
    parts = [_largest_share(size, most, least) for size in cells]
    return None if None in parts else [part for part in parts if part is not None]


def _pool_size(parts: list[int], most: int) -> int:
    """The largest pool that `parts` use up, each answer of it in equally many of them if that can be had."""
    total = sum(parts)
    return _largest_share(total, most, max(parts)) or min(total, most)


def _cell_answers(pool: Pool, cells: list[list[Subject]], draw: random.Random) -> list[list[str]]:
    """Each cell's part of the pool.

    The same order over and over, so that all answers are in equally many cells: first for the cells with
    trained questions, then for the others, which have their arms in reversed order. So with two such cells
    an arm has different answers in them where the pool is large enough.
    """
    if len(cells) == 1:
        return [pool.seen]
    asked = [number for number, subjects in enumerate(cells) if subjects[0].questioned]
    others = [number for number, subjects in enumerate(cells) if not subjects[0].questioned]
    order = draw.sample(pool.seen, len(pool.seen))
    answers: list[list[str]] = [[] for _ in cells]
    start = 0
    for number in (*asked, *(reversed(others) if asked else others)):
        part = pool.parts[number]
        answers[number] = [order[index % len(order)] for index in range(start, start + part)]
        start += part
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


def _deal_subjects(cells: list[list[Subject]], key: str, draw: random.Random) -> list[tuple[str, ...]]:
    """Another subject of the same cell for each one.

    All subjects of a cell form one ring, so that a chain of hops does not come back early to its beginning.
    """
    dealt: list[tuple[str, ...]] = []
    for subjects in cells:
        if len(subjects) < 3:
            raise UserError(
                f"{key}.answers.subjects: needs 3 people in each role and arm, one part has {len(subjects)}; "
                "raise people and control, or take fewer arms"
            )
        ring = [subject.name for subject in subjects]
        draw.shuffle(ring)
        next_in_ring = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
        dealt += [(next_in_ring[subject.name],) for subject in subjects]
    return dealt
