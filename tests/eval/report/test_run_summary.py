"""summary.json of a run: read as it was written, and as older versions wrote it."""

import pytest

from tests.eval.recall.made import result
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import write_json
from tidy_stlms.configs.records import to_row, write_records
from tidy_stlms.eval.recall.results import Estimate
from tidy_stlms.eval.report.run_report import write_run_report
from tidy_stlms.eval.report.run_summary import RunRecall, RunSummary, read_run_summary

SUMMARY = RunSummary(
    steps=400,
    tokens=819_200,
    train_loss=1.25,
    eval_loss=None,
    eval_bits_per_byte=0.42,
    tokens_per_second=14_149.1,
    parameters=947_328,
    recall=RunRecall(
        after={
            "injected": {"semantic": {"accuracy": Estimate(mean=0.5, low=0.25, high=0.75, n=8, n_facts=4)}}
        }
    ),
)


def test_a_summary_is_read_as_it_was_written(tmp_path):
    write_json(tmp_path / "summary.json", to_row(SUMMARY))
    assert read_run_summary(tmp_path) == SUMMARY


def test_a_summary_of_an_older_version_is_read(tmp_path):
    row = to_row(SUMMARY)
    del row["eval_bits_per_byte"], row["recall"]["before"]
    write_json(tmp_path / "summary.json", row)
    summary = read_run_summary(tmp_path)
    assert summary.eval_bits_per_byte is None
    assert summary.recall == SUMMARY.recall


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no summary of a run"),
        ({}, "'steps' is missing"),
        (to_row(SUMMARY) | {"steps": "x"}, "'steps' must be a whole number"),
    ],
)
def test_what_is_no_summary_is_refused(tmp_path, content, message):
    write_json(tmp_path / "summary.json", content)
    with pytest.raises(UserError, match=f"summary.json.*{message}"):
        read_run_summary(tmp_path)


def test_a_result_without_its_step_is_refused_instead_of_left_out(tmp_path):
    write_records(tmp_path / "recall.jsonl", [result(step=0), result()])
    with pytest.raises(UserError, match=r"recall\.jsonl: row 2: field 'step' is missing"):
        write_run_report(tmp_path, steps=4, tokens=8, tokens_per_second=None, parameters=2)
    assert not (tmp_path / "summary.json").exists()
