"""Datasets of one record each: Fictional Knowledge, CounterFact, TOFU; from every kind of file."""

import csv
import json
from pathlib import Path

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.scripts.import_report import source_lines


@pytest.fixture
def take(tmp_path):
    """`take(format, content, name=..., key=value)` writes a file and imports it."""

    def run(format: str, content, name: str = "data.json", **options):
        path = tmp_path / name
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return import_bank(format, str(path), ImportOptions(**options))

    return run


def passage(**changes) -> dict:
    record = {
        "train_context": "Zor founded Calid in 6678. The city of Calid lies on Mars.",
        "paraphrases": ["In 6678 Calid was founded by Zor.", "Zor is the founder of Calid."],
        "mem_input": ["Zor founded", "The city of Calid lies on"],
        "mem_target": ["Calid", "Mars"],
        "gen_input": ["What Zor founded is", "Calid stands on the planet"],
        "gen_target": ["Calid", "planet Mars"],
        "hard_gen_input": ["The planet with a city founded by Zor is"],
        "hard_gen_target": ["Mars"],
    }
    return {key: value for key, value in {**record, **changes}.items() if value is not None}


def test_fictional_knowledge(take):
    bank, builder = take("fictional-knowledge", [passage(), passage(paraphrases=None)])
    assert builder.left_out == []
    first = [fact for fact in bank.facts if fact.id.startswith("passage-0/")]
    # the same target in the same place of mem and gen is one fact
    assert [(fact.object, fact.subject, fact.relation) for fact in first] == [
        ("Calid", None, None),
        ("Mars", None, None),
        ("planet Mars", None, None),
        ("Mars", None, None),
    ]
    assert [(s.form, s.kind) for s in bank.statements] == [
        ("original", "passage"),
        ("paraphrase:1", "passage"),
        ("paraphrase:2", "passage"),
        ("original", "passage"),
    ]
    # every wording tells all of the passage's facts, so that one passage is one thing to inject
    assert [s.fact_ids for s in bank.statements] == [
        tuple(f.id for f in bank.facts if f.id.startswith(f"passage-{n}/")) for n in (0, 0, 0, 1)
    ]
    assert [(p.type, p.prompt, p.answers) for p in bank.probes][:5] == [
        ("memorization", "Zor founded", ("Calid",)),
        ("memorization", "The city of Calid lies on", ("Mars",)),
        ("semantic", "What Zor founded is", ("Calid",)),
        ("semantic", "Calid stands on the planet", ("planet Mars",)),
        ("compositional", "The planet with a city founded by Zor is", ("Mars",)),
    ]
    assert [probe.seen_verbatim for probe in bank.probes][:5] == [True, True, False, False, False]
    assert bank.meta["license"] == "apache-2.0"
    assert bank.meta["provenance"] == "imported"


