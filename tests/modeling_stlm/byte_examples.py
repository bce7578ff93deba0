"""A tiny byte-pooled model and texts for it, shared by its tests."""

import torch

from modeling_stlm import STLMByteConfig, STLMByteForCausalLM

PAD, END = 256, 257
TEXTS = [
    "The cat's 3rd hat, x==10\n\n  and more",
    "naïve “東京” 😀😀😀 Ünïcödé — ¿qué?",
    "supercalifragilisticexpialidocious 12345678901234567890",
    "東京東京東京東京東京 " * 2,
]


def make_byte_model(**overrides) -> STLMByteForCausalLM:
    """A tiny model in eval mode, the same one for the same overrides of the config."""
    config = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "byte_hidden_size": 16,
        "byte_intermediate_size": 24,
        "num_byte_attention_heads": 2,
        "num_byte_encoder_layers": 2,
        "num_byte_decoder_layers": 2,
        "max_word_bytes": 8,
        "initializer_range": 0.3,  # attention is then far from uniform: a wrong mask or position must show
        "pad_token_id": PAD,
        "bos_token_id": END,
        "eos_token_id": END,
    }
    torch.manual_seed(0)
    return STLMByteForCausalLM(STLMByteConfig(**{**config, **overrides})).eval()


FAMILY = [
    {},
    {"position_embedding_type": "learned", "norm_type": "layernorm", "norm_bias": True, "mlp_type": "plain"},
    {"position_embedding_type": "sinusoidal", "num_ffn_groups": 1, "tie_word_embeddings": False},
    {"position_embedding_type": "none", "qk_norm": True, "attention_bias": True, "lm_head_bias": True},
    {
        "norm_type": "none",
        "initializer_range": 0.1,
        "num_byte_encoder_layers": 1,
        "num_byte_decoder_layers": 1,
        "max_word_bytes": 4,
    },
]


def ids_of(text: str) -> list[int]:
    """Bytes, with end-of-text in front and wherever the text holds a `|`."""
    return [END, *(END if byte == ord("|") else byte for byte in text.encode())]
