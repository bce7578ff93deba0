"""Pools of answers: where they come from, and what may be in them."""

from itertools import pairwise

import pytest

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.answers import answer_pool
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, NumberRange, RelationSpec, Spec

PEOPLE = "configs/facts/people.yaml"


def pool_of(answers, size, people, least, unseen=0):
    """The pool of a relation with at most `size` answers, at least `least`."""
    relation = RelationSpec(answers=answers, pool_size=size)
    return answer_pool(relation, "x", Spec(people=people, distractors=least - 1, unseen_control=unseen))


def test_numbers_are_all_different_and_none_begins_another():
    wanted = AnswerSpec(numbers=NumberRange(first=10, last=2000, step=5, format="{:04d}"))
    pool = pool_of(wanted, 50, 100, 10).seen
    assert len(pool) == 50
    assert all(len(text) == 4 and int(text) % 5 == 0 and 10 <= int(text) <= 2000 for text in pool)
    # without leading zeros "10" begins "100", and the longer ones go
    bare = AnswerSpec(numbers=NumberRange(first=9, last=110))
    pool = pool_of(bare, 100, 100, 10).seen
    assert all(not later.startswith(number) for number, later in pairwise(sorted(pool)))


def test_parts_are_combined():
    wanted = AnswerSpec(parts=[["old", "new"], ["red", "blue", "grey"], ["bridge", "tower"]])
    pool = pool_of(wanted, 12, 12, 2).seen
    assert len(pool) == 12
    assert pool == sorted(f"{a} {b} {c}" for a in ("old", "new") for b in ("red", "blue", "grey")
                          for c in ("bridge", "tower"))  # fmt: skip


def test_unseen_answers_are_kept_back_from_a_list_that_would_be_used_up():
    words = AnswerSpec(words=[f"w{number:02d}" for number in range(20)])
    assert len(pool_of(words, 100, 20, 5).seen) == 20
    pool = pool_of(words, 100, 20, 5, unseen=10)
    assert (len(pool.seen), len(pool.unseen)) == (10, 10)
    assert not set(pool.seen) & set(pool.unseen)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"numbers": {"first": 5, "last": 1}},
            "relations.x.answers.numbers: last must not be less than first",
        ),
        ({"numbers": {"first": 1, "last": 50, "format": "{:q}"}}, "numbers.format: must look like"),
        ({"numbers": {"first": 1}}, "last: is missing"),
        ({"parts": [["a"], []]}, "relations.x.answers.parts: a list is empty"),
        ({"words": ["a", "b"], "subjects": True}, "needs exactly one of"),
        ({"words": ["Oslo", "St. Louis"]}, "relations.x.answers: 'St. Louis' holds a full stop or the like"),
        ({"words": ["Oslo", "Bern "]}, "relations.x.answers: 'Bern ' begins or ends with a space"),
        ({"words": ["Rome", "Romeville"]}, "relations.x.answers.words: 'Romeville' begins with another"),
        ({"parts": [["Mt."], ["Ida", "Cook"]]}, "holds a full stop or the like"),
        (
            {"dates": {"first": "1990-01-01", "last": "1999-01-01", "format": "{day}. {month} {year}"}},
            "relations.x.answers: '1. January 1990' holds a full stop or the like",
        ),
        (
            {"dates": {"first": "1990-01-01", "last": "1980-01-01"}},
            "answers.dates: last must not be before first",
        ),
        ({"faker": "date_of_birth"}, "'date_of_birth' gives other values on another day; use `dates`"),
    ],
)
def test_mistakes_in_answers(answers, message):
    relation = {"label": "x", "answers": answers, "train": ["{subject} has {object}."]}
    with pytest.raises(UserError) as error:
        generate({"name": "x", "people": 12, "paraphrases": 1, "relations": {"x": relation}}, 0)
    assert message in str(error.value)


def test_unique_answers_or_a_refusal():
    with pytest.raises(
        UserError, match=r"relations\.profession\.unique: there are 40 different answers for 80"
    ):
        generate_from_spec(PEOPLE, ["people=80", "use=[profession]", "relations.profession.unique=true"])
    made = generate_from_spec(PEOPLE, ["people=40", "use=[profession]", "relations.profession.unique=true"])
    assert len({fact.object for fact in made.injected_facts()}) == 40
    reversal = "configs/facts/reversal.yaml"
    with pytest.raises(
        UserError, match="there are 30 different answers for 60 control people; lower control"
    ):
        generate_from_spec(reversal, ["people=30", "control=60"])
    check_generated(generate_from_spec(reversal, ["people=30", "control=15", "unseen_control=30"]))


def test_several_objects_make_a_relation_many():
    made = generate_from_spec(PEOPLE, ["people=20", "use=[language]", "relations.language.objects=2"])
    check_generated(made)
    (relation,) = made.relations
    assert relation.cardinality == "many"
    for probe in made.probes:
        fact = made.fact_by_id[probe.fact_ids[0]]
        both = {other.object for other in made.facts if other.subject == fact.subject}
        assert len(both) == 2
        assert probe.answers[0] == fact.object
        assert set(probe.answers) == both
        assert not both & set(probe.distractors)


def test_answers_of_one_passage_do_not_hold_each_other():
    """Else the paragraph's first sentences, which stand in a probe's prompt, could give an answer away."""
    colours = ["red", "green", "blue", "grey", "pink", "teal", "lime", "plum", "rust", "gold", "jade", "rose"]
    second = [*colours, *(f"old {colour}" for colour in colours), "oak", "elm", "ash", "fir", "yew", "bay"]
    relations = {
        name: {
            "label": name,
            "variable": name,
            "answers": {"words": words},
            "train": [f"{{subject}} {name} {{{name}}}."],
        }
        for name, words in (("likes", colours[:6]), ("owns", second))
    }
    values = {"name": "x", "people": 6, "distractors": 2, "paraphrases": 1, "relations": relations}
    values["passages"] = {"both": {"relations": ["likes", "owns"]}}
    for seed in range(5):
        made = generate(values, seed)
        likes, owns = ({*relation.answer_space} for relation in made.relations)
        assert not [answer for answer in owns if likes & set(answer.split())]
