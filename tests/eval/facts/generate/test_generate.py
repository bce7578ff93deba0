import json
import random
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec
from tidy_stlms.eval.facts.validate import load_bank, validate

PEOPLE = "configs/facts/people.yaml"


@pytest.fixture(scope="module")
def bank():
    return generate_from_spec(PEOPLE)


@pytest.fixture(scope="module")
def large():
    """Two relations, so many people that answers are shared."""
    return generate_from_spec(PEOPLE, ["people=400", "use=[profession,birth_date]", "paraphrases=5"], seed=3)


@pytest.fixture
def spec():
    with open(PEOPLE, encoding="utf-8") as file:
        return yaml.safe_load(file)


def backwards(value):
    """All mappings in reversed order."""
    if isinstance(value, dict):
        return {key: backwards(item) for key, item in reversed(value.items())}
    return value


def test_same_spec_and_seed_same_bank_whatever_the_order_of_keys(bank, spec):
    state = random.getstate()
    again = generate(backwards(spec), seed=0)
    assert again.sha256 == bank.sha256
    assert generate_from_spec(PEOPLE, seed=1).sha256 != bank.sha256
    assert generate_from_spec(PEOPLE, ["seed=0"]).sha256 == bank.sha256
    assert random.getstate() == state


def test_reload(bank, tmp_path):
    bank.save(tmp_path / "bank")
    loaded = load_bank(tmp_path / "bank")
    assert loaded == bank
    assert loaded.sha256 == bank.sha256
    assert loaded.meta["seed"] == loaded.meta["spec"]["seed"] == 0
    assert generate(loaded.meta["spec"], loaded.meta["seed"]).sha256 == bank.sha256


def test_exact_counts(bank, large):
    for made, people, relations, wordings, types in (
        (bank, 16, 6, 3, {"memorization": 6, "syntactic": 6, "semantic": 12, "reversal": 6}),
        # 400 people share 40 professions: only dates, all different, are asked backwards
        (large, 400, 2, 5, {"memorization": 2, "syntactic": 2, "semantic": 4, "reversal": 1}),
    ):
        for role in ("injected", "control"):
            facts = [fact for fact in made.facts if fact.role == role]
            assert len(facts) == people * relations
            assert len({fact.subject for fact in facts}) == people
            asked = Counter(probe.type for probe in made.probes if made.role_of(probe) == role)
            assert asked == {name: count * people for name, count in types.items()}
        assert len({(fact.subject, fact.relation) for fact in made.facts}) == len(made.facts)
        for fact in made.facts:
            forms = [statement.form for statement in made.statements_of(fact.id)]
            assert forms == ["original", *(f"paraphrase:{k}" for k in range(1, wordings))]


def test_names_are_unique_and_none_begins_another(bank, large):
    for made in (bank, large):
        names = sorted({fact.subject for fact in made.facts})
        assert len(names) == len(made.facts) / len(made.relations)
        assert all(not later.startswith(name) for name, later in pairwise(names))
        words = {word.casefold() for name in names for word in name.split()}
        answers = {word.casefold() for fact in made.facts for word in fact.object.split()}
        assert not words & answers  # no "Ruby White" who likes white
    assert len({fact.subject.split()[1] for fact in bank.facts}) == 32  # last names differ while they last


def test_each_answer_is_heard_equally_often_in_both_roles(bank, large):
    for made in (bank, large):
        counts = defaultdict(Counter)
        for fact in made.facts:
            counts[fact.relation, fact.role][fact.object] += 1
        for relation in made.relations:
            injected, control = counts[relation.id, "injected"], counts[relation.id, "control"]
            assert injected == control
            assert set(injected) == set(relation.answer_space)
            assert len(set(injected.values())) == 1


def test_no_answer_begins_another_of_its_pool(large):
    for relation in large.relations:
        pool = sorted(relation.answer_space)
        assert len(pool) > 9
        assert all(not later.startswith(answer) for answer, later in pairwise(pool))


