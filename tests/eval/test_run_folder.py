"""What a run folder holds: what makes it one, its checkpoints, its plan."""

import json

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
    read_packing,
    read_plan,
    read_run_config,
    read_versions,
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


GOOD_PLAN = {"step": [0, 1], "fact_ids": [["a"], ["b"]]}


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"PAR1 cut off",
        {"step": [0, 1]},
        {"fact_ids": [["a"]]},
        GOOD_PLAN | {"step": ["x", "y"]},
        GOOD_PLAN | {"step": [None, 1]},
        GOOD_PLAN | {"step": [float("nan"), 1.0]},
        GOOD_PLAN | {"fact_ids": ["a", "b"]},
        GOOD_PLAN | {"fact_ids": [None, ["b"]]},
        GOOD_PLAN | {"fact_ids": [["a"], [None]]},
    ],
)
def test_a_damaged_plan_is_named(tmp_path, damaged):
    if isinstance(damaged, bytes):
        (tmp_path / PLAN).write_bytes(damaged)
    else:
        pq.write_table(pa.table(damaged), tmp_path / PLAN)
    with pytest.raises(UserError, match=r"plan\.parquet: is no plan of a run: ") as error:
        read_plan(tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("versions", [None, [], {"torch": 2}, "2.13"])
def test_damaged_versions_are_named(tmp_path, versions):
    (tmp_path / ENVIRONMENT).write_text('{"versions": {"torch": "2.13"}}')
    assert read_versions(tmp_path) == {"torch": "2.13"}
    (tmp_path / ENVIRONMENT).write_text(json.dumps({"versions": versions}))
    with pytest.raises(UserError, match=r"environment\.json: versions are missing"):
        read_versions(tmp_path)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"model": None}, "model=null: must be"),
        ({"model": [1]}, "model=.*: must be"),
        ({"data": "x"}, "data='x': must be"),
        ({"data": {"name": ["x"]}}, "data.name=.*: must be a text"),
        ({"injection": True}, "injection=True: must be"),
        ({"training": {"seed": {}}}, "training.seed is missing"),
        ({"training": {}}, "training.seed is missing"),
        ({"training": [1]}, "training=.*: must be"),
    ],
)
def test_a_damaged_config_of_a_run_is_named(tmp_path, values, problem):
    good = {"model": {"name_or_path": "gpt2"}, "data": {}, "injection": {}, "training": {"seed": 1}}
    (tmp_path / CONFIG).write_text(json.dumps(good))
    config = read_run_config(tmp_path)
    assert (config["model"]["name_or_path"], config["data"]["name"]) == ("gpt2", "synthetic")
    (tmp_path / CONFIG).write_text(json.dumps(good | values))
    with pytest.raises(UserError, match=rf"config\.yaml: {problem}"):
        read_run_config(tmp_path)


def test_the_packing_is_read_and_a_run_that_does_not_say_joined_its_documents(tmp_path):
    for content, packing in (('{"stream": {"packing": "apart"}}', "apart"), ('{"stream": {}}', "joined")):
        (tmp_path / ENVIRONMENT).write_text(content)
        assert read_packing(tmp_path) == packing
    for damaged in ('{"stream": 1}', '{"stream": {"packing": ["apart"]}}', '{"stream": {"packing": "x"}}'):
        (tmp_path / ENVIRONMENT).write_text(damaged)
        with pytest.raises(UserError, match=r"stream\.packing is damaged"):
            read_packing(tmp_path)
