"""Small imitations of the public files, imported whole by the command: what is printed, saved and scored."""

import json
import re
from collections import Counter

import pytest

from tests.eval import tiny
from tests.eval.facts.imports import test_bear, test_easy_edit, test_records, test_reversal, test_tidy
from tidy_stlms.configs.errors import counted
from tidy_stlms.eval.facts.formats import FORMATS
from tidy_stlms.eval.facts.validate import load_bank, validate
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.scripts.__main__ import main


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


BEAR = {name: test_bear.METADATA[name] for name in ("P36", "P30")}
BEAR = {name: {**about, "templates": about["templates"][:3]} for name, about in BEAR.items()}
BEAR_BIG = {name: {"templates": about["templates"]} for name, about in BEAR.items()}
BEAR_FILES = {
    "P36.jsonl": "".join(test_bear.P36.splitlines(keepends=True)[:2]),
    "P30.jsonl": lines(
        [{"sub_label": "Norway", "obj_label": "Europe"}, {"sub_label": "Japan", "obj_label": "Asia"}]
    ),
}
TABLE = """\
subject,relation,object,statement,prompt,type
Ada,city,Bern,Ada is from Bern.,Ada is from,memorization
Ada,city,Bern,,Where Ada is from is called,semantic
Bob,city,Rome,Bob is from Rome.,Bob is from,memorization
"""
REVERSAL = test_reversal.files()
REPEATED = ("all_prompts_train", "validation_prompts", "p2d_reverse_prompts_test_randomized")
# format, files, records read, facts, statements, probes by type
IMITATIONS = {
    "bear": (
        "bear",
        {"metadata_relations.json": json.dumps(BEAR), **BEAR_FILES},
        (2 + 4, 4, 0, {"memorization": 4, "semantic": 4}),
    ),
    "bear-big": (
        "bear",
        {
            "metadata_relations.json": json.dumps(BEAR_BIG),
            **BEAR_FILES,
        },
        (2 + 4, 4, 0, {"memorization": 4, "semantic": 4}),
    ),
    "counterfact": (
        "counterfact",
        {"counterfact.json": json.dumps([test_records.edit(case_id=n) for n in range(3)])},
        (3, 12, 3, {"memorization": 3, "semantic": 3, "locality": 6}),
    ),
    "easy-edit": (
        "counterfact",
        {"counterfact-edit.json": json.dumps([test_easy_edit.easy_edit(case_id=n) for n in range(3)])},
        (3, 9, 3, {"memorization": 3, "semantic": 3, "locality": 3}),
    ),
    "tofu": (
        "tofu",
        {"forget10_perturbed.json": lines([{**test_records.TOFU[0], "perturbed_answer": ["A baker."]}])},
        (1, 1, 1, {"trained_question": 1, "semantic": 1}),
    ),
    "fictional-knowledge": (
        "fictional-knowledge",
        {"fictional_knowledge.json": json.dumps([test_records.passage()])},
        (1, 4, 3, {"memorization": 2, "semantic": 2, "compositional": 1}),
    ),
    "reversal-curse": (
        "reversal-curse",
        {f"{stem}.jsonl": lines(rows) for stem, rows in REVERSAL.items() if stem not in REPEATED},
        (60, 9, 24, {"memorization": 12, "semantic": 18, "reversal": 18}),
    ),
    "tidy": (
        "tidy",
        {
            "inject_config.json": test_tidy.CONFIG,
            "inject_data.txt": test_tidy.SENTENCES,
            "test_cases_answers_by_type.json": test_tidy.CASES,
        },
        (15, 4, 3, {"memorization": 3, "syntactic": 3, "semantic": 1, "inferential": 2}),
    ),
    "csv": ("csv", {"towns.csv": TABLE}, (3, 2, 2, {"memorization": 2, "semantic": 1})),
    "jsonl": (
        "jsonl",
        {"towns.jsonl": lines([{"object": "Bern", "statement": "It is Bern.", "prompt": "It is"}])},
        (1, 1, 1, {"memorization": 1}),
    ),
}  # fmt: skip


NOT_TAKEN = {
    "bear": ["sub_aliases", "obj_id"],
    "bear-big": ["sub_aliases", "obj_id"],
    "counterfact": ["attribute_prompts", "generation_prompts"],
}


@pytest.mark.parametrize("name", IMITATIONS)
def test_a_public_format_arrives_whole(tmp_path, capsys, name):
    format, files, (records, facts, statements, types) = IMITATIONS[name]
    (tmp_path / name).mkdir()
    for file, content in files.items():
        (tmp_path / name / file).write_text(content)
    out = tmp_path / "bank"
    assert main(["facts", "import", format, str(tmp_path / name), "--out", str(out)]) == 0
    bank = load_bank(out)
    report = json.loads((out / "import.json").read_text())
    shown = capsys.readouterr().out
    assert report["left_out"] == []
    assert report["not_taken"] == NOT_TAKEN.get(name, [])
    assert sum(report["read"].values()) == records
    for file, number in report["read"].items():
        assert f"read: {file}: {counted(number, 'record', 'records')}\n" in shown
    assert [line for line in shown.splitlines() if line.startswith("taken: ")] == [
        f"taken: {line}" for line in report["taken"]
    ]
    assert re.search(rf" {facts} facts?, {statements} statements?, {sum(types.values())} probes?\n", shown)
    assert (len(bank.facts), len(bank.statements)) == (facts, statements)
    assert Counter(probe.type for probe in bank.probes) == types
    assert not [finding for finding in validate(bank) if finding.level == "error"]
    tokenizer = tiny.byte_level(bos=True)
    rows = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank)
    assert all(
        (row.accuracy is not None) == bool(p.distractors) for p, row in zip(bank.probes, rows, strict=True)
    )


def test_every_format_has_an_imitation():
    assert {format for format, *_ in IMITATIONS.values()} == set(FORMATS)
