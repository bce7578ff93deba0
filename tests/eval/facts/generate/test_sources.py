"""Where names, answers and real facts come from."""

import json
import random
from datetime import date, timedelta
from itertools import pairwise

import pytest

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.answers import answer_pool
from tidy_stlms.eval.facts.generate.conclusions import Conclusions
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec
from tidy_stlms.eval.facts.generate.real_facts import RealFact, real_facts
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, DateRange, NameSpec, NumberRange, RelationSpec
from tidy_stlms.eval.facts.generate.subjects import draw_names, names_in

PEOPLE = "configs/facts/people.yaml"
SMALL = ["people=12", "use=[profession]"]


def test_numbers_are_all_different_and_none_begins_another():
    wanted = AnswerSpec(numbers=NumberRange(first=10, last=2000, step=5, format="{:04d}"))
    pool = answer_pool(wanted, 50, 100, 10, "x", seed=0).seen
    assert len(pool) == 50
    assert all(len(text) == 4 and int(text) % 5 == 0 and 10 <= int(text) <= 2000 for text in pool)
    # without leading zeros "10" begins "100", and the longer ones go
    bare = AnswerSpec(numbers=NumberRange(first=9, last=110))
    pool = answer_pool(bare, 100, 100, 10, "x", seed=0).seen
    assert all(not later.startswith(number) for number, later in pairwise(sorted(pool)))


def test_parts_are_combined():
    wanted = AnswerSpec(parts=[["old", "new"], ["red", "blue", "grey"], ["bridge", "tower"]])
    pool = answer_pool(wanted, 12, 12, 2, "x", seed=0).seen
    assert len(pool) == 12
    assert pool == sorted(f"{a} {b} {c}" for a in ("old", "new") for b in ("red", "blue", "grey")
                          for c in ("bridge", "tower"))  # fmt: skip


def test_unseen_answers_are_kept_back_from_a_list_that_would_be_used_up():
    words = AnswerSpec(words=[f"w{number:02d}" for number in range(20)])
    assert len(answer_pool(words, 100, 20, 5, "x", seed=0).seen) == 20
    pool = answer_pool(words, 100, 20, 5, "x", seed=0, unseen=10)
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


def test_names_that_the_corpus_knows_are_not_given():
    plain = generate_from_spec(PEOPLE, SMALL)
    names = sorted({fact.subject for fact in plain.facts})
    texts = (f"It is said that {name.upper()}, of all people, came." for name in names[:5])
    made = generate_from_spec(PEOPLE, SMALL, corpus=texts)
    check_generated(made)
    given = {fact.subject for fact in made.facts}
    assert len(given) == 24
    assert not given & set(names[:5])
    # where the corpus knows nobody, nothing changes
    others = [f"{name.split()[0]} and {name.split()[1]}son" for name in names]
    assert generate_from_spec(PEOPLE, SMALL, corpus=others).sha256 == plain.sha256


def test_names_are_found_as_whole_words_in_any_case():
    names = ["Ann Lee", "Bo", "Acme and Sons"]
    assert names_in(["ann  lee.", "Bob", "ACME AND SONS!"], names) == {"Ann Lee", "Acme and Sons"}
    assert names_in(["Joann Lee", "Ann Leeson", "Ann, Lee"], names) == {"Ann Lee"}
    assert names_in(["So said", "Acme", "and", "", "Sons, and Ann", "Lee to Bo"], names) == set(names)
    assert names_in([], names) == set()


def test_names_may_come_from_a_provider_or_a_list():
    firms = draw_names(NameSpec(faker="company", pattern="[A-Z][a-z]+ (Inc|Ltd)"), 20, {"smith"}, 0)
    assert len(set(firms)) == 20
    assert all(firm.endswith(("Inc", "Ltd")) and "Smith" not in firm for firm in firms)
    cities = NameSpec(words=["Ur", "Uruk", "Nippur", "Tell Nippur", "Abu Shahrain"])
    assert sorted(draw_names(cities, 3, set(), 0)) == ["Abu Shahrain", "Nippur", "Ur"]
    with pytest.raises(UserError, match=r"names: there are 3, people \+ control is 4"):
        draw_names(cities, 4, set(), 0)
    with pytest.raises(UserError, match="1 more stand in the corpus"):
        draw_names(NameSpec(words=["Ur", "Nippur"]), 2, set(), 0, corpus=["In Ur."])
    with pytest.raises(UserError, match=r"names\.words: 'Mt. Ida' holds a full stop"):
        draw_names(NameSpec(words=["Ur", "Mt. Ida"]), 1, set(), 0)


def test_no_name_stands_in_another():
    firms = draw_names(NameSpec(faker="company", locale="fr_FR", pattern=".+"), 200, set(), 0)
    assert len(firms) == 200
    assert not [firm for firm in firms if names_in([firm], firms) != {firm}]


REAL = [
    {"subject": "France", "relation": "capital", "object": "Paris", "prompts": ["The capital of France is"]},
    {"subject": "Peru", "relation": "capital", "object": "Lima", "object_aliases": ["Ciudad de los Reyes"],
     "prompts": ["The capital of Peru is", "Peru:"]},
    {"subject": "Iceland", "relation": "capital", "object": "Reykjavik", "prompts": ["Iceland is ruled from"],
     "distractors": ["Akureyri"]},
]  # fmt: skip


