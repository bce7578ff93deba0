"""The specs that are shipped: each makes a sound bank, of any size, and what it is there for."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import faker
import pytest
import yaml

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec
from tidy_stlms.eval.facts.generate.spec import read_spec

FOLDER = Path("configs/facts")
SPECS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# the same bank in little, to be made often
SMALL = {
    "people": ["people=12", "use=[birth_date,profession]"],
    "tidy": ["people=20", "use=[birth_date,profession,company,item,location]"],
    "biographies": ["people=32", "control=12", "distractors=3"],
    "reversal": ["people=12", "distractors=3"],
    "chains": ["people=12", "control=24"],
}
FLAGS = {"tidy": ("new_words",)}


def spec_of(name):
    return str(FOLDER / f"{name}.yaml")


@pytest.fixture(scope="module")
def banks():
    return {name: generate_from_spec(spec_of(name), SMALL[name]) for name in SPECS}


def test_all_five_are_there():
    assert SPECS == ["biographies", "chains", "people", "reversal", "tidy"] == sorted(SMALL)


@pytest.mark.parametrize("name", SPECS)
def test_each_makes_a_sound_bank(name, banks):
    check_generated(banks[name], FLAGS.get(name, ()))


@pytest.mark.parametrize("name", SPECS)
def test_each_as_it_stands(name):
    check_generated(generate_from_spec(spec_of(name)), FLAGS.get(name, ()))


@pytest.mark.parametrize("name", SPECS)
def test_each_with_unseen_control_and_arms(name):
    """The familiarity control and arms can be had with every spec."""
    more = ["unseen_control=12", "people=24", "control=24", "distractors=2"]
    if name in ("people", "tidy", "chains"):
        more += ["arms={dup: {exposures: 4, form: original}, para: {exposures: 4}, none: {exposures: 0}}"]
    uses = [item for item in SMALL[name] if item.startswith("use")]
    made = generate_from_spec(spec_of(name), [*uses, *more], seed=1)
    check_generated(made, FLAGS.get(name, ()))
    assert len({fact.subject for fact in made.facts if fact.arm == "unseen"}) == 12


def backwards(value):
    """All mappings in reversed order."""
    if isinstance(value, dict):
        return {key: backwards(item) for key, item in reversed(value.items())}
    return value


@pytest.mark.parametrize("name", SPECS)
def test_the_order_of_keys_does_not_matter(name, banks):
    values = read_spec(spec_of(name), SMALL[name])
    again = generate(backwards(values), values["seed"])
    assert again.sha256 == banks[name].sha256
    # nor for the order of the lines, which is that of the injection plan
    for table in ("relations", "facts", "statements", "probes"):
        assert getattr(again, table) == getattr(banks[name], table)


def test_another_process_makes_the_same_banks(banks):
    """Sets come in another order where strings hash otherwise."""
    code = (
        "import json, sys\n"
        "from tidy_stlms.eval.facts.generate.generate import generate_from_spec as g\n"
        "specs = json.loads(sys.argv[1]).items()\n"
        "print(json.dumps({name: g(f'configs/facts/{name}.yaml', more).sha256 for name, more in specs}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(SMALL)],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {name: bank.sha256 for name, bank in banks.items()}


@pytest.mark.skipif(faker.VERSION != "40.54.0", reason="Faker's lists differ between versions")
def test_the_demo_has_the_facts_it_always_had():
    """The one hash that is written down: what the README shows was measured on this bank."""
    demo = generate_from_spec(
        spec_of("people"), ["use=[birth_city,employer,profession,favourite_colour]"], seed=0
    )
    assert demo.sha256 == "60b11d303f812e7697d8284b552ca3c92596e7f6ba16295fc51ffc204378c6d9"


def test_reversal_tells_each_arm_in_its_direction_and_asks_all_both_ways(banks):
    bank = banks["reversal"]
    for fact in bank.injected_facts():
        texts = [statement.text for statement in bank.statements_of(fact.id)]
        ends = Counter("name" if text.endswith(f"{fact.subject}.") else "description" for text in texts)
        assert (
            ends
            == {
                "forward": {"description": 3},
                "backward": {"name": 3},
                "both": {"description": 3, "name": 3},
            }[fact.arm]
        )
    asked = Counter((bank.fact_by_id[p.fact_ids[0]].arm, p.type) for p in bank.probes)
    for arm in ("forward", "backward", "both"):
        assert [asked[arm, kind] for kind in ("memorization", "semantic", "reversal")] == [4, 8, 8]
    trained = {statement.text for statement in bank.statements}
    held_out = [p for p in bank.probes if p.type in ("semantic", "reversal")]
    assert not [p for p in held_out if any(f"{p.prompt} {p.answers[0]}" in text for text in trained)]


def test_chains_ask_for_the_friends_facts_and_never_tell_them(banks):
    bank = banks["chains"]
    objects = {(fact.subject, fact.relation): fact.object for fact in bank.facts}
    texts = " ".join(statement.text for statement in bank.statements)
    # who is whose friend says nothing about where they stand in the bank
    names = list(dict.fromkeys(fact.subject for fact in bank.facts))
    friends = [objects[name, "friend"] for name in names]
    assert sum(friend == later for friend, later in zip(friends, names[1:], strict=False)) < len(names) / 3
    asked = [probe for probe in bank.probes if probe.type == "compositional"]
    assert len(asked) == (12 + 24) * 4
    for probe in asked:
        first, second = (bank.fact_by_id[fact_id] for fact_id in probe.fact_ids)
        assert first.relation == "friend"
        assert first.subject in probe.prompt
        assert first.object not in probe.prompt
        assert second.subject == first.object
        assert probe.answers == (second.object,) == (objects[first.object, second.relation],)
        assert f"{probe.prompt} {probe.answers[0]}" not in texts
        # two steps lead to another person of the same role, not back
        assert objects[first.object, "friend"] != first.subject
        assert first.role == second.role


def test_too_few_people_to_be_offered_as_friends_are_refused():
    """The friend and the subject are no distractors themselves, so nine distractors take eleven people."""
    with pytest.raises(UserError, match=r"people: .*friend/memorization:0' has 8 possible distractors"):
        generate_from_spec(spec_of("chains"), ["people=10", "distractors=9"])


def test_biographies_tell_six_facts_at_once_and_question_half(banks):
    bank = banks["biographies"]
    texts = [statement for statement in bank.statements if statement.kind == "passage"]
    assert all(len(statement.fact_ids) == 6 for statement in texts)
    order = [fact_id.split("/")[1] for fact_id in texts[0].fact_ids]
    for statement in texts:
        assert statement.text.count(".") == 6
        facts = [bank.fact_by_id[fact_id] for fact_id in statement.fact_ids]
        arm, name = facts[0].arm, facts[0].subject
        places = [statement.text.index(fact.object) for fact in facts]
        if arm in ("single", "multi5"):
            assert places == sorted(places)
        if arm is not None:
            assert statement.text.count(name) == (6 if arm == "fullname" else 1)
    assert order == ["birth_date", "birth_city", "university", "major", "company", "company_city"]
    # sentences are shuffled anew in every text
    shuffled = {tuple(s.text.index(bank.fact_by_id[f].object) for f in s.fact_ids) for s in texts}
    assert len(shuffled) > 12
    with_questions = {s.fact_ids[0].split("/")[0] for s in bank.statements if s.kind == "qa"}
    for arm in ("single", "multi5", "permute", "fullname"):
        people = {fact.id.split("/")[0] for fact in bank.facts if fact.arm == arm}
        assert len(people) == 8
        assert len(people & with_questions) == 4
    for probe in bank.probes:
        if "/question:" in probe.id:
            is_trained = probe.id.split("/")[0] in with_questions
            assert probe.type == ("trained_question" if is_trained else "semantic")
            trained = any(probe.prompt in s.text for s in bank.statements_of(probe.fact_ids[0]))
            assert trained == is_trained


def test_words_that_yaml_takes_for_something_else_are_refused(tmp_path):
    path = tmp_path / "spec.yaml"
    text = "name: x\nrelations: {{x: {{label: x, answers: {{{}}}}}}}"
    for answers, message in (
        ("words: [maybe, yes, never]", "relations.x.answers.words[1]: is read as True; quote it"),
        ("words: [7up, 007]", "relations.x.answers.words[1]: is read as 7; quote it"),
        ("parts: [[no], [a]]", "relations.x.answers.parts[0][0]: is read as False; quote it"),
    ):
        path.write_text(text.format(answers))
        with pytest.raises(UserError) as error:
            read_spec(path)
        assert str(error.value) == f"{path}: {message}"
    path.write_text(text.format("words: ['yes', '007']"))
    words = read_spec(path)["relations"]["x"]["answers"]["words"]
    assert words == ["yes", "007"]


SMALLEST = """
name: capitals
people: 12
control: 0
distractors: 3
paraphrases: 1
new_words: flag
relations:
  price:
    label: price
    answers: {words: [one, two, three, four, five, six]}
    train: ["The price of {subject} is {object}."]
    probes: {semantic: ["{subject} has the price {object}."]}
