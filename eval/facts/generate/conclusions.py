"""Conclusions: the answers of inferential probes, which follow from a date, or from any answer by a list."""

import random
from collections.abc import Sequence
from datetime import date

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.sources import MONTHS, dates_of
from tidy_stlms.eval.facts.generate.spec import RelationSpec
from tidy_stlms.eval.facts.text_match import folded

# by month: the day on which the next sign begins, and the sign that ends then
ZODIAC = (
    (20, "Capricorn"), (19, "Aquarius"), (21, "Pisces"), (20, "Aries"), (21, "Taurus"), (21, "Gemini"),
    (23, "Cancer"), (23, "Leo"), (23, "Virgo"), (23, "Libra"), (22, "Scorpio"), (22, "Sagittarius"),
)  # fmt: skip


class Conclusions:
    """The conclusions of one name, such as the year, from the answers of a relation.

    Distractors are the conclusions from other answers of the pool. So a conclusion that follows from many
    answers is offered often, as it is often right too.
    """

    def __init__(self, relation: RelationSpec, key: str, name: str, pool: Sequence[str]):
        self.key = f"{key}.derived.{name}"
        rule = relation.derived[name]
        if isinstance(rule, dict):
            listed = {str(answer): value for answer, value in rule.items()}  # YAML reads 1: as a number
            self.by_answer = {answer: self._listed(listed, answer) for answer in pool}
        else:
            assert relation.answers.dates is not None  # spec_checks.py has seen to it
            days = dates_of(relation.answers.dates, f"{key}.answers.dates")
            if relation.answers.lower:
                days = {text.lower(): day for text, day in days.items()}
            self.by_answer = {answer: self._from_date(rule, days[answer]) for answer in pool}
        self.values = [self.by_answer[answer] for answer in pool]  # as often as they are right
        self.different = set(self.values)

    def distractors(self, conclusion: str, count: int, draw: random.Random) -> tuple[str, ...]:
        """`count` different conclusions that do not begin with the right one."""
        start = folded(conclusion)
        wrong = {value for value in self.different if not folded(value).startswith(start)}
        if len(wrong) < count:
            raise UserError(
                f"{self.key}: there are {len(wrong)} conclusions other than {conclusion!r}, "
                f"distractors={count} needs as many; raise people or take fewer distractors"
            )
        chosen = dict[str, None]()
        while len(chosen) < count:
            value = draw.choice(self.values)
            if value in wrong:
                chosen[value] = None
        # shuffled, as the frequent ones were drawn first
        return tuple(draw.sample(list(chosen), count))

    def _listed(self, rule: dict[str, object], answer: str) -> str:
        if answer not in rule:
            raise UserError(f"{self.key}: has no conclusion for {answer!r}; add it, in quotes")
        conclusion = rule[answer]
        if not isinstance(conclusion, str):
            raise UserError(f"{self.key}.{answer}: is read as {conclusion!r}; quote it")
        return conclusion

    def _from_date(self, rule: str, day: date) -> str:
        if rule == "zodiac":
            next_begins, sign = ZODIAC[day.month - 1]
            return sign if day.day < next_begins else ZODIAC[day.month % 12][1]
        if rule.startswith("age_in_"):
            age = int(rule.removeprefix("age_in_")) - day.year
            if age < 0:
                raise UserError(f"{self.key}: {day.year} lies behind the year of {rule}; take another year")
            return str(age)
        if rule == "year":
            return f"{day.year}"
        return f"{day.year // 10 * 10}s" if rule == "decade" else MONTHS[day.month - 1]
