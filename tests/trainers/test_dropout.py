"""Dropout schedules: the right probability at every step, in the model, also after a resume."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from modeling_stlm import STLMConfig, STLMForCausalLM
from tidy_stlms.configs.schema import DropoutSection
from tidy_stlms.scripts.__main__ import main
from tidy_stlms.trainers.dropout import dropout_at, set_dropout

SHAPE = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}


def probabilities(steps, **section):
    return [round(dropout_at(step, DropoutSection(**section), 100), 9) for step in steps]


def test_schedules():
    assert probabilities([0, 50, 99], schedule="constant", start=0.2) == [0.2, 0.2, 0.2]
    linear = {"schedule": "linear", "start": 0.1, "end": 0.3}
    assert probabilities([0, 25, 50, 100], **linear) == [0.1, 0.15, 0.2, 0.3]
    assert probabilities([0, 20, 40, 60, 90], **linear, begin=20, until=0.6) == [0.1, 0.1, 0.2, 0.3, 0.3]
    triangle = {"schedule": "triangle", "start": 0.0, "end": 0.2}
    assert probabilities([0, 25, 50, 75, 100], **triangle) == [0.0, 0.1, 0.2, 0.1, 0.0]
    assert probabilities([0, 25, 50, 75, 100], **triangle, cycles=2) == [0.0, 0.2, 0.0, 0.2, 0.0]


@pytest.mark.parametrize("kind", ["stlm", "llama"])
def test_every_dropout_of_a_model_is_set(kind):
    torch.manual_seed(0)
    if kind == "stlm":
        model = STLMForCausalLM(STLMConfig(**SHAPE, **HEADS))
        assert set_dropout(model, 0.5) >= 1 + 2 * 2
    else:
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS))
        assert set_dropout(model, 0.5) == 2
    assert all(module.p == 0.5 for module in model.modules() if isinstance(module, nn.Dropout))
    ids = torch.arange(32)[None]
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    set_dropout(model, 0.0)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert set_dropout(nn.Linear(2, 2), 0.5) == 0


def test_a_resumed_run_goes_on_with_the_schedule(tiny, tmp_path):
    keys = ["dropout.schedule=triangle", "dropout.end=0.5", "evaluation.recall_steps=0"]
    keys += ["training.logging_steps=1"]
    assert main(["train", *tiny("whole", *keys)]) == 0
    assert main(["train", *tiny("again", *keys)]) == 0
    (tmp_path / "again/checkpoint-12/trainer_state.json").unlink()  # as if killed while saving it
    assert main(["train", *tiny("again", *keys, "training.resume_from_checkpoint=true")]) == 0
    logs = [
        [
            (row["step"], row["loss"], row["dropout"])
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
            if "loss" in row
        ]
        for name in ("whole", "again")
    ]
    assert logs[0] == logs[1]
    assert [dropout for *_, dropout in logs[0]] == pytest.approx(
        [0.5 * (1 - abs(2 * step / 12 - 1)) for step in range(12)], abs=1e-6
    )
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "again"))
    assert all(torch.equal(left[name], right[name]) for name in left)
