"""BEAR: relations with templates and answer spaces, a file for each."""

import json

import pytest

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.validate import validate
from tidy_stlms.eval.recall.harness import evaluate_recall

METADATA = {
    "P36": {
        "templates": [
            "The capital of [X] is [Y].",
            "[Y] serves as the capital of [X].",
            "[X] has [Y] for a capital!",
            "[X] has no answer",
        ],
        "answer_space_labels": ["Oslo", "Lima", "Rome"],
        "answer_space_ids": ["Q1", "Q2", "Q3"],
    },
    "P30": {"templates": ["[X] lies in [Y]"], "answer_space": ["Europe", "Asia"]},
    "P1": {"templates": ["[X] is [X]"], "answer_space_labels": ["a"]},
    "P2": {"templates": "[X] is [Y]", "answer_space_labels": "a"},
    "P3": [],
}
P36 = """\
{"sub_id": "Q20", "sub_label": "Norway", "sub_aliases": ["no"], "obj_id": "Q1", "obj_label": "Oslo"}
{"sub_id": "Q419", "sub_label": "Peru", "obj_label": "Lima", "obj_aliases": ["City of Kings"]}
{"sub_id": "Q9", "sub_label": "Nowhere", "obj_label": "Atlantis"}
{"sub_label": "Nothing"}
{"sub_id": "Q20", "sub_label": "Norway", "obj_label": "Rome"}
not json
"""


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "BEAR"
    inner.mkdir()
    (inner / "metadata_relations.json").write_text(json.dumps(METADATA))
    (inner / "P36.jsonl").write_text(P36)
    (inner / "P30.jsonl").write_text('{"sub_label": "Norway", "obj_label": "Europe"}\n')
    (inner / "P99.jsonl").write_text("")
    return tmp_path


def test_bear(folder):
    bank, builder = import_bank("bear", str(folder), ImportOptions())
    assert {(f.id, f.subject, f.object, f.role, f.object_aliases) for f in bank.facts} == {
        ("P36/Q20", "Norway", "Oslo", "known", ()),
        ("P36/Q419", "Peru", "Lima", "known", ("City of Kings",)),
        ("P30/Norway", "Norway", "Europe", "known", ()),
    }
    assert not bank.statements  # nothing of it is ever injected
    assert {r.id: r.answer_space for r in bank.relations} == {
        "P36": ("Oslo", "Lima", "Rome"),
        "P30": ("Europe", "Asia"),
    }
    norway = [p for p in bank.probes if p.fact_ids == ("P36/Q20",)]
    assert [(p.type, p.prompt, p.answers, p.suffix) for p in norway] == [
        ("memorization", "The capital of Norway is", ("Oslo",), ""),
        ("semantic", "", ("Oslo",), " serves as the capital of Norway."),
        ("semantic", "Norway has", ("Oslo",), " for a capital!"),
    ]
    assert {p.distractors for p in norway} == {("Lima", "Rome")}
    assert norway[0].template == "The capital of {subject} is {object}."
    assert bank.meta["license"] == "cc-by-sa-4.0"
    reasons = dict(builder.left_out)
    assert len(reasons) == len(builder.left_out) == 10
    for where, reason in {
        "metadata_relations.json, P36, template 4": "[X] and [Y] once each",
        "metadata_relations.json, P1, template 1": "[X] and [Y] once each",
        "metadata_relations.json, P1": "no template",
        "metadata_relations.json, P2": "P2.jsonl is missing",
        "metadata_relations.json, P3": "must be an object",
        "P36.jsonl, line 3": "'Atlantis' is not in the relation's answer_space_labels",
        "P36.jsonl, line 4": "'obj_label' is missing",
        "P36.jsonl, line 5": "told before and otherwise: object 'Oslo', now 'Rome'",
        "P36.jsonl, line 6": "not valid JSON",
        "P99.jsonl": "does not describe P99",
    }.items():
        assert reason in reasons.get(where, ""), where