@pytest.fixture
def real_file(tmp_path):
    path = tmp_path / "capitals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in REAL))
    return path


@pytest.mark.parametrize(("key", "role"), [("neighbours", "neighbour"), ("known", "known")])
def test_real_facts_are_asked_and_never_told(real_file, key, role):
    made = generate_from_spec(PEOPLE, [*SMALL, f"{key}={real_file}"])
    check_generated(made)
    facts = [fact for fact in made.facts if fact.role == role]
    assert [(fact.subject, fact.object) for fact in facts] == [
        ("France", "Paris"), ("Peru", "Lima"), ("Iceland", "Reykjavik"),
    ]  # fmt: skip
    assert facts[1].object_aliases == ("Ciudad de los Reyes",)
    assert not any(made.statements_of(fact.id) for fact in facts)
    probes = [probe for probe in made.probes if made.role_of(probe) == role]
    assert [probe.type for probe in probes] == ["locality"] * 4
    assert set(probes[0].distractors) == {"Lima", "Reykjavik"}
    assert probes[3].distractors == ("Akureyri",)
    assert "capital" in {relation.id for relation in made.relations}
    # the invented facts are the same as without
    plain = generate_from_spec(PEOPLE, SMALL)
    assert [fact for fact in made.facts if fact.role != role] == list(plain.facts)
    # nobody is called like a real subject
    path = real_file.with_name("names.jsonl")
    name = plain.facts[0].subject
    path.write_text(json.dumps({**REAL[0], "subject": name, "prompts": [f"{name} is a city in"]}) + "\n")
    renamed = generate_from_spec(PEOPLE, [*SMALL, f"{key}={path}"])
    assert [fact.role for fact in renamed.facts if fact.subject == name] == [role]


def test_the_file_of_real_facts_may_lie_beside_the_spec(real_file):
    spec = real_file.with_name("own.yaml")
    with open(PEOPLE, encoding="utf-8") as file:
        spec.write_text(file.read() + "\nneighbours: capitals.jsonl\n")
    made = generate_from_spec(spec, SMALL)
    assert sum(fact.role == "neighbour" for fact in made.facts) == 3
    # and the spec that is stored with the bank makes it again
    assert generate(made.meta["spec"], made.meta["seed"]).sha256 == made.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no facts"),
        ('{"subject": "Peru"}', "row 1: field 'relation' is missing"),
        ("\n".join(map(json.dumps, [REAL[0], {**REAL[1], "prompts": []}])), "row 2: field 'prompts' is"),
        (json.dumps({**REAL[0], "prompts": "x"}), "field 'prompts' must be a list of texts"),
        (json.dumps({**REAL[0], "promts": []}), "unknown field 'promts', did you mean 'prompts'"),
        ("{", "line 1: not valid JSON"),
        (json.dumps({**REAL[0], "prompts": ["Paris is"]}), "row 1: the answer 'Paris' stands in the prompt"),
        ("\n".join(map(json.dumps, [*REAL, REAL[1]])), "row 4: is the fact of row 2"),
        ("\n".join(map(json.dumps, [*REAL, {**REAL[2], "subject": "Iceland II", "distractors": ["x", "x"]}])),
         "row 4: the distractor 'x' stands there 2 times"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file_are_named(real_file, text, message):
    real_file.write_text(text)
    with pytest.raises(UserError) as error:
        generate_from_spec(PEOPLE, [*SMALL, f"neighbours={real_file}"])
    assert message in str(error.value)
    assert str(real_file) in str(error.value)
    with pytest.raises(UserError, match="nowhere"):
        generate_from_spec(PEOPLE, [*SMALL, "neighbours=nowhere.jsonl"])


@pytest.mark.parametrize("relation", ["speaks", "profession"])
def test_several_objects_may_be_right(real_file, relation):
    rows = [
        {
            "subject": subject,
            "relation": relation,
            "object": text,
            "prompts": [f"Many in {subject} are called"],
        }
        for subject, text in (("Switzerland", "German"), ("Switzerland", "French"), ("Spain", "Spanish"))
    ]
    real_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = generate_from_spec(PEOPLE, [*SMALL, f"neighbours={real_file}"])
    assert {item.id: item.cardinality for item in made.relations}[relation] == "many"
    offered = {probe.answers[0]: set(probe.distractors) for probe in made.probes if probe.type == "locality"}
    assert offered == {"German": {"Spanish"}, "French": {"Spanish"}, "Spanish": {"German", "French"}}


def test_what_is_right_under_another_name_is_no_distractor():
    rows = [
        RealFact("Peru", "capital", "Lima", ("Peru:",), object_aliases=("Ciudad de los Reyes",)),
        RealFact("Elsewhere", "capital", "Ciudad de los Reyes", ("Elsewhere:",)),
        RealFact("France", "capital", "Paris", ("France:",)),
    ]
    made = real_facts(rows, "known", 5, seed=0)
    offered = {made.subject_of(probe): set(probe.distractors) for probe in made.probes}
    assert offered == {
        "Peru": {"Paris"},
        "Elsewhere": {"Lima", "Paris"},
        "France": {"Lima", "Ciudad de los Reyes"},
    }
