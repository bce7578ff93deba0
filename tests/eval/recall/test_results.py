"""The lines of recall.jsonl and results.jsonl: their fields, their order, and what old files lack."""

import json

from msgspec.structs import replace

from tests.eval.recall.made import result
from tidy_stlms.configs.records import read_records, to_row, write_records
from tidy_stlms.eval.recall.results import ProbeResult

MADE = result(accuracy=1.0, candidates=("Rome", "Oslo"), candidate_logprobs=(-1.0, -2.0), flags=("case",))


def test_lines_are_read_as_they_were_written(tmp_path):
    results = (replace(MADE, step=0), replace(MADE, step=8, top_tokens=((" Rome", 0.25),)))
    write_records(tmp_path / "recall.jsonl", results)
    assert read_records(tmp_path / "recall.jsonl", ProbeResult) == results


def test_a_line_has_its_step_or_model_first_and_all_metrics():
    fields = list(to_row(MADE))
    assert fields[:2] == ["probe_id", "fact_ids"]
    assert list(to_row(replace(MADE, step=8))) == ["step", *fields]
    assert list(to_row(replace(MADE, model="run"))) == ["model", *fields]
    assert to_row(MADE)["exact_match"] is None  # nulls are written
    assert "top_tokens" not in fields


def test_lines_of_before_candidates_were_kept_can_be_read(tmp_path):
    line = {key: value for key, value in to_row(MADE).items() if not key.startswith("candidate")}
    (tmp_path / "recall.jsonl").write_text(json.dumps(line) + "\n")
    [read] = read_records(tmp_path / "recall.jsonl", ProbeResult)
    assert read == replace(MADE, candidates=(), candidate_logprobs=())


def test_a_result_is_resampled_with_its_subject():
    assert result(subject="Ada").cluster == result(subject="Ada", fact_ids=("g",)).cluster
    assert result(subject=None, fact_ids=("f", "g")).cluster == ("fact", "f")
