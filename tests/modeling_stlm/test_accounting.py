"""Figures counted without running a model equal those of a model that runs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
)

from modeling_stlm import STLMConfig
from modeling_stlm.accounting import (
    BYTES_PER_WORD,
    PARTS,
    account,
    cache_numbers_per_token,
    training_flops_per_token,
)
from tests.modeling_stlm.byte_examples import FAMILY, make_byte_model

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def counted_flops(model, length: int) -> int:
    """Operations of one training step on one row, as torch counts them."""
    model.set_attn_implementation("eager")  # whose products are plain ones
    input_ids = torch.zeros(1, length, dtype=torch.long, device=model.device)
    with FlopCounterMode(display=False) as counter:
        model(input_ids, use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


def test_flops_of_every_member_of_the_family_equal_what_torch_counts(make_model, variant):
    model = make_model(**variant)
    # the rotation of rotary positions is elementwise, and no matrix product is forgotten
    assert training_flops_per_token(model, 10) * 10 == counted_flops(model, 10)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4),
        GPTNeoXConfig(**SMALL, intermediate_size=64),
        LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2),
        OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=16),
    ],
    ids=lambda config: config.model_type,
)
def test_flops_of_other_architectures_equal_what_torch_counts(config):
    model = AutoModelForCausalLM.from_config(config)
    assert training_flops_per_token(model, 10) * 10 == counted_flops(model, 10)


def test_flops_of_tidy_stlms_default_model_by_hand():
    attention, feed_forward = 2 * 512 * 512 + 2 * 512 * 128, 3 * 512 * 1536
    weights = 8 * (attention + feed_forward) + 50257 * 512
    expected = 6 * weights + 12 * 8 * 16 * 32 * 512  # PaLM's 6 N + 12 L H Q T
    assert account(on_meta(STLMConfig()))["training_flops_per_token"] == expected == 324_258_816


def test_parts_of_gpt2_are_those_that_its_paper_gives():
    figures = account(on_meta(GPT2Config()))
    assert figures["parameters"] == {
        "embeddings": 50257 * 768,
        "positions": 1024 * 768,
        "attention": 12 * (4 * 768 * 768 + 4 * 768),
        "feed-forward": 12 * (8 * 768 * 768 + 5 * 768),
        "norms": 25 * 2 * 768,
    }
    assert figures["total"] == 124_439_808
    assert figures["bytes"] == {"float32": 4 * 124_439_808, "bfloat16": 2 * 124_439_808}


def test_parts_of_pythia():
    config = GPTNeoXConfig(
        vocab_size=50304, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048
    )
    figures = account(on_meta(config))
    # Biderman et al. 2023, table 1: of pythia-70m's parameters 18,915,328 are not in embeddings
    assert figures["total"] == 70_426_624
    assert figures["non_embedding"] == 18_915_328
    assert figures["parameters"]["head"] == figures["parameters"]["embeddings"] == 50304 * 512


@pytest.mark.parametrize(
    "config", [BloomConfig(**SMALL), OPTConfig(**SMALL, ffn_dim=64)], ids=["bloom", "opt"]
)
def test_parts_of_other_architectures_are_told_by_name(config):
    model = on_meta(config)
    parts = account(model)["parameters"]
    assert sum(parts.values()) == model.num_parameters()
    expected = {"embeddings", "attention", "feed-forward", "norms"}
    assert set(parts) - {"positions", "head"} == expected
    norms = sum(
        parameter.numel() for name, parameter in model.named_parameters() if "norm" in name or "ln_" in name
    )
    assert parts["norms"] == norms


def test_what_cannot_be_told_is_not_guessed():
    mamba = account(on_meta(MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2)))
    assert set(mamba["parameters"]) == {"embeddings", "mixer", "norms"}
    assert mamba["training_flops_per_token"] is None
    assert mamba["cache_bytes_per_token"] is None

    experts = {"num_local_experts": 4, "intermediate_size": 48, "num_key_value_heads": 2}
    mixtral = account(on_meta(MixtralConfig(**SMALL, **experts)))
    assert (
        mixtral["training_flops_per_token"] is None
    )  # how many experts a token meets is the router's choice
    assert mixtral["parameters"]["feed-forward"] > 4 * 3 * 32 * 48

    window = MistralConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, sliding_window=8)
    assert account(on_meta(window))["training_flops_per_token"] is None


def test_cache_per_token_equals_that_of_a_real_cache(make_model, variant, input_ids):
    model = make_model(**variant)
    cache = model(input_ids).past_key_values
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert cache_numbers_per_token(model.config) * input_ids.numel() == kept


@pytest.mark.parametrize("overrides", FAMILY)
def test_flops_of_a_byte_equal_what_torch_counts_where_words_are_as_long_as_is_assumed(overrides):
    model = make_byte_model(**{**overrides, "max_word_bytes": 8})  # words of 5 bytes are not cut
    model.set_attn_implementation("eager")
    input_ids = torch.tensor([list(b" word" * 16)])  # 80 bytes: whole chunks of 8
    assert len(b" word") == BYTES_PER_WORD
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids).logits.sum().backward()
    assert training_flops_per_token(model, 80) * 80 == pytest.approx(counter.get_total_flops(), abs=40)


def test_the_byte_model_is_accounted_for_by_module():
    model = make_byte_model()
    figures = account(model)
    assert sum(figures["parameters"].values()) == model.num_parameters()
    assert set(figures["parameters"]) == {*PARTS, "pool_proj", "context_proj"} - {"head"}
    assert figures["parameters"]["positions"] == 8 * 16  # places in a word
    assert figures["assumed_bytes_per_word"] == BYTES_PER_WORD
    assert figures["cache_bytes_per_token"] == {"float32": 0, "bfloat16": 0}
