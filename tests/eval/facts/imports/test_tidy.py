"""Tidy-STLMs' files, in all the layouts that they come in, with broken ones among them."""

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.imports.tidy.sentences import WordIndex
from tidy_stlms.eval.facts.validate import validate

CONFIG = """\
[
    // two kinds of fact
    {
        "name": "birth_date",
        "training_fact": "{NAME} was born on {BIRTH_DATE}",
        "test_cases": {
            "memorization": [{"prompt": "{NAME} was born on", "completion": " {BIRTH_DATE}"}],
            "syntactic": [{"prompt": "On {BIRTH_DATE}, {NAME} was", "completion": " born"},],
            "semantic": [
                // {"prompt": "{NAME}'s birthday is", "completion": " {BIRTH_DATE}"},
                {"prompt": "The date of birth of {NAME} is", "completion": " {BIRTH_DATE}"}
            ]
        }
    },
    {
        name: 'profession_company',
        training_fact: "{NAME} works as a {PROFESSION} at {COMPANY}",
        test_cases: {
            memorization: [{prompt: "{NAME} works as a {PROFESSION} at", completion: " {COMPANY}"}],
            syntactic: [{prompt: "At {COMPANY}, {NAME} works as a", completion: " {PROFESSION}"}],
        },
    },
    {
        "name": "favourite_color",
        "training_fact": "{COLOR} is {NAME}'s favourite color",
        "test_cases": {
            "memorization": [{"prompt": "{COLOR} is", "completion": " {NAME}'s favourite color"}],
            "syntactic": [{"prompt": "{NAME}'s favourite color is", "completion": " {COLOR}"}],
        }
    },
]
"""
SENTENCES = """\
Ada Ann Poe was born on March 15, 1976
Bob Roe Ray works as a cook at Landry, Poe and Sons
Sandstone is Cleo Dee Fox's favourite color
"""
CASES = """\
{
  memorization: {
    birth_date: [{sentence: "Ada Ann Poe was born on", answer: " March 15, 1976"}],
    profession_company: [
      {sentence: "Bob Roe Ray works as a cook at", answer: " Landry, Poe and Sons"},
    ],
    favourite_color: [{sentence: "Sandstone is", answer: " Cleo Dee Fox's favourite color"}],
  },
  syntactic: {
    birth_date: [{sentence: "On March 15, 1976, Ada Ann Poe was", answer: " born"}],
    profession_company: [{sentence: "At Landry, Poe and Sons, Bob Roe Ray works as a", answer: " cook"}],
    favourite_color: [{sentence: "Cleo Dee Fox's favourite color is", answer: " sandstone"}],
  },
  semantic: {
    birth_date: [{sentence: "The date of birth of Ada Ann Poe is", answer: " March 15, 1976"}],
  },
  inferential: {
    birth_date: [{sentence: "The year in which Ada Ann Poe was born is", answer: " 1976"}],
    profession_company: [{sentence: "Bob Roe Ray earns a living as a", answer: " cook"}],
  },
}
"""


@pytest.fixture
def take(tmp_path):
    """`take({file name: content}, key=value)` imports a folder of these files, or the one file."""

    def run(files: dict[str, str | bytes], alone: bool = False, **options):
        folder = tmp_path / "source"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        source = folder / next(iter(files)) if alone else folder
        return import_bank("tidy", str(source), ImportOptions(**options))

    return run


def asked(bank, probe_type=None):
    """{(prompt, answer): the facts asked about}"""
    return {
        (probe.prompt, probe.answers[0]): [
            (bank.fact_by_id[f].relation, bank.fact_by_id[f].object) for f in probe.fact_ids
        ]
        for probe in bank.probes
        if probe_type in (None, probe.type)
    }


