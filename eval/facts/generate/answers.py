"""Where answers come from: Faker providers, word lists, dates and numbers, all drawn from a seed."""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from math import prod
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, DateRange, NumberRange
from tidy_stlms.eval.facts.text_match import folded, holds_terminal

# not calendar.month_name, which follows the machine's language
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# Faker's lists end without saying so: this many draws in a row without a new value count as the end
FRUITLESS_DRAWS = 1000


@dataclass(frozen=True)
class Pool:
    """The answers of one relation, sorted."""

    seen: list[str]
    """Those of injected and control people."""
    unseen: list[str] = field(default_factory=list)
    """Those that no injected fact has, for the control people of arm `unseen`."""


def rng(seed: int, *what: object) -> random.Random:
    """A generator of its own for each purpose, so that the order in which they are used does not matter."""
    return random.Random(":".join(map(str, (seed, *what))))


def answer_pool(
    answers: AnswerSpec,
    size: int,
    people: int,
    least: int,
    key: str,
    seed: int,
    *,
    unseen: int = 0,
    clashes: Callable[[str], bool] | None = None,
    shared_by: int = 1,
) -> Pool:
    """Draw the answers of one relation: at least `least` and at most `size`.

    Their number divides `people`, so that each is had by equally many. Were one answer heard twice as
    often as another, that alone would tell gold from distractors. `unseen` people more share answers of
    their own. Answers for which `clashes` is true are left out. `shared_by` is the number of arms that hold
    all of them, for the message.
    """
    size = min(size, people)
    # a surplus, as those that begin with another answer fall out
    drawn = set(_candidates(answers, 2 * size + 2 * unseen, key, seed))
    candidates = without_prefixed(drawn)
    if answers.words and (lost := sorted(drawn.difference(candidates))):
        raise UserError(
            f"{key}.answers.words: {lost[0]!r} begins with another of them; remove one of the two"
        )
    if clashes is not None:
        candidates = [answer for answer in candidates if not clashes(answer)]
    most = min(size, len(candidates) - (least if unseen else 0))
    if most < least:
        also = f" beside {least} unseen ones" if unseen else ""
        also += f" for each of {shared_by} arms, whose exposures differ," if shared_by > 1 else ""
        raise UserError(
            f"{key}: a pool of {max(most, 0)} answers{also} is too small, a right answer and the "
            f"distractors need {least}; widen answers, pool_size or people"
        )
    pool_size = _largest_share(people, most, least)
    if pool_size is None:
        better = next(n for n in range(people, 2 * people + 1) if _largest_share(n, most, least))
        raise UserError(
            f"{key}: no pool of {least} to {most} answers gives {people} people an equal share; "
            f"use people={better}, or another pool_size or distractors"
        )
    seen = sorted(rng(seed, key, "pool").sample(candidates, pool_size))
    if not unseen:
        return Pool(seen)
    rest = sorted(set(candidates) - set(seen))
    most = min(unseen, size, len(rest))
    share = _largest_share(unseen, most, least)
    if share is None:
        raise UserError(
            f"{key}: no {least} to {most} unseen answers give {unseen} people an equal share; "
            f"use unseen_control={least}, or another multiple of it"
        )
    return Pool(seen, sorted(rng(seed, key, "unseen").sample(rest, share)))


def without_prefixed(values: Iterable[str]) -> list[str]:
    """Sorted, without values that begin with another one or differ from it in case only."""
    kept: list[str] = []
    # in this order all that begin with a value follow it at once
    for value in sorted(values, key=lambda value: (folded(value), value)):
        if not kept or not folded(value).startswith(folded(kept[-1])):
            kept.append(value)
    return kept