"""


@pytest.mark.parametrize(
    ("change", "overrides"),
    [
        ("license: ${oc.env:HF_TOKEN}", []),
        ("license: x${oc.decode:'${oc.env:HF_TOKEN}'}", []),
        ("license: ${${subject}:HF_TOKEN}\nsubject: oc.env", []),
        ("subject: ${mine:1}", []),
        ("use: ['${oc.env:HF_TOKEN}']", []),
        ("${oc.env:HF_TOKEN}: 1", []),
        ("seed: 1", ["license=${oc.env:HF_TOKEN}"]),
        ("seed: 1", ["relations.price.answers.words=['${oc.env:HF_TOKEN}']"]),
    ],
)
def test_no_resolver_runs_in_a_spec(tmp_path, monkeypatch, change, overrides):
    """What it reads would travel with the bank."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "spec.yaml").write_text(f"{SMALLEST}{change}\n")
    with pytest.raises(UserError, match=r"resolvers are not allowed|a key cannot hold") as error:
        generate_from_spec(tmp_path / "spec.yaml", overrides)
    assert "hf_secret" not in str(error.value)


def test_keys_of_a_spec_may_be_referred_to_and_a_dollar_may_be_written(tmp_path):
    text = SMALLEST.replace(
        '"The price of {subject} is {object}."', r"'The price of {subject} is \${object}.'"
    )
    text += "control: ${people}\n"
    (tmp_path / "spec.yaml").write_text(text.replace("control: 0\n", ""))
    bank = generate_from_spec(tmp_path / "spec.yaml", [r"license=a \${b}"])
    assert bank.meta["spec"]["control"] == 12
    assert bank.meta["license"] == "a ${b}"
    assert all(" is $" in statement.text for statement in bank.statements)
    again = generate(bank.meta["spec"], 0)
    assert again.sha256 == bank.sha256