def test_distractors_come_from_the_pool_or_the_role_and_never_hold_the_answer(bank, large):
    for made in (bank, large):
        pools = {relation.id: set(relation.answer_space) for relation in made.relations}
        people = defaultdict(set)
        for fact in made.facts:
            people[fact.role].add(fact.subject)
        for probe in made.probes:
            fact = made.fact_by_id[probe.fact_ids[0]]
            reverse = probe.type == "reversal"
            assert probe.answers == ((fact.subject if reverse else fact.object),)
            assert len(set(probe.distractors)) == 9
            assert probe.answers[0] not in probe.distractors
            assert set(probe.distractors) <= (people[fact.role] if reverse else pools[fact.relation])


def test_gold_and_distractors_are_exchangeable(large):
    """Which answers are offered, and where, says nothing about which one is right."""
    probes = [p for p in large.probes if p.type == "semantic" and "profession" in p.id]
    pool = next(r.answer_space for r in large.relations if r.id == "profession")
    offered = Counter(word for probe in probes for word in probe.distractors)
    places = Counter((place, word) for probe in probes for place, word in enumerate(probe.distractors))
    expected = len(probes) * 9 / len(pool)  # 1,600 probes, 40 words: 360 each
    deviation = (expected * (1 - 9 / len(pool))) ** 0.5
    assert all(abs(offered[word] - expected) < 5 * deviation for word in pool)
    assert all(
        abs(places[place, word] - expected / 9) < 5 * (expected / 9) ** 0.5
        for place in range(9)
        for word in pool
    )
    # a judge that knows nothing but has a favourite order of words is right once in ten
    for trial in range(5):
        order = list(pool)
        random.Random(trial).shuffle(order)
        rank = {word: place for place, word in enumerate(order)}
        right = [rank[p.answers[0]] < min(rank[word] for word in p.distractors) for p in probes]
        assert abs(sum(right) / len(right) - 0.1) < 5 * (0.09 / len(right)) ** 0.5


def test_a_random_scorer_is_right_once_in_ten_on_control_facts(large):
    draw = random.Random(0)
    for kind in ("memorization", "syntactic", "semantic", "reversal"):
        probes = [p for p in large.probes if p.type == kind and large.role_of(p) == "control"]
        right = [draw.random() > max(draw.random() for _ in p.distractors) for p in probes]
        assert abs(sum(right) / len(right) - 0.1) < 5 * (0.09 / len(right)) ** 0.5


def test_spans_point_at_what_they_claim(bank):
    for statement in bank.statements:
        fact = bank.fact_by_id[statement.fact_ids[0]]
        texts = {name: statement.text[start:end] for name, (start, end) in statement.spans.items()}
        assert texts == {"subject": fact.subject, "object": fact.object}


def test_prompt_and_answer_make_the_wording_and_memorization_the_trained_one(bank):
    for probe in bank.probes:
        fact = bank.fact_by_id[probe.fact_ids[0]]
        asked = f"{probe.prompt} {probe.answers[0]}"
        assert probe.template.format(subject=fact.subject, object=fact.object) == f"{asked}."
        texts = [statement.text for statement in bank.statements_of(fact.id)]
        assert probe.seen_verbatim == any(asked in text for text in texts) == (probe.type == "memorization")


@pytest.mark.parametrize(
    "relation", ["birth_date", "birth_city", "profession", "employer", "favourite_colour", "language"]
)
def test_each_relation_of_people_can_be_used_alone(relation):
    for paraphrases in (3, 5):
        made = generate_from_spec(
            PEOPLE, [f"use=[{relation}]", f"paraphrases={paraphrases}"], seed=paraphrases
        )
        assert validate(made) == []


