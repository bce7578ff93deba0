"""CounterFact as EasyEdit has it: flat records, also among nested ones."""

import json
from pathlib import Path

from tests.eval.facts.imports.test_records import edit
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank


def imported(folder: Path, records: list[dict]):
    path = folder / "data.json"
    path.write_text(json.dumps(records))
    return import_bank("counterfact", str(path), ImportOptions())


def easy_edit(**changes) -> dict:
    """A record of EasyEdit's counterfact-edit.json."""
    record = {
        "case_id": 7,
        "prompt": "The mother tongue of Danielle Roe is",
        "target_new": "English",
        "subject": "Danielle Roe",
        "ground_truth": "French",
        "rephrase_prompt": "Where Danielle Roe is from, people speak",
        "locality_prompt": "Leon Poe speaks",
        "locality_ground_truth": "French",
    }
    return {key: value for key, value in {**record, **changes}.items() if value is not None}


def test_easy_edit_is_flat_and_becomes_what_the_nested_form_does(tmp_path):
    bank, builder = imported(tmp_path, [easy_edit()])
    assert builder.left_out == []
    same = edit(
        rewrite={"relation_id": "The mother tongue of {} is"},
        paraphrase_prompts=["Where Danielle Roe is from, people speak"],
        neighborhood_prompts=["Leon Poe speaks"],
    )
    nested, _ = imported(tmp_path, [same])
    assert bank.sha256 == nested.sha256
    assert (len(bank.facts), len(bank.statements), len(bank.probes)) == (3, 1, 3)
    assert builder.records_read == {"data.json": 1}
    assert any("ground_truth is the distractor" in line for line in builder.mapped)
    assert not any("requested_rewrite" in line for line in builder.mapped)


def test_easy_edit_with_other_and_broken_records(tmp_path):
    records = [
        easy_edit(),
        edit(case_id=8),
        easy_edit(
            case_id=9,
            ground_truth=None,
            rephrase_prompt=None,
            locality_prompt=None,
            locality_ground_truth=None,
        ),
        easy_edit(case_id=15, subject="Danielle", portability={}),
        easy_edit(case_id=10, ground_truth=["French", "Francais"], locality_ground_truth=["Polish"]),
        easy_edit(case_id=11, locality_prompt=["a", "b"]),
        easy_edit(case_id=12, subject="Leon Poe"),
        easy_edit(case_id=13, target_new=["English"]),
        easy_edit(case_id=14, ground_truth="english"),
        {"subject": "Ada", "src": "Where is Ada from?", "alt": "Bern", "answers": ["Rome"], "loc": "Who?"},
    ]
    bank, builder = imported(tmp_path, records)
    ids = [fact.id.partition("/")[0] for fact in bank.facts if fact.role == "injected"]
    assert ids == ["case-7", "case-8", "case-9", "case-15", "case-10", "case-11"]
    by_id = bank.fact_by_id
    assert by_id["case-9/new"].counterfactual_of is None
    assert "case-9/true" not in by_id
    assert by_id["case-10/true"].object_aliases == ("Francais",)
    # the answer of a question about something else: nothing tells its relation
    neighbour = by_id["case-10/neighbour-1"]
    assert (neighbour.object, neighbour.relation) == ("Polish", None)
    assert by_id["case-7/neighbour-1"].relation == by_id["case-7/new"].relation
    [asked] = [probe for probe in bank.probes if probe.fact_ids == (neighbour.id,)]
    assert (asked.type, asked.answers, asked.distractors) == ("locality", ("Polish",), ("English",))
    assert builder.left_out == [
        ("data.json, record 6, locality_prompt", "has 2 entries, locality_ground_truth 1"),
        (
            "data.json, record 7",
            "the subject 'Leon Poe' is not in the prompt 'The mother tongue of Danielle Roe is'",
        ),
        ("data.json, record 8", "field 'target_new' must be text, got ['English']"),
        ("data.json, record 9", "target_new and ground_truth are both 'English'"),
        (
            "data.json, record 10",
            "is a record of ZsRE: src is a question, and no sentence states the answer alt; import it as "
            "jsonl with --column prompt=src --column answer=alt",
        ),
    ]
    assert "portability" in builder.not_taken
