"""Sources of values: Faker providers, lists of words, combinations of parts, dates and numbers."""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import cache
from math import prod
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, DateRange, NumberRange
from tidy_stlms.eval.facts.text_match import folded, holds_terminal

# not calendar.month_name, which follows the machine's language
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# Faker's lists end without saying so: this many draws in a row without a new value count as the end
FRUITLESS_DRAWS = 1000


def source_values(answers: AnswerSpec, count: int, key: str, seed: int) -> Iterator[str]:
    """The values of a relation's source that can be answers; of a large source, about `count` drawn ones."""
    values: Iterable[str]
    if answers.faker is not None:
        values = faker_values(answers.faker, answers.locale, answers.pattern, count, f"{key}.answers", seed)
    elif answers.dates is not None:
        values = dates_of(answers.dates, f"{key}.answers.dates")
    elif answers.numbers is not None:
        values = _numbers(answers.numbers, count, f"{key}.answers.numbers", rng(seed, key, "numbers"))
    elif answers.parts:
        values = _combinations(answers.parts, count, rng(seed, key, "parts"))
    else:
        values = answers.words
    for value in values:
        if not re.fullmatch(answers.pattern, value):
            continue
        if answers.faker is None:
            check_ending(value, f"{key}.answers")
        elif _ending_problem(value):  # Faker has others
            continue
        yield value.lower() if answers.lower else value


def faker_values(provider: str, locale: str, pattern: str, count: int, key: str, seed: int) -> list[str]:
    """Sorted different values of a Faker provider that match `pattern`: `count` of them, or all there are."""
    draw = _faker_provider(provider, locale, key, seed)
    values: set[str] = set()
    fruitless = 0
    while len(values) < count and fruitless < FRUITLESS_DRAWS:
        value = str(draw())
        if value not in values and re.fullmatch(pattern, value):
            values.add(value)
            fruitless = 0
        else:
            fruitless += 1
    return sorted(values)


def dates_of(span: DateRange, key: str) -> dict[str, date]:
    """All days of a range, by the way they are written."""
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


def without_prefixed(values: Iterable[str]) -> list[str]:
    """Sorted, without values that begin with another one or differ from it in case only.

    If both were answers, a model that says "Springfield" would also have begun with the answer "Spring".
    """
    kept: list[str] = []
    # in this order all that begin with a value follow it at once
    for value in sorted(values, key=lambda value: (folded(value), value)):
        if not kept or not folded(value).startswith(folded(kept[-1])):
            kept.append(value)
    return kept


def word_runs(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All stretches of neighbouring words."""
    return [words[start:stop] for start in range(len(words)) for stop in range(start + 1, len(words) + 1)]


def check_ending(value: str, key: str) -> str:
    """The value; UserError naming `key` for one that no template can end with."""
    if problem := _ending_problem(value):
        raise UserError(f"{key}: {value!r} {problem}; write it otherwise or remove it")
    return value


def _ending_problem(value: str) -> str | None:
    if value != value.strip():
        return "begins or ends with a space"
    if holds_terminal(value):
        return "holds a full stop or the like, so that in a model's answer its end could not be told"
    return None


def _numbers(span: NumberRange, count: int, key: str, draw: random.Random) -> list[str]:
    if span.step < 1 or span.last < span.first:
        raise UserError(f"{key}: last must not be less than first, nor step less than 1")
    numbers = range(span.first, span.last + 1, span.step)
    try:
        return [span.format.format(number) for number in draw.sample(numbers, min(count, len(numbers)))]
    except (KeyError, IndexError, ValueError):
        raise UserError(f"{key}.format: must look like {{}} or {{:04d}}, got {span.format!r}") from None


def _combinations(parts: Sequence[Sequence[str]], count: int, draw: random.Random) -> list[str]:
    """Different combinations of one word of each part, drawn by number as there may be millions."""
    total = prod(len(part) for part in parts)
    values = []
    for number in draw.sample(range(total), min(count, total)):
        words = []
        for part in parts:
            number, index = divmod(number, len(part))
            words.append(part[index])
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