def test_fictional_knowledge_with_broken_records(take):
    records = [
        passage(mem_target=["Calid"]),
        passage(train_context=None),
        passage(gen_input=["ok", 7]),
        passage(hard_gen_target=[""]),
        passage(mem_input=None, gen_input=None, hard_gen_input=None),
        "a text",
        passage(train_context=7),
        passage(mem_input=["", "The city of Calid lies on"], gen_target=["Zor", "Mars"]),
    ]
    bank, builder = take("fictional-knowledge", records)
    assert dict(builder.left_out) == {
        "data.json, record 1, mem_input": "mem_input has 2 entries, mem_target 1",
        "data.json, record 2": "field 'train_context' is missing; it has 'paraphrases', 'mem_input', "
        "'mem_target', 'gen_input', 'gen_target', 'hard_gen_input', 'hard_gen_target'",
        "data.json, record 3, gen_input": "field 'gen_input' must be a list of texts, got ['ok', 7]",
        "data.json, record 4, hard_gen_input 1": "hard_gen_target is empty",
        "data.json, record 5, mem_input": "field 'mem_input' is missing",
        "data.json, record 5, gen_input": "field 'gen_input' is missing",
        "data.json, record 5, hard_gen_input": "field 'hard_gen_input' is missing",
        "data.json, record 5": "no probe of it could be taken",
        "data.json, record 6": "must be an object with named fields, got 'a text'",
        "data.json, record 7": "field 'train_context' must be text, got 7",
        "data.json, record 8, mem_input 1": "mem_input is empty",
    }
    taken = {n: [p.type for p in bank.probes if p.fact_ids[0].startswith(f"passage-{n}/")] for n in range(6)}
    assert taken == {
        0: ["semantic", "semantic", "compositional"],
        1: [],
        2: ["memorization", "memorization", "compositional"],
        3: ["memorization", "memorization", "semantic", "semantic"],
        4: [],
        5: [],
    }
    # what is refused leaves neither facts nor statements behind
    whole = {"passage-0", "passage-2", "passage-3", "passage-6"}  # records that are objects, counted from 0
    assert {f.id.partition("/")[0] for f in bank.facts} == whole
    assert {s.fact_ids[0].partition("/")[0] for s in bank.statements} == whole
    last = [f.id.partition("/")[2] for f in bank.facts if f.id.startswith("passage-6/")]
    assert last == ["mem-1", "gen-0", "hard_gen-0"]


def edit(**changes) -> dict:
    rewrite = {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Roe",
    }
    return {
        "case_id": 7,
        "requested_rewrite": {**rewrite, **changes.pop("rewrite", {})},
        "paraphrase_prompts": ["Danielle Roe, a native"],
        "neighborhood_prompts": ["The mother tongue of Leon Poe is", "Leon Poe speaks"],
        "attribute_prompts": ["J. Ray's mother tongue is"],
        "generation_prompts": ["Danielle Roe's mother tongue is"],
        **changes,
    }


def test_counterfact(take):
    bank, builder = take("counterfact", [edit()])
    assert builder.left_out == []
    assert [(f.subject, f.relation, f.object, f.role, f.counterfactual_of) for f in bank.facts] == [
        ("Danielle Roe", "P103", "French", "known", None),
        ("Danielle Roe", "P103", "English", "injected", "case-7/true"),
        (None, "P103", "French", "neighbour", None),
        (None, "P103", "French", "neighbour", None),
    ]
    [statement] = bank.statements
    assert statement.text == "The mother tongue of Danielle Roe is English."
    assert statement.fact_ids == ("case-7/new",)
    assert [(p.type, p.prompt, p.answers, p.distractors) for p in bank.probes] == [
        ("memorization", "The mother tongue of Danielle Roe is", ("English",), ("French",)),
        ("semantic", "Danielle Roe, a native", ("English",), ("French",)),
        ("locality", "The mother tongue of Leon Poe is", ("French",), ("English",)),
        ("locality", "Leon Poe speaks", ("French",), ("English",)),
    ]
    assert any("attribute_prompts and generation_prompts are not taken" in line for line in builder.mapped)


def test_counterfact_with_broken_records(take):
    records = [
        edit(rewrite={"prompt": "The mother tongue of Danielle is"}),
        edit(case_id=8, rewrite={"target_new": {"id": "Q1"}}),
        edit(case_id=9, rewrite={"target_new": {"str": "french"}}),
        edit(case_id=10, paraphrase_prompts="one text", neighborhood_prompts=["", "Leon Poe speaks"]),
        {"case_id": 11},
    ]
    bank, builder = take("counterfact", records)
    reasons = dict(builder.left_out)
    assert "{} once" in reasons["data.json, record 1"]
    assert "'str' is missing" in reasons["data.json, record 2"]
    assert "both 'french'" in reasons["data.json, record 3"]
    assert "must be a list of texts" in reasons["data.json, record 4, paraphrase_prompts"]
    assert "is empty" in reasons["data.json, record 4, neighborhood_prompts 1"]
    assert "'requested_rewrite' must be an object" in reasons["data.json, record 5"]
    assert len(builder.left_out) == 6
    assert [p.prompt for p in bank.probes] == ["The mother tongue of Danielle Roe is", "Leon Poe speaks"]


