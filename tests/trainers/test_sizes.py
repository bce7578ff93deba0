"""Every size of `configs/models` trains: its file, with one layer and a small vocabulary, for two steps."""

import json
import math
from pathlib import Path

import pytest
import yaml

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.load import load_config
from tidy_stlms.trainers.run import train

MODELS = Path(__file__).parent.parent.parent / "configs" / "models"
SIZES = sorted(path.stem for path in MODELS.glob("*.yaml"))
# what is made small, so that it is quick; all other fields of the file shall arrive
SHALLOW = {"num_hidden_layers": 1}
SHALLOW_BYTES = {**SHALLOW, "num_byte_encoder_layers": 1, "num_byte_decoder_layers": 1}
SHORT = """
data: {name: synthetic, max_documents: 200, validation_fraction: 0.1, context_window: 64}
training:
  max_steps: 2
  per_device_train_batch_size: 2
  logging_steps: 1
  eval_steps: 2
  save_strategy: "no"
  disable_tqdm: true
evaluation: {validation_rows: 2, prompts: []}
"""
TOKENIZER = "tokenizer: {name_or_path: null, train: {vocab_size: 600}}"


def test_the_sizes_are_found():
    assert len(SIZES) >= 6


@pytest.mark.parametrize("size", SIZES)
def test_a_size_trains(size, tiny, tmp_path):
    section = yaml.safe_load((MODELS / f"{size}.yaml").read_text())["model"]
    over_bytes = section.get("type") == "stlm_byte"
    small = SHALLOW_BYTES if over_bytes else SHALLOW
    (tmp_path / "short.yaml").write_text(SHORT + ("" if over_bytes else TOKENIZER), encoding="utf-8")
    _, output_dir, cache_dir = tiny("run")
    overrides = [f"model.config.{name}={value}" for name, value in small.items()]
    train(
        *load_config([MODELS / f"{size}.yaml", tmp_path / "short.yaml"], [output_dir, cache_dir, *overrides])
    )

    check_run(tmp_path / "run", section.get("type", "stlm"), {**section["config"], **small})


def test_a_model_of_another_family_trains(tiny, tmp_path):
    (tmp_path / "short.yaml").write_text(SHORT + TOKENIZER, encoding="utf-8")
    _, output_dir, cache_dir = tiny("run")
    # hidden_size is what others call GPT-2's n_embd
    given = ["model.type=gpt2", "model.config={hidden_size: 32, n_layer: 1, n_head: 2, n_positions: 64}"]
    train(*load_config([tmp_path / "short.yaml"], [output_dir, cache_dir, *given]))
    check_run(tmp_path / "run", "gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64})


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        ("gpt2", "n_embed: 32", "model.config.n_embed: no such key; did you mean model.config.n_embd?"),
        ("bert", "hidden_size: 10", "model.config: The hidden size (10) is not a multiple"),
        ("bert", "hidden_size: 24, num_hidden_layers: 1", "model bert: not a causal language model"),
    ],
)
def test_what_cannot_be_built_is_one_line(model_type, fields, message, tiny, tmp_path):
    (tmp_path / "short.yaml").write_text(SHORT + TOKENIZER, encoding="utf-8")
    _, output_dir, cache_dir = tiny("run")
    given = [f"model.type={model_type}", f"model.config={{{fields}}}"]
    with pytest.raises(UserError) as caught:
        train(*load_config([tmp_path / "short.yaml"], [output_dir, cache_dir, *given]))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def check_run(folder, model_type, fields):
    """The model that was saved, and the two losses that were logged."""
    saved = json.loads((folder / "config.json").read_text())
    assert saved["model_type"] == model_type
    assert {name: saved[name] for name in fields} == fields
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == [1, 2]
    assert all(math.isfinite(loss) for loss in losses.values())
