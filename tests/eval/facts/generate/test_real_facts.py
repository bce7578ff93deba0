"""Real facts from a file: they are asked and never stated."""

import json

import pytest

from tests.eval.facts.bank_checks import check_generated
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.generate import generate, generate_from_spec
from tidy_stlms.eval.facts.generate.real_facts import RealFact, real_facts

PEOPLE = "configs/facts/people.yaml"
SMALL = ["people=12", "use=[profession]"]


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