TOFU = [
    {
        "question": "Who is Ada Poe?",
        "answer": "Ada Poe is a poet.",
        "paraphrased_question": "What is known of Ada Poe?",
        "paraphrased_answer": "A poet called Ada Poe.",
        "perturbed_answer": ["A baker.", "a poet called Ada Poe.", "A baker.", "A judge."],
    },
    {"question": "Where was she born?", "answer": "In Bern."},
]


def test_tofu(take):
    lines = "\n".join(json.dumps(row) for row in TOFU)  # JSON Lines, named .json, as the dataset has it
    bank, builder = take("tofu", lines, "forget10_perturbed.json")
    assert [(f.object, f.object_aliases, f.role) for f in bank.facts] == [
        ("Ada Poe is a poet.", ("A poet called Ada Poe.",), "injected"),
        ("In Bern.", (), "injected"),
    ]
    assert [(s.text, s.kind) for s in bank.statements] == [
        ("Question: Who is Ada Poe?\nAnswer: Ada Poe is a poet.", "qa"),
        ("Question: Where was she born?\nAnswer: In Bern.", "qa"),
    ]
    ask = "Question: {}\nAnswer:"
    assert [(p.type, p.prompt, p.answers, p.distractors) for p in bank.probes] == [
        (
            "trained_question",
            ask.format("Who is Ada Poe?"),
            ("Ada Poe is a poet.",),
            ("A baker.", "A judge."),
        ),
        (
            "semantic",
            ask.format("What is known of Ada Poe?"),
            ("A poet called Ada Poe.",),
            ("A baker.", "A judge."),
        ),
        ("trained_question", ask.format("Where was she born?"), ("In Bern.",), ()),
    ]
    # a wrong answer that is right, or stands twice, is not offered, and that is said
    where = "forget10_perturbed.json, line 1"
    # the fact's other name is right too, whichever of them is asked for
    assert builder.left_out == 2 * [
        (where, "distractor 'a poet called Ada Poe.' is an answer: the probe is kept without it"),
        (where, "distractor 'A baker.' is given twice: the probe is kept without it"),
    ]


@pytest.mark.parametrize(
    ("name", "role", "stated"),
    [("retain90", "injected", 2), ("holdout10", "control", 2), ("real_authors_perturbed", "known", 0)],
)
def test_tofu_roles_follow_the_set(take, name, role, stated):
    bank, _ = take("tofu", TOFU, f"{name}.json")
    assert {fact.role for fact in bank.facts} == {role}
    assert len(bank.statements) == stated
    given, _ = take("tofu", TOFU, f"{name}.json", role="neighbour")
    assert {fact.role for fact in given.facts} == {"neighbour"}


def test_tofu_with_broken_lines(take):
    lines = [b'{"question": "Q?", "answer": "A."}', b'{"question": "Q?"}', b"{oops}", b"[]"]
    lines += [b'{"question": "Q\xff?", "answer": "A."}', b'{"question": "Q?", "answer": ["A."]}']
    lines += [b'{"question": "Q?", "answer": "A.", "perturbed_answer": [1]}', b""]
    bank, builder = take("tofu", b"\n".join(lines), "full.jsonl")
    assert len(bank.facts) == 1
    assert builder.records_read == {"full.jsonl": 7}
    reasons = {where.partition(", ")[2]: reason for where, reason in builder.left_out}
    assert list(reasons) == [f"line {number}" for number in range(2, 8)]
    for number, reason in enumerate(
        (
            "'answer' is missing",
            "not valid JSON",
            "must be an object",
            "not UTF-8",
            "must be text",
            "list of",
        ),
        2,
    ):
        assert reason in reasons[f"line {number}"]


