"""Tiny models, built on the spot, and the members of the family that are looked at."""

from collections.abc import Callable

import pytest
import torch

from modeling_stlm import STLMConfig, STLMForCausalLM

POSITIONS = {
    "rotary": {},
    "learned": {"position_embedding_type": "learned"},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "none": {"position_embedding_type": "none"},
    "rotary_fast": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
}
NORMS = {
    "rmsnorm": {},
    "layernorm": {"norm_type": "layernorm"},
    "layernorm_bias": {"norm_type": "layernorm", "norm_bias": True},
    "no_norm": {"norm_type": "none"},
    "mixed": {"attention_norm_type": "layernorm", "mlp_norm_type": "none", "norm_bias": True},
}
MLPS = {
    "swiglu": {},
    "gated_relu2": {"hidden_act": "relu2"},
    "plain_gelu": {"mlp_type": "plain", "hidden_act": "gelu", "mlp_bias": True},
    "plain_leaky": {"mlp_type": "plain", "hidden_act": "leaky_relu"},
    "gated_tanh": {"hidden_act": "tanh", "mlp_bias": True},
}
SHARING = {
    "own_mlps": {},
    "one_mlp": {"num_ffn_groups": 1},
    "two_mlps": {"num_ffn_groups": 2},
    "three_mlps": {"num_ffn_groups": 3},  # as many as layers
    "own_mlps_too": {},
}
HEADS = {
    "grouped": {},
    "single_kv": {"num_key_value_heads": 1, "qk_norm": True},
    "all_kv": {"num_key_value_heads": None, "attention_bias": True},
    "narrow": {"head_dim": 6, "qk_norm": True, "attention_bias": True},
    "all_kv_plain": {"num_key_value_heads": 4},
}
OUTPUTS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "tied_bias": {"lm_head_bias": True},
    "untied_bias": {"tie_word_embeddings": False, "lm_head_bias": True},
    "tied_too": {},
}
AXES = (POSITIONS, NORMS, MLPS, SHARING, HEADS, OUTPUTS)


def _variants() -> dict[str, dict]:
    """25 members of the family, in which any two options meet: an orthogonal array over five levels."""
    variants = {}
    for row in range(5):
        for column in range(5):
            levels = (row, *((column + step * row) % 5 for step in range(5)))
            chosen = [list(axis.items())[level] for axis, level in zip(AXES, levels, strict=True)]
            name = "-".join(label for label, _ in chosen)
            variants[name] = {key: value for _, fields in chosen for key, value in fields.items()}
            # without any norm to bound them, states grow with every layer
            variants[name]["initializer_range"] = 0.15 if "no_norm" in name else 0.3
    return variants


VARIANTS = _variants()


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request) -> dict:
    """The fields of one member of the family."""
    return {"num_hidden_layers": 3, **request.param}


@pytest.fixture
def make_model() -> Callable[..., STLMForCausalLM]:
    """A function that builds a tiny model in eval mode, the same one for the same overrides of the config."""

    def make(**overrides) -> STLMForCausalLM:
        config = {
            "vocab_size": 97,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            # Large enough for attention to be far from uniform: a wrong mask or position must show.
            "initializer_range": 0.3,
        }
        torch.manual_seed(0)
        model = STLMForCausalLM(STLMConfig(**{**config, **overrides})).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they begin as zeros, and would hide what is wrong with them
                torch.nn.init.normal_(parameter, std=0.2)
        return model

    return make


@pytest.fixture
def model(make_model) -> STLMForCausalLM:
    return make_model()


@pytest.fixture
def input_ids() -> torch.LongTensor:
    return torch.randint(97, (2, 11), generator=torch.Generator().manual_seed(1))  # (batch, seq)