def test_an_imported_bank_can_be_asked_with_its_suffixes(folder):
    bank, _ = import_bank("bear", str(folder / "BEAR"), ImportOptions())
    tokenizer = tiny.byte_level(bos=True)
    rows = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank)
    assert all(row.accuracy in (0.0, 1.0) for row in rows)
    by_suffix = {bool(p.suffix): row.logprob for p, row in zip(bank.probes, rows, strict=True)}
    assert by_suffix[True] is None
    assert by_suffix[False] is not None


def test_bear_big_takes_answer_spaces_from_the_instances(tmp_path):
    """The public folder: relations with templates alone, and subjects whose names others have too."""
    metadata = {
        "P50": {"templates": ["[X] was authored by [Y].", "[Y] wrote [X].", "[X] was authored by [Y]."]},
        "P37": {"templates": ["[Y] is the language of [X] ."]},
        "P414": {"templates": ["[X] is listed on the [Y]."]},
    }
    books = [("Q1", "Home", "Ada Poe"), ("Q2", "Home", "Bob Ray"), ("Q3", "Away", "Cleo Fox")]
    lands = [("Q20", "Norway", "Norwegian"), ("Q419", "Peru", "Spanish"), ("Q96", "Mexico", "Spanish")]
    for relation, triples in (("P50", books), ("P37", lands)):
        rows = [
            {"sub_id": id, "sub_label": subject, "sub_aliases": [], "obj_id": "Q7", "obj_label": answer}
            for id, subject, answer in triples
        ]
        (tmp_path / f"{relation}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "metadata_relations.json").write_text(json.dumps(metadata, indent=4))
    bank, builder = import_bank("bear", str(tmp_path), ImportOptions())
    assert builder.records_read == {"metadata_relations.json": 3, "P50.jsonl": 3, "P37.jsonl": 3}
    assert builder.left_out == [
        ("metadata_relations.json, P50, template 3", "the same as template 1"),
        ("metadata_relations.json, P414", "P414.jsonl is missing"),
    ]
    assert "2 relations have no answer space" in builder.mapped[-1]
    assert {relation.id: relation.answer_space for relation in bank.relations} == {
        "P50": ("Ada Poe", "Bob Ray", "Cleo Fox"),
        "P37": ("Norwegian", "Spanish"),
    }
    assert (len(bank.facts), len(bank.probes)) == (6, 9)
    wrong = {probe.fact_ids[0]: probe.distractors for probe in bank.probes}
    assert wrong == {
        # nobody can tell which Home is asked about: the other's author is right too
        "P50/Q1": ("Cleo Fox",),
        "P50/Q2": ("Cleo Fox",),
        "P50/Q3": ("Ada Poe", "Bob Ray"),
        "P37/Q20": ("Spanish",),
        "P37/Q419": ("Norwegian",),
        "P37/Q96": ("Norwegian",),
    }
    assert not [finding for finding in validate(bank) if finding.level == "error"]
    tokenizer = tiny.byte_level(bos=True)
    rows = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank)
    assert all(row.accuracy in (0.0, 1.0) for row in rows)


@pytest.mark.parametrize("relation", ["../P36", "P" * 300, "P\0", "P\ud800", ""])
def test_a_relation_names_a_file_of_the_folder(folder, relation):
    (folder / "P36.jsonl").write_text(P36)
    (folder / "BEAR" / "metadata_relations.json").write_text(
        json.dumps({"P36": METADATA["P36"], relation: METADATA["P36"]})
    )
    bank, builder = import_bank("bear", str(folder), ImportOptions())
    assert [found.id for found in bank.relations] == ["P36"]
    assert any("cannot be the name of a file" in reason for _, reason in builder.left_out)


def test_where_there_is_no_metadata(tmp_path):
    with pytest.raises(UserError, match=r"no metadata_relations\.json there"):
        import_bank("bear", str(tmp_path), ImportOptions())
    for name in ("BEAR", "BEAR-big"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metadata_relations.json").write_text("{}")
    with pytest.raises(UserError, match="holds several datasets; give one of"):
        import_bank("bear", str(tmp_path), ImportOptions())