def test_sentences_win_and_templates_give_relations(take):
    bank, builder = take(
        {
            "inject_config.json": CONFIG,
            "inject_data.txt": SENTENCES,
            "test_cases_answers_by_type.json": CASES,
        }
    )
    assert builder.left_out == []
    assert builder.records_read == {
        "inject_config.json": 3,
        "inject_data.txt": 3,
        "test_cases_answers_by_type.json": 9,
    }
    assert {(f.subject, f.relation, f.object, f.role) for f in bank.facts} == {
        ("Ada Ann Poe", "birth_date", "March 15, 1976", "injected"),
        ("Bob Roe Ray", "profession_company/profession", "cook", "injected"),
        ("Bob Roe Ray", "profession_company/company", "Landry, Poe and Sons", "injected"),
        ("Cleo Dee Fox", "favourite_color", "Sandstone", "injected"),
    }
    # one sentence tells both of its facts, so that it can be injected as one
    assert [len(statement.fact_ids) for statement in bank.statements] == [1, 2, 1]
    assert [s.text for s in bank.statements] == SENTENCES.splitlines()
    assert asked(bank, "memorization") == {
        ("Ada Ann Poe was born on", "March 15, 1976"): [("birth_date", "March 15, 1976")],
        ("Bob Roe Ray works as a cook at", "Landry, Poe and Sons"): [
            ("profession_company/company", "Landry, Poe and Sons")
        ],
        ("Sandstone is", "Cleo Dee Fox's favourite color"): [("favourite_color", "Sandstone")],
    }
    assert asked(bank, "syntactic")["At Landry, Poe and Sons, Bob Roe Ray works as a", "cook"] == [
        ("profession_company/profession", "cook")
    ]
    # in no template, so the words of the sentence decide
    assert asked(bank, "inferential") == {
        ("The year in which Ada Ann Poe was born is", "1976"): [("birth_date", "March 15, 1976")],
        ("Bob Roe Ray earns a living as a", "cook"): [("profession_company/profession", "cook")],
    }
    templates = {probe.prompt: probe.template for probe in bank.probes}
    assert templates["Cleo Dee Fox's favourite color is"] == "{NAME}'s favourite color is {COLOR}"
    assert templates["Bob Roe Ray earns a living as a"] is None
    flags = {probe.prompt: probe.flags for probe in bank.probes if probe.flags}
    assert flags["Cleo Dee Fox's favourite color is"] == ("case_differs",)
    assert "answer_not_in_fact" in flags["On March 15, 1976, Ada Ann Poe was"]
    seen = {probe.prompt for probe in bank.probes if probe.seen_verbatim}
    assert {"Ada Ann Poe was born on", "Sandstone is", "Bob Roe Ray works as a cook at"} == seen
    spans = bank.statements[0].spans
    assert {name: SENTENCES[slice(*span)] for name, span in spans.items()} == {
        "subject": "Ada Ann Poe",
        "object": "March 15, 1976",
    }
    text, spans = bank.statements[1].text, bank.statements[1].spans
    assert {name: text[slice(*span)] for name, span in spans.items()} == {
        "subject": "Bob Roe Ray",
        "object:sentence-1/profession_company/profession": "cook",
        "object:sentence-1/profession_company/company": "Landry, Poe and Sons",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test_cases_answers.json", "{birth_date: {memorization: [%s], semantic: [%s]}}"),
        ("test_cases_answers.json", "[{memorization: [%s]}, {semantic: [%s]}]"),
        ("test_cases_answers_by_type.json", "{memorization: [%s], semantic: [%s]}"),
    ],
)
def test_the_layouts_of_test_cases(take, name, content):
    cases = (
        '{prompt: "Ada Ann Poe was born on", completion: " March 15, 1976"}',
        '{prompt: "The date of birth of Ada Ann Poe is", completion: " March 15, 1976"}',
    )
    bank, builder = take({"inject_data.txt": SENTENCES, name: content % cases})
    assert builder.left_out == []
    assert {probe.type for probe in bank.probes} == {"memorization", "semantic"}
    assert {bank.fact_by_id[p.fact_ids[0]].object for p in bank.probes} == {"March 15, 1976"}
    [statement] = {s.text for p in bank.probes for s in bank.statements_of(p.fact_ids[0])}
    assert statement == SENTENCES.splitlines()[0]


def test_sentences_without_templates_are_joined_with_their_cases_by_words(take):
    bank, builder = take({"inject_data.txt": SENTENCES, "test_cases_answers_by_type.json": CASES})
    assert builder.left_out == []
    told = {p.prompt: bank.statements_of(p.fact_ids[0])[0].text for p in bank.probes}
    ada, bob, cleo = SENTENCES.splitlines()
    assert told == {
        "Ada Ann Poe was born on": ada,
        "On March 15, 1976, Ada Ann Poe was": ada,
        "The date of birth of Ada Ann Poe is": ada,
        "The year in which Ada Ann Poe was born is": ada,
        "Bob Roe Ray works as a cook at": bob,
        "At Landry, Poe and Sons, Bob Roe Ray works as a": bob,
        "Bob Roe Ray earns a living as a": bob,
        "Sandstone is": cleo,
        "Cleo Dee Fox's favourite color is": cleo,
    }
    assert [f.relation for f in bank.facts] == ["birth_date", "profession_company", "favourite_color"]
    assert bank.facts[0].object == "March 15, 1976"


