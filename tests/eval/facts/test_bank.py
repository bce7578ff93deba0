import json
import logging
import random
import shutil

import pytest

from tests.eval.facts.bank_files import ADA, edit_line, probe, small_bank
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.records import Fact, Relation
from tidy_stlms.eval.facts.summary import bank_summary, examples
from tidy_stlms.eval.facts.validate import load_bank


@pytest.fixture
def folder(tmp_path):
    small_bank().save(tmp_path / "bank")
    return tmp_path / "bank"


def test_what_is_saved_is_loaded(folder):
    bank = small_bank()
    loaded = load_bank(folder)
    assert loaded == bank
    assert loaded.sha256 == bank.sha256 == json.loads((folder / "bank.json").read_text())["sha256"]


def test_fields_with_their_default_stay_out_of_the_files(folder):
    row = json.loads((folder / "facts.jsonl").read_text().splitlines()[0])
    assert row == {
        "id": "ada/city",
        "subject": "Ada Poe",
        "relation": "city",
        "object": "Bern",
        "role": "injected",
    }


def test_fields_without_a_default_may_be_null_where_the_schema_says_so(tmp_path):
    passage = Fact("p", None, None, "Bern", "injected")
    bank = small_bank(facts=(passage,), statements=(), probes=(probe(ADA, fact_ids=("p",)),))
    bank.save(tmp_path / "bank")
    loaded = load_bank(tmp_path / "bank")
    assert loaded == bank
    assert loaded.subject_of(loaded.probes[0]) == "p"  # resampled by fact where there is no subject


def test_hash_does_not_depend_on_the_order_of_lines_and_keys(folder):
    before = load_bank(folder).sha256
    for path in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [dict(reversed(row.items())) for row in reversed(rows)]
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert load_bank(folder).sha256 == before


def test_hash_depends_on_content_alone():
    bank = small_bank()
    assert small_bank(meta={"name": "other", "provenance": "a friend"}).sha256 == bank.sha256
    assert small_bank(probes=(probe(ADA, flags=("x",)), bank.probes[1])).sha256 == bank.sha256
    assert small_bank(probes=(probe(ADA, prompt="Ada Poe is from"), bank.probes[1])).sha256 != bank.sha256
    # a row that wanders from one table to another is another bank
    assert small_bank(relations=()).sha256 != bank.sha256


def test_an_edited_bank_is_used_with_a_warning_and_its_new_hash(folder, caplog):
    before = load_bank(folder).sha256
    assert not caplog.records
    edit_line(folder, "probes", 0, prompt="Ada Poe is from")
    with caplog.at_level(logging.WARNING):
        bank = load_bank(folder)
    assert bank.sha256 != before
    assert "edited" in caplog.text


def test_a_bank_written_by_hand_needs_no_hash(folder, caplog):
    (folder / "bank.json").write_text('{"name": "mine"}')
    assert load_bank(folder).meta == {"name": "mine"}
    assert not caplog.records


def test_saving_over_something_is_refused_and_leaves_it_alone(folder):
    before = (folder / "facts.jsonl").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        small_bank(facts=()).save(folder)
    assert (folder / "facts.jsonl").read_bytes() == before


def test_lookups():
    bank = small_bank()
    ada, bob = bank.probes
    assert bank.fact_by_id["ada/city"] == ADA
    assert [statement.id for statement in bank.statements_of("bob/city")] == ["bob/city/original"]
    assert bank.statements_of("nobody") == []
    assert [bank.role_of(ada), bank.role_of(bob)] == ["injected", "control"]
    assert bank.subject_of(bob) == "Bob Ray"
    assert bank.injected_facts() == [ADA]


@pytest.mark.parametrize(
    ("table", "changes", "names"),
    [
        ("facts", {"role": "injcted"}, ["facts.jsonl", "'ada/city'", "'injected'"]),
        ("facts", {"role": None}, ["facts.jsonl", "'ada/city'", "'role' is missing"]),
        ("facts", {"sbject": "Ada"}, ["facts.jsonl", "'ada/city'", "'sbject'", "did you mean 'subject'"]),
        ("facts", {"id": 7}, ["facts.jsonl", "row 1", "'id' must be text"]),
        ("facts", {"object": "B\ud800"}, ["facts.jsonl", "'ada/city'", "'object' must be text", "ud800"]),
        ("probes", {"distractors": ["\udfff"]}, ["probes.jsonl", "'distractors' must be a list of texts"]),
        ("facts", {"relation": "town"}, ["facts.jsonl", "'ada/city'", "'town'", "relations.jsonl"]),
        ("facts", {"id": "bob/city"}, ["facts.jsonl", "'bob/city'", "2 lines"]),
        ("relations", {"cardinality": "several"}, ["relations.jsonl", "'city'", "one, many"]),
        ("statements", {"spans": {"object": [0, 3]}}, ["statements.jsonl", "'ada/city/original'", "'Ada'"]),
        ("statements", {"spans": [0, 3]}, ["statements.jsonl", "'ada/city/original'", "'spans'"]),
        ("statements", {"form": "paraphrase"}, ["statements.jsonl", "'ada/city/original'", "paraphrase:1"]),
        (
            "probes",
            {"fact_ids": ["eve"]},
            ["probes.jsonl", "'ada/city/memorization:0'", "'eve'", "facts.jsonl"],
        ),
        ("probes", {"answers": "Bern"}, ["probes.jsonl", "'answers' must be a list"]),
        ("probes", {"type": "semantics"}, ["probes.jsonl", "did you mean 'semantic'"]),
        ("probes", {"seen_verbatim": "yes"}, ["probes.jsonl", "'seen_verbatim' must be true or false"]),
    ],
)
def test_a_malformed_line_is_one_line_with_file_and_id(folder, table, changes, names):
    edit_line(folder, table, 0, **changes)
    with pytest.raises(UserError) as error:
        load_bank(folder)
    message = str(error.value)
    assert "\n" not in message
    for name in names:
        assert name in message


