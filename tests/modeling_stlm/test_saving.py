"""A saved folder opens anywhere: in this process, after the Trainer, and where the project is missing."""

import json
import os
import subprocess
import sys

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, Trainer, TrainingArguments

from modeling_stlm import STLMForCausalLM, STLMModel
from modeling_stlm.tokenization_stlm import train_bpe_tokenizer


def assert_complete(folder):
    """The folder holds the code and says where each Auto class finds its own."""
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_stlm.STLMConfig",
        "AutoModel": "modeling_stlm.STLMModel",
        "AutoModelForCausalLM": "modeling_stlm.STLMForCausalLM",
    }
    assert {path.name for path in folder.glob("*.py")} == {"configuration_stlm.py", "modeling_stlm.py"}


OTHER = {
    "position_embedding_type": "learned",
    "attention_bias": True,
    "mlp_type": "plain",
    "hidden_act": "gelu",
    "mlp_bias": True,
    "num_ffn_groups": 1,
    "norm_type": "layernorm",
    "norm_bias": True,
    "lm_head_bias": True,
}


@pytest.mark.parametrize("tied", [True, False])
def test_load_gives_equal_outputs(make_model, input_ids, tmp_path, tied):
    model = make_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    assert_complete(tmp_path)

    causal = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(causal) is STLMForCausalLM
    assert torch.equal(causal(input_ids).logits, model(input_ids).logits)
    assert (causal.lm_head.weight is causal.model.embed_tokens.weight) is tied

    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is STLMModel
    expected = model.model(input_ids).last_hidden_state
    assert torch.equal(base(input_ids).last_hidden_state, expected)


def test_shared_feed_forwards_are_saved_once_under_their_own_names(make_model, tmp_path):
    make_model(**OTHER).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    shared = {name for name in names if ".ffns." in name}
    assert shared == {
        f"model.ffns.0.{part}.{kind}" for part in ("up_proj", "down_proj") for kind in ("weight", "bias")
    }
    assert not any(".mlp." in name for name in names)


def test_a_saved_base_model_opens_as_a_causal_model(model, input_ids, tmp_path):
    model.model.save_pretrained(tmp_path)
    assert_complete(tmp_path)
    causal = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(causal(input_ids).logits, model(input_ids).logits)


def test_a_saved_config_brings_its_code_along(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "configuration_stlm.py"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_buffers_survive_the_meta_device(model, tmp_path, dtype):
    model.save_pretrained(tmp_path)
    rotary = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).model.rotary_emb
    expected = 10_000.0 ** -(torch.arange(0, 8, 2) / 8)  # head_dim 8
    torch.testing.assert_close(rotary.inv_freq, expected)
    torch.testing.assert_close(rotary.original_inv_freq, expected)


def test_trainer_saves_a_complete_folder(model, input_ids, tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True
    )
    dataset = [{"input_ids": row, "labels": row} for row in input_ids]
    trainer = Trainer(model, arguments, train_dataset=dataset)
    trainer.train()
    assert_complete(tmp_path / "checkpoint-1")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
    assert torch.equal(loaded(input_ids).logits, model.eval()(input_ids).logits)


@pytest.mark.parametrize(("fields", "matrices"), [({}, 2 * 7), (OTHER, 2 * 4 + 2)])
def test_lora_adapter_saves_loads_and_merges(make_model, input_ids, tmp_path, fields, matrices):
    model = make_model(**fields)
    model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2, init_lora_weights=False)
    adapted = get_peft_model(base, lora).eval()
    assert len(adapted.targeted_module_names) == matrices  # the tied head is left alone
    expected = adapted(input_ids).logits
    assert not torch.allclose(expected, model(input_ids).logits)

    adapted.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(loaded(input_ids).logits, expected)

    merged = loaded.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert_complete(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(input_ids).logits, expected, atol=1e-4, rtol=0)


# Hides the project's packages, loads the folder by every Auto class, and saves it again by two of them.
STRANGER = """
import sys
for room in ("modeling_stlm", "configs", "eval", "trainers", "scripts"):
    sys.modules[room] = None  # any import of it now fails
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

folder, again, out, other, other_out = map(Path, sys.argv[1:])
trust = {"trust_remote_code": True}
assert AutoConfig.from_pretrained(folder, **trust).model_type == "stlm"
tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
causal = AutoModelForCausalLM.from_pretrained(folder, **trust)
base = AutoModel.from_pretrained(folder, **trust)
assert type(causal).__module__.startswith("transformers_modules.")
input_ids = tokenizer("a text for a stranger", return_tensors="pt").input_ids
outputs = {
    "input_ids": input_ids,
    "logits": causal(input_ids).logits,
    "hidden": base(input_ids).last_hidden_state,
    "generated": causal.generate(input_ids, max_new_tokens=3, do_sample=False),
}
causal.save_pretrained(again / "causal")
base.save_pretrained(again / "base")
reloaded = AutoModelForCausalLM.from_pretrained(again / "base", **trust)
assert torch.equal(reloaded(input_ids).logits, outputs["logits"])
torch.save(outputs, out)
other = AutoModelForCausalLM.from_pretrained(other, **trust)
torch.save(other(input_ids).logits, other_out)
"""


def test_opens_where_the_project_is_not_installed(make_model, tmp_path):
    tokenizer = train_bpe_tokenizer(["a text for a stranger, and one more"], vocab_size=270)
    model = make_model(vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    other = make_model(vocab_size=len(tokenizer), **OTHER)
    other.save_pretrained(tmp_path / "other")

    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    names = ("model", "again", "outputs.pt", "other", "other.pt")
    arguments = [tmp_path / name for name in names]
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, *map(str, arguments)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr

    outputs = torch.load(tmp_path / "outputs.pt")
    input_ids = outputs["input_ids"]
    assert torch.equal(input_ids, tokenizer("a text for a stranger", return_tensors="pt").input_ids)
    assert torch.equal(outputs["logits"], model(input_ids).logits)
    assert torch.equal(outputs["hidden"], model.model(input_ids).last_hidden_state)
    assert torch.equal(outputs["generated"], model.generate(input_ids, max_new_tokens=3, do_sample=False))
    assert torch.equal(torch.load(tmp_path / "other.pt"), other(input_ids).logits)
    assert_complete(tmp_path / "again" / "causal")
    assert_complete(tmp_path / "again" / "base")