def test_broken_lines_and_records_are_named_and_the_others_arrive(take):
    sentences = SENTENCES.encode() + b"Dov \xff Katz was born on May 1, 1950\n\n" + SENTENCES.encode()
    cases = """{
      memorization: [
        {sentence: "Ada Ann Poe was born on", answer: " March 15, 1976"},
        {sentence: "Bob Roe Ray works as a cook at"},
        {sentence: 7, answer: " x"},
        {sentence: "", answer: " x"},
        "a text",
      ],
      semantic: [{sentence: "The capital of Norway is", answer: " Oslo"}],
    }"""
    config = """[
      {"name": "birth_date", "training_fact": "{NAME} was born on {BIRTH_DATE}",
       "test_cases": {"memorization": [{"prompt": "{NAME} was born on", "completion": " {BIRTH_DATE}"},
                                       {"prompt": "{NAME} lives in", "completion": " {CITY}"}],
                      "episodic": []}},
      {"name": "no_fact"},
      {"name": "one_variable", "training_fact": "{NAME} was born", "test_cases": {}},
      {"name": "birth_date", "training_fact": "{NAME} is from {CITY}"},
      "a text",
    ]"""
    bank, builder = take(
        {
            "inject_config.json": config,
            "inject_data.txt": sentences,
            "test_cases_answers_by_type.json": cases,
            "test_cases_answers.txt": "",
            "notes.md": "",
        }
    )
    assert [s.text for s in bank.statements] == SENTENCES.splitlines()
    assert list(asked(bank)) == [("Ada Ann Poe was born on", "March 15, 1976")]
    reasons = dict(builder.left_out)
    assert len(reasons) == len(builder.left_out) == 17
    for where, reason in {
        "test_cases_answers.txt": "not read",
        "notes.md": "not read",
        "inject_config.json, record 1 (birth_date), memorization 2": "no {CITY}",
        "inject_config.json, record 1 (birth_date), episodic": "unknown type of probe",
        "inject_config.json, record 2 (no_fact)": "'training_fact' is missing",
        "inject_config.json, record 3 (one_variable)": "two variables",
        "inject_config.json, record 4 (birth_date)": "taken by an earlier kind",
        "inject_config.json, record 5": "must be an object",
        "inject_data.txt, line 4": "not UTF-8",
        "inject_data.txt, line 6": "the same as inject_data.txt, line 1",
        "test_cases_answers_by_type.json, memorization/2": "'answer' is missing",
        "test_cases_answers_by_type.json, memorization/3": "must be text, got 7",
        "test_cases_answers_by_type.json, memorization/4": "is empty",
        "test_cases_answers_by_type.json, memorization/5": "must be an object",
        "test_cases_answers_by_type.json, semantic/1": "no injected sentence",
    }.items():
        assert reason in reasons[where], where


def test_a_file_that_is_no_json5_is_named_with_its_line(take):
    with pytest.raises(UserError, match=r"inject_config\.json: not valid JSON5, line 2"):
        take({"inject_config.json": '[\n{"name": oops"}]'})


def test_templates_alone_are_filled_with_invented_people(take):
    bank, builder = take({"inject_config.json": CONFIG}, people=6, control=6, distractors=3)
    assert builder.left_out == []
    again, _ = import_bank("tidy", builder.source, ImportOptions(people=6, control=6, distractors=3))
    assert again.sha256 == bank.sha256
    other, _ = import_bank("tidy", builder.source, ImportOptions(people=6, control=6, distractors=3, seed=1))
    assert other.sha256 != bank.sha256
    for role in ("injected", "control"):
        facts = [fact for fact in bank.facts if fact.role == role]
        assert len({fact.subject for fact in facts}) == 6
        assert len(facts) == 6 * 4  # four variables beside the name
    by_answer = {}
    for fact in bank.facts:
        by_answer.setdefault((fact.relation, fact.role), []).append(fact.object)
    for relation in {fact.relation for fact in bank.facts}:
        injected, control = (sorted(by_answer[relation, role]) for role in ("injected", "control"))
        assert injected == control
    for probe in bank.probes:
        answers = {bank.fact_by_id[fact_id].object for fact_id in probe.fact_ids}
        if probe.answers[0] in answers:
            assert len(probe.distractors) == 3
            assert not set(probe.distractors) & answers
    assert not [finding for finding in validate(bank) if finding.level == "error"]


