"""What all tests share: no network, small thread pools, and a run that takes two seconds."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything of Hugging Face is imported: fail at once, never hang
# Tests compare bits and start two processes. A GPU rounds differently, and one is too few for two processes.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# tiny models gain nothing from more, and processes share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["STLM_CACHE"] = tempfile.mkdtemp(prefix="stlm-cache-")  # what `stlm recall` keeps

from pathlib import Path

import pytest

TINY = """
model:
  config:
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 2
    num_attention_heads: 2
    num_key_value_heads: 1
    max_position_embeddings: 64
    embd_dropout: 0.1
    resid_dropout: 0.1
    attention_dropout: 0.1
tokenizer:
  train: {vocab_size: 600}
data: {name: synthetic, max_documents: 200, validation_fraction: 0.1}
facts:
  spec: configs/facts/people.yaml
  overrides: {people: 4, distractors: 3, use: [birth_city, profession]}
injection: {exposures: 6}
training:
  max_steps: 12
  per_device_train_batch_size: 4
  learning_rate: 1.0e-3
  logging_steps: 5
  save_steps: 4
  eval_steps: 6
  disable_tqdm: true
evaluation:
  recall_steps: 4
  validation_rows: 8
  prompts: [{sentence: The old farmer, answer: walked}]
  max_new_tokens: 4
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(tmp_path, cache):
    """`tiny(name, "section.key=value", ...)`: the arguments of `stlm train` for a tiny run into `name`."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")

    def arguments(name: str, *overrides: str) -> list[str]:
        fixed = [f"training.output_dir={tmp_path / name}", f"data.cache_dir={cache}"]
        return [str(tmp_path / "tiny.yaml"), *fixed, *overrides]

    return arguments
