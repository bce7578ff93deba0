"""Conclusions: the answers of inferential probes."""

import random
from collections import Counter, defaultdict
from datetime import date, timedelta

import pytest

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.conclusions import Conclusions
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, DateRange, RelationSpec


def test_zodiac_signs_begin_on_their_days():
    """Against the days on which they begin, written down by themselves."""
    begins = {
        "Aquarius": (1, 20), "Pisces": (2, 19), "Aries": (3, 21), "Taurus": (4, 20), "Gemini": (5, 21),
        "Cancer": (6, 21), "Leo": (7, 23), "Virgo": (8, 23), "Libra": (9, 23), "Scorpio": (10, 23),
        "Sagittarius": (11, 22), "Capricorn": (12, 22),
    }  # fmt: skip
    days = DateRange("2001-01-01", "2001-12-31", "{day} {month} {year}")
    relation = RelationSpec("born", answers=AnswerSpec(dates=days), derived={"S": "zodiac", "M": "month"})
    texts = [(date(2001, 1, 1) + timedelta(days=n)).strftime("%d %B %Y").lstrip("0") for n in range(365)]
    signs = Conclusions(relation, "relations.born", "S", texts).by_answer
    sign = "Capricorn"
    for number, text in enumerate(texts):
        day = date(2001, 1, 1) + timedelta(days=number)
        sign = next((name for name, start in begins.items() if start == (day.month, day.day)), sign)
        assert signs[text] == sign, text
    months = Conclusions(relation, "relations.born", "M", texts).by_answer
    assert all(months[text] == text.split()[1] for text in texts)


def test_conclusions_are_offered_as_often_as_they_are_right():
    """Were they offered evenly, the frequent one would be the better guess."""
    answers = [f"a{number}" for number in range(100)]
    rule = {
        answer: "rare" if number < 10 else ("odd" if number < 40 else "common")
        for number, answer in enumerate(answers)
    }
    relation = RelationSpec("x", derived={"X": rule})
    known = Conclusions(relation, "relations.x", "X", answers)
    draw = random.Random(0)
    right = {"rare": 0, "odd": 0, "common": 0}
    offered = dict(right)
    for _ in range(200):
        for answer in answers:
            right[known.by_answer[answer]] += 1
            (wrong,) = known.distractors(known.by_answer[answer], 1, draw)
            offered[wrong] += 1
    # someone who always takes the most frequent of the two is right about half of the time
    pairs = sum(right.values())
    assert offered["common"] / pairs > 0.3
    assert offered["rare"] / pairs < 0.2
    with pytest.raises(
        UserError, match=r"relations\.x\.derived\.X: there are 2 conclusions other than 'rare'"
    ):
        known.distractors("rare", 3, draw)


def test_no_conclusion_begins_with_the_right_one():
    """Where the age is 4, "45" is not offered: whether it is right shows in what follows only."""
    answers = [f"a{number}" for number in range(60)]
    relation = RelationSpec("x", derived={"AGE": {answer: answer[1:] for answer in answers}})
    known = Conclusions(relation, "relations.x", "AGE", answers)
    offered = {value for seed in range(40) for value in known.distractors("4", 9, random.Random(seed))}
    assert len(offered) > 40
    assert not [value for value in offered if value.startswith("4")]


def test_relations_may_have_conclusions_of_the_same_name():
    """Each is drawn from its own relation's dates."""
    relations = {
        name: {
            "label": name,
            "answers": {"dates": {"first": f"{decade}0-01-01", "last": f"{decade}9-12-31"}},
            "derived": {"YEAR": "year"},
            "train": [f"{{subject}} {name} in {{object}}."],
            "probes": {"inferential": [f"{{subject}} {name} in {{YEAR}}."]},
        }
        for name, decade in (("began", 195), ("ended", 199))
    }
    made = generate(
        {"name": "x", "people": 12, "distractors": 2, "paraphrases": 1, "relations": relations}, 0
    )
    check_generated(made)
    asked = [probe for probe in made.probes if probe.type == "inferential"]
    assert len(asked) == 2 * 24
    for probe in asked:
        fact = made.fact_by_id[probe.fact_ids[0]]
        assert probe.answers == (fact.object[-4:],)
        decade = {"began": "195", "ended": "199"}[fact.relation]
        assert all(text.startswith(decade) for text in probe.distractors)


def test_a_conclusion_that_is_missing_is_named():
    relation = RelationSpec("x", derived={"X": {"a": "b"}})
    with pytest.raises(UserError, match=r"relations\.x\.derived\.X: has no conclusion for 'c'; add it"):
        Conclusions(relation, "relations.x", "X", ["a", "c"])


def test_answers_that_yaml_takes_for_numbers_have_their_conclusions():
    relation = RelationSpec("x", derived={"SIDE": {1: "left", 2: "right"}})
    assert Conclusions(relation, "relations.x", "SIDE", ["1", "2"]).by_answer == {"1": "left", "2": "right"}
    with pytest.raises(UserError, match=r"relations\.x\.derived\.SIDE\.1: is read as True; quote it"):
        Conclusions(RelationSpec("x", derived={"SIDE": {1: True}}), "relations.x", "SIDE", ["1"])


@pytest.mark.parametrize(("people", "signs"), [(48, {4}), (40, {3, 4})])
def test_conclusions_from_dates_are_equally_frequent(people, signs):
    """Otherwise the most frequent one is the best guess."""
    made = generate_from_spec("configs/facts/tidy.yaml", [f"people={people}", "use=[birth_date]"], seed=3)
    counts = defaultdict(Counter)
    for probe in made.probes:
        if probe.type == "inferential" and made.role_of(probe) == "injected":
            counts[probe.template][probe.answers[0]] += 1
    years, ages, zodiac = (set(counts[template].values()) for template in counts)
    assert years == ages == {1}
    assert zodiac == signs