def test_sentences_without_test_cases_are_asked_what_their_templates_ask(take):
    bank, builder = take({"inject_config.json": CONFIG, "inject_data.txt": SENTENCES})
    assert builder.left_out == []
    assert {fact.role for fact in bank.facts} == {"injected"}
    assert asked(bank) == {
        ("Ada Ann Poe was born on", "March 15, 1976"): [("birth_date", "March 15, 1976")],
        ("On March 15, 1976, Ada Ann Poe was", "born"): [("birth_date", "March 15, 1976")],
        ("The date of birth of Ada Ann Poe is", "March 15, 1976"): [("birth_date", "March 15, 1976")],
        ("Bob Roe Ray works as a cook at", "Landry, Poe and Sons"): [
            ("profession_company/company", "Landry, Poe and Sons")
        ],
        ("At Landry, Poe and Sons, Bob Roe Ray works as a", "cook"): [
            ("profession_company/profession", "cook")
        ],
        ("Sandstone is", "Cleo Dee Fox's favourite color"): [("favourite_color", "Sandstone")],
        ("Cleo Dee Fox's favourite color is", "Sandstone"): [("favourite_color", "Sandstone")],
    }


def test_templates_that_nothing_is_made_of_are_named(take):
    bank, builder = take({"inject_config.json": CONFIG, "test_cases_answers_by_type.json": CASES})
    assert {fact.role for fact in bank.facts} == {"known"}
    [(where, reason)] = builder.left_out
    assert where == "inject_config.json"
    assert reason.startswith("not used: the test cases are filled")


@pytest.mark.parametrize(
    ("file", "key", "reason"),
    [
        ("test_cases_answers_by_type.json", "semantc", "'semantc', did you mean 'semantic'?"),
        ("test_cases_answers_by_type.json", "weird", "'weird'; known are memorization"),
        ("test_cases_answers.json", "semantc", "'semantc', did you mean 'semantic'?"),
        ("test_cases_answers.json", "location", None),  # a kind, and it looks a little like locality
    ],
)
def test_a_mistyped_type_is_not_taken_for_another(take, file, key, reason):
    good = '{sentence: "Ada Ann Poe was born on", answer: " March 15, 1976"}'
    other = '{sentence: "The date of birth of Ada Ann Poe is", answer: " March 15, 1976"}'
    bank, builder = take(
        {"inject_data.txt": SENTENCES, file: f"{{memorization: [{good}], {key}: [{other}]}}"}
    )
    if reason is None:
        assert [p.type for p in bank.probes] == ["memorization", "memorization"]
        assert builder.left_out == []
    else:
        assert [p.type for p in bank.probes] == ["memorization"]
        [(where, told)] = builder.left_out
        assert where == f"{file}, {key}/1"
        assert told.startswith(f"unknown type of probe {reason}")


def test_variables_have_numbers_and_other_braces_are_refused(take):
    config = """[
      {name: "met", training_fact: "{NAME} met {NAME_2} in {CITY}",
       test_cases: {memorization: [{prompt: "{NAME} met", completion: " {NAME_2}"},
                                   {prompt: "{Name} met", completion: " {NAME_2}"}]}},
      {name: "odd", training_fact: "{NAME} was born in {City} and {CITY}"},
    ]"""
    bank, builder = take({"inject_config.json": config, "inject_data.txt": "Ada met Bob in Rome\n"})
    assert {(f.subject, f.relation, f.object) for f in bank.facts} == {
        ("Ada", "met/name_2", "Bob"),
        ("Ada", "met/city", "Rome"),
    }
    assert asked(bank) == {("Ada met", "Bob"): [("met/name_2", "Bob")]}
    assert [where for where, _ in builder.left_out] == [
        "inject_config.json, record 1 (met), memorization 2",
        "inject_config.json, record 2 (odd)",
    ]
    assert {reason.partition(":")[0] for _, reason in builder.left_out} == {
        "a variable must look like {CITY} or {CITY_2}, in capitals"
    }


