"""What stands between prompt and answer: in the bank, its validator, its importers and its generator."""

import json

import pytest
from msgspec.structs import replace

from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.eval.facts.bank_files import edit_line, small_bank
from tests.eval.facts.joint_examples import EXAMPLES, joint_bank
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.fix import fix_bank
from tidy_stlms.eval.facts.generate.generate import generate
from tidy_stlms.eval.facts.generate.real_facts import read_real_facts
from tidy_stlms.eval.facts.generate.templates import parse_template
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.summary import token_lengths
from tidy_stlms.eval.facts.text_match import is_answer
from tidy_stlms.eval.facts.validate import flag_probes, load_bank, validate


def joints(bank: FactBank) -> list[str]:
    return [probe.joint for probe in bank.probes]


RIGHT = [joint for _, joint, *_ in EXAMPLES]


@pytest.mark.parametrize(
    ("prompt", "joint", "suffix", "text"),
    [
        ("is in", " ", "", "is in Bern"),
        ("l'", "", "", "l'Bern"),
        ("is in ", "", "", "is in Bern"),  # the prompt's own space
        ("Q?\n", " ", "", "Q?\nBern"),
        ("", " ", " it is.", "Bern it is."),
        ("(", "", ").", "(Bern)."),
    ],
)
def test_the_text_that_is_asked_about(prompt, joint, suffix, text):
    probe = Probe("p", ("f",), "semantic", prompt, ("Bern", "Berne"), suffix=suffix, joint=joint)
    assert probe.text() == text
    assert probe.text("Berne") == text.replace("Bern", "Berne")


# ---- the bank ----------------------------------------------------------------------------------------


def test_a_bank_keeps_its_joints_and_a_space_is_not_written(tmp_path):
    bank = joint_bank()
    bank.save(tmp_path / "bank")
    loaded = load_bank(tmp_path / "bank")
    assert loaded == bank
    assert joints(loaded) == RIGHT
    lines = [json.loads(line) for line in (tmp_path / "bank" / "probes.jsonl").read_text().splitlines()]
    assert [line.get("joint") for line in lines] == ["" if joint == "" else None for joint in RIGHT]


def test_a_joint_is_content_and_a_space_is_none():
    """A bank of before has no such field, and keeps its hash."""
    assert small_bank().sha256 == "0cd06ea72cba5fcee712f832aed2497fdb996fd21f56b9788977cd2c0a395ee7"
    assert joint_bank().sha256 != joint_bank(joint=" ").sha256


def test_any_other_joint_is_an_error_that_names_the_probe(tmp_path):
    small_bank().save(tmp_path / "bank")
    edit_line(tmp_path / "bank", "probes", 1, joint=", ")
    message = r"""probes\.jsonl: 'bob/city/memorization:0': joint ', ' must be "" or " "; move"""
    with pytest.raises(UserError, match=message):
        load_bank(tmp_path / "bank")


def test_token_lengths_count_what_is_read():
    tokenizer = byte_tokenizer()
    longest = max(EXAMPLES, key=lambda example: len(example[2].encode()))
    assert longest[1] == ""
    counted = token_lengths(joint_bank(), tokenizer)["answers"]["max"]
    assert counted == len(longest[2].encode())
    assert token_lengths(joint_bank(joint=" "), tokenizer)["answers"]["max"] == counted + 1


# ---- the validator -----------------------------------------------------------------------------------


def test_the_joint_of_the_statement_has_no_remarks_and_any_other_has():
    assert validate(joint_bank()) == []
    assert all(joint_bank().is_stated(probe) for probe in joint_bank().probes)
    for wrong in (" ", ""):
        bank = joint_bank(joint=wrong)
        expected = [f"p{number}" for number, joint in enumerate(RIGHT) if joint != wrong]
        findings = validate(bank)
        assert {finding.code for finding in findings} == {"joined_text_not_stated"}
        assert [finding.ids for finding in findings] == [(probe_id,) for probe_id in expected]
        assert [probe.id for probe in flag_probes(bank, validate(bank)).probes if probe.flags] == expected
    assert 'no statement of its facts holds the text "La formule H2O est celle de l\' eau"' in (
        validate(joint_bank(joint=" "))[0].message
    )


@pytest.mark.parametrize("wrong", [" ", ""])
def test_the_joint_of_the_statement_is_taken_where_the_other_is_not_stated(wrong):
    bank, lines = fix_bank(joint_bank(joint=wrong))
    assert joints(bank) == RIGHT
    assert validate(bank) == []
    assert lines == [
        f"probes.jsonl: 'p{number}': joint {wrong!r} is now {joint!r}"
        for number, joint in enumerate(RIGHT)
        if joint != wrong
    ]
    mended = [probe for probe, joint in zip(bank.probes, RIGHT, strict=True) if joint != wrong]
    assert all(probe.seen_verbatim for probe in mended)
    assert fix_bank(bank) == (bank, [])


