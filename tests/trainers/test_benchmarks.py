"""Benchmarks while training goes on: in the metrics at their steps, without touching the run."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.eval.study.public_copies import write_arc
from tests.eval.study.test_benchmarks import small_index  # noqa: F401  a fixture
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import EvaluationSection
from tidy_stlms.eval.study.benchmarks import Score
from tidy_stlms.trainers import callbacks


def test_benchmarks_are_logged_and_leave_the_weights_as_they_would_be(run_tiny, tmp_path):
    write_arc(tmp_path / "data")
    keys = ["training.max_steps=4", "injection.exposures=1", "evaluation.recall_steps=0"]
    asked = [
        "evaluation.benchmarks=[arc_easy]",
        "evaluation.benchmark_steps=2",
        "evaluation.benchmark_limit=6",
    ]
    folder = run_tiny("with", *keys, *asked, f"evaluation.benchmark_data_dir={tmp_path / 'data'}")
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row["benchmark/arc_easy/acc"] for row in logged if "benchmark/arc_easy/acc" in row}
    assert list(found) == [0, 2, 4]
    assert all(value in [round(k / 6, 6) for k in range(7)] for value in found.values())
    without = run_tiny("without", *keys)
    left, right = (load_file(path / "model.safetensors") for path in (folder, without))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_examples_left_out_and_lines_of_the_log_are_in_the_metrics(monkeypatch):
    blimp = {"acc": Score(0.5, None), "n": 60, "n_too_long": 7}
    found = {"blimp": blimp, "arc": {"acc": Score(0.25, None), "n": 9}}
    monkeypatch.setattr(callbacks, "run_benchmarks", lambda *_, **__: found)
    monkeypatch.setattr(callbacks, "check_benchmarks", lambda _: None)
    logged = {}
    trainer = SimpleNamespace(
        model=None, processing_class=None, args=SimpleNamespace(seed=0), log_beside=logged.update
    )
    callbacks.BenchmarksCallback(trainer, EvaluationSection()).measure(4)
    assert logged == {"benchmark/blimp/acc": 0.5, "benchmark/blimp/n_too_long": 7, "benchmark/arc/acc": 0.25}


def test_a_line_of_the_log_shows_control_characters():
    assert callbacks._log_line({"recall/\x1b[31m\u202e/semantic/accuracy": 0.5}) == (
        "\\u001b[31m\\u202e semantic 0.50"
    )


def test_an_unknown_benchmark_is_refused_before_the_run_begins(run_tiny, tmp_path):
    with pytest.raises(UserError, match="benchmark 'arc_easi'"):
        run_tiny("run", "evaluation.benchmarks=[arc_easi]")
    assert not (tmp_path / "run/config.yaml").exists()