def runs(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All stretches of words that stand next to one another."""
    return [words[start:stop] for start in range(len(words)) for stop in range(start + 1, len(words) + 1)]


def faker_values(provider: str, locale: str, pattern: str, want: int, key: str, seed: int) -> list[str]:
    """Sorted different values of a Faker provider that match `pattern`: `want` of them, or all there are."""
    draw = _faker_provider(provider, locale, key, seed)
    values: set[str] = set()
    fruitless = 0
    while len(values) < want and fruitless < FRUITLESS_DRAWS:
        value = str(draw())
        if value not in values and re.fullmatch(pattern, value):
            values.add(value)
            fruitless = 0
        else:
            fruitless += 1
    return sorted(values)


def dates_of(span: DateRange, key: str) -> dict[str, date]:
    """All days of a range by the way they are written."""
    try:
        first, last = date.fromisoformat(span.first), date.fromisoformat(span.last)
    except ValueError:
        raise UserError(
            f"{key}: first and last must look like 1950-01-31, got {span.first} and {span.last}"
        ) from None
    if last < first:
        raise UserError(f"{key}: last must not be before first, got {span.first} and {span.last}")
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    try:
        return {
            span.format.format(day=day.day, month=MONTHS[day.month - 1], year=day.year): day for day in days
        }
    except (KeyError, IndexError, ValueError):
        raise UserError(
            f"{key}.format: may hold {{day}}, {{month}} and {{year}}, got {span.format!r}"
        ) from None


def _candidates(answers: AnswerSpec, want: int, key: str, seed: int) -> Iterator[str]:
    values: Iterable[str]
    if answers.faker is not None:
        values = faker_values(answers.faker, answers.locale, answers.pattern, want, f"{key}.answers", seed)
    elif answers.dates is not None:
        values = dates_of(answers.dates, f"{key}.answers.dates")
    elif answers.numbers is not None:
        values = _numbers(answers.numbers, want, f"{key}.answers.numbers", rng(seed, key, "numbers"))
    elif answers.parts:
        values = _combinations(answers.parts, want, rng(seed, key, "parts"))
    else:
        values = answers.words
    for value in values:
        if not re.fullmatch(answers.pattern, value):
            continue
        if answers.faker is None:
            sayable(value, f"{key}.answers")
        elif _problem(value):  # there are others
            continue
        yield value.lower() if answers.lower else value


def sayable(value: str, key: str) -> str:
    """The value, or UserError naming `key` for one that no wording can end with."""
    if problem := _problem(value):
        raise UserError(f"{key}: {value!r} {problem}; write it otherwise or remove it")
    return value


def _problem(value: str) -> str | None:
    if value != value.strip():
        return "begins or ends with a space"
    if holds_terminal(value):
        return "holds a full stop or the like, so that in a model's answer its end could not be told"
    return None


def _numbers(span: NumberRange, want: int, key: str, draw: random.Random) -> list[str]:
    if span.step < 1 or span.last < span.first:
        raise UserError(f"{key}: last must not be less than first, nor step less than 1")
    numbers = range(span.first, span.last + 1, span.step)
    try:
        return [span.format.format(number) for number in draw.sample(numbers, min(want, len(numbers)))]
    except (KeyError, IndexError, ValueError):
        raise UserError(f"{key}.format: must look like {{}} or {{:04d}}, got {span.format!r}") from None


def _combinations(parts: Sequence[Sequence[str]], want: int, draw: random.Random) -> list[str]:
    total = prod(len(part) for part in parts)
    values = []
    for number in draw.sample(range(total), min(want, total)):
        words = []
        for part in parts:
            number, place = divmod(number, len(part))
            words.append(part[place])
        values.append(" ".join(words))
    return values


def _faker_provider(provider: str, locale: str, key: str, seed: int) -> Callable[[], object]:
    try:
        faker = _faker(locale)
    except AttributeError:
        raise UserError(f"{key}.locale: Faker has no locale {locale!r}") from None
    known = {
        name
        for part in faker.get_providers()
        for name in dir(part)
        if not name.startswith("_") and callable(getattr(faker, name, None))
    }
    if provider not in known:
        raise UserError(f"{key}.faker: Faker has no {provider!r} for {locale}{did_you_mean(provider, known)}")
    draw = getattr(faker, provider)
    if draw.__module__.startswith("faker.providers.date_time"):
        raise UserError(f"{key}.faker: {provider!r} gives other values on another day; use `dates`")
    faker.seed_instance(f"{seed}:{key}:{provider}")
    try:
        draw()
    except Exception as error:  # a provider may raise anything at all when it is not meant to be called bare
        raise UserError(f"{key}.faker: {provider!r} gives no value without arguments ({error})") from None
    return draw


@cache
def _faker(locale: str) -> Any:
    """One Faker per locale, as making it takes longer than a small bank; seeded anew before each use."""
    from faker import Faker  # here, since it takes a quarter of a second

    # unweighted: rare names are as good as common ones, and a word list is soon exhausted
    return Faker(locale, use_weighting=False).factories[0]


def _largest_share(people: int, most: int, least: int) -> int | None:
    """The largest divisor of `people` from `least` to `most`."""
    return next((size for size in range(most, least - 1, -1) if people % size == 0), None)