def test_a_joint_that_no_statement_shows_is_left_alone():
    bank = joint_bank(prompt="Somewhere else", joint="")
    assert fix_bank(bank) == (bank, [])


def test_a_space_at_the_prompts_end_is_the_joint():
    bank = joint_bank()
    spaced = replace(bank.probes[-1], prompt="Dan was born in ", joint="", type="semantic")
    mended, _ = fix_bank(replace(bank, statements=(), probes=(spaced,)))
    assert mended.probes[0].text() == spaced.text() == "Dan was born in Oslo"


def test_a_trained_wording_is_found_whatever_joins_it():
    for number, probe in enumerate(joint_bank().probes):
        bank = joint_bank()
        asked = replace(probe, type="semantic")
        findings = validate(replace(bank, probes=(asked,)))
        assert [finding.code for finding in findings] == ["trained_wording"], EXAMPLES[number]


def test_answers_are_found_in_chinese_statements_and_prompts():
    bank = joint_bank()
    chinese = replace(bank.probes[1], prompt="北京在中国，中国的首都是", type="locality")
    assert [f.code for f in validate(replace(bank, probes=(chinese,)))] == ["answer_in_prompt"]


# ---- importers ---------------------------------------------------------------------------------------


@pytest.fixture
def take(tmp_path):
    """`take(format, {name: content}, alone=False)` writes files and imports the folder, or the one file."""

    def run(format, files, alone=False, **options):
        for name, content in files.items():
            path = tmp_path / "source" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return import_bank(format, str(path if alone else path.parent), ImportOptions(**options))[0]

    return run


def lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


ROWS = [
    {"id": f"f{number}", "object": answer, "statement": f"{prompt}{joint}{answer}{end}", "prompt": prompt}
    for number, (prompt, joint, answer, end, _) in enumerate(EXAMPLES)
]


def test_tables_have_the_joint_of_their_statements(take):
    bank = take("jsonl", {"rows.jsonl": lines(ROWS)}, alone=True)
    assert joints(bank) == RIGHT
    assert all(probe.seen_verbatim and not probe.flags for probe in bank.probes)
    # the statement may come in a later row than the question
    apart = [{**row, "statement": None} for row in ROWS] + [{**row, "prompt": None} for row in ROWS]
    assert joints(take("jsonl", {"rows.jsonl": lines(apart)}, alone=True)) == RIGHT


def test_case_and_normal_form_do_not_hide_the_joint(take):
    rows = [
        {"id": "a", "object": "\u00e9t\u00e9", "statement": "C'est l'e\u0301te\u0301.", "prompt": "C'est l'"},
        {"id": "b", "object": "eau", "statement": "C'est l'Eau.", "prompt": "C'est l'"},
    ]
    bank = take("jsonl", {"rows.jsonl": lines(rows)}, alone=True)
    assert joints(bank) == ["", ""]
    # and it is said all the same that the text was not trained so
    assert "joined_text_not_stated" in bank.probes[0].flags
    assert "case_differs" in bank.probes[1].flags


def test_tables_have_the_joint_of_their_templates_or_of_their_column(take):
    rows = [
        {"object": "eau", "prompt": "C'est l'", "template": "C'est l'{object}."},
        {"object": "Oslo", "prompt": "It is", "template": "It is {object}."},
        {"object": "Rome", "prompt": "It is", "template": "It is{object}."},  # a slip
        {"object": "北京", "prompt": "首都是"},
        {"object": "air", "prompt": "C'est l'"},  # nothing shows it: what is usual
        {"object": "or", "prompt": "C'est l'", "joint": ""},
        {"object": "ail", "prompt": "C'est l'", "joint": "none"},
        {"object": "上海", "prompt": "首都是", "joint": " "},
        {"object": "東京", "prompt": "首都是", "joint": "space"},
    ]
    bank = take("jsonl", {"rows.jsonl": lines(rows)}, alone=True)
    assert joints(bank) == ["", " ", " ", "", "", "", "", " ", " "]


def test_the_column_goes_before_the_statement(take):
    rows = [{**ROWS[0], "joint": "space"}]
    bank = take("jsonl", {"rows.jsonl": lines(rows)}, alone=True)
    assert joints(bank) == [" "]
    assert bank.probes[0].flags == ("joined_text_not_stated",)


def test_csv_says_none_and_space_in_words(take):
    table = "object,prompt,joint\neau,C'est l',none\nOslo,It is,\nRome,It is,space\nBern,It is, \n"
    bank = take("csv", {"rows.csv": table}, alone=True)
    assert joints(bank) == ["", " ", " ", " "]
    with pytest.raises(UserError, match=r"field 'joint' must be none, space, \"\" or \" \", got 'comma'"):
        take("csv", {"rows.csv": "object,prompt,joint\neau,C'est l',comma\n"}, alone=True)


