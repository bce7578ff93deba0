"""A run whose numbers are no longer finite stops at once, with one line, and leaves whole files."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from tidy_stlms.configs.files import read_jsonl, to_json, write_json, write_jsonl
from tidy_stlms.scripts.__main__ import main
from tidy_stlms.trainers.trainer import STLMTrainer


def strict(text: str):
    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def fails(capsys, arguments) -> str:
    capsys.readouterr()
    assert main(["train", *arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stlm: error: ")]
    assert len(lines) == 1
    return lines[0]


def check_what_is_left(folder, last_step):
    """Nothing behind the last good step, whole checkpoints, and JSON that any reader takes."""
    for path in folder.rglob("*.json*"):
        for line in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
            strict(line)
    assert max(row["step"] for row in read_jsonl(folder / "metrics.jsonl")) <= last_step
    checkpoints = sorted(folder.glob("checkpoint-*"))
    for checkpoint in checkpoints:
        assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "model.safetensors").values())
    assert not (folder / "summary.json").exists()
    return [path.name for path in checkpoints]


def poison(monkeypatch, step, value=math.nan, *, gradient=False):
    """Make the loss of one step `value`; or only its gradient, with the loss as it was."""
    original = STLMTrainer.training_step

    def training_step(self, model, *args, **kwargs):
        loss = original(self, model, *args, **kwargs)
        if self.state.global_step + 1 != step:
            return loss
        if gradient:
            next(model.parameters()).grad[0] = value
            return loss
        return loss * value

    if gradient:
        monkeypatch.setattr(STLMTrainer, "training_step", training_step)
    else:  # below ours, which looks at the loss
        parent = STLMTrainer.__mro__[1]
        below = parent.training_step

        def broken(self, *args, **kwargs):
            loss = below(self, *args, **kwargs)
            return loss * value if self.state.global_step + 1 == step else loss

        monkeypatch.setattr(parent, "training_step", broken)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path, capsys, monkeypatch, value):
    with monkeypatch.context() as broken:
        poison(broken, 6, value)
        line = fails(capsys, tiny("run"))
    assert "step 6: the loss is not a finite number (learning rate 0.0" in line
    assert "lower training.learning_rate, lower training.max_grad_norm or raise training.warmup_steps" in line
    assert f"the last whole checkpoint is {tmp_path / 'run/checkpoint-4'}" in line
    assert check_what_is_left(tmp_path / "run", last_step=5) == ["checkpoint-4"]
    # without what broke it, it goes on as if nothing had been
    assert main(["train", *tiny("run", "training.resume_from_checkpoint=true")]) == 0
    assert main(["train", *tiny("whole")]) == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.parametrize("clipping", ["1.0", "0"])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(
    tiny, tmp_path, capsys, monkeypatch, clipping
):
    poison(monkeypatch, 4, math.inf, gradient=True)
    line = fails(capsys, tiny("run", f"training.max_grad_norm={clipping}", "training.save_steps=3"))
    assert "step 4: the gradient norm is not a finite number" in line
    assert ("set training.max_grad_norm=1" in line) is (clipping == "0")
    assert check_what_is_left(tmp_path / "run", last_step=3) == ["checkpoint-3"]


def test_weights_that_an_update_breaks_are_neither_measured_nor_saved(tiny, tmp_path, capsys, monkeypatch):
    class Break(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step + 1 == 4:  # recall is measured, and a checkpoint is due
                with torch.no_grad():
                    next(model.parameters())[0] = math.nan

    original = STLMTrainer.__init__

    def with_break(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Break())

    monkeypatch.setattr(STLMTrainer, "__init__", with_break)
    line = fails(capsys, tiny("run", "training.save_steps=2"))
    assert "step 4: the weights are not finite numbers" in line
    assert check_what_is_left(tmp_path / "run", last_step=4) == ["checkpoint-2"]
    assert {row["step"] for row in read_jsonl(tmp_path / "run/recall.jsonl")} == {0}


def test_a_learning_rate_that_is_much_too_large_is_named(tiny, tmp_path, capsys):
    line = fails(
        capsys, tiny("run", "training.learning_rate=1e6", "training.warmup_steps=0", "facts.spec=null")
    )
    assert "step 2: the gradient norm is not a finite number (learning rate 9." in line
    assert "there is no checkpoint yet" in line


def test_the_filter_that_hides_such_losses_cannot_be_switched_on(tiny, capsys):
    assert main(["train", *tiny("run", "training.logging_nan_inf_filter=true")]) == 2
    assert "training.logging_nan_inf_filter" in capsys.readouterr().err


def test_json_holds_null_where_there_is_no_number(tmp_path):
    value = {"a": [1.5, math.nan], "b": {"c": -math.inf}, "d": (math.inf, None, "NaN", 3, True)}
    expected = {"a": [1.5, None], "b": {"c": None}, "d": [None, None, "NaN", 3, True]}
    assert strict(to_json(value)) == expected
    write_json(tmp_path / "a.json", value)
    assert strict((tmp_path / "a.json").read_text()) == expected
    write_jsonl(tmp_path / "a.jsonl", [value, {"e": 1.0}])
    assert [strict(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        expected,
        {"e": 1.0},
    ]
    assert to_json({"e": "é"}, indent=2) == '{\n  "e": "é"\n}'
