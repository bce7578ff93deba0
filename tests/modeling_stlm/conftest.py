"""Tiny models, built on the spot."""

from collections.abc import Callable

import pytest
import torch

from modeling_stlm import STLMConfig, STLMForCausalLM


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
        return STLMForCausalLM(STLMConfig(**{**config, **overrides})).eval()

    return make


@pytest.fixture
def model(make_model) -> STLMForCausalLM:
    return make_model()


@pytest.fixture
def input_ids() -> torch.LongTensor:
    return torch.randint(97, (2, 11), generator=torch.Generator().manual_seed(1))  # (batch, seq)