def test_fictional_knowledge_has_the_joint_of_its_passages(take):
    told = [example for example in EXAMPLES if example[3]]
    record = {
        "train_context": " ".join(f"{prompt}{joint}{answer}{end}" for prompt, joint, answer, end, _ in told),
        "mem_input": [prompt for prompt, *_ in told],
        "mem_target": [answer for _, _, answer, *_ in told],
        "gen_input": ["La molécule est l'", "首都：", *("It is" for _ in told[2:])],
        "gen_target": [answer for _, _, answer, *_ in told],
        "hard_gen_input": ["It is"],
        "hard_gen_target": ["Oslo"],
    }
    bank = take("fictional-knowledge", {"data.json": [record]}, alone=True)
    memorization = [probe.joint for probe in bank.probes if probe.type == "memorization"]
    assert memorization == [joint for _, joint, *_ in told]
    # where nothing shows it, it is what is usual
    assert [probe.joint for probe in bank.probes if probe.type == "semantic"][:3] == ["", "", " "]


def test_counterfact_joins_its_statement_as_it_asks(take):
    rewrite = {
        "prompt": "{}的首都是",
        "subject": "中国",
        "target_new": {"str": "上海"},
        "target_true": {"str": "北京"},
    }
    record = {
        "requested_rewrite": rewrite,
        "paraphrase_prompts": ["中国的政府在"],
        "neighborhood_prompts": ["日本的首都是", "The capital (of China) is"],
    }
    bank = take("counterfact", {"data.json": [record]}, alone=True)
    assert bank.statements[0].text == "中国的首都是上海."
    assert joints(bank) == ["", "", "", " "]
    assert not any("joined_text_not_stated" in probe.flags for probe in bank.probes)


def test_bear_has_the_joint_of_its_templates(take):
    metadata = {
        "P36": {
            "templates": [
                "[X]的首都是[Y]。",
                "[Y]是[X]的首都。",
                "The capital of [X] (it is [Y])",
                "[X]: l'[Y]",
            ],
            "answer_space_labels": ["北京", "東京"],
        }
    }
    facts = [{"sub_id": "Q1", "sub_label": "中国", "obj_label": "北京"}]
    bank = take("bear", {"metadata_relations.json": metadata, "P36.jsonl": lines(facts)})
    asked = [(probe.text(), probe.suffix) for probe in bank.probes]
    assert asked == [
        ("中国的首都是北京", ""),  # the full stop is the template's
        ("北京是中国的首都。", "是中国的首都。"),
        ("The capital of 中国 (it is 北京", ""),
        ("中国: l'北京", ""),
    ]


def test_tidy_lists_have_the_joint_of_the_sentences(take):
    sentences = "".join(f"{prompt}{joint}{answer}{end}\n" for prompt, joint, answer, end, _ in EXAMPLES)
    cases = {
        "memorization": [{"sentence": prompt, "answer": answer} for prompt, _, answer, *_ in EXAMPLES],
        "semantic": [{"sentence": "Dan first saw the light of day in", "answer": "Oslo"}],
    }
    bank = take("tidy", {"inject_data.txt": sentences, "test_cases_answers_by_type.json": cases})
    found = {probe.prompt: probe for probe in bank.probes}
    assert {prompt: found[prompt].joint for prompt, *_ in EXAMPLES if prompt in found} == {
        prompt: joint for prompt, joint, *_ in EXAMPLES if prompt in found
    }
    assert len(found) >= 7
    # a space is added where the source has none, and a sentence has one
    added = {prompt for prompt, probe in found.items() if "space_added" in probe.flags}
    assert added == {"Dan was born in", "Dan first saw the light of day in"}


def test_tidy_templates_show_the_joint(take):
    config = [
        {
            "name": "drink",
            "training_fact": "{NAME} aime l'{DRINK}.",
            "test_cases": {
                "memorization": [{"sentence": "{NAME} aime l'", "answer": "{DRINK}"}],
                "semantic": [
                    {"sentence": "La boisson de {NAME} est l'", "answer": "{DRINK}"},
                    {"sentence": "Et {NAME} boit", "answer": "{DRINK}"},  # a slip
                    {"sentence": "{NAME} boit de l'", "answer": " {DRINK}"},  # as it stands there
                ],
            },
        }
    ]
    files = {"inject_config.json": config, "inject_data.txt": "Ada aime l'eau.\nBob aime l'or.\n"}
    bank = take("tidy", files)
    assert [probe.joint for probe in bank.probes[:4]] == ["", "", " ", " "]
    assert ["space_added" in probe.flags for probe in bank.probes[:4]] == [False, False, True, False]