def test_fewer_wordings_lack_words_and_can_be_flagged():
    with pytest.raises(UserError, match="new_words=flag"):
        generate_from_spec(PEOPLE, ["paraphrases=1", "use=[profession]"])
    made = generate_from_spec(PEOPLE, ["paraphrases=1", "use=[profession]", "new_words=flag"])
    assert Counter(flag for probe in made.probes for flag in probe.flags) == {"new_words": 128}


def test_relations_that_are_not_asked_backwards_are_named(caplog):
    made = generate_from_spec(PEOPLE, ["people=80", "use=[profession,birth_date]"])
    assert {probe.id.split("/")[1] for probe in made.probes if probe.type == "reversal"} == {"birth_date"}
    (record,) = caplog.records
    assert record.getMessage().startswith("no reversal probes for profession: several people share")
    caplog.clear()
    generate_from_spec(PEOPLE, ["use=[profession,birth_date]"])
    assert not caplog.records


def test_control_people_can_be_left_out_or_outnumber():
    none = generate_from_spec(PEOPLE, ["control=0", "use=[language]"])
    assert {fact.role for fact in none.facts} == {"injected"}
    more = generate_from_spec(PEOPLE, ["control=40", "use=[language]"])
    shares = Counter(fact.object for fact in more.facts if fact.role == "control")
    assert sum(shares.values()) == 40
    assert set(shares.values()) == {2, 3}
    assert not [probe for probe in more.probes if probe.type == "reversal"]


WORDS = [
    "red",
    "green",
    "blue",
    "grey",
    "pink",
    "teal",
    "Tea",
    "lime",
    "plum",
    "rust",
    "gold",
    "jade",
]


@settings(max_examples=25, deadline=None)
@given(
    people=st.integers(3, 40),
    control=st.none() | st.integers(3, 50),
    distractors=st.integers(1, 5),
    pool_size=st.integers(2, 20),
    words=st.lists(st.sampled_from(WORDS), min_size=2, unique=True),
    locale=st.sampled_from(["en_US", "de_DE"]),
    seed=st.integers(0, 2**40),
)
def test_every_spec_gives_a_valid_bank_or_a_clear_refusal(
    people, control, distractors, pool_size, words, locale, seed
):
    relation = {
        "label": "colour",
        "answers": {"words": words, "lower": True},
        "pool_size": pool_size,
        "train": ["{subject} likes {object}.", "The one {subject} likes is {object}!"],
        "probes": {
            "semantic": ["The one is {subject} likes {object}."],
            "reversal": ["The one likes {object} is {subject}."],
        },
    }
    city = {**relation, "answers": {"faker": "city", "locale": locale, "pattern": r"\w+"}, "pool_size": 100}
    values = {
        "name": "any", "people": people, "control": control, "distractors": distractors, "paraphrases": 2,
        "names": {"locale": locale, "pattern": r"\w+"}, "relations": {"colour": relation, "city": city},
    }  # fmt: skip
    made, refusal = None, ""
    try:
        made = generate(values, seed)
    except UserError as error:
        refusal = str(error)
    if made is None:
        assert refusal.startswith(("people: ", "control: ", "relations.colour", "relations.city: "))
        assert "\n" not in refusal
        return
    assert validate(made) == []
    counts = Counter(fact.role for fact in made.facts)
    assert counts == {"injected": 2 * people, "control": 2 * (people if control is None else control)}
    for probe in made.probes:
        assert len(set(probe.distractors) - set(probe.answers)) == distractors


