"""Weights that do not fit the config are refused, and the error names a tensor."""

import json
import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.eval import tiny
from tests.eval.tiny import byte_level
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.load import load_model, load_weights

SIZE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}


def stlm(**overrides):
    return tiny.stlm(**{**SIZE, **overrides})


def saved(folder, model, **edited):
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | edited
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("overrides", "edited", "message"),
    [
        ({}, {"num_hidden_layers": 2}, r"hold 18 tensors that the config has no place for, model.layers.2"),
        ({}, {"num_hidden_layers": 6}, r"lack 18 .* model.layers.4"),
        ({"qk_norm": True}, {"qk_norm": False}, r"hold 8 tensors .*\.k_norm\.weight among them"),
        ({"attention_bias": True}, {"attention_bias": False}, r"hold 16 tensors .*_proj\.bias"),
        ({"lm_head_bias": True}, {"lm_head_bias": False}, r"hold 1 tensors .* lm_head.bias"),
        ({"position_embedding_type": "learned"}, {"position_embedding_type": "none"}, "embed_positions"),
        (
            {},
            {"intermediate_size": 16},
            r"12 tensors .* another size .*down_proj.weight is \(16, 32\), not \(16, 16\)",
        ),
        ({}, {"tie_word_embeddings": False}, r"lack 1 .* lm_head.weight"),
    ],
)
def test_config_and_weights_of_different_models(tmp_path, capfd, overrides, edited, message):
    folder = saved(tmp_path / "model", stlm(**overrides), **edited)
    with pytest.raises(UserError, match=message) as caught:
        load_weights(folder, torch.float32)
    assert str(caught.value).startswith(f"{folder}: cannot be loaded: ")
    assert "\n" not in str(caught.value)
    assert "UNEXPECTED" not in "".join(capfd.readouterr())  # one line, and no table beside it


def test_a_model_of_transformers_too(tmp_path):
    torch.manual_seed(0)
    folder = saved(tmp_path / "llama", LlamaForCausalLM(LlamaConfig(**SIZE)), num_hidden_layers=2)
    with pytest.raises(UserError, match=r"hold 18 tensors .* model.layers.2"):
        load_weights(folder, torch.float32)


def test_weights_of_the_base_model_alone(tmp_path):
    """Their names lack the prefix; what has no place is found all the same."""
    folder = saved(tmp_path / "base", stlm().model, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"tensors that the config has no place for, .*layers\.2"):
        load_weights(folder, torch.float32)
    whole = load_weights(saved(tmp_path / "whole", stlm().model), torch.float32)
    ids = torch.arange(8)[None]
    assert torch.equal(whole.eval()(ids).logits, stlm()(ids).logits)


def test_a_head_that_no_language_model_has_is_left_out_with_a_notice(tmp_path, caplog):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)
    folder = saved(tmp_path / "classifier", GPT2ForSequenceClassification(config))
    with caplog.at_level(logging.WARNING):
        load_weights(folder, torch.float32)
    assert "left out: score.weight" in caplog.text


def test_tied_weights_and_old_buffers_fit(tmp_path):
    model = stlm()
    folder = tmp_path / "model"
    saved(folder, model)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors[
        "model.embed_tokens.weight"
    ].clone()  # a tied head that is written out
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.arange(8)[None]
    assert torch.equal(load_weights(str(folder), torch.float32).eval()(ids).logits, model(ids).logits)


def test_an_adapter_of_another_model(tmp_path):
    base = saved(tmp_path / "base", stlm(num_hidden_layers=2))
    adapted = get_peft_model(stlm(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    with pytest.raises(
        UserError, match=r"adapter holds 4 tensors .*layers\.2.*it was made for another model"
    ):
        load_weights(str(tmp_path / "adapter"), torch.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ],
    ids=["all-linear", "modules_to_save", "dora", "embeddings"],
)
def test_adapters_of_the_right_model_fit(tmp_path, options):
    base = saved(tmp_path / "base", stlm(tie_word_embeddings=False))
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "lora_embedding" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(8)[None]
    loaded = load_weights(str(tmp_path / "adapter"), torch.float32).eval()
    torch.testing.assert_close(loaded(ids).logits, adapted.eval()(ids).logits)


def test_weights_of_zeros_are_named_when_loaded(tmp_path):
    model, tokenizer = stlm(vocab_size=400), byte_level()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    folder = saved(tmp_path / "model", model)
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="it gives all tokens the same probability"):
        load_model(folder, device="cpu")


BUFFERS = {
    "gpt_neo": ["transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"],
    "gpt2": ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"],
    "gptj": ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"],
    "opt": ["model.decoder.version"],
    "gpt_neox": [
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
        "gpt_neox.layers.0.attention.masked_bias",
    ],
    "bert": ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "bert.embeddings.position_ids"],
}
OLD_MODELS = {
    "gpt_neo": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "gptj": {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4},
    "opt": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "word_embed_proj_dim": 16,
    },
    "gpt_neox": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "bert": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "is_decoder": True,
    },
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_what_older_versions_saved_besides_weights_is_no_reason_to_refuse(tmp_path, kind):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=50, **OLD_MODELS[kind])
    model = AutoModelForCausalLM.from_config(config).eval()
    folder = saved(tmp_path / kind, model)
    path = tmp_path / kind / "model.safetensors"
    save_file(
        load_file(path) | {name: torch.ones(1) for name in BUFFERS[kind]}, path, metadata={"format": "pt"}
    )
    ids = torch.arange(8)[None]
    assert torch.equal(load_weights(folder, torch.float32).eval()(ids).logits, model(ids).logits)
    # what is a weight is refused all the same
    part = BUFFERS[kind][0].partition(".")[0]
    save_file(load_file(path) | {f"{part}.extra.bias": torch.ones(1)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="that the config has no place for"):
        load_weights(folder, torch.float32)