def test_prompts_without_sentences_have_the_usual_joint(take):
    prompts = '- {sentence: 中国的首都是, answer: 北京}\n- {sentence: "Where?", answer: Oslo}\n'
    bank = take("tidy", {"prompts.yaml": prompts}, alone=True)
    assert [(probe.joint, probe.flags) for probe in bank.probes] == [("", ()), (" ", ("space_added",))]


def test_real_facts_say_their_joint_or_have_the_usual_one(tmp_path):
    rows = [
        {"subject": "中国", "relation": "capital", "object": "北京", "prompts": ["中国的首都是"]},
        {"subject": "H2O", "relation": "name", "object": "eau", "prompts": ["H2O, c'est l'"], "joint": ""},
        {"subject": "Norway", "relation": "capital", "object": "Oslo", "prompts": ["Norway is ruled from"]},
    ]
    (tmp_path / "real.jsonl").write_text(lines(rows))
    bank = read_real_facts(tmp_path / "real.jsonl", "known", 1, 0)
    assert [probe.text() for probe in bank.probes] == [
        "中国的首都是北京",
        "H2O, c'est l'eau",
        "Norway is ruled from Oslo",
    ]


# ---- the generator -----------------------------------------------------------------------------------

PLACES = {"subject": "subject", "object": "city"}


@pytest.mark.parametrize(
    ("template", "joint"),
    [
        ("{subject} lives in {object}.", " "),
        ("La ville de {subject} est l'{object}.", ""),
        ("{subject}住在{object}。", ""),
        ("{subject} said “{object}”.", ""),
        ("{subject} ({object}).", ""),
        ("{subject} of post-{object}.", ""),
    ],
)
def test_templates_show_their_joint(template, joint):
    parsed = parse_template(template, "train", PLACES, ("subject", "city"), ("city",))
    assert parsed.joint == joint
    values = {"subject": "Ada", "city": "Bern"}
    sentence, spans = parsed.sentence(values)
    assert f"{parsed.prompt(values).text}{joint}Bern" == sentence[: spans["city"][1]]


@pytest.mark.parametrize(
    "template",
    ["{subject} lives in{object}.", "{subject}  {object}.", "{subject} in  {object}.", "{subject}\t{object}.",
     "{subject}{object}.", "{subject} No{object}.", "{subject} दिल्ली{object}।"],
)  # fmt: skip
def test_templates_without_a_joint_are_refused(template):
    with pytest.raises(UserError, match=r"train: exactly one space before \{object\}, or none behind"):
        parse_template(template, "train", PLACES, ("subject", "city"), ("city",))


def test_a_spec_in_chinese():
    """Names, answers and wordings of a script without spaces: every text is joined as it is told."""
    firsts, seconds = "王李张刘陈杨赵黄周吴", "明芳伟静强磊洋勇杰娟"
    spec = {
        "name": "chinese",
        "people": 12,
        "distractors": 3,
        "paraphrases": 2,
        "names": {"words": [f"{a}{b}" for a in firsts for b in seconds], "pattern": ".+"},
        "relations": {
            "city": {
                "label": "城市",
                "answers": {"words": ["北京", "上海", "广州", "成都", "西安", "苏州"]},
                "train": ["{subject}住在{object}。", "{subject}的家在{object}。"],
                "probes": {"semantic": ["{subject}在的家，住{object}。"]},
            }
        },
    }
    bank = generate(spec, seed=3)
    assert {probe.joint for probe in bank.probes} == {""}
    assert {statement.text[-1] for statement in bank.statements} == {"。"}
    for probe in bank.probes:
        assert bank.is_stated(probe) == (probe.type == "memorization")
    assert validate(bank) == []
    assert {probe.type for probe in bank.probes} == {"memorization", "semantic"}


def test_a_no_break_space_behind_a_quote_is_part_of_the_prompt(tmp_path):
    """As French sets it; an ideographic space behind a colon likewise."""
    rows = [
        {"subject": "Zubrowka", "relation": "capital", "object": "Orne",
         "statement": "La capitale est «\u00a0Orne\u00a0».", "prompt": "La capitale est «\u00a0"},
        {"subject": "卓拉", "relation": "首都", "object": "月城", "statement": "首都：\u3000月城。",
         "prompt": "首都：\u3000"},
    ]  # fmt: skip
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    bank, _ = import_bank("jsonl", str(path), ImportOptions())
    for probe, row in zip(bank.probes, rows, strict=True):
        assert probe.prompt == row["prompt"]
        assert probe.text() in row["statement"]
        assert probe.seen_verbatim
        assert not {"outer_space", "joined_text_not_stated"} & set(probe.flags)
    assert is_answer("Orne\u00a0».", ["Orne"], ended=False)
