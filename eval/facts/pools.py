"""Where names and answers come from: Faker providers, word lists and date ranges, all drawn from a seed."""

import random
import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from functools import cache
from typing import Any

from configs.errors import UserError
from eval.facts.rows import did_you_mean
from eval.facts.spec import AnswerSpec, DateRange, NameSpec

# not calendar.month_name, which follows the machine's language
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# Faker's lists end without saying so: this many draws in a row without a new value count as the end
FRUITLESS_DRAWS = 1000


def rng(seed: int, *what: object) -> random.Random:
    """A generator of its own for each purpose, so that the order in which they are used does not matter."""
    return random.Random(":".join(map(str, (seed, *what))))


def answer_pool(
    answers: AnswerSpec, size: int, people: int, distractors: int, key: str, seed: int
) -> list[str]:
    """Draw the answers of one relation, sorted: more than `distractors` and at most `size`.

    Their number divides `people`, so that each is had by equally many. Were one answer heard twice as
    often as another, that alone would tell gold from distractors.
    """
    size = min(size, people)
    # a surplus, as those that begin with another answer fall out
    candidates = _without_prefixed(_candidates(answers, 2 * size, key, seed))
    most = min(size, len(candidates))
    if most <= distractors:
        raise UserError(
            f"{key}: a pool of {most} answers is too small, distractors={distractors} needs at least "
            f"{distractors + 1}; widen answers, pool_size or people"
        )
    pool_size = _largest_share(people, most, distractors)
    if pool_size is None:
        better = next(n for n in range(people, 2 * people + 1) if _largest_share(n, most, distractors))
        raise UserError(
            f"{key}: no pool of {distractors + 1} to {most} answers gives {people} people an equal share; "
            f"use people={better}, or another pool_size or distractors"
        )
    return sorted(rng(seed, key, "pool").sample(candidates, pool_size))


def full_names(names: NameSpec, count: int, taken: set[str], seed: int) -> list[str]:
    """`count` names, no two alike, none the beginning of another; last names differ as long as they last.

    `taken` are words, in casefolded form, that no name may have: those of the answers, lest
    "Ruby White" be asked for a colour.
    """
    firsts = _faker_values("first_name", names.locale, names.pattern, count, "names", seed)
    firsts = [name for name in firsts if name.casefold() not in taken]
    also_first = {name.casefold() for name in firsts} | taken
    lasts = _faker_values("last_name", names.locale, names.pattern, 2 * count, "names", seed)
    # last names without prefixed ones are enough: "Ann Lee" never begins "Ann Leeson"
    lasts = _without_prefixed(name for name in lasts if name.casefold() not in also_first)
    if count > len(firsts) * len(lasts):
        raise UserError(
            f"names: {len(firsts)} first and {len(lasts)} last names make "
            f"{len(firsts) * len(lasts)} people, people + control is {count}; use fewer or widen names"
        )
    draw = rng(seed, "names")
    draw.shuffle(firsts)
    draw.shuffle(lasts)
    # all last names once, then all again, each moved on by one first name: no pair comes twice
    pairs = [
        f"{firsts[(index % len(lasts) + index // len(lasts)) % len(firsts)]} {lasts[index % len(lasts)]}"
        for index in range(count)
    ]
    draw.shuffle(pairs)
    return pairs


def _candidates(answers: AnswerSpec, want: int, key: str, seed: int) -> Iterable[str]:
    if answers.faker is not None:
        values = _faker_values(answers.faker, answers.locale, answers.pattern, want, f"{key}.answers", seed)
    elif answers.dates is not None:
        values = _dates(answers.dates, f"{key}.answers.dates")
    else:
        values = answers.words
    for value in values:
        # with a full stop inside, a generated answer could not be told from a shorter one
        if re.fullmatch(answers.pattern, value) and not set(value) & set(".!?"):
            yield value.lower() if answers.lower else value


def _faker_values(provider: str, locale: str, pattern: str, want: int, key: str, seed: int) -> list[str]:
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


def _without_prefixed(values: Iterable[str]) -> list[str]:
    """Sorted, without values that begin with another one or differ from it in case only."""
    kept: list[str] = []
    # in this order all that begin with a value follow it at once
    for value in sorted(values, key=lambda value: (value.casefold(), value)):
        if not kept or not value.casefold().startswith(kept[-1].casefold()):
            kept.append(value)
    return kept


def _largest_share(people: int, most: int, distractors: int) -> int | None:
    """The largest divisor of `people` from `distractors + 1` to `most`."""
    return next((size for size in range(most, distractors, -1) if people % size == 0), None)


def _dates(span: DateRange, key: str) -> list[str]:
    try:
        first, last = date.fromisoformat(span.first), date.fromisoformat(span.last)
    except ValueError:
        raise UserError(
            f"{key}: first and last must look like 1950-01-31, got {span.first} and {span.last}"
        ) from None
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    try:
        return [span.format.format(day=day.day, month=MONTHS[day.month - 1], year=day.year) for day in days]
    except (KeyError, IndexError, ValueError):
        raise UserError(
            f"{key}.format: may hold {{day}}, {{month}} and {{year}}, got {span.format!r}"
        ) from None