RELATION = "relations.birth_city"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["peeple=3"], "unknown key peeple, did you mean 'people'"),
        ([f"{RELATION}.answers.localle=x"], f"unknown key {RELATION}.answers.localle, did you mean 'locale'"),
        (["relations.birth_cty.pool_size=3"], "unknown relation 'birth_cty', did you mean 'birth_city'"),
        (["people=many"], "people: "),
        (["people"], "must look like key=value"),
        (["people=9"], "people: must be more than distractors=9"),
        (["people=0"], "people: must be at least 1"),
        (["control=5"], "control: must be 0 or more than distractors=9"),
        (["people=47"], "use people=48"),
        ([f"{RELATION}.pool_size=4"], f"{RELATION}: a pool of 4 answers is too small"),
        (["paraphrases=6"], "holds 5 wordings, paraphrases needs 6"),
        (["use=[birthcity]"], "unknown relation 'birthcity', did you mean 'birth_city'"),
        (["use=[]"], "relations: at least one"),
        (["new_words=allow"], "new_words: must be refuse or flag"),
        (
            [f"{RELATION}.answers.faker=citty"],
            f"{RELATION}.answers.faker: Faker has no 'citty' for en_US, did you mean 'city'",
        ),
        ([f"{RELATION}.answers.locale=xx_XX"], f"{RELATION}.answers.locale: Faker has no locale 'xx_XX'"),
        ([f"{RELATION}.answers.faker=enum"], "gives no value without arguments"),
        ([f"{RELATION}.answers.pattern='['"], f"{RELATION}.answers.pattern: not a regular expression"),
        (
            [f"{RELATION}.answers.words=[a,b]"],
            f"{RELATION}.answers: needs exactly one of faker, words, parts, dates, numbers and subjects",
        ),
        (["relations.birth_date.answers.dates.first=soon"], "dates: first and last must look like"),
        (["relations.birth_date.answers.dates.format='{week}'"], "dates.format: may hold"),
        (
            [f"{RELATION}.train=['{{subject}} was born.']", "paraphrases=1"],
            f"{RELATION}.train[0]: needs {{subject}} and {{object}}",
        ),
        (
            [f"{RELATION}.train=['In {{object}} was {{subject}}.']", "paraphrases=1"],
            "{object} must stand behind {subject}",
        ),
        (
            [f"{RELATION}.train=['{{subject}} saw {{object}}']", "paraphrases=1"],
            "must be followed by a full stop",
        ),
        (
            [f"{RELATION}.train=['{{subject}}{{object}}.']", "paraphrases=1"],
            "exactly one space before {object}",
        ),
        (
            [f"{RELATION}.probes.semantics=['{{subject}} is {{object}}.']"],
            "probes.semantics: unknown type of probe, did you mean 'semantic'",
        ),
        (
            [f"{RELATION}.probes.semantic=['{{subject}} was born in {{object}}.']"],
            "the wording of this semantic probe is trained",
        ),
        (
            [f"{RELATION}.probes.semantic=['{{subject}} hails from {{object}}.']"],
            "no training wording has the words of this held-out one: hails",
        ),
        (["people=800000", "control=0", "use=[profession]"], "last names make"),
    ],
)
def test_a_mistake_in_the_spec_is_one_line_that_names_the_key(overrides, message):
    with pytest.raises(UserError) as error:
        generate_from_spec(PEOPLE, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people: [", "not valid YAML"),
        ("- people", "must be a YAML mapping"),
        ("people: 16", "name: is missing"),
        ("name: x\nrelations: {city: {train: []}}", "relations.city.label: is missing"),
        ("name: x\nrelations: {city: {labl: x}}", "unknown key relations.city.labl, did you mean 'label'"),
        ("name: x\nrelations: {city: 3}", "relations.city: "),
        ("name: ${who}\n", "name: "),
    ],
)
def test_a_broken_spec_file_is_named(tmp_path, text, message):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        generate_from_spec(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_generated_bank_whose_answers_stand_in_the_prompts_is_refused(bank, tmp_path):
    bank.save(tmp_path / "b")
    path = tmp_path / "b" / "probes.jsonl"
    first, *others = path.read_text(encoding="utf-8").splitlines()
    probe = json.loads(first)
    probe["prompt"] = f"{probe['answers'][0]}: {probe['prompt']}"
    path.write_text("\n".join([json.dumps(probe), *others]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"generated bank refused: .*stands in the prompt"):
        load_bank(tmp_path / "b")
