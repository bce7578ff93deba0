"""The shape of a byte-pooled Super Tiny Language Model.

This file travels to the Hub beside the weights: it may import transformers and its siblings, nothing else.
"""

import copy

from huggingface_hub.dataclasses import strict

from .configuration_stlm import STLMConfig

# The longest character in UTF-8.
MAX_CHARACTER_BYTES = 4


# No `from __future__ import annotations` here: it would turn off the type checks of `@strict`.
@strict
class STLMByteConfig(STLMConfig):
    """Configuration of a byte-pooled STLM: layers over the bytes of a word, and an STLM over words.

    All fields of `STLMConfig` describe the decoder over words, whose kinds of norms and feed-forwards, whose
    dropouts and initial weights are also those of the layers over bytes. The defaults make 10.1M parameters.

    Args:
        vocab_size: The 256 bytes and the special tokens behind them: 258 with `byte_tokenizer()`.
        max_position_embeddings: Longest sequence in bytes.
        byte_hidden_size: Width of the layers over bytes.
        byte_intermediate_size: Width inside their feed-forward.
        num_byte_attention_heads: Number of their heads.
        num_byte_encoder_layers: Layers that gather the bytes of a word into its vector.
        num_byte_decoder_layers: Layers that predict the next byte from the bytes of the word so far and the
            vectors of the words before.
        max_word_bytes: A longer word is cut.
        use_cache: Without effect: the model keeps no cache, and `generate` reads the text anew at every step.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type or an impossible shape. Its `__cause__`
            is the `TypeError` or `ValueError` that names the field and the remedy.
    """

    model_type = "stlm_byte"
    # STLMConfig's would name layers that are not there.
    base_model_tp_plan = None  # type: ignore[assignment]

    vocab_size: int = 258
    hidden_size: int = 320
    intermediate_size: int = 960
    num_hidden_layers: int = 6
    num_attention_heads: int = 5
    num_key_value_heads: int | None = None
    max_position_embeddings: int = 1024
    byte_hidden_size: int = 160
    byte_intermediate_size: int = 480
    num_byte_attention_heads: int = 5
    num_byte_encoder_layers: int = 3
    num_byte_decoder_layers: int = 3
    max_word_bytes: int = 16
    use_cache: bool = False

    def __post_init__(self, **kwargs):
        kwargs["auto_map"] = {
            "AutoConfig": "configuration_stlm_byte.STLMByteConfig",
            "AutoModel": "modeling_stlm_byte.STLMByteModel",
            "AutoModelForCausalLM": "modeling_stlm_byte.STLMByteForCausalLM",
            **(kwargs.get("auto_map") or {}),
        }
        super().__post_init__(**kwargs)

    def byte_layer_config(self) -> STLMConfig:
        """The config of a layer over bytes: this one with the other shape."""
        config = copy.deepcopy(self)
        config.hidden_size = self.byte_hidden_size
        config.intermediate_size = self.byte_intermediate_size
        config.num_attention_heads = self.num_byte_attention_heads
        config.num_key_value_heads = config.head_dim = config.num_ffn_groups = None
        return config

    def validate_byte_layers(self):
        for name in (
            "byte_hidden_size",
            "byte_intermediate_size",
            "num_byte_attention_heads",
            "num_byte_encoder_layers",
            "num_byte_decoder_layers",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be at least 1")
        if self.max_word_bytes < MAX_CHARACTER_BYTES:
            raise ValueError(
                f"`max_word_bytes` is {self.max_word_bytes}: it must be at least {MAX_CHARACTER_BYTES}, the "
                "bytes of a long character"
            )
        heads = self.num_byte_attention_heads
        if self.byte_hidden_size % heads != 0:
            raise ValueError(
                f"`byte_hidden_size` ({self.byte_hidden_size}) is not a multiple of "
                f"`num_byte_attention_heads` ({heads}): change one of the two"
            )


__all__ = ["STLMByteConfig"]
