"""Two commands at the same moment: in one run folder, on one cache, into one folder of results."""

import os
import subprocess
import sys

import pytest

from tests.trainers.test_exactness import assert_bit_equal, logs, weights
from tidy_stlms.configs.files import read_json, read_jsonl
from tidy_stlms.eval.run_folder import checkpoints_of


def both(*commands, **environment):
    """Start the commands at once; (exit code, stderr) of each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tidy_stlms.scripts", *map(str, command)],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    return [(process.communicate()[1], process.returncode)[::-1] for process in started]


def test_of_two_trains_into_one_folder_one_is_refused(tiny, tmp_path):
    ended = both(*[["train", *tiny("run")]] * 2)
    assert sorted(code for code, _ in ended) == [0, 2]
    error = next(error for code, error in ended if code == 2)
    assert "another `stlm train` is writing there" in error
    assert error.count("\n") == 1
    losses = [row["step"] for row in read_jsonl(tmp_path / "run/metrics.jsonl") if "loss" in row]
    assert losses == [1, 5, 10, 12]
    assert [path.name for path in checkpoints_of(tmp_path / "run")] == ["checkpoint-8", "checkpoint-12"]


def test_two_trains_on_one_empty_cache_are_both_whole(tiny, tmp_path):
    fresh = f"data.cache_dir={tmp_path / 'cache'}"
    commands = [["train", *tiny(name, fresh)] for name in ("one", "two")]
    assert [code for code, _ in both(*commands)] == [0, 0]
    assert_bit_equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert logs(tmp_path / "one") == logs(tmp_path / "two")
    hidden = [path for path in (tmp_path / "cache").rglob(".*") if not path.name.endswith(".lock")]
    assert hidden == []


@pytest.mark.parametrize("out", [("a", "b"), ("a", "a")])
def test_two_recalls_on_one_cache(run, tmp_path, out):
    commands = [["recall", run, "--facts", run / "facts", "--out", tmp_path / name] for name in out]
    ended = both(*commands, STLM_CACHE=str(tmp_path / "cache"))
    if out == ("a", "b"):
        assert [code for code, _ in ended] == [0, 0]
        rows = [read_jsonl(tmp_path / name / "results.jsonl") for name in out]
        assert rows[0] == rows[1]
    else:
        assert sorted(code for code, _ in ended) == [0, 2]
        (error,) = (error for code, error in ended if code == 2)
        assert f"{tmp_path / 'a'}: " in error
        assert "exists already" in error or "already holds something" in error
    again, _ = both(commands[0] + ["--overwrite"], commands[0][:-2], STLM_CACHE=str(tmp_path / "cache"))
    assert again[0] == 0
    assert read_json(tmp_path / "a/summary.json")["models"]
    assert len(read_jsonl(tmp_path / "a/results.jsonl")) > 0
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