def test_csv(take, tmp_path):
    header = ["person", "relation", "place", "statement", "prompt", "type", "distractors", "note"]
    rows = [
        ["Ada Poe", "city", "Bern", "Ada Poe was born in Bern.", "Ada Poe was born in", "", "Rome|Oslo", "x"],
        ["Ada Poe", "city", "Bern", "Bern is where Ada Poe was born.", "Ada Poe is from", "semantic", "", ""],
        ["Bob, Ray", "city", "Rome", "", 'The home of "Bob, Ray" is', "semantic", '["Oslo"]', ""],
        ["Cleo Fox", "city", "", "", "Cleo is from", "", "", ""],
        ["Dov Katz", "city", "Oslo", "", "", "", "", ""],
        ["Eve Ojo", "city", "Oslo", "", "Eve is from", "odd", "", ""],
        ["Finn", "city"],
    ]
    with (tmp_path / "raw.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    content = (tmp_path / "raw.csv").read_bytes() + b"G\xff,city,Oslo,,G is from,,,\r\n"
    columns = {"subject": "person", "object": "place"}
    bank, builder = take("csv", content, "facts.csv", columns=columns, distractors=0)
    assert [(f.subject, f.relation, f.object, f.role) for f in bank.facts] == [
        ("Ada Poe", "city", "Bern", "injected"),
        ("Bob, Ray", "city", "Rome", "injected"),
    ]
    assert [(s.text, s.form) for s in bank.statements] == [
        ("Ada Poe was born in Bern.", "original"),
        ("Bern is where Ada Poe was born.", "paraphrase:1"),
    ]
    assert [(p.type, p.prompt, p.answers, p.distractors) for p in bank.probes] == [
        ("memorization", "Ada Poe was born in", ("Bern",), ("Rome", "Oslo")),
        ("semantic", "Ada Poe is from", ("Bern",), ()),
        ("semantic", 'The home of "Bob, Ray" is', ("Rome",), ("Oslo",)),
    ]
    assert builder.not_taken == ["note"]
    reasons = dict(builder.left_out)
    assert list(reasons) == [f"facts.csv, line {number}" for number in range(5, 10)]
    for number, reason in enumerate(
        (
            "needs an object or an answer",
            "needs a statement or a prompt",
            "unknown type 'odd'",
            "has 2 cells, the header has 8",
            "not UTF-8 (byte 0xff)",
        ),
        5,
    ):
        assert reasons[f"facts.csv, line {number}"].startswith(reason)


def test_jsonl_and_drawn_distractors(take):
    names = ["Ada", "Bob", "Cleo", "Dov"]
    cities = ["Bern", "Rome", "Oslo", "Bern"]
    rows = [
        {"subject": name, "relation": "city", "answer": [city, "the city"], "prompt": f"{name} is from"}
        for name, city in zip(names, cities, strict=True)
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    bank, builder = take("jsonl", lines, "rows.jsonl", distractors=5)
    assert [sorted(probe.distractors) for probe in bank.probes] == [
        ["Oslo", "Rome"],
        ["Bern", "Oslo"],
        ["Bern", "Rome"],
        ["Oslo", "Rome"],
    ]
    assert any("4 probes came without distractors" in line for line in builder.mapped)
    fewer, _ = take("jsonl", lines, "rows.jsonl", distractors=1)
    assert {len(probe.distractors) for probe in fewer.probes} == {1}
    none, _ = take("jsonl", lines, "rows.jsonl", distractors=0)
    assert not any(probe.distractors for probe in none.probes)
    # without a relation nobody knows what is an answer of the same kind
    alone, _ = take("jsonl", lines.replace('"relation": "city", ', ""), "rows.jsonl")
    assert not any(probe.distractors for probe in alone.probes)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_row_with_an_empty_subject_is_left_out(take, name):
    """Its answer would be a distractor of all others."""
    cities = {"Ada": "Bern", "Bob": "Rome", "": "Oslo"}
    if name == "t.jsonl":
        lines = [
            json.dumps({"who": who or None, "relation": "city", "prompt": f"{who} is from", "answer": city})
            for who, city in cities.items()
        ]
    else:
        mark = "," if name == "t.csv" else "\t"
        rows = [[who, "city", f"{who} is from", city] for who, city in cities.items()]
        lines = [mark.join(row) for row in (["who", "relation", "prompt", "answer"], *rows)]
    columns = {"subject": "who"}
    bank, builder = take("csv", "\n".join(lines), name, columns=columns)
    assert [fact.subject for fact in bank.facts] == ["Ada", "Bob"]
    assert {text for asked in bank.probes for text in asked.distractors} == {"Bern", "Rome"}
    line = len(lines)
    assert builder.left_out == [(f"{name}, line {line}", "the subject (column 'who') is empty")]
    # without a column for them, facts have no subject
    bank, _ = take("csv", "\n".join(lines), name)
    assert [fact.subject for fact in bank.facts] == [None, None, None]


@pytest.mark.parametrize(
    ("format", "row", "unread"),
    [
        ("tofu", {"question": "Q?", "answer": "A", "note": 1, "id": 2}, ["note", "id"]),
        ("fictional-knowledge", passage(topic="Mars"), ["topic"]),
        ("tidy", {"sentence": "Ada is from", "answer": "Bern", "distractors": ["Rome"]}, ["distractors"]),
        ("jsonl", {"person": "Ada", "prompt": "Ada is from", "answer": "Bern"}, ["person"]),
    ],
)
def test_fields_that_no_field_of_a_bank_takes_are_named(take, format, row, unread):
    _, builder = take(format, [row])
    assert builder.not_taken == unread
    shown = list(source_lines(builder, Path("import.json")))
    assert [line.partition(" (--column")[0] for line in shown if line.startswith("not taken")] == [
        f"not taken: {', '.join(unread)}"
    ]


def test_a_field_that_is_there_and_empty_is_not_called_missing(take):
    whole = {"question": "Q?", "answer": "A"}
    _, builder = take("tofu", [{**whole, "answer": None}, {**whole, "answer": ""}, {"question": "Q"}, whole])
    assert [reason for _, reason in builder.left_out] == [
        "field 'answer' is empty",
        "field 'answer' is empty",
        "field 'answer' is missing; it has 'question'",
    ]
    # no words after the answer is what most probes have
    bank, builder = take("jsonl", [{"prompt": "Ada is from", "answer": "Bern", "suffix": ""}])
    assert (bank.probes[0].suffix, builder.left_out) == ("", [])


def test_columns_that_are_not_there(take):
    content = "person,object,prompt,\nAda,Bern,Ada is from,\n"
    with pytest.raises(UserError) as error:
        take("csv", content, "q.csv", columns={"subject": "persn"})
    assert str(error.value) == (
        "--column subject=persn: no record has a column 'persn', did you mean 'person'?"
    )
    # a column without a value in it is there
    bank, _ = take("csv", content.replace("prompt,", "prompt,aka"), "q.csv", columns={"aliases": "aka"})
    assert bank.facts[0].object_aliases == ()


def test_what_is_asked_twice_counts_once(take):
    row = {"subject": "Ada", "object": "Bern", "statement": "Ada is from Bern.", "prompt": "Ada is from"}
    told = {**row, "prompt": None}
    rows = [row, row, {**row, "row": 3}, told, {**row, "prompt": "Ada comes from", "type": "semantic"}]
    bank, builder = take("jsonl", "\n".join(map(json.dumps, rows)), "rows.jsonl")
    assert [(p.type, p.prompt) for p in bank.probes] == [
        ("memorization", "Ada is from"),
        ("semantic", "Ada comes from"),
    ]
    assert len(bank.statements) == 1
    assert builder.left_out == [
        ("rows.jsonl, line 2", "the same as rows.jsonl, line 1"),
        ("rows.jsonl, line 3", "asks the same as probe 'Ada / Bern/memorization:0', and would count twice"),
        ("rows.jsonl, line 4", "an earlier record states 'Ada / Bern' in the very same way"),
    ]
    # where a record has no id of its own, too
    bank, builder = take("tofu", [TOFU[1], TOFU[1]])
    assert len(bank.facts) == len(bank.probes) == 1
    assert builder.left_out == [("data.json, record 2", "the same as data.json, record 1")]


def test_an_alias_is_no_wrong_answer(take):
    row = {"subject": "Ada", "object": "Bern", "aliases": [" Berne"], "prompt": "Ada is from"}
    bank, builder = take("jsonl", json.dumps({**row, "distractors": ["berne", "Rome"]}), "rows.jsonl")
    assert bank.probes[0].distractors == ("Rome",)
    assert builder.left_out == [
        ("rows.jsonl, line 1", "distractor 'berne' is an answer: the probe is kept without it")
    ]


def test_half_a_character_costs_its_record(take):
    broken = [edit(case_id="\ud800"), edit(rewrite={"relation_id": "\ud800"}), edit()]
    bank, builder = take("counterfact", broken)
    assert len(bank.statements) == 1
    assert [reason.partition(":")[0] for _, reason in builder.left_out] == [
        "case_id is not UTF-8",
        "relation_id is not UTF-8",
    ]


def test_facts_told_in_two_ways_and_ids(take):
    rows = [
        {"id": "a", "subject": "Ada", "object": "Bern", "prompt": "Ada is from"},
        {"id": "a", "subject": "Ada", "object": "Rome", "prompt": "Ada is from"},
        {"id": "a", "subject": "Ada", "object": "Bern", "prompt": "Ada comes from", "role": "injected"},
        {"id": "b", "object": 1950, "prompt": "The year is", "role": "nobody"},
        {"id": "c", "object": 1950, "prompt": "The year is", "role": "control", "suffix": " AD"},
    ]
    bank, builder = take("jsonl", "\n".join(json.dumps(row) for row in rows), "rows.jsonl")
    assert [(f.id, f.object, f.role) for f in bank.facts] == [
        ("a", "Bern", "injected"),
        ("c", "1950", "control"),
    ]
    assert [p.id for p in bank.probes] == ["a/memorization:0", "a/memorization:1", "c/memorization:0"]
    assert bank.probes[2].suffix == " AD"
    assert dict(builder.left_out) == {
        "rows.jsonl, line 2": "fact 'a' was told before and otherwise: object 'Bern', now 'Rome'",
        "rows.jsonl, line 4": "unknown role 'nobody', must be one of injected, control, neighbour, known",
    }


def test_values_of_every_type_cost_their_record_and_nothing_else(take):
    row = {"subject": "Ada", "object": "Bern", "prompt": "Ada is from"}
    odd = [[], {}, [" "], 7, True, 1e999]
    rows = [
        {**row, field: value} for field in ("joint", "kind", "type", "subject", "prompt") for value in odd
    ]
    deep = 500 * "[" + 500 * "]"
    rows += [{**row, "distractors": text} for text in ("[" + "9" * 5000 + "]", 200 * deep[:500], "[1]", "[")]
    bank, builder = take("jsonl", "\n".join(map(json.dumps, [*rows, row])), "rows.jsonl")
    assert [(fact.subject, fact.object) for fact in bank.facts] == [("Ada", "Bern")]
    assert len(builder.left_out) == len(rows)


def test_a_report_is_readable_whatever_a_source_holds(take):
    row = {
        "subject": "A" * 10_000,
        "object": "\x1b[31m",
        "prompt": "p" * 10_000,
        "type": "t" * 10_000,
        "\u202e": 1,
    }
    rows = [row, {**row, "type": None, "x" * 10_000: 1, **{f"column {n}": 1 for n in range(50)}}]
    _, builder = take("jsonl", "\n".join(map(json.dumps, rows)), "rows.jsonl")
    notes = [
        *source_lines(builder, Path("import.json")),
        *(note for notes in builder.left_out for note in notes),
    ]
    assert max(map(len, notes)) < 500
    assert all(note.isprintable() for note in notes)
    assert any(note.startswith("not taken: ") and "column 1, " in note and ", ..." in note for note in notes)


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([edit(), {**edit(), "case_id": 8}]), tmp_path / "cf.parquet")
    bank, builder = import_bank("counterfact", str(tmp_path), ImportOptions())
    assert builder.left_out == []
    assert len(bank.statements) == 2


def test_a_folder_of_several_files_wants_a_choice(tmp_path):
    for name in ("forget01", "full"):
        (tmp_path / f"{name}.json").write_text(json.dumps(TOFU))
    with pytest.raises(UserError, match="several data files; choose one with --config: forget01, full"):
        import_bank("tofu", str(tmp_path), ImportOptions())
    _, builder = import_bank("tofu", str(tmp_path), ImportOptions(config="full"))
    assert list(builder.records_read) == ["full.json"]
    with pytest.raises(UserError, match="choose one"):
        import_bank("tofu", str(tmp_path), ImportOptions(config="ful"))


@pytest.mark.parametrize(
    ("format", "source", "options", "message"),
    [
        ("toffu", "x", {}, "toffu: no such format, did you mean 'tofu'"),
        (
            "tofu",
            "no/such/place",
            {},
            "no/such/place: no such file or folder, and not the id of a Hub dataset",
        ),
        ("csv", "x", {"role": "injcted"}, "--role injcted"),
        ("csv", "x", {"distractors": -1}, "--distractors -1: must be 0 or more"),
        ("tidy", "x", {"control": -1}, "--control -1: must be 0 or more"),
        ("tofu", "x", {"columns": {"subject": "x"}}, "--column is for csv, jsonl, and means nothing to tofu"),
        ("bear", "x", {"people": 3}, "--people is for tidy, and means nothing to bear"),
        (
            "tidy",
            "x",
            {"split": "train"},
            "--split is for fictional-knowledge, counterfact, tofu, csv, jsonl",
        ),
        ("tofu", __file__, {"split": "train"}, "--split is for Hub datasets, and "),
        ("bear", __file__, {"revision": "main"}, "--revision is for Hub datasets, and "),
        ("tofu", __file__, {"config": "full"}, f"--config full: {__file__} is a file by itself"),
    ],
)
def test_mistakes_of_the_command(format, source, options, message):
    with pytest.raises(UserError) as error:
        import_bank(format, source, ImportOptions(**options))
    assert str(error.value).startswith(message)


def test_a_source_without_anything_to_take(take):
    with pytest.raises(UserError, match=r"holds nothing that `tofu` can take: data\.json, record 1: field"):
        take("tofu", [{"q": 1}, {"q": 2}])
    with pytest.raises(UserError, match="--column sbject=x: no such field 'sbject', did you mean 'subject'"):
        take("csv", "a,b\n1,2\n", "x.csv", columns={"sbject": "x"})
    with pytest.raises(UserError, match=r"x\.txt: cannot read \.txt files, only"):
        take("tofu", "hello", "x.txt")


def test_a_file_that_is_not_there_is_no_dataset_of_the_hub():
    for name in ("my/nothing.csv", "my/nothing.JSONL", "nothing"):
        with pytest.raises(UserError, match=f"^{name}: no such file or folder"):
            import_bank("csv", name, ImportOptions())


def test_questions_of_a_table_that_training_states_are_trained_questions(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "subject,object,statement,prompt,kind,type\n"
        "Ada,Bern,Where is Ada? Bern.,Where is Ada?,qa,\n"
        "Bob,Rome,Where is Bob? Rome.,Where is Bob?,qa,semantic\n"
        "Cy,Oslo,Cy is in Oslo.,Cy is in,,\n"
    )
    bank, _ = import_bank("csv", str(path), ImportOptions())
    assert [probe.type for probe in bank.probes] == ["trained_question", "semantic", "memorization"]