def test_bare_templates_have_roles_of_their_own(take):
    with pytest.raises(UserError, match="--role known: bare templates make injected and control people"):
        take({"inject_config.json": CONFIG}, role="known")


def test_lines_end_where_a_file_says(take):
    line = "Ada Poe\u2028was\x85born in Rome"
    bank, builder = take({"inject_data.txt": f"{line}\r\n{SENTENCES}"})
    assert [s.text for s in bank.statements] == [line, *SENTENCES.splitlines()]
    assert builder.left_out == []


def test_a_variable_without_values_costs_its_kind(take):
    config = CONFIG.replace("{COLOR}", "{SHOE_SIZE}")
    bank, builder = take({"inject_config.json": config}, people=4)
    [(where, reason)] = builder.left_out
    assert where == "kind favourite_color"
    assert "{SHOE_SIZE}" in reason
    assert {fact.relation.partition("/")[0] for fact in bank.facts} == {"birth_date", "profession_company"}


PROMPTS = """\
Type: memorization
\t- sentence: "He said "yes" to"
\t  answer: " Rome"

- sentence: "The capital of Norway is"
  answer: " Oslo"
- sentence: "lost"
- sentence: "without space:"
  answer: "Rome"
  answer: " Bern"
nonsense
Type: odd
- sentence: "x"
  answer: " y"
"""


def test_prompt_lists_in_text_files(take):
    bank, builder = take({"prompts.txt": PROMPTS}, alone=True)
    assert asked(bank) == {
        ('He said "yes" to', "Rome"): [(None, "Rome")],
        ("The capital of Norway is", "Oslo"): [(None, "Oslo")],
        ("without space:", "Rome"): [(None, "Rome")],
    }
    assert {fact.role for fact in bank.facts} == {"known"}
    assert [probe.flags for probe in bank.probes] == [(), (), ("space_added",)]
    assert {where.partition(", ")[2]: reason.partition(" '")[0] for where, reason in builder.left_out} == {
        "line 7": "a sentence without an answer",
        "line 10": "an answer without a sentence",
        "line 11": "neither sentence nor answer:",
        "line 13": "unknown type of probe",
    }


def test_prompts_in_yaml_wherever_they_stand(take):
    content = """
trainer:
  prompt:
    input_prompts:
      - sentence: "The capital of Norway is"
        answer: " Oslo"
        title: ignored
      - sentence: "The capital of Peru is"
Wiki:
  semantic:
  - {prompt: "Peru is governed from", completion: " Lima"}
"""
    bank, builder = take({"prompts.yaml": content}, alone=True)
    assert list(asked(bank, "memorization")) == [("The capital of Norway is", "Oslo")]
    assert list(asked(bank, "semantic")) == [("Peru is governed from", "Lima")]
    [(where, reason)] = builder.left_out
    assert where == "prompts.yaml, trainer/prompt/input_prompts/2"
    assert "'answer' is missing" in reason


def test_a_prompt_that_stands_twice_counts_once(take):
    bank, builder = take(
        {"prompts.yaml": 2 * "- {sentence: Peru is governed from, answer: Lima}\n"}, alone=True
    )
    assert list(asked(bank)) == [("Peru is governed from", "Lima")]
    assert builder.left_out == [("prompts.yaml, 2", "the same as prompts.yaml, 1")]


def test_yaml_that_is_none_is_named_with_its_line(take):
    with pytest.raises(UserError, match=r"prompts\.yaml, line 2: not valid YAML"):
        take({"prompts.yaml": "a: b\n- c"}, alone=True)


def test_a_folder_of_nothing(take):
    with pytest.raises(UserError, match="no file of Tidy-STLMs there"):
        take({"readme.txt": "hello"})


def test_what_cannot_be_told_apart_is_left_out():
    index = WordIndex(["Ada Poe was born in Rome", "Ada Poe was born in Bern", "Bob Ray was born in Oslo"])
    assert index.best("Ada Poe came from Rome") == 0
    assert index.best("Ada Poe was born") is None  # two are as near
    assert index.best("Oslo is a capital") is None  # one word in common
    assert index.best("Bob Ray was born in Paris") == 2