def test_files_that_are_missing_or_broken_are_named(folder, tmp_path):
    for name, format in (("t.csv", "csv"), ("T.TSV.gz", "csv"), ("t.jsonl", "jsonl"), ("t.parquet", "jsonl")):
        (tmp_path / name).write_text("")
        with pytest.raises(
            UserError, match=rf"{name}: not a .*`stlm facts import {format} .*/{name} --out DIR`"
        ):
            load_bank(tmp_path / name)
    with pytest.raises(UserError, match=r"nowhere: not a fact bank .*stlm facts generate"):
        load_bank(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "run" / "facts")
    with pytest.raises(UserError, match=r"run: not a fact bank, but a run; its bank is .*run/facts$"):
        load_bank(tmp_path / "run")
    with (folder / "probes.jsonl").open("a") as file:
        file.write('{"id": "x", \n')
    with pytest.raises(UserError, match=r"probes\.jsonl, line 3: not valid JSON"):
        load_bank(folder)
    (folder / "statements.jsonl").unlink()
    with pytest.raises(UserError, match=r"statements\.jsonl: no such file"):
        load_bank(folder)
    (folder / "bank.json").write_text('{"schema": 2}')
    with pytest.raises(UserError, match=r"bank\.json: schema 2 is not known"):
        load_bank(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": ["small"]}', "field 'name' must be text, got ['small']"),
        ('{"name": "small", "license": {"id": "mit"}}', "field 'license' must be text, got {'id': 'mit'}"),
        ("[1]", "must be a JSON object, got [1]"),
    ],
)
def test_what_bank_json_may_not_hold(folder, content, message):
    (folder / "bank.json").write_text(content)
    with pytest.raises(UserError) as error:
        load_bank(folder)
    assert str(error.value).startswith(f"{folder}/bank.json")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(f"{3000 * '['}{3000 * ']'}", "is nested too deeply"), ("9" * 5000, "a number has too many digits")],
)
def test_a_line_that_no_json_reader_takes_is_named(folder, value, reason):
    with (folder / "facts.jsonl").open("a") as file:
        file.write(f'{{"id": {value}}}\n')
    with pytest.raises(UserError, match=rf"facts\.jsonl, line 3: not valid JSON: {reason}"):
        load_bank(folder)


def test_a_name_that_no_file_can_hold_is_saved(tmp_path):
    bank = small_bank(meta={"name": "b\udcffd", "source": {"source": "/data/\udcff.csv"}})
    bank.save(tmp_path / "bank", beside={"import.json": {"read": {"\udcff.csv": 1}}})
    assert load_bank(tmp_path / "bank") == bank
    assert json.loads((tmp_path / "bank" / "import.json").read_text()) == {"read": {"\udcff.csv": 1}}


def test_a_broken_bank_can_be_read_unchecked(folder):
    edit_line(folder, "probes", 0, fact_ids=["eve"])
    assert load_bank(folder, check=False).probes[0].fact_ids == ("eve",)


def test_summary_and_examples():
    bank = small_bank(relations=(Relation("city", "city"),))
    summary = bank_summary(bank)
    assert summary.facts == summary.subjects == {"control": 1, "injected": 1}
    assert summary.types == {"memorization": {"control": 1, "injected": 1}}
    assert summary.relations == {"city": {"control": 1, "injected": 1}}
    assert summary.arms == summary.flags == {}
    (example,) = examples(bank, 1)
    assert example.fact == ADA
    assert example.probes == [bank.probes[0]]
    assert example.statements == [bank.statements[0]]


def test_reading_leaves_the_global_generator_alone(folder):
    state = random.getstate()
    load_bank(folder)
    assert random.getstate() == state