def set_value(spec, path, value):
    if not path:
        return value
    copy = dict(spec) if isinstance(spec, dict) else list(spec)
    copy[path[0]] = set_value(copy[path[0]], path[1:], value)
    return copy


def paths_of(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_of(item, (*path, key))


def mistake_in(spec):
    """What is wrong with a spec; empty if a bank can be made of it."""
    try:
        generate_from_spec(spec)
    except UserError as error:
        return str(error)
    return ""


WRONG = [[], {}, None, "", -1, math.nan, math.inf, [["a"]], True, 10**21, "x" * 10_000, "{", "(", {"a": {}}]


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{value!r:.20}" for value in WRONG])
def test_any_wrong_value_in_a_spec_is_one_line(tmp_path, wrong):
    whole = yaml.safe_load(SMALLEST)
    for path in paths_of(whole):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(set_value(whole, path, wrong)))
        message = mistake_in(tmp_path / "spec.yaml")
        assert message.isprintable()
        assert len(message) < 1000


def test_tidy_has_the_variables_and_probe_types_of_tidy_stlms():
    relations = read_spec(spec_of("tidy"))["relations"].values()
    derived = {name for relation in relations for name in relation["derived"]}
    assert {relation["variable"] for relation in relations} | derived | {"NAME"} == {
        "NAME", "BIRTH_DATE", "AGE_IN_2010", "BIRTH_YEAR", "ZODIAC_SIGN", "COUNTRY", "CITY", "COLOR", "SSN",
        "VERB", "LOCATION_PHRASE", "PROFESSION", "COMPANY", "DEGREE", "UNIVERSITY", "LANGUAGE", "FLUENCY",
        "ITEM", "LOCATION", "ADJECTIVE",
    }  # fmt: skip
    bank = generate_from_spec(spec_of("tidy"), ["people=20", "control=0"])
    assert {probe.type for probe in bank.probes} == {
        "memorization", "syntactic", "semantic", "inferential", "reversal",
    }  # fmt: skip
    assert {f.relation for f in bank.facts} == set(read_spec(spec_of("tidy"))["relations"])


def test_conclusions_follow_from_the_dates(banks):
    bank = banks["tidy"]
    concluded = [probe for probe in bank.probes if probe.type == "inferential"]
    assert len(concluded) == 3 * 40
    for probe in concluded:
        date = bank.fact_by_id[probe.fact_ids[0]].object
        year = int(date[-4:])
        if "year" in probe.prompt:
            assert probe.answers == (str(year),)
        elif "age" in probe.prompt:
            assert probe.answers == (str(2010 - year),)
