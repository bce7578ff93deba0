"""What a run folder holds: what makes it one, its checkpoints, its plan."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.run_folder import (
    CONFIG,
    ENVIRONMENT,
    PLAN,
    SUMMARY,
    checkpoint_of,
    checkpoints_of,
    count_exposures,
    final_step,
    has_plan,
    is_laid_out,
    is_run,
    read_plan,
    step_of,
)


def test_a_config_alone_makes_no_run_but_a_layout_to_go_on_with(tmp_path):
    assert not is_run(tmp_path)
    assert not is_laid_out(tmp_path)
    (tmp_path / CONFIG).write_text("model: {}")  # other programs write one too
    assert not is_run(tmp_path)
    assert is_laid_out(tmp_path)
    (tmp_path / ENVIRONMENT).write_text("{}")
    assert is_run(tmp_path)


def test_checkpoints_come_in_order_of_their_steps(tmp_path):
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-3", "checkpoint-x", ".saving"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-4").write_text("a file")
    assert checkpoints_of(tmp_path) == [checkpoint_of(tmp_path, step) for step in (3, 20, 100)]
    assert [step_of(path) for path in checkpoints_of(tmp_path)] == [3, 20, 100]


@pytest.mark.parametrize(
    ("summary", "step"), [('{"steps": 12}', 12), ("{}", None), ("[]", None), ('{"steps": "12"}', None)]
)
def test_the_final_step_is_the_summarys(tmp_path, summary, step):
    assert final_step(tmp_path) is None
    (tmp_path / SUMMARY).write_text(summary)
    assert final_step(tmp_path) == step


def test_a_damaged_summary_is_named(tmp_path):
    (tmp_path / SUMMARY).write_text("{")
    with pytest.raises(UserError, match=SUMMARY):
        final_step(tmp_path)


def test_exposures_are_counted_up_to_a_step(tmp_path):
    assert not has_plan(tmp_path)
    table = pa.table({"step": [0, 1, 1, 4], "fact_ids": [["a"], ["a", "b"], ["c"], ["d"]]})
    pq.write_table(table, tmp_path / PLAN)
    plan = read_plan(tmp_path)
    assert count_exposures(plan) == {"a": 2, "b": 1, "c": 1, "d": 1}
    # after one step, step 0 has been seen
    assert dict(count_exposures(plan, 1)) == {"a": 1, "b": 0, "c": 0, "d": 0}
    assert not any(count_exposures(plan, 0).values())
