"""Every size of `configs/models` trains: its file, with one layer and a small vocabulary, for two steps."""

import json
import math
from pathlib import Path

import pytest
import yaml

from configs.load import load_config
from trainers.run import train

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
  use_cpu: true
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

    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert saved["model_type"] == section.get("type", "stlm")
    wanted = {**section["config"], **small}
    assert {name: saved[name] for name in wanted} == wanted
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == [1, 2]
    assert all(math.isfinite(loss) for loss in losses.values())
